// Opens a USB device's node, and makes sure that it is the very device that policy saw.
#pragma once

#include "core/device.h"
#include "host/host.h"

struct opener_result {
    enum host_open_kind kind;
    int fd;     // of HOST_OPENED, and of a PCI function that is passed by descriptor; else -1; owned
    char *text; // for people, where there is something to say, else NULL; owned
};

// Fills in the result; may block.
void opener_open(const struct device *device, struct opener_result *result);
