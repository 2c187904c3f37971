// One match object of the configuration, and whether a device is what it describes.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/device.h"
#include "core/pattern.h"
#include "core/reader.h"

enum rule_kind { RULE_USB, RULE_INPUT, RULE_PCI, RULE_ACPI };

// Keys of a rule; the match fields come before the others.
enum usb_key {
    USB_VENDOR_ID,
    USB_PRODUCT_ID,
    USB_VENDOR_NAME,
    USB_PRODUCT_NAME,
    USB_BUS,
    USB_PORT,
    USB_INTERFACE_CLASS,
    USB_INTERFACE_SUBCLASS,
    USB_INTERFACE_PROTOCOL,
    USB_DEVICE_CLASS,
    USB_DEVICE_SUBCLASS,
    USB_DEVICE_PROTOCOL,
    USB_REMOVABLE,
    USB_DRIVER_PATH,
    USB_SERIAL,
    USB_PORT_PATH,
    USB_ID_PATH,
    USB_FIELDS,
};
enum input_key { INPUT_NAME, INPUT_PATH_TAG, INPUT_PROPERTY, INPUT_VALUE, INPUT_FIELDS };
enum pci_key { PCI_ADDRESS, PCI_VENDOR, PCI_DEVICE, PCI_CLASS, PCI_SUBCLASS, PCI_PROG_IF, PCI_FIELDS };
enum acpi_key { ACPI_TABLE, ACPI_USER, ACPI_GROUP, ACPI_FIELDS = ACPI_USER };

#define RULE_FIELD(key) (UINT64_C(1) << (key))
#define RULE_GLOB_MAX 255 // longer subjects match no glob

// A rule as read; FIELDS says which match fields are given, the others are 0 or NULL.
struct rule {
    // What most rules are ruled out by stands together, so that little of each has to be fetched.
    enum rule_kind kind;
    bool disabled;
    uint64_t fields; // RULE_FIELD of each key that is given
    unsigned vendor_id, product_id;
    struct pattern *vendor_name, *product_name, *serial, *driver_path;
    char *path; // "usbPassthrough[0].allow[2]", as errors and verdicts name it
    char *description;
    size_t index; // in its list in the file, where disabled rules count
    unsigned bus, port;
    unsigned interface_class, interface_subclass, interface_protocol;
    unsigned device_class, device_subclass, device_protocol; // PCI: the last is the programming interface
    unsigned removable;                                      // bits 1 << enum usb_removable
    char *port_path, *id_path;                               // globs
    struct pattern *name, *path_tag;                         // input
    char *property, *value;                                  // input
    char *address;                                           // PCI: "0000:00:14.3"
    char *acpi_table, *set_user, *set_group;
};

// Reads the rule at READER, with an error for all that is wrong in it. Never NULL.
struct rule *rule_read(const struct reader *reader, enum rule_kind kind) CHECKED;
void rule_free(struct rule *rule); // NULL is fine
DEFINE_CLEANUP(struct rule *, cleanup_rule, rule_free)

#define RULE_NAMES_MAX 4

// A device as rules look at it: its names in all forms that count, made once for many rules.
struct rule_subject {
    const struct device *device; // borrowed
    char *vendor[RULE_NAMES_MAX], *product[RULE_NAMES_MAX];
    size_t vendor_count, product_count;
};

void rule_subject_init(struct rule_subject *subject, const struct device *device);
void rule_subject_clear(struct rule_subject *subject);

// "vendorId", as the file has it.
const char *rule_field_name(enum rule_kind kind, unsigned field) CHECKED;

// Whether all its fields match. OTHERWISE counts for a pattern whose match was given up.
bool rule_matches(const struct rule *rule, const struct rule_subject *subject, bool otherwise);

// Why a rule does not match: one field of it, what that asks for and what the device has, as people
// write it and raw.
struct rule_mismatch {
    const char *field;
    char *wanted;
    char *found;   // NULL: the device has no such thing
    bool given_up; // it was not found out: the match took too long
};

// The same as rule_matches; when it is false, MISMATCH tells the first field that does not match.
bool rule_compare(const struct rule *rule, const struct rule_subject *subject, bool otherwise,
                  struct rule_mismatch *mismatch);
void rule_mismatch_clear(struct rule_mismatch *mismatch);
