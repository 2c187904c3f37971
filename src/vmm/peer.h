// Who is at the other end of a VM's socket: a connection to it, and the process behind it.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "util/cleanup.h"

// Connects without blocking to PATH; TYPE is SOCK_STREAM or SOCK_SEQPACKET. Returns the descriptor,
// or a negative errno: -ENOENT and -ECONNREFUSED mean that nobody serves it, -EAGAIN that others wait.
int peer_connect(const char *path, int type) CHECKED;

// The process that made the socket a listening one.
struct peer {
    uint64_t instance;    // names the process; 0 if its pid or start time cannot be seen
    int pidfd;            // readable when it has ended; -1 if it cannot be watched
    struct ucred process; // as the kernel names it; pid 0 without a pidfd, as another may have that number
};

// Never fails: what cannot be seen is 0 or -1. PIDFD is the caller's.
struct peer peer_of(int fd);
// Also when it cannot be told.
bool peer_has_ended(int pidfd) CHECKED;

// The same process, as the kernel names it; pid 0 if it does not.
struct ucred peer_process(int fd) CHECKED;
// The user that it acts as now (effective), which may have changed since it made its socket; where that
// cannot be seen, the one that it was then.
uid_t peer_acts_as(const struct ucred *process) CHECKED;
// The same, by name if the host's own list has it, else by number; NULL if that
// is not known. Free with free().
char *peer_user(const struct ucred *process) CHECKED;
// How many bytes of memory it may lock: UINT64_MAX for no limit, 0 if not known.
uint64_t peer_locked_memory(const struct ucred *process) CHECKED;
