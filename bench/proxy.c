// A QMP socket that hands everything on to a real QEMU and back, descriptors too, and notes when device_add passes. It
// trusts both sides: the daemon and a QEMU, of the lab.
#include "proxy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common.h"
#include "util/json.h"
#include "util/text.h"

enum { CLIENT, VM, SIDES };

struct side {
    int fd; // -1: none
    struct text input;
};

struct proxy {
    int epoll, listening;
    struct sockaddr_un target;
    struct side sides[SIDES];
    uint64_t command; // the number that the client gave to device_add
    uint64_t added, answered;
};

static void listen_for(struct proxy *proxy, bool more)
{
    struct epoll_event event = {.events = more ? EPOLLIN : 0, .data.ptr = proxy};
    if (epoll_ctl(proxy->epoll, EPOLL_CTL_MOD, proxy->listening, &event) < 0)
        fail("epoll");
}

static void hang_up(struct proxy *proxy)
{
    for (int i = 0; i < SIDES; i++) {
        close(proxy->sides[i].fd);
        proxy->sides[i].fd = -1;
        text_clear(&proxy->sides[i].input);
    }
    listen_for(proxy, true);
}

static void accept_client(struct proxy *proxy)
{
    int vm = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (vm < 0 || connect(vm, (const struct sockaddr *)&proxy->target, sizeof proxy->target) < 0)
        fail(proxy->target.sun_path);
    proxy->sides[VM].fd = vm;
    proxy->sides[CLIENT].fd = accept4(proxy->listening, NULL, NULL, SOCK_CLOEXEC);
    if (proxy->sides[CLIENT].fd < 0)
        fail("accepting");
    listen_for(proxy, false);
    for (int i = 0; i < SIDES; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &proxy->sides[i]};
        if (epoll_ctl(proxy->epoll, EPOLL_CTL_ADD, proxy->sides[i].fd, &event) < 0)
            fail("epoll");
    }
}

static void note(struct proxy *proxy, int from, const char *line, uint64_t came)
{
    CLEANUP(cleanup_json) struct json_object *message = json_tokener_parse(line);
    uint64_t command;
    if (!json_member_uint64(message, "id", &command))
        return;
    if (from == CLIENT && string_equal(json_member_string(message, "execute"), "device_add")) {
        proxy->command = command;
        proxy->added = came;
        proxy->answered = 0;
    } else if (from == VM && proxy->answered == 0 && command == proxy->command) {
        proxy->answered = came;
    }
}

static void note_lines(struct proxy *proxy, int from, uint64_t came)
{
    struct text *input = &proxy->sides[from].input;
    char *line = input->string;
    for (char *end = strchr(line, '\n'); end; end = strchr(line, '\n')) {
        *end = '\0';
        note(proxy, from, line, came);
        line = end + 1;
    }
    input->length -= (size_t)(line - input->string);
    memmove(input->string, line, input->length + 1);
}

// First on, then the time is noted for good: what it costs to look at the bytes is nobody's delay.
static void hand_on(struct proxy *proxy, int from)
{
    char bytes[65536];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(proxy->sides[from].fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    uint64_t came = now_ns();
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        hang_up(proxy);
        return;
    }
    part.iov_len = (size_t)got;
    bool sent = sendmsg(proxy->sides[from == CLIENT ? VM : CLIENT].fd, &message, MSG_NOSIGNAL) == got;
    close_descriptors(&message);
    if (!sent) {
        hang_up(proxy);
        return;
    }
    text_add_bytes(&proxy->sides[from].input, bytes, (size_t)got);
    note_lines(proxy, from, came);
}

struct proxy *proxy_new(int epoll, const char *path, const char *target)
{
    struct proxy *proxy = memory_new(1, sizeof *proxy);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = proxy};
    *proxy = (struct proxy){.epoll = epoll, .target.sun_family = AF_UNIX, .sides = {{.fd = -1}, {.fd = -1}}};
    (void)snprintf(proxy->target.sun_path, sizeof proxy->target.sun_path, "%s", target);
    proxy->listening = listen_at(path, 1);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, proxy->listening, &event) < 0)
        fail(path);
    return proxy;
}

bool proxy_handle(struct proxy *proxy, const void *pointer)
{
    if (!proxy)
        return false;
    if (pointer == proxy) {
        if (!proxy_is_connected(proxy))
            accept_client(proxy);
        return true;
    }
    for (int i = 0; i < SIDES; i++) {
        if (pointer == &proxy->sides[i]) {
            if (proxy_is_connected(proxy)) // both sides may have said something when one has hung up
                hand_on(proxy, i);
            return true;
        }
    }
    return false;
}

bool proxy_is_connected(const struct proxy *proxy)
{
    return proxy->sides[CLIENT].fd >= 0;
}

uint64_t proxy_added(const struct proxy *proxy)
{
    return proxy->added;
}

uint64_t proxy_answered(const struct proxy *proxy)
{
    return proxy->answered;
}
