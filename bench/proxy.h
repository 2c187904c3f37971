// A QMP socket that hands everything on to a real QEMU and back, descriptors too, and notes when device_add passes.
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct proxy;

// Listens at PATH for clients, one at a time, for each of which it connects to TARGET. A failure ends the program.
struct proxy *proxy_new(int epoll, const char *path, const char *target);

// An event of epoll whose data is POINTER; false if that is none of its.
bool proxy_handle(struct proxy *proxy, const void *pointer);

bool proxy_is_connected(const struct proxy *proxy);

// When the last device_add came, and when QEMU answered it (0: not yet); CLOCK_MONOTONIC, ns.
uint64_t proxy_added(const struct proxy *proxy);
uint64_t proxy_answered(const struct proxy *proxy);
