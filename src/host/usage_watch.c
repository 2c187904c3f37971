// Tells when something is mounted, unmounted, or begins or ends to swap.
#include "host/usage_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/epoll.h>

#include "util/text.h"

struct usage_watch {
    void (*changed)(void *user);
    void *user;
    sd_event_source *mounts, *swaps;
};

// The kernel notes with each poll what this descriptor has been told, so nothing need be read.
static int handle_change(sd_event_source *source, int fd, uint32_t events, void *user)
{
    struct usage_watch *watch = user;

    (void)source, (void)fd, (void)events;
    watch->changed(watch->user);
    return 0;
}

static int add(struct usage_watch *watch, sd_event *loop, const char *path, sd_event_source **source)
{
    CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error;

    if (fd < 0)
        return -errno;
    error = sd_event_add_io(loop, source, fd, EPOLLPRI, handle_change, watch);
    if (error < 0)
        return error;
    error = sd_event_source_set_io_fd_own(*source, 1);
    if (error >= 0)
        (void)steal_fd(&fd);
    return error;
}

static bool is_absent(int error)
{
    return error == -ENOENT || error == -EPERM; // the second: it is no file of the kernel's
}

int usage_watch_new(struct usage_watch **watch, sd_event *loop, const char *mountinfo, const char *swaps,
                    void (*changed)(void *user), void *user)
{
    CLEANUP(cleanup_usage_watch) struct usage_watch *new = memory_new(1, sizeof(*new));
    int error, swaps_error;

    *new = (struct usage_watch){.changed = changed, .user = user};
    error = add(new, loop, mountinfo, &new->mounts);
    swaps_error = add(new, loop, swaps, &new->swaps);
    // For want of room to watch one, what the host begins to live on would never be heard of.
    if (error < 0 && (swaps_error < 0 || !is_absent(error)))
        return error;
    if (swaps_error < 0 && !is_absent(swaps_error))
        return swaps_error;
    *watch = steal_pointer(&new);
    return 0;
}

void usage_watch_free(struct usage_watch *watch)
{
    if (watch == NULL)
        return;
    sd_event_source_disable_unref(watch->mounts);
    sd_event_source_disable_unref(watch->swaps);
    free(watch);
}
