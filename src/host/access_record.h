// What access was given, in one small file for each device: DIRECTORY/KEY.json.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "util/cleanup.h"

// Rights as in a file's mode; NONE: no entry at all, which is not the same as an entry without rights.
enum { ACCESS_EXECUTE = 1, ACCESS_WRITE = 2, ACCESS_READ = 4, ACCESS_ALL = 7, ACCESS_NONE = 8 };

struct access_record {
    char *node; // its path
    dev_t number;
    uint64_t inode; // tells the node from a later one of that name
    uid_t user;
    unsigned before; // the user's rights before, or ACCESS_NONE
};

void access_record_clear(struct access_record *record);

// 1: there is one; 0: none. Negative errno and WHY (free with free()): it cannot be read, or -EINVAL: it is damaged.
int access_record_read(const char *directory, const char *holder, struct access_record *record, char **why) CHECKED;
int access_record_write(const char *directory, const char *holder, const struct access_record *record) CHECKED;
int access_record_remove(const char *directory, const char *holder); // negative errno; 0 also if there is none

// Whether what the record speaks of is the node of STATUS.
bool access_record_is_of(const struct access_record *record, const struct stat *status) CHECKED;

// Calls for each record with its holder; who is called may remove it. Damaged ones are left out. Negative errno: there
// may be more than could be read.
int access_record_each(const char *directory,
                       void (*call)(void *user, const char *holder, const struct access_record *record), void *user);
