// The reconciler's records, looked up.
#include <string.h>

#include "core/reconcile_private.h"

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
