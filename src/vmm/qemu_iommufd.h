// PCI functions for a QEMU by descriptor (QEMU 9.0, Linux 6.6): of the function's own node, and of a context for the
// memory of the VM, which its functions share. The VM's user needs no right on any node then.
#pragma once

#include "vmm/qemu_session.h"

// Asks, in the step that is being sent, whether it takes functions so; drops what an earlier run of ours, killed in the
// midst of an attach, may have left there. Nothing is asked where there is no node for contexts.
void qemu_iommufd_ask(struct qemu *qemu);

// Gives the VM a context, if it has none of ours yet, and goes on with NEXT; else ends the attach.
void qemu_iommufd_prepare(struct qemu *qemu, qemu_step next);

// For qemu_port_plug: the function's descriptor goes before its device_add, and is taken back if that did not use it.
void qemu_iommufd_before(struct qemu *qemu, struct json_object *arguments);
void qemu_iommufd_after(struct qemu *qemu);

// Whether device_add failed for what was handed over, by the words of qemu->add_error: the attach has ended then, and
// this process of the VM is given no more so.
bool qemu_iommufd_refused(struct qemu *qemu) CHECKED;
