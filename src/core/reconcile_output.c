// The reconciler's words: reasons put together, and the queue of outputs on their way.
#include <stdlib.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

#define REASON_MAX 512

static void message_clear(struct message *message)
{
    device_release(message->device);
    free(message->vm);
    free(message->reason);
    *message = (struct message){0};
}

static struct message *queue_new(struct reconcile *reconcile, enum output_kind kind)
{
    if (reconcile->queue_count == reconcile->queue_room) {
        reconcile->queue_room = reconcile->queue_room ? reconcile->queue_room * 2 : 16;
        reconcile->queue = memory_resize(reconcile->queue, reconcile->queue_room, sizeof(*reconcile->queue));
    }
    struct message *message = &reconcile->queue[reconcile->queue_count++];
    *message = (struct message){.kind = kind};
    return message;
}

bool reconcile_pop(struct reconcile *reconcile, struct output *output)
{
    message_clear(&reconcile->current);
    if (reconcile->queue_first == reconcile->queue_count)
        return false;
    struct message *message = &reconcile->current;
    *message = reconcile->queue[reconcile->queue_first++];
    if (reconcile->queue_first == reconcile->queue_count)
        reconcile->queue_first = reconcile->queue_count = 0;
    output->kind = message->kind;
    output->device = message->device;
    output->state = message->state;
    output->vm_state = message->vm_state;
    output->verdict = message->verdict;
    output->group = message->group;
    output->vm = message->vm;
    output->reason = message->reason;
    output->gone = message->gone;
    output->plugged = message->plugged;
    output->rests = message->rests;
    return true;
}

static void set_verdict(struct message *message, const struct verdict *verdict)
{
    message->verdict = verdict->kind;
    message->group = verdict->kind == VERDICT_ALLOWED ? verdict->group : NULL;
}

void reconcile_output_regroup(struct reconcile *reconcile)
{
    for (size_t i = reconcile->queue_first; i < reconcile->queue_count; i++) {
        struct message *message = &reconcile->queue[i];
        if (!message->device)
            continue;
        CLEANUP(verdict_clear) struct verdict verdict = {0};
        struct device device = *message->device;
        if (message->verdict == VERDICT_ALLOWED) // what a VM has, the host cannot have begun to live on
            device.host_use = NULL;
        policy_decide(reconcile->config, &device, &verdict);
        message->group = verdict.kind == VERDICT_ALLOWED ? verdict.group : NULL;
    }
}

void reconcile_output_free(struct reconcile *reconcile)
{
    message_clear(&reconcile->current);
    for (size_t i = reconcile->queue_first; i < reconcile->queue_count; i++)
        message_clear(&reconcile->queue[i]);
    free(reconcile->queue);
}

// A reason: BEFORE, the VM's name, AFTER, the text, END.
struct phrase {
    const char *before;
    bool names_vm;
    const char *after;
    bool has_text;
    const char *end;
};

static const struct phrase phrases[] = {
    [WHY_VERDICT] = {"", false, "", true, ""},
    [WHY_IGNORED] = {"it was there before vhotplug started, and -a was not given", false, "", false, ""},
    [WHY_UNSERVED] = {"", true, " is a ", true, " VM, which is not served yet"},
    [WHY_AT_START] = {"", true, " takes ", true, " only at its start"},
    [WHY_UNKNOWN] = {"it is not known yet whether ", true, " runs", false, ""},
    [WHY_DOWN] = {"", true, " is not running", false, ""},
    [WHY_STARTING] = {"", true, " is starting", false, ""},
    [WHY_SILENT] = {"", true, " does not answer: ", true, ""},
    [WHY_SCAN] = {"the PCI functions of the host are not all known yet", false, "", false, ""},
    [WHY_MAYBE] = {"", false, "", true, " may still have it and has not said so yet"},
    [WHY_UNLISTED] = {"", true, " has not said yet what it has", false, ""},
    [WHY_OLD] = {"", true, " has not let go yet of the device that was there before", false, ""},
    [WHY_FOREIGN] = {"another tool has put it into ", true, " as ", true, "; take it out there"},
    [WHY_GROUP] = {"", true, " has or is getting ", true,
                   " of the same IOMMU group, and a group can be in one VM only"},
    [WHY_GROUP_MAYBE] = {"", false, "", true,
                         " may still have another function of its IOMMU group and has not said so yet"},
    [WHY_GROUP_FOREIGN] = {"another tool has put another function of its IOMMU group into ", true, " as ", true,
                           "; take it out there"},
    [WHY_TROUBLE] = {"", false, "", true, ""},
    [WHY_EJECTED] = {"the guest of ", true,
                     " took it out; plug it again, restart the VM or reload the configuration to put it back", false,
                     ""},
    [WHY_MOVES] = {"it is taken out of ", true, ", for it now belongs in ", true, ""},
    [WHY_LEAVING] = {"", true, " has been asked to let go of it and has not done so yet", false, ""},
    [WHY_DEAD] = {"", true, " has lost hold of it; it is taken out and put in again", false, ""},
    [WHY_STUCK] = {"", true, " does not let go of it: ", true, ""},
    [WHY_DETACHED] = {"a person took it out; attach it to put it back", false, "", false, ""},
    [WHY_TAKEN] = {"a person takes it out of ", true, "", false, ""},
    [WHY_SELECT] = {"waiting for a choice between ", false, "", true, ""},
    [WHY_SUSPENDED] = {"", true, " is suspended", false, ""},
    [WHY_SUSPENDS] = {"it is taken out of ", true, ", for ", true, " is suspended"},
};

char *reconcile_saying_text(const struct saying *saying)
{
    const struct phrase *phrase = &phrases[saying->why];
    struct text text = {0};
    text_add(&text, phrase->before);
    if (phrase->names_vm && saying->vm)
        text_add_safe(&text, saying->vm->name, VM_NAME_MAX);
    text_add(&text, phrase->after);
    if (phrase->has_text)
        text_add_safe(&text, *saying->text ? saying->text : "it did not say why", REASON_MAX);
    text_add(&text, phrase->end);
    return text_take(&text);
}

// Whether no VM has it for sure, and none gets it without further news.
static bool rests(const struct device_record *record)
{
    const struct saying *now = &record->now;
    if (record->ready || (record->wanted && device_record_flies(record->wanted, record)))
        return false;
    if (now->state == STATE_WAITS)
        return now->why == WHY_DOWN || now->why == WHY_SUSPENDED || now->why == WHY_SELECT ||
               now->why == WHY_AT_START || now->why == WHY_UNSERVED;
    return now->state == STATE_HOST || now->state == STATE_IGNORED || now->state == STATE_REFUSED ||
           now->state == STATE_EJECTED;
}

void reconcile_say_device(struct reconcile *reconcile, struct device_record *record, uint64_t time)
{
    const struct saying *now = &record->now, *said = &record->said_saying;
    uint64_t vm = now->vm ? now->vm->id : 0;
    bool sure = now->state == STATE_HOST || now->state == STATE_ATTACHED || now->state == STATE_DETACHING;
    if (!record->said && record->gated && !sure)
        return; // the first lists will tell in a moment
    if (record->said && now->state == said->state && now->why == said->why && vm == record->said_vm &&
        string_equal(now->text, record->said_text))
        return;
    record->said = true;
    record->said_saying = *now;
    record->said_vm = vm;
    free(record->said_text);
    record->said_text = string_copy(now->text);
    free(record->said_reason);
    record->said_reason = reconcile_saying_text(now);
    record->since = time;
    struct message *message = queue_new(reconcile, OUTPUT_DEVICE);
    message->device = device_reference(record->device);
    message->state = now->state;
    set_verdict(message, device_record_verdict(record));
    message->vm = now->vm ? string_copy(now->vm->name) : NULL;
    message->reason = string_copy(record->said_reason);
    message->plugged = record->plugged;
    message->rests = rests(record);
}

void reconcile_say_selection(struct reconcile *reconcile, struct device_record *record)
{
    if (record->now.why != WHY_SELECT) {
        free(steal_pointer(&record->asked_text));
        return;
    }
    if (string_equal(record->asked_text, record->select_text))
        return;
    free(record->asked_text);
    record->asked_text = string_copy(record->select_text);
    struct message *message = queue_new(reconcile, OUTPUT_SELECT);
    message->device = device_reference(record->device);
    message->state = record->now.state;
    set_verdict(message, device_record_verdict(record));
    message->reason = reconcile_saying_text(&record->now);
}

void reconcile_say_gone(struct reconcile *reconcile, const struct device_record *record)
{
    if (!record->said)
        return;
    struct message *message = queue_new(reconcile, OUTPUT_DEVICE);
    message->device = device_reference(record->device);
    message->state = record->said_saying.state;
    set_verdict(message, &record->verdict);
    message->reason = string_copy("it was unplugged");
    message->gone = true;
    message->plugged = record->plugged;
}

enum vm_state reconcile_vm_state(const struct vm_record *vm)
{
    if (!vm->up)
        return VM_STATE_DOWN;
    if (vm->silent || vm->mute)
        return VM_STATE_SILENT;
    return vm->heard ? VM_STATE_ANSWERS : VM_STATE_STARTING;
}

void reconcile_say_vm(struct reconcile *reconcile, struct vm_record *vm, uint64_t now)
{
    if (!vm->known || !vm_record_served(vm))
        return;
    enum vm_state state = reconcile_vm_state(vm);
    if (vm->said && state == vm->said_state)
        return;
    vm->said = true;
    vm->said_state = state;
    vm->since = now;
    struct text why = {0};
    if (state == VM_STATE_SILENT)
        text_add_safe(&why, vm->why, REASON_MAX);
    struct message *message = queue_new(reconcile, OUTPUT_VM);
    message->vm_state = state;
    message->vm = string_copy(vm->name);
    message->reason = text_take(&why);
}

void reconcile_note(struct reconcile *reconcile, const struct vm_record *vm, const char *before, const char *object,
                    const char *after)
{
    struct text text = {0};
    text_add(&text, before);
    text_add_safe(&text, object, OBJECT_NAME_MAX);
    text_add_safe(&text, after, REASON_MAX);
    struct message *message = queue_new(reconcile, OUTPUT_NOTE);
    message->vm = string_copy(vm->name);
    message->reason = text_take(&text);
}
