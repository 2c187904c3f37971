// The VMM wing: watches the VMs' sockets and runs one operation at a time in each VM.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "core/config.h"
#include "core/memory.h"
#include "core/operation.h"
#include "util/cleanup.h"
#include "util/log.h"

// Called from the loop, never from inside a vmms_* function. VM is a name.
struct vmms_callbacks {
    // A VMM process serves the socket (INSTANCE from pid and start time, 0 where it cannot be told).
    // Called again, without down, when another process has taken over.
    void (*up)(void *user, const char *vm, uint64_t instance);
    void (*down)(void *user, const char *vm); // nobody serves it; also the first word on a VM that is down
    void (*silent)(void *user, const char *vm, const char *why);           // the operation in flight waits long
    void (*news)(void *user, const char *vm);                              // it changed by itself; never after down
    void (*done)(void *user, const char *vm, const struct result *result); // borrowed
};

struct vmms;

int vmms_new(struct vmms **vmms, sd_event *loop, struct log *log, const struct vmms_callbacks *callbacks,
             void *user) CHECKED;
void vmms_free(struct vmms *vmms);
DEFINE_CLEANUP(struct vmms *, cleanup_vmms, vmms_free)

// What an earlier run left behind, for back ends whose VMs do not tell it; before vmms_configure.
void vmms_remember(struct vmms *vmms, const struct memory *memory);

// Serves exactly these VMs; those that stay unchanged are not disturbed. For each new one, up or down
// follows. KEEP says of a VM that is not in the list whether it must still be served.
void vmms_configure(struct vmms *vmms, const struct config *config, bool (*keep)(void *user, const char *vm));

// Starts an operation that the VM of its name has to do; `done` answers exactly once, whatever
// happens. Takes the operation's contents and FD (-1: none; of a USB device, NO_FD says why, for the log).
void vmms_start(struct vmms *vmms, struct operation *operation, int fd, const char *no_fd);

// An operation for that VM is being prepared: it is connected to, and the connection kept for a second at most.
void vmms_expect(struct vmms *vmms, const char *vm);

// The process that serves the VM's socket: its pid and the user that it acts as now. False: not known.
bool vmms_process(const struct vmms *vmms, const char *vm, pid_t *process, uid_t *user) CHECKED;

// From now on functions are passed by descriptor to VMMs that take them so; each such VM gets a context of its own,
// opened at NODE ("/dev/iommu"), borrowed. Before vmms_configure; without it, and where there is no NODE, none are.
void vmms_offer_iommu(struct vmms *vmms, const char *node);
// Whether the VM takes PCI functions by descriptor, as far as it has told yet.
bool vmms_takes_functions(const struct vmms *vmms, const char *vm) CHECKED;

// Whether VMs of that type can be served.
bool vmms_serves(enum vm_type type) CHECKED;
