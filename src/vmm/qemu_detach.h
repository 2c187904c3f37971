// Taking a device out of a QEMU.
#pragma once

#include "vmm/qemu_session.h"

void qemu_detach(struct qemu *qemu);
// QEMU says that OBJECT has gone.
void qemu_detach_event(struct qemu *qemu, const char *object);

// QEMU says that the guest keeps OBJECT: it counts as not asked for. True if that is news.
bool qemu_detach_refused(struct qemu *qemu, const char *object) CHECKED;

// In the midst of a step: asks once more for the deletion of an object that does not go.
void qemu_detach_again(struct qemu *qemu, const char *object);
