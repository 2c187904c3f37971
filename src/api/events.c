// What is told without being asked: what the reconciler puts out are states, and events are made of their changes.
#include "api/events.h"

#include <stdlib.h>
#include <string.h>

#include "api/reply.h"
#include "api/scope.h"
#include "core/device_json.h"
#include "util/json.h"
#include "util/text.h"

// What was told of a device that is there.
struct told_device {
    uint64_t instance;
    char *vm; // it was told to be in this VM; NULL: in none
};

struct told_vm {
    char *name;
    bool up;
    uint64_t instance;
};

struct events {
    const struct reconcile *reconcile;
    struct caller *notified; // those who want events
    struct told_device *devices;
    size_t device_count;
    struct told_vm *vms;
    size_t vm_count;
};

// One thing that happened.
struct event {
    const char *name;
    const struct device *device; // NULL: it is about VM
    const struct group *group;   // that takes the device; NULL: none
    const char *vm;              // NULL: none is concerned
    const char *error;           // attach_failed
    bool brief;                  // of the device, only where it was: it may have gone
    bool names_vm;               // says which VM
    bool names_choices;          // says which VMs there are
};

// ---- to whom, and in what words

// The events of a kind of device, and the member that the device is in.
struct words {
    const char *connected, *disconnected, *attached, *detached, *member;
};

static const struct words *words_of(const struct device *device)
{
    static const struct words usb = {"usb_connected", "usb_disconnected", "usb_attached", "usb_detached", "usb_device"};
    static const struct words pci = {"pci_connected", "pci_disconnected", "pci_attached", "pci_detached", "pci_device"};
    return device->kind == DEVICE_PCI ? &pci : &usb;
}

static bool is_for(const struct caller *caller, const struct event *event)
{
    if (!(caller->permissions & API_NOTIFY)) // a reload has taken it from them
        return false;
    if (!scope_is_bound(caller))
        return true;
    if (event->names_vm)
        return event->vm && scope_has_vm(caller, event->vm);
    return scope_has_group(caller, event->group);
}

static struct json_object *device_of(const struct caller *caller, const struct event *event)
{
    struct json_object *device = device_to_json(event->device);
    if (event->brief) {
        // All that the Python vhotplug says of it then; ours on top may help to recognise it.
        static const char *const kept[][5] = {[DEVICE_USB] = {"device_node", "vid", "pid", "sys_name", "serial"},
                                              [DEVICE_PCI] = {"address", "vid", "did"}};
        const char *const *names = kept[event->device->kind];
        struct json_object *brief = json_object_new_object();
        for (size_t i = 0; i < sizeof(*kept) / sizeof(**kept) && names[i]; i++)
            json_object_object_add(brief, names[i], json_object_get(json_member(device, names[i])));
        json_object_put(device);
        return brief;
    }
    reply_add_vms(device, caller, event->group);
    return device;
}

static struct json_object *event_json(const struct events *events, const struct caller *caller,
                                      const struct event *event)
{
    struct json_object *object = json_object_new_object();
    reply_add(object, "event", event->name);
    if (event->device)
        json_object_object_add(object, words_of(event->device)->member, device_of(caller, event));
    if (event->names_choices)
        reply_add_vms(object, caller, event->group);
    if (event->names_vm)
        reply_add(object, "vm", event->vm);
    if (event->error) {
        CLEANUP(cleanup_free) char *error = scope_text(caller, events->reconcile, event->error);
        reply_add(object, "error", error);
    }
    return object;
}

static void tell(const struct events *events, const struct event *event)
{
    CLEANUP(cleanup_free) char *shared = NULL; // the same line for all who may see everything
    for (struct caller *caller = events->notified; caller; caller = caller->next_notified) {
        if (!is_for(caller, event))
            continue;
        if (shared) {
            caller->say(caller, shared, strlen(shared));
            continue;
        }
        CLEANUP(cleanup_json) struct json_object *object = event_json(events, caller, event);
        char *line = json_print(object);
        caller->say(caller, line, strlen(line));
        if (scope_is_bound(caller))
            free(line);
        else
            shared = line;
    }
}

// ---- devices

static struct told_device *told_find(const struct events *events, uint64_t instance)
{
    for (size_t i = 0; i < events->device_count; i++)
        if (events->devices[i].instance == instance)
            return &events->devices[i];
    return NULL;
}

static struct told_device *told_add(struct events *events, uint64_t instance)
{
    events->devices = memory_resize(events->devices, events->device_count + 1, sizeof(*events->devices));
    struct told_device *told = &events->devices[events->device_count++];
    *told = (struct told_device){.instance = instance};
    return told;
}

static void told_remove(struct events *events, struct told_device *told)
{
    free(told->vm);
    *told = events->devices[--events->device_count];
}

// The VM that has the device now. One that is to let go of it has it until it has done so.
static const char *holder(const struct output *output, const struct told_device *told)
{
    bool leaves = output->state == STATE_DETACHING && told->vm && string_equal(output->vm, told->vm);
    return !output->gone && (output->state == STATE_ATTACHED || leaves) ? output->vm : NULL;
}

static void tell_place(const struct events *events, const struct output *output, struct told_device *told)
{
    const char *vm = holder(output, told);
    if (string_equal(vm, told->vm))
        return;
    struct event event = {.device = output->device, .group = output->group, .names_vm = true};
    CLEANUP(cleanup_free) char *before = told->vm;
    told->vm = string_copy(vm);
    if (before) {
        event.name = words_of(output->device)->detached;
        event.vm = before;
        event.brief = output->device->kind == DEVICE_USB;
        tell(events, &event);
    }
    if (vm) {
        event.name = words_of(output->device)->attached;
        event.vm = vm;
        event.brief = false;
        tell(events, &event);
    }
}

// The reconciler puts out each refusal once.
static void tell_refusal(const struct events *events, const struct output *output)
{
    if (output->gone || output->state != STATE_REFUSED)
        return;
    const struct event event = {.name = "attach_failed",
                                .device = output->device,
                                .group = output->group,
                                .vm = output->vm,
                                .error = output->reason,
                                .names_vm = true};
    tell(events, &event);
}

static void tell_presence(const struct events *events, const struct output *output)
{
    const struct words *words = words_of(output->device);
    const struct event event = {.name = output->gone ? words->disconnected : words->connected,
                                .device = output->device,
                                .group = output->group,
                                .brief = output->gone};
    tell(events, &event);
}

static void device_output(struct events *events, const struct output *output)
{
    struct told_device *told = told_find(events, output->device->instance);
    if (!told) {
        told = told_add(events, output->device->instance);
        if (output->plugged && !output->gone)
            tell_presence(events, output);
    }
    tell_place(events, output, told);
    tell_refusal(events, output);
    if (!output->gone)
        return;
    tell_presence(events, output);
    told_remove(events, told);
}

static void select_output(const struct events *events, const struct output *output)
{
    const struct event event = {
        .name = "usb_select_vm", .device = output->device, .group = output->group, .names_choices = true};
    tell(events, &event);
}

// ---- VMs

static struct told_vm *told_vm(struct events *events, const char *name)
{
    for (size_t i = 0; i < events->vm_count; i++)
        if (strcmp(events->vms[i].name, name) == 0)
            return &events->vms[i];
    events->vms = memory_resize(events->vms, events->vm_count + 1, sizeof(*events->vms));
    struct told_vm *told = &events->vms[events->vm_count++];
    *told = (struct told_vm){.name = string_copy(name)};
    return told;
}

// The process that serves the VM, 0 if there is none or it cannot be told.
static uint64_t process_of(const struct events *events, const char *name)
{
    for (size_t i = 0; i < reconcile_vm_count(events->reconcile); i++) {
        struct vm_status vm;
        reconcile_vm_status(events->reconcile, i, &vm);
        if (strcmp(vm.name, name) == 0)
            return vm.instance;
    }
    return 0;
}

static void tell_vm(const struct events *events, struct told_vm *told, bool up)
{
    if (told->up == up)
        return;
    told->up = up;
    const struct event event = {.name = up ? "vm_up" : "vm_down", .vm = told->name, .names_vm = true};
    tell(events, &event);
}

static void vm_output(struct events *events, const struct output *output)
{
    struct told_vm *told = told_vm(events, output->vm);
    uint64_t process = process_of(events, output->vm);
    bool another = process && told->instance && process != told->instance;
    if (output->vm_state == VM_STATE_DOWN || another) // its end may have been too short to be seen
        tell_vm(events, told, false);
    if (output->vm_state == VM_STATE_ANSWERS)
        tell_vm(events, told, true);
    told->instance = output->vm_state == VM_STATE_DOWN ? 0 : process;
}

struct events *events_new(const struct reconcile *reconcile)
{
    struct events *events = memory_new(1, sizeof(*events));
    events->reconcile = reconcile;
    return events;
}

void events_free(struct events *events)
{
    if (!events)
        return;
    for (size_t i = 0; i < events->device_count; i++)
        free(events->devices[i].vm);
    free(events->devices);
    for (size_t i = 0; i < events->vm_count; i++)
        free(events->vms[i].name);
    free(events->vms);
    free(events);
}

void events_want(struct events *events, struct caller *caller)
{
    if (caller->notified)
        return;
    caller->notified = true;
    caller->next_notified = events->notified;
    events->notified = caller;
}

void events_forget(struct events *events, const struct caller *caller)
{
    for (struct caller **place = &events->notified; *place; place = &(*place)->next_notified) {
        if (*place != caller)
            continue;
        *place = caller->next_notified;
        return;
    }
}

void events_output(struct events *events, const struct output *output)
{
    if (output->kind == OUTPUT_VM) {
        vm_output(events, output);
        return;
    }
    bool about_device = output->kind == OUTPUT_DEVICE || output->kind == OUTPUT_SELECT;
    if (!about_device || output->device->kind == DEVICE_INPUT || device_is_hub(output->device))
        return;
    if (output->kind == OUTPUT_DEVICE)
        device_output(events, output);
    else
        select_output(events, output);
}
