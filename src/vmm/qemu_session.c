// What the operations on a QEMU have in common: its state, steps of pipelined commands, and the end
// of an operation. Used by qemu*.c only.
#include "vmm/qemu_session.h"

#include <string.h>
#include <sys/stat.h>

#include "util/text.h"

static void run_next(struct qemu *qemu)
{
    qemu_step next = qemu->next;
    qemu->next = NULL;
    qemu->call_count = 0;
    if (next)
        next(qemu);
}

static void handle_answer(void *user, unsigned tag, const struct qmp_reply *reply)
{
    struct qemu *qemu = user;
    struct qemu_call call = qemu->calls[tag];
    qemu->setup.callbacks.answered(qemu->setup.user);
    call.answer(qemu, call.tag, reply);
    if (--qemu->unanswered == 0)
        run_next(qemu);
}

void qemu_send(struct qemu *qemu, const char *command, struct json_object *arguments, int fd, qemu_answer answer,
               unsigned tag)
{
    qemu->calls = memory_resize(qemu->calls, qemu->call_count + 1, sizeof *qemu->calls);
    qemu->calls[qemu->call_count] = (struct qemu_call){.answer = answer, .tag = tag};
    qemu->unanswered++;
    qmp_send(qemu->qmp, command, arguments, fd, handle_answer, (unsigned)qemu->call_count++);
}

void qemu_then(struct qemu *qemu, qemu_step next)
{
    qemu->next = next;
    if (qemu->unanswered == 0)
        run_next(qemu);
}

struct json_object *qemu_path(const char *path, const char *property)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "path", json_object_new_string(path));
    if (property)
        json_object_object_add(arguments, "property", json_object_new_string(property));
    return arguments;
}

char *qemu_words(const char *words)
{
    struct text text = {0};
    text_add_safe(&text, words, QEMU_WORDS_MAX);
    return text_take(&text);
}

void qemu_note_added(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)tag;
    free(steal_pointer(&qemu->add_error));
    if (!reply->value)
        qemu->add_error = qemu_words(reply->error);
}

void qemu_ask(struct qemu *qemu, const char *object)
{
    if (qemu_asked(qemu, object))
        return;
    char **place = &qemu->asked[qemu->asked_next];
    qemu->asked_next = (qemu->asked_next + 1) % QEMU_ASKED_MAX;
    free(*place);
    *place = string_copy(object);
}

bool qemu_unask(struct qemu *qemu, const char *object)
{
    bool asked = false;
    for (size_t i = 0; i < QEMU_ASKED_MAX; i++) {
        if (!string_equal(qemu->asked[i], object))
            continue;
        free(steal_pointer(&qemu->asked[i]));
        asked = true;
    }
    return asked;
}

bool qemu_asked(const struct qemu *qemu, const char *object)
{
    for (size_t i = 0; i < QEMU_ASKED_MAX; i++)
        if (string_equal(qemu->asked[i], object))
            return true;
    return false;
}

// What the operation left lying; the session is ready for the next one.
static void clear_operation(struct qemu *qemu)
{
    operation_clear(&qemu->operation);
    cleanup_close(&qemu->fd);
    qemu->fd = -1;
    qemu->running = qemu->begun = qemu->waiting = qemu->topology_fresh = qemu->guest_refused = false;
    qemu->next = qemu->listed = qemu->surveyed = qemu->prepared = NULL;
    qemu->call_count = qemu->unanswered = 0;
    qemu->tries = qemu->polls = 0;
    qemu->timer = sd_event_source_disable_unref(qemu->timer);
    grabber_free(steal_pointer(&qemu->grabber));
    qom_children_clear(&qemu->peripheral);
    qom_children_clear(&qemu->anonymous);
    qom_children_clear(&qemu->unattached);
    free(steal_pointer(&qemu->attachments));
    qemu->attachment_count = 0;
    free(steal_pointer(&qemu->add_error));
    free(steal_pointer(&qemu->delete_error));
}

void qemu_finish(struct qemu *qemu, enum result_kind kind, char *text, bool listed)
{
    struct result result = {.serial = qemu->operation.serial, .kind = kind, .text = text, .listed = listed};
    if (listed && qemu->attachment_count > 0) {
        result.attachments = steal_pointer(&qemu->attachments);
        result.attachment_count = qemu->attachment_count;
    }
    clear_operation(qemu);
    qemu->setup.callbacks.finished(qemu->setup.user, &result);
    result_clear(&result);
}

bool qemu_device_gone(const struct device *device)
{
    struct stat status;
    if (!device->node)
        return false;
    if (stat(device->node, &status) < 0)
        return true;
    return device->number != 0 && status.st_rdev != device->number;
}

void qemu_finish_gone(struct qemu *qemu)
{
    char *text = string_printf("%s has gone from the host", qemu->operation.device->node);
    qemu_finish(qemu, RESULT_GONE, text, false);
}
