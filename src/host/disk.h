// Is a block device a part of a device?
#pragma once

#include <stdbool.h>

#include "util/cleanup.h"

// Whether the block device at PATH is a part of the device at SYSPATH; both are real paths of sysfs. An NVMe disk that
// may be reached by several ways is a part of each of its controllers, though its directory is elsewhere. Where there
// is no room to look at the moment, *ERROR, which stays as it is else, becomes that negative errno.
bool disk_is_on(const char *path, const char *syspath, int *error) CHECKED;
