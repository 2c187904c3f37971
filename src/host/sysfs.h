// Bounded reads of named sysfs attributes, relative to a directory that stays the same one.
#pragma once

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/cleanup.h"

#define SYSFS_STRING_MAX 4096

// Opens a directory; negative errno.
int sysfs_open(const char *path) CHECKED;

// Opens a directory to be listed, for closedir(). NULL: it has nothing, or there is no room to look at the moment, and
// *ERROR, which stays as it is else, becomes that negative errno.
DIR *sysfs_list(const char *path, int *error) CHECKED;

// Reads at most LIMIT bytes of an attribute; what is beyond is cut. BYTES gets a terminated copy
// for free(). Negative errno: -ENOENT means that there is no such attribute.
int sysfs_read(int directory, const char *name, size_t limit, char **bytes, size_t *length) CHECKED;

// An attribute as a string without its last newline. An absent or an empty one is NULL and no error.
int sysfs_string(int directory, const char *name, char **string) CHECKED;

// An attribute that is a whole number of at most LIMIT. -ENOENT if absent, -EINVAL if it is none.
int sysfs_number(int directory, const char *name, int base, unsigned long limit, unsigned long *number) CHECKED;

// An attribute that is a device number, "13:64".
int sysfs_device_number(int directory, const char *name, dev_t *number) CHECKED;

// Writes an attribute at PATH in one go, as the kernel wants it. Negative errno.
int sysfs_write(const char *path, const char *text) CHECKED;
// The same with an attribute of an open directory, which stays that of this very device.
int sysfs_write_in(int directory, const char *name, const char *text) CHECKED;

// Names this very appearance of a directory, with NUMBER mixed in; never 0.
int sysfs_instance(int directory, uint64_t number, uint64_t *instance) CHECKED;

// Where the link NAME of DIRECTORY leads to in the sysfs at ROOT, as an absolute path for free():
// "../../devices/pci0000:00" is "/sys/devices/pci0000:00". NULL if it is no link or leads elsewhere.
char *sysfs_link(const char *root, const char *directory, const char *name) CHECKED;

// The last part of what the link NAME of DIRECTORY leads to, for free(): "e1000e" of "…/driver". NULL if it is no link.
char *sysfs_link_name(const char *directory, const char *name) CHECKED;

// The last part of a path; borrowed from it.
const char *sysfs_name(const char *path) CHECKED;

// True when PATH is DIRECTORY or lies in it.
bool sysfs_is_below(const char *path, const char *directory) CHECKED;
