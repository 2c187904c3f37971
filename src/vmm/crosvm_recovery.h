// Getting into step again with a crosvm whose USB replies are behind.
#pragma once

#include "vmm/crosvm_session.h"

// Finds how far the replies are behind, then runs RESUME; NULL: ends the operation by what the list
// tells. SLOW: crosvm has given up on a request, which may be going on still.
void crosvm_recover(struct crosvm *crosvm, bool slow, crosvm_then resume);
