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
        verdict_clear(verdict);
        char *reason = string_printf("allowed by %s", allow ? allow->path : group->path);
        *verdict = (struct verdict){VERDICT_ALLOWED, group, reason, allow};
        return true;
    }
    if (verdict->kind != VERDICT_DENIED)
        *verdict = (struct verdict){VERDICT_DENIED, group, string_printf("denied by %s", deny->path), deny};
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

void policy_decide(const struct config *config, const struct device *device, struct verdict *verdict)
{
    *verdict = (struct verdict){.kind = VERDICT_NO_RULE};
    if (device_is_hub(device)) {
        *verdict = (struct verdict){VERDICT_HUB, NULL, string_copy("hubs are never passed"), NULL};
        return;
    }
    const struct group_list *list = policy_groups(config, device);
    CLEANUP(rule_subject_clear) struct rule_subject subject;
    rule_subject_init(&subject, device);
    for (size_t i = 0; i < list->count; i++)
        if (group_takes(&list->groups[i], &subject, verdict))
            break;
    if (verdict->kind == VERDICT_ALLOWED && device->host_use) {
        verdict_clear(verdict);
        char *reason = string_printf("the host lives on it: %s", device->host_use);
        *verdict = (struct verdict){VERDICT_HOST, NULL, reason, NULL};
    }
    if (verdict->kind == VERDICT_NO_RULE)
        verdict->reason = string_copy("no rule allows it");
}

void verdict_clear(struct verdict *verdict)
{
    free(verdict->reason);
    *verdict = (struct verdict){.kind = VERDICT_NO_RULE};
}
