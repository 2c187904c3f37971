// A machine with PCI functions, and a kernel of our own that binds them: what is written to sysfs, __wrap_sysfs_write
// does to the tree of files. It can die at each step, as the daemon may.
#pragma once

#include <stdbool.h>

#include "host/bind.h"

#define BRIDGE "sys/devices/pci0000:00/0000:00:1c.0"
#define FIRST BRIDGE "/0000:03:01.0"
#define SECOND BRIDGE "/0000:03:02.0"
#define ISA "sys/devices/pci0000:00/0000:00:1f.0"
#define FIRST_ADDRESS "0000:03:01.0"
#define SECOND_ADDRESS "0000:03:02.0"

#define DIED 77 // the exit status of who died at kernel.die

// Two functions behind a bridge, in one IOMMU group, which have e1000 as their driver.
struct machine {
    char *root, *sys, *dev, *run, *records, *mountinfo, *swaps, *routes4, *routes6;
    struct bind_paths paths;
    struct device *device; // the first function, as policy saw it
    char *text;
    bool busy;
};

// What the kernel does from now on.
extern struct bind_kernel {
    const char *root;
    unsigned step, die;  // 0: it does not
    bool refuses;        // vfio-pci does not take a function
    bool refuses_second; // only the second one
    bool busy;           // vfio-pci takes nothing for now
    bool stuck;          // unbinding fails
    bool keeps;          // unbinding from vfio-pci fails
    bool without_node;   // vfio-pci makes no node
    unsigned busy_opens; // of the group's node that find it open elsewhere
    bool forbidden;      // they find that they may not
    unsigned sleeps, udev_after;
} kernel;

int bind_machine_set_up(void **state);
int bind_machine_tear_down(void **state);

// PLACE is the directory of a function, from the root of the tree. Adds one to the group; CLASS as "0x020000\n".
void bind_machine_add(const struct machine *machine, const char *place, const char *class);
struct device *bind_machine_read(const struct machine *machine, const char *place) CHECKED;
// The kernel binds it to a driver, or takes it from the one that it has. Negative errno.
int bind_machine_driver(const char *place, const char *name) CHECKED;
int bind_machine_unbind(const char *place) CHECKED;

// Binds the group of machine->device: that must end with KIND, and what is said has TEXT in it. NULL: nothing is said,
// but which others were bound too.
void bind_machine_take(struct machine *machine, enum host_open_kind kind, const char *text);
// Gives it back, patiently; TEXT is in what is said then, NULL: nothing is.
void bind_machine_give_back(struct machine *machine, const char *text);

// The driver of a function ("" for none), what it is to have ("(null)" for any), and whether a record of it is kept.
void bind_machine_expect(const struct machine *machine, const char *place, const char *driver, const char *override,
                         bool recorded);
// That of the whole group while a VM has it, and while the host has.
void bind_machine_expect_taken(const struct machine *machine);
void bind_machine_expect_free(const struct machine *machine);
