// What the parts of bench-world share.
#pragma once
#include <stdint.h>
#include <sys/socket.h>

// Says what failed, by errno, and ends the program.
_Noreturn void fail(const char *what);

uint64_t now_ns(void); // CLOCK_MONOTONIC

// A socket that listens at PATH; a failure ends the program.
int listen_at(const char *path, int waiting);

// Closes the descriptors that came with a message, of which it has room for one at a time.
void close_descriptors(struct msghdr *message);
