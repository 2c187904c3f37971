// Devices and VMs as a caller sees them.
#pragma once

#include <json-c/json.h>

#include "api/messages_private.h"

// Each is the caller's: json_object_put.

// A device with all that is known of it, for lists.
struct json_object *view_device(const struct messages *messages, const struct caller *caller,
                                const struct device_status *status) CHECKED;
struct json_object *view_vm(const struct messages *messages, const struct caller *caller,
                            const struct vm_status *vm) CHECKED;
// Whether a rule is about the device, be it one that denies it.
bool view_is_named(const struct device_status *status) CHECKED;

// "up", …
const char *view_vm_state(const struct vm_status *vm) CHECKED;
// "2026-11-22T12:03:04Z" for a time on the reconciler's clock; json_object_put.
struct json_object *view_time(const struct messages *messages, uint64_t time) CHECKED;
// The reconciler's time now, which goes on while the host sleeps.
uint64_t view_now(const struct messages *messages) CHECKED;
