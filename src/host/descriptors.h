// The descriptors of a USB device as sysfs gives them: what the device says of itself, hostile.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/device.h"

#define DESCRIPTORS_LENGTH_MAX 65536

struct descriptors_interface {
    struct usb_interface is;
    uint8_t number;
};

struct descriptors {
    uint16_t vendor_id, product_id, release;
    uint8_t class, subclass, protocol;
    struct descriptors_interface interfaces[DEVICE_INTERFACES_MAX]; // each one once
    size_t count;
};

// Reads the device descriptor and the interface descriptors, alternates included, of all
// configurations. What is malformed ends the walk, as it does in the kernel. False when there is
// no device descriptor, or there are more interfaces than DEVICE_INTERFACES_MAX.
bool descriptors_parse(const uint8_t *bytes, size_t length, struct descriptors *descriptors) CHECKED;

// The triples, each once, as the device has them.
void descriptors_to_device(const struct descriptors *descriptors, struct device *device);

// True when some interface has a class that says what it is: neither 0 nor 255.
bool descriptors_tell_class(const struct descriptors *descriptors);

// What modprobe is asked for: the modalias of one interface. Free with free().
char *descriptors_modalias(const struct descriptors *descriptors, size_t index) CHECKED;
