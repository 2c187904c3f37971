// What people ask of the reconciler: a device into a VM or out of it for good, VMs suspended and resumed.
#include <stdlib.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

#define NAME_MAX_SHOWN 256

void reconcile_choices_load(struct reconcile *reconcile, const struct choices *choices)
{
    choices_clear(&reconcile->choices);
    choices_copy(&reconcile->choices, choices);
    reconcile->dirty = true;
    for (size_t i = 0; i < reconcile->device_count; i++)
        device_record_recall(reconcile, reconcile->devices[i]);
}

const struct choices *reconcile_choices(const struct reconcile *reconcile)
{
    return &reconcile->choices;
}

// TEXT as an error about the device; takes it over.
static char *refuse(const struct device_record *record, char *text)
{
    CLEANUP(cleanup_free) char *owned = text;
    CLEANUP(cleanup_free) char *title = device_title(record->device);
    struct text error = {0};
    text_printf(&error, "%s: %s", title, owned);
    return text_take(&error);
}

static char *refuse_vm(const struct device_record *record, const struct group *group, const char *vm)
{
    CLEANUP(cleanup_free) char *names = group_list_vms(group);
    struct text text = {0};
    text_add_safe(&text, vm, NAME_MAX_SHOWN);
    text_printf(&text, " is not allowed for it: %s names %s", group->path, names);
    return refuse(record, text_take(&text));
}

// Whether the entry holds for a device that is there, other than RECORD's.
static bool holds_for_another(const struct reconcile *reconcile, const struct device_record *record,
                              const struct choice *entry)
{
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (reconcile->devices[i] != record && device_record_choice(reconcile, reconcile->devices[i]) == entry)
            return true;
    return false;
}

// A device that its serial number names is the same wherever it is plugged: what was decided of it in
// another place is out of date, unless a twin is there.
static void forget_elsewhere(struct reconcile *reconcile, const struct device_record *record)
{
    struct choices *choices = &reconcile->choices;
    if (record->device->kind != DEVICE_USB || !record->device->serial || !*record->device->serial)
        return;
    CLEANUP(cleanup_free) char *id = choice_id(record->device);
    const struct choice *own = device_record_choice(reconcile, record);
    for (size_t i = choices->count; i-- > 0;) {
        const struct choice *entry = &choices->items[i];
        if (entry == own || strcmp(entry->id, id) != 0 || holds_for_another(reconcile, record, entry))
            continue;
        if (own && own > entry)
            own--;
        choices_forget(choices, i);
    }
}

static char *refuse_more(const struct device_record *record)
{
    return refuse(record, string_printf("%d devices are detached by request, and no more can be remembered: attach "
                                        "some of them first",
                                        CHOICES_MAX));
}

// NULL, or why not.
static CHECKED char *decide(struct reconcile *reconcile, const struct device_record *record, const char *vm,
                            bool detached)
{
    device_record_part(reconcile, record->device);
    enum choice_result result = device_record_decided(reconcile, record, vm, detached);
    if (result != CHOICE_SET)
        return result == CHOICE_NO_ROOM ? refuse_more(record) : NULL;
    forget_elsewhere(reconcile, record);
    reconcile->choices_changed = true;
    // Others that hold to the same entry; a twin in another place stays as it is.
    const struct choice *own = device_record_choice(reconcile, record);
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (device_record_choice(reconcile, reconcile->devices[i]) == own)
            device_record_recall(reconcile, reconcile->devices[i]);
    return NULL;
}

// Whether people take OTHER out and put it back with RECORD: what was added to a function (pciIommuAddAll) goes with
// that one, and that one with what was added to it.
static bool goes_with(const struct device_record *record, const struct device_record *other)
{
    const struct verdict *own = device_record_verdict(record), *verdict = device_record_verdict(other);
    return device_record_shares(record, other->device) && own->kind == VERDICT_ALLOWED &&
           verdict->kind == VERDICT_ALLOWED && own->rule == verdict->rule && (own->added || verdict->added);
}

// The other functions of its IOMMU group that its group takes go to the same VM; what people took out by itself
// stays out. NULL, or the first error.
static CHECKED char *take_along(struct reconcile *reconcile, const struct device_record *record, const char *vm,
                                uint64_t now)
{
    const struct group *group = device_record_verdict(record)->group;
    char *error = NULL;
    for (size_t i = 0; i < reconcile->device_count; i++) {
        struct device_record *other = reconcile->devices[i];
        if (!device_record_shares(record, other->device) || device_record_verdict(other)->group != group)
            continue;
        bool back = other->detached && goes_with(record, other);
        CLEANUP(cleanup_free) char *wrong = NULL;
        if (back || (group->chooses && vm))
            wrong = decide(reconcile, other, group->chooses ? vm : NULL, other->detached && !back);
        if (wrong && !error)
            error = steal_pointer(&wrong);
        other->detached = other->detached && !back;
        other->managed = other->managed || group->iommu_add_all;
        free(other->picked);
        other->picked = string_copy(record->picked);
        device_record_retry(other, true, now);
    }
    return error;
}

char *reconcile_attach(struct reconcile *reconcile, uint64_t instance, const char *vm, uint64_t now)
{
    struct device_record *record = device_record_find(reconcile, instance);
    if (!record)
        return string_copy("the device is not there any more");
    const struct verdict *verdict = device_record_verdict(record);
    if (verdict->kind != VERDICT_ALLOWED)
        return refuse(record, string_copy(verdict->reason ? verdict->reason : "there is no configuration yet"));
    const struct group *group = verdict->group;
    if (vm && !group_names(group, vm))
        return refuse_vm(record, group, vm);
    CLEANUP(cleanup_free) char *picked = string_copy(vm ? vm : device_record_meant(reconcile, record));
    char *error = decide(reconcile, record, group->chooses ? vm : NULL, false);
    if (error)
        return error;
    record->managed = true;
    record->detached = false;
    free(record->picked);
    record->picked = steal_pointer(&picked);
    device_record_retry(record, true, now);
    error = take_along(reconcile, record, vm, now);
    reconcile_settle(reconcile, now);
    return error;
}

// Whether all that goes out with it can be remembered: a part of it is not taken out alone.
static bool has_room(const struct reconcile *reconcile, const struct device_record *record)
{
    size_t more = record->detached ? 0 : 1, others = 0;
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (goes_with(record, reconcile->devices[i]) && !reconcile->devices[i]->detached)
            others++;
    return !others || choices_detached(&reconcile->choices) + more + others <= CHOICES_MAX;
}

char *reconcile_detach(struct reconcile *reconcile, uint64_t instance, uint64_t now)
{
    struct device_record *record = device_record_find(reconcile, instance);
    if (!record)
        return string_copy("the device is not there any more");
    if (!has_room(reconcile, record))
        return refuse_more(record);
    char *error = decide(reconcile, record, NULL, true);
    record->detached = record->detached || !error;
    reconcile_remove_again(reconcile, record, now);
    for (size_t i = 0; i < reconcile->device_count && !error; i++) {
        struct device_record *other = reconcile->devices[i];
        if (!goes_with(record, other))
            continue;
        error = decide(reconcile, other, NULL, true);
        other->detached = other->detached || !error;
        reconcile_remove_again(reconcile, other, now);
    }
    reconcile_settle(reconcile, now);
    return error;
}

// What waits for the VM is tried at once.
static void wake(struct reconcile *reconcile, const struct vm_record *vm, uint64_t now)
{
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (reconcile->devices[i]->rests == vm)
            device_record_retry(reconcile->devices[i], true, now);
}

static char *set_suspended(struct reconcile *reconcile, enum device_kind kind, const char *name, bool suspended,
                           uint64_t now)
{
    if (name && !vm_record_find(reconcile, name)) {
        struct text text = {0};
        text_add(&text, "no VM has the name ");
        text_add_safe(&text, name, NAME_MAX_SHOWN);
        return text_take(&text);
    }
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        struct vm_record *vm = reconcile->vms[i];
        if (name && strcmp(vm->name, name) != 0)
            continue;
        if (!suspended)
            wake(reconcile, vm, now);
        vm->suspended[kind] = suspended;
    }
    reconcile_settle(reconcile, now);
    return NULL;
}

char *reconcile_suspend(struct reconcile *reconcile, enum device_kind kind, const char *vm, uint64_t now)
{
    return set_suspended(reconcile, kind, vm, true, now);
}

char *reconcile_resume(struct reconcile *reconcile, enum device_kind kind, const char *vm, uint64_t now)
{
    return set_suspended(reconcile, kind, vm, false, now);
}
