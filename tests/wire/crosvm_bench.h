// What the tests with a fake crosvm share: one VM "vm1", its operations, and what they must give.
#pragma once

#include "crosvm_peer.h"

// The stand-ins of crosvm_peer.h.
#define MOUSE "/dev/null"
#define TWIN "/dev/zero"
#define STICK "/dev/full"
#define DISK "/dev/random"

// Starts a crosvm and serves it as "vm1".
void vm1_begin(struct bench *bench, struct crosvm_peer *peer, const char *mode);
const struct result *bench_expect_result(struct bench *bench, const char *vm, enum result_kind kind);
const struct result *vm1_list(struct bench *bench, enum result_kind kind);
const struct result *vm1_detach(struct bench *bench, const char *object, enum result_kind kind);
void bench_start_attach(struct bench *bench, const char *vm, const char *node, uint64_t instance);
const struct result *vm1_attach(struct bench *bench, const char *node, uint64_t instance, enum result_kind kind);
// Turns the loop until the peer has read so many requests.
void crosvm_peer_await(struct bench *bench, struct crosvm_peer *peer, const char *kind, int count);
// The device instance on that port, 0: somebody else's; fails if the port is free.
uint64_t owner_of(const struct result *result, const char *port);
// Fails if the text of the result has not these words.
void expect_text(const struct result *result, const char *words);
