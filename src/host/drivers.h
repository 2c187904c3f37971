// Which kernel modules would drive a device: libkmod's answers, kept per modalias.
#pragma once

#include <stddef.h>

#include "core/device.h"
#include "util/cleanup.h"

struct drivers;

// DIRECTORY holds the modules; borrowed; NULL: that of the running kernel.
struct drivers *drivers_new(const char *directory) CHECKED;
void drivers_free(struct drivers *drivers);
DEFINE_CLEANUP(struct drivers *, cleanup_drivers, drivers_free)

// Gives DEVICE the file paths of the modules for these modaliases, each once. Without a module
// index (a kernel without modules) there are none.
void drivers_find(struct drivers *drivers, char *const *modaliases, size_t count, struct device *device);
