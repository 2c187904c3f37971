// Somebody who is connected, as all parts of the API know them.
#pragma once

#include <stdbool.h>
#include <stddef.h>

// The transport has one in each of its clients, zeroed but for the first part.
struct caller {
    unsigned permissions; // of enum api_permission
    char *const *vms;     // the VMs that they may see and name; none: all
    size_t vm_count;
    bool may_reload;
    // Takes one line to send, without a newline. Must not free the caller before it returns.
    void (*say)(struct caller *caller, const char *line, size_t length);
    // The answer that was owed has been said: further lines may be handed over. From the loop. May be NULL.
    void (*answered)(struct caller *caller);

    bool confused;                // said a line that is no JSON object
    bool owed;                    // an answer is to come: no further line until then
    bool notified;                // events are for them
    struct caller *next_notified; // of events.c
};
