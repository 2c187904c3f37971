// The memory of an earlier run, in a file: read with a limit, replaced as a whole.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/host.h"
#include "host/sysfs.h"
#include "util/text.h"

enum { RECORD_LENGTH_MAX = 1024 * 1024 };

// Sets a damaged file aside, where somebody can look at it, and starts with an empty memory.
static void set_aside(struct log *log, const char *path, const char *why)
{
    CLEANUP(cleanup_free) char *aside = string_printf("%s.damaged", path);

    if (rename(path, aside) < 0)
        log_warning(log, "%s: %s; it is ignored, and cannot be renamed: %s", path, why, strerror(errno));
    else
        log_warning(log, "%s: %s; it is kept as %s, and what VMs hold is learnt from them", path, why, aside);
}

void host_load_memory(struct log *log, const char *path, struct memory *memory)
{
    CLEANUP(cleanup_free) char *bytes = NULL;
    CLEANUP(cleanup_free) char *error_text = NULL;
    size_t length = 0;
    int error = sysfs_read(AT_FDCWD, path, RECORD_LENGTH_MAX + 1, &bytes, &length);

    *memory = (struct memory){0};
    if (error == -ENOENT)
        return;
    if (error < 0) {
        log_warning(log, "%s: cannot be read: %s; what an earlier run knew is lost", path, strerror(-error));
        return;
    }
    if (length > RECORD_LENGTH_MAX) {
        set_aside(log, path, "too long to be ours");
        return;
    }
    error_text = memory_parse(bytes, length, memory);
    if (error_text != NULL)
        set_aside(log, path, error_text);
}

// Makes the directory that PATH is in, and those above it.
static int make_directories(const char *path)
{
    CLEANUP(cleanup_free) char *part = string_copy(path);

    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    return 0;
}

static int write_full(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        text += written;
        length -= (size_t)written;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int write_new(const char *path, const char *text)
{
    CLEANUP(cleanup_close) int fd = -1;

    // What a killed run has left there is no longer of use.
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    return write_full(fd, text, strlen(text));
}

int host_save_memory(const char *path, const struct memory *memory)
{
    CLEANUP(cleanup_free) char *text = memory_print(memory);
    CLEANUP(cleanup_free) char *new = string_printf("%s.new", path);
    int error = make_directories(path);

    if (error >= 0)
        error = write_new(new, text);
    if (error >= 0 && rename(new, path) < 0)
        error = -errno;
    if (error < 0)
        (void)unlink(new);
    return error;
}
