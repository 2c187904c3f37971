// Notices when a path's file may have come or gone, without a timer: inotify on its directory, and on
// the directories above it, which may be missing, removed, made again or moved at any time.
#include "vmm/watch.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
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

// What is watched of a directory: that it stays what and where it is, and where the way may change, what is in it. In
// an instance each, as the kernel has one watch of a directory for all ways that go by it: so its events are always the
// same, and what happens beside the way in /tmp wakes nobody who has no need to look there.
enum kind { SELF, ENTRIES, KINDS };
static const uint32_t events_of[KINDS] = {
    [SELF] = IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR,
    [ENTRIES] = IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_ATTRIB | IN_ONLYDIR,
};

// One directory on the way, and the name in it that the way goes on with; both are parts of the path.
struct step {
    int descriptors[KINDS]; // of the kernel's watches, which others may share; -1: not watched
    size_t end;             // of the directory's path; 0: the root
    size_t name, name_length;
};

struct watch {
    struct watcher *watcher;
    struct watch *next;
    char *path;
    watch_look look;
    void *user;
    bool behind;  // its way may have changed
    bool lacking; // the kernel had no room for it
    bool there;   // the file was there when the watch was armed
    size_t count;
    struct step steps[];
};

struct watcher {
    sd_event *loop;
    int fds[KINDS]; // the inotify instances; -1: none yet
    sd_event_source *sources[KINDS], *again;
    struct watch *watches;
};

static bool is_at(const struct watch *watch, const struct step *step, const char *name)
{
    return strncmp(name, watch->path + step->name, step->name_length) == 0 && name[step->name_length] == '\0';
}

// Whether an event is about the way; names beside it are not.
static bool concerns(const struct watch *watch, enum kind kind, const struct inotify_event *event)
{
    if (event->mask & IN_Q_OVERFLOW)
        return true;
    for (size_t i = 0; i < watch->count; i++)
        if (watch->steps[i].descriptors[kind] == event->wd &&
            (event->len == 0 || is_at(watch, &watch->steps[i], event->name)))
            return true;
    return false;
}

static bool is_used(const struct watcher *watcher, enum kind kind, int descriptor)
{
    for (const struct watch *watch = watcher->watches; watch; watch = watch->next)
        for (size_t i = 0; i < watch->count; i++)
            if (watch->steps[i].descriptors[kind] == descriptor)
                return true;
    return false;
}

// Ends the kernel's watches of a directory that no way goes by any longer. What is still queued of them concerns
// nobody, as the kernel does not give their numbers to others for a long time.
static void release(struct watcher *watcher, const int descriptors[KINDS])
{
    for (enum kind kind = 0; kind < KINDS; kind++)
        if (descriptors[kind] >= 0 && !is_used(watcher, kind, descriptors[kind]))
            (void)inotify_rm_watch(watcher->fds[kind], descriptors[kind]); // fails if its directory has gone
}

static int handle_io(sd_event_source *source, int fd, uint32_t revents, void *user);

// The instance, once there is room for it.
static int open_instance(struct watcher *watcher, enum kind kind)
{
    if (watcher->fds[kind] >= 0)
        return 0;
    CLEANUP(cleanup_close) int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0)
        return -errno;
    int r = sd_event_add_io(watcher->loop, &watcher->sources[kind], fd, EPOLLIN, handle_io, watcher);
    if (r < 0)
        return r;
    watcher->fds[kind] = steal_fd(&fd);
    return 0;
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

static int add(struct watch *watch, struct step *step, enum kind kind, const char *directory)
{
    int r = open_instance(watch->watcher, kind);
    if (r < 0)
        return r;
    step->descriptors[kind] = inotify_add_watch(watch->watcher->fds[kind], directory, events_of[kind]);
    return step->descriptors[kind] < 0 ? -errno : 0;
}

// Watches one directory. What is in it matters where the way may change: in the file's own directory, and while the
// file is missing everywhere, as a directory that was removed is not always told as such (its file may still be in
// use); and where the way goes on by a symbolic link.
static int arm_step(struct watch *watch, struct step *step)
{
    CLEANUP(cleanup_free)
    char *directory = step->end == 0 ? string_copy("/") : string_printf("%.*s", (int)step->end, watch->path);
    CLEANUP(cleanup_free) char *child = string_printf("%.*s", (int)(step->name + step->name_length), watch->path);
    bool symlink, last = step + 1 == watch->steps + watch->count;
    bool there = exists(child, &symlink);
    int r = add(watch, step, SELF, directory);
    if (r >= 0 && (last || !there || !watch->there || symlink))
        r = add(watch, step, ENTRIES, directory);
    if (r < 0)
        return r;
    // It may have come or gone between the look and the watch.
    return exists(child, &symlink) == there ? 0 : -EAGAIN;
}

// Whether the directory of a step that could not be watched is there all the same, as far as one may see.
static bool has_come(const struct watch *watch, const struct step *step, int error)
{
    CLEANUP(cleanup_free) char *directory = string_printf("%.*s", (int)step->end, watch->path);
    bool symlink;
    return error != -EACCES && exists(directory, &symlink) && !symlink;
}

// Watches the way from its beginning, as far as it goes. -EAGAIN: it has changed meanwhile.
static int arm_steps(struct watch *watch)
{
    bool symlink;
    watch->there = exists(watch->path, &symlink);
    for (size_t i = 0; i < watch->count; i++) {
        int r = arm_step(watch, &watch->steps[i]);
        if (r == -ENOENT || r == -ENOTDIR || r == -EACCES || r == -ELOOP) // the directory above tells when it comes
            return has_come(watch, &watch->steps[i], r) ? -EAGAIN : 0;
        if (r < 0)
            return r;
    }
    return exists(watch->path, &symlink) == watch->there ? 0 : -EAGAIN;
}

// Watches the way as it is now, and no longer as it was.
static int arm_once(struct watch *watch)
{
    struct step before[STEPS_MAX];
    memcpy(before, watch->steps, watch->count * sizeof(before[0]));
    for (size_t i = 0; i < watch->count; i++)
        for (enum kind kind = 0; kind < KINDS; kind++)
            watch->steps[i].descriptors[kind] = -1;
    int r = arm_steps(watch);
    for (size_t i = 0; i < watch->count; i++)
        release(watch->watcher, before[i].descriptors);
    return r;
}

static int handle_again(sd_event_source *source, uint64_t now, void *user);

static void plan_again(struct watcher *watcher)
{
    if (!watcher->again)
        (void)sd_event_add_time_relative(watcher->loop, &watcher->again, CLOCK_MONOTONIC, AGAIN_US, AGAIN_US / 8,
                                         handle_again, watcher);
}

static int arm(struct watch *watch)
{
    int r = -EAGAIN;
    for (int i = 0; i < ARM_TRIES && r == -EAGAIN; i++)
        r = arm_once(watch);
    r = r == -EAGAIN ? 0 : r;
    watch->behind = false;
    watch->lacking = r < 0;
    if (watch->lacking)
        plan_again(watch->watcher);
    return r;
}

// Does all that is behind. A look may free any watch.
static void catch_up(struct watcher *watcher)
{
    struct watch *watch = watcher->watches;
    while (watch) {
        if (!watch->behind) {
            watch = watch->next;
            continue;
        }
        (void)arm(watch);
        watch->look(watch->user);
        watch = watcher->watches;
    }
}

static int handle_io(sd_event_source *source, int fd, uint32_t revents, void *user)
{
    struct watcher *watcher = user;
    _Alignas(struct inotify_event) char buffer[16 * 1024];
    enum kind kind = fd == watcher->fds[SELF] ? SELF : ENTRIES;
    (void)source;
    (void)revents;
    ssize_t length = read(fd, buffer, sizeof buffer);
    for (ssize_t place = 0; place < length;) {
        const struct inotify_event *event = (const struct inotify_event *)(const void *)(buffer + place);
        for (struct watch *watch = watcher->watches; watch; watch = watch->next)
            watch->behind = watch->behind || concerns(watch, kind, event);
        place += (ssize_t)(sizeof *event + event->len);
    }
    catch_up(watcher);
    return 0;
}

static int handle_again(sd_event_source *source, uint64_t now, void *user)
{
    struct watcher *watcher = user;
    (void)source;
    (void)now;
    watcher->again = sd_event_source_disable_unref(watcher->again);
    for (struct watch *watch = watcher->watches; watch; watch = watch->next)
        watch->behind = watch->behind || watch->lacking;
    catch_up(watcher);
    return 0;
}

// Writes the steps of PATH to STEPS, at most STEPS_MAX; how many, or a negative errno.
static int split(const char *path, struct step *steps)
{
    size_t end = 0;
    int count = 0;
    if (path[0] != '/')
        return -EINVAL;
    while (path[end]) {
        size_t name = end + strspn(path + end, "/");
        size_t length = strcspn(path + name, "/");
        if (length == 0)
            break;
        if (count == STEPS_MAX)
            return -ENAMETOOLONG;
        steps[count++] = (struct step){{-1, -1}, end, name, length};
        end = name + length;
    }
    return count > 0 ? count : -EINVAL;
}

int watch_new(struct watch **watch, struct watcher *watcher, const char *path, watch_look look, void *user)
{
    struct step steps[STEPS_MAX];
    int count = split(path, steps);
    *watch = NULL;
    if (count < 0)
        return count;
    size_t size = (size_t)count * sizeof *steps;
    struct watch *new = memory_new(1, sizeof *new + size);
    *new = (struct watch){.watcher = watcher, .path = string_copy(path), .look = look, .user = user};
    new->count = (size_t)count;
    memcpy(new->steps, steps, size);
    struct watch **last = &watcher->watches;
    while (*last)
        last = &(*last)->next;
    *last = *watch = new;
    return arm(new);
}

void watch_free(struct watch *watch)
{
    if (!watch)
        return;
    struct watch **place = &watch->watcher->watches;
    while (*place != watch)
        place = &(*place)->next;
    *place = watch->next;
    for (size_t i = 0; i < watch->count; i++)
        release(watch->watcher, watch->steps[i].descriptors);
    free(watch->path);
    free(watch);
}

struct watcher *watcher_new(sd_event *loop)
{
    struct watcher *watcher = memory_new(1, sizeof *watcher);
    *watcher = (struct watcher){.loop = sd_event_ref(loop), .fds = {-1, -1}};
    return watcher;
}

void watcher_free(struct watcher *watcher)
{
    if (!watcher)
        return;
    for (enum kind kind = 0; kind < KINDS; kind++) {
        sd_event_source_disable_unref(watcher->sources[kind]);
        cleanup_close(&watcher->fds[kind]);
    }
    sd_event_source_disable_unref(watcher->again);
    sd_event_unref(watcher->loop);
    free(watcher);
}
