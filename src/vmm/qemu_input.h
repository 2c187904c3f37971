// Putting an input device of the host into a QEMU.
#pragma once

#include "vmm/qemu_session.h"

// Runs the attach of an input device that is in qemu->operation.
void qemu_input_attach(struct qemu *qemu);
