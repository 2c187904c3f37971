// What people decided about devices: looked up, set, and as text and back.
#include "core/choice.h"

#include <stdlib.h>
#include <string.h>

#include "util/json.h"
#include "util/text.h"

#define CHOICES_VERSION 1
#define SERIAL_MAX 384 // bytes before they are escaped; no USB device has a longer one
#define PLACE_MAX 256
#define ID_MAX (4 * SERIAL_MAX + 64)
#define PATH_MAX_ESCAPED (4 * PLACE_MAX + 8)
#define VM_MAX 256
#define CHOICES_DEPTH 4

static const struct json_limits limits = {.length = CHOICES_TEXT_MAX, .depth = CHOICES_DEPTH};

static const char *serial_of(const struct device *device)
{
    return device->serial && *device->serial ? device->serial : NULL;
}

char *choice_id(const struct device *device)
{
    struct text text = {0};
    const char *name = device->product_reported ? device->product_reported : device->product_database;
    switch (device->kind) {
    case DEVICE_INPUT:
        text_add(&text, "input-");
        text_add_safe(&text, name ? name : "None", SERIAL_MAX);
        break;
    case DEVICE_PCI:
        text_add(&text, "pci-");
        text_add_safe(&text, strncmp(device->key, "pci:", 4) == 0 ? device->key + 4 : device->key, PLACE_MAX);
        break;
    case DEVICE_USB:
    default:
        text_printf(&text, "usb-%04x:%04x:", device->vendor_id, device->product_id);
        text_add_safe(&text, serial_of(device) ? serial_of(device) : "None", SERIAL_MAX);
        break;
    }
    return text_take(&text);
}

char *choice_path(const struct device *device)
{
    const char *place = device->id_path ? device->id_path : device->kind == DEVICE_INPUT ? device->path_tag : NULL;
    struct text text = {0};
    text_add_safe(&text, place && *place ? place : device->key, PLACE_MAX);
    return text_take(&text);
}

static struct choice *find_exact(const struct choices *choices, const char *id, const char *path)
{
    for (size_t i = 0; i < choices->count; i++)
        if (strcmp(choices->items[i].id, id) == 0 && string_equal(choices->items[i].path, path))
            return &choices->items[i];
    return NULL;
}

// BY_SERIAL: its serial number names the device wherever it is.
static const struct choice *find(const struct choices *choices, const char *id, const char *path, bool by_serial,
                                 choice_is_taken *is_taken, const void *user)
{
    const struct choice *found = find_exact(choices, id, path);
    if (!found)
        found = find_exact(choices, id, NULL);
    if (found || !by_serial)
        return found;
    for (size_t i = choices->count; i-- > 0;)
        if (strcmp(choices->items[i].id, id) == 0 && !(is_taken && is_taken(user, &choices->items[i])))
            return &choices->items[i];
    return NULL;
}

static bool is_by_serial(const struct device *device)
{
    return device->kind == DEVICE_USB && serial_of(device);
}

const struct choice *choices_find(const struct choices *choices, const struct device *device, choice_is_taken *is_taken,
                                  const void *user)
{
    if (!choices->count)
        return NULL;
    CLEANUP(cleanup_free) char *id = choice_id(device);
    CLEANUP(cleanup_free) char *path = choice_path(device);
    return find(choices, id, path, is_by_serial(device), is_taken, user);
}

static void choice_clear(struct choice *choice)
{
    free(choice->id);
    free(choice->path);
    free(choice->vm);
    *choice = (struct choice){0};
}

void choices_forget(struct choices *choices, size_t index)
{
    choice_clear(&choices->items[index]);
    memmove(&choices->items[index], &choices->items[index + 1], (--choices->count - index) * sizeof(*choices->items));
}

// False if there is none: all entries keep something out.
static bool make_room(struct choices *choices)
{
    if (choices->count < CHOICES_MAX)
        return true;
    size_t oldest = 0;
    while (oldest < choices->count && choices->items[oldest].detached)
        oldest++;
    if (oldest == choices->count)
        return false;
    choices_forget(choices, oldest);
    return true;
}

// Takes CHOICE over; there is room.
static void append(struct choices *choices, const struct choice *choice)
{
    if ((choices->count & (choices->count - 1)) == 0) // grows at powers of two
        choices->items = memory_resize(choices->items, choices->count ? choices->count * 2 : 1, sizeof(*choice));
    choices->items[choices->count++] = *choice;
}

size_t choices_detached(const struct choices *choices)
{
    size_t count = 0;
    for (size_t i = 0; i < choices->count; i++)
        count += choices->items[i].detached;
    return count;
}

// The place of the entry that is to give way to one that says anew what HOLDS says; COUNT if there is none.
static size_t find_replaced(const struct choices *choices, const char *id, const char *path, const struct choice *holds)
{
    const struct choice *exact = find_exact(choices, id, path);
    if (exact)
        return (size_t)(exact - choices->items);
    // Else it stays, as long as there is room, for the device may come back to that place.
    return holds && holds->path && choices_detached(choices) == CHOICES_MAX ? (size_t)(holds - choices->items)
                                                                            : choices->count;
}

enum choice_result choices_set(struct choices *choices, const struct device *device, const char *vm, bool detached,
                               choice_is_taken *is_taken, const void *user)
{
    CLEANUP(cleanup_free) char *id = choice_id(device);
    CLEANUP(cleanup_free) char *path = choice_path(device);
    const struct choice *holds = find(choices, id, path, is_by_serial(device), is_taken, user);
    if (!holds && !vm && !detached)
        return CHOICE_SAME; // as it is without an entry
    struct choice choice = {NULL, NULL, string_copy(vm ? vm : holds ? holds->vm : NULL), detached};
    size_t replaced = find_replaced(choices, id, path, holds);
    const struct choice *newest = find_exact(choices, id, path);
    if (newest && replaced + 1 == choices->count && newest->detached == detached &&
        string_equal(newest->vm, choice.vm)) {
        free(choice.vm);
        return CHOICE_SAME;
    }
    if (replaced < choices->count)
        choices_forget(choices, replaced);
    if (!make_room(choices)) {
        free(choice.vm);
        return CHOICE_NO_ROOM;
    }
    choice.id = steal_pointer(&id);
    choice.path = steal_pointer(&path);
    append(choices, &choice);
    return CHOICE_SET;
}

static struct json_object *print_choice(const struct choice *choice)
{
    struct json_object *object = json_object_new_object();
    json_object_object_add(object, "id", json_object_new_string(choice->id));
    if (choice->path)
        json_object_object_add(object, "path", json_object_new_string(choice->path));
    if (choice->vm)
        json_object_object_add(object, "vm", json_object_new_string(choice->vm));
    json_object_object_add(object, "detached", json_object_new_boolean(choice->detached));
    return object;
}

char *choices_print(const struct choices *choices)
{
    CLEANUP(cleanup_json) struct json_object *root = json_object_new_object();
    struct json_object *devices = json_object_new_array();
    json_object_object_add(root, "version", json_object_new_int(CHOICES_VERSION));
    json_object_object_add(root, "devices", devices);
    for (size_t i = 0; i < choices->count; i++)
        json_object_array_add(devices, print_choice(&choices->items[i]));
    return json_print(root);
}

static bool is_name(const char *name, size_t room)
{
    return name && *name && strlen(name) < room;
}

// Takes a member that may be absent or null; false when it is no name shorter than ROOM.
static bool parse_name(struct json_object *object, const char *key, size_t room, char **place)
{
    if (!json_member(object, key))
        return true;
    const char *name = json_member_string(object, key);
    if (!is_name(name, room))
        return false;
    *place = string_copy(name);
    return true;
}

// NULL, or what is wrong with it.
static const char *parse_choice(struct json_object *object, struct choice *choice)
{
    const char *id = json_member_string(object, "id");
    if (!is_name(id, ID_MAX))
        return "no valid id";
    choice->id = string_copy(id);
    if (!parse_name(object, "path", PATH_MAX_ESCAPED, &choice->path))
        return "no valid path";
    if (!parse_name(object, "vm", VM_MAX, &choice->vm))
        return "no valid vm";
    if (!json_member_bool(object, "detached", &choice->detached))
        return "no valid detached";
    return NULL;
}

static int compare(const void *a, const void *b)
{
    const struct choice *x = *(const struct choice *const *)a, *y = *(const struct choice *const *)b;
    int order = strcmp(x->id, y->id);
    if (order == 0)
        order = strcmp(x->path ? x->path : "", y->path ? y->path : "");
    return order;
}

// The second of two entries for one device in one place would be of no effect, or undo the first.
static char *find_double(const struct choices *choices)
{
    const struct choice **sorted = memory_new(choices->count + 1, sizeof(*sorted));
    for (size_t i = 0; i < choices->count; i++)
        sorted[i] = &choices->items[i];
    qsort(sorted, choices->count, sizeof(*sorted), compare);
    char *error = NULL;
    for (size_t i = 1; i < choices->count && !error; i++)
        if (compare(&sorted[i - 1], &sorted[i]) == 0)
            error = string_printf("devices[%zu] and devices[%zu] are of the same device in the same place",
                                  (size_t)(sorted[i - 1] - choices->items), (size_t)(sorted[i] - choices->items));
    free(sorted);
    return error;
}

static char *parse_devices(struct json_object *devices, struct choices *choices)
{
    if (!json_object_is_type(devices, json_type_array))
        return string_copy("no list of devices");
    size_t count = json_object_array_length(devices);
    if (count > CHOICES_MAX)
        return string_printf("more than %d devices", CHOICES_MAX);
    for (size_t i = 0; i < count; i++) {
        struct choice choice = {0};
        const char *wrong = parse_choice(json_object_array_get_idx(devices, i), &choice);
        if (wrong) {
            choice_clear(&choice);
            return string_printf("devices[%zu]: %s", i, wrong);
        }
        append(choices, &choice);
    }
    return find_double(choices);
}

static char *add_python(struct choices *choices, const char *id, const char *vm, bool detached)
{
    if (!is_name(id, ID_MAX))
        return string_copy("no valid name of a device");
    if (vm && !is_name(vm, VM_MAX))
        return string_copy("no valid name of a VM");
    if (choices->count == CHOICES_MAX)
        return string_printf("more than %d devices", CHOICES_MAX);
    append(choices, &(struct choice){string_copy(id), NULL, string_copy(vm), detached});
    return NULL;
}

// The ids of the list as members of DETACHED, which finds them quickly.
static char *collect_detached(struct json_object *list, struct json_object *detached)
{
    if (!list)
        return NULL;
    if (!json_object_is_type(list, json_type_array))
        return string_copy("disconnected_devices is no list");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *item = json_object_array_get_idx(list, i);
        if (!json_object_is_type(item, json_type_string))
            return string_printf("disconnected_devices[%zu] is no text", i);
        json_object_object_add(detached, json_object_get_string(item), NULL);
    }
    return NULL;
}

// The form of the Python vhotplug: what holds for a device holds wherever it is.
static char *parse_python(struct json_object *root, struct choices *choices)
{
    struct json_object *selected = json_member(root, "selected_vms");
    CLEANUP(cleanup_json) struct json_object *detached = json_object_new_object();
    char *error = collect_detached(json_member(root, "disconnected_devices"), detached);
    if (!error && selected && !json_object_is_type(selected, json_type_object))
        error = string_copy("selected_vms is no object");
    if (error)
        return error;
    struct lh_entry *entry = selected ? json_object_get_object(selected)->head : NULL;
    for (; entry && !error; entry = entry->next) {
        const char *id = lh_entry_k(entry), *vm = json_member_string(selected, id);
        if (vm)
            error = add_python(choices, id, vm, json_object_object_get_ex(detached, id, NULL));
        else
            error = string_copy("selected_vms names a VM that is no text");
    }
    for (entry = json_object_get_object(detached)->head; entry && !error; entry = entry->next)
        if (!json_member(selected, lh_entry_k(entry)))
            error = add_python(choices, lh_entry_k(entry), NULL, true);
    return error;
}

char *choices_parse(const char *text, size_t length, struct choices *choices)
{
    *choices = (struct choices){0};
    char *error = NULL;
    CLEANUP(cleanup_json) struct json_object *root = json_parse(text, length, &limits, &error);
    if (!root)
        return error;
    uint64_t version;
    if (json_member_uint64(root, "version", &version) && version == CHOICES_VERSION)
        error = parse_devices(json_member(root, "devices"), choices);
    else if (!json_member(root, "version") &&
             (json_member(root, "selected_vms") || json_member(root, "disconnected_devices")))
        error = parse_python(root, choices);
    else
        error = string_copy("not choices of a version that is known");
    if (error)
        choices_clear(choices);
    return error;
}

static struct choice choice_copy(const struct choice *choice)
{
    return (struct choice){string_copy(choice->id), string_copy(choice->path), string_copy(choice->vm),
                           choice->detached};
}

void choices_copy(struct choices *to, const struct choices *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const struct choice copy = choice_copy(&from->items[i]);
        append(to, &copy);
    }
}

void choices_clear(struct choices *choices)
{
    for (size_t i = 0; i < choices->count; i++)
        choice_clear(&choices->items[i]);
    free(choices->items);
    *choices = (struct choices){0};
}

// What CHOICES says of the device that ENTRY names, where that is plugged.
static const struct choice *find_same(const struct choices *choices, const struct choice *entry)
{
    static const char none[] = ":None"; // a USB device without a serial number
    size_t length = strlen(entry->id), end = sizeof(none) - 1;
    bool by_serial = strncmp(entry->id, "usb-", 4) == 0 && length > end && strcmp(entry->id + length - end, none) != 0;
    return find(choices, entry->id, entry->path, by_serial, NULL, NULL);
}

// Takes CHOICE over. Returns how many had to give way that keep something out.
static size_t add_joined(struct choices *joined, struct choice *choice)
{
    bool room = make_room(joined);
    if (!room && !choice->detached) {
        choice_clear(choice);
        return 0;
    }
    if (!room)
        choices_forget(joined, 0);
    append(joined, choice);
    return room ? 0 : 1;
}

// Those of EARLIER come first, as the older ones.
size_t choices_join(struct choices *choices, const struct choices *earlier)
{
    struct choices joined = {0};
    size_t lost = 0;
    for (size_t i = 0; i < earlier->count; i++) {
        const struct choice *entry = &earlier->items[i], *now = find_same(choices, entry);
        if (find_exact(choices, entry->id, entry->path))
            continue;
        struct choice copy = choice_copy(entry);
        copy.detached |= now && now->detached;
        if (now && now->vm) {
            free(copy.vm);
            copy.vm = string_copy(now->vm);
        }
        lost += add_joined(&joined, &copy);
    }
    for (size_t i = 0; i < choices->count; i++) {
        const struct choice *before = find_same(earlier, &choices->items[i]);
        struct choice copy = choice_copy(&choices->items[i]);
        copy.detached |= before && before->detached;
        if (before && !copy.vm)
            copy.vm = string_copy(before->vm);
        lost += add_joined(&joined, &copy);
    }
    choices_clear(choices);
    *choices = joined;
    return lost;
}
