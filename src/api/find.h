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

// By the request's "device_node", "bus" and "port", "tag", "vid" and "pid", or "device", the first of
// these that it has; only devices that the caller may see. NULL, or what is wrong (free with free()).
char *find_devices(const struct messages *messages, const struct caller *caller, struct json_object *request,
                   struct found *found) CHECKED;
void found_clear(struct found *found);
