// The reconciler's records of VMs: what is known of each while it comes, goes, hangs and lies.
#include <stdlib.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

void vm_record_add(struct reconcile *reconcile, const struct vm_config *config, uint64_t now)
{
    struct vm_record *vm = vm_record_find(reconcile, config->name);
    if (!vm) {
        vm = memory_new(1, sizeof(*vm));
        vm->name = string_copy(config->name);
        vm->id = ++reconcile->order;
        vm->first_list_due = true;
        vm->since = now;
        reconcile->vms = memory_resize(reconcile->vms, reconcile->vm_count + 1, sizeof(struct vm_record *));
        reconcile->vms[reconcile->vm_count++] = vm;
    }
    vm->type = config->type;
    vm->configured = true;
}

static void holdings_clear(struct vm_record *vm)
{
    for (size_t i = 0; i < vm->holding_count; i++) {
        free(vm->holdings[i].key);
        free(vm->holdings[i].trouble);
    }
    free(steal_pointer(&vm->holdings));
    vm->holding_count = 0;
}

void vm_record_free(struct vm_record *vm)
{
    if (!vm)
        return;
    holdings_clear(vm);
    device_release(vm->flight.device);
    device_release(vm->doubt);
    free(vm->name);
    free(vm->why);
    free(vm);
}

void vm_record_retry(struct reconcile *reconcile, const struct vm_record *vm, bool ejected, uint64_t now)
{
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (reconcile->devices[i]->wanted == vm)
            device_record_retry(reconcile->devices[i], ejected, now);
}

void reconcile_remove_again(struct reconcile *reconcile, const struct device_record *record, uint64_t now)
{
    for (size_t v = 0; v < reconcile->vm_count; v++) {
        struct vm_record *vm = reconcile->vms[v];
        for (size_t i = 0; i < vm->holding_count; i++) {
            struct holding *holding = &vm->holdings[i];
            bool meant = !record || holding->attachment.instance == record->device->instance;
            if (meant && holding->not_before == UINT64_MAX)
                holding->not_before = now;
        }
    }
}

void vm_record_look(struct vm_record *vm, uint64_t now)
{
    vm->failures = 0;
    vm->list_at = now;
    if (vm->flight.busy)
        vm->look_again = true;
    else
        vm->listed = false;
}

void vm_record_silent(struct vm_record *vm, const char *why)
{
    bool before = vm->silent || vm->mute;
    vm->silent = true;
    if (vm->flight.busy && vm->flight.kind != OPERATION_LIST)
        vm->mute = true;
    if (before)
        return; // the first reason stands until it answers
    free(vm->why);
    vm->why = string_copy(why ? why : "");
}

// Nothing that was known of its contents holds any more.
static void forget(struct vm_record *vm)
{
    holdings_clear(vm);
    device_release(steal_pointer(&vm->doubt));
    vm->flight.orphan = vm->flight.busy;
    vm->listed = vm->look_again = vm->heard = vm->uncertain = vm->silent = vm->mute = false;
    vm->failures = 0;
}

// What a process that has gone said of a device is of no interest to the next one.
static void forget_trouble(struct reconcile *reconcile, const struct vm_record *vm, uint64_t now)
{
    for (size_t i = 0; i < reconcile->device_count; i++) {
        struct device_record *record = reconcile->devices[i];
        if (record->wanted != vm)
            continue;
        record->trouble = TROUBLE_NONE;
        record->deaths = 0;
        free(steal_pointer(&record->trouble_text));
        device_record_retry(record, true, now);
    }
}

static void leave_seats(const struct reconcile *reconcile, const struct vm_record *vm)
{
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (reconcile->devices[i]->seat == vm)
            reconcile->devices[i]->seat = NULL;
}

void vm_record_down(struct reconcile *reconcile, struct vm_record *vm, uint64_t now)
{
    vm->known = true;
    vm->up = false;
    vm->instance = 0;
    vm->first_list_due = false;
    forget(vm);
    forget_trouble(reconcile, vm, now);
    leave_seats(reconcile, vm);
    reconcile_memory_settle(reconcile, vm, 0);
}

// It may be another process or the same: what it had counts as doubtful until its next list.
static void doubt_process(struct reconcile *reconcile, struct vm_record *vm, uint64_t now)
{
    if (vm->flight.busy && !vm->flight.orphan && vm->flight.device) {
        device_release(vm->doubt);
        vm->doubt = device_reference(vm->flight.device);
    }
    vm->flight.orphan = vm->flight.busy;
    vm->uncertain = true;
    vm->listed = vm->heard = vm->silent = vm->mute = false;
    forget_trouble(reconcile, vm, now);
}

void vm_record_up(struct reconcile *reconcile, struct vm_record *vm, uint64_t instance, uint64_t now)
{
    if (vm->up && instance && instance == vm->instance) {
        vm_record_look(vm, now);
        vm_record_retry(reconcile, vm, false, now);
        return;
    }
    if (vm->up && instance && vm->instance)
        vm_record_down(reconcile, vm, now);
    if (vm->up)
        doubt_process(reconcile, vm, now);
    vm->known = vm->up = true;
    vm->instance = instance;
    vm->list_at = now;
    vm->failures = 0;
    if (instance)
        reconcile_memory_settle(reconcile, vm, instance);
}
