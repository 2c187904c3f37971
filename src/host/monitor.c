// News of devices: from udevd, or from the kernel itself where no udevd runs.
#include "host/monitor.h"

#include <errno.h>
#include <libudev.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "host/again.h"
#include "host/input.h"
#include "util/text.h"

enum {
    RECEIVE_BUFFER = 16 * 1024 * 1024, // some 10,000 events
    EVENTS_PER_TURN = 128,             // then others have their turn
    EVENTS_PER_DRAIN = 65536,          // more than the buffer holds
};

struct monitor {
    struct log *log;
    struct monitor_callbacks callbacks;
    void *user;
    struct udev *udev;
    struct udev_monitor *udev_monitor;
    struct udev_hwdb *hwdb; // without udevd only; NULL where there is no database
    bool kernel;            // no udevd: the kernel's own events
    sd_event_source *source;
};

static void cleanup_udev_device(struct udev_device **device)
{
    udev_device_unref(*device);
}

static void cleanup_udev_enumerate(struct udev_enumerate **enumerate)
{
    udev_enumerate_unref(*enumerate);
}

static bool is_usb_device(struct udev_device *device)
{
    return string_equal(udev_device_get_devtype(device), "usb_device");
}

// After a call of libudev that has failed: whatever it was that could not be looked at may be there.
static void note_missed(const struct monitor *monitor)
{
    if (again_helps(errno))
        monitor->callbacks.missed(monitor->user);
}

// udevd marks a device as initialized when its rules are done. Without it a USB device is ready when
// the kernel has bound it, as all are, authorized or not; it says "bind" then.
static bool is_ready(const struct monitor *monitor, struct udev_device *device)
{
    if (!monitor->kernel) {
        int ready;
        errno = 0;
        ready = udev_device_get_is_initialized(device);
        if (ready <= 0)
            note_missed(monitor);
        return ready > 0;
    }
    return !is_usb_device(device) || udev_device_get_driver(device) != NULL;
}

static bool is_pci_function(struct udev_device *device)
{
    return string_equal(udev_device_get_subsystem(device), "pci");
}

static void look(struct monitor *monitor, struct udev_device *device, bool ready)
{
    enum device_kind kind = is_pci_function(device) ? DEVICE_PCI : DEVICE_USB;
    struct source *source = source_new(kind, udev_device_get_syspath(device), ready);

    if (!monitor->kernel) {
        source->vendor_database = string_copy(udev_device_get_property_value(device, "ID_VENDOR_FROM_DATABASE"));
        source->product_database = string_copy(udev_device_get_property_value(device, "ID_MODEL_FROM_DATABASE"));
        source->id_path = string_copy(udev_device_get_property_value(device, "ID_PATH"));
    }
    monitor->callbacks.look(monitor->user, source);
}

// The device at SYSPATH; NULL: it is not there, or there was no room to look, which is another thing.
static struct udev_device *find(const struct monitor *monitor, const char *syspath)
{
    struct udev_device *device = udev_device_new_from_syspath(monitor->udev, syspath);

    if (device == NULL)
        note_missed(monitor);
    return device;
}

// The properties are those of udev's database, which an event says in another order and with its own.
static void look_at_input(struct monitor *monitor, const char *syspath)
{
    CLEANUP(cleanup_udev_device) struct udev_device *device = find(monitor, syspath);
    CLEANUP(cleanup_free) char *input = input_of_event(syspath);
    struct udev_list_entry *entry;
    struct source *source;

    if (device == NULL || input == NULL || input_is_usb(syspath))
        return;
    source = source_new(DEVICE_INPUT, input, is_ready(monitor, device));
    source->event = string_copy(udev_device_get_sysname(device));
    source->knows = !monitor->kernel;
    source->path_tag = string_copy(udev_device_get_property_value(device, "ID_PATH_TAG"));
    udev_list_entry_foreach(entry, udev_device_get_properties_list_entry(device))
    {
        const char *value = udev_list_entry_get_value(entry);
        source_add_property(source, udev_list_entry_get_name(entry), value != NULL ? value : "");
    }
    source_sort_properties(source);
    monitor->callbacks.look(monitor->user, source);
}

// Event nodes; those of USB devices come and go with their drivers, which is no plug of anything.
static void handle_input(struct monitor *monitor, const char *action, const char *syspath)
{
    CLEANUP(cleanup_free) char *input = input_of_event(syspath);

    if (input == NULL || input_is_usb(syspath))
        return;
    log_debug(monitor->log, "%s: event \"%s\"", syspath, action);
    if (strcmp(action, "remove") == 0)
        monitor->callbacks.removed(monitor->user, input);
    else
        look_at_input(monitor, syspath);
}

// udevd sends its event when its rules are done. The kernel says "add" before the device can be
// used and "bind" when it can; "unbind" comes on the way to "remove" and alone it removes nothing.
static void handle_usb(struct monitor *monitor, struct udev_device *device, const char *action, const char *syspath)
{
    log_debug(monitor->log, "%s: event \"%s\"", syspath, action);
    if (strcmp(action, "remove") == 0)
        monitor->callbacks.removed(monitor->user, syspath);
    else if (strcmp(action, "unbind") != 0 && !(monitor->kernel && strcmp(action, "add") == 0))
        look(monitor, device, !monitor->kernel || strcmp(action, "bind") == 0 || is_ready(monitor, device));
}

// Drivers come and go, which is no plug of anything: a look finds another driver then, and nothing else.
static void handle_pci(struct monitor *monitor, struct udev_device *device, const char *action, const char *syspath)
{
    log_debug(monitor->log, "%s: event \"%s\"", syspath, action);
    if (strcmp(action, "remove") == 0)
        monitor->callbacks.removed(monitor->user, syspath);
    else
        look(monitor, device, true);
}

static void handle_event(struct monitor *monitor, struct udev_device *device)
{
    const char *action = udev_device_get_action(device);
    const char *syspath = udev_device_get_syspath(device);

    if (action == NULL || syspath == NULL)
        return;
    if (is_usb_device(device))
        handle_usb(monitor, device, action, syspath);
    else if (string_equal(udev_device_get_subsystem(device), "input"))
        handle_input(monitor, action, syspath);
    else if (is_pci_function(device))
        handle_pci(monitor, device, action, syspath);
}

static void receive(struct monitor *monitor, int limit)
{
    for (int i = 0; i < limit; i++) {
        CLEANUP(cleanup_udev_device) struct udev_device *device = NULL;
        errno = 0;
        device = udev_monitor_receive_device(monitor->udev_monitor);
        if (device != NULL)
            handle_event(monitor, device);
        else if (errno == ENOBUFS)
            monitor->callbacks.overflow(monitor->user); // and what is left there is still of use
        else
            break;
    }
}

void monitor_drain(struct monitor *monitor)
{
    receive(monitor, EVENTS_PER_DRAIN);
}

static int handle_readable(sd_event_source *source, int fd, uint32_t events, void *user)
{
    (void)source, (void)fd, (void)events;
    receive(user, EVENTS_PER_TURN);
    return 0;
}

// udevd's own control socket is what libudev itself goes by.
static bool udevd_runs(void)
{
    return access("/run/udev/control", F_OK) == 0;
}

static int listen_to(struct monitor *monitor, sd_event *loop, const char *group)
{
    int error;

    monitor->udev_monitor = udev_monitor_new_from_netlink(monitor->udev, group);
    if (monitor->udev_monitor == NULL)
        return errno != 0 ? -errno : -ENOMEM;
    if (udev_monitor_set_receive_buffer_size(monitor->udev_monitor, RECEIVE_BUFFER) < 0)
        log_debug(monitor->log, "The receive buffer for device events could not be made larger; it works without");
    error = udev_monitor_filter_add_match_subsystem_devtype(monitor->udev_monitor, "usb", "usb_device");
    if (error >= 0)
        error = udev_monitor_filter_add_match_subsystem_devtype(monitor->udev_monitor, "input", NULL);
    if (error >= 0)
        error = udev_monitor_filter_add_match_subsystem_devtype(monitor->udev_monitor, "pci", NULL);
    if (error >= 0)
        error = udev_monitor_enable_receiving(monitor->udev_monitor);
    if (error < 0)
        return error;
    return sd_event_add_io(loop, &monitor->source, udev_monitor_get_fd(monitor->udev_monitor), EPOLLIN, handle_readable,
                           monitor);
}

static int start(struct monitor *monitor, sd_event *loop)
{
    monitor->kernel = !udevd_runs();
    monitor->udev = udev_new();
    if (monitor->udev == NULL)
        return -ENOMEM;
    if (monitor->kernel) {
        log_info(monitor->log, "No udevd runs here: devices are heard of from the kernel, and named by the hardware "
                               "database and what they report");
        monitor->hwdb = udev_hwdb_new(monitor->udev);
    }
    return listen_to(monitor, loop, monitor->kernel ? "kernel" : "udev");
}

int monitor_new(struct monitor **monitor, sd_event *loop, struct log *log, const struct monitor_callbacks *callbacks,
                void *user)
{
    CLEANUP(cleanup_monitor) struct monitor *new = memory_new(1, sizeof(*new));
    int error;

    *new = (struct monitor){.log = log, .callbacks = *callbacks, .user = user};
    error = start(new, loop);
    if (error < 0) {
        log_error(log, "Cannot listen to device events: %s", strerror(-error));
        return error;
    }
    *monitor = steal_pointer(&new);
    return 0;
}

void monitor_free(struct monitor *monitor)
{
    if (monitor == NULL)
        return;
    sd_event_source_disable_unref(monitor->source);
    udev_monitor_unref(monitor->udev_monitor);
    udev_hwdb_unref(monitor->hwdb);
    udev_unref(monitor->udev);
    free(monitor);
}

void monitor_look(struct monitor *monitor, const char *syspath)
{
    CLEANUP(cleanup_udev_device) struct udev_device *device = find(monitor, syspath);

    if (device == NULL)
        return;
    errno = 0;
    if (udev_device_get_devtype(device) == NULL) // of a PCI function too; or there was no room to read it
        note_missed(monitor);
    if (is_usb_device(device) || is_pci_function(device))
        look(monitor, device, is_ready(monitor, device));
}

// Interfaces of USB devices, "1-2:1.0", are in the same list; unlike "0000:00:14.0" they have one colon.
static bool is_interface(const char *syspath)
{
    const char *slash = strrchr(syspath, '/');
    const char *colon = slash != NULL ? strchr(slash, ':') : NULL;

    return colon != NULL && strchr(colon + 1, ':') == NULL;
}

static void look_at(struct monitor *monitor, const char *syspath)
{
    CLEANUP(cleanup_free) char *input = input_of_event(syspath);

    if (input != NULL)
        look_at_input(monitor, syspath);
    else if (!is_interface(syspath))
        monitor_look(monitor, syspath);
}

int monitor_scan(struct monitor *monitor)
{
    CLEANUP(cleanup_udev_enumerate) struct udev_enumerate *enumerate = udev_enumerate_new(monitor->udev);
    struct udev_list_entry *entry;
    int error;

    if (enumerate == NULL)
        return -ENOMEM;
    error = udev_enumerate_add_match_subsystem(enumerate, "usb");
    if (error >= 0)
        error = udev_enumerate_add_match_subsystem(enumerate, "input");
    if (error >= 0)
        error = udev_enumerate_add_match_subsystem(enumerate, "pci");
    if (error >= 0)
        error = udev_enumerate_scan_devices(enumerate);
    if (error < 0 && error != -ENOENT)
        return error;
    udev_list_entry_foreach(entry, udev_enumerate_get_list_entry(enumerate))
        look_at(monitor, udev_list_entry_get_name(entry));
    return 0;
}

void monitor_name(struct monitor *monitor, struct device *device)
{
    CLEANUP(cleanup_free) char *modalias = NULL;
    struct udev_list_entry *entry;

    if (monitor->hwdb == NULL || device->kind == DEVICE_INPUT)
        return;
    modalias = string_printf(device->kind == DEVICE_PCI ? "pci:v%08Xd%08X" : "usb:v%04Xp%04X:", device->vendor_id,
                             device->product_id);
    udev_list_entry_foreach(entry, udev_hwdb_get_properties_list_entry(monitor->hwdb, modalias, 0))
    {
        const char *name = udev_list_entry_get_name(entry);
        char **place = strcmp(name, "ID_VENDOR_FROM_DATABASE") == 0  ? &device->vendor_database
                       : strcmp(name, "ID_MODEL_FROM_DATABASE") == 0 ? &device->product_database
                                                                     : NULL;
        if (place != NULL && *place == NULL)
            *place = string_copy(udev_list_entry_get_value(entry));
    }
}
