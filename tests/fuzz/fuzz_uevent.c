// Fuzzes what udev says of devices: this stands in place of libudev. The first line of the input names who speaks, the
// kernel or udevd; each other one is an event and a device that there is:
//     ACTION|SUBSYSTEM|DEVTYPE|SYSPATH|NAME=VALUE|...
#include <fcntl.h>
#include <libudev.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fuzz.h"
#include "host/idpath.h"
#include "host/input.h"
#include "host/monitor.h"
#include "util/text.h"

enum { DEVICES_MAX = 64, PROPERTIES_MAX = 256 };

struct udev_list_entry {
    const char *name, *value;
    struct udev_list_entry *next;
};

// Strings are NULL where libudev has none.
struct udev_device {
    const char *action, *subsystem, *devtype, *syspath;
    struct udev_list_entry properties[PROPERTIES_MAX];
};

static struct udev_device devices[DEVICES_MAX];
static struct udev_list_entry places[DEVICES_MAX];
static size_t device_count, next_event;
static bool udevd;

// ---- in place of libudev and of the socket that tells whether udevd runs

static char nothing; // what is never looked into

struct udev *udev_new(void)
{
    return (void *)&nothing;
}

struct udev *udev_unref(struct udev *udev)
{
    (void)udev;
    return NULL;
}

struct udev_monitor *udev_monitor_new_from_netlink(struct udev *udev, const char *name)
{
    (void)udev;
    if (strcmp(name, udevd ? "udev" : "kernel") != 0)
        abort();
    return (void *)&nothing;
}

struct udev_monitor *udev_monitor_unref(struct udev_monitor *monitor)
{
    (void)monitor;
    return NULL;
}

int udev_monitor_set_receive_buffer_size(struct udev_monitor *monitor, int size)
{
    (void)monitor, (void)size;
    return 0;
}

int udev_monitor_filter_add_match_subsystem_devtype(struct udev_monitor *monitor, const char *subsystem,
                                                    const char *devtype)
{
    (void)monitor, (void)subsystem, (void)devtype;
    return 0;
}

int udev_monitor_enable_receiving(struct udev_monitor *monitor)
{
    (void)monitor;
    return 0;
}

int udev_monitor_get_fd(struct udev_monitor *monitor)
{
    static int fd = -1;
    (void)monitor;
    if (fd < 0)
        fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd;
}

struct udev_device *udev_monitor_receive_device(struct udev_monitor *monitor)
{
    (void)monitor;
    return next_event < device_count ? &devices[next_event++] : NULL;
}

struct udev_device *udev_device_new_from_syspath(struct udev *udev, const char *syspath)
{
    (void)udev;
    for (size_t i = 0; i < device_count; i++)
        if (string_equal(devices[i].syspath, syspath))
            return &devices[i];
    return NULL;
}

struct udev_device *udev_device_unref(struct udev_device *device)
{
    (void)device;
    return NULL;
}

const char *udev_device_get_property_value(struct udev_device *device, const char *name)
{
    for (const struct udev_list_entry *entry = device->properties; entry && entry->name; entry = entry->next)
        if (strcmp(entry->name, name) == 0)
            return entry->value;
    return NULL;
}

struct udev_list_entry *udev_device_get_properties_list_entry(struct udev_device *device)
{
    return device->properties->name ? device->properties : NULL;
}

const char *udev_device_get_action(struct udev_device *device)
{
    return device->action;
}

const char *udev_device_get_subsystem(struct udev_device *device)
{
    return device->subsystem;
}

const char *udev_device_get_devtype(struct udev_device *device)
{
    return device->devtype;
}

const char *udev_device_get_syspath(struct udev_device *device)
{
    return device->syspath;
}

const char *udev_device_get_sysname(struct udev_device *device)
{
    const char *slash = device->syspath ? strrchr(device->syspath, '/') : NULL;
    return slash ? slash + 1 : NULL;
}

const char *udev_device_get_driver(struct udev_device *device)
{
    return udev_device_get_property_value(device, "DRIVER");
}

int udev_device_get_is_initialized(struct udev_device *device)
{
    return udev_device_get_property_value(device, "USEC_INITIALIZED") != NULL;
}

struct udev_list_entry *udev_list_entry_get_next(struct udev_list_entry *entry)
{
    return entry->next;
}

const char *udev_list_entry_get_name(struct udev_list_entry *entry)
{
    return entry->name;
}

const char *udev_list_entry_get_value(struct udev_list_entry *entry)
{
    return entry->value;
}

struct udev_hwdb *udev_hwdb_new(struct udev *udev)
{
    return (void *)udev;
}

struct udev_hwdb *udev_hwdb_unref(struct udev_hwdb *hwdb)
{
    (void)hwdb;
    return NULL;
}

// The properties of the first device do as what the hardware database says.
struct udev_list_entry *udev_hwdb_get_properties_list_entry(struct udev_hwdb *hwdb, const char *modalias,
                                                            unsigned flags)
{
    (void)hwdb, (void)modalias, (void)flags;
    return device_count > 0 ? udev_device_get_properties_list_entry(devices) : NULL;
}

struct udev_enumerate *udev_enumerate_new(struct udev *udev)
{
    return (void *)udev;
}

struct udev_enumerate *udev_enumerate_unref(struct udev_enumerate *enumerate)
{
    (void)enumerate;
    return NULL;
}

int udev_enumerate_add_match_subsystem(struct udev_enumerate *enumerate, const char *subsystem)
{
    (void)enumerate, (void)subsystem;
    return 0;
}

int udev_enumerate_scan_devices(struct udev_enumerate *enumerate)
{
    (void)enumerate;
    return 0;
}

struct udev_list_entry *udev_enumerate_get_list_entry(struct udev_enumerate *enumerate)
{
    (void)enumerate;
    return device_count > 0 ? places : NULL;
}

int access(const char *path, int mode)
{
    if (strcmp(path, "/run/udev/control") == 0)
        return udevd ? 0 : -1;
    return faccessat(AT_FDCWD, path, mode, 0);
}

// ---- the input

static const char *take(char **rest)
{
    const char *part = strsep(rest, "|");
    return part && *part ? part : NULL;
}

static void read_properties(struct udev_device *device, char *rest)
{
    size_t count = 0;
    for (char *value; rest && count < PROPERTIES_MAX; count++) {
        value = strsep(&rest, "|");
        char *name = strsep(&value, "=");
        device->properties[count] = (struct udev_list_entry){.name = name, .value = value};
        if (count > 0)
            device->properties[count - 1].next = &device->properties[count];
    }
}

static void read_devices(char *rest)
{
    const char *speaker = strsep(&rest, "\n");
    udevd = strcmp(speaker, "kernel") != 0;
    device_count = next_event = 0;
    while (rest && device_count < DEVICES_MAX) {
        char *line = strsep(&rest, "\n");
        struct udev_device *device = &devices[device_count];
        *device = (struct udev_device){.action = take(&line), .subsystem = take(&line), .devtype = take(&line)};
        device->syspath = take(&line);
        read_properties(device, line);
        places[device_count] = (struct udev_list_entry){.name = device->syspath ? device->syspath : ""};
        if (device_count > 0)
            places[device_count - 1].next = &places[device_count];
        device_count++;
    }
}

// ---- the host wing

static void look(void *user, struct source *given)
{
    CLEANUP(cleanup_source) struct source *source = given;
    (void)user;
    if (!source->syspath || source->property_count > SOURCE_PROPERTIES_MAX)
        abort();
    for (size_t i = 0; i < source->property_count; i++)
        if (!strchr(source->properties[i], '=') || strlen(source->properties[i]) > SOURCE_PROPERTY_LENGTH_MAX ||
            (i > 0 && strcmp(source->properties[i - 1], source->properties[i]) > 0))
            abort();
    if (source->kind == DEVICE_INPUT && (!source->event || input_is_usb(source->syspath)))
        abort();
    free(idpath_of_usb(source->syspath));
}

static void removed(void *user, const char *syspath)
{
    (void)user;
    if (!syspath)
        abort();
}

static void overflow(void *user)
{
    (void)user;
    abort();
}

static void missed(void *user)
{
    (void)user;
}

static void listen_to_all(sd_event *loop, struct log *log)
{
    static const struct monitor_callbacks callbacks = {look, removed, overflow, missed};
    CLEANUP(cleanup_monitor) struct monitor *monitor = NULL;
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    if (monitor_new(&monitor, loop, log, &callbacks, NULL) < 0 || monitor_scan(monitor) < 0)
        abort();
    monitor_drain(monitor);
    monitor_name(monitor, device);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static sd_event *loop;
    static struct log *log;
    if (!loop && (sd_event_new(&loop) < 0 || !(log = log_new(LOG_LEVEL_ERROR))))
        abort();
    char *text = memory_new(length + 1, 1);
    memcpy(text, bytes, length);
    read_devices(text);
    listen_to_all(loop, log);
    free(text);
    return 0;
}
