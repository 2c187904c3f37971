// PCI functions of one IOMMU group: they can be in one VM only, and where people have a say they go together.
#include <stdint.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "core/rule.h"

// Another function of the group that VM has, or may have by an operation of ours; NULL: none.
static const struct device *member_in(const struct reconcile *reconcile, const struct vm_record *vm,
                                      const struct device_record *record)
{
    for (size_t i = 0; i < vm->holding_count; i++) {
        const struct attachment *attachment = &vm->holdings[i].attachment;
        const struct device_record *other =
            attachment->ours ? device_record_find(reconcile, attachment->instance) : NULL;
        if (other && device_record_shares(record, other->device))
            return other->device;
    }
    if (vm->flight.busy && !vm->flight.orphan && vm->flight.device && device_record_shares(record, vm->flight.device))
        return vm->flight.device;
    return vm->doubt && device_record_shares(record, vm->doubt) ? vm->doubt : NULL;
}

static bool set(struct saying *saying, enum why why, const struct vm_record *vm, const char *text)
{
    *saying = (struct saying){STATE_WAITS, why, vm, text};
    return true;
}

static bool judge_vms(const struct reconcile *reconcile, struct device_record *record)
{
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        const struct vm_record *vm = reconcile->vms[i];
        const struct device *member = vm == record->wanted ? NULL : member_in(reconcile, vm, record);
        if (member)
            return set(&record->now, WHY_GROUP, vm, device_pci_address(member));
    }
    return false;
}

static bool judge_member(const struct reconcile *reconcile, struct device_record *record,
                         const struct device_record *other)
{
    const char *object;
    const char *maybe = reconcile_memory_holder(reconcile, other->device, record->wanted);
    const struct vm_record *foreign = reconcile_foreign(reconcile, other->device, record->wanted, &object);
    if (maybe)
        return set(&record->now, WHY_GROUP_MAYBE, NULL, maybe);
    return foreign && set(&record->now, WHY_GROUP_FOREIGN, foreign, object);
}

bool device_record_judge_group(const struct reconcile *reconcile, struct device_record *record)
{
    if (record->device->kind != DEVICE_PCI) // others have no group, and are many: not each against each
        return false;
    if (judge_vms(reconcile, record))
        return true;
    bool judged = true; // those before it in the list have been, this time
    for (size_t i = 0; i < reconcile->device_count; i++) {
        const struct device_record *other = reconcile->devices[i];
        judged = judged && other != record;
        if (!device_record_shares(record, other->device))
            continue;
        if (judged && other->ready && other->wanted != record->wanted)
            return set(&record->now, WHY_GROUP, other->wanted, device_pci_address(other->device));
        if (judge_member(reconcile, record, other))
            return true;
    }
    return false;
}

char *reconcile_taken(const struct reconcile *reconcile, uint64_t instance, const char *name)
{
    const struct device_record *record = device_record_find(reconcile, instance);
    if (!record)
        return NULL;
    struct device_record starts = *record; // as if that VM were to have it; borrows all of it
    starts.wanted = vm_record_find(reconcile, name);
    const char *object, *maybe = reconcile_memory_holder(reconcile, record->device, starts.wanted);
    const struct vm_record *foreign = reconcile_foreign(reconcile, record->device, starts.wanted, &object);
    if (maybe)
        (void)set(&starts.now, WHY_MAYBE, NULL, maybe);
    else if (foreign)
        (void)set(&starts.now, WHY_FOREIGN, foreign, object);
    else if (!device_record_judge_group(reconcile, &starts))
        return NULL;
    return reconcile_saying_text(&starts.now);
}

bool device_record_before(const struct device_record *a, const struct device_record *b)
{
    const struct verdict *first = device_record_verdict(a), *second = device_record_verdict(b);
    if (first->group != second->group) // all groups of one kind are in one list
        return first->group < second->group;
    size_t first_rule = first->rule ? first->rule->index : SIZE_MAX;
    size_t second_rule = second->rule ? second->rule->index : SIZE_MAX;
    if (first_rule != second_rule)
        return first_rule < second_rule;
    return strcmp(a->device->key, b->device->key) < 0;
}
