// How things stand, for people who ask.
#include <stdlib.h>

#include "core/reconcile_private.h"
#include "util/text.h"

bool reconcile_is_scanned(const struct reconcile *reconcile)
{
    return reconcile->scanned;
}

size_t reconcile_device_count(const struct reconcile *reconcile)
{
    return reconcile->device_count;
}

static const struct vm_record *vm_of_id(const struct reconcile *reconcile, uint64_t id)
{
    for (size_t i = 0; i < reconcile->vm_count; i++)
        if (reconcile->vms[i]->id == id)
            return reconcile->vms[i];
    return NULL;
}

// The VM that has it, is to get it or to let it go; SEEN is the VM that its state is about.
static const struct vm_record *vm_of(const struct device_record *record, enum device_state state,
                                     const struct vm_record *seen)
{
    if (state == STATE_HOST || state == STATE_IGNORED)
        return NULL;
    if (state == STATE_ATTACHED || state == STATE_DETACHING)
        return seen;
    return record->wanted ? record->wanted : record->rests;
}

static bool is_trying(const struct device_record *record)
{
    if (!record->wanted || record->detached)
        return false;
    return device_record_flies(record->wanted, record) || (record->ready && record->again);
}

void reconcile_device_status(const struct reconcile *reconcile, size_t index, struct device_status *status)
{
    const struct device_record *record = reconcile->devices[index];
    const struct vm_record *seen = NULL;
    *status = (struct device_status){.device = record->device,
                                     .verdict = device_record_verdict(record),
                                     .state = STATE_WAITS,
                                     .chosen = record->chosen,
                                     .detached = record->detached,
                                     .since = record->since,
                                     .trying = is_trying(record)};
    if (!reconcile->dirty && reconcile->config) {
        status->state = record->now.state;
        status->reason = reconcile_saying_text(&record->now);
        status->selecting = record->now.why == WHY_SELECT;
        seen = record->now.vm;
    } else if (record->said) { // what has come since has not been thought over yet
        status->state = record->said_saying.state;
        status->reason = string_copy(record->said_reason);
        status->selecting = record->said_saying.why == WHY_SELECT;
        seen = vm_of_id(reconcile, record->said_vm);
    } else {
        status->reason = string_copy("it was found a moment ago");
    }
    const struct vm_record *vm = vm_of(record, status->state, seen);
    status->vm = vm ? vm->name : NULL;
}

void device_status_clear(struct device_status *status)
{
    free(status->reason);
    *status = (struct device_status){0};
}

// A choice that policy does not allow any more, or of what was taken out since, is nobody's.
static bool is_wanted_by(const struct device_record *record, reconcile_those *those, const void *user)
{
    const struct verdict *verdict = device_record_verdict(record);
    if (record->detached || verdict->kind != VERDICT_ALLOWED)
        return false;
    const char *vm = record->picked && group_names(verdict->group, record->picked) ? record->picked : record->chosen;
    return vm && group_names(verdict->group, vm) && those(user, vm);
}

static bool is_of(const struct reconcile *reconcile, const struct device_record *record, reconcile_those *those,
                  const void *user)
{
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        const struct vm_record *vm = reconcile->vms[i];
        if ((device_record_object(vm, record) || device_record_flies(vm, record)) && those(user, vm->name))
            return true;
    }
    return reconcile_memory_names_any(reconcile, record->device, those, user) || is_wanted_by(record, those, user);
}

bool reconcile_device_is_of(const struct reconcile *reconcile, uint64_t instance, reconcile_those *those,
                            const void *user)
{
    const struct device_record *record = device_record_find(reconcile, instance);
    for (size_t i = 0; record && i < reconcile->device_count; i++) {
        const struct device_record *other = reconcile->devices[i];
        if ((other == record || device_record_shares(record, other->device)) && is_of(reconcile, other, those, user))
            return true;
    }
    return false;
}

size_t reconcile_vm_count(const struct reconcile *reconcile)
{
    return reconcile->vm_count;
}

static void count_devices(const struct reconcile *reconcile, const struct vm_record *vm, struct vm_status *status)
{
    for (size_t i = 0; i < reconcile->device_count; i++) {
        const struct device_record *record = reconcile->devices[i];
        const struct holding *object = device_record_object(vm, record);
        if (object && !object->attachment.dead)
            status->attached++;
        else if (record->wanted == vm || record->rests == vm)
            status->waiting++;
    }
}

void reconcile_vm_status(const struct reconcile *reconcile, size_t index, struct vm_status *status)
{
    const struct vm_record *vm = reconcile->vms[index];
    enum vm_state state = reconcile_vm_state(vm);
    *status = (struct vm_status){.name = vm->name,
                                 .type = vm->type,
                                 .state = state,
                                 .why = state == VM_STATE_SILENT && vm->why ? vm->why : "",
                                 .known = vm->known,
                                 .configured = vm->configured,
                                 .suspended = vm->suspended[DEVICE_USB] || vm->suspended[DEVICE_PCI],
                                 .instance = vm->instance,
                                 .since = vm->since};
    count_devices(reconcile, vm, status);
}
