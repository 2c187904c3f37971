// A device as JSON, and back.
#include "core/device_json.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/reader.h"
#include "util/json.h"
#include "util/text.h"

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))
// Strings that are longer are cut: a byte may become four when it is made safe, and it shall be read back.
#define STRING_SHOWN_MAX 1000
#define STRING_LENGTH_MAX 4096
#define PROPERTIES_MAX 256
#define PEERS_MAX 256
#define NUMBER_MAX 65535
#define COMPLAINTS_MAX 8

static const char *const kind_words[] = {[DEVICE_USB] = "usb", [DEVICE_INPUT] = "evdev", [DEVICE_PCI] = "pci"};
static const char *const speed_words[] = {[SPEED_UNKNOWN] = "unknown",
                                          [SPEED_LOW] = "low",
                                          [SPEED_FULL] = "full",
                                          [SPEED_HIGH] = "high",
                                          [SPEED_SUPER] = "super"};
static const char *const removable_words[] = {
    [REMOVABLE_UNKNOWN] = "unknown", [REMOVABLE_FIXED] = "fixed", [REMOVABLE_REMOVABLE] = "removable"};

// ---- out

// What a device says of itself is hostile, and need not be UTF-8, as JSON is.
static struct json_object *string_json(const char *string)
{
    if (!string)
        return NULL;
    struct text safe = {0};
    text_add_safe(&safe, string, STRING_SHOWN_MAX);
    struct json_object *value = json_object_new_string(safe.string ? safe.string : "");
    text_clear(&safe);
    return value;
}

static void add_string(struct json_object *object, const char *name, const char *string)
{
    json_object_object_add(object, name, string_json(string));
}

static void add_number(struct json_object *object, const char *name, unsigned number)
{
    json_object_object_add(object, name, json_object_new_int64(number));
}

static void add_id(struct json_object *object, const char *name, unsigned id)
{
    char digits[16];
    (void)snprintf(digits, sizeof digits, "%04x", id);
    json_object_object_add(object, name, json_object_new_string(digits));
}

static void add_list(struct json_object *object, const char *name, char *const *strings, size_t count)
{
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < count; i++)
        json_object_array_add(list, string_json(strings[i]));
    json_object_object_add(object, name, list);
}

// ":030102:080650:"; null without any.
static void add_interfaces(struct json_object *object, const struct device *device)
{
    struct text text = {0};
    for (size_t i = 0; i < device->interface_count; i++) {
        const struct usb_interface *interface = &device->interfaces[i];
        text_printf(&text, "%s%02x%02x%02x:", i == 0 ? ":" : "", interface->class, interface->subclass,
                    interface->protocol);
    }
    json_object_object_add(object, "interfaces", text.string ? json_object_new_string(text.string) : NULL);
    text_clear(&text);
}

// The name that people know, and apart from it what the device itself says.
static void add_names(struct json_object *object, const struct device *device)
{
    const char *vendor = device->vendor_database ? device->vendor_database : device->vendor_reported;
    const char *product = device->product_database ? device->product_database : device->product_reported;
    add_string(object, "vendor_name", vendor);
    add_string(object, "product_name", product);
}

static void add_reported(struct json_object *object, const struct device *device)
{
    add_string(object, "vendor_reported", device->vendor_reported);
    add_string(object, "product_reported", device->product_reported);
    add_string(object, "host_use", device->host_use);
}

static void usb_to_json(struct json_object *object, const struct device *device)
{
    add_string(object, "device_node", device->node);
    add_id(object, "vid", device->vendor_id);
    add_id(object, "pid", device->product_id);
    add_names(object, device);
    add_interfaces(object, device);
    add_number(object, "device_class", device->class);
    add_number(object, "device_subclass", device->subclass);
    add_number(object, "device_protocol", device->protocol);
    add_number(object, "busnum", device->bus);
    add_number(object, "devnum", device->address);
    add_number(object, "portnum", device->root_port);
    add_string(object, "serial", device->serial);
    add_string(object, "sys_name", device->port_path);
    add_string(object, "port_path", device->port_path);
    add_string(object, "id_path", device->id_path);
    add_string(object, "speed", speed_words[device->speed]);
    add_string(object, "removable", removable_words[device->removable]);
    add_list(object, "drivers", device->drivers, device->driver_count);
    add_reported(object, device);
}

static void input_to_json(struct json_object *object, const struct device *device)
{
    add_string(object, "device_node", device->node);
    add_string(object, "name", device->product_reported ? device->product_reported : device->product_database);
    add_id(object, "vid", device->vendor_id);
    add_id(object, "pid", device->product_id);
    add_names(object, device);
    add_string(object, "path_tag", device->path_tag);
    add_list(object, "properties", device->properties, device->property_count);
    add_reported(object, device);
}

// As udev has the ids of PCI functions, and with it the Python vhotplug.
static void add_pci_id(struct json_object *object, const char *name, unsigned id)
{
    char digits[16];
    (void)snprintf(digits, sizeof digits, "%04X", id);
    json_object_object_add(object, name, json_object_new_string(digits));
}

static void function_to_json(struct json_object *object, const struct device *device)
{
    add_string(object, "address", device_pci_address(device));
    add_string(object, "driver", device->driver);
    add_number(object, "vendor_id", device->vendor_id);
    add_number(object, "device_id", device->product_id);
    add_pci_id(object, "vid", device->vendor_id);
    add_pci_id(object, "did", device->product_id);
    add_names(object, device);
    add_string(object, "device_name", json_member_string(object, "product_name"));
    add_number(object, "pci_class", device->class);
    add_number(object, "pci_subclass", device->subclass);
    add_number(object, "pci_prog_if", device->protocol);
    add_pci_id(object, "pci_subsystem_vendor_id", device->subsystem_vendor_id);
    add_pci_id(object, "pci_subsystem_id", device->subsystem_id);
    add_reported(object, device);
}

static void pci_to_json(struct json_object *object, const struct device *device)
{
    function_to_json(object, device);
    bool grouped = device->iommu_group >= 0;
    json_object_object_add(object, "iommu_group", grouped ? json_object_new_int64(device->iommu_group) : NULL);
    struct json_object *peers = json_object_new_array();
    for (size_t i = 0; i < device->peer_count; i++) {
        struct json_object *peer = json_object_new_object();
        function_to_json(peer, device->peers[i]);
        json_object_array_add(peers, peer);
    }
    json_object_object_add(object, "peers", peers);
}

struct json_object *device_to_json(const struct device *device)
{
    static void (*const writers[])(struct json_object *, const struct device *) = {
        [DEVICE_USB] = usb_to_json, [DEVICE_INPUT] = input_to_json, [DEVICE_PCI] = pci_to_json};
    struct json_object *object = json_object_new_object();
    add_string(object, "kind", kind_words[device->kind]);
    writers[device->kind](object, device);
    return object;
}

// ---- in

// A device while it is read: numbers are checked before they are made small.
struct draft {
    struct device *device;
    unsigned kind, speed, removable;
    unsigned vendor_id, product_id, bus, address, root_port, class, subclass, protocol;
    unsigned subsystem_vendor_id, subsystem_id;
    bool has_root_port;
    char *vendor_name, *product_name, *name; // NAME: of an input device
    char *port_path, *address_text;
};

// The text, or NULL with an error, or NULL because it is empty, which is as good as absent.
static const char *text_of(const struct reader *value)
{
    const char *string = reader_string(value);
    if (!string)
        return NULL;
    size_t length = (size_t)json_object_get_string_len(value->value);
    if (strlen(string) != length)
        reader_error(value, "has a NUL in it");
    else if (length > STRING_LENGTH_MAX)
        reader_error(value, "is longer than %d bytes", STRING_LENGTH_MAX);
    else if (length > 0)
        return string;
    return NULL;
}

static void read_text(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    char **text = place;
    const char *string = text_of(value);
    if (string) {
        free(*text);
        *text = string_copy(string);
    }
}

// A text that belongs to the device itself: the draft holds only a pointer to that.
static void read_device_text(const struct reader *value, const struct reader_key *key, void *place)
{
    const struct draft *draft = place;
    read_text(value, key, (char *)draft->device + key->least);
}

static void read_number(const struct reader *value, const struct reader_key *key, void *place)
{
    unsigned long number;
    if (json_object_is_type(value->value, json_type_string) &&
        string_to_number(json_object_get_string(value->value), 10, key->most, &number))
        *(unsigned *)place = (unsigned)number;
    else
        reader_number(value, key, place);
}

static void read_root_port(const struct reader *value, const struct reader_key *key, void *place)
{
    struct draft *draft = place;
    read_number(value, key, &draft->root_port);
    draft->has_root_port = true;
}

// A number, as the API has it, or hex digits, as people write it.
static void read_pci_id(const struct reader *value, const struct reader_key *key, void *place)
{
    if (json_object_is_type(value->value, json_type_int))
        reader_number(value, key, place);
    else
        reader_hex(value, key, place);
}

static void read_word(const struct reader *value, const char *const *words, size_t count, unsigned *place)
{
    const char *string = text_of(value);
    if (!string)
        return;
    struct text list = {0};
    for (size_t i = 0; i < count; i++) {
        if (strcmp(string, words[i]) == 0)
            *place = (unsigned)i;
        text_printf(&list, "%s%s", i == 0 ? "" : i + 1 < count ? ", " : " or ", words[i]);
    }
    if (strcmp(string, words[*place]) != 0)
        reader_error(value, "must be %s", list.string);
    text_clear(&list);
}

static void read_speed(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    read_word(value, speed_words, LENGTH(speed_words), place);
}

static void read_removable(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    read_word(value, removable_words, LENGTH(removable_words), place);
}

static void read_kind(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    read_word(value, kind_words, LENGTH(kind_words), place);
}

static void interface_add(struct device *device, unsigned long triple)
{
    struct usb_interface interface = {(uint8_t)(triple >> 16), (uint8_t)(triple >> 8), (uint8_t)triple};
    for (size_t i = 0; i < device->interface_count; i++)
        if (memcmp(&device->interfaces[i], &interface, sizeof interface) == 0)
            return;
    device->interfaces[device->interface_count++] = interface;
}

// ":030102:080650:", as udev has it; the colons at the ends may be missing.
static void read_interfaces(const struct reader *value, const struct reader_key *key, void *place)
{
    struct device *device = ((struct draft *)place)->device;
    (void)key;
    const char *at = text_of(value);
    free(device->interfaces);
    device->interfaces = memory_new(DEVICE_INTERFACES_MAX, sizeof *device->interfaces);
    device->interface_count = 0;
    while (at && *(at += *at == ':')) {
        char digits[7] = "";
        unsigned long triple;
        strncpy(digits, at, 6);
        if (!string_to_number(digits, 16, 0xffffff, &triple) || strlen(digits) != 6 || (at[6] && at[6] != ':')) {
            reader_error(value, "must be six hex digits an interface, such as \":030102:080650:\"");
            return;
        }
        if (device->interface_count == DEVICE_INTERFACES_MAX) {
            reader_error(value, "has more than %d interfaces", DEVICE_INTERFACES_MAX);
            return;
        }
        interface_add(device, triple);
        at += 6;
    }
}

// Adds to a list of the device, which has room for it.
static void string_add(char **strings, size_t *count, const char *string)
{
    if (string)
        strings[(*count)++] = string_copy(string);
}

static void read_drivers(const struct reader *value, const struct reader_key *key, void *place)
{
    struct device *device = ((struct draft *)place)->device;
    (void)key;
    size_t count = reader_count(value);
    if (count > DEVICE_DRIVERS_MAX) {
        reader_error(value, "has more than %d items", DEVICE_DRIVERS_MAX);
        return;
    }
    device->drivers = memory_new(count, sizeof *device->drivers);
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        string_add(device->drivers, &device->driver_count, text_of(&item));
    }
}

// "NAME=value"
static void read_property_item(const struct reader *item, struct device *device)
{
    const char *string = text_of(item);
    if (string && (*string == '=' || !strchr(string, '=')))
        reader_error(item, "must be \"NAME=value\"");
    else
        string_add(device->properties, &device->property_count, string);
}

// A member of an object of properties; numbers stand for their digits.
static void read_property_member(const struct reader *member, struct device *device)
{
    const char *string = json_object_is_type(member->value, json_type_int) ? json_object_get_string(member->value)
                                                                           : reader_string(member);
    if (!string)
        return;
    if (!*member->key || strchr(member->key, '=')) {
        reader_error(member, "is no name of a property");
    } else if (strlen(string) + strlen(member->key) > STRING_LENGTH_MAX) {
        reader_error(member, "is longer than %d bytes", STRING_LENGTH_MAX);
    } else {
        CLEANUP(cleanup_free) char *property = string_printf("%s=%s", member->key, string);
        string_add(device->properties, &device->property_count, property);
    }
}

static void read_property_members(const struct reader *value, struct device *device)
{
    struct json_object_iterator at = json_object_iter_begin(value->value);
    struct json_object_iterator end = json_object_iter_end(value->value);
    for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
        struct reader member = {.file = value->file,
                                .report = value->report,
                                .parent = value,
                                .key = json_object_iter_peek_name(&at),
                                .value = json_object_iter_peek_value(&at)};
        if (member.value)
            read_property_member(&member, device);
    }
}

static void read_properties(const struct reader *value, const struct reader_key *key, void *place)
{
    struct device *device = ((struct draft *)place)->device;
    (void)key;
    bool object = json_object_is_type(value->value, json_type_object);
    size_t count = object ? (size_t)json_object_object_length(value->value) : reader_count(value);
    if (count > PROPERTIES_MAX) {
        reader_error(value, "has more than %d items", PROPERTIES_MAX);
        return;
    }
    device->properties = memory_new(count, sizeof *device->properties);
    if (object) {
        read_property_members(value, device);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        read_property_item(&item, device);
    }
}

static void read_pci_address(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    char **address = place;
    const char *text = text_of(value);
    if (!text)
        return;
    free(*address);
    *address = device_parse_pci_address(text);
    if (!*address)
        reader_error(value, "must be a PCI address such as \"0000:00:14.3\"");
}

// "1-2.3", or "usb1" of a root hub.
static void read_port_path(const struct reader *value, const struct reader_key *key, void *place)
{
    const char *text = text_of(value);
    if (!text)
        return;
    bool chain = !text[strspn(text, "0123456789-.")];
    bool root = strncmp(text, "usb", 3) == 0 && !text[3 + strspn(text + 3, "0123456789")];
    if (chain || root)
        read_text(value, key, place);
    else
        reader_error(value, "must be a port chain such as \"1-2.3\"");
}

#define PLACE(member) offsetof(struct draft, member)
#define DEVICE_TEXT(member) read_device_text, 0, offsetof(struct device, member), 0
#define TEXT(member) read_text, PLACE(member), 0, 0
#define ID(member) reader_hex, PLACE(member), 0, 0
#define PCI_ID(member) read_pci_id, PLACE(member), 0, UINT16_MAX
#define BYTE(member) read_number, PLACE(member), 0, 255
#define NUMBER(member) read_number, PLACE(member), 0, NUMBER_MAX

// Of two names of a member, the later counts.
static const struct reader_key common_keys[] = {
    {"device_node", DEVICE_TEXT(node)},
    {"vendor_name", TEXT(vendor_name)},
    {"product_name", TEXT(product_name)},
    {"vendor_reported", DEVICE_TEXT(vendor_reported)},
    {"product_reported", DEVICE_TEXT(product_reported)},
    {"host_use", DEVICE_TEXT(host_use)},
};
static const struct reader_key usb_keys[] = {
    {"vendor_id", ID(vendor_id)},
    {"vid", ID(vendor_id)},
    {"product_id", ID(product_id)},
    {"pid", ID(product_id)},
    {"interfaces", read_interfaces, 0, 0, 0},
    {"device_class", BYTE(class)},
    {"device_subclass", BYTE(subclass)},
    {"device_protocol", BYTE(protocol)},
    {"busnum", NUMBER(bus)},
    {"devnum", NUMBER(address)},
    {"portnum", read_root_port, 0, 0, NUMBER_MAX},
    {"serial", DEVICE_TEXT(serial)},
    {"sys_name", read_port_path, PLACE(port_path), 0, 0},
    {"port_path", read_port_path, PLACE(port_path), 0, 0},
    {"id_path", DEVICE_TEXT(id_path)},
    {"speed", read_speed, PLACE(speed), 0, 0},
    {"removable", read_removable, PLACE(removable), 0, 0},
    {"drivers", read_drivers, 0, 0, 0},
};
static const struct reader_key input_keys[] = {
    {"vendor_id", ID(vendor_id)},
    {"vid", ID(vendor_id)},
    {"product_id", ID(product_id)},
    {"pid", ID(product_id)},
    {"name", TEXT(name)},
    {"path_tag", DEVICE_TEXT(path_tag)},
    {"properties", read_properties, 0, 0, 0},
};
static const struct reader_key function_keys[] = {
    {"vendor_id", PCI_ID(vendor_id)},
    {"vid", ID(vendor_id)},
    {"device_id", PCI_ID(product_id)},
    {"did", ID(product_id)},
    {"device_name", TEXT(product_name)},
    {"address", read_pci_address, PLACE(address_text), 0, 0},
    {"pci_class", BYTE(class)},
    {"pci_subclass", BYTE(subclass)},
    {"pci_prog_if", BYTE(protocol)},
    {"pci_subsystem_vendor_id", ID(subsystem_vendor_id)},
    {"pci_subsystem_id", ID(subsystem_id)},
    {"driver", DEVICE_TEXT(driver)},
};

// Reads the members that the table KEYS names. Others are no business of ours: the API's lists have more.
static void read_members(const struct reader *reader, const struct reader_key *keys, size_t count, struct draft *draft)
{
    for (size_t i = 0; i < count; i++) {
        struct reader member = *reader;
        member.parent = reader;
        member.key = keys[i].name;
        member.value = json_member(reader->value, keys[i].name);
        if (member.value)
            keys[i].read(&member, &keys[i], (char *)draft + keys[i].offset);
    }
}

static bool says(struct json_object *value, const char *name)
{
    return json_object_object_get_ex(value, name, NULL); // even if it is null
}

// The name in the lists of the API is that of the database, or what the device reports. Where that is
// not given apart from it, it may be either.
static void settle_name(char **database, char **reported, char **name, bool told)
{
    if (!*reported && !told)
        *reported = string_copy(*name);
    if (!string_equal(*name, *reported) || !told)
        *database = steal_pointer(name);
}

static void settle_names(struct json_object *value, struct draft *draft)
{
    struct device *device = draft->device;
    bool told = says(value, "product_reported");
    if (draft->name && !told) {
        free(device->product_reported);
        device->product_reported = steal_pointer(&draft->name);
        told = true;
    }
    settle_name(&device->product_database, &device->product_reported, &draft->product_name, told);
    told = says(value, "vendor_reported");
    settle_name(&device->vendor_database, &device->vendor_reported, &draft->vendor_name, told);
}

// The leading number of TEXT.
static unsigned leading_number(const char *text)
{
    char digits[8] = "";
    unsigned long number;
    strncpy(digits, text, sizeof digits - 1);
    digits[strspn(digits, "0123456789")] = '\0';
    return string_to_number(digits, 10, NUMBER_MAX, &number) ? (unsigned)number : 0;
}

// Bus and root port stand in the chain of ports also: 1 and 2 of "1-2.3", 1 and none of "usb1".
static void settle_usb(struct draft *draft)
{
    struct device *device = draft->device;
    device->port_path = steal_pointer(&draft->port_path);
    device->bus = draft->bus;
    device->root_port = draft->root_port;
    const char *path = device->port_path;
    const char *dash = path ? strchr(path, '-') : NULL;
    if (!device->bus && path)
        device->bus = leading_number(strncmp(path, "usb", 3) == 0 ? path + 3 : path);
    if (!draft->has_root_port && dash)
        device->root_port = leading_number(dash + 1);
    device->key = path ? string_printf("usb:%s", path) : string_printf("usb:%u:%u", device->bus, draft->address);
}

static void settle_pci(struct draft *draft)
{
    struct device *device = draft->device;
    device->key = draft->address_text ? string_printf("pci:%s", draft->address_text) : string_copy("pci");
    device->subsystem_vendor_id = (uint16_t)draft->subsystem_vendor_id;
    device->subsystem_id = (uint16_t)draft->subsystem_id;
}

static void settle(struct json_object *value, struct draft *draft)
{
    struct device *device = draft->device;
    device->instance = 1;
    device->vendor_id = (uint16_t)draft->vendor_id;
    device->product_id = (uint16_t)draft->product_id;
    device->address = draft->address;
    device->class = (uint8_t)draft->class;
    device->subclass = (uint8_t)draft->subclass;
    device->protocol = (uint8_t)draft->protocol;
    device->speed = (enum usb_speed)draft->speed;
    device->removable = (enum usb_removable)draft->removable;
    settle_names(value, draft);
    if (device->kind == DEVICE_USB)
        settle_usb(draft);
    else if (device->kind == DEVICE_PCI)
        settle_pci(draft);
    else
        device->key = string_copy(device->node ? device->node : "input");
}

static void draft_clear(struct draft *draft)
{
    char *const texts[] = {draft->vendor_name, draft->product_name, draft->name, draft->port_path, draft->address_text};
    for (size_t i = 0; i < LENGTH(texts); i++)
        free(texts[i]);
    device_release(draft->device);
}

// All that is wrong, on one line. Each complaint begins with the name of the file, which is empty.
static char *complaints(const struct config_messages *errors)
{
    struct text text = {0};
    for (size_t i = 0; i < errors->count && i < COMPLAINTS_MAX; i++)
        text_printf(&text, "%s%s", i == 0 ? "" : "; ", errors->lines[i] + strlen(": "));
    if (errors->count > COMPLAINTS_MAX)
        text_printf(&text, "; and %zu more", errors->count - COMPLAINTS_MAX);
    return text_take(&text);
}

// Another function of the IOMMU group. Like it, but it has no peers of its own.
static void read_peer(const struct reader *item, struct device *device)
{
    CLEANUP(draft_clear) struct draft draft = {.kind = DEVICE_PCI, .device = device_new(DEVICE_PCI)};
    if (!json_object_is_type(item->value, json_type_object)) {
        reader_error(item, "must be an object in { }");
        return;
    }
    read_members(item, common_keys, LENGTH(common_keys), &draft);
    read_members(item, function_keys, LENGTH(function_keys), &draft);
    settle(item->value, &draft);
    draft.device->iommu_group = device->iommu_group;
    device->peers[device->peer_count++] = steal_pointer(&draft.device);
}

static void read_peers(const struct reader *value, const struct reader_key *key, void *place)
{
    struct device *device = ((struct draft *)place)->device;
    (void)key;
    size_t count = reader_count(value);
    if (count > PEERS_MAX) {
        reader_error(value, "has more than %d items", PEERS_MAX);
        return;
    }
    device->peers = memory_new(count, sizeof(struct device *));
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        read_peer(&item, device);
    }
}

static void read_iommu_group(const struct reader *value, const struct reader_key *key, void *place)
{
    struct draft *draft = place;
    unsigned number = 0;
    read_number(value, key, &number);
    draft->device->iommu_group = (int)number;
}

static const struct reader_key group_keys[] = {
    {"iommu_group", read_iommu_group, 0, 0, INT_MAX},
    {"peers", read_peers, 0, 0, 0},
};

// What devices of each kind have apart from the common keys.
static const struct {
    const struct reader_key *keys;
    size_t count;
} kinds[] = {
    [DEVICE_USB] = {usb_keys, LENGTH(usb_keys)},
    [DEVICE_INPUT] = {input_keys, LENGTH(input_keys)},
    [DEVICE_PCI] = {function_keys, LENGTH(function_keys)},
};

static void read_device(const struct reader *reader, struct draft *draft)
{
    static const struct reader_key kind = {"kind", read_kind, PLACE(kind), 0, 0};
    if (!json_object_is_type(reader->value, json_type_object)) {
        reader_error(reader, "a device must be an object in { }");
        return;
    }
    read_members(reader, &kind, 1, draft);
    bool kind_wrong = reader->report->errors.count > 0;
    draft->device = device_new((enum device_kind)draft->kind);
    read_members(reader, common_keys, LENGTH(common_keys), draft);
    if (kind_wrong)
        return;
    read_members(reader, kinds[draft->kind].keys, kinds[draft->kind].count, draft);
    if (draft->kind == DEVICE_PCI)
        read_members(reader, group_keys, LENGTH(group_keys), draft);
}

struct device *device_from_json(struct json_object *value, char **error)
{
    CLEANUP(config_report_clear) struct config_report report = {0};
    CLEANUP(draft_clear) struct draft draft = {0};
    struct reader reader = {.file = "", .report = &report, .value = value};
    read_device(&reader, &draft);
    if (report.errors.count > 0 || !draft.device) {
        *error = complaints(&report.errors);
        return NULL;
    }
    settle(value, &draft);
    return steal_pointer(&draft.device);
}
