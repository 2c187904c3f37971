// When the kernel and udevd tell of USB devices that are really plugged: a socket for the events of each.
#include "watch.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "util/text.h"

#define BUFFER_BYTES (16 * 1024 * 1024)

enum { KERNEL, UDEVD, SENDERS }; // their multicast groups are 1 and 2

struct watch {
    int sockets[SENDERS];
    struct watch_times times;
};

static int listen_to(unsigned sender)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1U << sender};
    int size = BUFFER_BYTES, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        fail("listening to device events");
    return fd;
}

struct watch *watch_new(int epoll)
{
    struct watch *watch = memory_new(1, sizeof *watch);
    for (unsigned sender = 0; sender < SENDERS; sender++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &watch->sockets[sender]};
        watch->sockets[sender] = listen_to(sender);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, watch->sockets[sender], &event) < 0)
            fail("epoll");
    }
    return watch;
}

// PROPERTY with the zero byte at its end, of a message of either sender.
static bool has(const char *message, size_t length, const char *property)
{
    return memmem(message, length, property, strlen(property) + 1) != NULL;
}

static void note(struct watch *watch, int sender, const char *message, size_t length, uint64_t came)
{
    struct watch_times *times = &watch->times;
    if (!has(message, length, "DEVTYPE=usb_device"))
        return;
    if (has(message, length, "ACTION=add"))
        *(sender == KERNEL ? &times->kernel : &times->udevd) = came;
    else if (sender == UDEVD && has(message, length, "ACTION=remove"))
        times->gone = came;
}

bool watch_handle(struct watch *watch, const void *pointer)
{
    char message[8192];
    const int *from = pointer;
    if (!watch || from < watch->sockets || from >= watch->sockets + SENDERS)
        return false;
    uint64_t came = now_ns();
    for (ssize_t got; (got = recv(*from, message, sizeof message, 0)) > 0; came = now_ns())
        note(watch, (int)(from - watch->sockets), message, (size_t)got, came);
    if (errno != EAGAIN)
        fail("device events");
    return true;
}

struct watch_times watch_times(const struct watch *watch)
{
    return watch->times;
}

void watch_forget(struct watch *watch)
{
    watch->times = (struct watch_times){0};
}
