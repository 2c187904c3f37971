// The host wing: which devices there are, whether the host lives on them, and a descriptor of one.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "core/choice.h"
#include "core/config.h"
#include "core/device.h"
#include "core/memory.h"
#include "util/cleanup.h"
#include "util/log.h"

enum host_open_kind {
    HOST_OPENED,       // fd is the device that policy saw, opened O_RDWR
    HOST_OPEN_NO_FD,   // it is there but could not be opened: pass it by address; text says why
    HOST_OPEN_READY,   // input, PCI: it is passed by name, or by fd where that is not -1, and all is prepared for that
    HOST_OPEN_RETRY,   // it could not be prepared, which may pass; text says why
    HOST_OPEN_REFUSED, // it could not be prepared, and will not be until something changes; text says why and what to
                       // do
    HOST_OPEN_GONE,    // it is not there any more, or another one is
    HOST_OPEN_IN_USE,  // the host has begun to live on it; text says how
};

// Called from the loop, never from inside a host_* function.
struct host_callbacks {
    // Appeared or changed; the device is borrowed. PLUGGED: not by the first scan.
    void (*present)(void *user, struct device *device, bool plugged);
    void (*gone)(void *user, const char *key, uint64_t instance);
    void (*scanned)(void *user); // the first scan is complete
    // Answers host_open, and host_withhold with HOST_OPEN_READY; FD belongs to the receiver, -1 unless HOST_OPENED, or
    // HOST_OPEN_READY of a PCI function that is passed by descriptor.
    void (*opened)(void *user, uint64_t serial, enum host_open_kind kind, int fd, const char *text);
};

struct host;

// Listens to udev, or to the kernel where no udevd runs. Negative errno on failure, said in the log.
int host_new(struct host **host, sd_event *loop, struct log *log, const struct host_callbacks *callbacks,
             void *user) CHECKED;
// Scans; from now on callbacks come. Negative errno.
int host_start(struct host *host) CHECKED;
void host_free(struct host *host);
DEFINE_CLEANUP(struct host *, cleanup_host, host_free)

// Who is to have a device: the process behind a VM's socket.
struct host_receiver {
    bool known;
    uid_t user; // as it acts now
    pid_t process;
    bool awaited;         // there is none yet: a VM is about to be started, which may come to nothing
    bool takes_functions; // it takes PCI functions by descriptor, where the kernel has a node for each
};

// Makes a device ready for a VM without blocking the loop: opens it (USB), binds it to vfio-pci (PCI), gives RECEIVER
// access to its node (input, PCI), authorizes it. `opened` answers exactly once with SERIAL.
void host_open(struct host *host, struct device *device, uint64_t serial, const struct host_receiver *receiver);
// Before a VM is asked to let go of a device. False: there is nothing to do. True: its interfaces are taken from the
// VM, so that no driver of the host gets them as it leaves, without blocking the loop; `opened` answers with SERIAL.
bool host_withhold(struct host *host, struct device *device, uint64_t serial) CHECKED;
// A VM has the device, perhaps since before our start: its IOMMU group does not go back to the host until it rests.
void host_held(struct host *host, const struct device *device);
// The device is in no VM now, nor on its way into one: takes back the access that was given. TO_HOST: it stays on the
// host, which gets it back as it had it: a PCI function its driver. Idempotent; does not block.
void host_settle(struct host *host, struct device *device, bool to_host);

// Sets what holds of USB authorization, access and the like. Borrowed until the next call.
void host_configure(struct host *host, const struct config *config);

// The path of the file NAME in the directory that a reboot clears, for free().
char *host_runtime_path(const char *name) CHECKED;

// The memory of an earlier run, kept where a reboot clears it. Load: an absent file is an empty
// memory; a damaged one is said in the log and set aside. Save: atomic replace; negative errno.
void host_load_memory(struct log *log, const char *path, struct memory *memory);
int host_save_memory(const char *path, const struct memory *memory) CHECKED;

// What people chose, kept on disk in PATH and a copy, PATH.previous. Load: reads the copy where the file is
// missing or damaged, and no choices where both are; what is damaged is said in the log and kept under another
// name. Save: both are replaced as a whole, one after the other; negative errno if not both are on disk then.
void host_load_choices(struct log *log, const char *path, struct choices *choices);
int host_save_choices(const char *path, const struct choices *choices) CHECKED;
