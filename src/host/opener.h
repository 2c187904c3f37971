// Opens a device node in a thread, and makes sure that it is the very device that policy saw.
#pragma once

#include <stdint.h>

#include "core/device.h"
#include "host/host.h"
#include "host/worker.h"

struct opener_result {
    uint64_t serial;
    enum host_open_kind kind;
    int fd;              // of HOST_OPENED; who takes it leaves -1
    const char *text;    // for people, where there is something to say; borrowed
    const char *syspath; // of the device; borrowed
};

// DONE is called in the loop, exactly once unless the worker ends before. With REFUSAL, taken over,
// nothing is opened, and the answer is HOST_OPEN_IN_USE.
void opener_submit(struct worker *worker, const struct device *device, uint64_t serial, char *refusal,
                   void (*done)(void *user, struct opener_result *result), void *user);
