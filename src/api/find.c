// Which devices a request means.
#include "api/find.h"

#include <stdlib.h>
#include <string.h>

#include "api/scope.h"
#include "util/json.h"
#include "util/text.h"

#define SHOWN_MAX 8
#define NAME_MAX_LENGTH 256

struct selector;
typedef bool selector_matches(const struct selector *selector, const struct device_status *status);

// What a request says of the device.
struct selector {
    enum find_what what;
    selector_matches *matches;
    const char *text;
    unsigned long first, second; // numbers
    char *shown;                 // the words of the request, for errors; owned
};

static void selector_clear(struct selector *selector)
{
    free(selector->shown);
}

// ---- ways to match

static bool is_node(const struct selector *selector, const struct device_status *status)
{
    return string_equal(status->device->node, selector->text);
}

static bool is_place(const struct selector *selector, const struct device_status *status)
{
    const struct device *device = status->device;
    return string_equal(device->port_path, selector->text) || string_equal(device->key, selector->text) ||
           string_equal(device->syspath, selector->text) || string_equal(device->id_path, selector->text);
}

static bool has_root_port(const struct selector *selector, const struct device_status *status)
{
    const struct device *device = status->device;
    return device->kind == DEVICE_USB && device->bus == selector->first && device->root_port == selector->second;
}

static bool has_address(const struct selector *selector, const struct device_status *status)
{
    const struct device *device = status->device;
    return device->kind == DEVICE_USB && device->bus == selector->first && device->address == selector->second;
}

static bool has_ids(const struct selector *selector, const struct device_status *status)
{
    const struct device *device = status->device;
    return device->vendor_id == selector->first && device->product_id == selector->second;
}

static bool is_function(const struct selector *selector, const struct device_status *status)
{
    return string_equal(device_pci_address(status->device), selector->text);
}

static bool has_tag(const struct selector *selector, const struct device_status *status)
{
    const struct verdict *verdict = status->verdict;
    return verdict->kind == VERDICT_ALLOWED && string_equal(verdict->group->tag, selector->text);
}

// PART is somewhere in "VENDOR PRODUCT".
static bool is_in_names(const char *vendor, const char *product, const char *part)
{
    CLEANUP(cleanup_free)
    char *both = string_printf("%s%s%s", vendor ? vendor : "", vendor && product ? " " : "", product ? product : "");
    return strcasestr(both, part) != NULL;
}

static bool has_name(const struct selector *selector, const struct device_status *status)
{
    const struct device *device = status->device;
    return is_in_names(device->vendor_database, device->product_database, selector->text) ||
           is_in_names(device->vendor_reported, device->product_reported, selector->text);
}

static bool has_serial_or_name(const struct selector *selector, const struct device_status *status)
{
    return string_equal(status->device->serial, selector->text) || has_name(selector, status);
}

// ---- what matches

void found_clear(struct found *found)
{
    for (size_t i = 0; i < found->count; i++)
        free(found->devices[i].title);
    free(found->devices);
    *found = (struct found){0};
}

static void found_add(struct found *found, const struct device *device)
{
    found->devices = memory_resize(found->devices, found->count + 1, sizeof(*found->devices));
    found->devices[found->count++] = (struct found_device){device->instance, device_title(device)};
}

static bool is_meant(const struct selector *selector, const struct device *device)
{
    return selector->what == FIND_ALL || (device->kind == DEVICE_PCI) == (selector->what == FIND_PCI);
}

// All that the caller may see and that match; hubs only if nothing else does.
static void collect(const struct messages *messages, const struct caller *caller, const struct selector *selector,
                    struct found *found)
{
    CLEANUP(found_clear) struct found hubs = {0};
    for (size_t i = 0; i < reconcile_device_count(messages->reconcile); i++) {
        CLEANUP(device_status_clear) struct device_status status;
        reconcile_device_status(messages->reconcile, i, &status);
        if (scope_has_device(caller, &status) && is_meant(selector, status.device) &&
            selector->matches(selector, &status))
            found_add(device_is_hub(status.device) ? &hubs : found, status.device);
    }
    if (found->count)
        return;
    *found = hubs;
    hubs = (struct found){0};
}

// NULL if it is one.
static char *check_one(const struct selector *selector, struct found *found)
{
    if (found->count == 1)
        return NULL;
    struct text error = {0};
    if (!found->count) {
        text_printf(&error, "there is no device %s", selector->shown);
        return text_take(&error);
    }
    text_printf(&error, "%s means %zu devices; say which one: ", selector->shown, found->count);
    for (size_t i = 0; i < found->count && i < SHOWN_MAX; i++)
        text_printf(&error, "%s%s", i ? ", " : "", found->devices[i].title);
    if (found->count > SHOWN_MAX)
        text_printf(&error, ", and %zu more", found->count - SHOWN_MAX);
    found_clear(found);
    return text_take(&error);
}

static char *find_one(const struct messages *messages, const struct caller *caller, const struct selector *selector,
                      struct found *found)
{
    collect(messages, caller, selector, found);
    return check_one(selector, found);
}

// ---- members

static char *shown_text(const char *before, const char *text)
{
    struct text shown = {0};
    text_add(&shown, before);
    text_add_safe(&shown, text, NAME_MAX_LENGTH);
    return text_take(&shown);
}

static char *read_string(struct json_object *request, const char *name, const char **string)
{
    *string = json_member_string(request, name);
    if (*string && **string)
        return NULL;
    return string_printf("%s must be a string that is not empty", name);
}

// A number, or a string that is one.
static char *read_number(struct json_object *request, const char *name, unsigned long *number)
{
    const char *text = json_member_string(request, name);
    uint64_t value;
    if (text ? string_to_number(text, 10, UINT16_MAX, number)
             : json_member_uint64(request, name, &value) && value <= UINT16_MAX &&
                   (*number = (unsigned long)value, true))
        return NULL;
    return string_printf("%s must be a number from 0 to %u", name, UINT16_MAX);
}

static bool parse_id(const char *text, unsigned long *number)
{
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
        text += 2;
    return strlen(text) <= 4 && string_to_number(text, 16, UINT16_MAX, number);
}

static char *read_id(struct json_object *request, const char *name, unsigned long *number)
{
    const char *text = json_member_string(request, name);
    if (text && parse_id(text, number))
        return NULL;
    return string_printf("%s must be a string of up to 4 hex digits", name);
}

// ---- the members of a request, by precedence

static char *find_node(const struct messages *messages, const struct caller *caller, struct json_object *request,
                       struct found *found)
{
    CLEANUP(selector_clear) struct selector selector = {.matches = is_node};
    char *error = read_string(request, "device_node", &selector.text);
    if (error)
        return error;
    selector.shown = shown_text("", selector.text);
    return find_one(messages, caller, &selector, found);
}

static char *find_function(const struct messages *messages, const struct caller *caller, struct json_object *request,
                           struct found *found)
{
    CLEANUP(selector_clear) struct selector selector = {.matches = is_function};
    char *error = read_string(request, "address", &selector.text);
    if (error)
        return error;
    selector.shown = shown_text("", selector.text);
    CLEANUP(cleanup_free) char *address = device_parse_pci_address(selector.text);
    if (!address)
        return string_printf("address must be that of a PCI function, such as 0000:00:14.3, and not %s",
                             selector.shown);
    selector.text = address;
    return find_one(messages, caller, &selector, found);
}

static char *find_port(const struct messages *messages, const struct caller *caller, struct json_object *request,
                       struct found *found)
{
    CLEANUP(selector_clear) struct selector selector = {.matches = has_root_port};
    char *error = NULL;
    if (!json_member(request, "bus") || !json_member(request, "port"))
        return string_copy("bus and port belong together");
    if ((error = read_number(request, "bus", &selector.first)) ||
        (error = read_number(request, "port", &selector.second)))
        return error;
    selector.shown = string_printf("on bus %lu, port %lu", selector.first, selector.second);
    return find_one(messages, caller, &selector, found);
}

static bool tag_exists(const struct messages *messages, const struct caller *caller, const char *tag)
{
    const struct group_list *lists[] = {&messages->config->usb, &messages->config->input, &messages->config->pci};
    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        for (size_t k = 0; k < lists[i]->count; k++)
            if (string_equal(lists[i]->groups[k].tag, tag) && scope_has_group(caller, &lists[i]->groups[k]))
                return true;
    return false;
}

static char *find_tag(const struct messages *messages, const struct caller *caller, struct json_object *request,
                      enum find_what what, struct found *found)
{
    CLEANUP(selector_clear) struct selector selector = {.what = what, .matches = has_tag};
    char *error = read_string(request, "tag", &selector.text);
    if (error)
        return error;
    selector.shown = shown_text("", selector.text);
    if (!tag_exists(messages, caller, selector.text))
        return string_printf("no group has the tag %s", selector.shown);
    collect(messages, caller, &selector, found);
    found->tagged = true;
    return NULL;
}

// "vid" and the other one: "pid" of USB and input devices, "did" of PCI functions.
static char *find_ids(const struct messages *messages, const struct caller *caller, struct json_object *request,
                      enum find_what what, struct found *found)
{
    CLEANUP(selector_clear) struct selector selector = {.what = what, .matches = has_ids};
    const char *other = what == FIND_PCI ? "did" : "pid";
    char *error = NULL;
    if (!json_member(request, "vid") || !json_member(request, other))
        return string_printf("vid and %s belong together", other);
    if ((error = read_id(request, "vid", &selector.first)) || (error = read_id(request, other, &selector.second)))
        return error;
    selector.shown = string_printf("%04lx:%04lx", selector.first, selector.second);
    return find_one(messages, caller, &selector, found);
}

// ---- any name that a person has at hand

// "046d:c52b"
static bool reads_as_ids(struct selector *selector)
{
    char first[5] = {0};
    if (strlen(selector->text) != 9 || selector->text[4] != ':')
        return false;
    memcpy(first, selector->text, 4);
    return string_to_number(first, 16, UINT16_MAX, &selector->first) &&
           string_to_number(selector->text + 5, 16, UINT16_MAX, &selector->second);
}

// "001:004", "1:4"
static bool reads_as_address(struct selector *selector)
{
    char first[4] = {0};
    const char *colon = strchr(selector->text, ':');
    if (!colon || colon - selector->text > 3 || strlen(colon + 1) > 3)
        return false;
    memcpy(first, selector->text, (size_t)(colon - selector->text));
    return string_to_number(first, 10, 999, &selector->first) &&
           string_to_number(colon + 1, 10, 999, &selector->second);
}

static bool reads_as_text(struct selector *selector)
{
    (void)selector;
    return true;
}

static size_t digits(const char *text)
{
    return strspn(text, "0123456789");
}

// "1-2.3"
static bool reads_as_port_path(const char *text)
{
    size_t length = digits(text);
    if (!length || text[length] != '-')
        return false;
    for (text += length; *text == '-' || *text == '.'; text += length)
        if ((length = 1 + digits(text + 1)) == 1)
            return false;
    return !*text;
}

// What names a place or a number names no device that happens to be called so.
static bool reads_as_name(struct selector *selector)
{
    const char *text = selector->text;
    return *text != '/' && !reads_as_port_path(text) && !reads_as_ids(selector) && !reads_as_address(selector);
}

static const struct {
    bool (*reads)(struct selector *selector);
    selector_matches *matches;
} names[] = {{reads_as_text, is_node},
             {reads_as_text, is_place},
             {reads_as_ids, has_ids},
             {reads_as_address, has_address},
             {reads_as_name, has_serial_or_name}};

static char *find_any(const struct messages *messages, const struct caller *caller, struct json_object *request,
                      struct found *found)
{
    CLEANUP(selector_clear) struct selector selector = {0};
    char *error = read_string(request, "device", &selector.text);
    if (error)
        return error;
    selector.shown = shown_text("", selector.text);
    CLEANUP(cleanup_free) char *address = device_parse_pci_address(selector.text);
    if (address) {
        selector.text = address;
        selector.matches = is_function;
        return find_one(messages, caller, &selector, found);
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(*names) && !found->count; i++) {
        selector.matches = names[i].matches;
        if (names[i].reads(&selector))
            collect(messages, caller, &selector, found);
    }
    return check_one(&selector, found);
}

// What a request for these devices may say.
static const char *ways_of(enum find_what what)
{
    return what == FIND_USB   ? "device_node, bus and port, tag, vid and pid, or device"
           : what == FIND_PCI ? "address, tag, vid and did, or device"
                              : "device_node, address, bus and port, vid and pid, vid and did, or device";
}

char *find_devices(const struct messages *messages, const struct caller *caller, struct json_object *request,
                   enum find_what what, struct found *found)
{
    bool usb = what != FIND_PCI, pci = what != FIND_USB;
    *found = (struct found){0};
    if (usb && json_member(request, "device_node"))
        return find_node(messages, caller, request, found);
    if (pci && json_member(request, "address"))
        return find_function(messages, caller, request, found);
    if (usb && (json_member(request, "bus") || json_member(request, "port")))
        return find_port(messages, caller, request, found);
    if (json_member(request, "tag"))
        return find_tag(messages, caller, request, what, found);
    if (pci && (json_member(request, "did") || (!usb && json_member(request, "vid"))))
        return find_ids(messages, caller, request, FIND_PCI, found);
    if (usb && (json_member(request, "vid") || json_member(request, "pid")))
        return find_ids(messages, caller, request, FIND_USB, found);
    if (json_member(request, "device"))
        return find_any(messages, caller, request, found);
    return string_printf("which device? Give %s", ways_of(what));
}
