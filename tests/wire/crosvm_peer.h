// The fake crosvm (tests/crosvm/fake_crosvm.py) as a child process of a test, which is its VM's process.
#pragma once

#include <stdio.h>
#include <sys/types.h>

#include "bench.h"

struct crosvm_peer {
    char *path;
    pid_t pid;
    FILE *orders, *replies;
    char *line; // the last reply
    size_t room;
};

// Serves DIRECTORY/NAME. MODE is "--early", "--halt" or NULL. Its devices: /dev/null and /dev/zero are
// both 046d:c077, /dev/full is 0781:5567, /dev/random 1d6b:0003 with USB 3.
void crosvm_peer_start(struct crosvm_peer *peer, const char *directory, const char *name, const char *mode);
// Fails if the peer has seen what a client must never do, then ends it in good order.
void crosvm_peer_stop(struct crosvm_peer *peer);
void crosvm_peer_kill(struct crosvm_peer *peer); // the socket's file stays
// Gives an order and returns the reply, valid until the next.
const char *crosvm_peer_order(struct crosvm_peer *peer, const char *order);
void crosvm_peer_expect(struct crosvm_peer *peer, const char *order, const char *reply);
// How many requests of KIND it has read.
int crosvm_peer_count(struct crosvm_peer *peer, const char *kind);

// Adds a VM of type crosvm with the socket DIRECTORY/NAME.
void crosvm_bench_add_vm(struct bench *bench, const char *name);
