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
static char *decide(struct reconcile *reconcile, const struct device_record *record, const char *vm, bool detached)
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
    reconcile_settle(reconcile, now);
    return NULL;
}

char *reconcile_detach(struct reconcile *reconcile, uint64_t instance, uint64_t now)
{
    struct device_record *record = device_record_find(reconcile, instance);
    if (!record)
        return string_copy("the device is not there any more");
    char *error = decide(reconcile, record, NULL, true);
    if (error)
        return error;
    record->detached = true;
    reconcile_settle(reconcile, now);
    return NULL;
}

// What waits for the VM is tried at once.
static void wake(struct reconcile *reconcile, const struct vm_record *vm, uint64_t now)
{
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (reconcile->devices[i]->rests == vm)
            device_record_retry(reconcile->devices[i], true, now);
}

static char *set_suspended(struct reconcile *reconcile, const char *name, bool suspended, uint64_t now)
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
        vm->suspended = suspended;
    }
    reconcile_settle(reconcile, now);
    return NULL;
}

char *reconcile_suspend(struct reconcile *reconcile, const char *vm, uint64_t now)
{
    return set_suspended(reconcile, vm, true, now);
}

char *reconcile_resume(struct reconcile *reconcile, const char *vm, uint64_t now)
{
    return set_suspended(reconcile, vm, false, now);
}
