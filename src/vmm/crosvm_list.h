// Reading the ports of a crosvm, and freeing those that leaked.
#pragma once

#include "vmm/crosvm_session.h"

// Lists the ports and frees at once what a failed attach has left there; then THEN, with the ports as they are.
void crosvm_list(struct crosvm *crosvm, crosvm_then then);
