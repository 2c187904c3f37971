// Does the host live on a device: does it hold, at whatever remove, a mounted file system or swap?
// From each mount and swap the way goes down: to its block device, to the members of that one
// (LVM, dm-crypt, RAID, bcache), to the disk of a partition, to the file behind a loop. Every block
// device met is noted with the reason; a device is used if one of them is a part of it.
#include "host/usage.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "host/again.h"
#include "host/disk.h"
#include "host/mounts.h"
#include "host/sysfs.h"
#include "util/text.h"

// Far more than any machine stacks; beyond it something runs in circles.
enum { DEPTH_MAX = 32, USED_MAX = 16384 };

const struct usage_paths usage_paths = {"/sys", "/dev", "/proc/self/mountinfo", "/proc/swaps"};

struct used {
    char *path; // of the block device in sysfs
    char *reason;
};

struct usage {
    struct usage_paths paths;
    bool valid;
    int error; // why it could not be told; 0
    int list_error;
    struct mounts mounts;
    struct used *used;
    size_t count;
    bool listed;
    char **disks; // paths of all block devices in sysfs
    size_t disk_count;
};

// What is being followed: the reason for all that is met.
struct trail {
    struct usage *usage;
    const char *what, *how; // "/home", "is mounted from"
    char *reason;           // made from the first block device that is met
};

static void visit_path(struct trail *trail, const char *path, int depth);

static void forget(struct usage *usage)
{
    for (size_t i = 0; i < usage->count; i++) {
        free(usage->used[i].path);
        free(usage->used[i].reason);
    }
    free(usage->used);
    usage->used = NULL;
    usage->count = 0;
    mounts_clear(&usage->mounts);
}

static void forget_disks(struct usage *usage)
{
    for (size_t i = 0; i < usage->disk_count; i++)
        free(usage->disks[i]);
    free(usage->disks);
    usage->disks = NULL;
    usage->disk_count = 0;
}

struct usage *usage_new(const struct usage_paths *paths)
{
    struct usage *usage = memory_new(1, sizeof(*usage));

    *usage = (struct usage){.paths = *paths};
    return usage;
}

void usage_free(struct usage *usage)
{
    if (usage == NULL)
        return;
    forget(usage);
    forget_disks(usage);
    free(usage);
}

void usage_invalidate(struct usage *usage)
{
    usage->valid = usage->listed = false;
    usage->error = usage->list_error = 0;
}

// Notes a block device; false if it was known already.
static bool note(struct trail *trail, const char *path)
{
    struct usage *usage = trail->usage;

    for (size_t i = 0; i < usage->count; i++)
        if (strcmp(usage->used[i].path, path) == 0)
            return false;
    if (usage->count == USED_MAX) {
        usage->error = -E2BIG;
        return false;
    }
    if (trail->reason == NULL) {
        struct text text = {0};
        text_add_safe(&text, trail->what, 200);
        text_printf(&text, " %s ", trail->how);
        text_add_safe(&text, strrchr(path, '/') + 1, 64);
        trail->reason = text_take(&text);
    }
    usage->used = memory_resize(usage->used, usage->count + 1, sizeof(*usage->used));
    usage->used[usage->count++] = (struct used){string_copy(path), string_copy(trail->reason)};
    return true;
}

// A string attribute of the block device at PATH; NULL if it has none.
static char *block_attribute(struct usage *usage, const char *path, const char *name)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(path);
    char *string = NULL;

    again_note(directory < 0 ? directory : sysfs_string(directory, name, &string), &usage->error);
    return string;
}

static void visit_block(struct trail *trail, const char *path, int depth);

static bool visit_named(struct trail *trail, const char *name, int depth)
{
    CLEANUP(cleanup_free) char *path = sysfs_link(trail->usage->paths.sys, "class/block", name);

    if (path != NULL)
        visit_block(trail, path, depth);
    return path != NULL;
}

static bool visit_number(struct trail *trail, dev_t number, int depth)
{
    CLEANUP(cleanup_free) char *name = string_printf("%u:%u", major(number), minor(number));
    CLEANUP(cleanup_free) char *path = sysfs_link(trail->usage->paths.sys, "dev/block", name);

    if (path != NULL)
        visit_block(trail, path, depth);
    return path != NULL;
}

// All block devices that DIRECTORY names.
static void visit_listed(struct trail *trail, const char *directory, int depth)
{
    CLEANUP(cleanup_directory) DIR *listing = sysfs_list(directory, &trail->usage->error);
    const struct dirent *entry;

    while (listing != NULL && (entry = readdir(listing)) != NULL)
        if (entry->d_name[0] != '.')
            (void)visit_named(trail, entry->d_name, depth);
}

static void visit_block(struct trail *trail, const char *path, int depth)
{
    CLEANUP(cleanup_free) char *slaves = string_printf("%s/slaves", path);
    CLEANUP(cleanup_free) char *partition = NULL;
    CLEANUP(cleanup_free) char *loop = NULL;
    CLEANUP(cleanup_free) char *backing = NULL;

    if (depth > DEPTH_MAX || !note(trail, path))
        return;
    visit_listed(trail, slaves, depth + 1);
    partition = block_attribute(trail->usage, path, "partition");
    if (partition != NULL) {
        CLEANUP(cleanup_free) char *disk = string_copy(path);
        *strrchr(disk, '/') = '\0';
        visit_block(trail, disk, depth + 1);
    }
    loop = block_attribute(trail->usage, path, "loop/backing_file");
    if (loop != NULL)
        visit_path(trail, loop, depth + 1);
    backing = block_attribute(trail->usage, path, "backing_dev"); // of zram: "none" or a path
    if (backing != NULL && backing[0] == '/')
        visit_path(trail, backing, depth + 1);
}

// A name of device-mapper where /dev/mapper has no node or link that could be followed.
static bool visit_mapper(struct trail *trail, const char *name, int depth)
{
    CLEANUP(cleanup_free) char *class = string_printf("%s/class/block", trail->usage->paths.sys);
    CLEANUP(cleanup_directory) DIR *listing = sysfs_list(class, &trail->usage->error);
    const struct dirent *entry;

    while (listing != NULL && (entry = readdir(listing)) != NULL) {
        CLEANUP(cleanup_free) char *path = NULL;
        CLEANUP(cleanup_free) char *found = NULL;
        if (strncmp(entry->d_name, "dm-", 3) != 0)
            continue;
        path = string_printf("%s/%s", class, entry->d_name);
        found = block_attribute(trail->usage, path, "dm/name");
        if (string_equal(found, name))
            return visit_named(trail, entry->d_name, depth);
    }
    return false;
}

// A node of /dev; NAME is what follows "/dev/".
static bool visit_node(struct trail *trail, const char *name, int depth)
{
    const char *dev = trail->usage->paths.dev;
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", dev, name);
    char real[PATH_MAX];
    struct stat status;
    char *inside;

    if (stat(path, &status) == 0 && S_ISBLK(status.st_mode))
        return visit_number(trail, status.st_rdev, depth);
    if (strncmp(name, "mapper/", 7) == 0 && visit_mapper(trail, name + 7, depth))
        return true;
    if (realpath(path, real) == NULL || !sysfs_is_below(real, dev))
        (void)snprintf(real, sizeof(real), "%s", path);
    inside = real + strlen(dev) + 1;
    for (char *slash = strchr(inside, '/'); slash != NULL; slash = strchr(slash, '/'))
        *slash = '!'; // as sysfs writes it
    return visit_named(trail, inside, depth);
}

// The file system of MOUNT: one block device, or those that its source names.
static void visit_mount(struct trail *trail, const struct mount *mount, int depth)
{
    CLEANUP(cleanup_free) char *sources = NULL;
    char *rest = NULL;

    if (major(mount->number) != 0 && visit_number(trail, mount->number, depth))
        return;
    if (mount->source == NULL || strncmp(mount->source, "/dev/", 5) != 0)
        return;
    sources = string_copy(mount->source);
    for (char *one = strtok_r(sources, ":", &rest); one != NULL; one = strtok_r(NULL, ":", &rest))
        if (strncmp(one, "/dev/", 5) == 0)
            (void)visit_node(trail, one + 5, depth);
}

// A file or a node, as the kernel names it.
static void visit_path(struct trail *trail, const char *path, int depth)
{
    const struct mount *mount;

    if (depth > DEPTH_MAX)
        return;
    if (strncmp(path, "/dev/", 5) == 0 && visit_node(trail, path + 5, depth))
        return;
    mount = mounts_of_path(&trail->usage->mounts, path);
    if (mount != NULL)
        visit_mount(trail, mount, depth);
}

static void follow_mounts(struct usage *usage)
{
    for (size_t i = 0; i < usage->mounts.count; i++) {
        const struct mount *mount = &usage->mounts.mounts[i];
        struct trail trail = {usage, mount->target, "is mounted from", NULL};
        visit_mount(&trail, mount, 0);
        free(trail.reason);
    }
}

static void follow_swaps(struct usage *usage)
{
    for (size_t i = 0; i < usage->mounts.swap_count; i++) {
        const struct swap *swap = &usage->mounts.swaps[i];
        struct trail trail = {usage, swap->file ? swap->path : "swap", swap->file ? "is a swap file on" : "is on",
                              NULL};
        visit_path(&trail, swap->path, 0);
        free(trail.reason);
    }
}

// A btrfs of several devices names one of them as its source; but it has a directory here exactly
// as long as it is mounted.
static void follow_btrfs(struct usage *usage)
{
    CLEANUP(cleanup_free) char *all = string_printf("%s/fs/btrfs", usage->paths.sys);
    CLEANUP(cleanup_directory) DIR *listing = sysfs_list(all, &usage->error);
    const struct dirent *entry;

    while (listing != NULL && (entry = readdir(listing)) != NULL) {
        CLEANUP(cleanup_free) char *devices = string_printf("%s/%s/devices", all, entry->d_name);
        struct trail trail = {usage, "a btrfs", "is mounted with a part on", NULL};
        if (entry->d_name[0] != '.')
            visit_listed(&trail, devices, 0);
        free(trail.reason);
    }
}

static void look(struct usage *usage)
{
    forget(usage);
    usage->valid = true;
    usage->error = mounts_read(usage->paths.mountinfo, usage->paths.swaps, &usage->mounts);
    if (usage->error < 0)
        return;
    follow_mounts(usage);
    follow_swaps(usage);
    follow_btrfs(usage);
}

static void list_disks(struct usage *usage)
{
    CLEANUP(cleanup_free) char *class = string_printf("%s/class/block", usage->paths.sys);
    CLEANUP(cleanup_directory) DIR *listing = sysfs_list(class, &usage->list_error);
    const struct dirent *entry;

    forget_disks(usage);
    usage->listed = true;
    while (listing != NULL && (entry = readdir(listing)) != NULL) {
        char *path = sysfs_link(usage->paths.sys, "class/block", entry->d_name);
        if (path == NULL)
            continue;
        usage->disks = memory_resize(usage->disks, usage->disk_count + 1, sizeof(*usage->disks));
        usage->disks[usage->disk_count++] = path;
    }
}

// Most devices have no disk, and the question ends here.
static bool has_disk(struct usage *usage, const char *syspath)
{
    if (!usage->listed)
        list_disks(usage);
    for (size_t i = 0; i < usage->disk_count; i++)
        if (disk_is_on(usage->disks[i], syspath, &usage->list_error))
            return true;
    return false;
}

// Of a PCI function; they go with the driver that made them, whoever has them. By their links: sriov_numvfs waits for a
// driver that is being bound.
static char *functions_of(const char *syspath)
{
    unsigned count = 0;

    for (bool there = true; there; count += there) {
        CLEANUP(cleanup_free) char *link = string_printf("%s/virtfn%u", syspath, count);
        there = access(link, F_OK) == 0;
    }
    return count > 0 ? string_printf("%u virtual function%s of it %s in use (sriov_numvfs)", count,
                                     count == 1 ? "" : "s", count == 1 ? "is" : "are")
                     : NULL;
}

int usage_error(const struct usage *usage)
{
    return usage->error < 0 ? usage->error : usage->list_error;
}

char *usage_of(struct usage *usage, const char *syspath)
{
    char *functions = functions_of(syspath);

    if (functions != NULL)
        return functions;
    if (again_helps(-usage_error(usage)))
        usage_invalidate(usage);
    if (!has_disk(usage, syspath))
        return usage->list_error == 0 ? NULL
                                      : string_printf("it may have a disk, and which there are cannot be told: %s",
                                                      strerror(-usage->list_error));
    if (!usage->valid)
        look(usage);
    for (size_t i = 0; i < usage->count; i++)
        if (disk_is_on(usage->used[i].path, syspath, &usage->error))
            return string_copy(usage->used[i].reason);
    if (usage->error < 0)
        return string_printf("it has a disk, and what is mounted cannot be told: %s", strerror(-usage->error));
    return NULL;
}
