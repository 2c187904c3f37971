// What has been reported: the record of every device of the host, and the difference that a new
// look at it makes. A removed device is known from here alone.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/device.h"
#include "host/source.h"
#include "util/cleanup.h"

struct known_record {
    char *syspath;
    struct device *device;  // as reported; NULL: not reported yet
    bool plugged;           // was not there at the first scan
    bool seen;              // by the scan under way
    bool first;             // the first scan waits for it to be read
    bool unready;           // it was not ready, or failed, and has been looked at again because of that
    uint64_t reading;       // the look that is under way; 0: none
    struct source *waiting; // look again after that; NULL: no need
    struct known_record *next;
};

// As those of host_callbacks; what has gone is borrowed, and not in its record any more.
struct known_callbacks {
    void (*present)(void *user, struct device *device, bool plugged);
    void (*gone)(void *user, const struct device *device);
};

struct known;

struct known *known_new(const struct known_callbacks *callbacks, void *user) CHECKED;
void known_free(struct known *known);
DEFINE_CLEANUP(struct known *, cleanup_known, known_free)

// The record of SYSPATH; NULL if there is none.
struct known_record *known_find(struct known *known, const char *syspath);
// Finds it, or makes a new one, not reported.
struct known_record *known_touch(struct known *known, const char *syspath, bool plugged);
// The first record, for walks by `next`.
struct known_record *known_first(struct known *known);

// What a look has found. Reports another instance in its place as gone, and a device that is new
// or changed as present, but that one only if udev is done with it (READY); before a new one it reports
// those as gone whose place is empty. Takes no ownership.
void known_update(struct known *known, struct known_record *record, struct device *device, bool ready);

// It has gone: reports that, if it had been reported, and forgets the record.
void known_remove(struct known *known, const char *syspath);

// A scan is between these two: what it has not touched has gone.
void known_begin_scan(struct known *known);
void known_end_scan(struct known *known);
