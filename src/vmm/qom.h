// What QEMU's object tree tells of its devices: replies of qom-list, read with care.
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>

#include "util/cleanup.h"

#define QOM_PERIPHERAL "/machine/peripheral"
#define QOM_ANONYMOUS "/machine/peripheral-anon"
#define QOM_UNATTACHED "/machine/unattached"

// A VM that lists more than this is not believed.
#define QOM_CHILDREN_MAX 4096
#define QOM_NAME_MAX 128

// A child of an object: "d1" of type "usb-host".
struct qom_child {
    char name[QOM_NAME_MAX];
    char type[QOM_NAME_MAX];
};

struct qom_children {
    struct qom_child *children;
    size_t count;
};

// Reads the `return` of a qom-list: its children, without links and plain properties; those whose
// names are too long or hold other than printable ASCII are left out. False if it is no such reply
// or has too many.
bool qom_children_read(struct qom_children *children, struct json_object *reply) CHECKED;
void qom_children_clear(struct qom_children *children);

// True for types of devices that are, or may be, a host's device in the VM.
bool qom_is_host_device(const char *type) CHECKED;
