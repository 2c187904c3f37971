// What the reconciler puts out, as lines of the log.
#pragma once

#include "core/reconcile.h"
#include "util/cleanup.h"
#include "util/log.h"

struct report {
    enum log_level level;
    char *text;                 // one line
    struct log_subject subject; // borrows from the report
    char *device, *vm;          // owned, safe for logs; may be NULL
};

// Fills REPORT, which report_clear clears. OUTPUT is of a DEVICE, a SELECT, a VM or a NOTE; of any other kind
// there is nothing to say, and the text is empty.
void report_output(struct report *report, const struct output *output);
void report_clear(struct report *report);

// The word for a state: "attached".
const char *report_state(enum device_state state);
