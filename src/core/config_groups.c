// Reading of groups, by one table for all kinds.
#include "core/config_groups.h"

#include <string.h>

#include "util/text.h"

#define PREFIX_LENGTH_MAX 64
#define LENGTH(array) (sizeof(array) / sizeof(*(array)))
#define BIT(number) (UINT64_C(1) << (number))

// A group while it is read.
struct draft {
    struct group group;
    const struct config_names *vms;
    enum rule_kind kind;
};

bool config_names_hold(const struct config_names *vms, const char *name)
{
    for (size_t i = 0; i < vms->count; i++)
        if (strcmp(vms->names[i], name) == 0)
            return true;
    return false;
}

static void vm_add(struct group *group, const char *name)
{
    group->vms = memory_resize(group->vms, group->vm_count + 1, sizeof(*group->vms));
    group->vms[group->vm_count++] = string_copy(name);
}

char *config_names_unknown(const struct config_names *vms, const char *name)
{
    CLEANUP(cleanup_free) char *guess = reader_guess(name, vms->names, vms->count);
    struct text text = {0};
    text_add(&text, "vms has no VM named \"");
    text_add_safe(&text, name, 64);
    text_printf(&text, "\"%s", guess);
    return text_take(&text);
}

static void read_target(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    const char *name = reader_string(value);
    if (!name)
        return;
    if (config_names_hold(draft->vms, name)) {
        vm_add(&draft->group, name);
        return;
    }
    CLEANUP(cleanup_free) char *what = config_names_unknown(draft->vms, name);
    reader_error(value, "%s", what);
}

// Reads one of allowedVms. Returns false when it is the name of a VM that is not there: VMs are optional
// on real hosts, so that is no error as long as another one is there.
static bool read_choice(const struct reader *item, struct draft *draft, bool refuse)
{
    const char *name = reader_string(item);
    if (!name)
        return true;
    if (config_names_hold(draft->vms, name)) {
        for (size_t i = 0; i < draft->group.vm_count; i++)
            if (strcmp(draft->group.vms[i], name) == 0)
                return true;
        vm_add(&draft->group, name);
        return true;
    }
    CLEANUP(cleanup_free) char *what = config_names_unknown(draft->vms, name);
    if (refuse)
        reader_error(item, "%s", what);
    else
        reader_warning(item, "%s; left out", what);
    return false;
}

static bool any_known(const struct reader *value, size_t count, const struct config_names *vms)
{
    for (size_t i = 0; i < count; i++) {
        struct json_object *item = json_object_array_get_idx(value->value, i);
        if (json_object_is_type(item, json_type_string) && config_names_hold(vms, json_object_get_string(item)))
            return true;
    }
    return false;
}

static void read_choices(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    size_t count = reader_count(value);
    bool refuse = !any_known(value, count, draft->vms);
    draft->group.chooses = true;
    if (count == 0 && json_object_is_type(value->value, json_type_array))
        reader_error(value, "is empty: it must name at least one VM");
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        (void)read_choice(&item, draft, refuse);
    }
}

void config_groups_read_rules(const struct reader *value, enum rule_kind kind, struct rule ***rules, size_t *rule_count)
{
    size_t count = reader_count(value);
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        CLEANUP(cleanup_rule) struct rule *rule = rule_read(&item, kind);
        if (rule->disabled)
            continue;
        *rules = memory_resize(*rules, *rule_count + 1, sizeof(**rules));
        (*rules)[(*rule_count)++] = steal_pointer(&rule);
    }
}

static void read_allow(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    config_groups_read_rules(value, draft->kind, &draft->group.allow, &draft->group.allow_count);
}

static void read_deny(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    config_groups_read_rules(value, draft->kind, &draft->group.deny, &draft->group.deny_count);
}

static void read_prefix(const struct reader *value, const struct reader_key *key, void *place)
{
    const char *text = reader_string(value);
    if (!text)
        return;
    bool letter = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z');
    if (!letter || text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")])
        reader_error(value, "must be the beginning of the names of PCIe root ports, such as \"ep\"");
    else
        reader_text(value, key, place);
}

#define PLACE(member) offsetof(struct draft, group.member)

// The keys that every kind has come first, in this order; then those of one kind only.
enum { KEY_TARGET, KEY_CHOICES, KEY_ALLOW, KEY_DENY };
#define KEYS                                                                                                           \
    [KEY_TARGET] = {"targetVm", read_target, 0, 0, 0}, [KEY_CHOICES] = {"allowedVms", read_choices, 0, 0, 0},          \
    [KEY_ALLOW] = {"allow", read_allow, 0, 0, 0}, [KEY_DENY] = {"deny", read_deny, 0, 0, 0},                           \
    {"description", reader_remark, PLACE(description), 0, 0}, {"disable", reader_flag, PLACE(disabled), 0, 0},         \
    {"enable", reader_flag, PLACE(disabled), 0, 0}, {"tag", reader_remark, PLACE(tag), 0, 0},                          \
    {                                                                                                                  \
        "skipOnSuspend", reader_flag, PLACE(skip_on_suspend), 0, 0                                                     \
    }

static const struct reader_key group_keys[] = {KEYS};
static const struct reader_key input_keys[] = {
    KEYS,
    {"pcieBusPrefix", read_prefix, PLACE(bus_prefix), 0, PREFIX_LENGTH_MAX},
};
static const struct reader_key pci_keys[] = {
    KEYS,
    {"pciIommuAddAll", reader_flag, PLACE(iommu_add_all), 0, 0},
    {"pciIommuSkipIfShared", reader_flag, PLACE(iommu_skip_if_shared), 0, 0},
    {"autoOvmf", reader_flag, PLACE(auto_ovmf), 0, 0},
    {"qemuUseRootBus", reader_flag, PLACE(qemu_root_bus), 0, 0},
    {"crosvmUseRootBus", reader_flag, PLACE(crosvm_root_bus), 0, 0},
};

static const struct {
    const struct reader_key *keys;
    size_t count;
    enum reader_unknown unknown;
} kinds[] = {
    [RULE_USB] = {group_keys, LENGTH(group_keys), READER_REFUSE},
    [RULE_INPUT] = {input_keys, LENGTH(input_keys), READER_REFUSE},
    [RULE_PCI] = {pci_keys, LENGTH(pci_keys), READER_REFUSE},
    [RULE_ACPI] = {group_keys, LENGTH(group_keys), READER_WARN},
};

static void check_vms(const struct reader *reader, uint64_t present)
{
    bool target = present & BIT(KEY_TARGET), choices = present & BIT(KEY_CHOICES);
    if (target && choices)
        reader_error(reader, "targetVm and allowedVms exclude each other");
    if (!target && !choices)
        reader_error(reader, "names no VM: targetVm or allowedVms is missing");
}

static uint64_t group_read(const struct reader *reader, struct draft *draft)
{
    draft->group.path = reader_path(reader);
    uint64_t present =
        reader_object(reader, kinds[draft->kind].keys, kinds[draft->kind].count, kinds[draft->kind].unknown, draft);
    draft->group.disabled = reader_disabled(reader);
    return present;
}

static void group_clear(struct group *group)
{
    for (size_t i = 0; i < group->vm_count; i++)
        free(group->vms[i]);
    for (size_t i = 0; i < group->allow_count; i++)
        rule_free(group->allow[i]);
    for (size_t i = 0; i < group->deny_count; i++)
        rule_free(group->deny[i]);
    free(group->vms);
    free(group->allow);
    free(group->deny);
    free(group->path);
    free(group->description);
    free(group->tag);
    free(group->bus_prefix);
}

static void group_add(struct group_list *list, const struct group *group)
{
    list->groups = memory_resize(list->groups, list->count + 1, sizeof(*list->groups));
    list->groups[list->count++] = *group;
}

static void read_listed(const struct reader *reader, struct draft *draft, struct group_list *list)
{
    uint64_t present = group_read(reader, draft);
    if (json_object_is_type(reader->value, json_type_object)) {
        check_vms(reader, present);
        if (!draft->group.disabled && draft->group.allow_count == 0)
            reader_warning(reader, "has no allow rule in force: it takes nothing");
    }
    group_add(list, &draft->group);
}

// The older form of evdevPassthrough: no rules, all that people type and point with. Python took an
// empty object for nothing at all.
static void read_single(const struct reader *reader, struct draft *draft, struct group_list *list)
{
    size_t errors_before = reader->report->errors.count;
    uint64_t present = group_read(reader, draft);
    if (present == 0 && reader->report->errors.count == errors_before) {
        group_clear(&draft->group);
        return;
    }
    if (present & (BIT(KEY_ALLOW) | BIT(KEY_DENY)))
        reader_error(reader, "allow and deny need the form with a list of groups: [{ … }]");
    check_vms(reader, present);
    draft->group.all_inputs = true;
    group_add(list, &draft->group);
}

void config_groups_read(const struct reader *reader, const struct config_names *vms, enum rule_kind kind,
                        struct group_list *list)
{
    if (kind == RULE_INPUT && json_object_is_type(reader->value, json_type_object)) {
        struct draft draft = {.vms = vms, .kind = kind};
        read_single(reader, &draft, list);
        return;
    }
    size_t count = reader_count(reader);
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(reader, i);
        struct draft draft = {.vms = vms, .kind = kind};
        read_listed(&item, &draft, list);
    }
}

void config_groups_clear(struct group_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        group_clear(&list->groups[i]);
    free(list->groups);
    *list = (struct group_list){0};
}
