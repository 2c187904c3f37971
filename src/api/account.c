// Users and groups.
#include "api/account.h"

#include <grp.h>
#include <pwd.h>
#include <stdint.h>

#include "util/text.h"

bool account_user(const char *name, uid_t *uid)
{
    unsigned long number;
    if (string_to_number(name, 10, UINT32_MAX - 1, &number)) {
        *uid = (uid_t)number;
        return true;
    }
    const struct passwd *user = getpwnam(name);
    if (user)
        *uid = user->pw_uid;
    return user != NULL;
}

bool account_group(const char *name, gid_t *gid)
{
    unsigned long number;
    if (string_to_number(name, 10, UINT32_MAX - 1, &number)) {
        *gid = (gid_t)number;
        return true;
    }
    const struct group *group = getgrnam(name);
    if (group)
        *gid = group->gr_gid;
    return group != NULL;
}
