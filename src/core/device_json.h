// A device as JSON: the form of the API, of vhotplugctl and of the files that vhotplugctl explain reads.
#pragma once

#include <json-c/json.h>

#include "core/device.h"
#include "util/cleanup.h"

// USB: device_node, vid, pid, vendor_name, product_name, interfaces (":030102:080650:"), device_class,
// device_subclass, device_protocol, busnum, devnum, portnum, serial, sys_name, and of ours kind, port_path,
// id_path, speed, removable, drivers. What the device does not have is null. Owned: json_object_put.
struct json_object *device_to_json(const struct device *device) CHECKED;

// The way back, for hostile input: a device with one reference, or NULL with ERROR (free with free())
// set. kind is "usb" (default), "evdev" or "pci"; ids are hex strings, numbers also as strings.
struct device *device_from_json(struct json_object *value, char **error) CHECKED;
