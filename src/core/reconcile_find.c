// The reconciler's records, looked up.
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

struct device_record *device_record_find(const struct reconcile *reconcile, uint64_t instance)
{
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (reconcile->devices[i]->device->instance == instance)
            return reconcile->devices[i];
    return NULL;
}

struct device_record *device_record_at(const struct reconcile *reconcile, const char *key)
{
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (strcmp(reconcile->devices[i]->device->key, key) == 0)
            return reconcile->devices[i];
    return NULL;
}

struct vm_record *vm_record_find(const struct reconcile *reconcile, const char *name)
{
    for (size_t i = 0; i < reconcile->vm_count; i++)
        if (strcmp(reconcile->vms[i]->name, name) == 0)
            return reconcile->vms[i];
    return NULL;
}

static bool has_ours(const struct vm_record *vm)
{
    for (size_t i = 0; i < vm->holding_count; i++)
        if (vm->holdings[i].attachment.ours)
            return true;
    return false;
}

bool vm_record_served(const struct vm_record *vm)
{
    if (vm->configured)
        return true;
    return vm->up && (!vm->heard || vm->flight.busy || vm->doubt || has_ours(vm));
}

static bool is_object_of(const struct holding *holding, const struct device_record *record)
{
    return holding->attachment.ours && holding->attachment.instance == record->device->instance;
}

struct holding *device_record_keeper(const struct vm_record *vm, const struct device_record *record)
{
    for (size_t i = 0; i < vm->holding_count; i++) {
        struct holding *holding = &vm->holdings[i];
        if (is_object_of(holding, record) && !holding->attachment.dead && !holding->pending)
            return holding;
    }
    return NULL;
}

const struct holding *device_record_object(const struct vm_record *vm, const struct device_record *record)
{
    for (size_t i = 0; i < vm->holding_count; i++)
        if (is_object_of(&vm->holdings[i], record))
            return &vm->holdings[i];
    return NULL;
}

bool device_record_flies(const struct vm_record *vm, const struct device_record *record)
{
    if (vm->flight.busy && !vm->flight.orphan && vm->flight.device &&
        vm->flight.device->instance == record->device->instance)
        return true;
    return vm->doubt && vm->doubt->instance == record->device->instance;
}

const struct verdict *device_record_verdict(const struct device_record *record)
{
    return record->held ? &record->verdict_held : &record->verdict;
}

bool device_record_shares(const struct device_record *record, const struct device *other)
{
    const struct device *device = record->device;
    return device->kind == DEVICE_PCI && other->kind == DEVICE_PCI && device->iommu_group >= 0 &&
           device->iommu_group == other->iommu_group && device->instance != other->instance;
}

// Whether an object of another tool has the address of the device.
static bool is_at(const struct attachment *attachment, const struct device *device)
{
    if (attachment->ours)
        return false;
    if (device->kind == DEVICE_PCI)
        return string_equal(attachment->pci, device_pci_address(device));
    return device->kind == DEVICE_USB && device->address && attachment->bus == device->bus &&
           attachment->address == device->address;
}

const struct vm_record *reconcile_foreign(const struct reconcile *reconcile, const struct device *device,
                                          const struct vm_record *except, const char **object)
{
    for (size_t v = 0; v < reconcile->vm_count; v++) {
        const struct vm_record *vm = reconcile->vms[v];
        for (size_t i = 0; i < vm->holding_count && vm != except; i++) {
            if (!is_at(&vm->holdings[i].attachment, device))
                continue;
            *object = vm->holdings[i].attachment.object;
            return vm;
        }
    }
    return NULL;
}
