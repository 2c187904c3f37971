// Is a block device a part of a device?
#include "host/disk.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "host/sysfs.h"
#include "util/text.h"

// The links of an NVMe subsystem lead to its controllers.
static bool has_controller(const char *subsystem, const char *syspath, int *error)
{
    CLEANUP(cleanup_directory) DIR *listing = sysfs_list(subsystem, error);
    const struct dirent *entry;

    while (listing != NULL && (entry = readdir(listing)) != NULL) {
        CLEANUP(cleanup_free) char *link = string_printf("%s/%s", subsystem, entry->d_name);
        char real[PATH_MAX];
        if (entry->d_name[0] != '.' && realpath(link, real) != NULL && sysfs_is_below(real, syspath))
            return true;
    }
    return false;
}

bool disk_is_on(const char *path, const char *syspath, int *error)
{
    static const char all[] = "/nvme-subsystem/";
    CLEANUP(cleanup_free) char *subsystem = NULL;
    const char *name;

    if (sysfs_is_below(path, syspath))
        return true;
    name = strstr(path, all);
    if (name == NULL)
        return false;
    name += strlen(all);
    subsystem = string_printf("%.*s", (int)(name + strcspn(name, "/") - path), path);
    return has_controller(subsystem, syspath, error);
}
