// What a VM answers, taken into the reconciler's records.
#include <stdlib.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

static struct holding *find_object(struct holding *holdings, size_t count, const char *object)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(holdings[i].attachment.object, object) == 0)
            return &holdings[i];
    return NULL;
}

// The same object in an earlier list. A name is not enough: crosvm uses its ports anew at once.
static struct holding *find_same(const struct vm_record *vm, const struct attachment *attachment)
{
    struct holding *holding = find_object(vm->holdings, vm->holding_count, attachment->object);
    bool same =
        holding && holding->attachment.ours == attachment->ours && holding->attachment.instance == attachment->instance;
    return same ? holding : NULL;
}

// An object that was not in the last list.
static void holding_appears(struct reconcile *reconcile, const struct vm_record *vm, struct holding *holding)
{
    const struct attachment *attachment = &holding->attachment;
    if (!attachment->ours) {
        reconcile_note(reconcile, vm,
                       "another tool has put a host device into it, which is left alone: ", attachment->object, "");
        return;
    }
    if (device_record_find(reconcile, attachment->instance))
        return;
    reconcile_memory_adopt(reconcile, attachment->instance);
    const char *key = reconcile_memory_key(reconcile, attachment->instance);
    const struct device *sent =
        vm->flight.device && vm->flight.device->instance == attachment->instance ? vm->flight.device : vm->doubt;
    if (!key && sent && sent->instance == attachment->instance)
        key = sent->key;
    holding->key = string_copy(key);
}

// An object that is in the list still.
static void holding_stays(struct reconcile *reconcile, struct holding *holding, uint64_t now)
{
    if (!holding->attachment.leaving) {
        holding->pending = false;
        holding->asked = false;
        return;
    }
    holding->pending = true;
    holding->asked = true;
    holding->not_before = now + reconcile_delay(reconcile, ++holding->failures);
}

static bool lists_instance(const struct holding *holdings, size_t count, uint64_t instance)
{
    for (size_t i = 0; i < count; i++)
        if (holdings[i].attachment.ours && holdings[i].attachment.instance == instance)
            return true;
    return false;
}

// An object that is in the list no more.
static void holding_left(struct reconcile *reconcile, const struct vm_record *vm, const struct holding *holding,
                         bool elsewhere, uint64_t now)
{
    if (holding->trouble)
        reconcile_note(reconcile, vm, "it has let go of ", holding->attachment.object, "");
    struct device_record *record = device_record_find(reconcile, holding->attachment.instance);
    if (!record || !holding->attachment.ours)
        return;
    if (holding->attachment.dead)
        record->not_before = now + reconcile_delay(reconcile, ++record->deaths);
    if (holding->asked || holding->attachment.dead || vm->uncertain || elsewhere)
        return;
    device_record_update(reconcile, record, now);
    if (record->wanted == vm)
        record->ejected = true;
}

// The new list in place of the old one, with what is known of objects that are in both.
static struct holding *merge(struct reconcile *reconcile, struct vm_record *vm, const struct result *result,
                             size_t *count, uint64_t now)
{
    struct holding *list = memory_new(result->attachment_count + 1, sizeof(*list));
    *count = 0;
    for (size_t i = 0; i < result->attachment_count; i++) {
        const struct attachment *attachment = &result->attachments[i];
        if (find_object(list, *count, attachment->object))
            continue;
        struct holding *holding = &list[(*count)++];
        struct holding *before = find_same(vm, attachment);
        if (before) {
            *holding = *before;
            before->moved = true;
        }
        holding->attachment = *attachment;
        if (!before)
            holding_appears(reconcile, vm, holding);
        holding_stays(reconcile, holding, now);
    }
    return list;
}

static bool any_left(const struct vm_record *vm)
{
    for (size_t i = 0; i < vm->holding_count; i++)
        if (!vm->holdings[i].moved)
            return true;
    return false;
}

static void apply_list(struct reconcile *reconcile, struct vm_record *vm, const struct result *result, uint64_t now)
{
    size_t count;
    struct holding *list = merge(reconcile, vm, result, &count, now);
    if (any_left(vm))
        vm_record_retry(reconcile, vm, false, now); // there may be a free port now
    for (size_t i = 0; i < vm->holding_count; i++) {
        struct holding *old = &vm->holdings[i];
        if (old->moved)
            continue;
        holding_left(reconcile, vm, old, lists_instance(list, count, old->attachment.instance), now);
        free(old->key);
        free(old->trouble);
    }
    free(vm->holdings);
    vm->holdings = list;
    vm->holding_count = count;
    device_release(steal_pointer(&vm->doubt));
    reconcile_memory_settle(reconcile, vm, 0);
    vm->listed = vm->heard = true;
    vm->first_list_due = vm->uncertain = false;
    vm->failures = 0;
    vm->lists++;
    vm->silent = false;
}

static void list_result(struct reconcile *reconcile, struct vm_record *vm, const struct result *result, uint64_t now)
{
    if (result->kind == RESULT_DONE) {
        apply_list(reconcile, vm, result, now);
        return;
    }
    vm->listed = false;
    vm->list_at = now + reconcile_delay(reconcile, ++vm->failures);
    if (result->kind != RESULT_LOST || vm->failures > 1) // one lost answer may just be its end
        vm_record_silent(vm, result->text);
}

static void attach_done(struct reconcile *reconcile, const struct vm_record *vm, struct device_record *record,
                        uint64_t now)
{
    const struct holding *keeper = device_record_keeper(vm, record);
    if (!keeper) {
        device_record_fail(reconcile, record, TROUBLE_RETRY, "the VM took it, but does not list it as its own", now);
        return;
    }
    record->trouble = TROUBLE_NONE;
    free(steal_pointer(&record->trouble_text));
    record->failures = 0;
}

static void attach_result(struct reconcile *reconcile, struct vm_record *vm, const struct result *result,
                          struct device *device, uint64_t now)
{
    struct device_record *record = device_record_find(reconcile, device->instance);
    if (!result->listed && (result->kind == RESULT_LOST || result->kind == RESULT_DONE)) {
        device_release(vm->doubt);
        vm->doubt = device_reference(device);
    }
    if (!record || record->wanted != vm)
        return;
    const char *text = result->text ? result->text : "";
    switch (result->kind) {
    case RESULT_DONE:
        if (result->listed)
            attach_done(reconcile, vm, record, now);
        break;
    case RESULT_REFUSED:
        device_record_fail(reconcile, record, TROUBLE_REFUSED, text, now);
        break;
    case RESULT_LOST:
        // Says less than what was said before.
        device_record_fail(reconcile, record, TROUBLE_RETRY, record->trouble ? NULL : text, now);
        break;
    case RESULT_GONE:
    case RESULT_RETRY:
    case RESULT_PENDING:
    case RESULT_FIXED:
    default:
        device_record_fail(reconcile, record, TROUBLE_RETRY, text, now);
        break;
    }
}

static void detach_failed(struct reconcile *reconcile, const struct vm_record *vm, struct holding *holding,
                          const struct result *result, uint64_t now)
{
    bool stale = !device_record_find(reconcile, holding->attachment.instance);
    bool first = !holding->trouble;
    uint64_t delay = reconcile_delay(reconcile, ++holding->failures);
    holding->not_before = result->kind == RESULT_FIXED ? UINT64_MAX : now + delay;
    if (result->kind == RESULT_PENDING) {
        holding->pending = holding->asked = true;
        return;
    }
    if (first || result->kind != RESULT_LOST) {
        free(holding->trouble);
        holding->trouble = string_copy(result->text && *result->text ? result->text : "it did not say why");
    }
    if (first && stale && result->kind != RESULT_LOST)
        reconcile_note(reconcile, vm, "it does not let go of ", holding->attachment.object, ", whose device has gone");
}

static void detach_result(struct reconcile *reconcile, const struct vm_record *vm, const struct result *result,
                          const char *object, uint64_t now)
{
    struct holding *holding = find_object(vm->holdings, vm->holding_count, object);
    if (holding && (result->listed || result->kind != RESULT_DONE))
        detach_failed(reconcile, vm, holding, result, now);
}

// Takes the result of the operation in flight, which is over.
static void take(struct reconcile *reconcile, struct vm_record *vm, const struct flight *flight,
                 const struct result *result, uint64_t now)
{
    if (flight->kind == OPERATION_LIST) {
        list_result(reconcile, vm, result, now);
        return;
    }
    vm->listed = false;
    vm->list_at = now;
    if (result->listed || (result->kind != RESULT_LOST && result->kind != RESULT_RETRY))
        vm->mute = false;
    if (result->listed)
        apply_list(reconcile, vm, result, now);
    if (flight->kind == OPERATION_ATTACH)
        attach_result(reconcile, vm, result, flight->device, now);
    else
        detach_result(reconcile, vm, result, flight->object, now);
}

void vm_record_result(struct reconcile *reconcile, struct vm_record *vm, const struct result *result, uint64_t now)
{
    struct flight flight = vm->flight;
    if (!flight.busy || flight.serial != result->serial)
        return;
    vm->flight.busy = false;
    if (!flight.orphan)
        take(reconcile, vm, &flight, result, now);
    vm->flight = (struct flight){0};
    device_release(flight.device);
    if (vm->look_again)
        vm->listed = false;
    vm->look_again = false;
}
