// Which devices a request means.
#pragma once

#include <json-c/json.h>

#include "api/messages_private.h"

struct found_device {
    uint64_t instance;
    char *title; // for people
};

struct found {
    struct found_device *devices;
    size_t count;
    bool tagged; // by tag: any number of devices; else there is exactly one
};

// Which devices a request is about.
enum find_what {
    FIND_ALL,
    FIND_USB, // and input devices
    FIND_PCI,
};

// By the request's "device_node", "address", "bus" and "port", "tag", "vid" and "pid", "vid" and "did", or
// "device", the first of these that it has and that goes with WHAT; only devices that the caller may see.
// "device" means any. NULL, or what is wrong (free with free()).
char *find_devices(const struct messages *messages, const struct caller *caller, struct json_object *request,
                   enum find_what what, struct found *found) CHECKED;
void found_clear(struct found *found);
