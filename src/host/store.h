// Small files that outlive the daemon: read within a limit, replaced as a whole, set aside when damaged.
#pragma once

#include <stddef.h>

#include "util/cleanup.h"

// Reads a regular file, or what a link leads to; nothing else is waited for or touched. Returns NULL and
// TEXT (free with free(); NULL if there is no file), or what is wrong with it (free with free()), and the error of a
// call that has failed in errno.
char *store_read(const char *path, size_t limit, char **text, size_t *length) CHECKED;

// Makes TEXT what PATH holds, with the directories above it. Whoever is killed at any instant, and where
// the power fails, leaves the old file or the new one. On disk when it returns 0; else negative errno.
int store_replace(const char *path, const char *text) CHECKED;

// Gives PATH another name, "PATH.damaged", or if there is one already "PATH.damaged.1" to ".SPARE", the
// last of which may be lost for it. Returns that name (free with free()), or NULL and sets errno.
char *store_set_aside(const char *path, unsigned spare) CHECKED;
