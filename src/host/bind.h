// Binds PCI functions to vfio-pci, whole IOMMU groups at a time, and gives them back to the drivers that they had.
// All of it may block. What a function had is on record in a directory that a reboot clears, written before anything
// is done, so that a run that is killed anywhere loses nothing.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/device.h"
#include "host/host.h"
#include "host/network.h"
#include "host/usage.h"
#include "util/cleanup.h"

// Where things are; borrowed strings.
struct bind_paths {
    struct usage_paths usage; // sysfs and /dev among them
    struct network_paths network;
    const char *run;     // "/run"
    const char *modules; // of the kernel; NULL: those of the one that runs
    const char *records; // a directory; made when needed
};

// The other functions of an IOMMU group that are not the host's now.
struct bind_others {
    char **keys;
    size_t count;
    bool taken; // one of them is in a VM, or on its way into one
};

void bind_others_add(struct bind_others *others, const char *key, bool taken);
void bind_others_clear(struct bind_others *others);

// Binds DEVICE and the rest of its IOMMU group, and waits for the group's node. HOST_OPEN_READY, with TEXT naming what
// else the host has lost now or NULL, or what else host_open may answer with TEXT set. TEXT is for free().
enum host_open_kind bind_take(const struct bind_paths *paths, const struct device *device, char **text) CHECKED;

// What drivers the functions of the group of DEVICE have now: "0000:03:01.0: e1000, 0000:03:02.0: none", for free().
// Does not block.
char *bind_drivers(const struct device *device) CHECKED;

// Gives the functions of the group of DEVICE that we took back to the host, but for OTHERS, and if no VM uses the
// group: PATIENT waits a moment for one that is about to let go, and BUSY says that one still does, or that it may not
// be asked: it is to be tried again. NULL, or what went wrong, for free().
char *bind_give_back(const struct bind_paths *paths, const struct device *device, const struct bind_others *others,
                     bool patient, bool *busy) CHECKED;
