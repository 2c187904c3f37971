// USB authorization: with it on, no host driver is bound to a device that nobody gave to the host. The kernel leaves
// new devices unauthorized; hubs and what usbAuthorization.hostAllow names are authorized for the host, and what a VM
// is to have only as long as it has it. Here, in the loop, is decided and recorded; authorize_act does it in a thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "core/config.h"
#include "core/device.h"
#include "host/authorize_act.h"
#include "host/host.h"
#include "util/cleanup.h"
#include "util/log.h"

struct authorize;

// Keeps its record in the file RECORD. SETTLE asks for a device to be settled on the host once more: it leads to
// authorize_settle. Borrows LOG and PATHS, whose strings must live as long as threads run.
struct authorize *authorize_new(sd_event *loop, struct log *log, const struct authorize_paths *paths,
                                const char *record, void (*settle)(void *user, struct device *device, bool to_host),
                                void *user) CHECKED;
void authorize_free(struct authorize *authorize);
DEFINE_CLEANUP(struct authorize *, cleanup_authorize, authorize_free)

// The configuration, borrowed until the next call. Closes the buses, or opens them again.
void authorize_configure(struct authorize *authorize, const struct config *config);

// All devices of the host are known, those DEVICES: what nothing names is deauthorized, once until the next reboot, if
// the configuration says so.
void authorize_sweep(struct authorize *authorize, struct device *const *devices, size_t count);

// What is to be done to one device.
struct authorize_plan;

// The plan for the opening of a USB device for a VM, or for its rest outside VMs; NULL: nothing is to be done. Plans of
// one device are to be run in the order in which they were made.
struct authorize_plan *authorize_open(struct authorize *authorize, struct device *device) CHECKED;
struct authorize_plan *authorize_settle(struct authorize *authorize, struct device *device, bool to_host) CHECKED;
// Before a VM is asked to let go of it: QEMU asks for the host's drivers as it does so, which must not get it then.
struct authorize_plan *authorize_withhold(struct authorize *authorize, struct device *device) CHECKED;
// In a thread. NULL is fine.
void authorize_run(struct authorize_plan *plan);
// Whether it has failed, and what host_open is to answer then: KIND and TEXT, for free(). NULL is fine.
bool authorize_failed(const struct authorize_plan *plan, enum host_open_kind *kind, char **text) CHECKED;
// In the loop, after it was run: says and records what has come of it.
void authorize_done(struct authorize *authorize, const struct authorize_plan *plan);
void authorize_plan_free(struct authorize_plan *plan);
DEFINE_CLEANUP(struct authorize_plan *, cleanup_authorize_plan, authorize_plan_free)

// The device at SYSPATH has gone.
void authorize_forget(struct authorize *authorize, const char *syspath);
