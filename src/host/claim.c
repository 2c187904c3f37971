// Has the host's kernel claimed a disk, in whatever way, seen from here or not?
#include "host/claim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>

#include "host/again.h"
#include "host/disk.h"
#include "host/sysfs.h"
#include "util/text.h"

enum { DEPTH_MAX = 16 }; // of volumes upon volumes

// Where there is no room to look, it is not known that a disk is free. For free(); NULL: ERROR is another.
static char *cannot_tell(const char *what, int error)
{
    if (!again_helps(error))
        return NULL;
    return string_printf("whether %s in use by the host cannot be told: %s", what, strerror(error));
}

// A file system and swap hold their block device exclusively, so that nobody else can.
static char *ask(const char *dev, const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", dev, name);
    CLEANUP(cleanup_close) int fd = -1;

    for (char *mark = strchr(path, '!'); mark != NULL; mark = strchr(mark, '!'))
        *mark = '/'; // as sysfs writes it
    fd = open(path, O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        return NULL;
    return errno == EBUSY ? string_printf("%s is in use by the host, though not by a mount seen here", name)
                          : cannot_tell("its disk is", errno);
}

// A device that others are built on is held by them, and what counts is whether these are in use.
static char *ask_upward(const char *sys, const char *dev, const char *name, int depth)
{
    CLEANUP(cleanup_free) char *holders = string_printf("%s/class/block/%s/holders", sys, name);
    CLEANUP(cleanup_directory) DIR *listing = opendir(holders);
    const struct dirent *entry;
    bool held = false;

    while (listing != NULL && depth < DEPTH_MAX && (entry = readdir(listing)) != NULL) {
        char *claim;
        if (entry->d_name[0] == '.')
            continue;
        held = true;
        claim = ask_upward(sys, dev, entry->d_name, depth + 1);
        if (claim != NULL)
            return claim;
    }
    return held ? NULL : ask(dev, name);
}

// A disk with a partition in use cannot be had exclusively either: only its partitions are asked.
static bool has_partitions(const char *sys, const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/class/block/%s", sys, name);
    CLEANUP(cleanup_directory) DIR *listing = opendir(path);
    const struct dirent *entry;
    size_t length = strlen(name);

    while (listing != NULL && (entry = readdir(listing)) != NULL)
        if (strncmp(entry->d_name, name, length) == 0)
            return true;
    return false;
}

char *claim_of(const char *sys, const char *dev, const char *syspath)
{
    CLEANUP(cleanup_free) char *class = string_printf("%s/class/block", sys);
    CLEANUP(cleanup_directory) DIR *listing = opendir(class);
    const struct dirent *entry;
    int error = 0;

    if (listing == NULL)
        return cannot_tell("it is", errno);
    for (errno = 0; (entry = readdir(listing)) != NULL; errno = 0) {
        CLEANUP(cleanup_free) char *path = sysfs_link(sys, "class/block", entry->d_name);
        char *claim;
        if (path == NULL || !disk_is_on(path, syspath, &error) || has_partitions(sys, entry->d_name))
            continue;
        claim = ask_upward(sys, dev, entry->d_name, 0);
        if (claim != NULL)
            return claim;
    }
    return cannot_tell("it is", error < 0 ? -error : errno);
}
