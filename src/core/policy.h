// Policy: one device and the configuration in, one verdict with its reason out.
#pragma once

#include "core/config.h"
#include "core/device.h"

enum verdict_kind {
    VERDICT_NO_RULE, // no group takes it: it stays on the host
    VERDICT_DENIED,  // a group would have taken it but for a deny rule, and no later one did
    VERDICT_HUB,     // hubs are never passed
    VERDICT_HOST,    // the host lives on it
    VERDICT_ALLOWED,
};

struct verdict {
    enum verdict_kind kind;
    const struct group *group; // ALLOWED, DENIED; borrowed from the configuration
    char *reason;              // "allowed by usbPassthrough[0].allow[0]", "denied by …", "no rule allows it"; owned
    const struct rule *rule;   // that decided: the allow rule or the deny rule; NULL: none did; borrowed
};

// Decides. Pure; bounded time for any device (pattern limits). Clear with verdict_clear.
void policy_decide(const struct config *config, const struct device *device, struct verdict *verdict);
void verdict_clear(struct verdict *verdict);

// The groups that may take a device of this kind.
const struct group_list *policy_groups(const struct config *config, const struct device *device) CHECKED;
// Whether the older form of evdevPassthrough takes the device: one that people type or point with.
bool policy_is_input(const struct device *device);
