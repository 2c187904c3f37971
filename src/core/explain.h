// Policy, step by step: every group and rule that was tried for a device, and why each matched or did not.
#pragma once

#include <json-c/json.h>

#include "core/config.h"
#include "core/device.h"
#include "util/cleanup.h"

// {"verdict": "attach" | "choose" | "deny" | "none" | "hub" | "bridge" | "host" | "shared",
//  "vm": name or null, "allowed_vms": [names], "group": index or null, "rule": index or null, "reason": text,
//  "groups": [{"path": "usbPassthrough[0]", "description": text or null,
//              "result": "takes" | "denies" | "no match" | "disabled",
//              "rules": [{"path": "usbPassthrough[0].allow[2]", "description": text or null, "deny": bool,
//                         "matches": bool, "field": "vendorId", "wanted": "046d", "found": "0627"}]}]}
// field, wanted and found only where matches is false: the first field that does not match. "vm" is
// the VM for "attach"; null for "choose". Of a PCI function also
//  "iommu_group": number or null, "peers": [{"address": text or null, "title": text, "bridge": bool,
//   "bound": bool, "host_use": text or null, "vms": text or null, "path": of its rule or null, "added": bool}],
// which are the other functions of its IOMMU group and what the rules want of them; added: by the rule of
// another one; bound: to vfio-pci, with any of the group. Of a USB device, with usbAuthorization on, also
//  "host": {"authorized": bool, "reason": text, "rules": [as above]}: whether the host may use it itself.
// Owned by the caller: json_object_put.
struct json_object *explain_device(const struct config *config, const struct device *device) CHECKED;

// The same without "groups": what is decided and why, without the steps.
struct json_object *explain_verdict(const struct config *config, const struct device *device) CHECKED;
