// What of USB authorization outlives the daemon, as JSON.
#include "host/authorize_record.h"

#include <errno.h>
#include <string.h>

#include "host/store.h"
#include "util/json.h"
#include "util/text.h"

enum { RECORD_VERSION = 1, BUSES_MAX = 1024, ENTRIES_MAX = 4096, LENGTH_MAX = 4 * 1024 * 1024, PATH_LENGTH_MAX = 4095 };

static const struct json_limits limits = {.length = LENGTH_MAX, .depth = 4};
static const char *const marks[] = {
    [AUTHORIZE_FOREIGN] = "foreign", [AUTHORIZE_LENT] = "lent", [AUTHORIZE_REOPENED] = "reopened"};
// The kernel's default for new buses, as usbcore numbers it from -1.
static const char *const new_buses[] = {"wired", "none", "all", "internal"};

struct authorize_bus *authorize_record_add_bus(struct authorize_record *record, const char *name, uint64_t instance)
{
    record->buses = memory_resize(record->buses, record->bus_count + 1, sizeof(*record->buses));
    record->buses[record->bus_count] = (struct authorize_bus){.name = string_copy(name), .instance = instance};
    return &record->buses[record->bus_count++];
}

struct authorize_bus *authorize_record_bus(const struct authorize_record *record, uint64_t instance)
{
    for (size_t i = 0; i < record->bus_count; i++)
        if (record->buses[i].instance == instance)
            return &record->buses[i];
    return NULL;
}

struct authorize_entry *authorize_record_add(struct authorize_record *record, const char *syspath, uint64_t instance)
{
    struct authorize_entry *entry = memory_new(1, sizeof(*entry));

    *entry = (struct authorize_entry){string_copy(syspath), instance, .next = record->entries};
    record->entries = entry;
    return entry;
}

struct authorize_entry **authorize_record_find(struct authorize_record *record, const char *syspath)
{
    struct authorize_entry **place = &record->entries;

    while (*place != NULL && strcmp((*place)->syspath, syspath) != 0)
        place = &(*place)->next;
    return place;
}

void authorize_record_remove(struct authorize_entry **place)
{
    struct authorize_entry *entry = *place;

    *place = entry->next;
    device_release(entry->device);
    free(entry->syspath);
    free(entry);
}

void authorize_record_clear(struct authorize_record *record)
{
    for (size_t i = 0; i < record->bus_count; i++)
        free(record->buses[i].name);
    free(record->buses);
    while (record->entries != NULL)
        authorize_record_remove(&record->entries);
    *record = (struct authorize_record){0};
}

static struct json_object *print_bus(const struct authorize_bus *bus)
{
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "name", json_object_new_string(bus->name));
    json_object_object_add(object, "instance", json_object_new_uint64(bus->instance));
    json_object_object_add(object, "authorizedDefault", json_object_new_uint64(bus->devices));
    json_object_object_add(object, "held", json_object_new_boolean(bus->held > 0));
    return object;
}

static struct json_object *print_entry(const struct authorize_entry *entry)
{
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "syspath", json_object_new_string(entry->syspath));
    json_object_object_add(object, "instance", json_object_new_uint64(entry->instance));
    json_object_object_add(object, "mark", json_object_new_string(marks[entry->mark]));
    return object;
}

int authorize_record_save(const char *path, const struct authorize_record *record)
{
    CLEANUP(cleanup_json) struct json_object *root = json_object_new_object();
    CLEANUP(cleanup_free) char *text = NULL;
    struct json_object *buses = json_object_new_array(), *devices = json_object_new_array();

    json_object_object_add(root, "version", json_object_new_int(RECORD_VERSION));
    json_object_object_add(root, "swept", json_object_new_boolean(record->swept));
    if (record->closed)
        json_object_object_add(root, "newBuses", json_object_new_string(new_buses[record->before + 1]));
    json_object_object_add(root, "buses", buses);
    json_object_object_add(root, "devices", devices);
    for (size_t i = 0; i < record->bus_count; i++)
        json_object_array_add(buses, print_bus(&record->buses[i]));
    for (const struct authorize_entry *entry = record->entries; entry != NULL; entry = entry->next)
        if (entry->mark != AUTHORIZE_NO_MARK)
            json_object_array_add(devices, print_entry(entry));
    text = json_print(root);
    return store_replace(path, text);
}

static bool parse_bus(struct json_object *object, struct authorize_record *record)
{
    const char *name = json_member_string(object, "name");
    uint64_t instance, devices;
    bool held;

    if (name == NULL || strlen(name) > PATH_LENGTH_MAX || !json_member_uint64(object, "instance", &instance) ||
        !json_member_uint64(object, "authorizedDefault", &devices) || devices > 2 ||
        !json_member_bool(object, "held", &held))
        return false;
    struct authorize_bus *bus = authorize_record_add_bus(record, name, instance);
    bus->devices = (unsigned)devices;
    bus->held = held;
    return true;
}

static bool parse_entry(struct json_object *object, struct authorize_record *record)
{
    const char *syspath = json_member_string(object, "syspath"), *mark = json_member_string(object, "mark");
    uint64_t instance;

    if (syspath == NULL || syspath[0] != '/' || strlen(syspath) > PATH_LENGTH_MAX ||
        !json_member_uint64(object, "instance", &instance))
        return false;
    for (size_t i = AUTHORIZE_FOREIGN; i < sizeof marks / sizeof *marks; i++)
        if (string_equal(mark, marks[i])) {
            authorize_record_add(record, syspath, instance)->mark = (enum authorize_mark)i;
            return true;
        }
    return false;
}

static bool parse_new_buses(struct json_object *root, struct authorize_record *record)
{
    const char *name = json_member_string(root, "newBuses");

    record->closed = json_member(root, "newBuses") != NULL;
    if (!record->closed)
        return true;
    for (size_t i = 0; i < sizeof new_buses / sizeof *new_buses; i++)
        if (string_equal(name, new_buses[i])) {
            record->before = (int)i - 1;
            return true;
        }
    return false;
}

// Each element of the list that is NAME in ROOT.
static bool parse_list(struct json_object *root, const char *name, size_t limit,
                       bool (*parse)(struct json_object *object, struct authorize_record *record),
                       struct authorize_record *record)
{
    struct json_object *list = json_member(root, name);
    size_t count = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : limit + 1;
    bool good = count <= limit;

    for (size_t i = 0; i < count && good; i++)
        good = parse(json_object_array_get_idx(list, i), record);
    return good;
}

// NULL, or what is wrong with it.
static char *parse(const char *text, size_t length, struct authorize_record *record)
{
    char *error = NULL;
    CLEANUP(cleanup_json) struct json_object *root = json_parse(text, length, &limits, &error);
    uint64_t version;

    if (root == NULL)
        return error;
    if (!json_member_uint64(root, "version", &version) || version != RECORD_VERSION)
        return string_copy("it is of a version that is not known");
    if (!json_member_bool(root, "swept", &record->swept) || !parse_new_buses(root, record) ||
        !parse_list(root, "buses", BUSES_MAX, parse_bus, record) ||
        !parse_list(root, "devices", ENTRIES_MAX, parse_entry, record))
        return string_copy("it is not a record of USB authorization");
    return NULL;
}

char *authorize_record_load(const char *path, struct authorize_record *record)
{
    CLEANUP(cleanup_free) char *text = NULL, *aside = NULL;
    size_t length = 0;
    CLEANUP(cleanup_free) char *why = store_read(path, LENGTH_MAX, &text, &length);

    *record = (struct authorize_record){0};
    if (why == NULL && text == NULL)
        return NULL;
    if (why == NULL)
        why = parse(text, length, record);
    if (why == NULL)
        return NULL;
    authorize_record_clear(record);
    record->swept = true; // better once too few than once too many
    aside = store_set_aside(path, 0);
    if (aside == NULL)
        return string_printf("%s: %s; it is ignored, and cannot be renamed: %s", path, why, strerror(errno));
    return string_printf("%s: %s; it is kept as %s", path, why, aside);
}
