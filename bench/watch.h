// When the kernel and udevd tell of USB devices that are really plugged.
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct watch;

// CLOCK_MONOTONIC, ns; 0: not told since watch_forget().
struct watch_times {
    uint64_t kernel, udevd; // of a device that came: the kernel's own event, and udevd's, which programs listen to
    uint64_t gone;          // of one that went: udevd's
};

// Listens from now on; ends with the program. A failure ends the program.
struct watch *watch_new(int epoll);

// An event of epoll whose data is POINTER; false if that is none of its.
bool watch_handle(struct watch *watch, const void *pointer);

struct watch_times watch_times(const struct watch *watch);
void watch_forget(struct watch *watch);
