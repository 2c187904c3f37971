// What of USB authorization outlives the daemon, in a file that a reboot clears: what the kernel's switches were before
// they were closed, and what was done to devices.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/device.h"
#include "util/cleanup.h"

// A bus whose new devices stay unauthorized.
struct authorize_bus {
    char *name;        // "usb1"
    uint64_t instance; // of its root hub
    unsigned devices;  // its authorized_default before
    unsigned held;     // devices for which its interface_authorized_default is, or is about to be, 0 for a moment
};

enum authorize_mark {
    AUTHORIZE_NO_MARK,
    AUTHORIZE_FOREIGN,  // it was unauthorized before we closed its bus
    AUTHORIZE_LENT,     // it is, or is about to be, authorized for a VM
    AUTHORIZE_REOPENED, // usbAuthorization was turned off, and it is to be authorized again
};

// A device of which there is something to know.
struct authorize_entry {
    char *syspath;
    uint64_t instance;
    enum authorize_mark mark;
    struct device *device; // NULL: not heard of in this run; a reference
    bool on_host;          // it rests there, and not for a VM
    bool unmatched;        // it is to be deauthorized, as nothing names it
    bool busy;             // the host would not let go of it: it is settled again later
    uint64_t opened;       // how often it was opened, so that what is done for an earlier time is known as such
    struct authorize_entry *next;
};

struct authorize_record {
    bool swept;  // what nothing named was deauthorized already
    bool closed; // the kernel's default for new buses is 0
    int before;  // that default before
    struct authorize_bus *buses;
    size_t bus_count;
    struct authorize_entry *entries; // those without a mark are not saved
};

// A file that cannot be understood is set aside; returns what there is to say about that, for free(), or NULL.
char *authorize_record_load(const char *path, struct authorize_record *record) CHECKED;
// Negative errno.
int authorize_record_save(const char *path, const struct authorize_record *record) CHECKED;
void authorize_record_clear(struct authorize_record *record);

// Adds a bus, or an entry without a mark; borrowed.
struct authorize_bus *authorize_record_add_bus(struct authorize_record *record, const char *name, uint64_t instance);
struct authorize_entry *authorize_record_add(struct authorize_record *record, const char *syspath, uint64_t instance);
// The bus with that instance, or NULL.
struct authorize_bus *authorize_record_bus(const struct authorize_record *record, uint64_t instance) CHECKED;
// Where the entry of that device hangs, whichever instance it is of; or where the next one would.
struct authorize_entry **authorize_record_find(struct authorize_record *record, const char *syspath) CHECKED;
// Takes the entry at PLACE away.
void authorize_record_remove(struct authorize_entry **place);
