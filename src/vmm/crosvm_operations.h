// The operations on a crosvm: list, attach, detach.
#pragma once

#include "vmm/crosvm_session.h"

// Begins the operation that is set; it ends with crosvm_finish.
void crosvm_begin(struct crosvm *crosvm);
