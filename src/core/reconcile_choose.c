// Which of several VMs shall have a device: what a person said, what is so already, what was chosen last.
#include <stdlib.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

bool group_names(const struct group *group, const char *vm)
{
    for (size_t i = 0; i < group->vm_count; i++)
        if (string_equal(group->vms[i], vm))
            return true;
    return false;
}

char *group_list_vms(const struct group *group)
{
    struct text text = {0};
    for (size_t i = 0; i < group->vm_count; i++) {
        text_add(&text, i == 0 ? "" : i + 1 < group->vm_count ? ", " : " and ");
        text_add_safe(&text, group->vms[i], VM_NAME_MAX);
    }
    return text_take(&text);
}

struct asked {
    const struct reconcile *reconcile;
    const struct device_record *record;
};

static bool is_entry_of(const struct choice *entry, const struct device *device)
{
    CLEANUP(cleanup_free) char *id = choice_id(device);
    CLEANUP(cleanup_free) char *path = choice_path(device);
    return strcmp(entry->id, id) == 0 && string_equal(entry->path, path);
}

static bool is_taken(const void *user, const struct choice *entry)
{
    const struct asked *asked = user;
    for (size_t i = 0; i < asked->reconcile->device_count; i++) {
        const struct device_record *other = asked->reconcile->devices[i];
        if (other != asked->record && is_entry_of(entry, other->device))
            return true;
    }
    return false;
}

const struct choice *device_record_choice(const struct reconcile *reconcile, const struct device_record *record)
{
    return choices_find(&reconcile->choices, record->device, is_taken, &(struct asked){reconcile, record});
}

enum choice_result device_record_decided(struct reconcile *reconcile, const struct device_record *record,
                                         const char *vm, bool detached)
{
    return choices_set(&reconcile->choices, record->device, vm, detached, is_taken, &(struct asked){reconcile, record});
}

void device_record_keep(struct reconcile *reconcile, const struct device_record *record)
{
    if (choices_detached(&reconcile->choices) == CHOICES_MAX)
        return; // one that keeps something out would have to make room
    if (device_record_decided(reconcile, record, record->chosen, record->detached) == CHOICE_SET)
        reconcile->choices_changed = true;
}

void device_record_recall(const struct reconcile *reconcile, struct device_record *record)
{
    const struct choice *choice = device_record_choice(reconcile, record);
    free(record->chosen);
    record->chosen = choice ? string_copy(choice->vm) : NULL;
    record->detached = choice && choice->detached;
}

void device_record_reconsider(struct device_record *record)
{
    const struct group *group = record->verdict_held.kind == VERDICT_ALLOWED ? record->verdict_held.group : NULL;
    const struct vm_record *vm = record->wanted ? record->wanted : record->rests;
    bool chooses = group && group->chooses;
    bool stays = chooses && vm && group_names(group, vm->name);
    if (!stays)
        record->seat = NULL;
    if (!chooses || (record->selection == SELECTION_OVER && !stays))
        record->selection = SELECTION_NONE;
}

// The VM of the group that has it, else that it stays with, else that may have it; NULL: none.
static struct vm_record *holder(const struct reconcile *reconcile, const struct device_record *record,
                                const struct group *group)
{
    struct vm_record *maybe = NULL;
    for (size_t i = 0; i < group->vm_count; i++) {
        struct vm_record *vm = vm_record_find(reconcile, group->vms[i]);
        const struct holding *keeper = device_record_keeper(vm, record);
        if (keeper && !keeper->asked)
            return vm;
        if (!maybe && (device_record_object(vm, record) || device_record_flies(vm, record) ||
                       reconcile_memory_names(reconcile, record->device, vm->name)))
            maybe = vm;
    }
    return record->seat && group_names(group, record->seat->name) ? record->seat : maybe;
}

uint64_t device_record_selects_until(const struct reconcile *reconcile, const struct device_record *record)
{
    uint64_t timeout = reconcile->config->api.select_timeout;
    if (record->selection != SELECTION_ASKS)
        return UINT64_MAX;
    return timeout < UINT64_MAX - record->asked_at ? record->asked_at + timeout : UINT64_MAX;
}

// Whether to wait for a person.
static bool asks(const struct reconcile *reconcile, struct device_record *record, const struct vm_record *otherwise,
                 uint64_t now)
{
    const struct group *group = device_record_verdict(record)->group;
    if (record->selection == SELECTION_OVER)
        return false;
    // What is plugged while its VM is suspended has most likely been in it.
    bool returns = record->selection == SELECTION_NONE && otherwise->suspended[DEVICE_USB] &&
                   string_equal(record->chosen, otherwise->name);
    // The API tells clients of USB devices only: nobody would hear the question.
    bool may = reconcile->config->api.enabled && record->plugged && record->device->kind == DEVICE_USB &&
               group->vm_count > 1 && !returns;
    if (may && record->selection == SELECTION_NONE) {
        record->selection = SELECTION_ASKS;
        record->asked_at = now;
    }
    return may && now < device_record_selects_until(reconcile, record);
}

// Where another function of its IOMMU group is, or is to be; NULL: nowhere.
static struct vm_record *companion(const struct reconcile *reconcile, const struct device_record *record,
                                   const struct group *group)
{
    struct vm_record *vm = NULL;
    for (size_t i = 0; i < reconcile->device_count && !vm; i++)
        if (device_record_shares(record, reconcile->devices[i]->device))
            vm = holder(reconcile, reconcile->devices[i], group);
    return vm;
}

// What a person said of this very plug, else what is so already; NULL: neither tells.
static struct vm_record *known(const struct reconcile *reconcile, const struct device_record *record,
                               const struct group *group)
{
    if (record->picked && group_names(group, record->picked))
        return vm_record_find(reconcile, record->picked);
    struct vm_record *vm = holder(reconcile, record, group);
    return vm ? vm : companion(reconcile, record, group);
}

// The VM that was chosen last, else the first.
static struct vm_record *by_default(const struct reconcile *reconcile, const struct device_record *record,
                                    const struct group *group)
{
    return vm_record_find(reconcile, group_names(group, record->chosen) ? record->chosen : group->vms[0]);
}

const char *device_record_meant(const struct reconcile *reconcile, const struct device_record *record)
{
    const struct group *group = device_record_verdict(record)->group;
    const struct vm_record *vm = known(reconcile, record, group);
    return vm ? vm->name : by_default(reconcile, record, group)->name;
}

struct vm_record *device_record_choose(const struct reconcile *reconcile, struct device_record *record, uint64_t now)
{
    const struct group *group = device_record_verdict(record)->group;
    if (!group->chooses)
        return vm_record_find(reconcile, group->vms[0]);
    struct vm_record *vm = known(reconcile, record, group);
    if (!vm) {
        vm = by_default(reconcile, record, group);
        if (asks(reconcile, record, vm, now))
            return NULL;
    }
    record->seat = vm;
    record->selection = SELECTION_OVER;
    return vm;
}
