// Input devices of the host that are not USB: builds the value that policy sees from sysfs and what
// udev knows. One device for each inputN that has an event node.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/device.h"
#include "host/source.h"
#include "util/cleanup.h"

// The syspath of the inputN that the event node at SYSPATH, ".../input5/event3", belongs to, for
// free(); NULL if that is no event node.
char *input_of_event(const char *syspath) CHECKED;

// Whether it is, or is a part of, a USB device. One that talks to a USB Bluetooth adapter is not:
// it is a device of its own.
bool input_is_usb(const char *syspath) CHECKED;

// Reads a device. Negative errno: it cannot be reported now.
int input_read(const struct source *source, struct reading *reading) CHECKED;

// The instance of the device that is at SYSPATH now; 0: none.
uint64_t input_instance(const char *syspath) CHECKED;
