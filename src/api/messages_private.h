// What the parts of the messages share among themselves.
#pragma once

#include <json-c/json.h>

#include "api/api.h"
#include "api/caller.h"

// After all that happens to devices and VMs, as everything of the API.
#define MESSAGES_PRIORITY (SD_EVENT_PRIORITY_NORMAL + 10)
// How long an answer may wait for devices, in µs.
#define ANSWER_TIME_MAX (10 * UINT64_C(1000000))

enum waiting_kind { WAITING_ATTACH, WAITING_DETACH, WAITING_SUSPEND, WAITING_RESUME };

// One device of a request whose answer waits.
struct waiting_item {
    struct device *device; // a reference
    char *goal;            // the VM that an attach names, or NULL
    bool done, failed;
    bool seen;    // scratch, while the devices are gone through
    bool known;   // state, vm and reason are how it stands
    bool gone;    // it was unplugged
    bool skipped; // it stays where it is: skipOnSuspend
    enum device_state state;
    char *vm;     // as device_status.vm
    char *reason; // why it is in that state, or why it failed
    char *error;  // why it failed, where that is more than the reason; else NULL
};

// A request whose answer waits.
struct waiting {
    struct caller *caller;
    enum waiting_kind kind;
    bool lists;        // the answer has a list of devices
    bool decides;      // it may have changed what people decided
    bool counted;      // decision is known
    bool expired;      // it has waited long enough
    uint64_t decision; // that must be settled before the answer
    uint64_t deadline;
    struct waiting_item *items;
    size_t count;
    struct waiting *next;
};

struct events;   // events.c
struct starting; // starting.c

struct messages {
    sd_event *loop;
    struct log *log;
    struct reconcile *reconcile;
    const struct api_callbacks *callbacks;
    void *user;                  // of the callbacks
    const struct config *config; // borrowed; NULL before the first
    uint64_t started;
    sd_event_source *look;     // at what waits, once the reconciler has gone on
    sd_event_source *timer;    // something has waited long enough
    struct waiting *waiting;   // in order of arrival
    struct starting *starting; // likewise
    sd_event_source *starting_timer;
    uint64_t serial;           // of the next function that is made ready
    uint64_t decided, settled; // revisions of what people decided
    struct events *events;
};
