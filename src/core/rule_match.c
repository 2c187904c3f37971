// Matching of rules: whether a device is what a rule describes, and if not, on which field it differs.
#include "core/rule.h"

#include <string.h>

#include "util/text.h"

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))
#define TEXT_SHOWN_MAX 1000

// Matching of regular expressions is what takes time: it comes last.
#define USB_SLOW                                                                                                       \
    (RULE_FIELD(USB_VENDOR_NAME) | RULE_FIELD(USB_PRODUCT_NAME) | RULE_FIELD(USB_DRIVER_PATH) | RULE_FIELD(USB_SERIAL))
#define INPUT_SLOW (RULE_FIELD(INPUT_NAME) | RULE_FIELD(INPUT_PATH_TAG))

// ---- the names of a device

// The name as udev's properties have it, where Python's users saw it: blanks are _, none at the ends,
// and with OTHERS so is whatever is not common in file names.
static char *udev_name(const char *name, bool others)
{
    static const char blanks[] = " \t\n\v\f\r";
    size_t length = 0;
    name += strspn(name, blanks);
    char *result = memory_new(strnlen(name, PATTERN_SUBJECT_MAX) + 1, 1);
    while (*name && length < PATTERN_SUBJECT_MAX) {
        size_t run = strspn(name, blanks);
        unsigned char byte = (unsigned char)*name;
        bool plain = byte >= 0x80 || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                     (byte >= '0' && byte <= '9') || strchr("#+-.:=@_\\", byte);
        if (run > 0 && !name[run])
            break;
        result[length++] = (char)(run > 0 || (others && !plain) ? '_' : byte);
        name += run > 0 ? run : 1;
    }
    return result;
}

// Adds NAME, now owned, unless it is there already.
static void name_add(char *names[RULE_NAMES_MAX], size_t *count, char *name)
{
    bool new = name != NULL;
    for (size_t i = 0; new &&i < *count; i++)
        new = strcmp(names[i], name) != 0;
    if (new)
        names[(*count)++] = name;
    else
        free(name);
}

// A name counts as the database has it and as the device reports it, raw and in udev's forms. Without
// any it counts as empty, as it did in Python.
static size_t names_make(char *names[RULE_NAMES_MAX], const char *database, const char *reported)
{
    size_t count = 0;
    name_add(names, &count, string_copy(database));
    name_add(names, &count, string_copy(reported));
    name_add(names, &count, reported ? udev_name(reported, false) : NULL);
    name_add(names, &count, reported ? udev_name(reported, true) : NULL);
    if (count == 0)
        name_add(names, &count, string_copy(""));
    return count;
}

void rule_subject_init(struct rule_subject *subject, const struct device *device)
{
    *subject = (struct rule_subject){.device = device};
    subject->vendor_count = names_make(subject->vendor, device->vendor_database, device->vendor_reported);
    subject->product_count = names_make(subject->product, device->product_database, device->product_reported);
}

void rule_subject_clear(struct rule_subject *subject)
{
    for (size_t i = 0; i < subject->vendor_count; i++)
        free(subject->vendor[i]);
    for (size_t i = 0; i < subject->product_count; i++)
        free(subject->product[i]);
    *subject = (struct rule_subject){0};
}

// ---- one field, which the rule has given. What the device does not have does not fit.

static bool pattern_fits(const struct pattern *pattern, const char *subject, bool otherwise)
{
    return subject && pattern_matches(pattern, subject, otherwise);
}

static bool glob_fits(const char *glob, const char *subject)
{
    return subject && strlen(subject) <= RULE_GLOB_MAX && pattern_glob(glob, subject);
}

static bool name_fits(const struct pattern *pattern, char *const names[RULE_NAMES_MAX], size_t count, bool otherwise)
{
    for (size_t i = 0; i < count; i++)
        if (pattern_matches(pattern, names[i], otherwise))
            return true;
    return false;
}

static bool number_fits(uint64_t fields, enum usb_key field, unsigned wanted, unsigned number)
{
    return !(fields & RULE_FIELD(field)) || wanted == number;
}

// Whether the interface has what those FIELDS of the rule want.
static bool is_interface(const struct rule *rule, uint64_t fields, const struct usb_interface *interface)
{
    return number_fits(fields, USB_INTERFACE_CLASS, rule->interface_class, interface->class) &&
           number_fits(fields, USB_INTERFACE_SUBCLASS, rule->interface_subclass, interface->subclass) &&
           number_fits(fields, USB_INTERFACE_PROTOCOL, rule->interface_protocol, interface->protocol);
}

// The interface fields of the rule before FIELD.
static uint64_t fields_before(const struct rule *rule, enum usb_key field)
{
    return rule->fields & (RULE_FIELD(field) - 1);
}

// Interface fields describe one and the same interface: there must be one that fits up to this field.
static bool interface_fits(const struct rule *rule, enum usb_key field, const struct device *device)
{
    uint64_t fields = fields_before(rule, field) | RULE_FIELD(field);
    for (size_t i = 0; i < device->interface_count; i++)
        if (is_interface(rule, fields, &device->interfaces[i]))
            return true;
    return false;
}

// The first interface that tells what the device is: neither unspecified nor vendor's own; NULL: none.
static const struct usb_interface *telling_interface(const struct device *device)
{
    for (size_t i = 0; i < device->interface_count; i++)
        if (device->interfaces[i].class != 0 && device->interfaces[i].class != 255)
            return &device->interfaces[i];
    return NULL;
}

// The driver tells what a device is only where its interfaces do not.
static bool driver_fits(const struct rule *rule, const struct device *device, bool otherwise)
{
    if (telling_interface(device))
        return false;
    for (size_t i = 0; i < device->driver_count; i++)
        if (pattern_matches(rule->driver_path, device->drivers[i], otherwise))
            return true;
    return false;
}

static bool usb_fits(const struct rule *rule, unsigned field, const struct rule_subject *subject, bool otherwise)
{
    const struct device *device = subject->device;
    switch ((enum usb_key)field) {
    case USB_VENDOR_ID:
        return rule->vendor_id == device->vendor_id;
    case USB_PRODUCT_ID:
        return rule->product_id == device->product_id;
    case USB_VENDOR_NAME:
        return name_fits(rule->vendor_name, subject->vendor, subject->vendor_count, otherwise);
    case USB_PRODUCT_NAME:
        return name_fits(rule->product_name, subject->product, subject->product_count, otherwise);
    case USB_BUS:
        return rule->bus == device->bus;
    case USB_PORT:
        return rule->port == device->root_port;
    case USB_INTERFACE_CLASS:
    case USB_INTERFACE_SUBCLASS:
    case USB_INTERFACE_PROTOCOL:
        return interface_fits(rule, (enum usb_key)field, device);
    case USB_DEVICE_CLASS:
        return rule->device_class == device->class;
    case USB_DEVICE_SUBCLASS:
        return rule->device_subclass == device->subclass;
    case USB_DEVICE_PROTOCOL:
        return rule->device_protocol == device->protocol;
    case USB_REMOVABLE:
        return rule->removable & (1U << device->removable);
    case USB_DRIVER_PATH:
        return driver_fits(rule, device, otherwise);
    case USB_SERIAL:
        return pattern_fits(rule->serial, device->serial, otherwise);
    case USB_PORT_PATH:
        return glob_fits(rule->port_path, device->port_path);
    case USB_ID_PATH:
        return glob_fits(rule->id_path, device->id_path);
    case USB_FIELDS:
    default:
        return false;
    }
}

// The value of the device's property of that name, or NULL.
static const char *property_find(const struct device *device, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < device->property_count; i++)
        if (strncmp(device->properties[i], name, length) == 0 && device->properties[i][length] == '=')
            return device->properties[i] + length + 1;
    return NULL;
}

static bool input_fits(const struct rule *rule, unsigned field, const struct rule_subject *subject, bool otherwise)
{
    switch ((enum input_key)field) {
    case INPUT_NAME:
        return name_fits(rule->name, subject->product, subject->product_count, otherwise);
    case INPUT_PATH_TAG:
        return pattern_fits(rule->path_tag, subject->device->path_tag, otherwise);
    case INPUT_PROPERTY:
        return property_find(subject->device, rule->property);
    case INPUT_VALUE: // goes together with property
        return string_equal(property_find(subject->device, rule->property), rule->value);
    case INPUT_FIELDS:
    default:
        return false;
    }
}

static bool pci_fits(const struct rule *rule, unsigned field, const struct rule_subject *subject, bool otherwise)
{
    const struct device *device = subject->device;
    (void)otherwise;
    switch ((enum pci_key)field) {
    case PCI_ADDRESS:
        return string_equal(rule->address, device_pci_address(device));
    case PCI_VENDOR:
        return rule->vendor_id == device->vendor_id;
    case PCI_DEVICE:
        return rule->product_id == device->product_id;
    case PCI_CLASS:
        return rule->device_class == device->class;
    case PCI_SUBCLASS:
        return rule->device_subclass == device->subclass;
    case PCI_PROG_IF:
        return rule->device_protocol == device->protocol;
    case PCI_FIELDS:
    default:
        return false;
    }
}

// ---- all fields

static const struct {
    enum device_kind device;
    unsigned fields;
    uint64_t slow;
    bool (*fits)(const struct rule *rule, unsigned field, const struct rule_subject *subject, bool otherwise);
} kinds[] = {
    [RULE_USB] = {DEVICE_USB, USB_FIELDS, USB_SLOW, usb_fits},
    [RULE_INPUT] = {DEVICE_INPUT, INPUT_FIELDS, INPUT_SLOW, input_fits},
    [RULE_PCI] = {DEVICE_PCI, PCI_FIELDS, 0, pci_fits},
};

#define NO_FIELD 64U

// The first of FIELDS that does not fit, or NO_FIELD.
static unsigned field_find(const struct rule *rule, uint64_t fields, const struct rule_subject *subject, bool otherwise)
{
    for (; fields; fields &= fields - 1) {
        unsigned field = (unsigned)__builtin_ctzll(fields);
        if (!kinds[rule->kind].fits(rule, field, subject, otherwise))
            return field;
    }
    return NO_FIELD;
}

static bool same_kind(const struct rule *rule, const struct rule_subject *subject)
{
    return rule->kind < LENGTH(kinds) && kinds[rule->kind].device == subject->device->kind;
}

// The first field of a rule of the device's kind that does not fit, or NO_FIELD.
static unsigned first_mismatch(const struct rule *rule, const struct rule_subject *subject, bool otherwise)
{
    uint64_t fields = rule->fields & (RULE_FIELD(kinds[rule->kind].fields) - 1);
    uint64_t slow = kinds[rule->kind].slow;
    unsigned field = field_find(rule, fields & ~slow, subject, otherwise);
    return field != NO_FIELD ? field : field_find(rule, fields & slow, subject, otherwise);
}

bool rule_matches(const struct rule *rule, const struct rule_subject *subject, bool otherwise)
{
    return same_kind(rule, subject) && first_mismatch(rule, subject, otherwise) == NO_FIELD;
}

// ---- the mismatch in words

static const char *const removable_words[] = {
    [REMOVABLE_UNKNOWN] = "unknown", [REMOVABLE_FIXED] = "fixed", [REMOVABLE_REMOVABLE] = "removable"};

// Adds a part of a list.
static void part_add(struct text *text, const char *separator, const char *part)
{
    if (text->length > TEXT_SHOWN_MAX)
        return;
    text_add(text, text->length > 0 ? separator : "");
    text_add(text, part);
}

// What was put together, or NULL for nothing.
static char *parts_take(struct text *text)
{
    if (text->length > 0)
        return text_take(text);
    text_clear(text); // of an empty part
    return NULL;
}

static char *removable_wanted(const struct rule *rule)
{
    struct text text = {0};
    for (unsigned i = 0; i < LENGTH(removable_words); i++)
        if (rule->removable & (1U << i))
            part_add(&text, " or ", removable_words[i]);
    return parts_take(&text);
}

static char *names_found(const char *database, const char *reported)
{
    struct text text = {0};
    if (database)
        part_add(&text, "", database);
    if (reported && !string_equal(database, reported))
        part_add(&text, " or ", reported);
    return parts_take(&text);
}

static unsigned interface_number(const struct usb_interface *interface, enum usb_key field)
{
    return field == USB_INTERFACE_CLASS      ? interface->class
           : field == USB_INTERFACE_SUBCLASS ? interface->subclass
                                             : interface->protocol;
}

// The numbers of those interfaces that fit by the fields before, each once.
static char *interfaces_found(const struct rule *rule, enum usb_key field, const struct device *device)
{
    bool seen[256] = {false};
    struct text text = {0};
    for (size_t i = 0; i < device->interface_count; i++) {
        unsigned number = interface_number(&device->interfaces[i], field);
        if (seen[number] || !is_interface(rule, fields_before(rule, field), &device->interfaces[i]))
            continue;
        seen[number] = true;
        CLEANUP(cleanup_free) char *digits = string_printf("%u", number);
        part_add(&text, ", ", digits);
    }
    return parts_take(&text);
}

static char *drivers_found(const struct device *device)
{
    const struct usb_interface *interface = telling_interface(device);
    if (interface)
        return string_printf("not looked at, as it has an interface of class %u", interface->class);
    struct text text = {0};
    for (size_t i = 0; i < device->driver_count; i++)
        part_add(&text, ", ", device->drivers[i]);
    return parts_take(&text);
}

static char *number_text(unsigned number)
{
    return string_printf("%u", number);
}

static char *id_text(unsigned number)
{
    return string_printf("%04x", number);
}

// Buses and ports count from 1.
static char *place_text(unsigned number)
{
    return number ? number_text(number) : NULL;
}

static void mismatch_set(struct rule_mismatch *mismatch, char *wanted, char *found)
{
    mismatch->wanted = wanted;
    mismatch->found = found;
}

static void usb_describe_place(const struct rule *rule, enum usb_key field, const struct device *device,
                               struct rule_mismatch *mismatch)
{
    switch ((int)field) {
    case USB_BUS:
        mismatch_set(mismatch, number_text(rule->bus), place_text(device->bus));
        break;
    case USB_PORT:
        mismatch_set(mismatch, number_text(rule->port), place_text(device->root_port));
        break;
    case USB_PORT_PATH:
        mismatch_set(mismatch, string_copy(rule->port_path), string_copy(device->port_path));
        break;
    case USB_ID_PATH:
        mismatch_set(mismatch, string_copy(rule->id_path), string_copy(device->id_path));
        break;
    default: // USB_REMOVABLE
        mismatch_set(mismatch, removable_wanted(rule), string_copy(removable_words[device->removable]));
    }
}

static void usb_describe_class(const struct rule *rule, enum usb_key field, const struct device *device,
                               struct rule_mismatch *mismatch)
{
    switch ((int)field) {
    case USB_DEVICE_CLASS:
        mismatch_set(mismatch, number_text(rule->device_class), number_text(device->class));
        break;
    case USB_DEVICE_SUBCLASS:
        mismatch_set(mismatch, number_text(rule->device_subclass), number_text(device->subclass));
        break;
    case USB_DEVICE_PROTOCOL:
        mismatch_set(mismatch, number_text(rule->device_protocol), number_text(device->protocol));
        break;
    case USB_INTERFACE_CLASS:
        mismatch_set(mismatch, number_text(rule->interface_class), interfaces_found(rule, field, device));
        break;
    case USB_INTERFACE_SUBCLASS:
        mismatch_set(mismatch, number_text(rule->interface_subclass), interfaces_found(rule, field, device));
        break;
    default: // USB_INTERFACE_PROTOCOL
        mismatch_set(mismatch, number_text(rule->interface_protocol), interfaces_found(rule, field, device));
    }
}

static void usb_describe(const struct rule *rule, unsigned field, const struct device *device,
                         struct rule_mismatch *mismatch)
{
    switch ((enum usb_key)field) {
    case USB_VENDOR_ID:
        mismatch_set(mismatch, id_text(rule->vendor_id), id_text(device->vendor_id));
        break;
    case USB_PRODUCT_ID:
        mismatch_set(mismatch, id_text(rule->product_id), id_text(device->product_id));
        break;
    case USB_VENDOR_NAME:
        mismatch_set(mismatch, string_copy(pattern_text(rule->vendor_name)),
                     names_found(device->vendor_database, device->vendor_reported));
        break;
    case USB_PRODUCT_NAME:
        mismatch_set(mismatch, string_copy(pattern_text(rule->product_name)),
                     names_found(device->product_database, device->product_reported));
        break;
    case USB_DRIVER_PATH:
        mismatch_set(mismatch, string_copy(pattern_text(rule->driver_path)), drivers_found(device));
        break;
    case USB_SERIAL:
        mismatch_set(mismatch, string_copy(pattern_text(rule->serial)), string_copy(device->serial));
        break;
    case USB_BUS:
    case USB_PORT:
    case USB_PORT_PATH:
    case USB_ID_PATH:
    case USB_REMOVABLE:
        usb_describe_place(rule, (enum usb_key)field, device, mismatch);
        break;
    case USB_INTERFACE_CLASS:
    case USB_INTERFACE_SUBCLASS:
    case USB_INTERFACE_PROTOCOL:
    case USB_DEVICE_CLASS:
    case USB_DEVICE_SUBCLASS:
    case USB_DEVICE_PROTOCOL:
    case USB_FIELDS:
    default:
        usb_describe_class(rule, (enum usb_key)field, device, mismatch);
    }
}

static void input_describe(const struct rule *rule, unsigned field, const struct device *device,
                           struct rule_mismatch *mismatch)
{
    switch ((enum input_key)field) {
    case INPUT_NAME:
        mismatch_set(mismatch, string_copy(pattern_text(rule->name)),
                     names_found(device->product_database, device->product_reported));
        break;
    case INPUT_PATH_TAG:
        mismatch_set(mismatch, string_copy(pattern_text(rule->path_tag)), string_copy(device->path_tag));
        break;
    case INPUT_PROPERTY:
        mismatch_set(mismatch, string_copy(rule->property), NULL);
        break;
    case INPUT_VALUE:
    case INPUT_FIELDS:
    default:
        mismatch_set(mismatch, string_copy(rule->value), string_copy(property_find(device, rule->property)));
    }
}

static void pci_describe(const struct rule *rule, unsigned field, const struct device *device,
                         struct rule_mismatch *mismatch)
{
    switch ((enum pci_key)field) {
    case PCI_ADDRESS:
        mismatch_set(mismatch, string_copy(rule->address), string_copy(device_pci_address(device)));
        break;
    case PCI_VENDOR:
        mismatch_set(mismatch, id_text(rule->vendor_id), id_text(device->vendor_id));
        break;
    case PCI_DEVICE:
        mismatch_set(mismatch, id_text(rule->product_id), id_text(device->product_id));
        break;
    case PCI_CLASS:
        mismatch_set(mismatch, number_text(rule->device_class), number_text(device->class));
        break;
    case PCI_SUBCLASS:
        mismatch_set(mismatch, number_text(rule->device_subclass), number_text(device->subclass));
        break;
    case PCI_PROG_IF:
    case PCI_FIELDS:
    default:
        mismatch_set(mismatch, number_text(rule->device_protocol), number_text(device->protocol));
    }
}

static void (*const describe[])(const struct rule *, unsigned, const struct device *, struct rule_mismatch *) = {
    [RULE_USB] = usb_describe, [RULE_INPUT] = input_describe, [RULE_PCI] = pci_describe};

bool rule_compare(const struct rule *rule, const struct rule_subject *subject, bool otherwise,
                  struct rule_mismatch *mismatch)
{
    *mismatch = (struct rule_mismatch){0};
    if (!same_kind(rule, subject)) {
        mismatch->field = "kind";
        return false;
    }
    unsigned field = first_mismatch(rule, subject, otherwise);
    if (field == NO_FIELD)
        return true;
    mismatch->field = rule_field_name(rule->kind, field);
    mismatch->given_up = !otherwise && kinds[rule->kind].fits(rule, field, subject, true);
    describe[rule->kind](rule, field, subject->device, mismatch);
    return false;
}

void rule_mismatch_clear(struct rule_mismatch *mismatch)
{
    free(mismatch->wanted);
    free(mismatch->found);
    *mismatch = (struct rule_mismatch){0};
}
