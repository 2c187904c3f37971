// Users and groups by their names or numbers.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "util/cleanup.h"

// False if there is none. Only the host's own lists are read: to ask a name service could take long.
bool account_user(const char *name, uid_t *uid) CHECKED;
bool account_group(const char *name, gid_t *gid) CHECKED;
