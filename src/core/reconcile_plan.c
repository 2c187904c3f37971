// From the records to what is to be done: the state of each device, the next operation of each VM,
// and when to look again.
#include <stdlib.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

enum removal { REMOVAL_NONE, REMOVAL_LOOK, REMOVAL_STALE, REMOVAL_DENIED, REMOVAL_DEAD, REMOVAL_SURPLUS };

// Whether an object shall leave VM.
static enum removal removal_of(const struct reconcile *reconcile, const struct vm_record *vm,
                               const struct holding *holding)
{
    if (!holding->attachment.ours)
        return REMOVAL_NONE;
    if (holding->pending)
        return REMOVAL_LOOK;
    const struct device_record *record = device_record_find(reconcile, holding->attachment.instance);
    if (!record)
        return reconcile->scanned ? REMOVAL_STALE : REMOVAL_NONE;
    if (record->wanted != vm)
        return REMOVAL_DENIED;
    if (holding->attachment.dead)
        return REMOVAL_DEAD;
    return device_record_keeper(vm, record) == holding ? REMOVAL_NONE : REMOVAL_SURPLUS;
}

// True when the time has come; else it counts for the deadline.
static bool due(struct reconcile *reconcile, uint64_t at, uint64_t now)
{
    if (at <= now)
        return true;
    if (at < reconcile->deadline)
        reconcile->deadline = at;
    return false;
}

static bool plan_removal(struct reconcile *reconcile, struct vm_record *vm, uint64_t now)
{
    for (size_t i = 0; i < vm->holding_count; i++) {
        enum removal removal = removal_of(reconcile, vm, &vm->holdings[i]);
        if (removal == REMOVAL_NONE || !due(reconcile, vm->holdings[i].not_before, now))
            continue;
        vm->plan = (struct plan){
            .set = true, .kind = removal == REMOVAL_LOOK ? OPERATION_LIST : OPERATION_DETACH, .holding = i};
        return true;
    }
    return false;
}

static bool sooner(const struct device_record *a, const struct device_record *b)
{
    return a->not_before != b->not_before ? a->not_before < b->not_before : a->order < b->order;
}

static void plan_attach(struct reconcile *reconcile, struct vm_record *vm, uint64_t now)
{
    struct device_record *next = NULL, *next_pci = NULL;
    for (size_t i = 0; i < reconcile->device_count; i++) {
        struct device_record *record = reconcile->devices[i];
        if (record->wanted != vm || !record->ready || !due(reconcile, record->not_before, now))
            continue;
        bool pci = record->device->kind == DEVICE_PCI;
        if (pci && (!next_pci || device_record_before(record, next_pci)))
            next_pci = record;
        else if (!pci && (!next || sooner(record, next)))
            next = record;
    }
    if (next_pci && (!next || sooner(next_pci, next)))
        next = next_pci;
    if (next)
        vm->plan = (struct plan){.set = true, .kind = OPERATION_ATTACH, .device = next};
}

// Whether there is anything to attach or detach in VM, now or later.
static bool has_work(const struct reconcile *reconcile, const struct vm_record *vm)
{
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (reconcile->devices[i]->wanted == vm && reconcile->devices[i]->ready)
            return true;
    for (size_t i = 0; i < vm->holding_count; i++)
        if (removal_of(reconcile, vm, &vm->holdings[i]) != REMOVAL_NONE)
            return true;
    return false;
}

static void plan_vm(struct reconcile *reconcile, struct vm_record *vm, uint64_t now)
{
    vm->plan = (struct plan){0};
    if (!vm->up || vm->flight.busy || !vm_record_served(vm))
        return;
    if (!vm->listed) {
        vm->plan.set = due(reconcile, vm->list_at, now);
        vm->plan.kind = OPERATION_LIST;
        return;
    }
    if (vm->mute && !has_work(reconcile, vm))
        vm->mute = false;
    if (!plan_removal(reconcile, vm, now))
        plan_attach(reconcile, vm, now);
}

// A device that another tool has put into a VM: nobody tells us when it leaves, so that VM is asked
// again now and then.
static void look_at_foreign(struct reconcile *reconcile, struct device_record *record, uint64_t now)
{
    if (record->now.why != WHY_FOREIGN && record->now.why != WHY_GROUP_FOREIGN) {
        if (record->foreign_at)
            device_record_retry(record, false, now);
        record->foreign_at = 0;
        return;
    }
    struct vm_record *vm = vm_record_find(reconcile, record->now.vm->name);
    if (record->foreign_at != vm->lists) {
        record->foreign_at = vm->lists;
        record->not_before = now + reconcile_delay(reconcile, ++record->failures);
    }
    if (vm->listed && !vm->flight.busy && due(reconcile, record->not_before, now)) {
        vm->listed = false;
        vm->list_at = now;
    }
}

void reconcile_settle(struct reconcile *reconcile, uint64_t now)
{
    reconcile->dirty = false;
    reconcile->deadline = UINT64_MAX;
    if (!reconcile->config)
        return;
    for (size_t i = 0; i < reconcile->device_count; i++)
        device_record_update(reconcile, reconcile->devices[i], now);
    for (size_t i = 0; i < reconcile->device_count; i++) {
        device_record_judge(reconcile, reconcile->devices[i]);
        look_at_foreign(reconcile, reconcile->devices[i], now);
        if (reconcile->devices[i]->now.why == WHY_SELECT)
            (void)due(reconcile, device_record_selects_until(reconcile, reconcile->devices[i]), now);
    }
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        plan_vm(reconcile, reconcile->vms[i], now);
        reconcile_say_vm(reconcile, reconcile->vms[i], now);
    }
    for (size_t i = 0; i < reconcile->device_count; i++) {
        reconcile_say_device(reconcile, reconcile->devices[i], now);
        reconcile_say_selection(reconcile, reconcile->devices[i]);
    }
    reconcile->memory_now = reconcile_memory_digest(reconcile);
}

// The ports of VM that a group of its input devices names, for those which cannot use others; NULL: none.
static const char *find_spared(const struct config *config, const struct vm_record *vm)
{
    for (size_t i = 0; i < config->input.count; i++) {
        const struct group *group = &config->input.groups[i];
        for (size_t v = 0; group->bus_prefix && v < group->vm_count; v++)
            if (string_equal(group->vms[v], vm->name))
                return group->bus_prefix;
    }
    return NULL;
}

static void copy_prefix(char to[VM_NAME_MAX], const char *prefix)
{
    if (prefix)
        memcpy(to, prefix, strnlen(prefix, VM_NAME_MAX - 1));
}

static void issue_attach(const struct reconcile *reconcile, struct vm_record *vm, struct operation *operation)
{
    struct device_record *record = vm->plan.device;
    operation->device = device_reference(record->device);
    vm->flight.device = device_reference(record->device);
    record->again = false;
    operation->root_bus = record->verdict.group && record->verdict.group->qemu_root_bus;
    copy_prefix(operation->bus_prefix, record->verdict.group ? record->verdict.group->bus_prefix : NULL);
    if (!*operation->bus_prefix && record->device->kind != DEVICE_USB)
        copy_prefix(operation->spared, find_spared(reconcile->config, vm));
}

static void issue_detach(struct reconcile *reconcile, struct vm_record *vm, struct operation *operation)
{
    struct holding *holding = &vm->holdings[vm->plan.holding];
    memcpy(operation->object, holding->attachment.object, OBJECT_NAME_MAX);
    memcpy(vm->flight.object, holding->attachment.object, OBJECT_NAME_MAX);
    holding->asked = true;
    enum removal removal = removal_of(reconcile, vm, holding);
    if (removal == REMOVAL_DENIED)
        operation->device = device_reference(device_record_find(reconcile, holding->attachment.instance)->device);
    if (holding->noted || holding->key)
        return;
    holding->noted = true;
    if (removal == REMOVAL_STALE)
        reconcile_note(reconcile, vm, "it still has ", holding->attachment.object,
                       " of a device that is not there any more; it is taken out");
    else if (removal == REMOVAL_SURPLUS)
        reconcile_note(reconcile, vm, "it has a device twice; ", holding->attachment.object, " is taken out");
}

static void issue(struct reconcile *reconcile, struct vm_record *vm, struct output *output)
{
    struct operation *operation = &output->operation;
    output->kind = OUTPUT_OPERATION;
    operation->serial = ++reconcile->serial;
    operation->kind = vm->plan.kind;
    memcpy(operation->vm, vm->name, strnlen(vm->name, VM_NAME_MAX - 1));
    vm->flight = (struct flight){.busy = true, .serial = operation->serial, .kind = vm->plan.kind};
    if (vm->plan.kind == OPERATION_ATTACH)
        issue_attach(reconcile, vm, operation);
    else if (vm->plan.kind == OPERATION_DETACH)
        issue_detach(reconcile, vm, operation);
    vm->plan.set = false;
}

bool reconcile_issue(struct reconcile *reconcile, struct output *output)
{
    if (reconcile->memory_now != reconcile->memory_saved) {
        reconcile->memory_saved = reconcile->memory_now;
        output->kind = OUTPUT_MEMORY;
        return true;
    }
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        if (!reconcile->vms[i]->plan.set)
            continue;
        issue(reconcile, reconcile->vms[i], output);
        return true;
    }
    return false;
}
