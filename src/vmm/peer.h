// Who is at the other end of a VM's socket: a connection to it, and the process behind it.
#pragma once

#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "util/cleanup.h"

// Connects without blocking to PATH; TYPE is SOCK_STREAM or SOCK_SEQPACKET. Returns the descriptor,
// or a negative errno: -ENOENT and -ECONNREFUSED mean that nobody serves it, -EAGAIN that others wait.
int peer_connect(const char *path, int type) CHECKED;

// The process that made the socket a listening one.
struct peer {
    uint64_t instance; // names the process; 0 if its pid or start time cannot be seen
    int pidfd;         // readable when it has ended; -1 if it cannot be watched
};

// Never fails: what cannot be seen is 0 or -1. PIDFD is the caller's.
struct peer peer_of(int fd);

// The same process, as the kernel names it; pid 0 if it does not.
struct ucred peer_process(int fd) CHECKED;
// The user that it acts as now, by name if the host's own list has it, else by number; NULL if that
// is not known. Free with free().
char *peer_user(const struct ucred *process) CHECKED;
