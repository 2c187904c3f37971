// One match object of the configuration, and whether a device is what it describes.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/device.h"
#include "core/pattern.h"
#include "core/reader.h"

enum rule_kind { RULE_USB, RULE_INPUT, RULE_PCI, RULE_ACPI };

// A rule as read; FIELDS says which match fields are given, the others are 0 or NULL.
struct rule {
    enum rule_kind kind;
    char *path; // "usbPassthrough[0].allow[2]", as errors and verdicts name it
    char *description;
    bool disabled;
    uint64_t fields; // a bit for each enum of rule.c's table
    unsigned vendor_id, product_id;
    struct pattern *vendor_name, *product_name, *serial, *driver_path;
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

// Whether all its fields match. OTHERWISE counts for a pattern whose match was given up.
bool rule_matches(const struct rule *rule, const struct rule_subject *subject, bool otherwise);
