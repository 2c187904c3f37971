// Devices and VMs as a caller sees them.
#include "api/view.h"

#include <time.h>

#include "api/reply.h"
#include "api/scope.h"
#include "core/device_json.h"
#include "core/report.h"
#include "util/text.h"

#define SECOND UINT64_C(1000000)

uint64_t view_now(const struct messages *messages)
{
    uint64_t now = 0;
    (void)sd_event_now(messages->loop, CLOCK_BOOTTIME, &now);
    return now;
}

struct json_object *view_time(const struct messages *messages, uint64_t at)
{
    uint64_t now = view_now(messages), wall = 0;
    (void)sd_event_now(messages->loop, CLOCK_REALTIME, &wall);
    uint64_t age = at < now ? now - at : 0;
    time_t seconds = (time_t)((wall > age ? wall - age : 0) / SECOND);
    struct tm parts;
    char text[32];
    if (!gmtime_r(&seconds, &parts) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts))
        return NULL;
    return json_object_new_string(text);
}

bool view_is_named(const struct device_status *status)
{
    return status->verdict->kind != VERDICT_NO_RULE && status->verdict->kind != VERDICT_HUB;
}

// The VM that has it. One that is to let go of it has it until it has done so.
static const char *holder(const struct device_status *status)
{
    bool in = status->state == STATE_ATTACHED || status->state == STATE_DETACHING;
    return in ? status->vm : NULL;
}

static void add_reason(const struct messages *messages, const struct caller *caller, struct json_object *object,
                       const char *reason)
{
    CLEANUP(cleanup_free) char *text = scope_text(caller, messages->reconcile, reason);
    reply_add(object, "reason", text);
}

static void add_flag(struct json_object *object, const char *name, bool value)
{
    json_object_object_add(object, name, json_object_new_boolean(value));
}

struct json_object *view_device(const struct messages *messages, const struct caller *caller,
                                const struct device_status *status)
{
    const struct verdict *verdict = status->verdict;
    const struct group *group = verdict->kind == VERDICT_ALLOWED ? verdict->group : NULL;
    struct json_object *object = device_to_json(status->device);
    reply_add_vms(object, caller, group);
    reply_add(object, "vm", scope_vm(caller, holder(status)));
    reply_add(object, "target", scope_vm(caller, status->vm));
    reply_add(object, "selected", scope_vm(caller, status->chosen));
    reply_add(object, "state", report_state(status->state));
    add_reason(messages, caller, object, status->reason);
    json_object_object_add(object, "since", view_time(messages, status->since));
    reply_add(object, "tag", group ? group->tag : NULL);
    add_flag(object, "named", view_is_named(status));
    add_flag(object, "detached", status->detached);
    add_flag(object, "selecting", status->selecting);
    if (status->device->kind == DEVICE_PCI)
        add_flag(object, "iommu_member", verdict->added);
    add_flag(object, "skip_on_suspend", group && group->skip_on_suspend);
    return object;
}

const char *view_vm_state(const struct vm_status *vm)
{
    static const char *const words[] = {[VM_STATE_DOWN] = "down",
                                        [VM_STATE_STARTING] = "starting",
                                        [VM_STATE_ANSWERS] = "up",
                                        [VM_STATE_SILENT] = "silent"};
    return vm->known ? words[vm->state] : "unknown";
}

struct json_object *view_vm(const struct messages *messages, const struct caller *caller, const struct vm_status *vm)
{
    struct json_object *object = json_object_new_object();
    reply_add(object, "name", vm->name);
    reply_add(object, "type", config_vm_type(vm->type));
    reply_add(object, "state", view_vm_state(vm));
    if (vm->why && *vm->why)
        add_reason(messages, caller, object, vm->why);
    else
        reply_add(object, "reason", NULL);
    add_flag(object, "configured", vm->configured);
    add_flag(object, "suspended", vm->suspended);
    json_object_object_add(object, "attached", json_object_new_uint64(vm->attached));
    json_object_object_add(object, "waiting", json_object_new_uint64(vm->waiting));
    json_object_object_add(object, "since", vm->known ? view_time(messages, vm->since) : NULL);
    return object;
}
