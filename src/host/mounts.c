// What is mounted on the host and what swaps: the two lists of the kernel, read as they are now.
#include "host/mounts.h"

#include <errno.h>
#include <libmount/libmount.h>
#include <stdio.h>
#include <string.h>

#include "util/text.h"

static void cleanup_table(struct libmnt_table **table)
{
    mnt_unref_table(*table);
}

static void cleanup_iterator(struct libmnt_iter **iterator)
{
    mnt_free_iter(*iterator);
}

static void add_mount(struct mounts *mounts, struct libmnt_fs *fs)
{
    const char *target = mnt_fs_get_target(fs);

    if (target == NULL)
        return;
    mounts->mounts = memory_resize(mounts->mounts, mounts->count + 1, sizeof(*mounts->mounts));
    mounts->mounts[mounts->count++] = (struct mount){
        .target = string_copy(target),
        .source = string_copy(mnt_fs_get_source(fs)),
        .number = mnt_fs_get_devno(fs),
    };
}

static int read_mounts(const char *path, struct mounts *mounts)
{
    CLEANUP(cleanup_table) struct libmnt_table *table = mnt_new_table();
    CLEANUP(cleanup_iterator) struct libmnt_iter *iterator = mnt_new_iter(MNT_ITER_FORWARD);
    struct libmnt_fs *fs = NULL;
    int error;

    if (table == NULL || iterator == NULL)
        return -ENOMEM;
    error = mnt_table_parse_file(table, path);
    if (error != 0)
        return error < 0 ? error : -EIO;
    while (mnt_table_next_fs(table, iterator, &fs) == 0)
        add_mount(mounts, fs);
    return 0;
}

// The kernel writes blanks and backslashes of names as \ooo.
static void unescape(char *string)
{
    char *to = string;

    for (const char *from = string; *from != '\0'; to++) {
        if (from[0] == '\\' && strspn(from + 1, "01234567") >= 3) {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

static void add_swap(struct mounts *mounts, char *line)
{
    char *rest = NULL;
    char *path = strtok_r(line, " \t\n", &rest);
    char *kind = strtok_r(NULL, " \t\n", &rest);

    if (path == NULL || kind == NULL || path[0] != '/')
        return; // the heading
    unescape(path);
    mounts->swaps = memory_resize(mounts->swaps, mounts->swap_count + 1, sizeof(*mounts->swaps));
    mounts->swaps[mounts->swap_count++] = (struct swap){string_copy(path), strcmp(kind, "file") == 0};
}

static int read_swaps(const char *path, struct mounts *mounts)
{
    CLEANUP(cleanup_file) FILE *file = fopen(path, "re");
    CLEANUP(cleanup_free) char *line = NULL;
    size_t room = 0;

    if (file == NULL)
        return errno == ENOENT ? 0 : -errno;
    while (getline(&line, &room, file) >= 0)
        add_swap(mounts, line);
    return ferror(file) ? -EIO : 0;
}

int mounts_read(const char *mountinfo, const char *swaps, struct mounts *mounts)
{
    int error;

    *mounts = (struct mounts){0};
    error = read_mounts(mountinfo, mounts);
    if (error >= 0)
        error = read_swaps(swaps, mounts);
    if (error < 0)
        mounts_clear(mounts);
    return error;
}

void mounts_clear(struct mounts *mounts)
{
    for (size_t i = 0; i < mounts->count; i++) {
        free(mounts->mounts[i].target);
        free(mounts->mounts[i].source);
    }
    for (size_t i = 0; i < mounts->swap_count; i++)
        free(mounts->swaps[i].path);
    free(mounts->mounts);
    free(mounts->swaps);
    *mounts = (struct mounts){0};
}

static bool holds(const char *target, const char *path)
{
    size_t length = strlen(target);

    if (strcmp(target, "/") == 0)
        return true;
    return strncmp(path, target, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

const struct mount *mounts_of_path(const struct mounts *mounts, const char *path)
{
    const struct mount *best = NULL;

    // Of mounts on the same directory the last one is on top.
    for (size_t i = 0; i < mounts->count; i++) {
        const struct mount *mount = &mounts->mounts[i];
        if (holds(mount->target, path) && (best == NULL || strlen(mount->target) >= strlen(best->target)))
            best = mount;
    }
    return best;
}
