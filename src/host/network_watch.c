// Tells when default routes or the interfaces below them change.
#include "host/network_watch.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdalign.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "util/text.h"

enum {
    MESSAGES_PER_TURN = 64,
    MESSAGE_MAX = 32768,
    // µs; the kernel tells that an interface went down before it drops its IPv4 routes, and of these it tells nothing
    ROUTES_AFTER = 200000,
    ACCURACY = 50000,
};

struct network_watch {
    void (*changed)(void *user);
    void *user;
    sd_event *loop;
    sd_event_source *source;
    sd_event_source *later; // an interface went down a moment ago
};

struct news {
    bool any, down; // down: of an interface
};

// A router may have many routes that come and go; wireless interfaces tell of themselves all the time.
static void take(const struct nlmsghdr *message, struct news *news)
{
    const struct ifinfomsg *link;

    switch (message->nlmsg_type) {
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        news->any |= message->nlmsg_len >= NLMSG_LENGTH(sizeof(struct rtmsg)) &&
                     ((const struct rtmsg *)NLMSG_DATA(message))->rtm_dst_len == 0;
        break;
    case RTM_NEWLINK:
        link = NLMSG_DATA(message);
        if (message->nlmsg_len < NLMSG_LENGTH(sizeof(*link)) || (link->ifi_change & IFF_UP) == 0)
            break;
        news->any = true;
        news->down |= (link->ifi_flags & IFF_UP) == 0;
        break;
    case RTM_DELLINK:
        news->any = news->down = true;
        break;
    default:
        break;
    }
}

static void take_all(const char *bytes, size_t length, struct news *news)
{
    for (size_t step; length >= sizeof(struct nlmsghdr); bytes += step, length -= step) {
        const struct nlmsghdr *message = (const struct nlmsghdr *)(const void *)bytes;
        if (message->nlmsg_len < sizeof(*message) || message->nlmsg_len > length)
            break;
        take(message, news);
        step = NLMSG_ALIGN(message->nlmsg_len);
        if (step > length)
            break;
    }
}

// One datagram; false when there is none.
static bool receive(int fd, struct news *news)
{
    alignas(struct nlmsghdr) static char bytes[MESSAGE_MAX];
    ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (got >= 0)
        take_all(bytes, (size_t)got, news);
    else if (errno == ENOBUFS) // some were lost
        news->any = news->down = true;
    return got >= 0 || errno == ENOBUFS || errno == EINTR;
}

static int handle_later(sd_event_source *source, uint64_t time, void *user)
{
    struct network_watch *watch = user;

    (void)source, (void)time;
    watch->later = sd_event_source_disable_unref(watch->later);
    watch->changed(watch->user);
    return 0;
}

static int handle_readable(sd_event_source *source, int fd, uint32_t events, void *user)
{
    struct network_watch *watch = user;
    struct news news = {0};

    (void)source, (void)events;
    for (int i = 0; i < MESSAGES_PER_TURN && receive(fd, &news); i++)
        ;
    if (news.down) {
        watch->later = sd_event_source_disable_unref(watch->later);
        // Without it, the next news tells.
        (void)sd_event_add_time_relative(watch->loop, &watch->later, CLOCK_MONOTONIC, ROUTES_AFTER, ACCURACY,
                                         handle_later, watch);
    }
    if (news.any)
        watch->changed(watch->user);
    return 0;
}

int network_watch_new(struct network_watch **watch, sd_event *loop, void (*changed)(void *user), void *user)
{
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK,
                                        .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE};
    CLEANUP(cleanup_close) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    CLEANUP(cleanup_network_watch) struct network_watch *new = memory_new(1, sizeof(*new));
    int error;

    *new = (struct network_watch){.changed = changed, .user = user, .loop = sd_event_ref(loop)};
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    error = sd_event_add_io(loop, &new->source, fd, EPOLLIN, handle_readable, new);
    if (error < 0)
        return error;
    error = sd_event_source_set_io_fd_own(new->source, 1);
    if (error < 0)
        return error;
    (void)steal_fd(&fd);
    *watch = steal_pointer(&new);
    return 0;
}

void network_watch_free(struct network_watch *watch)
{
    if (watch == NULL)
        return;
    sd_event_source_disable_unref(watch->source);
    sd_event_source_disable_unref(watch->later);
    sd_event_unref(watch->loop);
    free(watch);
}
