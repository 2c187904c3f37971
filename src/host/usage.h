// Does the host live on a device: does it hold, at whatever remove, a mounted file system or swap?
#pragma once

#include "util/cleanup.h"

// The kernel's files; borrowed strings. usage_paths is the real ones.
struct usage_paths {
    const char *sys, *dev, *mountinfo, *swaps;
};

extern const struct usage_paths usage_paths;

struct usage;

struct usage *usage_new(const struct usage_paths *paths) CHECKED;
void usage_free(struct usage *usage);
DEFINE_CLEANUP(struct usage *, cleanup_usage, usage_free)

// The next question looks at the kernel's files afresh.
void usage_invalidate(struct usage *usage);

// Why the host lives on the device at SYSPATH ("/home is mounted from sda1"), for free(); NULL: it
// does not. Where it cannot be told, it is taken to. A PCI function with virtual functions is used.
char *usage_of(struct usage *usage, const char *syspath) CHECKED;

// Why the kernel's files could not be read for an answer since the last usage_invalidate; negative errno.
int usage_error(const struct usage *usage) CHECKED;
