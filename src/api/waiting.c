// Answers that wait.
#include "api/waiting.h"

#include <stdlib.h>
#include <string.h>

#include "api/reply.h"
#include "api/scope.h"
#include "api/view.h"
#include "core/device_json.h"
#include "core/report.h"
#include "util/json.h"
#include "util/text.h"

#define VM_SHOWN_MAX 256

struct waiting *waiting_new(struct messages *messages, struct caller *caller, enum waiting_kind kind, bool lists)
{
    struct waiting *waiting = memory_new(1, sizeof(*waiting));
    *waiting = (struct waiting){.caller = caller, .kind = kind, .lists = lists};
    waiting->deadline = view_now(messages) + ANSWER_TIME_MAX;
    struct waiting **end = &messages->waiting;
    while (*end)
        end = &(*end)->next;
    *end = waiting;
    caller->owed = true;
    waiting_touch(messages);
    return waiting;
}

static struct waiting_item *add(struct waiting *waiting, struct device *device)
{
    waiting->items = memory_resize(waiting->items, waiting->count + 1, sizeof(*waiting->items));
    struct waiting_item *item = &waiting->items[waiting->count++];
    *item = (struct waiting_item){.device = device_reference(device), .state = STATE_HOST};
    return item;
}

void waiting_add(struct waiting *waiting, struct device *device, const char *vm, bool skipped)
{
    struct waiting_item *item = add(waiting, device);
    waiting->decides |= waiting->kind == WAITING_ATTACH || waiting->kind == WAITING_DETACH;
    item->goal = string_copy(vm);
    item->skipped = skipped;
}

void waiting_add_failed(struct waiting *waiting, struct device *device, char *error)
{
    struct waiting_item *item = add(waiting, device);
    item->done = item->failed = true;
    item->reason = error;
}

static void waiting_free(struct waiting *waiting)
{
    for (size_t i = 0; i < waiting->count; i++) {
        struct waiting_item *item = &waiting->items[i];
        device_release(item->device);
        free(item->goal);
        free(item->vm);
        free(item->reason);
        free(item->error);
    }
    free(waiting->items);
    free(waiting);
}

static void unlink_waiting(struct messages *messages, struct waiting *waiting)
{
    struct waiting **place = &messages->waiting;
    while (*place != waiting)
        place = &(*place)->next;
    *place = waiting->next;
}

void waiting_forget(struct messages *messages, const struct caller *caller)
{
    struct waiting *waiting = messages->waiting;
    while (waiting && waiting->caller != caller)
        waiting = waiting->next;
    if (!waiting)
        return;
    waiting->caller->owed = false;
    unlink_waiting(messages, waiting);
    waiting_free(waiting);
}

// ---- where the devices stand

static bool goes_in(const struct waiting *waiting)
{
    return waiting->kind == WAITING_ATTACH || waiting->kind == WAITING_RESUME;
}

static bool in_vm(enum device_state state)
{
    return state == STATE_ATTACHED || state == STATE_ATTACHING || state == STATE_DETACHING;
}

// The device of a request, also when it was enumerated anew in its place since.
static bool same_device(const struct device *a, const struct device *b)
{
    return a->instance == b->instance || (string_equal(a->key, b->key) && a->vendor_id == b->vendor_id &&
                                          a->product_id == b->product_id && string_equal(a->serial, b->serial));
}

static bool arrived(const struct waiting_item *item)
{
    if (item->state == STATE_ATTACHED)
        return !item->goal || string_equal(item->goal, item->vm);
    return !in_vm(item->state);
}

static void judge(const struct waiting *waiting, struct waiting_item *item, bool trying)
{
    bool attached = item->state == STATE_ATTACHED;
    item->done = item->skipped || (goes_in(waiting) ? arrived(item) && (attached || !trying) : !in_vm(item->state));
    item->failed = item->done && !item->skipped && goes_in(waiting) &&
                   (item->state == STATE_REFUSED || item->state == STATE_HOST || item->state == STATE_IGNORED);
}

static void take(const struct waiting *waiting, struct waiting_item *item, const struct device_status *status)
{
    free(item->vm);
    free(item->reason);
    item->vm = string_copy(status->vm);
    item->reason = string_copy(status->reason);
    item->state = status->state;
    item->seen = item->known = true;
    judge(waiting, item, status->trying);
}

static void take_status(struct messages *messages, const struct device_status *status)
{
    for (struct waiting *waiting = messages->waiting; waiting; waiting = waiting->next)
        for (size_t i = 0; i < waiting->count; i++)
            if (!waiting->items[i].done && same_device(waiting->items[i].device, status->device))
                take(waiting, &waiting->items[i], status);
}

// No device is there for it any more.
static void lose(const struct waiting *waiting, struct waiting_item *item)
{
    free(item->reason);
    free(steal_pointer(&item->vm));
    item->reason = string_copy("it was unplugged");
    item->done = item->gone = item->known = true;
    item->failed = goes_in(waiting);
}

static void take_all(struct messages *messages)
{
    struct waiting *first = messages->waiting;
    for (struct waiting *waiting = first; waiting; waiting = waiting->next)
        for (size_t i = 0; i < waiting->count; i++)
            waiting->items[i].seen = false;
    for (size_t i = 0; i < reconcile_device_count(messages->reconcile); i++) {
        CLEANUP(device_status_clear) struct device_status status;
        reconcile_device_status(messages->reconcile, i, &status);
        take_status(messages, &status);
    }
    for (struct waiting *waiting = first; waiting; waiting = waiting->next)
        for (size_t i = 0; i < waiting->count; i++)
            if (!waiting->items[i].done && !waiting->items[i].seen)
                lose(waiting, &waiting->items[i]);
}

// ---- the answers

static char *error_text(const struct messages *messages, const struct caller *caller, const struct waiting_item *item)
{
    return scope_text(caller, messages->reconcile, item->error ? item->error : item->reason);
}

static void add_item(const struct messages *messages, const struct caller *caller, struct json_object *object,
                     const struct waiting_item *item)
{
    CLEANUP(cleanup_free) char *reason = scope_text(caller, messages->reconcile, item->reason);
    if (item->known) {
        reply_add(object, "state", item->gone ? "gone" : report_state(item->state));
        reply_add(object, "vm", scope_vm(caller, item->vm));
        reply_add(object, "reason", reason);
    }
    if (item->skipped)
        json_object_object_add(object, "skipped", json_object_new_boolean(true));
    CLEANUP(cleanup_free) char *error = error_text(messages, caller, item);
    if (item->failed)
        reply_fail(object, error);
}

static void add_list(const struct messages *messages, const struct caller *caller, struct json_object *reply,
                     const struct waiting *waiting)
{
    struct json_object *list = json_object_new_array();
    CLEANUP(text_clear) struct text errors = {0};
    size_t failed = 0;
    for (size_t i = 0; i < waiting->count; i++) {
        const struct waiting_item *item = &waiting->items[i];
        struct json_object *object = device_to_json(item->device);
        reply_add(object, "result", "ok");
        add_item(messages, caller, object, item);
        json_object_array_add(list, object);
        if (!item->failed)
            continue;
        CLEANUP(cleanup_free) char *title = device_title(item->device);
        CLEANUP(cleanup_free) char *error = error_text(messages, caller, item);
        text_printf(&errors, "%s%s: %s", failed++ ? "; " : "", title, error);
    }
    json_object_object_add(reply, "devices", list);
    CLEANUP(cleanup_free) char *error = string_printf("%zu of %zu devices: %s", failed, waiting->count, errors.string);
    if (failed)
        reply_fail(reply, error);
}

static bool is_settled(const struct messages *messages, const struct waiting *waiting)
{
    return waiting->decision <= messages->settled;
}

static void answer(struct messages *messages, struct waiting *waiting)
{
    unlink_waiting(messages, waiting);
    struct caller *caller = waiting->caller;
    CLEANUP(cleanup_json) struct json_object *reply = reply_new();
    if (waiting->lists)
        add_list(messages, caller, reply, waiting);
    else if (waiting->count)
        add_item(messages, caller, reply, &waiting->items[0]);
    else
        reply_fail(reply, "the device is not there any more");
    if (!is_settled(messages, waiting) && string_equal(json_member_string(reply, "result"), "ok"))
        reply_fail(reply, "it is done, but the disk is slow: it is not saved yet, and is lost if the host fails now");
    waiting_free(waiting);
    reply_owed(caller, reply);
}

// ---- time

// Whether it is still in a VM that was to let go of it.
static bool is_stuck(const struct waiting *waiting, const struct waiting_item *item)
{
    if (waiting->kind == WAITING_DETACH)
        return in_vm(item->state);
    bool has = item->state == STATE_ATTACHED || item->state == STATE_DETACHING;
    return waiting->kind == WAITING_ATTACH && has && item->goal && !string_equal(item->goal, item->vm);
}

// It ends as it stands. Who suspends, detaches or moves must know what has not left its VM.
static void expire_item(const struct waiting *waiting, struct waiting_item *item)
{
    item->done = true;
    item->failed = waiting->kind == WAITING_SUSPEND || is_stuck(waiting, item);
    if (waiting->kind == WAITING_SUSPEND || !item->failed)
        return;
    CLEANUP(text_clear) struct text error = {0};
    text_add_safe(&error, item->vm ? item->vm : "its VM", VM_SHOWN_MAX);
    text_printf(&error, " has not let go of it yet: %s", item->reason ? item->reason : "");
    item->error = text_take(&error);
}

static void expire(struct waiting *waiting)
{
    waiting->expired = true;
    for (size_t i = 0; i < waiting->count; i++)
        if (!waiting->items[i].done)
            expire_item(waiting, &waiting->items[i]);
}

static bool is_done(const struct waiting *waiting)
{
    for (size_t i = 0; i < waiting->count; i++)
        if (!waiting->items[i].done)
            return false;
    return true;
}

// What a request has decided is counted by now: the reconciler goes on before anything of the API does.
static void count_decision(const struct messages *messages, struct waiting *waiting)
{
    if (waiting->decides && !waiting->counted)
        waiting->decision = messages->decided;
    waiting->counted = true;
}

static struct waiting *next_done(const struct messages *messages)
{
    struct waiting *waiting = messages->waiting;
    while (waiting && !(is_done(waiting) && (is_settled(messages, waiting) || waiting->expired)))
        waiting = waiting->next;
    return waiting;
}

static int set_timer(const struct messages *messages)
{
    if (!messages->waiting)
        return sd_event_source_set_enabled(messages->timer, SD_EVENT_OFF);
    uint64_t deadline = UINT64_MAX;
    for (const struct waiting *waiting = messages->waiting; waiting; waiting = waiting->next)
        if (waiting->deadline < deadline)
            deadline = waiting->deadline;
    int status = sd_event_source_set_time(messages->timer, deadline);
    return status < 0 ? status : sd_event_source_set_enabled(messages->timer, SD_EVENT_ONESHOT);
}

static int on_look(sd_event_source *source, void *user)
{
    (void)source;
    struct messages *messages = user;
    take_all(messages);
    uint64_t now = view_now(messages);
    for (struct waiting *waiting = messages->waiting; waiting; waiting = waiting->next) {
        count_decision(messages, waiting);
        if (waiting->deadline <= now)
            expire(waiting);
    }
    // An answer lets its caller say the next thing: the list is another one after each.
    struct waiting *done;
    while ((done = next_done(messages)))
        answer(messages, done);
    return set_timer(messages);
}

static int on_time(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time;
    waiting_touch(user);
    return 0;
}

void waiting_touch(const struct messages *messages)
{
    if (messages->waiting)
        (void)sd_event_source_set_enabled(messages->look, SD_EVENT_ONESHOT);
}

int waiting_init(struct messages *messages)
{
    int status;
    if ((status = sd_event_add_defer(messages->loop, &messages->look, on_look, messages)) < 0 ||
        (status = sd_event_source_set_enabled(messages->look, SD_EVENT_OFF)) < 0 ||
        (status = sd_event_source_set_priority(messages->look, MESSAGES_PRIORITY)) < 0 ||
        (status = sd_event_add_time(messages->loop, &messages->timer, CLOCK_BOOTTIME, 0, 1000, on_time, messages)) <
            0 ||
        (status = sd_event_source_set_enabled(messages->timer, SD_EVENT_OFF)) < 0)
        return status;
    return sd_event_source_set_priority(messages->timer, MESSAGES_PRIORITY);
}

void waiting_clear(struct messages *messages)
{
    while (messages->waiting) {
        struct waiting *waiting = messages->waiting;
        messages->waiting = waiting->next;
        waiting_free(waiting);
    }
    sd_event_source_unref(messages->look);
    sd_event_source_unref(messages->timer);
}
