// The daemon: events of the wings go into the reconciler, and what it says goes out to the wings.
#include "daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "api/api.h"
#include "core/choice.h"
#include "core/config.h"
#include "core/reconcile.h"
#include "core/report.h"
#include "host/host.h"
#include "host/saver.h"
#include "util/file.h"
#include "util/heap.h"
#include "util/text.h"
#include "vmm/vmm.h"

// The API's clients have each one, besides those of devices and VMs.
#define FILES_WANTED 8192

// What the manager of services could not be told, and what failed in the loop itself, is tried so often in a row.
#define TRIES 8

// What could not be saved is tried again after that time, in µs.
#define SAVE_AGAIN (5 * UINT64_C(1000000))

// The API's own numbers for devices that are made ready, apart from the reconciler's.
#define PREPARED (UINT64_C(1) << 63)

// What people decide is saved at once so often in a row, and then once in that time, all of it together, in µs:
// who decides again and again does not wear out the disk.
#define SAVES_AT_ONCE 32
#define SAVE_PAUSE UINT64_C(1000000)

// An operation that waits for the host: an attach whose device is being opened, a detach whose device is withheld
// first.
struct opening {
    struct operation operation;
    struct opening *next;
};

static void opening_free(struct opening *opening)
{
    operation_clear(&opening->operation);
    free(opening);
}

// What people decided, by revisions, and how much of it is on disk.
struct saving {
    uint64_t decided; // the newest revision
    uint64_t running; // is being saved; 0: none is
    uint64_t settled; // up to this one all are saved, or failed to be, which was said
    uint64_t paid;    // a time, which each save moves on by SAVE_PAUSE; at most SAVES_AT_ONCE of these ahead of now
    bool failed;      // the last save
};

struct daemon {
    const struct daemon_settings *settings;
    struct log *log;
    sd_event *loop;
    sd_event_source *pump, *timer, *save, *saving_timer, *terminate, *interrupt, *reload;
    struct config *config;
    struct reconcile *reconcile;
    struct host *host;
    struct vmms *vmms;
    struct api *api;
    struct opening *openings;
    char *memory_file;
    struct saver *saver;
    struct saving saving;
    uint64_t last;      // the revision after which it ends
    bool ending;        // it was told to
    bool memory_due;    // what is to be remembered has changed
    bool memory_failed; // said already
    bool retired_vms;   // VMs that the configuration no longer names are still served
};

// ---- configuration

static void log_messages(struct log *log, enum log_level level, const struct config_messages *messages)
{
    for (size_t i = 0; i < messages->count; i++)
        log_line(log, level, NULL, "%s", messages->lines[i]);
}

// The configuration of the file, or NULL with the reasons in the log and, one line each, in ERRORS.
static struct config *load_config(struct daemon *daemon, struct text *errors)
{
    const char *file = daemon->settings->config_file;
    size_t length = 0;
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_free) char *text = file_read(file, &length, &error);
    if (!text) {
        log_error(daemon->log, "%s: %s", file, error);
        text_printf(errors, "%s: %s", file, error);
        return NULL;
    }
    CLEANUP(config_report_clear) struct config_report report = {0};
    struct config *config = config_parse(file, text, length, &report);
    log_messages(daemon->log, LOG_LEVEL_ERROR, &report.errors);
    log_messages(daemon->log, LOG_LEVEL_WARNING, &report.warnings);
    log_messages(daemon->log, LOG_LEVEL_DEBUG, &report.notes);
    for (size_t i = 0; i < report.errors.count; i++)
        text_printf(errors, "%s%s", i ? "\n" : "", report.errors.lines[i]);
    if (config) {
        CLEANUP(cleanup_free) char *summary = config_summary(config);
        log_info(daemon->log, "%s: %s", file, summary);
    }
    return config;
}

static void tell_manager(const char *news)
{
    for (int i = 0; i < TRIES && sd_notify(0, news) < 0; i++)
        ;
}

static bool keep_vm(void *user, const char *vm)
{
    struct daemon *daemon = user;
    bool keep = reconcile_needs_vm(daemon->reconcile, vm);
    daemon->retired_vms |= keep;
    return keep;
}

static void configure_vms(struct daemon *daemon)
{
    daemon->retired_vms = false;
    vmms_configure(daemon->vmms, daemon->config, keep_vm);
}

// It goes on while the host sleeps, so that it tells since when things are as they are.
static uint64_t monotonic(struct daemon *daemon)
{
    uint64_t now = 0;
    (void)sd_event_now(daemon->loop, CLOCK_BOOTTIME, &now);
    return now;
}

static void save_later(struct daemon *daemon)
{
    (void)sd_event_source_set_time(daemon->save, monotonic(daemon) + SAVE_AGAIN);
    (void)sd_event_source_set_enabled(daemon->save, SD_EVENT_ONESHOT);
}

static void save_memory(struct daemon *daemon)
{
    CLEANUP(memory_clear) struct memory memory = {0};
    reconcile_memory(daemon->reconcile, &memory);
    daemon->memory_due = false;
    int status = host_save_memory(daemon->memory_file, &memory);
    if (status < 0 && !daemon->memory_failed)
        log_warning(daemon->log, "%s cannot be written: %s; after a restart, devices may wait for every VM's answer",
                    daemon->memory_file, strerror(-status));
    daemon->memory_failed = status < 0;
    if (daemon->memory_failed)
        save_later(daemon);
}

// What is remembered is on disk before a VM is told anything that follows from it.
static void start_in_vm(struct daemon *daemon, struct operation *operation, int fd, const char *why_no_fd)
{
    if (daemon->memory_due)
        save_memory(daemon);
    vmms_start(daemon->vmms, operation, fd, why_no_fd);
}

// ---- what people decide

static void settle(struct daemon *daemon, uint64_t revision)
{
    daemon->saving.settled = revision;
    api_settled(daemon->api, revision);
}

static void start_saving_at(struct daemon *daemon, uint64_t time)
{
    (void)sd_event_source_set_time(daemon->saving_timer, time);
    (void)sd_event_source_set_enabled(daemon->saving_timer, SD_EVENT_ONESHOT);
}

// Saves what is not, now or when it may be.
static void start_saving(struct daemon *daemon)
{
    struct saving *saving = &daemon->saving;
    uint64_t now = monotonic(daemon), ahead = (SAVES_AT_ONCE - 1) * SAVE_PAUSE;
    if (!daemon->config->persistent) {
        saving->failed = false;
        settle(daemon, saving->decided);
    }
    if (saving->running || (saving->settled == saving->decided && !saving->failed))
        return;
    if (saving->paid > now + ahead && !daemon->ending) {
        start_saving_at(daemon, saving->paid - ahead);
        return;
    }
    saving->paid = (saving->paid > now ? saving->paid : now) + SAVE_PAUSE;
    saving->running = saving->decided;
    saver_start(daemon->saver, daemon->config->state_path, reconcile_choices(daemon->reconcile));
}

static void on_saved(void *user, int status)
{
    struct daemon *daemon = user;
    struct saving *saving = &daemon->saving;
    uint64_t revision = saving->running;
    saving->running = 0;
    if (status < 0 && !saving->failed)
        log_warning(daemon->log, "%s cannot be written: %s; after a restart, what people chose is not known",
                    daemon->config->state_path, strerror(-status));
    saving->failed = status < 0;
    settle(daemon, revision);
    if (saving->failed && revision == saving->decided && !daemon->ending)
        start_saving_at(daemon, monotonic(daemon) + SAVE_AGAIN);
    else if (!daemon->ending || revision < daemon->last)
        start_saving(daemon);
    if (daemon->ending && !saving->running)
        (void)sd_event_exit(daemon->loop, 0);
}

static int on_saving_time(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time;
    start_saving(user);
    return 0;
}

static void save_choices(struct daemon *daemon)
{
    api_decided(daemon->api, ++daemon->saving.decided);
    start_saving(daemon);
}

// It ends when what was decided by now is on disk; what is decided later is not, and is not answered. Told again,
// it ends at once.
static int on_end(sd_event_source *source, const struct signalfd_siginfo *info, void *user)
{
    (void)source, (void)info;
    struct daemon *daemon = user;
    bool again = daemon->ending;
    daemon->ending = true;
    daemon->last = daemon->saving.decided;
    tell_manager("STOPPING=1");
    if (!again)
        start_saving(daemon);
    return again || !daemon->saving.running ? sd_event_exit(daemon->loop, 0) : 0;
}

// ---- configuration that changes

// What people chose while we run is joined with what is in the file that is to hold it from now on.
static void join_choices(struct daemon *daemon)
{
    const char *file = daemon->config->state_path;
    CLEANUP(choices_clear) struct choices there = {0}, joined = {0};
    host_load_choices(daemon->log, file, &there);
    choices_copy(&joined, reconcile_choices(daemon->reconcile));
    size_t lost = choices_join(&joined, &there);
    if (there.count)
        log_info(daemon->log, "%s: what people chose before is joined with what they chose since", file);
    if (lost)
        log_error(daemon->log, "%s: %zu devices that were detached there are not any more: there is room for %d", file,
                  lost, CHOICES_MAX);
    reconcile_choices_load(daemon->reconcile, &joined);
    if (daemon->saving.running) {
        save_choices(daemon);
        return;
    }
    // What was answered before is in this file before the configuration counts that names it.
    daemon->saving.running = ++daemon->saving.decided;
    on_saved(daemon, host_save_choices(file, reconcile_choices(daemon->reconcile)));
}

static void use_config(struct daemon *daemon, struct config *config)
{
    CLEANUP(cleanup_config) struct config *old = daemon->config;
    bool moved = config->persistent && !(old->persistent && string_equal(old->state_path, config->state_path));
    daemon->config = config;
    reconcile_configure(daemon->reconcile, config, monotonic(daemon));
    host_configure(daemon->host, config);
    configure_vms(daemon);
    api_configure(daemon->api, config);
    if (moved)
        join_choices(daemon);
}

// NULL, or why the running configuration stays.
static char *reload(void *user)
{
    struct daemon *daemon = user;
    CLEANUP(text_clear) struct text errors = {0};
    uint64_t now = 0; // on the clock that systemd asks for
    (void)sd_event_now(daemon->loop, CLOCK_MONOTONIC, &now);
    CLEANUP(cleanup_free) char *news = string_printf("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, now);
    tell_manager(news);
    struct config *config = load_config(daemon, &errors);
    if (config)
        use_config(daemon, config);
    else
        log_error(daemon->log, "%s: not reloaded, the running configuration stays", daemon->settings->config_file);
    heap_trim(); // a file takes many times the room of what is kept of it
    tell_manager("READY=1");
    return config ? NULL : text_take(&errors);
}

static int on_reload(sd_event_source *source, const struct signalfd_siginfo *info, void *user)
{
    (void)source, (void)info;
    free(reload(user));
    return 0;
}

static void prepare(void *user, struct device *device, uint64_t serial)
{
    struct daemon *daemon = user;
    const struct host_receiver nobody = {.awaited = true}; // the VM does not run yet
    host_open(daemon->host, device, serial | PREPARED, &nobody);
}

static const struct api_callbacks api_callbacks = {.reload = reload, .prepare = prepare};

// ---- from the host

static void on_present(void *user, struct device *device, bool plugged)
{
    struct daemon *daemon = user;
    reconcile_device(daemon->reconcile, device, plugged, monotonic(daemon));
}

static void on_gone(void *user, const char *key, uint64_t instance)
{
    struct daemon *daemon = user;
    reconcile_device_gone(daemon->reconcile, key, instance, monotonic(daemon));
}

static void on_scanned(void *user)
{
    struct daemon *daemon = user;
    reconcile_scanned(daemon->reconcile, monotonic(daemon));
    api_scanned(daemon->api);
}

static void end_operation(struct daemon *daemon, const struct operation *operation, enum result_kind kind, char *text)
{
    CLEANUP(result_clear) struct result result = {.serial = operation->serial, .kind = kind, .text = text};
    reconcile_result(daemon->reconcile, operation->vm, &result, monotonic(daemon));
}

// Whether another attach of it is being made ready: what is undone for one would be missing there.
static bool is_opening(const struct daemon *daemon, const struct device *device)
{
    for (const struct opening *opening = daemon->openings; opening; opening = opening->next)
        if (opening->operation.kind == OPERATION_ATTACH && string_equal(opening->operation.device->key, device->key))
            return true;
    return false;
}

// It was made ready for a process of its VM that has ended meanwhile: the next one is another receiver.
static void end_orphan(struct daemon *daemon, const struct operation *operation)
{
    struct device *device = operation->device;
    size_t count = reconcile_device_count(daemon->reconcile);
    end_operation(daemon, operation, RESULT_RETRY, NULL);
    if (operation->kind != OPERATION_ATTACH)
        return; // what is in no VM any more is settled after this
    for (size_t i = 0; i < count && !is_opening(daemon, device); i++) {
        CLEANUP(device_status_clear) struct device_status status;
        reconcile_device_status(daemon->reconcile, i, &status);
        bool held = status.state == STATE_ATTACHED || status.state == STATE_DETACHING;
        if (status.device->instance == device->instance && !held)
            host_settle(daemon->host, device, status.state == STATE_HOST);
    }
}

static void end_prepare(struct daemon *daemon, uint64_t serial, enum host_open_kind kind, const char *text)
{
    const char *why_not = text && *text ? text : "it is not there any more";
    api_prepared(daemon->api, serial & ~PREPARED, kind == HOST_OPEN_READY ? NULL : why_not);
}

static void on_opened(void *user, uint64_t serial, enum host_open_kind kind, int fd, const char *text)
{
    struct daemon *daemon = user;
    CLEANUP(cleanup_close) int owned = fd;
    if (serial & PREPARED) {
        end_prepare(daemon, serial, kind, text);
        return;
    }
    struct opening **place = &daemon->openings;
    while (*place && (*place)->operation.serial != serial)
        place = &(*place)->next;
    struct opening *opening = *place;
    if (!opening)
        return;
    *place = opening->next;
    if (!reconcile_flies(daemon->reconcile, opening->operation.vm, serial)) {
        end_orphan(daemon, &opening->operation);
        opening_free(opening);
        return;
    }
    switch (kind) {
    case HOST_OPENED:
    case HOST_OPEN_NO_FD:
    case HOST_OPEN_READY:
        start_in_vm(daemon, &opening->operation, steal_fd(&owned), text);
        break;
    case HOST_OPEN_GONE:
        end_operation(daemon, &opening->operation, RESULT_GONE, string_copy(text));
        break;
    case HOST_OPEN_RETRY:
        end_operation(daemon, &opening->operation, RESULT_RETRY, string_copy(text));
        break;
    case HOST_OPEN_REFUSED:
        end_operation(daemon, &opening->operation, RESULT_REFUSED, string_copy(text));
        break;
    case HOST_OPEN_IN_USE:
        end_operation(daemon, &opening->operation, RESULT_RETRY, string_printf("the host lives on it: %s", text));
        break;
    }
    opening_free(opening);
}

static const struct host_callbacks host_callbacks = {
    .present = on_present, .gone = on_gone, .scanned = on_scanned, .opened = on_opened};

// ---- from the VMs

static void on_up(void *user, const char *vm, uint64_t instance)
{
    struct daemon *daemon = user;
    reconcile_vm_up(daemon->reconcile, vm, instance, monotonic(daemon));
}

static void on_down(void *user, const char *vm)
{
    struct daemon *daemon = user;
    reconcile_vm_down(daemon->reconcile, vm, monotonic(daemon));
}

static void on_silent(void *user, const char *vm, const char *why)
{
    struct daemon *daemon = user;
    reconcile_vm_silent(daemon->reconcile, vm, why, monotonic(daemon));
}

static void on_news(void *user, const char *vm)
{
    struct daemon *daemon = user;
    reconcile_vm_news(daemon->reconcile, vm, monotonic(daemon));
}

static void on_done(void *user, const char *vm, const struct result *result)
{
    struct daemon *daemon = user;
    reconcile_result(daemon->reconcile, vm, result, monotonic(daemon));
}

static const struct vmms_callbacks vmms_callbacks = {
    .up = on_up, .down = on_down, .silent = on_silent, .news = on_news, .done = on_done};

// ---- what the reconciler says

static void start_operation(struct daemon *daemon, struct operation *operation)
{
    bool attach = operation->kind == OPERATION_ATTACH;
    if (!attach && (!operation->device || !host_withhold(daemon->host, operation->device, operation->serial))) {
        start_in_vm(daemon, operation, -1, NULL);
        return;
    }
    struct opening *opening = memory_new(1, sizeof *opening);
    *opening = (struct opening){*operation, daemon->openings};
    *operation = (struct operation){0};
    daemon->openings = opening;
    vmms_expect(daemon->vmms, opening->operation.vm);
    if (!attach)
        return;
    struct host_receiver receiver = {0};
    // A USB device is passed by descriptor: nobody is given any right on it.
    receiver.known = opening->operation.device->kind != DEVICE_USB &&
                     vmms_process(daemon->vmms, opening->operation.vm, &receiver.process, &receiver.user);
    receiver.takes_functions = vmms_takes_functions(daemon->vmms, opening->operation.vm);
    host_open(daemon->host, opening->operation.device, opening->operation.serial, &receiver);
}

static int on_save(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time;
    save_memory(user);
    return 0;
}

static void log_output(struct log *log, const struct output *output)
{
    CLEANUP(report_clear) struct report report = {0};
    report_output(&report, output);
    log_line(log, report.level, &report.subject, "%s", report.text);
}

static void handle_output(struct daemon *daemon, struct output *output)
{
    switch (output->kind) {
    case OUTPUT_OPERATION:
        start_operation(daemon, &output->operation);
        operation_clear(&output->operation);
        break;
    case OUTPUT_MEMORY:
        daemon->memory_due = true;
        break;
    case OUTPUT_CHOICES:
        save_choices(daemon);
        break;
    case OUTPUT_DEVICE:
        if (output->rests && !output->gone) // it keeps nothing of what was done for a VM
            host_settle(daemon->host, output->device, output->state == STATE_HOST);
        else if (output->state == STATE_ATTACHED && !output->gone)
            host_held(daemon->host, output->device);
        log_output(daemon->log, output);
        api_output(daemon->api, output);
        break;
    case OUTPUT_VM:
    case OUTPUT_SELECT:
        log_output(daemon->log, output);
        api_output(daemon->api, output);
        break;
    case OUTPUT_NOTE:
        log_output(daemon->log, output);
        break;
    }
}

// Runs after every turn of the loop in which anything happened.
static int on_pump(sd_event_source *source, void *user)
{
    (void)source;
    struct daemon *daemon = user;
    struct output output = {0};
    while (reconcile_next(daemon->reconcile, monotonic(daemon), &output))
        handle_output(daemon, &output);
    if (daemon->memory_due) // devices are being opened meanwhile
        save_memory(daemon);
    if (daemon->retired_vms)
        configure_vms(daemon);
    uint64_t deadline = reconcile_deadline(daemon->reconcile);
    if (deadline == UINT64_MAX)
        return sd_event_source_set_enabled(daemon->timer, SD_EVENT_OFF);
    int status = sd_event_source_set_time(daemon->timer, deadline);
    return status < 0 ? status : sd_event_source_set_enabled(daemon->timer, SD_EVENT_ONESHOT);
}

// The pump runs after this turn, as after any other.
static int on_deadline(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time, (void)user;
    return 0;
}

// ---- life

static int start_loop(struct daemon *daemon)
{
    sd_event *loop = daemon->loop;
    int status;
    (void)signal(SIGPIPE, SIG_IGN);
    if ((status = sd_event_add_signal(loop, &daemon->terminate, SIGTERM | SD_EVENT_SIGNAL_PROCMASK, on_end, daemon)) <
            0 ||
        (status = sd_event_add_signal(loop, &daemon->interrupt, SIGINT | SD_EVENT_SIGNAL_PROCMASK, on_end, daemon)) <
            0 ||
        (status = sd_event_add_signal(loop, &daemon->reload, SIGHUP | SD_EVENT_SIGNAL_PROCMASK, on_reload, daemon)) <
            0 ||
        (status = sd_event_add_post(loop, &daemon->pump, on_pump, daemon)) < 0 ||
        // Before what else is due: a VM's connection is given back if nothing follows at once.
        (status = sd_event_source_set_priority(daemon->pump, SD_EVENT_PRIORITY_NORMAL - 1)) < 0 ||
        (status = sd_event_add_time(loop, &daemon->timer, CLOCK_BOOTTIME, 0, 1000, on_deadline, daemon)) < 0 ||
        (status = sd_event_add_time(loop, &daemon->save, CLOCK_BOOTTIME, 0, 1000, on_save, daemon)) < 0 ||
        (status = sd_event_source_set_enabled(daemon->save, SD_EVENT_OFF)) < 0 ||
        (status = sd_event_add_time(loop, &daemon->saving_timer, CLOCK_BOOTTIME, 0, 1000, on_saving_time, daemon)) <
            0 ||
        (status = sd_event_source_set_enabled(daemon->saving_timer, SD_EVENT_OFF)) < 0 ||
        (status = sd_event_set_watchdog(loop, true)) < 0)
        return status;
    return sd_event_source_set_enabled(daemon->timer, SD_EVENT_OFF);
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= FILES_WANTED)
        return;
    limit.rlim_cur = limit.rlim_max < FILES_WANTED ? limit.rlim_max : FILES_WANTED;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

// What an earlier run left behind.
static void remember(struct daemon *daemon)
{
    CLEANUP(memory_clear) struct memory memory = {0};
    host_load_memory(daemon->log, daemon->memory_file, &memory);
    reconcile_remember(daemon->reconcile, &memory);
    vmms_remember(daemon->vmms, &memory);
    if (!daemon->config->persistent)
        return;
    CLEANUP(choices_clear) struct choices choices = {0};
    host_load_choices(daemon->log, daemon->config->state_path, &choices);
    reconcile_choices_load(daemon->reconcile, &choices);
}

static int start_wings(struct daemon *daemon)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) < 0)
        seed = monotonic(daemon);
    daemon->reconcile = reconcile_new(seed, daemon->settings->attach_connected);
    int status;
    if ((status = saver_new(&daemon->saver, daemon->loop, on_saved, daemon)) < 0 ||
        (status = host_new(&daemon->host, daemon->loop, daemon->log, &host_callbacks, daemon)) < 0 ||
        (status = vmms_new(&daemon->vmms, daemon->loop, daemon->log, &vmms_callbacks, daemon)) < 0 ||
        (status = api_new(&daemon->api, daemon->loop, daemon->log, daemon->reconcile, &api_callbacks, daemon)) < 0)
        return status;
    vmms_offer_iommu(daemon->vmms, "/dev/iommu");
    daemon->memory_file = host_runtime_path("memory.json");
    remember(daemon);
    reconcile_configure(daemon->reconcile, daemon->config, monotonic(daemon));
    host_configure(daemon->host, daemon->config);
    configure_vms(daemon);
    api_configure(daemon->api, daemon->config);
    return host_start(daemon->host);
}

static void daemon_clear(struct daemon *daemon)
{
    while (daemon->openings) {
        struct opening *opening = daemon->openings;
        daemon->openings = opening->next;
        opening_free(opening);
    }
    api_free(daemon->api);
    vmms_free(daemon->vmms);
    host_free(daemon->host);
    saver_free(daemon->saver);
    reconcile_free(daemon->reconcile);
    config_free(daemon->config);
    free(daemon->memory_file);
    sd_event_source *sources[] = {daemon->pump,      daemon->timer,     daemon->save,  daemon->saving_timer,
                                  daemon->terminate, daemon->interrupt, daemon->reload};
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        sd_event_source_unref(sources[i]);
    sd_event_unref(daemon->loop);
}

// Until it is told to end. What is due stays due when a turn fails, so the next one does it.
static int run_loop(sd_event *loop)
{
    int status = 0;
    for (int failed = 0; failed < TRIES && sd_event_get_state(loop) != SD_EVENT_FINISHED;) {
        status = sd_event_run(loop, UINT64_MAX);
        failed = status < 0 ? failed + 1 : 0;
    }
    return status;
}

int daemon_run(const struct daemon_settings *settings, struct log *log)
{
    CLEANUP(daemon_clear) struct daemon daemon = {.settings = settings, .log = log};
    CLEANUP(text_clear) struct text errors = {0}; // they are in the log
    daemon.config = load_config(&daemon, &errors);
    if (!daemon.config)
        return EXIT_FAILURE;
    heap_trim(); // as after a reload
    raise_file_limit();
    int status = sd_event_new(&daemon.loop);
    if (status < 0 || (status = start_loop(&daemon)) < 0 || (status = start_wings(&daemon)) < 0) {
        log_error(log, "vhotplug cannot start: %s", strerror(-status));
        return EXIT_FAILURE;
    }
    tell_manager("READY=1");
    status = run_loop(daemon.loop);
    if (status < 0) {
        log_error(log, "the event loop failed: %s", strerror(-status));
        return EXIT_FAILURE;
    }
    if (daemon.memory_failed)
        save_memory(&daemon);
    return EXIT_SUCCESS;
}
