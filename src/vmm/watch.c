// Notices when a path's file may have come or gone, without a timer: inotify on its directory, and on
// the directories above it, which may be missing, removed, made again or moved at any time.
#include "vmm/watch.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "util/text.h"

// Directories on the way to one file.
#define STEPS_MAX 64
// How often one arming begins anew because the way changed meanwhile; a later event begins again.
#define ARM_TRIES 8
// What the kernel had no room for is tried again, and the file is looked at, every so many µs.
#define AGAIN_US ((uint64_t)5 * 1000 * 1000)

#define SELF (IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
#define ENTRIES (IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_ATTRIB)

// One directory on the way, and the name in it that the way goes on with.
struct step {
    int descriptor; // of the watch; -1: not watched
    char *path;
    char *name;
};

struct watch {
    sd_event *loop;
    sd_event_source *source, *again;
    int fd; // an inotify instance of its own: a fresh one for each arming holds nothing of the past
    char *path;
    watch_look look;
    void *user;
    struct step steps[STEPS_MAX];
    size_t count;
    bool there; // the file was there when the watch was armed
};

static int arm_or_wait(struct watch *watch);

// Whether an event is about the way; names beside it are not.
static bool concerns(const struct watch *watch, const struct inotify_event *event)
{
    if (event->mask & IN_Q_OVERFLOW)
        return true;
    for (size_t i = 0; i < watch->count; i++)
        if (watch->steps[i].descriptor == event->wd)
            return event->len == 0 || strcmp(event->name, watch->steps[i].name) == 0;
    return false;
}

static int handle_io(sd_event_source *source, int fd, uint32_t revents, void *user)
{
    struct watch *watch = user;
    _Alignas(struct inotify_event) char buffer[4096];
    bool concerned = false;
    (void)source;
    (void)revents;
    ssize_t length = read(fd, buffer, sizeof buffer);
    for (ssize_t place = 0; place < length;) {
        struct inotify_event event;
        memcpy(&event, buffer + place, sizeof event);
        concerned = concerned || concerns(watch, (const struct inotify_event *)(const void *)(buffer + place));
        place += (ssize_t)(sizeof event + event.len);
    }
    if (!concerned)
        return 0;
    (void)arm_or_wait(watch);
    watch->look(watch->user);
    return 0;
}

static int handle_again(sd_event_source *source, uint64_t now, void *user)
{
    struct watch *watch = user;
    (void)source;
    (void)now;
    (void)arm_or_wait(watch);
    watch->look(watch->user);
    return 0;
}

static void disarm(struct watch *watch)
{
    watch->source = sd_event_source_disable_unref(watch->source);
    cleanup_close(&watch->fd);
    watch->fd = -1;
    for (size_t i = 0; i < watch->count; i++)
        watch->steps[i].descriptor = -1;
}

// A fresh instance that watches nothing yet.
static int begin(struct watch *watch)
{
    disarm(watch);
    watch->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch->fd < 0)
        return -errno;
    return sd_event_add_io(watch->loop, &watch->source, watch->fd, EPOLLIN, handle_io, watch);
}

static bool exists(const char *path, bool *symlink)
{
    struct stat status;
    *symlink = false;
    if (lstat(path, &status) < 0)
        return false;
    *symlink = S_ISLNK(status.st_mode);
    return true;
}

// Watches one directory. What is in it matters where the way may change: in the file's own directory,
// and while the file is missing everywhere, as a directory that was removed is not always told as such
// (its file may still be in use); and where the way goes on by a symbolic link.
static int arm_step(struct watch *watch, size_t index)
{
    struct step *step = &watch->steps[index];
    CLEANUP(cleanup_free) char *child = string_printf("%s/%s", step->path[1] ? step->path : "", step->name);
    bool symlink;
    bool there = exists(child, &symlink);
    uint32_t mask = SELF;
    if (index + 1 == watch->count || !there || !watch->there || symlink)
        mask |= ENTRIES;
    step->descriptor = inotify_add_watch(watch->fd, step->path, mask);
    if (step->descriptor < 0)
        return -errno;
    // It may have come or gone between the look and the watch.
    return exists(child, &symlink) == there ? 0 : -EAGAIN;
}

static int arm_once(struct watch *watch)
{
    bool symlink;
    int r = begin(watch);
    if (r < 0)
        return r;
    watch->there = exists(watch->path, &symlink);
    for (size_t i = 0; i < watch->count; i++) {
        r = arm_step(watch, i);
        if (r == -ENOENT || r == -ENOTDIR || r == -EACCES || r == -ELOOP) {
            // The directory above is watched for it.
            bool missing = r != -EACCES && exists(watch->steps[i].path, &symlink) && !symlink;
            return missing ? -EAGAIN : 0;
        }
        if (r < 0)
            return r;
    }
    return exists(watch->path, &symlink) == watch->there ? 0 : -EAGAIN;
}

static int arm(struct watch *watch)
{
    int r = -EAGAIN;
    for (int i = 0; i < ARM_TRIES && r == -EAGAIN; i++)
        r = arm_once(watch);
    return r;
}

static int arm_or_wait(struct watch *watch)
{
    watch->again = sd_event_source_disable_unref(watch->again);
    int r = arm(watch);
    if (r == -EAGAIN)
        return 0;
    if (r < 0)
        (void)sd_event_add_time_relative(watch->loop, &watch->again, CLOCK_MONOTONIC, AGAIN_US, AGAIN_US / 8,
                                         handle_again, watch);
    return r;
}

static void add_step(struct watch *watch, const char *path, size_t length, const char *name, size_t name_length)
{
    struct step *step = &watch->steps[watch->count++];
    step->descriptor = -1;
    step->path = length == 0 ? string_copy("/") : string_printf("%.*s", (int)length, path);
    step->name = string_printf("%.*s", (int)name_length, name);
}

static int split(struct watch *watch)
{
    const char *path = watch->path;
    size_t length = 0;
    if (path[0] != '/')
        return -EINVAL;
    while (path[length]) {
        size_t start = length + strspn(path + length, "/");
        size_t name = strcspn(path + start, "/");
        if (name == 0)
            break;
        if (watch->count == STEPS_MAX)
            return -ENAMETOOLONG;
        add_step(watch, path, length, path + start, name);
        length = start + name;
    }
    return watch->count > 0 ? 0 : -EINVAL;
}

int watch_new(struct watch **watch, sd_event *loop, const char *path, watch_look look, void *user)
{
    CLEANUP(cleanup_watch) struct watch *new = memory_new(1, sizeof *new);
    new->fd = -1;
    new->loop = sd_event_ref(loop);
    new->path = string_copy(path);
    new->look = look;
    new->user = user;
    int r = split(new);
    if (r < 0)
        return r;
    r = arm_or_wait(new);
    *watch = steal_pointer(&new);
    return r;
}

void watch_free(struct watch *watch)
{
    if (!watch)
        return;
    disarm(watch);
    sd_event_source_disable_unref(watch->again);
    for (size_t i = 0; i < watch->count; i++) {
        free(watch->steps[i].path);
        free(watch->steps[i].name);
    }
    free(watch->path);
    sd_event_unref(watch->loop);
    free(watch);
}
