// QEMU as a back end: one conversation in QMP, in which the operations are done step by step.
#include <string.h>
#include <sys/socket.h>

#include "util/json.h"
#include "util/text.h"
#include "vmm/backend.h"
#include "vmm/peer.h"
#include "vmm/qemu_attach.h"
#include "vmm/qemu_detach.h"
#include "vmm/qemu_input.h"
#include "vmm/qemu_iommufd.h"
#include "vmm/qemu_list.h"
#include "vmm/qemu_pci.h"
#include "vmm/qemu_session.h"
#include "vmm/qemu_survey.h"

static void *qemu_new(const struct backend_setup *setup)
{
    struct qemu *qemu = memory_new(1, sizeof *qemu);
    qemu->setup = *setup;
    qemu->fd = -1;
    return qemu;
}

static void qemu_hang_up(void *session)
{
    struct qemu *qemu = session;
    qmp_free(steal_pointer(&qemu->qmp));
}

static void qemu_forget(void *session)
{
    struct qemu *qemu = session;
    topology_clear(&qemu->topology);
    qemu->topology_known = false;
    qemu->known_count = 0;
    qemu->no_fd_said = 0;
    qemu->descriptors = DESCRIPTORS_UNKNOWN;
    for (size_t i = 0; i < QEMU_ASKED_MAX; i++)
        free(steal_pointer(&qemu->asked[i]));
    for (size_t i = 0; i < QEMU_TAKEN_MAX; i++)
        free(qemu->taken[i].names);
    memset(qemu->taken, 0, sizeof qemu->taken);
}

static void qemu_free(void *session)
{
    struct qemu *qemu = session;
    if (!qemu)
        return;
    qemu_hang_up(qemu);
    qemu_forget(qemu);
    operation_clear(&qemu->operation);
    cleanup_close(&qemu->fd);
    sd_event_source_disable_unref(qemu->timer);
    grabber_free(qemu->grabber);
    qom_children_clear(&qemu->peripheral);
    qom_children_clear(&qemu->anonymous);
    qom_children_clear(&qemu->unattached);
    free(qemu->attachments);
    free(qemu->known);
    free(qemu->list_error);
    free(qemu->add_error);
    free(qemu->delete_error);
    free(qemu->places);
    free(qemu->masters);
    free(qemu->ports);
    free(qemu->taken_node);
    free(qemu->calls);
    free(qemu);
}

// An operation whose answer will not come: lost if it may have been done, else nothing happened.
static void fail(struct qemu *qemu, const char *why)
{
    if (!qemu->running)
        return;
    char *text = string_printf("%s %s", backend_qemu.program, why);
    qemu_finish(qemu, qemu->begun ? RESULT_LOST : RESULT_RETRY, text, false);
}

static void qemu_cancel(void *session, const char *why)
{
    struct qemu *qemu = session;
    qemu_hang_up(qemu);
    fail(qemu, why);
}

static void end_list_survey(struct qemu *qemu)
{
    qemu_finish(qemu, RESULT_DONE, NULL, true);
}

// Known before the first device comes, so that it loses no time.
static void survey_once(struct qemu *qemu)
{
    if (!qemu->topology_known)
        qemu_survey(qemu, end_list_survey);
    else
        end_list_survey(qemu);
}

static void end_list(struct qemu *qemu)
{
    if (qemu->list_error) {
        char *text = string_printf("QEMU does not list its devices: %s", qemu->list_error);
        qemu_finish(qemu, RESULT_RETRY, text, false);
        return;
    }
    // A guest that was not up yet has not heard that it was asked to let go: it is asked again.
    for (size_t i = 0; i < qemu->attachment_count; i++)
        if (qemu->attachments[i].ours && qemu->attachments[i].leaving)
            qemu_detach_again(qemu, qemu->attachments[i].object);
    if (qemu->descriptors == DESCRIPTORS_UNKNOWN)
        qemu_iommufd_ask(qemu);
    qemu_then(qemu, survey_once);
}

static void begin_attach(struct qemu *qemu)
{
    switch (qemu->operation.device->kind) {
    case DEVICE_USB:
        qemu_attach(qemu);
        break;
    case DEVICE_INPUT:
        qemu_input_attach(qemu);
        break;
    case DEVICE_PCI:
        qemu_pci_attach(qemu);
        break;
    }
}

// Runs the first step; the greeting has come.
static void begin(struct qemu *qemu)
{
    qemu->begun = true;
    switch (qemu->operation.kind) {
    case OPERATION_LIST:
        qemu_list(qemu, true, end_list);
        break;
    case OPERATION_ATTACH:
        begin_attach(qemu);
        break;
    case OPERATION_DETACH:
        qemu_detach(qemu);
        break;
    }
}

static void handle_greeted(void *user)
{
    struct qemu *qemu = user;
    qemu->setup.callbacks.answered(qemu->setup.user);
    if (qemu->running && !qemu->begun)
        begin(qemu);
}

static void handle_event(void *user, const char *name, struct json_object *data)
{
    struct qemu *qemu = user;
    const char *object = json_member_string(data, "device");
    bool deleted = strcmp(name, "DEVICE_DELETED") == 0, refused = strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR") == 0;
    if ((!deleted && !refused) || !object)
        return;
    if (refused) {
        if (qemu_detach_refused(qemu, object))
            qemu->setup.callbacks.news(qemu->setup.user);
    } else if (qemu->running && qemu->operation.kind == OPERATION_DETACH &&
               strcmp(qemu->operation.object, object) == 0) {
        qemu_detach_event(qemu, object);
    } else if (!qemu_asked(qemu, object) || qemu_list_knew(qemu, object)) {
        // Not the late word on one that we saw go.
        topology_vacate(&qemu->topology, object);
        qemu->setup.callbacks.news(qemu->setup.user);
    }
}

static void handle_ended(void *user, const char *why, bool broken)
{
    struct qemu *qemu = user;
    if (broken)
        log_line(qemu->setup.log, LOG_LEVEL_DEBUG, &(struct log_subject){.vm = qemu->setup.vm}, "%s: %s %s; hanging up",
                 qemu->setup.vm, backend_qemu.program, why);
    qemu_hang_up(qemu);
    fail(qemu, why);
    qemu->setup.callbacks.closed(qemu->setup.user);
}

static int qemu_connect(void *session, int connection)
{
    static const struct qmp_callbacks on_qmp = {
        .greeted = handle_greeted, .event = handle_event, .ended = handle_ended};
    struct qemu *qemu = session;
    qemu_hang_up(qemu);
    qemu->peer = peer_process(connection);
    return qmp_new(&qemu->qmp, qemu->setup.loop, connection, &on_qmp, qemu);
}

static bool qemu_is_connected(const void *session)
{
    const struct qemu *qemu = session;
    return qemu->qmp != NULL;
}

static bool qemu_has_answered(const void *session)
{
    const struct qemu *qemu = session;
    return qemu->qmp && qmp_is_greeted(qemu->qmp);
}

// Says once for each plug that a device goes in by its address.
static void say_no_fd(struct qemu *qemu, const char *no_fd)
{
    const struct device *device = qemu->operation.device;
    if (qemu->operation.kind != OPERATION_ATTACH || !device || device->kind != DEVICE_USB || qemu->fd >= 0 ||
        device->instance == qemu->no_fd_said)
        return;
    qemu->no_fd_said = device->instance;
    CLEANUP(cleanup_free) char *title = device_title(device);
    log_line(qemu->setup.log, LOG_LEVEL_WARNING, &(struct log_subject){.device = title, .vm = qemu->setup.vm},
             "%s: passed to %s by its address, for which QEMU needs rights on %s: %s", title, qemu->setup.vm,
             device->node ? device->node : "its node", no_fd ? no_fd : "no descriptor");
}

static void qemu_start(void *session, struct operation *operation, int fd, const char *no_fd)
{
    struct qemu *qemu = session;
    qemu->running = true;
    qemu->operation = *operation;
    *operation = (struct operation){0};
    qemu->fd = fd;
    say_no_fd(qemu, no_fd);
    if (qmp_is_greeted(qemu->qmp))
        begin(qemu);
}

static bool qemu_takes_functions(const void *session)
{
    const struct qemu *qemu = session;
    return qemu->descriptors == DESCRIPTORS_TAKEN;
}

static const char *qemu_silence(const void *session)
{
    if (qemu_has_answered(session))
        return "QEMU took a command and has not answered yet; it is busy or stopped";
    return "QEMU is stopped, or another client holds its QMP socket; give vhotplug a socket of its own";
}

const struct backend backend_qemu = {
    .program = "QEMU",
    .socket_type = SOCK_STREAM,
    .session_new = qemu_new,
    .session_free = qemu_free,
    .is_connected = qemu_is_connected,
    .connect = qemu_connect,
    .hang_up = qemu_hang_up,
    .start = qemu_start,
    .cancel = qemu_cancel,
    .forget = qemu_forget,
    .silence = qemu_silence,
    .takes_functions = qemu_takes_functions,
    .has_answered = qemu_has_answered,
};
