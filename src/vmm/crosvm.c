// crosvm behind a VM's socket: one connection, one packet each way at a time. What is asked is in
// crosvm_operations.c, what is done when answers come late in crosvm_recovery.c.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "util/text.h"
#include "vmm/crosvm_operations.h"
#include "vmm/crosvm_recovery.h"

// An error after this time is crosvm's own limit of 2 s, and its replies are behind from then on.
#define SLOW (1 * CROSVM_SECOND)

// ---- replies

static char *error_text(const struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    const char *vm = crosvm->setup.vm;
    if (reply->kind != CROSVM_ERROR)
        return string_printf("%s answers what vhotplug does not understand: %s", vm, reply->text);
    if (reply->number == EIO)
        return string_printf("%s has no USB: start crosvm without --no-usb, and not as a protected VM", vm);
    if (reply->number == ENODEV)
        return string_printf("the crosvm of %s was built without USB", vm);
    return string_printf("%s answers: %s", vm, strerror(reply->number));
}

static void finish_error(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    bool has_no_usb = reply->kind == CROSVM_ERROR && (reply->number == EIO || reply->number == ENODEV);
    bool final = has_no_usb && crosvm->request == CROSVM_REQUEST_LIST;
    crosvm_finish(crosvm, final ? RESULT_REFUSED : crosvm_failure(crosvm), error_text(crosvm, reply), false);
}

// Whether that can be the answer to what was asked.
static bool fits(const struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    switch (crosvm->request) {
    case CROSVM_REQUEST_LIST:
        return reply->kind == CROSVM_DEVICES;
    case CROSVM_REQUEST_ATTACH:
        return reply->kind != CROSVM_DEVICES && !(reply->kind == CROSVM_PORT && crosvm->ports.ports[reply->port].used);
    case CROSVM_REQUEST_DETACH:
        return reply->kind == CROSVM_NO_DEVICE || reply->kind == CROSVM_FAILED ||
               (reply->kind == CROSVM_PORT && reply->port == crosvm->port);
    case CROSVM_REQUEST_PROBE:
        break;
    }
    return true;
}

static void handle_reply(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    bool late = crosvm_now(crosvm) - crosvm->sent > SLOW;
    if (late && reply->kind == CROSVM_ERROR && reply->number == EIO)
        crosvm_recover(crosvm, true, NULL);
    else if (reply->kind == CROSVM_ERROR || reply->kind == CROSVM_OTHER)
        finish_error(crosvm, reply);
    else if (crosvm->behind)
        crosvm_ask_further(crosvm);
    else if (!fits(crosvm, reply))
        crosvm_recover(crosvm, false, NULL);
    else
        crosvm->answer(crosvm, reply);
}

// ---- the connection

static void lose_connection(struct crosvm *crosvm, enum result_kind kind, const char *why)
{
    crosvm_close(crosvm);
    if (crosvm->running)
        crosvm_finish(crosvm, kind, string_printf("%s %s", crosvm->setup.vm, why), false);
    crosvm->setup.callbacks.closed(crosvm->setup.user);
}

static void take_packet(struct crosvm *crosvm, const char *packet, size_t length, bool whole)
{
    struct crosvm_reply reply;
    crosvm_parse_reply(packet, whole ? length : 0, &reply);
    if (!crosvm->answered && reply.kind != CROSVM_OTHER) {
        crosvm->answered = true;
        crosvm->first_answer = crosvm_now(crosvm);
    }
    crosvm->in_flight = false;
    crosvm->setup.callbacks.answered(crosvm->setup.user);
    handle_reply(crosvm, &reply);
}

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
    if (got <= 0)
        lose_connection(crosvm, RESULT_LOST, "closed the connection");
    else if (!crosvm->in_flight) // the next answer would be taken for another's
        lose_connection(crosvm, RESULT_RETRY, "says what nobody has asked");
    else
        take_packet(crosvm, packet, (size_t)got, !(message.msg_flags & MSG_TRUNC));
    return 0;
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
    int status = sd_event_add_io(crosvm->setup.loop, &crosvm->readable, connection, EPOLLIN, on_readable, crosvm);
    if (status < 0)
        crosvm_close(crosvm);
    return status < 0 ? status : 0;
}

static void crosvm_hang_up(void *session)
{
    crosvm_close(session);
}

// ---- operations

static bool may_be_written(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) == O_RDWR;
}

static void crosvm_start(void *session, struct operation *operation, int fd, const char *no_fd)
{
    struct crosvm *crosvm = session;
    crosvm->operation = *operation;
    *operation = (struct operation){0};
    crosvm->fd = fd;
    crosvm->running = true;
    crosvm->recovered = false;
    crosvm->request = CROSVM_REQUEST_LIST;
    if (crosvm->operation.kind == OPERATION_ATTACH && crosvm->operation.device->kind != DEVICE_USB)
        crosvm_finish(crosvm, RESULT_REFUSED,
                      string_printf("%s takes other than USB devices only at its start", crosvm->setup.vm), false);
    else if (crosvm->broken)
        crosvm_finish_broken(crosvm);
    else if (crosvm->operation.kind == OPERATION_ATTACH && fd < 0)
        crosvm_finish(crosvm, RESULT_RETRY,
                      string_printf("the device cannot be opened for crosvm: %s", no_fd ? no_fd : "not tried"), false);
    else if (crosvm->operation.kind == OPERATION_ATTACH && !may_be_written(fd))
        crosvm_finish(crosvm, RESULT_RETRY,
                      string_copy("the device was opened for reading only, which crosvm cannot use"), false);
    else if (crosvm->suspect)
        crosvm_recover(crosvm, false, crosvm_begin);
    else
        crosvm_begin(crosvm);
}

static void crosvm_cancel(void *session, const char *why)
{
    struct crosvm *crosvm = session;
    crosvm_close(crosvm); // a late answer must not be taken for that of the next request
    if (crosvm->running)
        crosvm_finish(crosvm, RESULT_LOST, string_printf("%s %s", crosvm->setup.vm, why), false);
}

// ---- what is known

static void crosvm_forget(void *session)
{
    struct crosvm *crosvm = session;
    crosvm->answered = crosvm->suspect = crosvm->broken = false;
    crosvm->lag = crosvm->slow_failures = 0;
    crosvm_ports_clear(&crosvm->ports);
}

static void crosvm_remember(void *session, const struct memory_device *device)
{
    struct crosvm *crosvm = session;
    unsigned port = 0;
    if (device->object && crosvm_ports_parse(device->object, &port))
        crosvm_ports_own(&crosvm->ports, port, device->instance, device->vendor_id, device->product_id);
    else if (!crosvm_ports_find(&crosvm->ports, device->instance))
        crosvm_ports_doubt(&crosvm->ports, device->instance, device->vendor_id, device->product_id, true);
}

static const char *crosvm_silence(const void *session)
{
    const struct crosvm *crosvm = session;
    return crosvm->answered ? "crosvm has not answered a request: it is busy or stopped"
                            : "crosvm has not answered yet: it is starting, or stopped";
}

static bool crosvm_has_answered(const void *session)
{
    const struct crosvm *crosvm = session;
    return crosvm->answered;
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
    crosvm_close(crosvm);
    sd_event_source_disable_unref(crosvm->timer);
    operation_clear(&crosvm->operation);
    cleanup_close(&crosvm->fd);
    crosvm_ports_clear(&crosvm->ports);
    free(crosvm);
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
