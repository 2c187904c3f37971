// crosvm behind a VM's socket: one request at a time, each an answer away from the next, and the
// care that its USB needs: early attaches leak ports, slow ones put its replies behind.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "util/text.h"
#include "vmm/backend.h"
#include "vmm/crosvm_message.h"

#define SECOND ((uint64_t)1000 * 1000)
// The guest's driver comes up some time after crosvm answers; an attach before it can kill its USB.
#define SETTLE (3 * SECOND)
// An error after this time is crosvm's own limit of 2 s, and its replies are behind from then on.
#define SLOW (1 * SECOND)
#define RECOVERY_TICKS 5 // of a second: until the slow request has ended
#define DRAIN_LISTS 4
#define LAG_MAX 4
#define SLOW_FAILURES_MAX 3
#define RESTART_ADVICE "restart the VM"

struct crosvm;
typedef void (*crosvm_step)(struct crosvm *crosvm, const struct crosvm_reply *reply);

enum crosvm_request { REQUEST_LIST, REQUEST_ATTACH, REQUEST_DETACH };

struct crosvm {
    struct backend_setup setup;
    int connection; // -1: none
    bool connection_answered;
    sd_event_source *readable, *timer;
    void (*timed)(struct crosvm *crosvm);
    unsigned ticks;

    // What is known of this process.
    bool answered;
    uint64_t first_answer;
    unsigned lag; // so many replies its USB is behind
    unsigned slow_failures;
    bool broken;
    struct crosvm_port ports[CROSVM_PORTS + 1];
    uint64_t owners[CROSVM_PORTS + 1]; // the device instance that we put there; 0: not ours
    struct crosvm_doubt {              // an attach whose outcome is not known
        uint64_t instance;             // 0: none
        uint16_t vendor_id, product_id;
        bool ambiguous; // several ports could be it
    } doubt;

    // The operation that is running.
    bool running;
    struct operation operation;
    int fd;
    unsigned leaked;

    // The request in flight.
    enum crosvm_request request;
    uint64_t sent;
    unsigned behind; // further lists that bring the answer
    crosvm_step step;
    unsigned drained;
};

static uint64_t now_of(const struct crosvm *crosvm)
{
    uint64_t now = 0;
    (void)sd_event_now(crosvm->setup.loop, CLOCK_MONOTONIC, &now);
    return now;
}

// ---- the end of an operation

static struct attachment *attachments_of(const struct crosvm *crosvm, size_t *count)
{
    struct attachment *attachments = memory_new(CROSVM_PORTS, sizeof *attachments);
    *count = 0;
    for (unsigned port = 1; port <= CROSVM_PORTS; port++) {
        if (!crosvm->ports[port].used)
            continue;
        struct attachment *attachment = &attachments[(*count)++];
        attachment->ours = crosvm->owners[port] != 0;
        attachment->instance = crosvm->owners[port];
        attachment->vendor_id = crosvm->ports[port].vendor_id;
        attachment->product_id = crosvm->ports[port].product_id;
        (void)snprintf(attachment->object, sizeof attachment->object, "%u", port);
    }
    return attachments;
}

static void finish(struct crosvm *crosvm, enum result_kind kind, char *text, bool listed)
{
    struct result result = {.serial = crosvm->operation.serial, .kind = kind, .text = text, .listed = listed};
    if (listed)
        result.attachments = attachments_of(crosvm, &result.attachment_count);
    operation_clear(&crosvm->operation);
    if (crosvm->fd >= 0)
        close(steal_fd(&crosvm->fd));
    crosvm->running = false;
    crosvm->step = NULL;
    crosvm->timed = NULL;
    crosvm->setup.callbacks.finished(crosvm->setup.user, &result);
}

static void finish_broken(struct crosvm *crosvm)
{
    crosvm->broken = true;
    finish(crosvm, RESULT_REFUSED, string_printf("the USB of %s no longer answers: " RESTART_ADVICE, crosvm->setup.vm),
           false);
}

// ---- requests

static void close_connection(struct crosvm *crosvm)
{
    crosvm->readable = sd_event_source_disable_unref(crosvm->readable);
    if (crosvm->connection >= 0)
        close(steal_fd(&crosvm->connection));
}

static int send_packet(int connection, const char *packet, int fd)
{
    struct iovec part = {(void *)packet, strlen(packet)};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    return sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static void transmit(struct crosvm *crosvm, const char *packet, int fd)
{
    int status = send_packet(crosvm->connection, packet, fd);
    if (status < 0) {
        close_connection(crosvm);
        finish(crosvm, crosvm->request == REQUEST_LIST ? RESULT_RETRY : RESULT_LOST,
               string_printf("%s cannot be asked: %s", crosvm->setup.vm, strerror(-status)), false);
        crosvm->setup.callbacks.closed(crosvm->setup.user);
    }
}

static void ask(struct crosvm *crosvm, enum crosvm_request request, const char *packet, int fd, crosvm_step step)
{
    crosvm->request = request;
    crosvm->step = step;
    crosvm->behind = crosvm->lag;
    crosvm->sent = now_of(crosvm);
    transmit(crosvm, packet, fd);
}

static void ask_list(struct crosvm *crosvm, crosvm_step step)
{
    ask(crosvm, REQUEST_LIST, crosvm_list_request(), -1, step);
}

static void ask_detach(struct crosvm *crosvm, unsigned port, crosvm_step step)
{
    char packet[64];
    crosvm_detach_request(packet, port);
    ask(crosvm, REQUEST_DETACH, packet, -1, step);
}

static int on_timer(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time;
    struct crosvm *crosvm = user;
    if (crosvm->timed)
        crosvm->timed(crosvm);
    return 0;
}

static void wait_until(struct crosvm *crosvm, uint64_t time, void (*timed)(struct crosvm *crosvm))
{
    crosvm->timed = timed;
    crosvm->timer = sd_event_source_disable_unref(crosvm->timer);
    if (sd_event_add_time(crosvm->setup.loop, &crosvm->timer, CLOCK_MONOTONIC, time, 1000, on_timer, crosvm) < 0)
        timed(crosvm);
}

// ---- the list

// Of which port a doubtful attach can be: one that nobody is known to have, with its numbers.
static void resolve_doubt(struct crosvm *crosvm, const struct crosvm_port *before)
{
    unsigned found = 0, candidates = 0;
    for (unsigned port = 1; port <= CROSVM_PORTS; port++) {
        const struct crosvm_port *listed = &crosvm->ports[port];
        bool fits = listed->used && !crosvm->owners[port] && listed->vendor_id == crosvm->doubt.vendor_id &&
                    listed->product_id == crosvm->doubt.product_id;
        if (fits && !(before && before[port].used)) {
            found = port;
            candidates++;
        }
    }
    if (candidates == 1)
        crosvm->owners[found] = crosvm->doubt.instance;
    if (candidates > 1)
        crosvm->doubt.ambiguous = true;
    else
        crosvm->doubt = (struct crosvm_doubt){0};
}

static void take_list(struct crosvm *crosvm, const struct crosvm_reply *reply, bool attach_was_asked)
{
    struct crosvm_port before[CROSVM_PORTS + 1];
    memcpy(before, crosvm->ports, sizeof before);
    memcpy(crosvm->ports, reply->ports, sizeof before);
    for (unsigned port = 1; port <= CROSVM_PORTS; port++) {
        const struct crosvm_port *now = &crosvm->ports[port];
        bool same = now->used && now->vendor_id == before[port].vendor_id && now->product_id == before[port].product_id;
        if (!same)
            crosvm->owners[port] = 0;
    }
    if (crosvm->doubt.instance)
        resolve_doubt(crosvm, attach_was_asked ? before : NULL);
}

static bool holds(const struct crosvm *crosvm, uint64_t instance)
{
    for (unsigned port = 1; port <= CROSVM_PORTS; port++)
        if (crosvm->owners[port] == instance)
            return true;
    return false;
}

static void finish_list(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    take_list(crosvm, reply, false);
    finish(crosvm, RESULT_DONE, NULL, true);
}

// ---- replies that are behind

// Whatever was asked, the list tells what came of it.
static void finish_by_list(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    take_list(crosvm, reply, crosvm->operation.kind == OPERATION_ATTACH);
    bool done = true;
    if (crosvm->operation.kind == OPERATION_ATTACH) {
        done = holds(crosvm, crosvm->operation.device->instance);
    } else if (crosvm->operation.kind == OPERATION_DETACH) {
        unsigned long port;
        done = !string_to_number(crosvm->operation.object, 10, CROSVM_PORTS, &port) || !crosvm->ports[port].used;
    }
    char *text = done ? NULL : string_printf("%s was slow; its USB has been asked again", crosvm->setup.vm);
    finish(crosvm, done ? RESULT_DONE : RESULT_RETRY, text, true);
}

static void measure(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    if (reply->kind != CROSVM_DEVICES) {
        // The answer to the marker came after so many lists: so far are the replies behind.
        crosvm->lag = crosvm->drained;
        ask_list(crosvm, finish_by_list);
    } else if (crosvm->drained++ == LAG_MAX) {
        finish_broken(crosvm);
    } else {
        ask_list(crosvm, measure);
    }
}

// Lists until only lists are under way; then one request whose answer is none, to see how late it comes.
static void drain(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    (void)reply;
    if (++crosvm->drained < DRAIN_LISTS) {
        ask_list(crosvm, drain);
        return;
    }
    crosvm->drained = 0;
    ask_detach(crosvm, 0, measure);
}

static void recover_after_ticks(struct crosvm *crosvm)
{
    crosvm->setup.callbacks.answered(crosvm->setup.user); // not silent: we wait
    if (crosvm->ticks--) {
        wait_until(crosvm, now_of(crosvm) + SECOND, recover_after_ticks);
        return;
    }
    crosvm->drained = 0;
    ask_list(crosvm, drain);
}

static void recover(struct crosvm *crosvm, bool slow)
{
    log_debug(crosvm->setup.log, "%s: crosvm's USB replies are late; asking again", crosvm->setup.vm);
    if (slow && ++crosvm->slow_failures == SLOW_FAILURES_MAX) {
        finish_broken(crosvm);
        return;
    }
    crosvm->lag = 0;
    crosvm->ticks = slow ? RECOVERY_TICKS : 0;
    recover_after_ticks(crosvm);
}

static void finish_error(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    const char *vm = crosvm->setup.vm;
    char *text;
    if (reply->kind == CROSVM_ERROR && reply->number == EIO)
        text = string_printf("%s has no USB: start crosvm without --no-usb and without protection of the VM", vm);
    else if (reply->kind == CROSVM_ERROR && reply->number == ENODEV)
        text = string_printf("the crosvm of %s was built without USB", vm);
    else if (reply->kind == CROSVM_ERROR)
        text = string_printf("crosvm answers: %s", strerror(reply->number));
    else
        text = string_printf("crosvm answers what vhotplug does not understand: %s", reply->text);
    bool final = reply->kind == CROSVM_ERROR && (reply->number == EIO || reply->number == ENODEV);
    finish(crosvm, final ? RESULT_REFUSED : RESULT_RETRY, text, false);
}

static void handle_reply(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    uint64_t now = now_of(crosvm);
    bool slow = reply->kind == CROSVM_ERROR && reply->number == EIO && now - crosvm->sent > SLOW;
    bool is_list = reply->kind == CROSVM_DEVICES;
    if (slow) {
        recover(crosvm, true);
    } else if (reply->kind == CROSVM_ERROR || reply->kind == CROSVM_OTHER) {
        finish_error(crosvm, reply);
    } else if (crosvm->behind) {
        crosvm->behind--;
        crosvm->sent = now;
        transmit(crosvm, crosvm_list_request(), -1);
    } else if (crosvm->step != measure && crosvm->step != drain && is_list != (crosvm->request == REQUEST_LIST)) {
        recover(crosvm, false);
    } else {
        crosvm->step(crosvm, reply);
    }
}

// ---- attach

static bool is_full(const struct crosvm *crosvm, unsigned first)
{
    for (unsigned port = first; port < first + CROSVM_PORTS_OF_A_KIND; port++)
        if (!crosvm->ports[port].used)
            return false;
    return true;
}

static void finish_refused_port(struct crosvm *crosvm)
{
    bool super = crosvm->operation.device->speed == SPEED_SUPER;
    if (is_full(crosvm, super ? CROSVM_PORTS_OF_A_KIND + 1 : 1))
        finish(crosvm, RESULT_REFUSED,
               string_printf("all %d USB %d ports of %s are in use", CROSVM_PORTS_OF_A_KIND, super ? 3 : 2,
                             crosvm->setup.vm),
               true);
    else
        finish(crosvm, RESULT_RETRY, string_printf("the guest of %s is not ready for USB yet", crosvm->setup.vm), true);
}

static void leak_undone(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    take_list(crosvm, reply, false);
    finish_refused_port(crosvm);
}

static void verify_undo(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    (void)reply; // "no such device" although it was freed, while the guest cannot be told
    ask_list(crosvm, leak_undone);
}

// After "no available port": a port that is taken nevertheless leaked, and must be freed at once.
static void undo_leak(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    take_list(crosvm, reply, true);
    for (unsigned port = 1; port <= CROSVM_PORTS; port++) {
        if (crosvm->owners[port] == crosvm->operation.device->instance) {
            ask_detach(crosvm, port, verify_undo);
            return;
        }
    }
    finish_refused_port(crosvm);
}

static void verify_attach(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    take_list(crosvm, reply, true);
    if (holds(crosvm, crosvm->operation.device->instance))
        finish(crosvm, RESULT_DONE, NULL, true);
    else
        finish(crosvm, RESULT_RETRY, string_printf("%s does not list it", crosvm->setup.vm), true);
}

static void attach_answered(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    switch (reply->kind) {
    case CROSVM_PORT:
        ask_list(crosvm, verify_attach);
        break;
    case CROSVM_NO_PORT:
        ask_list(crosvm, undo_leak);
        break;
    case CROSVM_NO_DEVICE:
        crosvm->doubt = (struct crosvm_doubt){0};
        finish(crosvm, RESULT_GONE, string_printf("crosvm cannot read the device"), false);
        break;
    case CROSVM_FAILED:
        crosvm->doubt = (struct crosvm_doubt){0};
        finish(crosvm, RESULT_REFUSED, string_printf("crosvm answers %s: " RESTART_ADVICE, reply->text), false);
        break;
    case CROSVM_DEVICES:
    case CROSVM_ERROR:
    case CROSVM_OTHER:
        finish_error(crosvm, reply);
        break;
    }
}

static void attach_on_baseline(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    take_list(crosvm, reply, false);
    const struct device *device = crosvm->operation.device;
    if (holds(crosvm, device->instance)) {
        finish(crosvm, RESULT_DONE, NULL, true);
        return;
    }
    if (crosvm->doubt.ambiguous && crosvm->doubt.instance == device->instance) {
        finish(crosvm, RESULT_REFUSED,
               string_printf("%s has %04x:%04x on several ports and vhotplug cannot tell which one is this device: "
                             "take them out by `crosvm usb detach`",
                             crosvm->setup.vm, device->vendor_id, device->product_id),
               true);
        return;
    }
    crosvm->doubt = (struct crosvm_doubt){device->instance, device->vendor_id, device->product_id, false};
    ask(crosvm, REQUEST_ATTACH, crosvm_attach_request(), crosvm->fd, attach_answered);
}

static void attach_settled(struct crosvm *crosvm)
{
    ask_list(crosvm, attach_on_baseline);
}

static void attach_answered_first(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    take_list(crosvm, reply, false);
    wait_until(crosvm, crosvm->first_answer + SETTLE, attach_settled);
}

static void start_attach(struct crosvm *crosvm, const char *no_fd)
{
    if (crosvm->fd < 0)
        finish(crosvm, RESULT_RETRY, string_printf("crosvm takes devices by descriptor only: %s", no_fd ? no_fd : ""),
               false);
    else if (!crosvm->answered)
        ask_list(crosvm, attach_answered_first);
    else if (now_of(crosvm) < crosvm->first_answer + SETTLE)
        wait_until(crosvm, crosvm->first_answer + SETTLE, attach_settled);
    else
        attach_settled(crosvm);
}

// ---- detach

static void verify_detach(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    (void)reply; // done, or gone already; the list tells
    ask_list(crosvm, finish_by_list);
}

static void detach_on_baseline(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    take_list(crosvm, reply, false);
    unsigned long port = 0;
    if (!string_to_number(crosvm->operation.object, 10, CROSVM_PORTS, &port) || !crosvm->owners[port])
        finish(crosvm, RESULT_DONE, NULL, true); // not ours any more: somebody freed it and it is used anew
    else
        ask_detach(crosvm, (unsigned)port, verify_detach);
}

// ---- the interface

static int on_readable(sd_event_source *source, int connection, uint32_t events, void *user)
{
    (void)source, (void)events;
    struct crosvm *crosvm = user;
    CLEANUP(cleanup_free) char *packet = memory_new(CROSVM_MESSAGE_MAX, 1);
    struct iovec part = {packet, CROSVM_MESSAGE_MAX};
    // Without room for descriptors, the kernel closes those that come.
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t got = recvmsg(connection, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        close_connection(crosvm);
        if (crosvm->running)
            finish(crosvm, RESULT_LOST, string_printf("%s closed the connection", crosvm->setup.vm), false);
        crosvm->setup.callbacks.closed(crosvm->setup.user);
        return 0;
    }
    crosvm->connection_answered = true;
    if (!crosvm->answered) {
        crosvm->answered = true;
        crosvm->first_answer = now_of(crosvm);
    }
    crosvm->setup.callbacks.answered(crosvm->setup.user);
    if (!crosvm->running || !crosvm->step)
        return 0;
    struct crosvm_reply reply;
    crosvm_parse_reply(packet, message.msg_flags & MSG_TRUNC ? 0 : (size_t)got, &reply);
    handle_reply(crosvm, &reply);
    return 0;
}

static void *crosvm_new(const struct backend_setup *setup)
{
    struct crosvm *crosvm = memory_new(1, sizeof *crosvm);
    *crosvm = (struct crosvm){.setup = *setup, .connection = -1, .fd = -1};
    return crosvm;
}

static void crosvm_free(void *session)
{
    struct crosvm *crosvm = session;
    if (!crosvm)
        return;
    close_connection(crosvm);
    sd_event_source_disable_unref(crosvm->timer);
    operation_clear(&crosvm->operation);
    if (crosvm->fd >= 0)
        close(crosvm->fd);
    free(crosvm);
}

static bool crosvm_is_connected(const void *session)
{
    const struct crosvm *crosvm = session;
    return crosvm->connection >= 0;
}

static int crosvm_connect(void *session, int connection)
{
    struct crosvm *crosvm = session;
    crosvm->connection = connection;
    crosvm->connection_answered = false;
    int status = sd_event_add_io(crosvm->setup.loop, &crosvm->readable, connection, EPOLLIN, on_readable, crosvm);
    if (status < 0)
        close_connection(crosvm);
    return status < 0 ? status : 0;
}

static void crosvm_hang_up(void *session)
{
    close_connection(session);
}

static void crosvm_start(void *session, struct operation *operation, int fd, const char *no_fd)
{
    struct crosvm *crosvm = session;
    crosvm->operation = *operation;
    *operation = (struct operation){0};
    crosvm->fd = fd;
    crosvm->running = true;
    if (crosvm->broken) {
        finish_broken(crosvm);
        return;
    }
    switch (crosvm->operation.kind) {
    case OPERATION_LIST:
        ask_list(crosvm, finish_list);
        break;
    case OPERATION_ATTACH:
        start_attach(crosvm, no_fd);
        break;
    case OPERATION_DETACH:
        ask_list(crosvm, detach_on_baseline);
        break;
    }
}

static void crosvm_cancel(void *session, const char *why)
{
    struct crosvm *crosvm = session;
    crosvm->timer = sd_event_source_disable_unref(crosvm->timer);
    close_connection(crosvm); // a late answer must not be taken for that of the next request
    if (crosvm->running)
        finish(crosvm, RESULT_LOST, string_copy(why), false);
}

static void crosvm_forget(void *session)
{
    struct crosvm *crosvm = session;
    crosvm->answered = crosvm->broken = false;
    crosvm->lag = crosvm->slow_failures = 0;
    crosvm->doubt = (struct crosvm_doubt){0};
    memset(crosvm->ports, 0, sizeof crosvm->ports);
    memset(crosvm->owners, 0, sizeof crosvm->owners);
}

static void crosvm_remember(void *session, const struct memory_device *device)
{
    struct crosvm *crosvm = session;
    unsigned long port = 0;
    if (device->object && string_to_number(device->object, 10, CROSVM_PORTS, &port) && port) {
        crosvm->ports[port] = (struct crosvm_port){true, device->vendor_id, device->product_id};
        crosvm->owners[port] = device->instance;
    } else if (!crosvm->doubt.instance) {
        // It may have been on its way when we ended; one is at a time.
        crosvm->doubt = (struct crosvm_doubt){device->instance, device->vendor_id, device->product_id, false};
    }
}

static const char *crosvm_silence(const void *session)
{
    const struct crosvm *crosvm = session;
    return crosvm->answered ? "crosvm is busy or stopped" : "crosvm is starting, or stopped";
}

static bool crosvm_has_answered(const void *session)
{
    const struct crosvm *crosvm = session;
    return crosvm->connection_answered;
}

const struct backend backend_crosvm = {
    .program = "crosvm",
    .socket_type = SOCK_SEQPACKET,
    .session_new = crosvm_new,
    .session_free = crosvm_free,
    .is_connected = crosvm_is_connected,
    .connect = crosvm_connect,
    .hang_up = crosvm_hang_up,
    .start = crosvm_start,
    .cancel = crosvm_cancel,
    .forget = crosvm_forget,
    .remember = crosvm_remember,
    .silence = crosvm_silence,
    .has_answered = crosvm_has_answered,
};
