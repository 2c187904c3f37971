// The kernel's switches for USB devices that are not there yet: authorized_default of each root hub, and usbcore's own
// for root hubs to come, so that a bus that appears is closed before anything on it is seen.
#include "host/authorize_buses.h"

#include <dirent.h>
#include <string.h>

#include "host/sysfs.h"
#include "host/usb.h"

#define AUTHORIZED_DEFAULT "authorized_default"

enum { DEFAULT_INTERNAL = 2 }; // only devices that are built in

// A walk through the USB devices of the host.
struct walk {
    const struct authorize_paths *paths;
    struct authorize_record *record;
    void (*visit)(struct walk *walk, const char *name, int directory);
    const struct authorize_bus *bus; // what VISIT is to look at, or NULL
    bool found;
};

static int open_device(const struct authorize_paths *paths, const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/bus/usb/devices/%s", paths->sys, name);

    return sysfs_open(path);
}

static int open_usbcore(const struct authorize_paths *paths)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/module/usbcore/parameters", paths->sys);

    return sysfs_open(path);
}

static bool is_root_hub(const char *name)
{
    return strncmp(name, "usb", 3) == 0;
}

static void walk_devices(struct walk *walk, bool root_hubs)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/bus/usb/devices", walk->paths->sys);
    CLEANUP(cleanup_directory) DIR *listing = opendir(path);
    const struct dirent *entry;

    while (listing != NULL && (entry = readdir(listing)) != NULL) {
        CLEANUP(cleanup_close) int directory = -1;
        if (entry->d_name[0] == '.' || strchr(entry->d_name, ':') != NULL || is_root_hub(entry->d_name) != root_hubs)
            continue;
        directory = open_device(walk->paths, entry->d_name);
        if (directory >= 0)
            walk->visit(walk, entry->d_name, directory);
    }
}

// ---- what the switches are

static bool is_unauthorized(int directory)
{
    unsigned long authorized;

    return sysfs_number(directory, "authorized", 10, 1, &authorized) >= 0 && authorized == 0;
}

// "usb1" of a device on bus 1.
static bool is_on(const struct authorize_bus *bus, int directory)
{
    unsigned long number, wanted;

    return string_to_number(bus->name + strlen("usb"), 10, UINT16_MAX, &wanted) &&
           sysfs_number(directory, "busnum", 10, UINT16_MAX, &number) >= 0 && number == wanted;
}

// Where the kernel has the directory, as devices are named elsewhere.
static char *syspath_of(const struct authorize_paths *paths, const char *name)
{
    return sysfs_link(paths->sys, "bus/usb/devices", name);
}

static void mark(struct walk *walk, const char *name, int directory, enum authorize_mark mark)
{
    CLEANUP(cleanup_free) char *syspath = syspath_of(walk->paths, name);
    uint64_t instance = usb_instance_in(directory);
    struct authorize_entry **place, *entry;

    if (syspath == NULL)
        return;
    place = authorize_record_find(walk->record, syspath);
    entry = *place;
    if (entry != NULL && entry->instance != instance) {
        authorize_record_remove(place);
        entry = NULL;
    }
    if (entry == NULL)
        entry = authorize_record_add(walk->record, syspath, instance);
    entry->mark = mark;
}

static void note_foreign(struct walk *walk, const char *name, int directory)
{
    if (is_on(walk->bus, directory) && is_unauthorized(directory))
        mark(walk, name, directory, AUTHORIZE_FOREIGN);
}

static void note_bus(struct walk *walk, const char *name, int directory)
{
    uint64_t instance = usb_instance_in(directory);
    unsigned long devices;
    struct authorize_bus *bus;

    if (instance == 0 || sysfs_number(directory, AUTHORIZED_DEFAULT, 10, DEFAULT_INTERNAL, &devices) < 0)
        return;
    walk->found |= devices != 0;
    if (authorize_record_bus(walk->record, instance) != NULL)
        return;
    walk->found = true;
    bus = authorize_record_add_bus(walk->record, name, instance);
    bus->devices = (unsigned)devices;
    if (walk->record->closed && devices == 0) { // it came closed, on our account
        bus->devices = walk->record->before < 0 ? 1 : (unsigned)walk->record->before;
        return;
    }
    struct walk devices_of_it = {walk->paths, walk->record, note_foreign, bus, false};
    walk_devices(&devices_of_it, false);
}

// What new root hubs get: -1 as the driver of the controller likes it, which for those with wires is 1.
static bool read_new_buses(const struct authorize_paths *paths, int *value)
{
    CLEANUP(cleanup_close) int directory = open_usbcore(paths);
    CLEANUP(cleanup_free) char *text = NULL;
    unsigned long number;

    if (directory < 0 || sysfs_string(directory, AUTHORIZED_DEFAULT, &text) < 0 || text == NULL)
        return false;
    *value = -1;
    if (string_equal(text, "-1"))
        return true;
    if (!string_to_number(text, 10, DEFAULT_INTERNAL, &number))
        return false;
    *value = (int)number;
    return true;
}

// The directory of its root hub, or -1 if that is there no more.
static int open_bus(const struct authorize_paths *paths, const struct authorize_bus *bus)
{
    CLEANUP(cleanup_close) int directory = open_device(paths, bus->name);

    return directory >= 0 && usb_instance_in(directory) == bus->instance ? steal_fd(&directory) : -1;
}

static void forget_gone(const struct authorize_paths *paths, struct authorize_record *record)
{
    size_t left = 0;

    for (size_t i = 0; i < record->bus_count; i++) {
        CLEANUP(cleanup_close) int directory = open_bus(paths, &record->buses[i]);
        if (directory >= 0)
            record->buses[left++] = record->buses[i];
        else
            free(record->buses[i].name);
    }
    record->bus_count = left;
}

bool authorize_buses_note(const struct authorize_paths *paths, struct authorize_record *record)
{
    struct walk walk = {paths, record, note_bus, NULL, false};
    int before;

    forget_gone(paths, record);
    walk_devices(&walk, true);
    if (!read_new_buses(paths, &before) || before == 0)
        return walk.found;
    record->closed = true;
    record->before = before;
    return true;
}

// ---- closing and opening

static void add_name(struct text *text, const char *name)
{
    text_printf(text, "%s%s", text->length > 0 ? ", " : "", name);
}

static void add_error(struct text *text, const char *name, int error)
{
    text_printf(text, "%s%s: %s", text->length > 0 ? ", " : "", name, strerror(-error));
}

// Sets the switch of DIRECTORY, if it is another; tells the change or what went wrong.
static void set_switch(int directory, const char *name, const char *value, struct text *changed, struct text *wrong)
{
    CLEANUP(cleanup_free) char *now = NULL;
    int error = sysfs_string(directory, AUTHORIZED_DEFAULT, &now);

    if (error >= 0 && string_equal(now, value))
        return;
    if (error >= 0)
        error = sysfs_write_in(directory, AUTHORIZED_DEFAULT, value);
    if (error < 0)
        add_error(wrong, name, error);
    else
        add_name(changed, name);
}

void authorize_buses_close(const struct authorize_paths *paths, const struct authorize_record *record,
                           struct text *closed, struct text *wrong)
{
    CLEANUP(cleanup_close) int usbcore = open_usbcore(paths);

    if (usbcore >= 0 && record->closed)
        set_switch(usbcore, "new buses", "0", closed, wrong);
    for (size_t i = 0; i < record->bus_count; i++) {
        CLEANUP(cleanup_close) int directory = open_bus(paths, &record->buses[i]);
        if (directory >= 0)
            set_switch(directory, record->buses[i].name, "0", closed, wrong);
    }
}

// The kernel would have authorized it.
static bool would_be_authorized(const struct walk *walk, int directory)
{
    CLEANUP(cleanup_free) char *removable = NULL;

    if (walk->bus->devices != DEFAULT_INTERNAL)
        return walk->bus->devices != 0;
    return sysfs_string(directory, "removable", &removable) >= 0 && string_equal(removable, "fixed");
}

static void mark_reopened(struct walk *walk, const char *name, int directory)
{
    CLEANUP(cleanup_free) char *syspath = syspath_of(walk->paths, name);
    const struct authorize_entry *entry = syspath != NULL ? *authorize_record_find(walk->record, syspath) : NULL;
    bool foreign = entry != NULL && entry->instance == usb_instance_in(directory) && entry->mark == AUTHORIZE_FOREIGN;

    if (is_on(walk->bus, directory) && is_unauthorized(directory) && !foreign && would_be_authorized(walk, directory))
        mark(walk, name, directory, AUTHORIZE_REOPENED);
}

static void open_one(const struct authorize_paths *paths, struct authorize_record *record,
                     const struct authorize_bus *bus, struct text *opened, struct text *wrong)
{
    CLEANUP(cleanup_close) int directory = open_bus(paths, bus);
    CLEANUP(cleanup_free) char *value = string_printf("%u", bus->devices);
    struct walk walk = {paths, record, mark_reopened, bus, false};

    if (directory < 0)
        return;
    set_switch(directory, bus->name, value, opened, wrong);
    walk_devices(&walk, false);
}

static void forget_foreign(struct authorize_record *record)
{
    for (struct authorize_entry *entry = record->entries; entry != NULL; entry = entry->next)
        if (entry->mark == AUTHORIZE_FOREIGN)
            entry->mark = AUTHORIZE_NO_MARK;
}

void authorize_buses_open(const struct authorize_paths *paths, struct authorize_record *record, struct text *opened,
                          struct text *wrong)
{
    CLEANUP(cleanup_close) int usbcore = open_usbcore(paths);
    CLEANUP(cleanup_free) char *value = string_printf("%d", record->before);

    for (size_t i = 0; i < record->bus_count; i++) {
        open_one(paths, record, &record->buses[i], opened, wrong);
        free(record->buses[i].name);
    }
    record->bus_count = 0;
    if (usbcore >= 0 && record->closed)
        set_switch(usbcore, "new buses", value, opened, wrong);
    record->closed = false;
    forget_foreign(record);
}

bool authorize_buses_repair(const struct authorize_paths *paths, struct authorize_record *record)
{
    bool changed = false;

    for (size_t i = 0; i < record->bus_count; i++) {
        struct authorize_bus *bus = &record->buses[i];
        CLEANUP(cleanup_close) int directory = bus->held > 0 ? open_bus(paths, bus) : -1;
        if (directory >= 0 && sysfs_write_in(directory, "interface_authorized_default", "1") < 0)
            continue; // the next start may do better
        changed |= bus->held > 0;
        bus->held = 0;
    }
    return changed;
}
