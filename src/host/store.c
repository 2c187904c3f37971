// Files replaced by rename, so that there is a whole one at every instant.
#include "host/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/text.h"

static char *why_not(int error)
{
    char *why = string_printf("cannot be read: %s", strerror(error));

    errno = error;
    return why;
}

// An open regular file; -1 and, if there is anything else, WHY.
static int open_regular(const char *path, char **why)
{
    CLEANUP(cleanup_close) int fd = -1;
    struct stat status;

    // Looked at before it is opened: that alone does something with many devices.
    if (stat(path, &status) < 0) {
        if (errno != ENOENT)
            *why = why_not(errno);
        else if (lstat(path, &status) == 0)
            *why = string_copy("is a link to nothing");
        return -1;
    }
    if (!S_ISREG(status.st_mode)) {
        *why = string_copy("is no file");
        return -1;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &status) < 0) {
        *why = why_not(errno);
        return -1;
    }
    if (!S_ISREG(status.st_mode)) {
        *why = string_copy("is no file");
        return -1;
    }
    return steal_fd(&fd);
}

char *store_read(const char *path, size_t limit, char **text, size_t *length)
{
    char *why = NULL, block[4096];
    CLEANUP(cleanup_close) int fd = open_regular(path, &why);
    CLEANUP(text_clear) struct text bytes = {0};

    *text = NULL;
    *length = 0;
    if (fd < 0)
        return why;
    errno = 0;
    for (;;) {
        ssize_t got = read(fd, block, sizeof(block));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return why_not(errno);
        if (got == 0)
            break;
        text_add_bytes(&bytes, block, (size_t)got);
        if (bytes.length > limit)
            return string_copy("is too long to be ours");
    }
    *length = bytes.length;
    *text = text_take(&bytes);
    return NULL;
}

static int sync_directory(const char *path)
{
    CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    // Some file systems cannot sync a directory, and need not.
    return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

// The directory that PATH is in.
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return string_copy(".");
    return slash == path ? string_copy("/") : string_printf("%.*s", (int)(slash - path), path);
}

static int make_directory(const char *path)
{
    CLEANUP(cleanup_free) char *parent = NULL;

    if (mkdir(path, 0755) < 0)
        return errno == EEXIST ? 0 : -errno;
    parent = parent_of(path);
    return sync_directory(parent);
}

// Makes the directory that PATH is in, and those above it.
static int make_directories(const char *path)
{
    CLEANUP(cleanup_free) char *part = string_copy(path);
    int error = 0;

    for (char *slash = strchr(part + 1, '/'); slash != NULL && error == 0; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        error = make_directory(part);
        *slash = '/';
    }
    return error;
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

int store_replace(const char *path, const char *text)
{
    CLEANUP(cleanup_free) char *new = string_printf("%s.new", path);
    CLEANUP(cleanup_free) char *parent = parent_of(path);
    int error = make_directories(path);

    if (error == 0)
        error = write_new(new, text);
    if (error == 0 && rename(new, path) < 0)
        error = -errno;
    if (error < 0) {
        (void)unlink(new);
        return error;
    }
    return sync_directory(parent);
}

char *store_set_aside(const char *path, unsigned spare)
{
    CLEANUP(cleanup_free) char *aside = string_printf("%s.damaged", path);
    struct stat status;

    for (unsigned i = 1; i <= spare && lstat(aside, &status) == 0; i++) {
        free(aside);
        aside = string_printf("%s.damaged.%u", path, i);
    }
    return rename(path, aside) < 0 ? NULL : steal_pointer(&aside);
}
