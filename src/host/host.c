// The host wing's front: joins news, looks, records, the host's own use, and the opening of nodes.
// News only says where to look. A look reads the device in a thread; what it finds is compared
// with the record, and the difference is reported.
#include "host/host.h"

#include <errno.h>
#include <string.h>

#include "host/drivers.h"
#include "host/input.h"
#include "host/known.h"
#include "host/monitor.h"
#include "host/opener.h"
#include "host/reader.h"
#include "host/usage.h"
#include "host/usage_watch.h"
#include "host/worker.h"
#include "util/text.h"

enum {
    THREADS_MAX = 32,
    OVERFLOW_SILENCE = 60, // seconds in which a further overflow is no news
};

struct host {
    sd_event *loop;
    struct log *log;
    struct host_callbacks callbacks;
    void *user;
    struct monitor *monitor;
    struct worker *worker;
    struct known *known;
    struct usage *usage;
    struct usage_watch *watch;
    struct drivers *drivers;
    sd_event_source *scan_source; // runs once each time it is asked for
    bool scanning_first, scanned_first, told_scanned;
    uint64_t reads; // serial of the last look
    uint64_t overflow_time;
};

static void start_reading(struct host *host, struct known_record *record, struct source *source);

// The first scan is complete when what it found has been read, or has gone.
static void tell_scanned(struct host *host)
{
    if (!host->scanned_first || host->told_scanned)
        return;
    for (struct known_record *record = known_first(host->known); record != NULL; record = record->next)
        if (record->first)
            return;
    host->told_scanned = true;
    host->callbacks.scanned(host->user);
}

// Disks and network are behind USB devices; a hub is never passed anyway, and the disks are those of others.
static bool may_be_lived_on(const struct device *device)
{
    return device->kind == DEVICE_USB && !device_is_hub(device);
}

static void report(struct host *host, struct known_record *record, const struct reader_result *result)
{
    struct device *device = result->reading->device;

    monitor_name(host->monitor, device);
    drivers_find(host->drivers, result->reading->modaliases, result->reading->modalias_count, device);
    if (may_be_lived_on(device))
        device->host_use = usage_of(host->usage, device->syspath);
    known_update(host->known, record, device, result->source->ready);
}

// Attributes that are missing for a moment are no news; a device that cannot be understood is.
static void log_failed_read(struct log *log, const char *syspath, int error)
{
    if (error == -EINVAL)
        log_warning(log, "%s: what this device says of itself makes no sense; it stays on the host", syspath);
    else
        log_debug(log, "%s: cannot be read: %s; it is looked at again with its next event", syspath, strerror(-error));
}

static void handle_read(void *user, const struct reader_result *result)
{
    struct host *host = user;
    const char *syspath = result->source->syspath;
    struct known_record *record = known_find(host->known, syspath);

    // Of a device that has gone meanwhile nothing more is said.
    if (record == NULL || record->reading != result->serial)
        return;
    record->reading = 0;
    record->first = false;
    if (result->error >= 0)
        report(host, record, result);
    else
        log_failed_read(host->log, syspath, result->error);
    if (record->waiting != NULL)
        start_reading(host, record, steal_pointer(&record->waiting));
    tell_scanned(host);
}

static void start_reading(struct host *host, struct known_record *record, struct source *source)
{
    record->reading = ++host->reads;
    reader_submit(host->worker, source, record->reading, handle_read, host);
}

// One look at a device at a time; of the news that comes meanwhile the last is enough.
static void handle_look(void *user, struct source *source)
{
    struct host *host = user;
    struct known_record *record = known_touch(host->known, source->syspath, host->scanned_first);

    record->first = record->first || host->scanning_first;
    if (record->reading == 0) {
        start_reading(host, record, source);
        return;
    }
    source_free(record->waiting);
    record->waiting = source;
}

static void handle_removed(void *user, const char *syspath)
{
    struct host *host = user;

    usage_invalidate(host->usage);
    known_remove(host->known, syspath);
    tell_scanned(host);
}

static void ask_for_scan(struct host *host)
{
    int error = sd_event_source_set_enabled(host->scan_source, SD_EVENT_ONESHOT);

    if (error < 0)
        log_error(host->log, "Cannot scan for devices: %s", strerror(-error));
}

static void handle_overflow(void *user)
{
    struct host *host = user;
    uint64_t now = 0;

    ask_for_scan(host);
    if (sd_event_now(host->loop, CLOCK_MONOTONIC, &now) < 0)
        now = 0;
    if (host->overflow_time == 0 || now - host->overflow_time > OVERFLOW_SILENCE * UINT64_C(1000000))
        log_warning(host->log, "Device events came faster than they could be read and some were lost; scanning anew");
    host->overflow_time = now;
}

static int handle_scan(sd_event_source *source, void *user)
{
    struct host *host = user;
    int error;

    (void)source;
    monitor_drain(host->monitor);
    host->scanning_first = !host->scanned_first;
    known_begin_scan(host->known);
    error = monitor_scan(host->monitor);
    if (error < 0)
        log_error(host->log, "Cannot list the devices: %s; only those with news are known", strerror(-error));
    else
        known_end_scan(host->known);
    usage_invalidate(host->usage);
    host->scanning_first = false;
    host->scanned_first = true;
    tell_scanned(host);
    return 0;
}

// Something was mounted or unmounted, or swap has changed.
static void handle_usage(void *user)
{
    struct host *host = user;

    usage_invalidate(host->usage);
    for (struct known_record *record = known_first(host->known); record != NULL; record = record->next) {
        CLEANUP(cleanup_free) char *use = NULL;
        if (record->device == NULL || !may_be_lived_on(record->device))
            continue;
        use = usage_of(host->usage, record->syspath);
        if (!string_equal(use, record->device->host_use))
            monitor_look(host->monitor, record->syspath);
    }
}

static int add_parts(struct host *host, sd_event *loop, struct log *log)
{
    static const struct monitor_callbacks callbacks = {handle_look, handle_removed, handle_overflow};
    int error = worker_new(&host->worker, loop, THREADS_MAX);

    if (error >= 0)
        error = sd_event_add_defer(loop, &host->scan_source, handle_scan, host);
    if (error >= 0)
        error = sd_event_source_set_enabled(host->scan_source, SD_EVENT_OFF);
    if (error < 0) {
        log_error(log, "Cannot prepare for devices: %s", strerror(-error));
        return error;
    }
    error = usage_watch_new(&host->watch, loop, usage_paths.mountinfo, usage_paths.swaps, handle_usage, host);
    if (error < 0) {
        log_error(log, "Cannot watch what the host mounts (%s): %s", usage_paths.mountinfo, strerror(-error));
        return error;
    }
    return monitor_new(&host->monitor, loop, log, &callbacks, host);
}

int host_new(struct host **host, sd_event *loop, struct log *log, const struct host_callbacks *callbacks, void *user)
{
    CLEANUP(cleanup_host) struct host *new = memory_new(1, sizeof(*new));
    int error;

    *new = (struct host){.loop = sd_event_ref(loop), .log = log, .callbacks = *callbacks, .user = user};
    new->known = known_new(callbacks, user);
    new->usage = usage_new(&usage_paths);
    new->drivers = drivers_new(NULL);
    error = add_parts(new, loop, log);
    if (error < 0)
        return error;
    *host = steal_pointer(&new);
    return 0;
}

int host_start(struct host *host)
{
    return sd_event_source_set_enabled(host->scan_source, SD_EVENT_ONESHOT);
}

void host_free(struct host *host)
{
    if (host == NULL)
        return;
    sd_event_source_disable_unref(host->scan_source);
    usage_watch_free(host->watch);
    monitor_free(host->monitor);
    worker_free(host->worker);
    known_free(host->known);
    usage_free(host->usage);
    drivers_free(host->drivers);
    sd_event_unref(host->loop);
    free(host);
}

// Asked now, not from memory: disks and volumes may have been joined without any mount.
static char *use_now(struct host *host, const char *syspath)
{
    usage_invalidate(host->usage);
    return usage_of(host->usage, syspath);
}

static void handle_opened(void *user, struct opener_result *result)
{
    struct host *host = user;
    CLEANUP(cleanup_free) char *use = NULL;

    if (result->kind == HOST_OPENED || result->kind == HOST_OPEN_NO_FD)
        use = use_now(host, result->syspath);
    if (use != NULL) // the descriptor is closed by its owner
        host->callbacks.opened(host->user, result->serial, HOST_OPEN_IN_USE, -1, use);
    else
        host->callbacks.opened(host->user, result->serial, result->kind, steal_fd(&result->fd), result->text);
}

void host_open(struct host *host, struct device *device, uint64_t serial)
{
    opener_submit(host->worker, device, serial, use_now(host, device->syspath), handle_opened, host);
}

bool host_has(const struct device *device)
{
    return device->kind != DEVICE_INPUT || input_instance(device->syspath) == device->instance;
}
