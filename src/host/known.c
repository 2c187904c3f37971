// What has been reported: the record of every device of the host, and the difference that a new
// look at it makes.
#include "host/known.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "util/text.h"

struct known {
    struct known_callbacks callbacks;
    void *user;
    struct known_record *first;
};

struct known *known_new(const struct known_callbacks *callbacks, void *user)
{
    struct known *known = memory_new(1, sizeof(*known));

    *known = (struct known){.callbacks = *callbacks, .user = user};
    return known;
}

static void record_free(struct known_record *record)
{
    device_release(record->device);
    source_free(record->waiting);
    free(record->syspath);
    free(record);
}

void known_free(struct known *known)
{
    if (known == NULL)
        return;
    while (known->first != NULL) {
        struct known_record *record = known->first;
        known->first = record->next;
        record_free(record);
    }
    free(known);
}

struct known_record *known_first(struct known *known)
{
    return known->first;
}

struct known_record *known_find(struct known *known, const char *syspath)
{
    for (struct known_record *record = known->first; record != NULL; record = record->next)
        if (strcmp(record->syspath, syspath) == 0)
            return record;
    return NULL;
}

struct known_record *known_touch(struct known *known, const char *syspath, bool plugged)
{
    struct known_record *record = known_find(known, syspath);

    if (record == NULL) {
        record = memory_new(1, sizeof(*record));
        *record = (struct known_record){.syspath = string_copy(syspath), .plugged = plugged, .next = known->first};
        known->first = record;
    }
    record->seen = true;
    return record;
}

static void report_gone(struct known *known, struct known_record *record)
{
    CLEANUP(cleanup_device) struct device *device = steal_pointer(&record->device);

    if (device != NULL)
        known->callbacks.gone(known->user, device);
}

static bool has_gone(const char *syspath)
{
    return access(syspath, F_OK) < 0 && errno == ENOENT;
}

// Those that have gone and whose events are still to come: what is new may be one of them in another place.
static void report_vanished(struct known *known)
{
    for (struct known_record *record = known->first; record != NULL; record = record->next)
        if (record->device != NULL && has_gone(record->syspath)) {
            report_gone(known, record);
            record->plugged = true;
        }
}

void known_update(struct known *known, struct known_record *record, struct device *device, bool ready)
{
    if (record->device != NULL && record->device->instance != device->instance) {
        report_gone(known, record);
        record->plugged = true;
    }
    if (!ready || (record->device != NULL && device_equal(record->device, device) &&
                   string_equal(record->device->driver, device->driver)))
        return;
    if (record->device == NULL)
        report_vanished(known);
    device_release(record->device);
    record->device = device_reference(device);
    known->callbacks.present(known->user, device, record->plugged);
}

// Takes the record at PLACE out of the list, and reports.
static void remove_at(struct known *known, struct known_record **place)
{
    struct known_record *record = *place;

    *place = record->next;
    report_gone(known, record);
    record_free(record);
}

void known_remove(struct known *known, const char *syspath)
{
    for (struct known_record **place = &known->first; *place != NULL; place = &(*place)->next)
        if (strcmp((*place)->syspath, syspath) == 0) {
            remove_at(known, place);
            return;
        }
}

void known_begin_scan(struct known *known)
{
    for (struct known_record *record = known->first; record != NULL; record = record->next)
        record->seen = false;
}

void known_end_scan(struct known *known)
{
    struct known_record **place = &known->first;

    while (*place != NULL)
        if ((*place)->seen)
            place = &(*place)->next;
        else
            remove_at(known, place);
}
