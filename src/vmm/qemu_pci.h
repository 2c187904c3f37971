// Putting a PCI function of the host into a QEMU.
#pragma once

#include "vmm/qemu_session.h"

// Runs the attach of a PCI function that is in qemu->operation.
void qemu_pci_attach(struct qemu *qemu);
