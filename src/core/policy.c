// Decides which group takes a device.
#include "core/policy.h"

#include <string.h>

#include "core/rule.h"
#include "util/text.h"

// What the older form of evdevPassthrough takes. Power buttons and lid switches have none of these.
static const char *const input_types[] = {
    "ID_INPUT_MOUSE=1", "ID_INPUT_KEYBOARD=1", "ID_INPUT_TOUCHPAD=1", "ID_INPUT_TOUCHSCREEN=1", "ID_INPUT_TABLET=1",
};

static bool is_input_type(const char *property)
{
    for (size_t i = 0; i < sizeof(input_types) / sizeof(*input_types); i++)
        if (strcmp(property, input_types[i]) == 0)
            return true;
    return false;
}

bool policy_is_input(const struct device *device)
{
    for (size_t i = 0; i < device->property_count; i++)
        if (is_input_type(device->properties[i]))
            return true;
    return false;
}

// The first of COUNT rules that matches, or NULL. A match given up counts as OTHERWISE.
static const struct rule *first_match(struct rule *const *rules, size_t count, const struct rule_subject *subject,
                                      bool otherwise)
{
    for (size_t i = 0; i < count; i++)
        if (rule_matches(rules[i], subject, otherwise))
            return rules[i];
    return NULL;
}

// Whether the group wants the device, and by which rule; the older form of evdevPassthrough has none.
static bool is_wanted(const struct group *group, const struct rule_subject *subject, const struct rule **rule)
{
    *rule = NULL;
    if (group->disabled)
        return false;
    if (group->all_inputs)
        return policy_is_input(subject->device);
    *rule = first_match(group->allow, group->allow_count, subject, false);
    return *rule;
}

// Tries one group. True when it takes the device; the first denial is kept.
static bool group_takes(const struct group *group, const struct rule_subject *subject, struct verdict *verdict)
{
    const struct rule *allow;
    if (!is_wanted(group, subject, &allow))
        return false;
    const struct rule *deny = first_match(group->deny, group->deny_count, subject, true);
    if (!deny) {
        *verdict = (struct verdict){.kind = VERDICT_ALLOWED, .group = group, .rule = allow};
        return true;
    }
    if (verdict->kind != VERDICT_DENIED)
        *verdict = (struct verdict){.kind = VERDICT_DENIED, .group = group, .rule = deny};
    return false;
}

const struct group_list *policy_groups(const struct config *config, const struct device *device)
{
    switch (device->kind) {
    case DEVICE_INPUT:
        return &config->input;
    case DEVICE_PCI:
        return &config->pci;
    case DEVICE_USB:
    default:
        return &config->usb;
    }
}

// What the rules say of the device alone. The verdict has no reason yet.
static void decide_alone(const struct config *config, const struct device *device, struct verdict *verdict)
{
    const struct group_list *list = policy_groups(config, device);
    CLEANUP(rule_subject_clear) struct rule_subject subject;
    *verdict = (struct verdict){.kind = VERDICT_NO_RULE};
    rule_subject_init(&subject, device);
    for (size_t i = 0; i < list->count; i++)
        if (group_takes(&list->groups[i], &subject, verdict))
            break;
}

static char *alone_reason(const struct verdict *verdict)
{
    switch (verdict->kind) {
    case VERDICT_ALLOWED:
        return string_printf("allowed by %s", verdict->rule ? verdict->rule->path : verdict->group->path);
    case VERDICT_DENIED:
        return string_printf("denied by %s", verdict->rule->path);
    case VERDICT_HUB:
    case VERDICT_HOST:
    case VERDICT_SHARED:
    case VERDICT_NO_RULE:
    default:
        return string_copy("no rule allows it");
    }
}

// Replaces the verdict by one that no group and no rule is named in. Takes REASON.
static void refuse(struct verdict *verdict, enum verdict_kind kind, char *reason)
{
    verdict_clear(verdict);
    *verdict = (struct verdict){.kind = kind, .reason = reason};
}

// ---- IOMMU groups

// Whether the rule that took A comes before the one that took B.
static bool is_earlier(const struct policy_member *a, const struct policy_member *b)
{
    return a->group != b->group ? a->group < b->group : a->rule->index < b->rule->index;
}

// A function that no rule names goes with the first of its IOMMU group that has a group which takes all.
static void member_add(struct policy_member *member, const struct policy_member *members, size_t count)
{
    if (member->group || member->denied || device_is_bridge(member->device))
        return;
    for (size_t i = 0; i < count; i++) {
        const struct policy_member *other = &members[i];
        if (!other->group || !other->group->iommu_add_all || (member->group && !is_earlier(other, member)))
            continue;
        member->group = other->group;
        member->rule = other->rule;
        member->added = true;
    }
}

// Whether the group that takes MEMBER does not take OTHER of its IOMMU group. A bridge to another bus does not count,
// as it stays with the host; one of another kind, which is never passed, is bound to vfio-pci with the others.
static bool is_foreign(const struct policy_member *member, const struct policy_member *other)
{
    return !device_is_bus_bridge(other->device) && other->group != member->group;
}

static bool is_shared(const struct policy_member *member, const struct policy_member *members, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (is_foreign(member, &members[i]))
            return true;
    return false;
}

void policy_members(const struct config *config, const struct device *device, struct policy_member *members)
{
    size_t count = device->peer_count + 1;
    for (size_t i = 0; i < count; i++) {
        const struct device *at = i == 0 ? device : device->peers[i - 1];
        struct verdict alone = {.kind = VERDICT_NO_RULE};
        if (!device_is_bridge(at))
            decide_alone(config, at, &alone);
        bool taken = alone.kind == VERDICT_ALLOWED;
        members[i] = (struct policy_member){.device = at, .denied = alone.kind == VERDICT_DENIED};
        members[i].group = taken ? alone.group : NULL;
        members[i].rule = taken ? alone.rule : NULL;
    }
    for (size_t i = 0; i < count; i++)
        member_add(&members[i], members, count);
    for (size_t i = 0; i < count; i++)
        members[i].skipped =
            members[i].group && members[i].group->iommu_skip_if_shared && is_shared(&members[i], members, count);
}

// Whether two groups give all they take to one and the same VM.
static bool same_vm(const struct group *a, const struct group *b)
{
    return a->vm_count == 1 && b->vm_count == 1 && strcmp(a->vms[0], b->vms[0]) == 0;
}

static const char *name_of(const struct device *device)
{
    const char *address = device_pci_address(device);
    return address ? address : "a function";
}

// Why MEMBER cannot go where its group wants it because OTHER is in its IOMMU group; NULL: it can. Of one group
// of the configuration, people choose the VM for all functions at once.
static char *hindrance(const struct policy_member *member, const struct policy_member *other)
{
    const char *name = name_of(other->device);
    int number = member->device->iommu_group;
    if (!is_foreign(member, other))
        return NULL;
    if (other->group && !other->skipped && !same_vm(member->group, other->group)) {
        CLEANUP(cleanup_free) char *vms = config_group_vms(other->group);
        return string_printf("%s of the same IOMMU group %d belongs to %s by %s", name, number, vms,
                             other->group->path);
    }
    if (member->skipped)
        return string_printf("%s of the same IOMMU group %d is not taken by %s (pciIommuSkipIfShared)", name, number,
                             member->group->path);
    return NULL;
}

// The whole IOMMU group is bound to vfio-pci for one function of it: what holds of the others, holds of it.
static void decide_group(const struct config *config, const struct device *device, struct verdict *verdict)
{
    size_t count = device->peer_count + 1;
    CLEANUP(cleanup_free) struct policy_member *members = memory_new(count, sizeof(*members));
    policy_members(config, device, members);
    if (!members->group)
        return;
    if (members->added) {
        const struct policy_member *named = &members[1];
        while (named->rule != members->rule || named->added)
            named++;
        *verdict = (struct verdict){.kind = VERDICT_ALLOWED, .group = members->group, .rule = members->rule};
        verdict->added = true;
        verdict->reason = string_printf("allowed with %s of its IOMMU group by %s (pciIommuAddAll)",
                                        name_of(named->device), members->group->path);
    }
    for (size_t i = 1; i < count; i++) {
        const char *use = members[i].device->host_use;
        if (use) {
            refuse(verdict, VERDICT_HOST,
                   string_printf("the host lives on %s, of the same IOMMU group: %s", name_of(members[i].device), use));
            return;
        }
    }
    if (verdict->kind != VERDICT_ALLOWED)
        return;
    for (size_t i = 1; i < count; i++) {
        char *reason = hindrance(members, &members[i]);
        if (reason) {
            refuse(verdict, VERDICT_SHARED, reason);
            return;
        }
    }
}

void policy_decide(const struct config *config, const struct device *device, struct verdict *verdict)
{
    *verdict = (struct verdict){.kind = VERDICT_HUB};
    if (device_is_hub(device) || device_is_bridge(device)) {
        verdict->reason = string_copy(device_is_hub(device) ? "hubs are never passed" : "bridges are never passed");
        return;
    }
    decide_alone(config, device, verdict);
    if (device->kind == DEVICE_PCI)
        decide_group(config, device, verdict);
    if (verdict->kind == VERDICT_ALLOWED && device->host_use)
        refuse(verdict, VERDICT_HOST, string_printf("the host lives on it: %s", device->host_use));
    if (!verdict->reason)
        verdict->reason = alone_reason(verdict);
}

bool policy_host_allows(const struct config *config, const struct device *device, const struct rule **rule)
{
    const struct authorization_config *authorization = &config->authorization;
    CLEANUP(rule_subject_clear) struct rule_subject subject;
    rule_subject_init(&subject, device);
    const struct rule *found = first_match(authorization->host_allow, authorization->host_allow_count, &subject, false);
    if (rule)
        *rule = found;
    return found;
}

void verdict_clear(struct verdict *verdict)
{
    free(verdict->reason);
    *verdict = (struct verdict){.kind = VERDICT_NO_RULE};
}
