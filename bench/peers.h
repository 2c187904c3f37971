// Scripted QEMUs of the benchmarks: many of them in one process, each with a QMP socket.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peers;

// What has come to the peers that answer.
struct peers_counts {
    size_t connections, commands;
    size_t connected; // clients of this moment
    size_t devices;   // host devices in them at this moment
    uint64_t added;   // when the last device_add came; CLOCK_MONOTONIC, ns
};

// VMs "vm0000.qmp", … in DIRECTORY, with CONTROLLERS xHCI controllers each; the last HANGING of them take
// connections and never say anything. A failure ends the program.
struct peers *peers_new(int epoll, const char *directory, size_t count, size_t hanging, size_t controllers);

// An event of epoll whose data is POINTER; false if that is none of theirs.
bool peers_handle(struct peers *peers, void *pointer);

struct peers_counts peers_counts(const struct peers *peers);

// Forgets the devices of all of them.
void peers_forget(struct peers *peers);
