// Files read as a whole, within a limit.
#pragma once

#include <stddef.h>

#include "util/cleanup.h"

#define FILE_SIZE_MAX (1U << 20)

// The text of FILE with a NUL after it (free with free()) and its LENGTH, or NULL with ERROR (free with
// free()) set to what follows the file's name: "cannot be read: …", "is not a file", "is longer than …".
char *file_read(const char *file, size_t *length, char **error) CHECKED;
// The same from an open descriptor, whatever it is: standard input, say.
char *file_read_from(int fd, size_t *length, char **error) CHECKED;
