// The sockets that clients connect to, opened as the configuration says.
#pragma once

#include <sys/stat.h>

#include "core/config.h"
#include "util/cleanup.h"

// Each returns a listening descriptor, or -1 with ERROR (free with free()) set: what cannot be, and what
// to do about it.
int listen_unix(const struct api_config *config, char **error) CHECKED;
int listen_tcp(const struct api_config *config, char **error) CHECKED;
int listen_vsock(const struct api_config *config, char **error) CHECKED;

// Gives the Unix socket at its path the owner, group and mode that the configuration says, and FILE what
// names it for sure. False with ERROR set; then it is for us only.
bool listen_unix_owner(const struct api_config *config, struct stat *file, char **error) CHECKED;
// Whether the socket at PATH is still that one.
bool listen_unix_is(const char *path, const struct stat *file) CHECKED;
