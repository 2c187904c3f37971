// A bench for USB authorization: files that stand for the kernel's switches, and plans that are run at once.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "core/device.h"
#include "host/authorize.h"
#include "util/log.h"

#define DEVICES_MAX 8

struct bench {
    char *root, *sys, *dev, *run, *record, *routes;
    sd_event *loop;
    struct authorize_paths paths;
    struct log *log;
    struct config *config;
    struct authorize *authorize;
    struct device *settled[DEVICES_MAX]; // borrowed
    size_t settled_count;
    bool settled_on_host; // the last one
    int writes;           // inotify
};

int bench_set_up(void **state);
int bench_tear_down(void **state);

// The text of "usbAuthorization", for a reload, and for a daemon that starts, or starts again.
void bench_configure(struct bench *bench, const char *authorization);
void bench_start(struct bench *bench, const char *authorization);

// A bus with the authorized_default DEVICES.
void bench_add_bus(struct bench *bench, const char *name, const char *number, const char *devices);
// A device of bus 1 with one interface, which is the mouse of the VM's rule.
struct device *bench_add_device(struct bench *bench, const char *name, const char *address, bool authorized) CHECKED;
// What the device says that its interfaces are: COUNT triples. HUB: what a hub has.
void bench_set_interfaces(struct device *device, const unsigned char (*triples)[3], size_t count);
void bench_make_hub(struct device *device);
// Sets an attribute of a device of bus 1, "1-2" or "1-2/1-2:1.0".
void bench_set(struct bench *bench, const char *device, const char *attribute, const char *value);

// What an attribute is, from the root of sysfs; and those of a device and its interface.
void bench_expect(struct bench *bench, const char *path, const char *value);
void bench_expect_device(struct bench *bench, const char *name, const char *authorized, const char *interface);

// Runs a plan, taken over; whether there was one.
bool bench_run(struct bench *bench, struct authorize_plan *plan);
void bench_open_for_vm(struct bench *bench, struct device *device);

// Watches a file; those of device 1-2 are 1: interface_authorized_default of its bus, 2: its authorized, 3: that of its
// interface, 4: drivers_probe.
void bench_watch(struct bench *bench, const char *path);
void bench_watch_device(struct bench *bench);
// The numbers of the watched files in the order in which they were written, since the last call.
void bench_expect_writes(struct bench *bench, const char *wanted);
