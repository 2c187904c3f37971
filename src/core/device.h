// A device of the host as policy sees it: a value, read once by the host wing, never changed.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/cleanup.h"

enum device_kind { DEVICE_USB, DEVICE_INPUT, DEVICE_PCI };

enum usb_speed { SPEED_UNKNOWN, SPEED_LOW, SPEED_FULL, SPEED_HIGH, SPEED_SUPER };

// Of a PCI function's configuration header: those of a bridge to another bus have a form of their own.
enum pci_header { HEADER_UNKNOWN, HEADER_ORDINARY, HEADER_BUS_BRIDGE };

enum usb_removable { REMOVABLE_UNKNOWN, REMOVABLE_FIXED, REMOVABLE_REMOVABLE };

#define DEVICE_INTERFACES_MAX 256
#define DEVICE_DRIVERS_MAX 32

struct usb_interface {
    uint8_t class, subclass, protocol;
};

// Strings are NULL where the device or the database has none. All of them are hostile.
struct device {
    enum device_kind kind;
    char *key;         // its place: "usb:1-2.3", "input:input5", "pci:0000:00:14.3"; the same for a replug into it
    uint64_t instance; // this very plug: another for each replug or re-enumeration; never 0
    char *syspath;
    char *node; // "/dev/bus/usb/001/004", "/dev/input/event5"
    dev_t number;
    char *vendor_database, *product_database; // names from the hardware database
    char *vendor_reported, *product_reported; // as the device says, raw
    char *serial;
    uint16_t vendor_id, product_id;
    unsigned bus, address; // USB
    char *port_path;       // "1-2.3"
    unsigned root_port;    // 2 of "1-2.3"
    char *id_path;         // "pci-0000:00:14.0-usb-0:2.3"
    enum usb_speed speed;
    uint8_t class, subclass, protocol;
    struct usb_interface *interfaces; // of all configurations, each triple once
    size_t interface_count;
    enum usb_removable removable;
    char **drivers; // file paths of the kernel modules that would drive it
    size_t driver_count;
    char *path_tag;    // input: ID_PATH_TAG
    char **properties; // input: udev properties as "NAME=value"
    size_t property_count;
    uint16_t subsystem_vendor_id, subsystem_id; // PCI
    enum pci_header header;
    char *driver;          // PCI: the driver that was bound when it was read; no part of the value, not compared
    int iommu_group;       // PCI: its number, -1 for none
    struct device **peers; // PCI: the other functions of its IOMMU group, also bridges; they have no peers themselves
    size_t peer_count;
    char *host_use; // why the host lives on it ("/home is mounted from it"); NULL: it does not
    unsigned references;
};

// A new empty device with one reference.
struct device *device_new(enum device_kind kind) CHECKED;
struct device *device_reference(struct device *device) CHECKED;
void device_release(struct device *device); // NULL is fine
DEFINE_CLEANUP(struct device *, cleanup_device, device_release)

// True when policy and attachment could see a difference (references are not looked at).
bool device_equal(const struct device *a, const struct device *b);

// A hub, or anything else that says so in one of its interfaces as well: never passed.
bool device_is_hub(const struct device *device);
// A hub and nothing else, as far as it says: what a driver may be bound to that brings no input, disk or network.
bool device_is_only_hub(const struct device *device) CHECKED;
// A PCI bridge of whatever kind, as that to the ISA bus (LPC): the base class says so. None is ever passed.
bool device_is_bridge(const struct device *device) CHECKED;
// A bridge to another PCI bus or to CardBus. The kernel lets it keep its driver when its IOMMU group goes to a VM.
bool device_is_bus_bridge(const struct device *device) CHECKED;

// "0000:00:14.3" of a PCI function, else NULL; borrowed.
const char *device_pci_address(const struct device *device) CHECKED;
// The full form of a PCI address, of which the domain may be missing or have up to 8 digits, or NULL; free with free().
char *device_parse_pci_address(const char *text) CHECKED;

// What people call it: "QEMU USB Mouse (0627:0001, 1-3)"; safe for logs. Free with free().
char *device_title(const struct device *device) CHECKED;
