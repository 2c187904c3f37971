// Reading of rules, by a table for each kind.
#include "core/rule.h"

#include <stdio.h>
#include <string.h>

#include "util/text.h"

#define PORT_NUMBER_MAX 65535

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))
#define BIT(number) RULE_FIELD(number)

static void read_pattern(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    const char *text = reader_string(value);
    if (!text)
        return;
    if (!*text) {
        reader_error(value, "is empty: it would match everything; write .* if that is meant");
        return;
    }
    CLEANUP(cleanup_free) char *error = NULL;
    struct pattern *pattern = pattern_new(text, &error);
    if (pattern)
        *(struct pattern **)place = pattern;
    else
        reader_error(value, "bad regular expression: %s", error);
}

static void read_port_path(const struct reader *value, const struct reader_key *key, void *place)
{
    const char *text = reader_string(value);
    if (!text)
        return;
    if (text[strspn(text, "0123456789-.*?[]!")])
        reader_error(value, "must be a port chain such as \"1-2.3\", or a pattern of such with * ? [ ]");
    else
        reader_text(value, key, place);
}

static void read_removable_word(const struct reader *value, unsigned *set)
{
    static const char *const words[] = {"fixed", "removable", "unknown"};
    static const enum usb_removable values[] = {REMOVABLE_FIXED, REMOVABLE_REMOVABLE, REMOVABLE_UNKNOWN};
    size_t i;
    if (reader_word(value, words, LENGTH(words), &i))
        *set |= 1U << values[i];
}

// A list of words; a single word that is no list can only mean one thing.
static void read_removable(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    if (json_object_is_type(value->value, json_type_string)) {
        read_removable_word(value, place);
        return;
    }
    size_t count = reader_count(value);
    if (count == 0 && json_object_is_type(value->value, json_type_array))
        reader_error(value, "is empty: it would match nothing");
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        read_removable_word(&item, place);
    }
}

// udev's properties are texts; a number stands for its digits.
static void read_property_value(const struct reader *value, const struct reader_key *key, void *place)
{
    if (!json_object_is_type(value->value, json_type_int)) {
        reader_text(value, key, place);
        return;
    }
    char **text = place;
    free(*text);
    *text = string_copy(json_object_get_string(value->value));
}

static void read_address(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    const char *text = reader_string(value);
    if (!text)
        return;
    char *canonical = device_parse_pci_address(text);
    if (!canonical) {
        reader_error(value, "must be a PCI address such as \"0000:00:14.3\"");
        return;
    }
    char **address = place;
    free(*address);
    *address = canonical;
}

#define PLACE(member) offsetof(struct rule, member)
#define BYTE(member) reader_number, PLACE(member), 0, 255
#define NUMBER(member) reader_number, PLACE(member), 1, PORT_NUMBER_MAX
#define GLOB(member) PLACE(member), 0, RULE_GLOB_MAX
#define PATTERN(member) read_pattern, PLACE(member), 0, 0
// Both switches are only checked by these; reader_disabled has the last word.
#define COMMON                                                                                                         \
    {"description", reader_remark, PLACE(description), 0, 0}, {"disable", reader_flag, PLACE(disabled), 0, 0},         \
    {                                                                                                                  \
        "enable", reader_flag, PLACE(disabled), 0, 0                                                                   \
    }

static const struct reader_key usb_keys[] = {
    [USB_VENDOR_ID] = {"vendorId", reader_hex, PLACE(vendor_id), 0, 0},
    [USB_PRODUCT_ID] = {"productId", reader_hex, PLACE(product_id), 0, 0},
    [USB_VENDOR_NAME] = {"vendorName", PATTERN(vendor_name)},
    [USB_PRODUCT_NAME] = {"productName", PATTERN(product_name)},
    [USB_BUS] = {"bus", NUMBER(bus)},
    [USB_PORT] = {"port", NUMBER(port)},
    [USB_INTERFACE_CLASS] = {"interfaceClass", BYTE(interface_class)},
    [USB_INTERFACE_SUBCLASS] = {"interfaceSubclass", BYTE(interface_subclass)},
    [USB_INTERFACE_PROTOCOL] = {"interfaceProtocol", BYTE(interface_protocol)},
    [USB_DEVICE_CLASS] = {"deviceClass", BYTE(device_class)},
    [USB_DEVICE_SUBCLASS] = {"deviceSubclass", BYTE(device_subclass)},
    [USB_DEVICE_PROTOCOL] = {"deviceProtocol", BYTE(device_protocol)},
    [USB_REMOVABLE] = {"removable", read_removable, PLACE(removable), 0, 0},
    [USB_DRIVER_PATH] = {"driverPath", PATTERN(driver_path)},
    [USB_SERIAL] = {"serial", PATTERN(serial)},
    [USB_PORT_PATH] = {"portPath", read_port_path, GLOB(port_path)},
    [USB_ID_PATH] = {"idPath", reader_text, GLOB(id_path)},
    COMMON,
};

static const struct reader_key input_keys[] = {
    [INPUT_NAME] = {"name", PATTERN(name)},
    [INPUT_PATH_TAG] = {"pathTag", PATTERN(path_tag)},
    [INPUT_PROPERTY] = {"property", reader_text, PLACE(property), 0, 0},
    [INPUT_VALUE] = {"value", read_property_value, PLACE(value), 0, 0},
    COMMON,
};

static const struct reader_key pci_keys[] = {
    [PCI_ADDRESS] = {"address", read_address, PLACE(address), 0, 0},
    [PCI_VENDOR] = {"vendorId", reader_hex, PLACE(vendor_id), 0, 0},
    [PCI_DEVICE] = {"deviceId", reader_hex, PLACE(product_id), 0, 0},
    [PCI_CLASS] = {"deviceClass", BYTE(device_class)},
    [PCI_SUBCLASS] = {"deviceSubclass", BYTE(device_subclass)},
    [PCI_PROG_IF] = {"deviceProgIf", BYTE(device_protocol)},
    COMMON,
};

static const struct reader_key acpi_keys[] = {
    [ACPI_TABLE] = {"acpiTable", reader_path_name, PLACE(acpi_table), 0, 0},
    [ACPI_USER] = {"setUser", reader_text, PLACE(set_user), 0, 0},
    [ACPI_GROUP] = {"setGroup", reader_text, PLACE(set_group), 0, 0},
    COMMON,
};

// The tables by kind; the first FIELDS keys of each are what a rule matches by.
static const struct {
    const struct reader_key *keys;
    size_t count, fields;
    enum reader_unknown unknown;
} kinds[] = {
    [RULE_USB] = {usb_keys, LENGTH(usb_keys), USB_FIELDS, READER_REFUSE},
    [RULE_INPUT] = {input_keys, LENGTH(input_keys), INPUT_FIELDS, READER_REFUSE},
    [RULE_PCI] = {pci_keys, LENGTH(pci_keys), PCI_FIELDS, READER_REFUSE},
    [RULE_ACPI] = {acpi_keys, LENGTH(acpi_keys), ACPI_FIELDS, READER_WARN},
};

// Fields that the Python vhotplug took as one condition. It asked for NEEDED of them at least, and took
// a device that met any one condition.
static const struct {
    uint64_t fields, needed;
    const char *names, *missing;
} conditions[] = {
    {BIT(USB_VENDOR_ID) | BIT(USB_PRODUCT_ID), BIT(USB_VENDOR_ID) | BIT(USB_PRODUCT_ID), "ids",
     "vendorId and productId together"},
    {BIT(USB_VENDOR_NAME), 0, "vendor name", ""},
    {BIT(USB_PRODUCT_NAME), 0, "product name", ""},
    {BIT(USB_BUS) | BIT(USB_PORT), BIT(USB_BUS) | BIT(USB_PORT), "bus and port", "bus and port together"},
    {BIT(USB_DEVICE_CLASS) | BIT(USB_DEVICE_SUBCLASS) | BIT(USB_DEVICE_PROTOCOL), BIT(USB_DEVICE_CLASS), "device class",
     "deviceClass"},
    {BIT(USB_INTERFACE_CLASS) | BIT(USB_INTERFACE_SUBCLASS) | BIT(USB_INTERFACE_PROTOCOL), BIT(USB_INTERFACE_CLASS),
     "interface class", "interfaceClass"},
};

static void note_differences(const struct reader *reader, const struct rule *rule)
{
    CLEANUP(text_clear) struct text names = {0};
    unsigned count = 0;
    for (size_t i = 0; i < LENGTH(conditions); i++) {
        if (!(rule->fields & conditions[i].fields))
            continue;
        text_printf(&names, "%s%s", count++ ? ", " : "", conditions[i].names);
        if ((rule->fields & conditions[i].needed) != conditions[i].needed)
            reader_note(reader, "matches here, but had no effect in the Python vhotplug, which wanted %s",
                        conditions[i].missing);
    }
    if (count > 1)
        reader_note(reader, "all must match here (%s); the Python vhotplug took a device that matched any of them",
                    names.string);
}

static void check(const struct reader *reader, const struct rule *rule, size_t errors_before)
{
    if (reader->report->errors.count > errors_before)
        return; // what is missing may be what was wrong
    if (!(rule->fields & (BIT(kinds[rule->kind].fields) - 1)))
        reader_error(reader, "this rule is empty: it names nothing to match by");
    else if (rule->kind == RULE_INPUT && !rule->property != !rule->value)
        reader_error(reader, "property and value go together, and %s is missing", rule->value ? "property" : "value");
    else if (rule->kind == RULE_USB)
        note_differences(reader, rule);
}

const char *rule_field_name(enum rule_kind kind, unsigned field)
{
    return kinds[kind].keys[field].name;
}

struct rule *rule_read(const struct reader *reader, enum rule_kind kind)
{
    struct rule *rule = memory_new(1, sizeof(*rule));
    size_t errors_before = reader->report->errors.count;
    rule->kind = kind;
    rule->path = reader_path(reader);
    rule->index = reader->index;
    rule->fields = reader_object(reader, kinds[kind].keys, kinds[kind].count, kinds[kind].unknown, rule);
    rule->disabled = reader_disabled(reader);
    check(reader, rule, errors_before);
    return rule;
}

void rule_free(struct rule *rule)
{
    if (!rule)
        return;
    pattern_free(rule->vendor_name);
    pattern_free(rule->product_name);
    pattern_free(rule->serial);
    pattern_free(rule->driver_path);
    pattern_free(rule->name);
    pattern_free(rule->path_tag);
    char *const texts[] = {rule->path,  rule->description, rule->port_path,  rule->id_path,  rule->property,
                           rule->value, rule->address,     rule->acpi_table, rule->set_user, rule->set_group};
    for (size_t i = 0; i < LENGTH(texts); i++)
        free(texts[i]);
    free(rule);
}
