// The reconciler: events in, outputs out.
#include "core/reconcile.h"

#include <stdlib.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

struct reconcile *reconcile_new(uint64_t seed, bool attach_connected)
{
    struct reconcile *reconcile = memory_new(1, sizeof(*reconcile));
    reconcile->random = seed;
    reconcile->attach_connected = attach_connected;
    reconcile->deadline = UINT64_MAX;
    reconcile->serial = reconcile_random(reconcile) >> 24; // objects of an earlier run have other numbers
    return reconcile;
}

void reconcile_free(struct reconcile *reconcile)
{
    if (!reconcile)
        return;
    for (size_t i = 0; i < reconcile->device_count; i++)
        device_record_free(reconcile->devices[i]);
    free(reconcile->devices);
    for (size_t i = 0; i < reconcile->vm_count; i++)
        vm_record_free(reconcile->vms[i]);
    free(reconcile->vms);
    memory_clear(&reconcile->remembered);
    choices_clear(&reconcile->choices);
    reconcile_output_free(reconcile);
    free(reconcile);
}

void reconcile_configure(struct reconcile *reconcile, const struct config *config, uint64_t now)
{
    reconcile->config = config;
    reconcile->dirty = true;
    reconcile_output_regroup(reconcile);
    for (size_t i = 0; i < reconcile->vm_count; i++)
        reconcile->vms[i]->configured = false;
    for (size_t i = 0; i < config->vm_count; i++)
        vm_record_add(reconcile, &config->vms[i], now);
    for (size_t i = 0; i < reconcile->device_count; i++) {
        device_record_decide(reconcile, reconcile->devices[i]);
        device_record_reconsider(reconcile->devices[i]);
        device_record_retry(reconcile->devices[i], true, now);
    }
    reconcile_remove_again(reconcile, NULL, now);
}

bool reconcile_needs_vm(const struct reconcile *reconcile, const char *name)
{
    const struct vm_record *vm = vm_record_find(reconcile, name);
    return vm && !vm->configured && vm_record_served(vm);
}

static void gone(struct reconcile *reconcile, struct device_record *record, uint64_t now)
{
    reconcile->dirty = true;
    reconcile_say_gone(reconcile, record);
    device_record_remove(reconcile, record, now);
}

void reconcile_device(struct reconcile *reconcile, struct device *device, bool plugged, uint64_t now)
{
    struct device_record *record = device_record_at(reconcile, device->key);
    if (record && record->device->instance != device->instance) {
        gone(reconcile, record, now);
        record = NULL;
    }
    if (record && device_equal(record->device, device)) { // but for its driver, which is shown and decides nothing
        struct device *before = record->device;
        record->device = device_reference(device);
        device_release(before);
        return;
    }
    reconcile->dirty = true;
    if (record)
        device_record_change(reconcile, record, device, now);
    else
        device_record_add(reconcile, device, plugged, now);
}

void reconcile_device_gone(struct reconcile *reconcile, const char *key, uint64_t instance, uint64_t now)
{
    struct device_record *record = device_record_at(reconcile, key);
    if (record && (!instance || record->device->instance == instance))
        gone(reconcile, record, now);
}

void reconcile_scanned(struct reconcile *reconcile, uint64_t now)
{
    (void)now;
    reconcile->scanned = true;
    reconcile->dirty = true;
    reconcile_memory_scanned(reconcile);
}

// The record of a VM that has something to say; NULL when it is none of ours.
static struct vm_record *heard_of(struct reconcile *reconcile, const char *name)
{
    reconcile->dirty = true;
    return vm_record_find(reconcile, name);
}

void reconcile_vm_up(struct reconcile *reconcile, const char *name, uint64_t instance, uint64_t now)
{
    struct vm_record *vm = heard_of(reconcile, name);
    if (vm)
        vm_record_up(reconcile, vm, instance, now);
}

void reconcile_vm_down(struct reconcile *reconcile, const char *name, uint64_t now)
{
    struct vm_record *vm = heard_of(reconcile, name);
    if (vm)
        vm_record_down(reconcile, vm, now);
}

void reconcile_vm_silent(struct reconcile *reconcile, const char *name, const char *why, uint64_t now)
{
    (void)now;
    struct vm_record *vm = heard_of(reconcile, name);
    if (vm && vm->up && vm->flight.busy && !vm->flight.orphan)
        vm_record_silent(vm, why);
}

void reconcile_vm_news(struct reconcile *reconcile, const char *name, uint64_t now)
{
    struct vm_record *vm = heard_of(reconcile, name);
    if (!vm || !vm->up)
        return;
    vm_record_look(vm, now);
    vm_record_retry(reconcile, vm, false, now);
}

void reconcile_result(struct reconcile *reconcile, const char *name, const struct result *result, uint64_t now)
{
    struct vm_record *vm = heard_of(reconcile, name);
    if (vm)
        vm_record_result(reconcile, vm, result, now);
}

bool reconcile_flies(const struct reconcile *reconcile, const char *name, uint64_t serial)
{
    const struct vm_record *vm = vm_record_find(reconcile, name);
    return vm && vm->flight.busy && !vm->flight.orphan && vm->flight.serial == serial;
}

bool reconcile_next(struct reconcile *reconcile, uint64_t now, struct output *output)
{
    *output = (struct output){0};
    if (reconcile->dirty || now >= reconcile->deadline)
        reconcile_settle(reconcile, now);
    if (reconcile->choices_changed) { // what follows from it comes after it
        reconcile->choices_changed = false;
        output->kind = OUTPUT_CHOICES;
        return true;
    }
    return reconcile_pop(reconcile, output) || reconcile_issue(reconcile, output);
}

uint64_t reconcile_deadline(const struct reconcile *reconcile)
{
    return reconcile->deadline;
}
