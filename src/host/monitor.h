// News of devices: from udevd, or from the kernel itself where no udevd runs. It says where to look
// again, and nothing about what is there.
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "core/device.h"
#include "host/source.h"
#include "util/cleanup.h"
#include "util/log.h"

struct monitor_callbacks {
    void (*look)(void *user, struct source *source); // takes the source over
    void (*removed)(void *user, const char *syspath);
    void (*overflow)(void *user); // events were lost: scan again
    void (*missed)(void *user);   // a device could not be looked at, though it may be there: scan again after a while
};

struct monitor;

// Listens from now on; events come when the loop runs. Negative errno, said in the log.
int monitor_new(struct monitor **monitor, sd_event *loop, struct log *log, const struct monitor_callbacks *callbacks,
                void *user) CHECKED;
void monitor_free(struct monitor *monitor);
DEFINE_CLEANUP(struct monitor *, cleanup_monitor, monitor_free)

// Hands on all events that have come by now, so that a scan after it is newer than they are.
void monitor_drain(struct monitor *monitor);
// Calls `look` for each device that there is. A host without any has none. Negative errno.
int monitor_scan(struct monitor *monitor) CHECKED;
// Calls `look` for the USB device or PCI function at SYSPATH, if it is there.
void monitor_look(struct monitor *monitor, const char *syspath);
// Fills in the names of the hardware database where no udevd has done so.
void monitor_name(struct monitor *monitor, struct device *device);
