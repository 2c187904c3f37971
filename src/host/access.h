// Access of a VM's user to one device node: an ACL entry of its own, there only as long as the device is in the VM.
// Each is written down in DIRECTORY before it is made, so that it can be taken back whatever became of the daemon.
// Work for threads: it may block. That on the same node must not run side by side.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/cleanup.h"

struct access_grant {
    const char *node;   // its path
    dev_t number;       // of the device that it must be
    const char *holder; // key of the device that it is given for
    uid_t user;         // who is to have it
    pid_t process;      // whose groups may have it already
    // Whether the device that policy saw is the one that is there; asked when the node is open and before
    // anything is changed.
    bool (*is_current)(const void *subject);
    const void *subject;
};

// Lets the user read and write the node, unless it may already. Given for one holder after the other (functions of an
// IOMMU group), it stays until the last one gave it back. 0; -ENODEV: it is not that device any more; -EPERM,
// -EOPNOTSUPP or -EROFS: no use to try again. With an error WHY (free with free()) is for people.
int access_give(const char *directory, const struct access_grant *grant, char **why) CHECKED;

// Takes back what was given for HOLDER; what the node had for that user before is there again. Nothing given or the
// node gone: 0. With an error, which leaves it written down, WHY (free with free()) is for people.
int access_take(const char *directory, const char *holder, char **why) CHECKED;

// At the start: takes back what was given for devices that are not there any more, by their keys.
void access_sweep(const char *directory, bool (*is_there)(void *user, const char *holder), void *user);
