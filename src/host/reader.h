// Reads a device in a thread, as the kernel may have it locked.
#pragma once

#include <stdint.h>

#include "host/source.h"
#include "host/worker.h"

struct reader_result {
    const struct source *source;
    uint64_t serial;
    int error; // negative errno; else the reading is there
    struct reading *reading;
};

// Takes the source over; DONE is called in the loop, its result is borrowed.
void reader_submit(struct worker *worker, struct source *source, uint64_t serial,
                   void (*done)(void *user, const struct reader_result *result), void *user);
