// Policy: one device and the configuration in, one verdict with its reason out.
#pragma once

#include "core/config.h"
#include "core/device.h"

enum verdict_kind {
    VERDICT_NO_RULE, // no group takes it: it stays on the host
    VERDICT_DENIED,  // a group would have taken it but for a deny rule, and no later one did
    VERDICT_HUB,     // USB hubs and PCI bridges are never passed
    VERDICT_HOST,    // the host lives on it, or on another function of its IOMMU group
    VERDICT_SHARED,  // a PCI group takes it, but another function of its IOMMU group stands in the way
    VERDICT_ALLOWED,
};

struct verdict {
    enum verdict_kind kind;
    const struct group *group; // ALLOWED, DENIED; borrowed from the configuration
    char *reason;              // "allowed by usbPassthrough[0].allow[0]", "denied by …", "no rule allows it"; owned
    const struct rule *rule;   // that decided: the allow rule or the deny rule; NULL: none did; borrowed
    bool added;                // ALLOWED: no rule names it, RULE took another function of its IOMMU group
};

// Decides. Pure; bounded time for any device (pattern limits). Clear with verdict_clear.
void policy_decide(const struct config *config, const struct device *device, struct verdict *verdict);
void verdict_clear(struct verdict *verdict);

// The groups that may take a device of this kind.
const struct group_list *policy_groups(const struct config *config, const struct device *device) CHECKED;

// One function of the IOMMU group of a device, as the rules of the configuration see it alone.
struct policy_member {
    const struct device *device; // borrowed
    const struct group *group;   // that takes it by a rule, or adds it; NULL: none; borrowed
    const struct rule *rule;     // by which it does; borrowed
    bool added;                  // by a rule for another function (pciIommuAddAll)
    bool denied;
    bool skipped; // GROUP wants no shared IOMMU group, and this one is shared (pciIommuSkipIfShared)
};
// Fills MEMBERS with the device itself and its peers in their order: peer_count + 1 of them.
void policy_members(const struct config *config, const struct device *device, struct policy_member *members);

// Whether usbAuthorization.hostAllow names a USB device, and by which rule; RULE may be NULL. A match that
// takes too long does not count.
bool policy_host_allows(const struct config *config, const struct device *device, const struct rule **rule);

// Whether the older form of evdevPassthrough takes the device: one that people type or point with.
bool policy_is_input(const struct device *device);
