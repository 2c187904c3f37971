// Makes devices ready for VMs and takes them back: the one place where both are done, in threads, for each device
// (PCI: each IOMMU group) one thing after the other, in the order in which they were asked for.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "core/device.h"
#include "host/access_device.h"
#include "host/authorize.h"
#include "host/bind.h"
#include "host/host.h"
#include "host/worker.h"
#include "util/cleanup.h"
#include "util/log.h"

struct handover_answer {
    uint64_t serial;
    enum host_open_kind kind;
    int fd;                      // as host_callbacks tells of it; who takes it leaves -1
    const char *text;            // for people, where there is something to say; borrowed
    const struct device *device; // a copy of the one that was asked for; borrowed
};

struct handover;

// ANSWERED is called in the loop, exactly once for each handover_open unless the worker ends before. Borrows WORKER,
// LOG and PATHS, and must be freed after the worker.
struct handover *handover_new(struct worker *worker, sd_event *loop, struct log *log, const struct bind_paths *paths,
                              void (*answered)(void *user, struct handover_answer *answer), void *user) CHECKED;
void handover_free(struct handover *handover);
DEFINE_CLEANUP(struct handover *, cleanup_handover, handover_free)

// From now on USB devices are authorized as that says; borrowed.
void handover_authorize(struct handover *handover, struct authorize *authorize);

// Access is given, if GRANT, and taken back by these paths; borrowed.
void handover_access(struct handover *handover, const struct access_paths *access, bool grant);

// As host_open. With REFUSAL, taken over, nothing is done, and the answer is HOST_OPEN_IN_USE.
void handover_open(struct handover *handover, struct device *device, uint64_t serial,
                   const struct host_receiver *receiver, char *refusal);
// As host_withhold.
bool handover_withhold(struct handover *handover, struct device *device, uint64_t serial) CHECKED;
// As host_held.
void handover_held(struct handover *handover, const struct device *device);
// As host_settle.
void handover_settle(struct handover *handover, struct device *device, bool to_host);
// The device has gone: nothing is kept of it, and a node that is still there, of its IOMMU group, is not for it.
void handover_gone(struct handover *handover, const struct device *device);
