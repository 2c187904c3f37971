// The configuration file as a whole: its top level and VMs.
#include "core/config.h"

#include <string.h>
#include <sys/un.h>

#include "core/config_general.h"
#include "core/config_groups.h"
#include "core/operation.h"
#include "core/reader.h"
#include "core/rule.h"
#include "core/syntax.h"
#include "util/json.h"
#include "util/text.h"

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))
#define SOCKET_LENGTH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)
#define VM_NAME_SHOWN_MAX 64
#define BIT(number) (UINT64_C(1) << (number))

// The file while it is read.
struct draft {
    struct config *config;
    struct config_names vms;
};

struct vm_draft {
    struct vm_config vm;
    bool type_known;
};

static const char *const vm_types[] = {
    [VM_QEMU] = "qemu", [VM_CROSVM] = "crosvm", [VM_CLOUD_HYPERVISOR] = "cloud-hypervisor"};

const char *config_vm_type(enum vm_type type)
{
    return vm_types[type];
}

static void read_vm_name(const struct reader *value, const struct reader_key *key, void *place)
{
    const char *name = reader_string(value);
    if (!name)
        return;
    for (const char *byte = name; *byte; byte++) {
        if ((unsigned char)*byte < 0x20 || *byte == 0x7f) {
            reader_error(value, "holds a control character");
            return;
        }
    }
    reader_text(value, key, place);
}

static void read_vm_type(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct vm_draft *draft = place;
    size_t i;
    if (!reader_word(value, vm_types, LENGTH(vm_types), &i))
        return;
    draft->vm.type = (enum vm_type)i;
    draft->type_known = true;
}

enum vm_key { VM_KEY_NAME, VM_KEY_TYPE, VM_KEY_SOCKET };
static const struct reader_key vm_keys[] = {
    [VM_KEY_NAME] = {"name", read_vm_name, offsetof(struct vm_draft, vm.name), 0, VM_NAME_MAX - 1},
    [VM_KEY_TYPE] = {"type", read_vm_type, 0, 0, 0},
    [VM_KEY_SOCKET] = {"socket", reader_path_name, offsetof(struct vm_draft, vm.socket), 0, SOCKET_LENGTH_MAX},
};

static void check_vm(const struct reader *reader, const struct config *config, const struct vm_draft *draft,
                     uint64_t present)
{
    if (!(present & BIT(VM_KEY_NAME)))
        reader_error(reader, "name is missing");
    if (!(present & BIT(VM_KEY_TYPE)))
        reader_error(reader, "type is missing: qemu, crosvm or cloud-hypervisor");
    if (!(present & BIT(VM_KEY_SOCKET)) && draft->type_known && draft->vm.type != VM_CLOUD_HYPERVISOR)
        reader_error(reader, "socket is missing: the path of the VM's control socket");
    for (size_t i = 0; i < config->vm_count; i++) {
        if (draft->vm.name && string_equal(config->vms[i].name, draft->vm.name))
            reader_error(reader, "vms[%zu] has the same name", i);
        if (draft->vm.socket && string_equal(config->vms[i].socket, draft->vm.socket))
            reader_error(reader, "vms[%zu] has the same socket: each VM needs its own", i);
    }
}

static void read_vms(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct config *config = ((struct draft *)place)->config;
    size_t count = reader_count(value);
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        struct vm_draft draft = {0};
        uint64_t present = reader_object(&item, vm_keys, LENGTH(vm_keys), READER_WARN, &draft);
        if (json_object_is_type(item.value, json_type_object))
            check_vm(&item, config, &draft, present);
        config->vms = memory_resize(config->vms, config->vm_count + 1, sizeof(*config->vms));
        config->vms[config->vm_count++] = draft.vm;
    }
}

static void read_usb(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    config_groups_read(value, &draft->vms, RULE_USB, &draft->config->usb);
}

static void read_input(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    config_groups_read(value, &draft->vms, RULE_INPUT, &draft->config->input);
}

static void read_pci(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    config_groups_read(value, &draft->vms, RULE_PCI, &draft->config->pci);
}

static void read_acpi(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    config_groups_read(value, &draft->vms, RULE_ACPI, &draft->config->acpi);
}

static void read_host_allow(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct authorization_config *authorization = place;
    config_groups_read_rules(value, RULE_USB, &authorization->host_allow, &authorization->host_allow_count);
}

#define PLACE(member) offsetof(struct authorization_config, member)
enum authorization_key { AUTHORIZATION_ENABLE, AUTHORIZATION_DISABLE };
static const struct reader_key authorization_keys[] = {
    [AUTHORIZATION_ENABLE] = {"enable", reader_flag, PLACE(enabled), 0, 0}, // reader_disabled has the last word on both
    [AUTHORIZATION_DISABLE] = {"disable", reader_flag, PLACE(enabled), 0, 0},
    {"deauthorizeUnmatched", reader_flag, PLACE(deauthorize_unmatched), 0, 0},
    {"hostAllow", read_host_allow, 0, 0, 0},
};
#undef PLACE

// Off unless it is switched on, as in Python: it can take a keyboard from people.
static void read_authorization(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct authorization_config *authorization = &((struct draft *)place)->config->authorization;
    uint64_t present = reader_object(value, authorization_keys, LENGTH(authorization_keys), READER_WARN, authorization);
    if (!json_object_is_type(value->value, json_type_object))
        return;
    bool given = present & (BIT(AUTHORIZATION_ENABLE) | BIT(AUTHORIZATION_DISABLE));
    authorization->enabled = !reader_disabled(value) && given;
    if (!given && present)
        reader_warning(value, "has no effect without \"enable\": true");
}

static void read_general(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    config_general_read(value, &draft->vms, draft->config);
}

static const struct reader_key top_keys[] = {
    {"usbPassthrough", read_usb, 0, 0, 0},
    {"evdevPassthrough", read_input, 0, 0, 0},
    {"pciPassthrough", read_pci, 0, 0, 0},
    {"acpiPassthrough", read_acpi, 0, 0, 0},
    {"usbAuthorization", read_authorization, 0, 0, 0},
    {"vms", read_vms, 0, 0, 0},
    {"general", read_general, 0, 0, 0},
};

// Groups may stand before vms: their names are needed first.
static void collect_names(struct json_object *file, struct config_names *vms)
{
    struct json_object *list = NULL, *name = NULL;
    (void)json_object_object_get_ex(file, "vms", &list);
    if (!json_object_is_type(list, json_type_array))
        return;
    size_t count = json_object_array_length(list);
    vms->names = memory_new(count, sizeof(*vms->names));
    for (size_t i = 0; i < count; i++)
        if (json_object_object_get_ex(json_object_array_get_idx(list, i), "name", &name) &&
            json_object_is_type(name, json_type_string))
            vms->names[vms->count++] = json_object_get_string(name);
}

// What VMs of a type do with the devices of a section.
enum taking { TAKES, TAKES_AT_START, TAKES_NONE };
static const struct {
    const char *things;
    enum taking taking[VM_CLOUD_HYPERVISOR + 1];
} sections[] = {
    [RULE_USB] = {"USB devices", {[VM_CLOUD_HYPERVISOR] = TAKES_NONE}},
    [RULE_INPUT] = {"input devices", {[VM_CROSVM] = TAKES_AT_START, [VM_CLOUD_HYPERVISOR] = TAKES_NONE}},
    [RULE_PCI] = {"PCI functions", {[VM_CROSVM] = TAKES_AT_START, [VM_CLOUD_HYPERVISOR] = TAKES_AT_START}},
    [RULE_ACPI] = {"ACPI tables", {[VM_CLOUD_HYPERVISOR] = TAKES_NONE}},
};

static void check_vm_type(const struct config *config, const struct group *group, const struct vm_config *vm,
                          enum rule_kind kind, struct config_report *report)
{
    const char *things = sections[kind].things, *type = vm_types[vm->type];
    CLEANUP(text_clear) struct text name = {0};
    text_add_safe(&name, vm->name, VM_NAME_SHOWN_MAX);
    switch (sections[kind].taking[vm->type]) {
    case TAKES_AT_START:
        reader_add(&report->notes, "%s: %s: %s is a %s VM, which takes %s only at its start: ask for vmm_args",
                   config->file, group->path, name.string, type, things);
        break;
    case TAKES_NONE:
        reader_add(&report->warnings, "%s: %s: %s is a %s VM, which takes no %s", config->file, group->path,
                   name.string, type, things);
        break;
    case TAKES:
    default:
        break;
    }
}

// Whether QEMU is to get firmware files that the configuration does not name.
static void check_firmware(const struct config *config, const struct group *group, struct config_report *report)
{
    if (group->auto_ovmf && (!config->ovmf_code || !config->ovmf_vars))
        reader_add(&report->warnings,
                   "%s: %s.autoOvmf: general.%s is missing: no arguments can be made for a VM that gets an NVIDIA "
                   "display controller",
                   config->file, group->path, config->ovmf_code ? "ovmfVars" : "ovmfCode");
}

static void check_list(const struct config *config, const struct group_list *list, enum rule_kind kind,
                       struct config_report *report)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct group *group = &list->groups[i];
        bool qemu = false;
        for (size_t j = 0; j < group->vm_count; j++) {
            const struct vm_config *vm = config_vm(config, group->vms[j]);
            if (!vm || group->disabled)
                continue;
            check_vm_type(config, group, vm, kind, report);
            qemu = qemu || vm->type == VM_QEMU;
        }
        if (qemu)
            check_firmware(config, group, report);
    }
}

// What the groups ask of VMs whose type cannot do it while they run, or at all.
static void check_groups(const struct config *config, struct config_report *report)
{
    check_list(config, &config->usb, RULE_USB, report);
    check_list(config, &config->input, RULE_INPUT, report);
    check_list(config, &config->pci, RULE_PCI, report);
    check_list(config, &config->acpi, RULE_ACPI, report);
}

struct config *config_parse(const char *file, const char *text, size_t length, struct config_report *report)
{
    *report = (struct config_report){0};
    CLEANUP(cleanup_json) struct json_object *value = syntax_parse(file, text, length, &report->errors);
    if (!value)
        return NULL;
    CLEANUP(cleanup_config) struct config *config = memory_new(1, sizeof(*config));
    config->file = string_copy(file);
    config_general_defaults(config);
    struct draft draft = {.config = config};
    collect_names(value, &draft.vms);
    struct reader top = {.file = file, .report = report, .value = value};
    (void)reader_object(&top, top_keys, LENGTH(top_keys), READER_WARN, &draft);
    free(draft.vms.names);
    config_general_check(&top, config);
    if (report->errors.count > 0)
        return NULL;
    check_groups(config, report);
    if (config->vm_count == 0)
        reader_warning(&top, "vms names no VM: nothing will be attached");
    return steal_pointer(&config);
}

void config_free(struct config *config)
{
    if (!config)
        return;
    config_groups_clear(&config->usb);
    config_groups_clear(&config->input);
    config_groups_clear(&config->pci);
    config_groups_clear(&config->acpi);
    for (size_t i = 0; i < config->authorization.host_allow_count; i++)
        rule_free(config->authorization.host_allow[i]);
    free(config->authorization.host_allow);
    config_general_clear(config);
    for (size_t i = 0; i < config->vm_count; i++) {
        free(config->vms[i].name);
        free(config->vms[i].socket);
    }
    free(config->vms);
    free(config->file);
    free(config);
}

static void messages_clear(struct config_messages *messages)
{
    for (size_t i = 0; i < messages->count; i++)
        free(messages->lines[i]);
    free(messages->lines);
    *messages = (struct config_messages){0};
}

void config_report_clear(struct config_report *report)
{
    messages_clear(&report->errors);
    messages_clear(&report->warnings);
    messages_clear(&report->notes);
}

const struct vm_config *config_vm(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->vm_count; i++)
        if (strcmp(config->vms[i].name, name) == 0)
            return &config->vms[i];
    return NULL;
}

char *config_group_vms(const struct group *group)
{
    struct text text = {0};
    for (size_t i = 0; i < group->vm_count; i++) {
        text_add(&text, i > 0 ? " or " : "");
        text_add_safe(&text, group->vms[i], VM_NAME_MAX);
    }
    return text_take(&text);
}

// How many rules there are for the VMs named TARGET.
struct tally {
    char *target;
    size_t rules;
};

// Adds RULES for TARGET, now owned, to the tallies; room for one more is there.
static void tally_add(struct tally *tallies, size_t *count, char *target, size_t rules)
{
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(tallies[i].target, target) == 0) {
            tallies[i].rules += rules;
            free(target);
            return;
        }
    }
    tallies[(*count)++] = (struct tally){target, rules};
}

// "3 USB allow rules (vm1: 2, vm2: 1)"
static void add_rules(struct text *text, const char *kind, const struct group_list *list)
{
    CLEANUP(cleanup_free) struct tally *tallies = memory_new(list->count, sizeof(*tallies));
    size_t count = 0, total = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct group *group = &list->groups[i];
        if (group->disabled || group->allow_count == 0)
            continue;
        total += group->allow_count;
        tally_add(tallies, &count, config_group_vms(group), group->allow_count);
    }
    if (total == 0)
        text_printf(text, "no %s allow rules", kind);
    else
        text_printf(text, "%zu %s allow rule%s", total, kind, total == 1 ? "" : "s");
    for (size_t i = 0; i < count; i++) {
        text_printf(text, "%s%s: %zu", i == 0 ? " (" : ", ", tallies[i].target, tallies[i].rules);
        free(tallies[i].target);
    }
    text_add(text, count > 0 ? ")" : "");
}

static bool has_rules(const struct group_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (!list->groups[i].disabled && list->groups[i].allow_count > 0)
            return true;
    return false;
}

char *config_summary(const struct config *config)
{
    struct text text = {0};
    add_rules(&text, "USB", &config->usb);
    if (has_rules(&config->input)) {
        text_add(&text, ", ");
        add_rules(&text, "input", &config->input);
    }
    for (size_t i = 0; i < config->input.count; i++) {
        const struct group *group = &config->input.groups[i];
        CLEANUP(cleanup_free) char *names = config_group_vms(group);
        if (group->all_inputs && !group->disabled)
            text_printf(&text, ", all input devices (%s)", names);
    }
    if (has_rules(&config->pci)) {
        text_add(&text, ", ");
        add_rules(&text, "PCI", &config->pci);
    }
    text_printf(&text, ", %zu VM%s", config->vm_count, config->vm_count == 1 ? "" : "s");
    return text_take(&text);
}
