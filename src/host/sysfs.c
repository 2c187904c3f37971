// Bounded reads of named sysfs attributes, relative to a directory that stays the same one.
#include "host/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "host/again.h"
#include "util/text.h"

int sysfs_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return fd;
}

DIR *sysfs_list(const char *path, int *error)
{
    DIR *listing = opendir(path);

    if (listing == NULL)
        again_note(-errno, error);
    return listing;
}

// Reads until the end or until ROOM is full; negative errno.
static ssize_t read_full(int fd, char *bytes, size_t room)
{
    size_t length = 0;

    while (length < room) {
        ssize_t got = read(fd, bytes + length, room - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        length += (size_t)got;
    }
    return (ssize_t)length;
}

int sysfs_read(int directory, const char *name, size_t limit, char **bytes, size_t *length)
{
    CLEANUP(cleanup_close) int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    CLEANUP(cleanup_free) char *buffer = NULL;
    ssize_t got;

    if (fd < 0)
        return -errno;
    buffer = memory_new(limit + 1, 1);
    got = read_full(fd, buffer, limit);
    if (got < 0)
        return (int)got;
    buffer[got] = '\0';
    *bytes = steal_pointer(&buffer);
    *length = (size_t)got;
    return 0;
}

int sysfs_string(int directory, const char *name, char **string)
{
    CLEANUP(cleanup_free) char *bytes = NULL;
    size_t length = 0;
    int error = sysfs_read(directory, name, SYSFS_STRING_MAX, &bytes, &length);

    *string = NULL;
    if (error == -ENOENT)
        return 0;
    if (error < 0)
        return error;
    if (length > 0 && bytes[length - 1] == '\n')
        bytes[length - 1] = '\0';
    if (length > 0 && bytes[0] != '\0')
        *string = string_copy(bytes); // as long as it is, not as it could be
    return 0;
}

int sysfs_number(int directory, const char *name, int base, unsigned long limit, unsigned long *number)
{
    CLEANUP(cleanup_free) char *string = NULL;
    int error = sysfs_string(directory, name, &string);
    char *digits = string;

    if (error < 0)
        return error;
    if (string == NULL)
        return -ENOENT;
    digits += strspn(digits, " "); // devnum and others may be padded
    return string_to_number(digits, base, limit, number) ? 0 : -EINVAL;
}

int sysfs_device_number(int directory, const char *name, dev_t *number)
{
    CLEANUP(cleanup_free) char *text = NULL;
    int error = sysfs_string(directory, name, &text);
    unsigned long major_number, minor_number;
    char *colon;

    if (error < 0)
        return error;
    colon = text != NULL ? strchr(text, ':') : NULL;
    if (colon == NULL)
        return -ENOENT;
    *colon = '\0';
    if (!string_to_number(text, 10, UINT32_MAX, &major_number) ||
        !string_to_number(colon + 1, 10, UINT32_MAX, &minor_number))
        return -EINVAL;
    *number = makedev((unsigned)major_number, (unsigned)minor_number);
    return 0;
}

int sysfs_write_in(int directory, const char *name, const char *text)
{
    CLEANUP(cleanup_close) int fd = openat(directory, name, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);

    return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int sysfs_write(const char *path, const char *text)
{
    return sysfs_write_in(AT_FDCWD, path, text);
}

// The bits of X well mixed (the finalizer of splitmix64).
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

// A sysfs directory gets a new inode whenever a device appears, and keeps it as long as it is there.
int sysfs_instance(int directory, uint64_t number, uint64_t *instance)
{
    struct stat status;

    if (fstat(directory, &status) < 0)
        return -errno;
    *instance = mix(mix((uint64_t)status.st_ino) ^ number);
    if (*instance == 0)
        *instance = 1;
    return 0;
}

char *sysfs_link(const char *root, const char *directory, const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s/%s", root, directory, name);
    char target[PATH_MAX];
    const char *inside = target;
    ssize_t length = readlink(path, target, sizeof(target) - 1);

    if (length <= 0)
        return NULL;
    target[length] = '\0';
    while (strncmp(inside, "../", 3) == 0)
        inside += 3;
    // Links of sysfs lead up to its root and down again; anything else is not understood.
    if (strncmp(inside, "devices/", 8) != 0 || strstr(inside, "/../") != NULL)
        return NULL;
    return string_printf("%s/%s", root, inside);
}

char *sysfs_link_name(const char *directory, const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", directory, name);
    char target[PATH_MAX];
    ssize_t length = readlink(path, target, sizeof(target) - 1);

    if (length <= 0)
        return NULL;
    target[length] = '\0';
    return string_copy(sysfs_name(target));
}

const char *sysfs_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

bool sysfs_is_below(const char *path, const char *directory)
{
    size_t length = strlen(directory);

    return strncmp(path, directory, length) == 0 && (path[length] == '\0' || path[length] == '/');
}
