// Arguments for the start of a VM: the devices and tables that it is to have from the beginning.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/config.h"
#include "core/device.h"
#include "core/policy.h"
#include "util/cleanup.h"

// A device as it stands now. Borrowed.
struct vmm_args_device {
    const struct device *device;
    const struct verdict *verdict;
    const char *vm;     // that has it or is to get it; NULL: not known
    const char *chosen; // where VM is not known: the one that a person chose last; NULL: the first of its group
    const char *taken;  // why a VM that starts cannot have it; NULL: it can
    bool selecting;     // a person is to say which VM gets it: until then none does
    bool detached;      // a person took it out for good: it is left out
};

// Borrowed.
struct vmm_args_request {
    const struct config *config;
    const char *vm;
    const char *bus_prefix; // QEMU: PCI functions go on the ports of this name and a number; NULL: wherever it likes
    unsigned first;         // that number of the first one
    const struct vmm_args_device *devices; // in any order
    size_t device_count;
};

// An ACPI table: a file, which is to be there and to belong to USER and GROUP (names or NULL) before the VM
// starts. Borrows from the configuration.
struct vmm_args_table {
    const char *path, *user, *group;
    size_t argument; // where its arguments begin
};

struct vmm_args {
    char **arguments;
    size_t count;
    const struct device **functions; // borrowed from the request: each is to be made ready before the VM starts
    size_t function_count;
    const struct vmm_args_device **left_out; // borrowed from the request: is for the VM, and taken
    size_t left_out_count;
    struct vmm_args_table *tables;
    size_t table_count;
};

// Fills ARGS, in the order of the rules and then of the addresses. Returns NULL, or why there are none for that
// VM (free with free()). Clear with vmm_args_clear in both cases.
char *vmm_args_make(const struct vmm_args_request *request, struct vmm_args *args) CHECKED;
// Takes the arguments of a table out again, as it could not be made ready; the tables after it move up.
void vmm_args_drop_table(struct vmm_args *args, size_t index);
void vmm_args_clear(struct vmm_args *args);
