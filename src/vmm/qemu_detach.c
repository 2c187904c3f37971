// Taking a device out of a QEMU. It has gone when QEMU lists it no more; the guest may have a say.
#include "vmm/qemu_detach.h"

#include <string.h>
#include <time.h>

#include "util/text.h"
#include "vmm/qemu_list.h"

// Waits double from the first: 10 + 20 + … + 2560 ms, about 5 s.
#define FIRST_WAIT_US ((uint64_t)10 * 1000)
#define POLLS 9

static void end_poll(struct qemu *qemu);

static void poll_now(struct qemu *qemu)
{
    qemu->waiting = false;
    qemu->timer = sd_event_source_disable_unref(qemu->timer);
    qemu_list(qemu, false, end_poll);
}

static int handle_timer(sd_event_source *source, uint64_t now, void *user)
{
    (void)source;
    (void)now;
    poll_now(user);
    return 0;
}

// Still listed, although QEMU took the command: it waits for the guest.
static void wait_more(struct qemu *qemu)
{
    int r = -1;
    if (qemu->polls < POLLS)
        r = sd_event_add_time_relative(qemu->setup.loop, &qemu->timer, CLOCK_MONOTONIC, FIRST_WAIT_US << qemu->polls, 1,
                                       handle_timer, qemu);
    if (r < 0) {
        char *text = string_printf("%s: the guest was asked and has not let go yet", qemu->setup.vm);
        qemu_finish(qemu, RESULT_PENDING, text, true);
        return;
    }
    qemu->polls++;
    qemu->waiting = true;
}

static void end_poll(struct qemu *qemu)
{
    const char *vm = qemu->setup.vm;
    if (qemu->list_error) {
        char *text = string_printf("%s: QEMU does not list its devices: %s", vm, qemu->list_error);
        qemu_finish(qemu, RESULT_LOST, text, false);
    } else if (!qemu_list_find(qemu, qemu->operation.object)) {
        topology_vacate(&qemu->topology, qemu->operation.object);
        qemu_finish(qemu, RESULT_DONE, NULL, true);
    } else if (qemu->guest_refused) {
        qemu_finish(qemu, RESULT_RETRY, string_printf("the guest of %s refused to let go of it", vm), true);
    } else if (qemu->delete_error && strstr(qemu->delete_error, "does not support hotplugging")) {
        char *text = string_printf("%s: it was there when the VM was started, on a bus that lets nothing go while the "
                                   "VM runs: shut the VM down to take it out",
                                   vm);
        qemu_finish(qemu, RESULT_FIXED, text, true);
    } else if (qemu->delete_error) {
        char *text = string_printf("%s: QEMU did not remove it: %s", vm, qemu->delete_error);
        qemu_finish(qemu, RESULT_RETRY, text, true);
    } else {
        wait_more(qemu);
    }
}

static void handle_deleted(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)tag;
    // Refused only because the guest has been asked already.
    if (!reply->value && !strstr(reply->error, "already in the process of unplug"))
        qemu->delete_error = qemu_words(reply->error);
    else if (!qemu->guest_refused) // which may come before the answer
        qemu_ask(qemu, qemu->operation.object);
}

static void send_delete(struct qemu *qemu, const char *object, qemu_answer answer)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "id", json_object_new_string(object));
    qemu_send(qemu, "device_del", arguments, -1, answer, 0);
}

static void handle_deleted_again(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)qemu;
    (void)tag;
    (void)reply; // whether it goes is told by its event
}

void qemu_detach_again(struct qemu *qemu, const char *object)
{
    send_delete(qemu, object, handle_deleted_again);
}

void qemu_detach(struct qemu *qemu)
{
    uint64_t instance;
    if (!object_parse(qemu->operation.object, &instance)) {
        char *text = string_printf("%s: not an object of ours, so it stays", qemu->setup.vm);
        qemu_finish(qemu, RESULT_REFUSED, text, false);
        return;
    }
    send_delete(qemu, qemu->operation.object, handle_deleted);
    qemu_then(qemu, poll_now);
}

bool qemu_detach_refused(struct qemu *qemu, const char *object)
{
    bool asked = qemu_unask(qemu, object);
    if (!qemu->running || qemu->operation.kind != OPERATION_DETACH || strcmp(qemu->operation.object, object) != 0)
        return asked;
    qemu->guest_refused = true;
    qemu_detach_event(qemu, object);
    return false;
}

void qemu_detach_event(struct qemu *qemu, const char *object)
{
    if (qemu->waiting && strcmp(qemu->operation.object, object) == 0)
        poll_now(qemu);
}
