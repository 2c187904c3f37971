// Taking a device out of a QEMU.
#pragma once

#include "vmm/qemu_session.h"

void qemu_detach(struct qemu *qemu);
// QEMU says that OBJECT has gone.
void qemu_detach_event(struct qemu *qemu, const char *object);
