// Access of a VM's user to the node by which QEMU opens a device itself: which node that is, and how it went.
#pragma once

#include "core/device.h"
#include "host/host.h"
#include "util/cleanup.h"

// Where things are; borrowed strings.
struct access_paths {
    const char *sys, *dev; // "/sys", "/dev"
    const char *records;   // a directory; made when needed
};

// Lets RECEIVER use an input device or a PCI function, which is ready else. HOST_OPEN_READY, or what else host_open may
// answer with TEXT, for free(), set. May block.
enum host_open_kind access_open(const struct access_paths *paths, const struct device *device,
                                const struct host_receiver *receiver, char **text) CHECKED;
