// What is mounted on the host and what swaps: the two lists of the kernel, read as they are now.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "util/cleanup.h"

struct mount {
    char *target;
    char *source; // may be NULL
    dev_t number; // major 0 where the file system has no device of its own
};

struct swap {
    char *path;
    bool file;
};

struct mounts {
    struct mount *mounts; // in the order of mounting
    size_t count;
    struct swap *swaps;
    size_t swap_count;
};

// Reads /proc/self/mountinfo and /proc/swaps, or files of their form; no swaps file is no swap.
// Negative errno, and MOUNTS is empty then.
int mounts_read(const char *mountinfo, const char *swaps, struct mounts *mounts) CHECKED;
void mounts_clear(struct mounts *mounts);

// The mount that holds the file at PATH, by its name alone: no file system is asked, as one that
// hangs would hang us. NULL if there is none.
const struct mount *mounts_of_path(const struct mounts *mounts, const char *path);
