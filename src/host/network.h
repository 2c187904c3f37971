// Does the host's network hang on a device: does its only default route go through it?
#pragma once

#include <stddef.h>

#include "util/cleanup.h"

// The kernel's files; borrowed strings. network_paths is the real ones.
struct network_paths {
    const char *sys, *routes4, *routes6;
};

extern const struct network_paths network_paths;

struct network;

struct network *network_new(const struct network_paths *paths) CHECKED;
void network_free(struct network *network);
DEFINE_CLEANUP(struct network *, cleanup_network, network_free)

// The next question looks at the kernel's files afresh.
void network_invalidate(struct network *network);

// What the host would lose with the devices at PLACES, all of them together ("the host's only IPv4 default route goes
// through eth0"), for free(); NULL: nothing. IPv4 and IPv6 are two networks. Where it cannot be told, it is taken to.
char *network_of(struct network *network, char *const *places, size_t count) CHECKED;

// Why the kernel's files could not be read for an answer since the last network_invalidate; negative errno.
int network_error(const struct network *network) CHECKED;
