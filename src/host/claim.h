// Has the host's kernel claimed a disk, in whatever way, seen from here or not?
#pragma once

#include "util/cleanup.h"

// Finds what usage cannot see: mounts of other namespaces, and those that were detached but are
// still in use, as of the root's own loop file. Asks the block devices on the device at SYSPATH,
// and what is built on them, below the directories SYS and DEV; may block. Says what is claimed,
// for free(); NULL: nothing is. A volume that is set up but not used is no claim.
char *claim_of(const char *sys, const char *dev, const char *syspath) CHECKED;
