// Putting an input device of the host into a QEMU.
#include "vmm/qemu_input.h"

#include <string.h>

#include "util/text.h"
#include "vmm/qemu_port.h"
#include "vmm/qemu_refusal.h"

static const char *node_of(const struct device *device)
{
    return device->node;
}

static bool is_grabbed(const char *words)
{
    return strstr(words, "exclusive access") || strstr(words, "Device or resource busy");
}

static void refused(struct qemu *qemu)
{
    const char *node = qemu->operation.device->node, *words = qemu->add_error;
    if (qemu_device_gone(qemu->operation.device))
        qemu_finish_gone(qemu);
    else if (is_grabbed(words))
        qemu_finish_taken(qemu, node, "grabbed");
    else if (qemu_words_denied(words))
        qemu_finish_denied(qemu, node);
    else
        qemu_finish_refused(qemu);
}

void qemu_input_attach(struct qemu *qemu)
{
    static const struct qemu_port_plug plug = {
        .driver = "virtio-input-host-pci", .property = "evdev", .value = node_of, .refused = refused};
    if (qemu_device_gone(qemu->operation.device))
        qemu_finish_gone(qemu);
    else
        qemu_port_attach(qemu, &plug);
}
