// Work that may block, in a few threads: opening device nodes, reading attributes of devices.
#pragma once

#include <systemd/sd-event.h>

#include "util/cleanup.h"

// One piece of work; the first member of a struct that holds what it needs. It owns all of that:
// nothing of the loop is touched but in `done`.
struct job {
    void (*run)(struct job *job);     // in a thread
    void (*done)(struct job *job);    // in the loop, after `run`; not called any more after worker_free
    void (*release)(struct job *job); // at the end, in the loop or in a thread
    struct job *next;
};

struct worker;

// At most LIMIT threads, of which one stays while there is no work. Negative errno.
int worker_new(struct worker **worker, sd_event *loop, unsigned limit) CHECKED;
// Waits a moment for work under way; what hangs longer is left to end by itself.
void worker_free(struct worker *worker);
DEFINE_CLEANUP(struct worker *, cleanup_worker, worker_free)

// Takes the job over.
void worker_submit(struct worker *worker, struct job *job);
