// What a thread does to one USB device. A device is authorized for a VM with its interfaces unauthorized, so that no
// driver of the host is bound when they appear, and its interfaces after that, which binds nothing.
#include "host/authorize_act.h"

#include <dirent.h>
#include <errno.h>
#include <libudev.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "host/claim.h"
#include "host/sysfs.h"
#include "host/usb.h"
#include "util/text.h"

enum {
    LOCKS = 64,           // buses beyond share them
    RELEASE_WAITS = 40,   // for a VM's process to let go
    RELEASE_WAIT = 50000, // µs
    UDEV_WAIT = 5000,     // ms, for all interfaces of a device
};

#define INTERFACES_DEFAULT "interface_authorized_default"

// For each bus: while its interfaces are unauthorized from the start, no device may be authorized for the host.
static pthread_mutex_t locks[LOCKS];
static pthread_once_t locks_once = PTHREAD_ONCE_INIT;

static void init_locks(void)
{
    for (size_t i = 0; i < LOCKS; i++)
        (void)pthread_mutex_init(&locks[i], NULL);
}

static pthread_mutex_t *lock_bus(unsigned bus)
{
    pthread_mutex_t *lock = &locks[bus % LOCKS];

    (void)pthread_once(&locks_once, init_locks);
    (void)pthread_mutex_lock(lock);
    return lock;
}

static void cleanup_udev(struct udev **udev)
{
    udev_unref(*udev);
}

static void cleanup_udev_monitor(struct udev_monitor **monitor)
{
    udev_monitor_unref(*monitor);
}

static void cleanup_udev_device(struct udev_device **device)
{
    udev_device_unref(*device);
}

void authorize_act_clear(struct authorize_act *act)
{
    free(act->syspath);
    free(act->error);
    *act = (struct authorize_act){0};
}

static enum authorize_end fail(struct authorize_act *act, const char *name, int error)
{
    if (error == -ENODEV || error == -ENOENT || usb_instance(act->syspath) != act->instance)
        return AUTHORIZE_GONE;
    free(act->error);
    act->error = string_printf("%s/%s cannot be written: %s; vhotplug needs to be root, with /sys writable",
                               act->syspath, name, strerror(-error));
    return AUTHORIZE_FAILED;
}

// ---- interfaces

// The next interface of the device in LISTING, "1-2:1.0"; NULL: no more.
static const char *next_interface(const struct authorize_act *act, DIR *listing)
{
    const char *name = strrchr(act->syspath, '/') + 1;
    size_t length = strlen(name);
    const struct dirent *entry;

    while ((entry = readdir(listing)) != NULL)
        if (strncmp(entry->d_name, name, length) == 0 && entry->d_name[length] == ':')
            return entry->d_name;
    return NULL;
}

// "usbhid", the driver that has the interface NAME, or NULL.
static char *driver_of(const struct authorize_act *act, const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", act->syspath, name);

    return sysfs_link_name(path, "driver");
}

// Whether a program has claimed an interface of it through usbfs.
static bool is_claimed(const struct authorize_act *act)
{
    CLEANUP(cleanup_directory) DIR *listing = opendir(act->syspath);
    const char *name;

    while (listing != NULL && (name = next_interface(act, listing)) != NULL) {
        CLEANUP(cleanup_free) char *driver = driver_of(act, name);
        if (string_equal(driver, "usbfs"))
            return true;
    }
    return false;
}

// A VM that has let go of a device closes it a moment later.
static bool stays_claimed(const struct authorize_act *act)
{
    for (int i = 0; i < RELEASE_WAITS && is_claimed(act); i++)
        usleep(RELEASE_WAIT);
    return is_claimed(act);
}

// ---- udev: it loads the drivers of interfaces when these appear, and a driver that is loaded looks for interfaces
// that it may have. So these stay unauthorized until udev is done with them.

static struct udev_monitor *listen_to_interfaces(const struct authorize_act *act, struct udev *udev)
{
    CLEANUP(cleanup_free) char *control = string_printf("%s/udev/control", act->paths.run);
    CLEANUP(cleanup_udev_monitor) struct udev_monitor *monitor = NULL;

    if (udev == NULL || access(control, F_OK) != 0)
        return NULL;
    monitor = udev_monitor_new_from_netlink(udev, "udev");
    if (monitor == NULL || udev_monitor_filter_add_match_subsystem_devtype(monitor, "usb", "usb_interface") < 0 ||
        udev_monitor_enable_receiving(monitor) < 0)
        return NULL;
    return steal_pointer(&monitor);
}

// What has happened to an interface of the device, or NULL: to none of it.
static const char *action_of(const struct authorize_act *act, struct udev_device *device)
{
    const char *syspath = device != NULL ? udev_device_get_syspath(device) : NULL;

    return syspath != NULL && sysfs_is_below(syspath, act->syspath) ? udev_device_get_action(device) : NULL;
}

static size_t count_interfaces(const struct authorize_act *act)
{
    CLEANUP(cleanup_directory) DIR *listing = opendir(act->syspath);
    size_t count = 0;

    while (listing != NULL && next_interface(act, listing) != NULL)
        count++;
    return count;
}

static int64_t milliseconds(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Until udev has spoken of each interface, or of the end of one, or that has taken too long, whatever comes of others.
static void wait_for_udev(const struct authorize_act *act, struct udev_monitor *monitor)
{
    struct pollfd waiting = {.fd = udev_monitor_get_fd(monitor), .events = POLLIN};
    int64_t end = milliseconds() + UDEV_WAIT, now;
    size_t left = count_interfaces(act);

    while (left > 0 && (now = milliseconds()) < end && poll(&waiting, 1, (int)(end - now)) > 0) {
        CLEANUP(cleanup_udev_device) struct udev_device *device = udev_monitor_receive_device(monitor);
        const char *action = action_of(act, device);
        if (string_equal(action, "remove"))
            return;
        if (string_equal(action, "add"))
            left--;
    }
}

// ---- deeds

static int set_interface(const struct authorize_act *act, const char *name, bool authorized)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", act->syspath, name);
    CLEANUP(cleanup_close) int directory = sysfs_open(path);
    unsigned long before;
    int error = directory < 0 ? directory : sysfs_number(directory, "authorized", 10, 1, &before);

    if (error < 0 || before == authorized)
        return error;
    return sysfs_write_in(directory, "authorized", authorized ? "1" : "0");
}

static enum authorize_end set_interfaces(struct authorize_act *act, bool authorized, enum authorize_end end)
{
    CLEANUP(cleanup_directory) DIR *listing = opendir(act->syspath);
    const char *name;

    if (listing == NULL)
        return fail(act, "authorized", -errno);
    while ((name = next_interface(act, listing)) != NULL) {
        int error = set_interface(act, name, authorized);
        if (error < 0)
            return fail(act, name, error);
    }
    return end;
}

// Asks for a driver for each interface that has none; what a program still has is left to it.
static void bind_drivers(const struct authorize_act *act)
{
    CLEANUP(cleanup_directory) DIR *listing = opendir(act->syspath);
    CLEANUP(cleanup_free) char *path = string_printf("%s/bus/usb", act->paths.sys);
    CLEANUP(cleanup_close) int bus = sysfs_open(path);
    const char *name;

    while (listing != NULL && (name = next_interface(act, listing)) != NULL) {
        CLEANUP(cleanup_free) char *driver = driver_of(act, name);
        if (driver == NULL && bus >= 0 && sysfs_write_in(bus, "drivers_probe", name) < 0)
            continue; // many have no driver
    }
}

static enum authorize_end do_for_host(struct authorize_act *act, int directory, bool authorized)
{
    enum authorize_end end;
    int error;

    if (!authorized) {
        pthread_mutex_t *lock = lock_bus(act->bus);
        error = sysfs_write_in(directory, "authorized", "1");
        (void)pthread_mutex_unlock(lock);
        return error < 0 ? fail(act, "authorized", error) : AUTHORIZE_DONE;
    }
    if (!act->returned)
        return AUTHORIZE_AS_WAS;
    (void)stays_claimed(act);
    end = set_interfaces(act, true, AUTHORIZE_DONE); // a run that was killed may have left them unauthorized
    if (end == AUTHORIZE_DONE)
        bind_drivers(act);
    return end;
}

// Without its interfaces; with the bus locked.
static enum authorize_end configure(struct authorize_act *act, int directory)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/bus/usb/devices/usb%u", act->paths.sys, act->bus);
    CLEANUP(cleanup_close) int root = sysfs_open(path);
    unsigned long before = 0;
    int error = root < 0 ? root : sysfs_number(root, INTERFACES_DEFAULT, 10, 1, &before), back = 0;

    if (error >= 0 && before == 1)
        error = sysfs_write_in(root, INTERFACES_DEFAULT, "0");
    if (error >= 0) {
        error = sysfs_write_in(directory, "authorized", "1");
        if (before == 1)
            back = sysfs_write_in(root, INTERFACES_DEFAULT, "1");
    }
    if (error >= 0)
        error = back;
    return error < 0 ? fail(act, "authorized", error) : AUTHORIZE_DONE;
}

static enum authorize_end do_for_vm(struct authorize_act *act, int directory, bool authorized)
{
    CLEANUP(cleanup_udev) struct udev *udev = NULL;
    CLEANUP(cleanup_udev_monitor) struct udev_monitor *monitor = NULL;
    pthread_mutex_t *lock;
    enum authorize_end end;

    if (authorized)
        return set_interfaces(act, true, AUTHORIZE_AS_WAS);
    udev = udev_new();
    monitor = listen_to_interfaces(act, udev);
    lock = lock_bus(act->bus);
    end = configure(act, directory);
    (void)pthread_mutex_unlock(lock);
    if (end == AUTHORIZE_DONE && monitor != NULL)
        wait_for_udev(act, monitor);
    return end == AUTHORIZE_DONE ? set_interfaces(act, true, end) : end;
}

// For free(), or NULL.
static char *network_now(const struct authorize_act *act)
{
    CLEANUP(cleanup_network) struct network *network = network_new(&act->paths.network);

    return network_of(network, &act->syspath, 1);
}

static enum authorize_end do_for_nobody(struct authorize_act *act, int directory, bool authorized)
{
    CLEANUP(cleanup_free) char *claim = NULL;
    int error;

    if (!authorized)
        return AUTHORIZE_AS_WAS;
    if (stays_claimed(act) && !act->returned)
        return AUTHORIZE_IN_USE;
    claim = claim_of(act->paths.sys, act->paths.dev, act->syspath);
    if (claim == NULL)
        claim = network_now(act);
    act->of_host = claim != NULL;
    if (act->of_host)
        return AUTHORIZE_IN_USE;
    error = sysfs_write_in(directory, "authorized", "0");
    return error < 0 ? fail(act, "authorized", error) : AUTHORIZE_DONE;
}

enum authorize_end authorize_act(struct authorize_act *act)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(act->syspath);
    unsigned long authorized;

    // The directory is that of this very device for as long as it is open.
    if (directory < 0 || usb_instance_in(directory) != act->instance ||
        sysfs_number(directory, "authorized", 10, 1, &authorized) < 0)
        return AUTHORIZE_GONE;
    switch (act->deed) {
    case AUTHORIZE_FOR_HOST:
        return do_for_host(act, directory, authorized == 1);
    case AUTHORIZE_FOR_VM:
        return do_for_vm(act, directory, authorized == 1);
    case AUTHORIZE_WITHHELD:
        return authorized == 1 ? set_interfaces(act, false, AUTHORIZE_DONE) : AUTHORIZE_AS_WAS;
    case AUTHORIZE_NOBODY:
    default:
        return do_for_nobody(act, directory, authorized == 1);
    }
}
