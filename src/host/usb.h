// USB devices of the host: builds the value that policy sees from sysfs and what udev knows.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/device.h"
#include "util/cleanup.h"

// Where a device is, and what udev says of it; strings are owned and may be NULL but the syspath.
struct usb_source {
    char *syspath;
    bool ready; // udev is done with it: it may be reported
    char *vendor_database, *product_database;
    char *id_path;
};

struct usb_source *usb_source_new(const char *syspath, bool ready) CHECKED;
void usb_source_free(struct usb_source *source);
DEFINE_CLEANUP(struct usb_source *, cleanup_usb_source, usb_source_free)

#define USB_MODALIASES_MAX 32

// What was read.
struct usb_reading {
    struct device *device;
    char *modaliases[USB_MODALIASES_MAX]; // to ask for drivers; none where the classes tell what it is
    size_t modalias_count;
};

// Reads a device; may block as long as the device is locked by the kernel. Attributes that a device
// need not have may be absent. Negative errno: it cannot be reported now.
int usb_read(const struct usb_source *source, struct usb_reading *reading) CHECKED;
void usb_reading_clear(struct usb_reading *reading);

// The instance of the device that is at SYSPATH now; 0: none.
uint64_t usb_instance(const char *syspath) CHECKED;
