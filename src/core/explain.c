// Policy, step by step, in words.
#include "core/explain.h"

#include <string.h>

#include "core/policy.h"
#include "core/rule.h"
#include "util/text.h"

#define TEXT_SHOWN_MAX 4096

static const char input_wanted[] = "a mouse, keyboard, touchpad, touchscreen or tablet";

// What device and configuration say is hostile: it is made safe for people and JSON alike.
static void add_text(struct json_object *object, const char *name, const char *string)
{
    struct text safe = {0};
    if (string)
        text_add_safe(&safe, string, TEXT_SHOWN_MAX);
    json_object_object_add(object, name, string ? json_object_new_string(safe.string ? safe.string : "") : NULL);
    text_clear(&safe);
}

static void add_flag(struct json_object *object, const char *name, bool flag)
{
    json_object_object_add(object, name, json_object_new_boolean(flag));
}

static void add_index(struct json_object *object, const char *name, bool present, size_t index)
{
    json_object_object_add(object, name, present ? json_object_new_int64((int64_t)index) : NULL);
}

static void add_mismatch(struct json_object *object, const struct rule_mismatch *mismatch)
{
    add_text(object, "field", mismatch->field);
    add_text(object, "wanted", mismatch->wanted);
    if (!mismatch->given_up) {
        add_text(object, "found", mismatch->found);
        return;
    }
    const char *found = mismatch->found ? mismatch->found : "";
    CLEANUP(cleanup_free) char *text = string_printf("%s (the match took too long and was given up)", found);
    add_text(object, "found", text);
}

static struct json_object *new_rule(const char *path, const char *description, bool deny, bool matches)
{
    struct json_object *object = json_object_new_object();
    add_text(object, "path", path);
    add_text(object, "description", description);
    add_flag(object, "deny", deny);
    add_flag(object, "matches", matches);
    return object;
}

// Tries COUNT rules and adds what became of each. Returns whether any matched.
static bool add_rules(struct json_object *list, struct rule *const *rules, size_t count, bool deny,
                      const struct rule_subject *subject)
{
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        CLEANUP(rule_mismatch_clear) struct rule_mismatch mismatch;
        bool matches = rule_compare(rules[i], subject, deny, &mismatch);
        struct json_object *object = new_rule(rules[i]->path, rules[i]->description, deny, matches);
        if (!matches)
            add_mismatch(object, &mismatch);
        json_object_array_add(list, object);
        any = any || matches;
    }
    return any;
}

// The device's own words for what it is, "ID_INPUT=1 ID_INPUT_KEY=1"; NULL: none.
static char *input_found(const struct device *device)
{
    struct text text = {0};
    for (size_t i = 0; i < device->property_count; i++)
        if (strncmp(device->properties[i], "ID_INPUT", strlen("ID_INPUT")) == 0)
            text_printf(&text, "%s%s", text.length > 0 ? " " : "", device->properties[i]);
    return text.length > 0 ? text_take(&text) : NULL;
}

// The older form of evdevPassthrough is a rule by itself.
static bool add_all_inputs(struct json_object *list, const struct group *group, const struct device *device)
{
    bool matches = policy_is_input(device);
    struct json_object *object = new_rule(group->path, NULL, false, matches);
    if (!matches) {
        CLEANUP(cleanup_free) char *found = input_found(device);
        add_text(object, "field", "properties");
        add_text(object, "wanted", input_wanted);
        add_text(object, "found", found);
    }
    json_object_array_add(list, object);
    return matches;
}

// Tries all rules of the group, also those that no longer matter. Returns what the group does.
static const char *try_group(struct json_object *rules, const struct group *group, const struct rule_subject *subject)
{
    if (group->disabled)
        return "disabled";
    bool allowed = group->all_inputs ? add_all_inputs(rules, group, subject->device)
                                     : add_rules(rules, group->allow, group->allow_count, false, subject);
    bool denied = add_rules(rules, group->deny, group->deny_count, true, subject);
    return !allowed ? "no match" : denied ? "denies" : "takes";
}

static struct json_object *groups_json(const struct config *config, const struct device *device)
{
    const struct group_list *list = policy_groups(config, device);
    struct json_object *array = json_object_new_array();
    CLEANUP(rule_subject_clear) struct rule_subject subject;
    rule_subject_init(&subject, device);
    for (size_t i = 0; i < list->count; i++) {
        struct json_object *object = json_object_new_object();
        struct json_object *rules = json_object_new_array();
        const char *result = try_group(rules, &list->groups[i], &subject);
        add_text(object, "path", list->groups[i].path);
        add_text(object, "description", list->groups[i].description);
        add_text(object, "result", result);
        json_object_object_add(object, "rules", rules);
        json_object_array_add(array, object);
    }
    return array;
}

// The other functions of the IOMMU group, and what the rules want of each.
static struct json_object *peers_json(const struct config *config, const struct device *device)
{
    size_t count = device->peer_count + 1;
    CLEANUP(cleanup_free) struct policy_member *members = memory_new(count, sizeof(*members));
    struct json_object *array = json_object_new_array();
    policy_members(config, device, members);
    for (size_t i = 1; i < count; i++) {
        const struct policy_member *member = &members[i];
        struct json_object *object = json_object_new_object();
        CLEANUP(cleanup_free) char *title = device_title(member->device);
        CLEANUP(cleanup_free) char *vms = member->group ? config_group_vms(member->group) : NULL;
        add_text(object, "address", device_pci_address(member->device));
        add_text(object, "title", title);
        add_flag(object, "bridge", device_is_bridge(member->device));
        add_flag(object, "bound", !device_is_bus_bridge(member->device));
        add_text(object, "host_use", member->device->host_use);
        add_text(object, "vms", vms);
        add_text(object, "path", member->rule ? member->rule->path : NULL);
        add_flag(object, "added", member->added);
        json_object_array_add(array, object);
    }
    return array;
}

static void add_iommu_group(struct json_object *object, const struct config *config, const struct device *device)
{
    bool grouped = device->iommu_group >= 0;
    json_object_object_add(object, "iommu_group", grouped ? json_object_new_int64(device->iommu_group) : NULL);
    json_object_object_add(object, "peers", peers_json(config, device));
}

// Whether the host may use the device itself, and why; free with free().
static char *host_reason(const struct device *device, const struct verdict *verdict, const struct rule *rule,
                         bool *authorized)
{
    *authorized = true;
    if (device_is_only_hub(device))
        return string_copy("hubs are always authorized");
    if (device->host_use)
        return string_printf("the host lives on it: %s", device->host_use);
    if (rule && verdict->kind != VERDICT_ALLOWED)
        return string_printf("allowed by %s", rule->path);
    *authorized = false;
    if (rule)
        return string_printf("a VM is to have it: it is the host's by %s once a person has detached it", rule->path);
    if (device_is_hub(device))
        return string_copy("it says that it is a hub and something else, and no rule of usbAuthorization.hostAllow "
                           "names it: when it is plugged it stays unauthorized");
    if (verdict->kind == VERDICT_ALLOWED)
        return string_copy("no rule of usbAuthorization.hostAllow names it: it is authorized only while a VM has it");
    return string_copy("no rule of usbAuthorization.hostAllow names it: when it is plugged it stays unauthorized");
}

static void add_host(struct json_object *object, const struct config *config, const struct device *device,
                     const struct verdict *verdict)
{
    const struct authorization_config *authorization = &config->authorization;
    struct json_object *host = json_object_new_object(), *rules = json_object_new_array();
    CLEANUP(rule_subject_clear) struct rule_subject subject;
    const struct rule *rule;
    bool authorized;
    (void)policy_host_allows(config, device, &rule);
    CLEANUP(cleanup_free) char *reason = host_reason(device, verdict, rule, &authorized);
    rule_subject_init(&subject, device);
    (void)add_rules(rules, authorization->host_allow, authorization->host_allow_count, false, &subject);
    add_flag(host, "authorized", authorized);
    add_text(host, "reason", reason);
    json_object_object_add(host, "rules", rules);
    json_object_object_add(object, "host", host);
}

static bool is_choice(const struct verdict *verdict)
{
    return verdict->kind == VERDICT_ALLOWED && verdict->group->vm_count > 1;
}

static const char *verdict_word(const struct device *device, const struct verdict *verdict)
{
    switch (verdict->kind) {
    case VERDICT_DENIED:
        return "deny";
    case VERDICT_HUB:
        return device_is_bridge(device) ? "bridge" : "hub";
    case VERDICT_SHARED:
        return "shared";
    case VERDICT_HOST:
        return "host";
    case VERDICT_ALLOWED:
        return is_choice(verdict) ? "choose" : "attach";
    case VERDICT_NO_RULE:
    default:
        return "none";
    }
}

static struct json_object *vms_json(const struct verdict *verdict)
{
    struct json_object *array = json_object_new_array();
    for (size_t i = 0; verdict->kind == VERDICT_ALLOWED && i < verdict->group->vm_count; i++)
        json_object_array_add(array, json_object_new_string(verdict->group->vms[i]));
    return array;
}

static void add_verdict(struct json_object *object, const struct config *config, const struct device *device,
                        const struct verdict *verdict)
{
    bool attach = verdict->kind == VERDICT_ALLOWED && !is_choice(verdict);
    const struct group *first = policy_groups(config, device)->groups;
    add_text(object, "verdict", verdict_word(device, verdict));
    json_object_object_add(object, "vm", attach ? json_object_new_string(verdict->group->vms[0]) : NULL);
    json_object_object_add(object, "allowed_vms", vms_json(verdict));
    add_index(object, "group", verdict->group, verdict->group ? (size_t)(verdict->group - first) : 0);
    add_index(object, "rule", verdict->rule, verdict->rule ? verdict->rule->index : 0);
    add_text(object, "reason", verdict->reason);
}

static void add_steps(struct json_object *object, const struct config *config, const struct device *device,
                      const struct verdict *verdict)
{
    // Of a hub no rule is asked.
    bool none = verdict->kind == VERDICT_HUB;
    json_object_object_add(object, "groups", none ? json_object_new_array() : groups_json(config, device));
    if (device->kind == DEVICE_PCI)
        add_iommu_group(object, config, device);
    if (device->kind == DEVICE_USB && config->authorization.enabled)
        add_host(object, config, device, verdict);
}

static struct json_object *verdict_json(const struct config *config, const struct device *device, bool steps)
{
    struct json_object *object = json_object_new_object();
    struct verdict verdict;
    policy_decide(config, device, &verdict);
    add_verdict(object, config, device, &verdict);
    if (steps)
        add_steps(object, config, device, &verdict);
    verdict_clear(&verdict);
    return object;
}

struct json_object *explain_device(const struct config *config, const struct device *device)
{
    return verdict_json(config, device, true);
}

struct json_object *explain_verdict(const struct config *config, const struct device *device)
{
    return verdict_json(config, device, false);
}
