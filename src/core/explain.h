// Policy, step by step: every group and rule that was tried for a device, and why each matched or did not.
#pragma once

#include <json-c/json.h>

#include "core/config.h"
#include "core/device.h"
#include "util/cleanup.h"

// {"verdict": "attach" | "choose" | "deny" | "none" | "hub" | "host", "vm": name or null,
//  "allowed_vms": [names], "group": index or null, "rule": index or null, "reason": text,
//  "groups": [{"path": "usbPassthrough[0]", "description": text or null,
//              "result": "takes" | "denies" | "no match" | "disabled",
//              "rules": [{"path": "usbPassthrough[0].allow[2]", "description": text or null, "deny": bool,
//                         "matches": bool, "field": "vendorId", "wanted": "046d", "found": "0627"}]}]}
// field, wanted and found only where matches is false: the first field that does not match. "vm" is
// the VM for "attach"; null for "choose". Owned by the caller: json_object_put.
struct json_object *explain_device(const struct config *config, const struct device *device) CHECKED;

// The same without "groups": what is decided and why, without the steps.
struct json_object *explain_verdict(const struct config *config, const struct device *device) CHECKED;
