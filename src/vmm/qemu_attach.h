// Putting a USB device into a QEMU.
#pragma once

#include "vmm/qemu_session.h"

void qemu_attach(struct qemu *qemu);
