// Which programs have a device node open. Reading a link in /proc asks no file system, so nothing here blocks.
#include "vmm/grabber.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#include "util/text.h"

#define NAMES_MAX 3
#define FILES_MAX 4096 // of one process: what has more is not looked at to its end
#define NAME_MAX_LENGTH 64
#define LIMIT_US (1000 * 1000ULL) // of the whole search: the VM counts as silent meanwhile

struct grabber {
    sd_event_source *source;
    DIR *processes;
    char *node;
    void (*found)(void *user, const char *names);
    void *user;
    struct text names;
    unsigned count;
    uint64_t end; // when to be content with what was found
};

static bool is_link_to(int directory, const char *name, const char *node)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(directory, name, target, sizeof target);
    return length == (ssize_t)strlen(node) && memcmp(target, node, (size_t)length) == 0;
}

static bool has_open(const char *process, const char *node)
{
    CLEANUP(cleanup_free) char *path = string_printf("/proc/%s/fd", process);
    DIR *files = opendir(path); // NULL: it has ended, or we may not
    struct dirent *file;
    bool found = false;
    for (int i = 0; files && !found && i < FILES_MAX && (file = readdir(files)); i++)
        found = is_link_to(dirfd(files), file->d_name, node);
    if (files)
        (void)closedir(files);
    return found;
}

static void add_name(struct grabber *grabber, const char *process)
{
    CLEANUP(cleanup_free) char *path = string_printf("/proc/%s/comm", process);
    CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    char name[NAME_MAX_LENGTH];
    ssize_t length = fd < 0 ? -1 : read(fd, name, sizeof name - 1);
    if (length <= 0)
        return;
    name[length] = '\0';
    name[strcspn(name, "\n")] = '\0';
    text_add(&grabber->names, grabber->count++ > 0 ? ", " : "");
    text_add_safe(&grabber->names, name, sizeof name);
    text_printf(&grabber->names, " (process %s)", process);
}

static bool is_late(const struct grabber *grabber)
{
    uint64_t now;
    return sd_event_now(sd_event_source_get_event(grabber->source), CLOCK_MONOTONIC, &now) < 0 || now >= grabber->end;
}

static int on_turn(sd_event_source *source, void *user)
{
    struct grabber *grabber = user;
    bool over = grabber->count == NAMES_MAX || is_late(grabber);
    struct dirent *process = over ? NULL : readdir(grabber->processes);
    unsigned long number;
    (void)source;
    if (!process) {
        CLEANUP(cleanup_free) char *names = grabber->count > 0 ? text_take(&grabber->names) : NULL;
        (void)sd_event_source_set_enabled(grabber->source, SD_EVENT_OFF);
        grabber->found(grabber->user, names);
    } else if (string_to_number(process->d_name, 10, INT_MAX, &number) && has_open(process->d_name, grabber->node)) {
        add_name(grabber, process->d_name);
    }
    return 0;
}

struct grabber *grabber_search(sd_event *loop, const char *node, void (*found)(void *user, const char *names),
                               void *user)
{
    CLEANUP(cleanup_grabber) struct grabber *grabber = memory_new(1, sizeof *grabber);
    *grabber = (struct grabber){.node = string_copy(node), .found = found, .user = user, .processes = opendir("/proc")};
    if (!grabber->processes || sd_event_now(loop, CLOCK_MONOTONIC, &grabber->end) < 0 ||
        sd_event_add_defer(loop, &grabber->source, on_turn, grabber) < 0 ||
        sd_event_source_set_priority(grabber->source, SD_EVENT_PRIORITY_IDLE) < 0 ||
        sd_event_source_set_enabled(grabber->source, SD_EVENT_ON) < 0)
        return NULL;
    grabber->end += LIMIT_US;
    return steal_pointer(&grabber);
}

void grabber_free(struct grabber *grabber)
{
    if (!grabber)
        return;
    sd_event_source_disable_unref(grabber->source);
    if (grabber->processes)
        (void)closedir(grabber->processes);
    text_clear(&grabber->names);
    free(grabber->node);
    free(grabber);
}
