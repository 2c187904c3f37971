// Reading which USB buses a QEMU has and what is on them.
#pragma once

#include "vmm/qemu_session.h"

// Reads the VM's USB buses, then goes to NEXT; topology_known says whether it worked.
void qemu_survey(struct qemu *qemu, qemu_step next);
