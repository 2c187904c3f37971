// USB devices of the host: builds the value that policy sees from sysfs and what udev knows.
#pragma once

#include <stdint.h>

#include "host/source.h"
#include "util/cleanup.h"

// Reads a device; may block as long as the device is locked by the kernel. Attributes that a device
// need not have may be absent. Negative errno: it cannot be reported now.
int usb_read(const struct source *source, struct reading *reading) CHECKED;

// The instance of the device that is at SYSPATH now; 0: none.
uint64_t usb_instance(const char *syspath) CHECKED;
// The same for an open directory of a device, which stays that of this very device.
uint64_t usb_instance_in(int directory) CHECKED;
