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
    if (i == VM_CLOUD_HYPERVISOR)
        reader_warning(value, "%s is not served yet", vm_types[i]);
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
    if (config_groups_enabled(&draft->config->pci))
        reader_warning(value, "not served yet");
}

static void read_acpi(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct draft *draft = place;
    struct group_list list = {0};
    config_groups_read(value, &draft->vms, RULE_ACPI, &list);
    if (config_groups_enabled(&list))
        reader_warning(value, "not served yet");
    config_groups_clear(&list);
}

// usbAuthorization.hostAllow: rules of devices that the host may use.
static void read_host_allow(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    (void)place;
    size_t count = reader_count(value);
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        rule_free(rule_read(&item, RULE_USB));
    }
}

// Checked and, so far, not kept.
static void read_authorization(const struct reader *value, const struct reader_key *key, void *place)
{
    static const struct reader_key keys[] = {
        {"enable", reader_flag, 0, 0, 0},
        {"disable", reader_flag, 0, 0, 0},
        {"deauthorizeUnmatched", reader_flag, 0, 0, 0},
        {"hostAllow", read_host_allow, 0, 0, 0},
    };
    (void)key;
    (void)place;
    bool unused;
    (void)reader_object(value, keys, LENGTH(keys), READER_WARN, &unused);
    if (json_object_is_type(value->value, json_type_object) && !reader_disabled(value))
        reader_warning(value, "not served yet");
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

// "vm1", or "vm1 or vm2" where people choose; free with free().
static char *target_names(const struct group *group)
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
        tally_add(tallies, &count, target_names(group), group->allow_count);
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
        CLEANUP(cleanup_free) char *names = target_names(group);
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
