// The reconciler's records of devices: which VM each shall have, and what stands in its way.
#include <stdlib.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

void device_record_free(struct device_record *record)
{
    if (!record)
        return;
    device_release(record->device);
    verdict_clear(&record->verdict);
    verdict_clear(&record->verdict_held);
    free(record->trouble_text);
    free(record->said_text);
    free(record->said_reason);
    free(record->chosen);
    free(record->picked);
    free(record->asked_text);
    free(record->select_text);
    free(record);
}

void device_record_decide(struct reconcile *reconcile, struct device_record *record)
{
    verdict_clear(&record->verdict);
    verdict_clear(&record->verdict_held);
    if (!reconcile->config)
        return;
    struct device held = *record->device; // what a VM has, the host cannot have begun to live on
    held.host_use = NULL;
    policy_decide(reconcile->config, &held, &record->verdict_held);
    if (record->device->host_use) {
        policy_decide(reconcile->config, record->device, &record->verdict);
    } else { // the host does not live on it: nothing is different
        record->verdict = record->verdict_held;
        record->verdict.reason = string_copy(record->verdict_held.reason);
    }
    const struct group *group = record->verdict_held.group;
    free(steal_pointer(&record->select_text));
    if (record->verdict_held.kind == VERDICT_ALLOWED && group->chooses)
        record->select_text = group_list_vms(group);
}

// A device may be reported in its new place before it is reported gone from its old one, and so look like its own
// twin; not for longer than this, in microseconds.
#define MOVE_TIME 10000000u

static bool has_serial_of(const struct device_record *record, const struct device *device)
{
    return device->kind == DEVICE_USB && device->serial && string_equal(record->device->serial, device->serial);
}

void device_record_part(const struct reconcile *reconcile, const struct device *device)
{
    for (size_t i = 0; i < reconcile->device_count; i++)
        if (has_serial_of(reconcile->devices[i], device))
            reconcile->devices[i]->moves_until = 0;
}

// Which of those with one serial number are twins is seen anew when one of them comes or goes: by the first scan, which
// finds them in any order, and where one may be moving.
static void recall_twins(const struct reconcile *reconcile, const struct device *device, uint64_t now)
{
    for (size_t i = 0; i < reconcile->device_count; i++) {
        struct device_record *record = reconcile->devices[i];
        if (has_serial_of(record, device) && (!reconcile->scanned || now < record->moves_until))
            device_record_recall(reconcile, record);
    }
}

// With DEVICE gone from its place, what was decided of it holds for one that has just come with its serial number:
// it has moved. One that stood beside it for longer is another, and stays as it is, after a restart too.
static void leave_twins(struct reconcile *reconcile, const struct device *device, uint64_t now)
{
    recall_twins(reconcile, device, now);
    for (size_t i = 0; i < reconcile->device_count; i++) {
        const struct device_record *record = reconcile->devices[i];
        const struct choice *choice = has_serial_of(record, device) ? device_record_choice(reconcile, record) : NULL;
        if (choice && choice->detached != record->detached)
            device_record_keep(reconcile, record);
    }
}

void device_record_add(struct reconcile *reconcile, struct device *device, bool plugged, uint64_t now)
{
    struct device_record *record = memory_new(1, sizeof(*record));
    record->device = device_reference(device);
    record->order = ++reconcile->order;
    record->plugged = plugged;
    record->managed = plugged || reconcile_memory_managed(reconcile, device);
    record->not_before = record->since = now;
    record->moves_until = now + MOVE_TIME;
    device_record_recall(reconcile, record);
    device_record_decide(reconcile, record);
    reconcile->devices = memory_resize(reconcile->devices, reconcile->device_count + 1, sizeof(struct device_record *));
    reconcile->devices[reconcile->device_count++] = record;
    recall_twins(reconcile, device, now);
}

void device_record_change(struct reconcile *reconcile, struct device_record *record, struct device *device,
                          uint64_t now)
{
    struct device *before = record->device;
    record->device = device_reference(device);
    device_release(before);
    device_record_recall(reconcile, record);
    device_record_decide(reconcile, record);
    device_record_retry(record, false, now);
}

// The objects that are left of it remember their place: the next device there waits for them.
static void leave_key(struct reconcile *reconcile, const struct device *device)
{
    for (size_t v = 0; v < reconcile->vm_count; v++) {
        struct vm_record *vm = reconcile->vms[v];
        for (size_t i = 0; i < vm->holding_count; i++) {
            struct holding *holding = &vm->holdings[i];
            if (holding->attachment.instance != device->instance || !holding->attachment.ours || holding->key)
                continue;
            holding->key = string_copy(device->key);
        }
    }
}

void device_record_remove(struct reconcile *reconcile, struct device_record *record, uint64_t now)
{
    CLEANUP(cleanup_device) struct device *device = device_reference(record->device);
    leave_key(reconcile, device);
    size_t place = 0;
    while (reconcile->devices[place] != record)
        place++;
    memmove(&reconcile->devices[place], &reconcile->devices[place + 1],
            (--reconcile->device_count - place) * sizeof(struct device_record *));
    device_record_free(record);
    leave_twins(reconcile, device, now);
}

static void clear_trouble(struct device_record *record)
{
    record->trouble = TROUBLE_NONE;
    free(steal_pointer(&record->trouble_text));
    record->again = false;
    record->ejected = false;
    record->failures = record->deaths = 0;
}

void device_record_retry(struct device_record *record, bool ejected, uint64_t now)
{
    record->again = true;
    record->failures = 0;
    record->not_before = now;
    if (ejected)
        record->ejected = false;
}

void device_record_fail(struct reconcile *reconcile, struct device_record *record, enum trouble trouble,
                        const char *text, uint64_t now)
{
    record->trouble = trouble;
    if (text) {
        free(record->trouble_text);
        record->trouble_text = string_copy(text);
    }
    record->again = false;
    record->not_before = now + reconcile_delay(reconcile, ++record->failures);
}

// Whether its VM is suspended, and it with it.
static bool is_suspended(const struct device_record *record, const struct vm_record *vm)
{
    return vm && vm->suspended[record->device->kind] && !device_record_verdict(record)->group->skip_on_suspend;
}

void device_record_update(struct reconcile *reconcile, struct device_record *record, uint64_t now)
{
    record->held = false;
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        const struct vm_record *vm = reconcile->vms[i];
        if (device_record_object(vm, record))
            record->managed = true;
        if (device_record_keeper(vm, record) || device_record_flies(vm, record))
            record->held = true;
    }
    struct vm_record *wanted = NULL;
    if (device_record_verdict(record)->kind == VERDICT_ALLOWED && (record->managed || reconcile->attach_connected) &&
        !record->detached)
        wanted = device_record_choose(reconcile, record, now);
    record->rests = is_suspended(record, wanted) ? wanted : NULL;
    if (record->rests)
        wanted = NULL;
    if (wanted != record->wanted)
        clear_trouble(record);
    record->wanted = wanted;
}

// The VM that a device which was there before us may be in and that has not said so yet, or NULL.
static const struct vm_record *gate(const struct reconcile *reconcile, const struct device_record *record)
{
    if (record->plugged)
        return NULL;
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        const struct vm_record *vm = reconcile->vms[i];
        if (vm->configured && vm->type != VM_CLOUD_HYPERVISOR && vm->first_list_due && !vm->silent)
            return vm;
    }
    return NULL;
}

static bool set(struct saying *saying, enum device_state state, enum why why, const struct vm_record *vm,
                const char *text)
{
    *saying = (struct saying){state, why, vm, text};
    return true;
}

// Whether nothing but a person's word is missing.
static bool is_asked_about(const struct device_record *record)
{
    return device_record_verdict(record)->kind == VERDICT_ALLOWED && !record->wanted && !record->rests &&
           !record->detached && record->selection == SELECTION_ASKS;
}

// A VM that has it and is to let it go, which WANTED (may be NULL) waits for.
static bool judge_holder(const struct vm_record *vm, struct device_record *record, const char *reason)
{
    const struct holding *holding = device_record_object(vm, record);
    struct saying *now = &record->now;
    if (!holding && !device_record_flies(vm, record))
        return false;
    if (vm->silent)
        set(now, STATE_DETACHING, WHY_SILENT, vm, vm->why);
    else if (holding && (holding->pending || (record->wanted == vm && !holding->attachment.dead)))
        set(now, STATE_DETACHING, WHY_LEAVING, vm, NULL);
    else if (holding && holding->trouble)
        set(now, STATE_DETACHING, WHY_STUCK, vm, holding->trouble);
    else if (record->wanted == vm)
        set(now, STATE_DETACHING, WHY_DEAD, vm, NULL);
    else if (record->wanted)
        set(now, STATE_DETACHING, WHY_MOVES, vm, record->wanted->name);
    else if (record->rests)
        set(now, STATE_DETACHING, WHY_SUSPENDS, vm, record->rests->name);
    else if (record->detached)
        set(now, STATE_DETACHING, WHY_TAKEN, vm, NULL);
    else if (is_asked_about(record))
        set(now, STATE_DETACHING, WHY_SELECT, vm, record->select_text);
    else
        set(now, STATE_DETACHING, WHY_VERDICT, vm, reason);
    return true;
}

static bool judge_holders(const struct reconcile *reconcile, struct device_record *record, const char *reason)
{
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        const struct vm_record *vm = reconcile->vms[i];
        if (vm == record->wanted && !device_record_object(vm, record))
            continue; // its own attach is nothing to wait for
        if (judge_holder(vm, record, reason))
            return true;
    }
    return false;
}

// What another tool has given to a VM.
static bool judge_foreign(const struct reconcile *reconcile, struct device_record *record)
{
    const char *object;
    const struct vm_record *vm = reconcile_foreign(reconcile, record->device, NULL, &object);
    return vm && set(&record->now, STATE_WAITS, WHY_FOREIGN, vm, object);
}

static bool has_old(const struct vm_record *vm, const struct device *device)
{
    for (size_t i = 0; i < vm->holding_count; i++)
        if (vm->holdings[i].key && strcmp(vm->holdings[i].key, device->key) == 0 &&
            vm->holdings[i].attachment.instance != device->instance)
            return true;
    return false;
}

// What stands in the way of a device that belongs in VM and is not there.
static bool judge_vm(const struct vm_record *vm, struct device_record *record)
{
    struct saying *now = &record->now;
    static const char *const at_start[] = {[DEVICE_INPUT] = "input devices", [DEVICE_PCI] = "PCI functions"};
    if (record->device->kind != DEVICE_USB && vm->type != VM_QEMU)
        return set(now, STATE_WAITS, WHY_AT_START, vm, at_start[record->device->kind]);
    if (vm->type == VM_CLOUD_HYPERVISOR)
        return set(now, STATE_WAITS, WHY_UNSERVED, vm, "cloud-hypervisor");
    if (!vm->known)
        return set(now, STATE_WAITS, WHY_UNKNOWN, vm, NULL);
    if (!vm->up)
        return set(now, STATE_WAITS, WHY_DOWN, vm, NULL);
    if (record->ejected)
        return set(now, STATE_EJECTED, WHY_EJECTED, vm, NULL);
    if (vm->silent && record->trouble != TROUBLE_REFUSED)
        return set(now, STATE_WAITS, WHY_SILENT, vm, vm->why);
    return false;
}

// PCI functions go in by the order of the rules, and with their IOMMU group: all must be known.
static bool is_early(const struct reconcile *reconcile, const struct device_record *record)
{
    return record->device->kind == DEVICE_PCI && !reconcile->scanned;
}

static bool judge_rest(const struct reconcile *reconcile, const struct vm_record *vm, struct device_record *record,
                       const struct vm_record *unlisted)
{
    struct saying *now = &record->now;
    const char *holder = reconcile_memory_holder(reconcile, record->device, vm);
    if (holder)
        return set(now, STATE_WAITS, WHY_MAYBE, NULL, holder);
    if (unlisted && unlisted != vm)
        return set(now, STATE_WAITS, WHY_UNLISTED, unlisted, NULL);
    if (!vm->heard)
        return set(now, STATE_WAITS, WHY_STARTING, vm, NULL);
    if (is_early(reconcile, record))
        return set(now, STATE_WAITS, WHY_SCAN, NULL, NULL);
    if (has_old(vm, record->device))
        return set(now, STATE_WAITS, WHY_OLD, vm, NULL);
    return judge_foreign(reconcile, record) || device_record_judge_group(reconcile, record);
}

// A device that no VM shall have now.
static void judge_unwanted(struct device_record *record, const struct verdict *verdict)
{
    struct saying *now = &record->now;
    if (verdict->kind != VERDICT_ALLOWED)
        set(now, STATE_HOST, WHY_VERDICT, NULL, verdict->reason);
    else if (record->detached)
        set(now, STATE_HOST, WHY_DETACHED, NULL, NULL);
    else if (record->rests)
        set(now, STATE_WAITS, WHY_SUSPENDED, record->rests, NULL);
    else if (is_asked_about(record))
        set(now, STATE_WAITS, WHY_SELECT, NULL, record->select_text);
    else
        set(now, STATE_IGNORED, WHY_IGNORED, NULL, NULL);
}

void device_record_judge(const struct reconcile *reconcile, struct device_record *record)
{
    const struct verdict *verdict = device_record_verdict(record);
    const struct vm_record *wanted = record->wanted;
    const struct vm_record *unlisted = gate(reconcile, record);
    struct saying *now = &record->now;
    record->ready = false;
    record->gated = unlisted || is_early(reconcile, record);
    const struct holding *keeper = wanted ? device_record_keeper(wanted, record) : NULL;
    if (keeper && !keeper->asked) {
        set(now, STATE_ATTACHED, WHY_VERDICT, wanted, verdict->reason);
        return;
    }
    if (judge_holders(reconcile, record, verdict->reason))
        return;
    if (!wanted) {
        judge_unwanted(record, verdict);
        return;
    }
    if (judge_vm(wanted, record) || judge_rest(reconcile, wanted, record, unlisted))
        return;
    record->ready = record->trouble != TROUBLE_REFUSED || record->again;
    if (record->trouble == TROUBLE_NONE)
        set(now, STATE_ATTACHING, WHY_VERDICT, wanted, verdict->reason);
    else if (record->trouble == TROUBLE_RETRY && wanted->mute)
        set(now, STATE_WAITS, WHY_SILENT, wanted, wanted->why);
    else
        set(now, record->trouble == TROUBLE_REFUSED ? STATE_REFUSED : STATE_WAITS, WHY_TROUBLE, wanted,
            record->trouble_text);
}
