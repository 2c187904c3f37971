// Users and groups.
#include "api/account.h"

#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>

#include "util/text.h"

bool account_user(const char *name, uid_t *uid)
{
    unsigned long number;
    if (string_to_number(name, 10, UINT32_MAX - 1, &number)) {
        *uid = (uid_t)number;
        return true;
    }
    CLEANUP(cleanup_file) FILE *file = fopen("/etc/passwd", "re");
    const struct passwd *entry = NULL;
    while (file && (entry = fgetpwent(file)) && !string_equal(entry->pw_name, name))
        continue;
    if (entry)
        *uid = entry->pw_uid;
    return entry != NULL;
}

bool account_group(const char *name, gid_t *gid)
{
    unsigned long number;
    if (string_to_number(name, 10, UINT32_MAX - 1, &number)) {
        *gid = (gid_t)number;
        return true;
    }
    CLEANUP(cleanup_file) FILE *file = fopen("/etc/group", "re");
    const struct group *entry = NULL;
    while (file && (entry = fgetgrent(file)) && !string_equal(entry->gr_name, name))
        continue;
    if (entry)
        *gid = entry->gr_gid;
    return entry != NULL;
}
