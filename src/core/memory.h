// What must outlive a kill of the daemon: which device instances it manages and which VM may hold them.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

#define MEMORY_DEVICES_MAX 4096

struct memory_device {
    char *key;
    uint64_t instance;
    bool managed;         // plugged while we ran, or attached by us: to be attached even without -a
    char *vm;             // the VM that has it or may have it; NULL: none
    uint64_t vm_instance; // that VM's process at the time
    char *object;         // how that VM named it; NULL: not known, it may not have it at all
    uint16_t vendor_id, product_id;
};

struct memory {
    struct memory_device *devices;
    size_t count;
};

// Text form (JSON, one object) and back. Parsing takes hostile input: NULL error on success, else
// what is wrong (free with free()), and MEMORY is empty then.
char *memory_print(const struct memory *memory) CHECKED;
char *memory_parse(const char *text, size_t length, struct memory *memory) CHECKED;
void memory_clear(struct memory *memory);
// TO is empty before.
void memory_copy(struct memory *to, const struct memory *from);
// Appends a copy of DEVICE; more than MEMORY_DEVICES_MAX are not kept.
void memory_add(struct memory *memory, const struct memory_device *device);
// Releases what DEVICE owns.
void memory_device_clear(struct memory_device *device);
