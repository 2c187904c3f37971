// What a VM is started with.
#include "api/starting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/account.h"
#include "api/reply.h"
#include "api/scope.h"
#include "api/view.h"
#include "core/vmm_args.h"
#include "util/json.h"
#include "util/text.h"

// How long an answer may wait for the host: less than the 30 s that clients wait for it, and longer than the first scan
// takes, so that who asks while the daemon starts is told what there is.
#define STARTING_SECONDS 28
_Static_assert(STARTING_SECONDS > RECONCILE_SCAN_SECONDS, "an answer outlasts the first scan");
#define STARTING_TIME_MAX (STARTING_SECONDS * UINT64_C(1000000))

// A request whose answer waits.
struct starting {
    struct caller *caller;
    struct starting_wish wish; // borrows from the next two
    char *vm, *bus_prefix;
    uint64_t deadline;
    bool made;      // false: the devices of the host are not all known yet
    uint64_t first; // serial of the first of its functions
    struct device **functions;
    bool *answered;     // of each
    size_t count, left; // of functions; not answered yet
    struct json_object *arguments, *warnings;
    char *error; // the first; NULL: none
    struct starting *next;
};

static struct starting *starting_new(const struct messages *messages, struct caller *caller,
                                     const struct starting_wish *wish)
{
    struct starting *starting = memory_new(1, sizeof(*starting));
    *starting = (struct starting){.caller = caller, .wish = *wish};
    starting->wish.vm = starting->vm = string_copy(wish->vm);
    starting->wish.bus_prefix = starting->bus_prefix = string_copy(wish->bus_prefix);
    starting->deadline = view_now(messages) + STARTING_TIME_MAX;
    starting->warnings = json_object_new_array();
    return starting;
}

static void starting_free(struct starting *starting)
{
    for (size_t i = 0; i < starting->count; i++)
        device_release(starting->functions[i]);
    free(starting->functions);
    free(starting->answered);
    free(starting->vm);
    free(starting->bus_prefix);
    json_object_put(starting->arguments);
    json_object_put(starting->warnings);
    free(starting->error);
    free(starting);
}

// The place of the request that has that function, or that is of that caller (NULL: any); the list's end if none is.
static struct starting **find(struct messages *messages, uint64_t serial, const struct caller *caller)
{
    struct starting **place = &messages->starting;
    while (*place && (caller ? (*place)->caller != caller : serial - (*place)->first >= (*place)->count))
        place = &(*place)->next;
    return place;
}

// ---- ACPI tables

// NULL, or why the file does not belong to its owner.
static char *own(int fd, const struct vmm_args_table *table)
{
    uid_t user = (uid_t)-1;
    gid_t group = (gid_t)-1;
    if (table->user && !account_user(table->user, &user))
        return string_printf("there is no user %s", table->user);
    if (table->group && !account_group(table->group, &group))
        return string_printf("there is no group %s", table->group);
    bool owned = (!table->user && !table->group) || fchownat(fd, "", user, group, AT_EMPTY_PATH) == 0;
    return owned ? NULL
                 : string_printf("its owner cannot be set: %s; the service unit allows that by its acpi-tables.conf",
                                 strerror(errno));
}

// False, and said, if there is no such table: a VMM would not start for it.
static bool prepare_table(const struct messages *messages, const char *vm, const struct vmm_args_table *table)
{
    CLEANUP(cleanup_close) int fd = open(table->path, O_PATH | O_CLOEXEC);
    struct stat status;
    bool there = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    if (!there) {
        log_warning(messages->log, "%s: ACPI table %s is left out: %s", vm, table->path,
                    fd < 0 ? strerror(errno) : "it is no file");
        return false;
    }
    CLEANUP(cleanup_free) char *error = own(fd, table);
    if (error)
        log_warning(messages->log, "%s: ACPI table %s: %s; %s may not be able to read it", vm, table->path, error, vm);
    return true;
}

static void prepare_tables(const struct messages *messages, const char *vm, struct vmm_args *args)
{
    for (size_t i = args->table_count; i-- > 0;)
        if (!prepare_table(messages, vm, &args->tables[i]))
            vmm_args_drop_table(args, i);
}

// ---- arguments

// The devices that there are, in the form that the arguments are made from.
struct present {
    struct vmm_args_device *items;
    struct device_status *statuses;
    char **taken;
    size_t count;
};

static void present_clear(struct present *present)
{
    for (size_t i = 0; i < present->count; i++) {
        device_status_clear(&present->statuses[i]);
        free(present->taken[i]);
    }
    free(present->taken);
    free(present->statuses);
    free(present->items);
}

static void present_fill(struct present *present, const struct reconcile *reconcile, const char *vm)
{
    present->count = reconcile_device_count(reconcile);
    present->statuses = memory_new(present->count, sizeof(*present->statuses));
    present->items = memory_new(present->count, sizeof(*present->items));
    present->taken = memory_new(present->count, sizeof(*present->taken));
    for (size_t i = 0; i < present->count; i++) {
        struct device_status *status = &present->statuses[i];
        reconcile_device_status(reconcile, i, status);
        present->taken[i] = reconcile_taken(reconcile, status->device->instance, vm);
        present->items[i] = (struct vmm_args_device){.device = status->device,
                                                     .verdict = status->verdict,
                                                     .vm = status->vm,
                                                     .chosen = status->chosen,
                                                     .taken = present->taken[i],
                                                     .selecting = status->selecting,
                                                     .detached = status->detached};
    }
}

// A reference to the device that FUNCTION borrows.
static struct device *held(const struct present *present, const struct device *function)
{
    size_t i = 0;
    while (present->statuses[i].device != function)
        i++;
    return device_reference(present->statuses[i].device);
}

static struct json_object *arguments_json(const struct vmm_args *args)
{
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < args->count; i++)
        json_object_array_add(list, json_object_new_string(args->arguments[i]));
    return list;
}

// Says of each device that the VM starts without. NULL, or why it must not: a PCI function is required.
static char *warn(const struct messages *messages, const struct starting *starting, const struct vmm_args *args)
{
    char *error = NULL;
    for (size_t i = 0; i < args->left_out_count; i++) {
        const struct vmm_args_device *item = args->left_out[i];
        CLEANUP(cleanup_free) char *title = device_title(item->device);
        CLEANUP(cleanup_free) char *why = scope_text(starting->caller, messages->reconcile, item->taken);
        char *warning = string_printf("%s: %s", title, why);
        log_warning(messages->log, "%s: it is to start without %s: %s", starting->wish.vm, title, item->taken);
        json_object_array_add(starting->warnings, json_object_new_string(warning));
        if (starting->wish.require_pci && item->device->kind == DEVICE_PCI && !error)
            error = steal_pointer(&warning);
        free(warning);
    }
    return error;
}

// Makes the arguments. NULL, or why there are none.
static char *make(struct messages *messages, struct starting *starting)
{
    CLEANUP(present_clear) struct present present = {0};
    CLEANUP(vmm_args_clear) struct vmm_args args = {0};
    const struct starting_wish *wish = &starting->wish;
    present_fill(&present, messages->reconcile, wish->vm);
    const struct vmm_args_request request = {.config = messages->config,
                                             .vm = wish->vm,
                                             .bus_prefix = wish->bus_prefix,
                                             .first = wish->first,
                                             .devices = present.items,
                                             .device_count = present.count};
    char *error = vmm_args_make(&request, &args);
    if (error || (error = warn(messages, starting, &args)))
        return error;
    if (wish->require_pci && !args.function_count)
        return string_printf("no PCI function is there for %s", wish->vm);
    prepare_tables(messages, wish->vm, &args);
    starting->arguments = arguments_json(&args);
    starting->functions = memory_new(args.function_count, sizeof(struct device *));
    for (size_t i = 0; i < args.function_count; i++)
        starting->functions[i] = held(&present, args.functions[i]);
    starting->answered = memory_new(args.function_count, sizeof(bool));
    starting->count = starting->left = args.function_count;
    return NULL;
}

// Makes the arguments, and asks the host for what is in them.
static void begin(struct messages *messages, struct starting *starting)
{
    starting->made = true;
    starting->first = messages->serial;
    starting->error = make(messages, starting);
    messages->serial += starting->count;
    for (size_t i = 0; i < starting->count; i++)
        messages->callbacks->prepare(messages->user, starting->functions[i], starting->first + i);
}

// ---- answers

static struct json_object *reply_of(const struct starting *starting)
{
    struct json_object *reply = reply_new();
    if (starting->error)
        reply_fail(reply, starting->error);
    else
        json_object_object_add(reply, "vmm_args", json_object_get(starting->arguments));
    if (!starting->error && json_object_array_length(starting->warnings))
        json_object_object_add(reply, "warnings", json_object_get(starting->warnings));
    return reply;
}

// Answers the request in that place of the list.
static void answer(struct starting **place)
{
    struct starting *starting = *place;
    *place = starting->next;
    struct caller *caller = starting->caller;
    CLEANUP(cleanup_json) struct json_object *reply = reply_of(starting);
    starting_free(starting);
    reply_owed(caller, reply);
}

// ---- time

static char *why_late(const struct starting *starting)
{
    if (!starting->made)
        return string_printf("the devices of the host are not all known after %d s; try again", STARTING_SECONDS);
    size_t i = 0;
    while (starting->answered[i])
        i++;
    CLEANUP(cleanup_free) char *title = device_title(starting->functions[i]);
    return string_printf("%s: the host has not made it ready within %d s", title, STARTING_SECONDS);
}

// The place of a request that can be answered at that time, or the end of the list.
static struct starting **find_due(struct messages *messages, uint64_t now)
{
    struct starting **place = &messages->starting;
    while (*place && (*place)->deadline > now && !((*place)->made && !(*place)->left))
        place = &(*place)->next;
    return place;
}

static int set_timer(const struct messages *messages)
{
    uint64_t deadline = UINT64_MAX;
    for (const struct starting *starting = messages->starting; starting; starting = starting->next)
        if (starting->deadline < deadline)
            deadline = starting->deadline;
    if (deadline == UINT64_MAX)
        return sd_event_source_set_enabled(messages->starting_timer, SD_EVENT_OFF);
    int status = sd_event_source_set_time(messages->starting_timer, deadline);
    return status < 0 ? status : sd_event_source_set_enabled(messages->starting_timer, SD_EVENT_ONESHOT);
}

static int on_time(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time;
    struct messages *messages = user;
    bool scanned = reconcile_is_scanned(messages->reconcile);
    for (struct starting *starting = messages->starting; starting && scanned; starting = starting->next)
        if (!starting->made)
            begin(messages, starting);
    // An answer lets its caller say the next thing: the list is another one after each.
    struct starting **place;
    while (*(place = find_due(messages, view_now(messages)))) {
        if ((*place)->left || !(*place)->made) {
            free((*place)->error);
            (*place)->error = why_late(*place);
        }
        answer(place);
    }
    return set_timer(messages);
}

void starting_scanned(const struct messages *messages)
{
    if (messages->starting && sd_event_source_set_time(messages->starting_timer, 0) >= 0)
        (void)sd_event_source_set_enabled(messages->starting_timer, SD_EVENT_ONESHOT);
}

int starting_init(struct messages *messages)
{
    int status =
        sd_event_add_time(messages->loop, &messages->starting_timer, CLOCK_BOOTTIME, 0, 1000, on_time, messages);
    if (status < 0 || (status = sd_event_source_set_enabled(messages->starting_timer, SD_EVENT_OFF)) < 0)
        return status;
    return sd_event_source_set_priority(messages->starting_timer, MESSAGES_PRIORITY);
}

void starting_serve(struct messages *messages, struct caller *caller, const struct starting_wish *wish)
{
    struct starting *starting = starting_new(messages, caller, wish);
    if (reconcile_is_scanned(messages->reconcile))
        begin(messages, starting);
    if (starting->made && !starting->left) {
        CLEANUP(cleanup_json) struct json_object *reply = reply_of(starting);
        reply_say(caller, reply);
        starting_free(starting);
        return;
    }
    caller->owed = true;
    struct starting **end = &messages->starting;
    while (*end)
        end = &(*end)->next;
    *end = starting;
    (void)set_timer(messages);
}

void starting_prepared(struct messages *messages, uint64_t serial, const char *why_not)
{
    struct starting **place = find(messages, serial, NULL);
    struct starting *starting = *place;
    if (!starting) // its caller has gone, or has had to do without
        return;
    starting->answered[serial - starting->first] = true;
    if (why_not && !starting->error) {
        CLEANUP(cleanup_free) char *title = device_title(starting->functions[serial - starting->first]);
        starting->error = string_printf("%s: %s", title, why_not);
    }
    if (--starting->left == 0)
        answer(place);
}

void starting_forget(struct messages *messages, const struct caller *caller)
{
    struct starting **place = find(messages, 0, caller);
    struct starting *starting = *place;
    if (!starting)
        return;
    starting->caller->owed = false;
    *place = starting->next;
    starting_free(starting);
}

void starting_clear(struct messages *messages)
{
    while (messages->starting) {
        struct starting *starting = messages->starting;
        messages->starting = starting->next;
        starting_free(starting);
    }
    sd_event_source_unref(messages->starting_timer);
}
