// What access was given, in one small file for each device: DIRECTORY/KEY.json.
#include "host/access_record.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "host/again.h"
#include "host/store.h"
#include "util/json.h"
#include "util/text.h"

enum { RECORD_LENGTH_MAX = 8192, HOLDER_LENGTH_MAX = 200 };

#define SUFFIX ".json"

void access_record_clear(struct access_record *record)
{
    free(record->node);
    *record = (struct access_record){0};
}

// NULL for a key that cannot be a file's name; none of the kernel's can.
static char *path_of(const char *directory, const char *holder)
{
    if (holder[0] == '\0' || holder[0] == '.' || strchr(holder, '/') != NULL || strlen(holder) > HOLDER_LENGTH_MAX)
        return NULL;
    return string_printf("%s/%s" SUFFIX, directory, holder);
}

static bool member_number(struct json_object *object, const char *name, uint64_t limit, uint64_t *number)
{
    return json_member_uint64(object, name, number) && *number <= limit;
}

static bool parse(struct json_object *object, struct access_record *record)
{
    const char *node = json_member_string(object, "node");
    uint64_t major_number, minor_number, user, before;

    if (node == NULL || node[0] != '/' || !member_number(object, "major", UINT32_MAX, &major_number) ||
        !member_number(object, "minor", UINT32_MAX, &minor_number) ||
        !member_number(object, "inode", UINT64_MAX, &record->inode) ||
        !member_number(object, "user", UINT32_MAX, &user) || !member_number(object, "before", ACCESS_NONE, &before))
        return false;
    record->node = string_copy(node);
    record->number = makedev((unsigned)major_number, (unsigned)minor_number);
    record->user = (uid_t)user;
    record->before = (unsigned)before;
    return true;
}

int access_record_read(const char *directory, const char *holder, struct access_record *record, char **why)
{
    static const struct json_limits limits = {RECORD_LENGTH_MAX, 2};
    CLEANUP(cleanup_free) char *path = path_of(directory, holder);
    CLEANUP(cleanup_free) char *text = NULL, *error = NULL;
    CLEANUP(cleanup_json) struct json_object *object = NULL;
    size_t length = 0;
    int failed;

    *record = (struct access_record){0};
    if (path == NULL)
        return 0;
    errno = 0;
    error = store_read(path, RECORD_LENGTH_MAX, &text, &length);
    failed = error != NULL && again_helps(errno) ? errno : 0;
    if (error == NULL && text == NULL)
        return 0;
    if (error == NULL)
        object = json_parse(text, length, &limits, &error);
    if (object != NULL && parse(object, record))
        return 1;
    *why = string_printf("%s: %s", path, error != NULL ? error : "is not a record of ours");
    return failed != 0 ? -failed : -EINVAL;
}

int access_record_write(const char *directory, const char *holder, const struct access_record *record)
{
    CLEANUP(cleanup_free) char *path = path_of(directory, holder);
    CLEANUP(cleanup_json) struct json_object *object = json_object_new_object();
    CLEANUP(cleanup_free) char *text = NULL;

    if (path == NULL)
        return -EINVAL;
    json_object_object_add(object, "node", json_object_new_string(record->node));
    json_object_object_add(object, "major", json_object_new_uint64(major(record->number)));
    json_object_object_add(object, "minor", json_object_new_uint64(minor(record->number)));
    json_object_object_add(object, "inode", json_object_new_uint64(record->inode));
    json_object_object_add(object, "user", json_object_new_uint64(record->user));
    json_object_object_add(object, "before", json_object_new_uint64(record->before));
    text = json_print(object);
    return store_replace(path, text);
}

int access_record_remove(const char *directory, const char *holder)
{
    CLEANUP(cleanup_free) char *path = path_of(directory, holder);

    return path != NULL && unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

bool access_record_is_of(const struct access_record *record, const struct stat *status)
{
    return record->inode == status->st_ino && record->number == status->st_rdev;
}

// The key in the name of a record's file, for free(); NULL: it is another file, half of a record perhaps.
static char *holder_of(const char *name)
{
    size_t length = strlen(name), suffix = strlen(SUFFIX);

    if (name[0] == '.' || length <= suffix || strcmp(name + length - suffix, SUFFIX) != 0)
        return NULL;
    return string_printf("%.*s", (int)(length - suffix), name);
}

int access_record_each(const char *directory,
                       void (*call)(void *user, const char *holder, const struct access_record *record), void *user)
{
    CLEANUP(cleanup_directory) DIR *listing = opendir(directory);
    const struct dirent *entry;
    int worst = 0;

    if (listing == NULL)
        return errno == ENOENT ? 0 : -errno;
    for (errno = 0; (entry = readdir(listing)) != NULL; errno = 0) {
        CLEANUP(cleanup_free) char *holder = holder_of(entry->d_name), *why = NULL;
        CLEANUP(access_record_clear) struct access_record record = {0};
        int found = holder != NULL ? access_record_read(directory, holder, &record, &why) : 0;
        if (found > 0)
            call(user, holder, &record);
        else if (found < 0 && found != -EINVAL)
            worst = found;
    }
    return errno != 0 ? -errno : worst;
}
