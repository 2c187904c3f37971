// Putting something of the host into a QEMU as a PCI device: on a PCIe port that is free, or on the PCI bus
// of a machine that has no such ports.
#pragma once

#include "vmm/qemu_session.h"

struct qemu_port_plug {
    const char *driver;                                // "vfio-pci"
    const char *property;                              // of the driver, that names the host's device
    const char *(*value)(const struct device *device); // of that property
    // NULL, or completes the arguments of device_add, and sends what has to go before it and after it.
    void (*before)(struct qemu *qemu, struct json_object *arguments);
    void (*after)(struct qemu *qemu);
    // QEMU did not take it, in the words of qemu->add_error: ends the operation.
    void (*refused)(struct qemu *qemu);
};

// Runs the attach of the device that is in qemu->operation.
void qemu_port_attach(struct qemu *qemu, const struct qemu_port_plug *plug);
