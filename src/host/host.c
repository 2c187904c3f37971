// The host wing's front: joins news, looks, records, the host's own use, and the opening of nodes.
// News only says where to look. A look reads the device in a thread; what it finds is compared
// with the record, and the difference is reported.
#include "host/host.h"

#include <errno.h>
#include <string.h>

#include "core/reconcile.h"
#include "host/access.h"
#include "host/again.h"
#include "host/authorize.h"
#include "host/drivers.h"
#include "host/handover.h"
#include "host/input.h"
#include "host/known.h"
#include "host/monitor.h"
#include "host/network.h"
#include "host/network_watch.h"
#include "host/pci.h"
#include "host/reader.h"
#include "host/usage.h"
#include "host/usage_watch.h"
#include "host/worker.h"
#include "util/text.h"

enum {
    THREADS_MAX = 32,
    OVERFLOW_SILENCE = 60, // seconds in which a further overflow is no news
};

#define SCAN_LIMIT (RECONCILE_SCAN_SECONDS * UINT64_C(1000000)) // µs; of the first one

struct host {
    sd_event *loop;
    struct log *log;
    struct host_callbacks callbacks;
    void *user;
    struct monitor *monitor;
    struct worker *worker, *reading; // apart, so that devices that are slow to be made ready leave all others known
    struct known *known;
    struct usage *usage;
    struct usage_watch *watch;
    struct network *network;
    struct network_watch *network_watch; // NULL: the kernel could not be listened to
    struct drivers *drivers;
    char *records; // of PCI functions that are bound for VMs
    char *access_records;
    struct access_paths access_paths;
    struct bind_paths bind_paths;
    struct handover *handover;
    struct authorize *authorize;
    sd_event_source *scan_source; // runs once each time it is asked for
    sd_event_source *scan_limit;  // NULL: the first scan has not begun
    sd_event_source *scan_again;  // NULL: no look has failed yet
    sd_event_source *use_again;   // NULL: it could always be told what the host lives on
    bool scanning_first, scanned_first, told_scanned;
    bool missed;      // the last scan has not seen all that is there
    bool scan_failed; // it has seen nothing at all
    uint64_t reads;   // serial of the last look
    uint64_t overflow_time;
};

static void start_reading(struct host *host, struct known_record *record, struct source *source);
static int handle_use_again(sd_event_source *source, uint64_t time, void *user);

// What nothing names may have to be deauthorized, now that all is known.
static void sweep(struct host *host)
{
    CLEANUP(cleanup_free) struct device **devices = NULL;
    size_t count = 0;

    for (struct known_record *record = known_first(host->known); record != NULL; record = record->next)
        count++;
    devices = memory_new(count + 1, sizeof(*devices));
    count = 0;
    for (struct known_record *record = known_first(host->known); record != NULL; record = record->next)
        if (record->device != NULL)
            devices[count++] = record->device;
    authorize_sweep(host->authorize, devices, count);
}

static bool is_there(void *user, const char *key)
{
    struct host *host = user;

    for (struct known_record *record = known_first(host->known); record != NULL; record = record->next)
        if (record->device != NULL && string_equal(record->device->key, key))
            return true;
    return false;
}

// The first scan is complete when what it found has been read, or has gone.
static void tell_scanned(struct host *host)
{
    if (!host->scanned_first || host->told_scanned)
        return;
    for (struct known_record *record = known_first(host->known); record != NULL; record = record->next)
        if (record->first)
            return;
    host->told_scanned = true;
    host->scan_limit = sd_event_source_disable_unref(host->scan_limit); // nobody is woken for it
    sweep(host);
    access_sweep(host->access_records, is_there, host);
    host->callbacks.scanned(host->user);
}

// What cannot be read, and may never be, keeps nothing else out: it counts as plugged when it is read.
static int handle_scan_limit(sd_event_source *source, uint64_t time, void *user)
{
    struct host *host = user;
    const char *one = NULL;
    unsigned count = 0;

    (void)time;
    if (host->scan_failed) // nothing is known at all, and nobody may take that for nothing being there
        return sd_event_source_set_time_relative(source, SCAN_LIMIT) < 0
                   ? 0
                   : sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    host->scanned_first = true; // as far as it came
    for (struct known_record *record = known_first(host->known); record != NULL; record = record->next)
        if (record->first) {
            record->first = false;
            record->plugged = true;
            one = record->syspath;
            count++;
        }
    if (count > 0)
        log_warning(host->log,
                    "%s%s cannot be read within %d s and does not count as there until it can: unplug it, or look in "
                    "the kernel's log for its driver",
                    one, count > 1 ? " and others" : "", RECONCILE_SCAN_SECONDS);
    tell_scanned(host);
    return 0;
}

static void limit_first_scan(struct host *host)
{
    int error = sd_event_add_time_relative(host->loop, &host->scan_limit, CLOCK_MONOTONIC, SCAN_LIMIT, 0,
                                           handle_scan_limit, host);

    if (error < 0)
        log_warning(host->log, "The first scan waits for every device, however slow it is to read: %s",
                    strerror(-error));
}

// What is behind a hub or a bridge to another bus is that of others, and neither is ever passed.
static bool may_be_lived_on(const struct device *device)
{
    return device->kind != DEVICE_INPUT && !device_is_only_hub(device) && !device_is_bus_bridge(device);
}

// Why the host lives on it, for free(), or NULL. What cannot be told at the moment is asked again after a while, as
// there may be no news of it.
static char *use_of(struct host *host, const struct device *device)
{
    char *use;
    int error = 0;

    if (!may_be_lived_on(device))
        return NULL;
    use = usage_of(host->usage, device->syspath);
    if (use == NULL)
        use = network_of(host->network, &device->syspath, 1);
    if (again_helps(-usage_error(host->usage)) || again_helps(-network_error(host->network)))
        error = again_later(&host->use_again, host->loop, handle_use_again, host);
    if (error < 0)
        log_error(host->log, "Cannot ask again what the host lives on: %s", strerror(-error));
    return use;
}

static void forget_uses(struct host *host)
{
    usage_invalidate(host->usage);
    network_invalidate(host->network);
}

// Whether the host lives on it or on one of its group in another way than has been reported.
static bool has_other_use(struct host *host, const struct device *device)
{
    CLEANUP(cleanup_free) char *use = use_of(host, device);

    for (size_t i = 0; i < device->peer_count; i++)
        if (has_other_use(host, device->peers[i]))
            return true;
    return !string_equal(use, device->host_use);
}

// The others of its IOMMU group are looked at again where they have not heard of it: the news came to it alone.
static void tell_group(struct host *host, const struct device *device)
{
    for (size_t i = 0; i < device->peer_count; i++) {
        const struct device *peer = device->peers[i];
        struct known_record *record = known_find(host->known, peer->syspath);
        if (record == NULL || (record->device == NULL && record->reading == 0))
            continue;
        if (record->device == NULL || !pci_lists(record->device, device))
            monitor_look(host->monitor, peer->syspath);
    }
}

static void report(struct host *host, struct known_record *record, const struct reader_result *result)
{
    struct device *device = result->reading->device;

    monitor_name(host->monitor, device);
    drivers_find(host->drivers, result->reading->modaliases, result->reading->modalias_count, device);
    device->host_use = use_of(host, device);
    for (size_t i = 0; i < device->peer_count; i++)
        device->peers[i]->host_use = use_of(host, device->peers[i]);
    if (!device_is_bridge(device))
        known_update(host->known, record, device, result->source->ready);
    tell_group(host, device);
}

static void ask_for_scan(struct host *host)
{
    int error = sd_event_source_set_enabled(host->scan_source, SD_EVENT_ONESHOT);

    if (error < 0)
        log_error(host->log, "Cannot scan for devices: %s", strerror(-error));
}

static int handle_scan_again(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time;
    ask_for_scan(user);
    return 0;
}

// What is there and could not be looked at, as for want of descriptors, may never have an event again.
static void handle_missed(void *user)
{
    struct host *host = user;
    int error;

    host->missed = true;
    error = again_later(&host->scan_again, host->loop, handle_scan_again, host);
    if (error < 0)
        log_error(host->log, "Cannot scan for devices again: %s", strerror(-error));
}

// Attributes that are missing for a moment are no news; a device that cannot be understood is.
static void log_failed_read(struct log *log, const char *syspath, int error)
{
    if (error == -EINVAL)
        log_warning(log, "%s: what this device says of itself makes no sense; it stays on the host", syspath);
    else
        log_debug(log, "%s: cannot be read: %s; it is looked at again %s", syspath, strerror(-error),
                  again_helps(-error) ? "soon" : "with its next event");
}

// Whether it is looked at again though there is no news of it. What is not ready has an event when it is; it may be
// ready though, and udevd's word could not be read. A device that fails may do so for ever. Both have one more look.
static bool look_once_more(struct known_record *record, const struct reader_result *result)
{
    bool before = record->unready;

    record->unready = result->error == -EIO || (result->error >= 0 && !result->source->ready);
    return record->unready ? !before : again_helps(-result->error);
}

static void handle_read(void *user, const struct reader_result *result)
{
    struct host *host = user;
    const char *syspath = result->source->syspath;
    struct known_record *record = known_find(host->known, syspath);
    bool again;

    // Of a device that has gone meanwhile nothing more is said.
    if (record == NULL || record->reading != result->serial)
        return;
    record->reading = 0;
    again = look_once_more(record, result);
    record->first = record->first && again && result->error < 0;
    if (result->error >= 0)
        report(host, record, result);
    else
        log_failed_read(host->log, syspath, result->error);
    if (again)
        handle_missed(host);
    if (record->waiting != NULL)
        start_reading(host, record, steal_pointer(&record->waiting));
    tell_scanned(host);
}

static void start_reading(struct host *host, struct known_record *record, struct source *source)
{
    record->reading = ++host->reads;
    reader_submit(host->reading, source, record->reading, handle_read, host);
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

// It is no longer of its IOMMU group, which the others of it have to know.
static void leave_group(struct host *host, const char *syspath)
{
    for (struct known_record *record = known_first(host->known); record != NULL; record = record->next)
        for (size_t i = 0; record->device != NULL && i < record->device->peer_count; i++)
            if (string_equal(record->device->peers[i]->syspath, syspath)) {
                monitor_look(host->monitor, record->syspath);
                break;
            }
}

static void look_for_other_uses(struct host *host)
{
    for (struct known_record *record = known_first(host->known); record != NULL; record = record->next)
        if (record->device != NULL && has_other_use(host, record->device))
            monitor_look(host->monitor, record->syspath);
}

static void handle_removed(void *user, const char *syspath)
{
    struct host *host = user;
    const struct known_record *record = known_find(host->known, syspath);
    bool function = record != NULL && record->device != NULL && record->device->kind == DEVICE_PCI;

    usage_invalidate(host->usage);
    authorize_forget(host->authorize, syspath); // of an earlier run, where this one has not reported it
    known_remove(host->known, syspath);
    leave_group(host, syspath);
    if (function) // perhaps a virtual one, and the last of another
        look_for_other_uses(host);
    tell_scanned(host);
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

// A failure that goes on is said when it begins and when it ends.
static void say_scan(struct host *host, int error)
{
    if (error < 0 && !host->scan_failed)
        log_error(host->log, "Cannot list the devices: %s; only those with news are known until that is tried again",
                  strerror(-error));
    else if (error >= 0 && host->scan_failed)
        log_info(host->log, "The devices could be listed again");
    host->scan_failed = error < 0;
}

static int handle_scan(sd_event_source *source, void *user)
{
    struct host *host = user;
    int error;

    (void)source;
    monitor_drain(host->monitor);
    host->scanning_first = !host->scanned_first;
    known_begin_scan(host->known);
    host->missed = false;
    error = monitor_scan(host->monitor);
    say_scan(host, error);
    if (error < 0)
        handle_missed(host);
    else if (!host->missed)
        known_end_scan(host->known);
    usage_invalidate(host->usage);
    host->scanning_first = false;
    host->scanned_first |= !host->missed;
    tell_scanned(host);
    if (!host->told_scanned && host->scan_limit == NULL)
        limit_first_scan(host);
    return 0;
}

static int handle_use_again(sd_event_source *source, uint64_t time, void *user)
{
    struct host *host = user;

    (void)source, (void)time;
    forget_uses(host);
    look_for_other_uses(host);
    return 0;
}

// Something was mounted or unmounted, or swap has changed.
static void handle_usage(void *user)
{
    struct host *host = user;

    usage_invalidate(host->usage);
    look_for_other_uses(host);
}

static void handle_network(void *user)
{
    struct host *host = user;

    network_invalidate(host->network);
    look_for_other_uses(host);
}

// Asked now, not from memory: disks and volumes may have been joined without any mount.
static char *use_now(struct host *host, const struct device *device)
{
    forget_uses(host);
    return use_of(host, device);
}

static void handle_answer(void *user, struct handover_answer *answer)
{
    struct host *host = user;
    CLEANUP(cleanup_free) char *use = NULL;

    if (answer->kind == HOST_OPENED || answer->kind == HOST_OPEN_NO_FD)
        use = use_now(host, answer->device);
    if (use != NULL) // the descriptor is closed by its owner
        host->callbacks.opened(host->user, answer->serial, HOST_OPEN_IN_USE, -1, use);
    else
        host->callbacks.opened(host->user, answer->serial, answer->kind, steal_fd(&answer->fd), answer->text);
}

static int add_parts(struct host *host, sd_event *loop, struct log *log)
{
    static const struct monitor_callbacks callbacks = {handle_look, handle_removed, handle_overflow, handle_missed};
    int error = worker_new(&host->worker, loop, THREADS_MAX);

    if (error >= 0)
        error = worker_new(&host->reading, loop, THREADS_MAX);
    if (error >= 0) {
        host->handover = handover_new(host->worker, loop, log, &host->bind_paths, handle_answer, host);
        error = sd_event_add_defer(loop, &host->scan_source, handle_scan, host);
    }
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
    error = network_watch_new(&host->network_watch, loop, handle_network, host);
    if (error < 0)
        log_warning(log, "Cannot watch the host's routes: %s; they are looked at before each attach only",
                    strerror(-error));
    return monitor_new(&host->monitor, loop, log, &callbacks, host);
}

static void settle_again(void *user, struct device *device, bool to_host)
{
    struct host *host = user;

    handover_settle(host->handover, device, to_host);
}

static void add_authorization(struct host *host, struct log *log)
{
    CLEANUP(cleanup_free) char *record = host_runtime_path("authorization.json");
    struct authorize_paths paths = {usage_paths.sys, usage_paths.dev, "/run", network_paths};

    host->authorize = authorize_new(host->loop, log, &paths, record, settle_again, host);
    handover_authorize(host->handover, host->authorize);
}

static void handle_present(void *user, struct device *device, bool plugged)
{
    struct host *host = user;

    host->callbacks.present(host->user, device, plugged);
}

// However that was found out: by an event, a scan, or another one in its place.
static void handle_gone(void *user, const struct device *device)
{
    struct host *host = user;

    handover_gone(host->handover, device);
    authorize_forget(host->authorize, device->syspath);
    host->callbacks.gone(host->user, device->key, device->instance);
}

int host_new(struct host **host, sd_event *loop, struct log *log, const struct host_callbacks *callbacks, void *user)
{
    static const struct known_callbacks known_callbacks = {handle_present, handle_gone};
    CLEANUP(cleanup_host) struct host *new = memory_new(1, sizeof(*new));
    int error;

    *new = (struct host){.loop = sd_event_ref(loop), .log = log, .callbacks = *callbacks, .user = user};
    new->known = known_new(&known_callbacks, new);
    new->usage = usage_new(&usage_paths);
    new->network = network_new(&network_paths);
    new->drivers = drivers_new(NULL);
    new->records = host_runtime_path("pci");
    new->access_records = host_runtime_path("access");
    new->access_paths = (struct access_paths){usage_paths.sys, usage_paths.dev, new->access_records};
    new->bind_paths = (struct bind_paths){usage_paths, network_paths, "/run", NULL, new->records};
    error = add_parts(new, loop, log);
    if (error < 0)
        return error;
    add_authorization(new, log);
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
    sd_event_source_disable_unref(host->scan_limit);
    sd_event_source_disable_unref(host->scan_again);
    sd_event_source_disable_unref(host->use_again);
    usage_watch_free(host->watch);
    network_watch_free(host->network_watch);
    monitor_free(host->monitor);
    worker_free(host->worker);
    worker_free(host->reading);
    known_free(host->known);
    usage_free(host->usage);
    network_free(host->network);
    drivers_free(host->drivers);
    handover_free(host->handover);
    authorize_free(host->authorize);
    free(host->records);
    free(host->access_records);
    sd_event_unref(host->loop);
    free(host);
}

void host_open(struct host *host, struct device *device, uint64_t serial, const struct host_receiver *receiver)
{
    char *use = NULL;

    // Of a whole IOMMU group that is asked in the thread, where it is bound. The host's network is asked afresh once
    // the device is open, and here where it would keep the device.
    if (device->kind == DEVICE_USB) {
        usage_invalidate(host->usage);
        use = use_of(host, device);
    }
    if (use != NULL) {
        free(use);
        use = use_now(host, device);
    }
    handover_open(host->handover, device, serial, receiver, use);
}

bool host_withhold(struct host *host, struct device *device, uint64_t serial)
{
    return handover_withhold(host->handover, device, serial);
}

void host_held(struct host *host, const struct device *device)
{
    handover_held(host->handover, device);
}

void host_settle(struct host *host, struct device *device, bool to_host)
{
    handover_settle(host->handover, device, to_host);
}

void host_configure(struct host *host, const struct config *config)
{
    authorize_configure(host->authorize, config);
    handover_access(host->handover, &host->access_paths, config->grant_access);
}
