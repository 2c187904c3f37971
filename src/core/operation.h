// What the reconciler asks of a VM, and what a VM answers: the words between core and VMM wing.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/device.h"

#define VM_NAME_MAX 256
#define OBJECT_NAME_MAX 128

enum operation_kind { OPERATION_LIST, OPERATION_ATTACH, OPERATION_DETACH };

// One request to one VM. A VM has at most one in flight.
struct operation {
    uint64_t serial; // names this operation in its result
    enum operation_kind kind;
    char vm[VM_NAME_MAX];
    struct device *device; // ATTACH; DETACH of one that is there and shall leave: a reference of its own; else NULL
    char object[OBJECT_NAME_MAX]; // DETACH: the object as the VM listed it
    char bus_prefix[VM_NAME_MAX]; // ATTACH of input: the ports to use, "" for any
    char spared[VM_NAME_MAX];     // ATTACH to any port: those of this name and a number come last; "" for none
    bool root_bus;                // ATTACH of PCI: on the machine's own bus, as its group asks
};

void operation_clear(struct operation *operation);
void operation_copy(struct operation *to, const struct operation *from);

enum result_kind {
    RESULT_DONE,    // LIST: the list is in the result; ATTACH, DETACH: the VM's own list says so
    RESULT_REFUSED, // no use to repeat it before there is news: TEXT says why and what to do
    RESULT_RETRY,   // did not work now, may pass: TEXT says why
    RESULT_PENDING, // DETACH: the guest was asked and has not let go yet
    RESULT_LOST,    // the connection ended in between: it may or may not have been done
    RESULT_GONE,    // ATTACH: the device is not there any more
    RESULT_FIXED,   // DETACH: as REFUSED, and it stays in as long as this process of the VM runs
};

// One thing in a VM that is, or may be, a host device.
struct attachment {
    char object[OBJECT_NAME_MAX];   // how DETACH names it
    bool ours;                      // its name has our prefix; only such are ever removed
    uint64_t instance;              // ours: the device instance it was made for, 0 if not known
    bool leaving;                   // asked to go, not gone yet
    bool dead;                      // the VM itself says that its device has gone
    unsigned bus, address;          // not ours: the USB address it was given, 0 if not known
    char pci[20];                   // not ours: the PCI address it was given, "0000:01:00.0", "" if not known
    uint16_t vendor_id, product_id; // what the VM says it is, 0 if it does not
};

struct result {
    uint64_t serial;
    enum result_kind kind;
    char *text;                     // for people, "" or NULL when there is nothing to say; owned
    struct attachment *attachments; // owned; LIST and, where the VM was read back, others too
    size_t attachment_count;
    bool listed; // attachments is the VM's whole list
};

void result_clear(struct result *result);

// Object names for back ends that let us choose: "vhotplug-usb-1-4-INSTANCE-SERIAL", numbers after
// the address in hex. SERIAL makes each attach unique.
void object_name(char name[OBJECT_NAME_MAX], const struct device *device, uint64_t serial);
// True if NAME is one of ours; INSTANCE is 0 when it has our prefix but is malformed.
bool object_parse(const char *name, uint64_t *instance);
