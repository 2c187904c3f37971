// What the operations on a crosvm have in common: one request at a time, waiting, and the end.
#include "vmm/crosvm_session.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "util/text.h"

uint64_t crosvm_now(const struct crosvm *crosvm)
{
    uint64_t now = 0;
    (void)sd_event_now(crosvm->setup.loop, CLOCK_MONOTONIC, &now);
    return now;
}

void crosvm_close(struct crosvm *crosvm)
{
    crosvm->in_flight = false;
    crosvm->readable = sd_event_source_disable_unref(crosvm->readable);
    if (crosvm->connection >= 0)
        close(steal_fd(&crosvm->connection));
}

// ---- the end of an operation

void crosvm_finish(struct crosvm *crosvm, enum result_kind kind, char *text, bool listed)
{
    struct result result = {.serial = crosvm->operation.serial, .kind = kind, .text = text, .listed = listed};
    if (listed)
        result.attachments = crosvm_ports_list(&crosvm->ports, &result.attachment_count);
    operation_clear(&crosvm->operation);
    if (crosvm->fd >= 0)
        close(steal_fd(&crosvm->fd));
    crosvm->timer = sd_event_source_disable_unref(crosvm->timer);
    crosvm->running = false;
    crosvm->setup.callbacks.finished(crosvm->setup.user, &result);
}

void crosvm_finish_broken(struct crosvm *crosvm)
{
    crosvm->broken = true;
    crosvm_finish(crosvm, RESULT_REFUSED,
                  string_printf("the USB of %s does not answer any more: " CROSVM_RESTART_ADVICE, crosvm->setup.vm),
                  false);
}

enum result_kind crosvm_failure(const struct crosvm *crosvm)
{
    return crosvm->request == CROSVM_REQUEST_LIST ? RESULT_RETRY : RESULT_LOST;
}

// ---- requests

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
    crosvm->sent = crosvm_now(crosvm);
    crosvm->in_flight = true;
    int status = send_packet(crosvm->connection, packet, fd);
    if (status == 0)
        return;
    crosvm_close(crosvm);
    crosvm_finish(crosvm, crosvm_failure(crosvm),
                  string_printf("%s cannot be asked: %s", crosvm->setup.vm, strerror(-status)), false);
    crosvm->setup.callbacks.closed(crosvm->setup.user);
}

static void ask(struct crosvm *crosvm, enum crosvm_request request, const char *packet, int fd, crosvm_answer answer)
{
    crosvm->request = request;
    crosvm->answer = answer;
    crosvm->behind = request == CROSVM_REQUEST_PROBE ? 0 : crosvm->lag;
    transmit(crosvm, packet, fd);
}

void crosvm_ask_list(struct crosvm *crosvm, crosvm_answer answer)
{
    ask(crosvm, CROSVM_REQUEST_LIST, crosvm_list_request(), -1, answer);
}

void crosvm_ask_attach(struct crosvm *crosvm, crosvm_answer answer)
{
    ask(crosvm, CROSVM_REQUEST_ATTACH, crosvm_attach_request(), crosvm->fd, answer);
}

void crosvm_ask_detach(struct crosvm *crosvm, unsigned port, crosvm_answer answer)
{
    char packet[CROSVM_DETACH_MAX];
    crosvm_detach_request(packet, port);
    crosvm->port = port;
    ask(crosvm, CROSVM_REQUEST_DETACH, packet, -1, answer);
}

void crosvm_probe(struct crosvm *crosvm, bool marker, crosvm_answer answer)
{
    char packet[CROSVM_DETACH_MAX];
    crosvm_detach_request(packet, 0); // there is no such port
    ask(crosvm, CROSVM_REQUEST_PROBE, marker ? packet : crosvm_list_request(), -1, answer);
}

void crosvm_ask_further(struct crosvm *crosvm)
{
    crosvm->behind--;
    transmit(crosvm, crosvm_list_request(), -1);
}

// ---- waiting

static int on_timer(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time;
    struct crosvm *crosvm = user;
    crosvm->setup.callbacks.answered(crosvm->setup.user); // it was we who waited
    crosvm->timed(crosvm);
    return 0;
}

void crosvm_wait(struct crosvm *crosvm, uint64_t time, crosvm_then timed)
{
    crosvm->timed = timed;
    crosvm->timer = sd_event_source_disable_unref(crosvm->timer);
    if (sd_event_add_time(crosvm->setup.loop, &crosvm->timer, CLOCK_MONOTONIC, time, 1000, on_timer, crosvm) < 0)
        crosvm_finish(crosvm, RESULT_RETRY, string_printf("%s cannot be waited for", crosvm->setup.vm), false);
}
