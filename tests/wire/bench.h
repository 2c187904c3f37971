// What the tests of the VMM wing share: a loop, the wing under test, and a record of what it told.
#pragma once

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "util/log.h"
#include "vmm/vmm.h"

#define WAIT_US ((uint64_t)60 * 1000 * 1000) // long: only a failing test waits so long

// One thing that the wing told.
struct told {
    char word[16]; // "up", "down", "silent", "news", "done"
    char vm[VM_NAME_MAX];
    uint64_t instance;
    char *why;
    struct result result;
};

struct bench {
    char directory[64];
    sd_event *loop;
    struct log *log;
    struct vmms *vmms;
    struct config config;
    struct vm_config vms[300];
    struct told told[1024];
    size_t told_count, read;
    bool told_silent; // silent is only recorded when asked for
    int descriptors;  // open before the test
    uint64_t serial;
};

int bench_setup(void **state);
int bench_teardown(void **state); // fails when a descriptor is left

// Adds a VM with the socket "DIRECTORY/NAME" and configures the wing.
void bench_add_vm(struct bench *bench, const char *name, const char *socket);
void bench_configure(struct bench *bench, size_t vm_count);

// Runs the loop until the next thing is told, fails if it is not WORD of VM; it stays valid.
struct told *bench_expect(struct bench *bench, const char *word, const char *vm);
// Runs the loop for a moment and fails if anything is told.
void bench_expect_nothing(struct bench *bench);
void bench_turn(struct bench *bench);
// Waits for `up` after any number of `down`.
struct told *bench_expect_up(struct bench *bench, const char *vm);

void bench_list(struct bench *bench, const char *vm);
// DEVICE is borrowed.
void bench_attach(struct bench *bench, const char *vm, struct device *device, int fd);
// On the ports whose names begin with PREFIX.
void bench_attach_input(struct bench *bench, const char *vm, struct device *device, const char *prefix);
// With the VM's own bus for it, if ROOT_BUS.
void bench_attach_pci(struct bench *bench, const char *vm, struct device *device, bool root_bus);
void bench_attach_pci_sparing(struct bench *bench, const char *vm, struct device *device, const char *prefix);
void bench_detach(struct bench *bench, const char *vm, const char *object);

struct device *bench_input(unsigned number);
// The function 0000:BUS:00.0 of an IOMMU group of that number.
struct device *bench_pci(unsigned bus, int group);
struct device *bench_device(unsigned bus, unsigned address, enum usb_speed speed);

// The descriptors this process has open.
int count_descriptors(void);
