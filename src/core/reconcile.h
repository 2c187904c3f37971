// The heart: compares what should be with what is and says the one next operation for each VM.
// Pure: events and the time go in, outputs come out; no I/O, no clock, no loop. Times are microseconds
// on one monotonic clock that never goes back and that goes on while the host sleeps.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/choice.h"
#include "core/config.h"
#include "core/device.h"
#include "core/memory.h"
#include "core/operation.h"
#include "core/policy.h"

enum device_state {
    STATE_HOST,      // stays on the host: no rule, denied, a hub, or the host lives on it
    STATE_IGNORED,   // a rule gives it to a VM, but it was there before us and -a was not given
    STATE_WAITS,     // belongs in a VM and cannot go in now; a later event or retry will do it
    STATE_REFUSED,   // belongs in a VM, which refused for good; only news will make us try again
    STATE_EJECTED,   // its guest took it out by itself; only news puts it back
    STATE_ATTACHING, // an attach is on its way
    STATE_ATTACHED,  // the VM lists it
    STATE_DETACHING, // a detach is on its way
};

enum vm_state { VM_STATE_DOWN, VM_STATE_STARTING, VM_STATE_ANSWERS, VM_STATE_SILENT };

enum output_kind {
    OUTPUT_OPERATION, // start it; its result must come back through reconcile_result exactly once
    OUTPUT_MEMORY,    // reconcile_memory has changed: make it durable before a VM is told what comes after
    OUTPUT_DEVICE,    // a device's state or reason changed, once each
    OUTPUT_VM,        // a VM's state changed, once each
    OUTPUT_NOTE,      // something worth one line: a stale or foreign object, …
    OUTPUT_CHOICES,   // reconcile_choices has changed: make it durable
    OUTPUT_SELECT,    // a device may go into one of several VMs, and a person is to say which
};

// Borrowed strings and devices live until the next call of any reconcile function.
struct output {
    enum output_kind kind;
    struct operation operation; // OPERATION: the receiver's own, operation_clear it
    struct device *device;      // DEVICE, SELECT
    enum device_state state;    // DEVICE
    enum verdict_kind verdict;  // DEVICE: what policy says of it
    const struct group *group;  // DEVICE, SELECT: that takes it; NULL: none; borrowed from the configuration
    enum vm_state vm_state;     // VM
    const char *vm;             // DEVICE: NULL if none is concerned; VM; NOTE: may be NULL
    const char *reason;         // DEVICE, VM (may be ""), NOTE: the text
    bool gone;                  // DEVICE: it was unplugged; state is what it last was
    bool plugged;               // DEVICE: it came while we listened, as against found by the first scan
    bool rests;                 // DEVICE: no VM has it for sure, and none gets it without further news
};

struct reconcile;

struct reconcile *reconcile_new(uint64_t seed, bool attach_connected) CHECKED;
void reconcile_free(struct reconcile *reconcile);
DEFINE_CLEANUP(struct reconcile *, cleanup_reconcile, reconcile_free)

// Sets or replaces the configuration, borrowed until replaced: detaches what is no longer allowed,
// attaches what now is, touches nothing else. VMs that are gone from it are served until empty.
void reconcile_configure(struct reconcile *reconcile, const struct config *config, uint64_t now);
// Whether a VM that the configuration no longer names still has to be served.
bool reconcile_needs_vm(const struct reconcile *reconcile, const char *vm);

// What an earlier run left behind; before the first device.
void reconcile_remember(struct reconcile *reconcile, const struct memory *memory);
// What to keep now; clear with memory_clear.
void reconcile_memory(const struct reconcile *reconcile, struct memory *memory);

// A device is there: new, changed, or seen again (idempotent). PLUGGED: it came while we listened,
// as against found by the first scan. The reconciler keeps a reference of its own.
void reconcile_device(struct reconcile *reconcile, struct device *device, bool plugged, uint64_t now);
// The device of that place went away; INSTANCE 0 means whichever is there.
void reconcile_device_gone(struct reconcile *reconcile, const char *key, uint64_t instance, uint64_t now);
// The first scan of the host is complete. The host sees to it that this comes within RECONCILE_SCAN_SECONDS, whatever
// device cannot be read by then; others may wait for it. Only where the list of devices cannot be had is it later.
#define RECONCILE_SCAN_SECONDS 20
void reconcile_scanned(struct reconcile *reconcile, uint64_t now);

// A VMM process serves that VM (INSTANCE names the process, 0 if it cannot be told), or none does.
void reconcile_vm_up(struct reconcile *reconcile, const char *vm, uint64_t instance, uint64_t now);
void reconcile_vm_down(struct reconcile *reconcile, const char *vm, uint64_t now);
// Its operation in flight has had no answer for a while; the operation goes on. WHY is for people.
void reconcile_vm_silent(struct reconcile *reconcile, const char *vm, const char *why, uint64_t now);
// Something in the VM changed by itself: look again.
void reconcile_vm_news(struct reconcile *reconcile, const char *vm, uint64_t now);
void reconcile_result(struct reconcile *reconcile, const char *vm, const struct result *result, uint64_t now);
// Whether that operation of VM is in flight for the process that still serves it; else its result tells nothing.
bool reconcile_flies(const struct reconcile *reconcile, const char *vm, uint64_t serial) CHECKED;

// The next thing to do at this time; false when there is none. Call until false after every event
// and at every deadline.
bool reconcile_next(struct reconcile *reconcile, uint64_t now, struct output *output) CHECKED;
// When to call reconcile_next again without an event; UINT64_MAX: never.
uint64_t reconcile_deadline(const struct reconcile *reconcile);

// ---- what people ask

// What people decided before; before the first device. A copy is kept.
void reconcile_choices_load(struct reconcile *reconcile, const struct choices *choices);
// What to keep now; borrowed until the next call of any reconcile function.
const struct choices *reconcile_choices(const struct reconcile *reconcile) CHECKED;

// A device is to go into VM (NULL: the only one, the one chosen last or the first), and stays there; or
// it leaves its VM and stays out until a person attaches it. NULL when that is begun or done already,
// else why it cannot be (free with free()).
char *reconcile_attach(struct reconcile *reconcile, uint64_t instance, const char *vm, uint64_t now) CHECKED;
char *reconcile_detach(struct reconcile *reconcile, uint64_t instance, uint64_t now) CHECKED;

// The devices of that kind (USB, PCI) of VM (NULL: of all VMs) leave it, but those whose group says
// skipOnSuspend, and none goes in until resumed. NULL or why not, as above.
char *reconcile_suspend(struct reconcile *reconcile, enum device_kind kind, const char *vm, uint64_t now) CHECKED;
char *reconcile_resume(struct reconcile *reconcile, enum device_kind kind, const char *vm, uint64_t now) CHECKED;

// A device as it stands. Borrowed until the next call of any reconcile function, but for the owned.
struct device_status {
    struct device *device;
    const struct verdict *verdict;
    enum device_state state;
    const char *vm;     // the VM that has it, is to get it or to let it go; NULL: none
    char *reason;       // owned
    const char *chosen; // the VM that a person chose for it last; NULL: none
    bool detached;      // a person took it out for good
    bool selecting;     // a person is asked which VM is to have it
    bool trying;        // an attach is on its way or comes next, whatever its state says of an earlier one
    uint64_t since;     // when its state or reason last changed
};
// Which VMs are meant.
typedef bool reconcile_those(const void *user, const char *vm);
// Whether one of those VMs has the device or, of a PCI function, another of its IOMMU group, may have it, or is
// where a person wants it.
bool reconcile_device_is_of(const struct reconcile *reconcile, uint64_t instance, reconcile_those *those,
                            const void *user) CHECKED;
// Why a device cannot be given to VM at its start: another VM or another tool has it or another function of its
// IOMMU group, or may have. NULL: it can; free with free().
char *reconcile_taken(const struct reconcile *reconcile, uint64_t instance, const char *vm) CHECKED;
// Whether the first scan of the host is complete.
bool reconcile_is_scanned(const struct reconcile *reconcile) CHECKED;
size_t reconcile_device_count(const struct reconcile *reconcile) CHECKED;
// INDEX counts from 0 in order of arrival. Clear with device_status_clear.
void reconcile_device_status(const struct reconcile *reconcile, size_t index, struct device_status *status);
void device_status_clear(struct device_status *status);

struct vm_status {
    const char *name;
    enum vm_type type;
    enum vm_state state;
    const char *why;   // SILENT: why; else ""
    bool known;        // false: it is not known yet whether it runs
    bool configured;   // false: the configuration no longer names it
    bool suspended;    // devices of some kind stay out of it
    uint64_t instance; // of its process, 0 if it does not run or cannot be told
    size_t attached;   // devices in it
    size_t waiting;    // devices that are to be in it and are not
    uint64_t since;    // when its state last changed
};
size_t reconcile_vm_count(const struct reconcile *reconcile) CHECKED;
void reconcile_vm_status(const struct reconcile *reconcile, size_t index, struct vm_status *status);
