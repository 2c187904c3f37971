// One request: who may ask it, what is done, what is answered.
#include "api/request.h"

#include <stdlib.h>
#include <string.h>

#include "api/events.h"
#include "api/find.h"
#include "api/reply.h"
#include "api/scope.h"
#include "api/starting.h"
#include "api/view.h"
#include "api/waiting.h"
#include "core/explain.h"
#include "core/report.h"
#include "util/json.h"
#include "util/text.h"

#define NAME_SHOWN_MAX 100
#define ERROR_LINES_MAX 256
#define ERROR_LINE_MAX 4096
// With that many devices detached, guests that may name some VMs only detach no more.
#define BOUND_DETACHED_MAX (CHOICES_MAX / 2)

static const char not_allowed[] = "not allowed for this client";

typedef void action_serve(struct messages *messages, struct caller *caller, struct json_object *request);

// ---- members

static char *shown(const char *name)
{
    struct text text = {0};
    text_add_safe(&text, name, NAME_SHOWN_MAX);
    return text_take(&text);
}

// Says what is wrong, and is false, unless the member is a string, or absent, and then NULL.
static bool read_string(struct caller *caller, struct json_object *request, const char *name, const char **string)
{
    *string = json_member_string(request, name);
    if ((*string && **string) || !json_member(request, name))
        return true;
    reply_failed(caller, "%s must be a string that is not empty", name);
    return false;
}

static bool read_flag(struct caller *caller, struct json_object *request, const char *name, bool *flag)
{
    *flag = false;
    if (json_member_bool(request, name, flag) || !json_member(request, name))
        return true;
    reply_failed(caller, "%s must be true or false", name);
    return false;
}

static bool vm_is_known(const struct messages *messages, const char *name)
{
    for (size_t i = 0; i < reconcile_vm_count(messages->reconcile); i++) {
        struct vm_status vm;
        reconcile_vm_status(messages->reconcile, i, &vm);
        if (strcmp(vm.name, name) == 0)
            return true;
    }
    return false;
}

// "vm", which must be one that the caller may name; NULL if absent. As read_string.
static bool read_vm(const struct messages *messages, struct caller *caller, struct json_object *request,
                    const char **vm)
{
    if (!read_string(caller, request, "vm", vm))
        return false;
    if (!*vm)
        return true;
    if (!scope_has_vm(caller, *vm)) { // whether it exists is not for their eyes either
        reply_failed(caller, "%s", not_allowed);
        return false;
    }
    CLEANUP(cleanup_free) char *name = shown(*vm);
    if (vm_is_known(messages, *vm))
        return true;
    reply_failed(caller, "there is no VM %s", name);
    return false;
}

// ---- lists

// Whether a device belongs in a list, and what the request says about that.
struct listing {
    bool all;              // of all kinds, also what stays on the host
    enum device_kind kind; // else only what a rule takes of this kind
    bool detached;         // only what was detached by request
    bool attachable;       // but none of that
    const char *tag;
};

static bool is_listed(const struct caller *caller, const struct device_status *status, const struct listing *listing)
{
    const struct verdict *verdict = status->verdict;
    bool allowed = verdict->kind == VERDICT_ALLOWED;
    if (!scope_has_device(caller, status))
        return false;
    if (!listing->all && (!allowed || status->device->kind != listing->kind))
        return false;
    if (status->detached ? listing->attachable : listing->detached)
        return false;
    return !listing->tag || (allowed && string_equal(verdict->group->tag, listing->tag));
}

static void say_list(const struct messages *messages, struct caller *caller, const struct listing *listing,
                     const char *name)
{
    struct json_object *devices = json_object_new_array();
    for (size_t i = 0; i < reconcile_device_count(messages->reconcile); i++) {
        CLEANUP(device_status_clear) struct device_status status;
        reconcile_device_status(messages->reconcile, i, &status);
        if (is_listed(caller, &status, listing))
            json_object_array_add(devices, view_device(messages, caller, &status));
    }
    CLEANUP(cleanup_json) struct json_object *reply = reply_new();
    json_object_object_add(reply, name, devices);
    reply_say(caller, reply);
}

static void list_kind(struct messages *messages, struct caller *caller, struct json_object *request,
                      enum device_kind kind, const char *name)
{
    struct listing listing = {.kind = kind};
    if (read_flag(caller, request, "disconnected", &listing.detached) &&
        read_string(caller, request, "tag", &listing.tag)) {
        // As in the Python vhotplug, of which the two lists differ in that.
        listing.attachable = kind == DEVICE_PCI && !listing.detached;
        say_list(messages, caller, &listing, name);
    }
}

static void usb_list(struct messages *messages, struct caller *caller, struct json_object *request)
{
    list_kind(messages, caller, request, DEVICE_USB, "usb_devices");
}

static void pci_list(struct messages *messages, struct caller *caller, struct json_object *request)
{
    list_kind(messages, caller, request, DEVICE_PCI, "pci_devices");
}

static void device_list(struct messages *messages, struct caller *caller, struct json_object *request)
{
    (void)request;
    const struct listing listing = {.all = true};
    say_list(messages, caller, &listing, "devices");
}

static void vm_list(struct messages *messages, struct caller *caller, struct json_object *request)
{
    (void)request;
    CLEANUP(cleanup_json) struct json_object *reply = reply_new();
    struct json_object *vms = json_object_new_array();
    for (size_t i = 0; i < reconcile_vm_count(messages->reconcile); i++) {
        struct vm_status vm;
        reconcile_vm_status(messages->reconcile, i, &vm);
        if (scope_has_vm(caller, vm.name))
            json_object_array_add(vms, view_vm(messages, caller, &vm));
    }
    json_object_object_add(reply, "vms", vms);
    reply_say(caller, reply);
}

// ---- status

static void count(struct json_object *counts, const char *word)
{
    struct json_object *before = json_member(counts, word);
    json_object_object_add(counts, word, json_object_new_int64(before ? json_object_get_int64(before) + 1 : 1));
}

static struct json_object *count_devices(const struct messages *messages, const struct caller *caller)
{
    struct json_object *counts = json_object_new_object();
    for (size_t i = 0; i < reconcile_device_count(messages->reconcile); i++) {
        CLEANUP(device_status_clear) struct device_status status;
        reconcile_device_status(messages->reconcile, i, &status);
        // Of the host's PCI functions, only a few are anybody's concern.
        bool plain = status.device->kind == DEVICE_PCI && !view_is_named(&status);
        if (scope_has_device(caller, &status) && !device_is_hub(status.device) && !plain)
            count(counts, report_state(status.state));
    }
    return counts;
}

static struct json_object *count_vms(const struct messages *messages, const struct caller *caller)
{
    struct json_object *counts = json_object_new_object();
    for (size_t i = 0; i < reconcile_vm_count(messages->reconcile); i++) {
        struct vm_status vm;
        reconcile_vm_status(messages->reconcile, i, &vm);
        if (scope_has_vm(caller, vm.name))
            count(counts, view_vm_state(&vm));
    }
    return counts;
}

static void status(struct messages *messages, struct caller *caller, struct json_object *request)
{
    (void)request;
    CLEANUP(cleanup_json) struct json_object *reply = reply_new();
    CLEANUP(cleanup_free) char *file = shown(messages->config->file);
    reply_add(reply, "version", VERSION);
    json_object_object_add(reply, "devices", count_devices(messages, caller));
    json_object_object_add(reply, "vms", count_vms(messages, caller));
    reply_add(reply, "config", scope_is_bound(caller) ? NULL : file);
    json_object_object_add(reply, "since", view_time(messages, messages->started));
    reply_say(caller, reply);
}

// ---- explain

// Policy in full is for those who may see every VM; others get the verdict as far as it is about theirs.
static struct json_object *explanation(const struct messages *messages, const struct caller *caller,
                                       const struct device_status *status)
{
    struct json_object *full = explain_device(messages->config, status->device);
    if (!scope_is_bound(caller))
        return full;
    const struct verdict *verdict = status->verdict;
    const struct group *group = verdict->kind == VERDICT_ALLOWED ? verdict->group : NULL;
    CLEANUP(cleanup_free)
    char *reason = scope_text(caller, messages->reconcile, json_member_string(full, "reason"));
    struct json_object *part = json_object_new_object();
    reply_add(part, "verdict", json_member_string(full, "verdict"));
    reply_add(part, "vm", scope_vm(caller, json_member_string(full, "vm")));
    reply_add_vms(part, caller, group);
    reply_add(part, "reason", reason);
    json_object_object_add(part, "groups", json_object_new_array());
    json_object_put(full);
    return part;
}

static void say_explanation(const struct messages *messages, struct caller *caller, const struct device_status *status)
{
    CLEANUP(cleanup_json) struct json_object *reply = reply_new();
    struct json_object *device = view_device(messages, caller, status);
    static const char *const copied[] = {"state", "reason", "since"};
    for (size_t i = 0; i < sizeof(copied) / sizeof(*copied); i++)
        json_object_object_add(reply, copied[i], json_object_get(json_member(device, copied[i])));
    json_object_object_add(reply, "vm", json_object_get(json_member(device, "target")));
    json_object_object_add(reply, "explanation", explanation(messages, caller, status));
    json_object_object_add(reply, "device", device);
    reply_say(caller, reply);
}

// False, and said, if it is not there.
static bool find_status(const struct messages *messages, uint64_t instance, struct device_status *status)
{
    for (size_t i = 0; i < reconcile_device_count(messages->reconcile); i++) {
        reconcile_device_status(messages->reconcile, i, status);
        if (status->device->instance == instance)
            return true;
        device_status_clear(status);
    }
    return false;
}

static void explain(struct messages *messages, struct caller *caller, struct json_object *request)
{
    CLEANUP(found_clear) struct found found = {0};
    CLEANUP(cleanup_free) char *error = find_devices(messages, caller, request, FIND_ALL, &found);
    CLEANUP(device_status_clear) struct device_status status = {0};
    if (error)
        reply_failed(caller, "%s", error);
    else if (found.tagged)
        reply_failed(caller, "explain takes one device, not a tag");
    else if (find_status(messages, found.devices[0].instance, &status))
        say_explanation(messages, caller, &status);
    else
        reply_failed(caller, "the device is not there any more");
}

// ---- attach and detach

// The VM that an attach without a name means for those who may not name all: one of theirs.
static const char *own_vm(const struct caller *caller, const struct device_status *status)
{
    if (!scope_is_bound(caller) || status->verdict->kind != VERDICT_ALLOWED)
        return NULL;
    const struct group *group = status->verdict->group;
    for (size_t i = 0; i < group->vm_count; i++) {
        if (string_equal(group->vms[i], status->chosen) && scope_has_vm(caller, status->chosen))
            return status->chosen;
    }
    for (size_t i = 0; i < group->vm_count; i++)
        if (scope_has_vm(caller, group->vms[i]))
            return group->vms[i];
    return NULL;
}

// Who may not name every VM leaves room for those who may.
static char *begin_detach(const struct messages *messages, const struct caller *caller,
                          const struct device_status *status)
{
    size_t count = choices_detached(reconcile_choices(messages->reconcile));
    if (scope_is_bound(caller) && !status->detached && count >= BOUND_DETACHED_MAX)
        return string_printf("%zu devices are detached by request, and this client may detach no more: attach some "
                             "of them first",
                             count);
    return reconcile_detach(messages->reconcile, status->device->instance, view_now(messages));
}

// Starts it. NULL, or why not; GOAL is the VM that was named.
static char *begin(const struct messages *messages, const struct caller *caller, const struct device_status *status,
                   enum waiting_kind kind, const char *vm)
{
    if (!scope_may_move(caller, messages->reconcile, status))
        return string_copy(not_allowed);
    if (kind == WAITING_DETACH)
        return begin_detach(messages, caller, status);
    CLEANUP(cleanup_free) char *goal = string_copy(vm ? vm : own_vm(caller, status));
    if (!goal && scope_is_bound(caller))
        return string_copy(not_allowed);
    return reconcile_attach(messages->reconcile, status->device->instance, goal, view_now(messages));
}

static void begin_one(const struct messages *messages, struct caller *caller, struct waiting *waiting,
                      uint64_t instance, const char *vm)
{
    CLEANUP(device_status_clear) struct device_status status = {0};
    if (!find_status(messages, instance, &status))
        return;
    CLEANUP(cleanup_device) struct device *device = device_reference(status.device);
    char *error = begin(messages, caller, &status, waiting->kind, vm);
    if (error)
        waiting_add_failed(waiting, device, error);
    else
        waiting_add(waiting, device, vm, false);
}

static void move(struct messages *messages, struct caller *caller, struct json_object *request, enum find_what what,
                 enum waiting_kind kind, const char *vm)
{
    CLEANUP(found_clear) struct found found = {0};
    CLEANUP(cleanup_free) char *error = find_devices(messages, caller, request, what, &found);
    if (error) {
        reply_failed(caller, "%s", error);
        return;
    }
    struct waiting *waiting = waiting_new(messages, caller, kind, found.tagged);
    for (size_t i = 0; i < found.count; i++)
        begin_one(messages, caller, waiting, found.devices[i].instance, vm);
}

static void attach(struct messages *messages, struct caller *caller, struct json_object *request, enum find_what what)
{
    const char *vm;
    if (read_vm(messages, caller, request, &vm))
        move(messages, caller, request, what, WAITING_ATTACH, vm);
}

static void usb_attach(struct messages *messages, struct caller *caller, struct json_object *request)
{
    attach(messages, caller, request, FIND_USB);
}

static void usb_detach(struct messages *messages, struct caller *caller, struct json_object *request)
{
    move(messages, caller, request, FIND_USB, WAITING_DETACH, NULL);
}

static void pci_attach(struct messages *messages, struct caller *caller, struct json_object *request)
{
    attach(messages, caller, request, FIND_PCI);
}

static void pci_detach(struct messages *messages, struct caller *caller, struct json_object *request)
{
    move(messages, caller, request, FIND_PCI, WAITING_DETACH, NULL);
}

// ---- suspend and resume

// What is asked: the devices of a kind leave VM (NULL: all that the caller may name), or come back.
struct rest {
    enum waiting_kind waiting;
    enum device_kind kind;
    const char *vm;
};

static bool concerns(const struct caller *caller, const struct device_status *status, const struct rest *rest)
{
    if (status->device->kind != rest->kind || !status->vm)
        return false;
    return rest->vm ? string_equal(status->vm, rest->vm) : scope_has_vm(caller, status->vm);
}

static void add_concerned(const struct messages *messages, const struct caller *caller, struct waiting *waiting,
                          const struct rest *rest)
{
    for (size_t i = 0; i < reconcile_device_count(messages->reconcile); i++) {
        CLEANUP(device_status_clear) struct device_status status;
        reconcile_device_status(messages->reconcile, i, &status);
        const struct verdict *verdict = status.verdict;
        bool in = status.state == STATE_ATTACHED || status.state == STATE_ATTACHING || status.state == STATE_DETACHING;
        // What was detached may still be in its VM, so a suspend waits for it; it is not to go back.
        if (!concerns(caller, &status, rest) || (waiting->kind == WAITING_SUSPEND ? !in : status.detached))
            continue;
        bool skip = verdict->kind == VERDICT_ALLOWED && verdict->group->skip_on_suspend;
        waiting_add(waiting, status.device, NULL, skip);
    }
}

static char *rest_vm(const struct messages *messages, const struct rest *rest, const char *vm)
{
    uint64_t now = view_now(messages);
    return rest->waiting == WAITING_SUSPEND ? reconcile_suspend(messages->reconcile, rest->kind, vm, now)
                                            : reconcile_resume(messages->reconcile, rest->kind, vm, now);
}

// Each VM that they may name.
static char *rest_own(const struct messages *messages, const struct caller *caller, const struct rest *rest)
{
    char *error = NULL;
    for (size_t i = 0; i < caller->vm_count && !error; i++)
        if (vm_is_known(messages, caller->vms[i]))
            error = rest_vm(messages, rest, caller->vms[i]);
    return error;
}

static void rest_or_wake(struct messages *messages, struct caller *caller, struct json_object *request,
                         enum device_kind kind, enum waiting_kind waiting_kind)
{
    struct rest rest = {.waiting = waiting_kind, .kind = kind};
    if (!read_vm(messages, caller, request, &rest.vm))
        return;
    // What is in a VM is seen before, what is to go back into it also.
    struct waiting *waiting = waiting_new(messages, caller, waiting_kind, true);
    add_concerned(messages, caller, waiting, &rest);
    CLEANUP(cleanup_free)
    char *error =
        !rest.vm && scope_is_bound(caller) ? rest_own(messages, caller, &rest) : rest_vm(messages, &rest, rest.vm);
    if (!error)
        return;
    waiting_forget(messages, caller);
    reply_failed(caller, "%s", error);
}

static void usb_suspend(struct messages *messages, struct caller *caller, struct json_object *request)
{
    rest_or_wake(messages, caller, request, DEVICE_USB, WAITING_SUSPEND);
}

static void usb_resume(struct messages *messages, struct caller *caller, struct json_object *request)
{
    rest_or_wake(messages, caller, request, DEVICE_USB, WAITING_RESUME);
}

static void pci_suspend(struct messages *messages, struct caller *caller, struct json_object *request)
{
    rest_or_wake(messages, caller, request, DEVICE_PCI, WAITING_SUSPEND);
}

static void pci_resume(struct messages *messages, struct caller *caller, struct json_object *request)
{
    rest_or_wake(messages, caller, request, DEVICE_PCI, WAITING_RESUME);
}

// ---- reload

static struct json_object *error_lines(const char *errors)
{
    struct json_object *lines = json_object_new_array();
    while (*errors && json_object_array_length(lines) < ERROR_LINES_MAX) {
        size_t length = strcspn(errors, "\n");
        CLEANUP(cleanup_free) char *line = string_printf("%.*s", (int)length, errors);
        struct text safe = {0};
        text_add_safe(&safe, line, ERROR_LINE_MAX);
        CLEANUP(cleanup_free) char *text = text_take(&safe);
        json_object_array_add(lines, json_object_new_string(text));
        errors += length + (errors[length] == '\n');
    }
    return lines;
}

// "error" has all lines, as people read them; "errors" has each.
static void add_errors(struct json_object *reply, const char *errors)
{
    struct json_object *lines = error_lines(errors);
    struct text text = {0};
    for (size_t i = 0; i < json_object_array_length(lines); i++)
        text_printf(&text, "%s%s", i ? "\n" : "", json_object_get_string(json_object_array_get_idx(lines, i)));
    CLEANUP(cleanup_free) char *all = text_take(&text);
    reply_add(reply, "result", "failed");
    reply_add(reply, "error", all);
    json_object_object_add(reply, "errors", lines);
}

static void reload(struct messages *messages, struct caller *caller, struct json_object *request)
{
    (void)request;
    if (!caller->may_reload) {
        reply_failed(caller, "%s", not_allowed);
        return;
    }
    CLEANUP(cleanup_free) char *errors = messages->callbacks->reload(messages->user);
    CLEANUP(cleanup_json) struct json_object *reply = reply_new();
    if (errors)
        add_errors(reply, errors);
    reply_say(caller, reply);
}

// ---- the rest

static void say_ok(struct caller *caller)
{
    CLEANUP(cleanup_json) struct json_object *reply = reply_new();
    reply_say(caller, reply);
}

static void enable_notifications(struct messages *messages, struct caller *caller, struct json_object *request)
{
    (void)request;
    events_want(messages->events, caller);
    say_ok(caller);
}

static bool read_index(struct caller *caller, struct json_object *request, const char *name, unsigned *index)
{
    uint64_t number = 0;
    bool good = json_member_uint64(request, name, &number) && number <= UINT16_MAX;
    *index = good ? (unsigned)number : 0;
    if (good || !json_member(request, name))
        return true;
    reply_failed(caller, "%s must be a number from 0 to %u", name, UINT16_MAX);
    return false;
}

static void vmm_args(struct messages *messages, struct caller *caller, struct json_object *request)
{
    struct starting_wish wish;
    if (!read_vm(messages, caller, request, &wish.vm) ||
        !read_string(caller, request, "qemu_bus_prefix", &wish.bus_prefix) ||
        !read_index(caller, request, "qemu_bus_start_index", &wish.first) ||
        !read_flag(caller, request, "require_pci", &wish.require_pci))
        return;
    if (wish.vm)
        starting_serve(messages, caller, &wish);
    else
        reply_failed(caller, "VM name is required");
}

static const struct action {
    const char *name;
    enum api_permission permission;
    action_serve *serve;
} actions[] = {
    {"enable_notifications", API_NOTIFY, enable_notifications},
    {"usb_list", API_LIST, usb_list},
    {"usb_attach", API_CONTROL, usb_attach},
    {"usb_detach", API_CONTROL, usb_detach},
    {"usb_suspend", API_CONTROL, usb_suspend},
    {"usb_resume", API_CONTROL, usb_resume},
    {"pci_list", API_LIST, pci_list},
    {"pci_attach", API_CONTROL, pci_attach},
    {"pci_detach", API_CONTROL, pci_detach},
    {"pci_suspend", API_CONTROL, pci_suspend},
    {"pci_resume", API_CONTROL, pci_resume},
    {"vmm_args", API_CONTROL, vmm_args},
    {"device_list", API_LIST, device_list},
    {"vm_list", API_LIST, vm_list},
    {"status", API_LIST, status},
    {"explain", API_LIST, explain},
    {"reload", API_CONTROL, reload},
};

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++)
        if (strcmp(actions[i].name, name) == 0)
            return &actions[i];
    return NULL;
}

void request_serve(struct messages *messages, struct caller *caller, struct json_object *request)
{
    const char *name = json_member_string(request, "action");
    if (!name || !*name) {
        reply_failed(caller,
                     json_member(request, "action") && !name ? "action must be a string" : "No action specified");
        return;
    }
    const struct action *action = find_action(name);
    CLEANUP(cleanup_free) char *word = shown(name);
    if (!action)
        reply_failed(caller, "Unknown message: %s", word);
    else if (!(caller->permissions & action->permission))
        reply_failed(caller, "%s: %s", word, not_allowed);
    else
        action->serve(messages, caller, request);
}
