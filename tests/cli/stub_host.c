// A host wing for tests: the daemon with this in place of the real one has the devices that a file
// lists, and is killed where the test wants it. All the rest of the daemon is the real one.
//
// VHOTPLUG_TEST_DEVICES names the file, which is read again whenever it is replaced. A line is a device:
//     KEY INSTANCE VENDOR:PRODUCT NODE        usb:1-2 7 046d:c077 /dev/null
// "input:" in place of "usb:" makes it a mouse that is not USB, and "pci:" a PCI function of class 2, which has the
// number of its IOMMU group in place of the node:
//     pci:0000:01:00.0 8 8086:a0f0 11
// VHOTPLUG_TEST_KILL=N kills the daemon at its Nth step: before and after each save of the memory, and
// when a device is to be opened and has been.
// VHOTPLUG_TEST_OPENING names a pipe: a device is open, or made ready, when a byte can be read from it, as on a host
// that hangs. That one is to be opened, and that one rests, is said in the log. VHOTPLUG_TEST_SAVING names a pipe: what
// people decided is saved when a byte of it was read, as on a disk that hangs. VHOTPLUG_TEST_IOMMU names a device that
// stands for /dev/iommu; without it there is none. FUNCTION_NODE stands for the node of a PCI function.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/host.h"
#include "util/text.h"
#include "vmm/vmm.h"

#define DEVICES_MAX 64
#define FUNCTION_NODE "/dev/full"

struct devices {
    struct device *list[DEVICES_MAX];
    size_t count;
};

struct opening {
    struct host *host;
    struct device *device;
    uint64_t serial;
    const char *node; // to open, borrowed from the device; NULL: it is not opened, but made ready or withheld
    sd_event_source *source;
};

struct host {
    sd_event *loop;
    struct log *log;
    int gate; // of VHOTPLUG_TEST_OPENING; -1: none
    struct host_callbacks callbacks;
    void *user;
    sd_event_source *watch, *first;
    struct devices devices;
    bool scanned;
};

static void step(void)
{
    static unsigned long steps;
    const char *at = getenv("VHOTPLUG_TEST_KILL");
    if (at && ++steps == strtoul(at, NULL, 10))
        (void)raise(SIGKILL);
}

// ---- the file

static struct device *new_function(const char *key, uint64_t instance, const char *group)
{
    struct device *device = device_new(DEVICE_PCI);
    device->key = string_copy(key);
    device->instance = instance;
    device->syspath = string_printf("/sys/%s", key);
    device->class = 2;
    device->product_reported = string_copy("Test Function");
    device->iommu_group = (int)strtol(group, NULL, 10);
    return device;
}

static struct device *new_device(const char *key, uint64_t instance, const char *node)
{
    bool input = strncmp(key, "input:", 6) == 0;
    struct device *device = device_new(input ? DEVICE_INPUT : DEVICE_USB);
    struct stat status = {0};
    (void)stat(node, &status);
    device->key = string_copy(key);
    device->instance = instance;
    device->node = string_copy(node);
    device->number = status.st_rdev;
    device->syspath = string_printf("/sys/%s", key);
    device->product_reported = string_copy("Test Device");
    if (input) {
        device->properties = memory_new(1, sizeof *device->properties);
        device->properties[device->property_count++] = string_copy("ID_INPUT_MOUSE=1");
    } else {
        device->port_path = string_copy(strchr(key, ':') + 1);
        device->speed = SPEED_HIGH;
        device->bus = 1;
        device->address = (unsigned)instance;
    }
    return device;
}

// The other functions of an IOMMU group have no peers of their own.
static void add_peer(struct device *device, const struct device *other)
{
    if (device->kind != DEVICE_PCI || other->kind != DEVICE_PCI || device->iommu_group != other->iommu_group)
        return;
    char group[16];
    (void)snprintf(group, sizeof group, "%d", other->iommu_group);
    struct device *peer = new_function(other->key, other->instance, group);
    peer->vendor_id = other->vendor_id;
    peer->product_id = other->product_id;
    device->peers = memory_resize(device->peers, device->peer_count + 1, sizeof(struct device *));
    device->peers[device->peer_count++] = peer;
}

static void read_devices(struct devices *devices)
{
    const char *name = getenv("VHOTPLUG_TEST_DEVICES");
    FILE *file = name ? fopen(name, "re") : NULL;
    char key[64], node[64];
    unsigned long instance;
    unsigned vendor, product;
    *devices = (struct devices){0};
    while (file && devices->count < DEVICES_MAX &&
           fscanf(file, "%63s %lu %x:%x %63s", key, &instance, &vendor, &product, node) == 5) {
        bool pci = strncmp(key, "pci:", 4) == 0;
        struct device *device = pci ? new_function(key, instance, node) : new_device(key, instance, node);
        device->vendor_id = (uint16_t)vendor;
        device->product_id = (uint16_t)product;
        devices->list[devices->count++] = device;
    }
    if (file)
        (void)fclose(file);
    for (size_t i = 0; i < devices->count; i++)
        for (size_t k = 0; k < devices->count; k++)
            if (i != k)
                add_peer(devices->list[i], devices->list[k]);
}

static void release_devices(struct devices *devices)
{
    for (size_t i = 0; i < devices->count; i++)
        device_release(devices->list[i]);
    devices->count = 0;
}

static bool has(const struct devices *devices, const struct device *device)
{
    for (size_t i = 0; i < devices->count; i++)
        if (strcmp(devices->list[i]->key, device->key) == 0 && devices->list[i]->instance == device->instance)
            return true;
    return false;
}

static bool has_equal(const struct devices *devices, const struct device *device)
{
    for (size_t i = 0; i < devices->count; i++)
        if (device_equal(devices->list[i], device))
            return true;
    return false;
}

// Tells the difference to what has been told; another instance in the same place is gone and new.
static void look(struct host *host)
{
    struct devices before = host->devices;
    read_devices(&host->devices);
    for (size_t i = 0; i < before.count; i++)
        if (!has(&host->devices, before.list[i]))
            host->callbacks.gone(host->user, before.list[i]->key, before.list[i]->instance);
    for (size_t i = 0; i < host->devices.count; i++)
        if (!has_equal(&before, host->devices.list[i]))
            host->callbacks.present(host->user, host->devices.list[i], host->scanned);
    release_devices(&before);
}

static int on_file(sd_event_source *source, const struct inotify_event *event, void *user)
{
    (void)source, (void)event;
    look(user);
    return 0;
}

static int on_first(sd_event_source *source, void *user)
{
    struct host *host = user;
    (void)source;
    look(host);
    host->scanned = true;
    host->callbacks.scanned(host->user);
    return 0;
}

// ---- the wing

int host_new(struct host **host, sd_event *loop, struct log *log, const struct host_callbacks *callbacks, void *user)
{
    CLEANUP(cleanup_host) struct host *new = memory_new(1, sizeof *new);
    const char *gate = getenv("VHOTPLUG_TEST_OPENING");
    *new = (struct host){.loop = sd_event_ref(loop), .log = log, .callbacks = *callbacks, .user = user};
    new->gate = gate ? open(gate, O_RDWR | O_CLOEXEC) : -1;
    const char *file = getenv("VHOTPLUG_TEST_DEVICES");
    CLEANUP(cleanup_free) char *directory = file ? string_printf("%.*s", (int)(strrchr(file, '/') - file), file) : NULL;
    int status = directory ? sd_event_add_inotify(loop, &new->watch, directory, IN_MOVED_TO, on_file, new) : -ENOENT;
    if (status < 0)
        return status;
    *host = steal_pointer(&new);
    return 0;
}

int host_start(struct host *host)
{
    return sd_event_add_defer(host->loop, &host->first, on_first, host);
}

void host_free(struct host *host)
{
    if (!host)
        return;
    sd_event_source_disable_unref(host->watch);
    sd_event_source_disable_unref(host->first);
    if (host->gate >= 0)
        close(host->gate);
    release_devices(&host->devices);
    sd_event_unref(host->loop);
    free(host);
}

static int on_open(sd_event_source *source, void *user)
{
    char byte;
    struct opening *opening = user;
    struct host *host = opening->host;
    bool there = has(&host->devices, opening->device);
    int fd = there && opening->node ? open(opening->node, O_RDWR | O_CLOEXEC) : -1;
    step();
    if (host->gate >= 0 && read(host->gate, &byte, 1) != 1)
        abort();
    host->callbacks.opened(host->user, opening->serial,
                           !there                                                 ? HOST_OPEN_GONE
                           : opening->device->kind == DEVICE_USB && opening->node ? HOST_OPENED
                                                                                  : HOST_OPEN_READY,
                           fd, there ? NULL : "it has gone");
    device_release(opening->device);
    free(opening);
    sd_event_source_disable_unref(source);
    return 0;
}

static int on_gate(sd_event_source *source, int fd, uint32_t events, void *user)
{
    (void)fd, (void)events;
    return on_open(source, user);
}

static void open_later(struct host *host, struct device *device, uint64_t serial, const char *node)
{
    struct opening *opening = memory_new(1, sizeof *opening);
    *opening = (struct opening){.host = host, .device = device_reference(device), .serial = serial, .node = node};
    if ((host->gate >= 0 ? sd_event_add_io(host->loop, &opening->source, host->gate, EPOLLIN, on_gate, opening)
                         : sd_event_add_defer(host->loop, &opening->source, on_open, opening)) < 0)
        abort();
}

void host_open(struct host *host, struct device *device, uint64_t serial, const struct host_receiver *receiver)
{
    const char *function = device->kind == DEVICE_PCI && receiver->takes_functions ? FUNCTION_NODE : NULL;
    step();
    if (host->gate >= 0)
        log_debug(host->log, "host: opens %s", device->key);
    open_later(host, device, serial, device->kind == DEVICE_USB ? device->node : function);
}

// Only where a test sees to it.
bool host_withhold(struct host *host, struct device *device, uint64_t serial)
{
    if (host->gate < 0)
        return false;
    log_debug(host->log, "host: withholds %s", device->key);
    open_later(host, device, serial, NULL);
    return true;
}

void host_held(struct host *host, const struct device *device)
{
    (void)host, (void)device;
}

void host_settle(struct host *host, struct device *device, bool to_host)
{
    if (host->gate >= 0)
        log_debug(host->log, "host: settles %s%s", device->key, to_host ? " on the host" : "");
}

void host_configure(struct host *host, const struct config *config)
{
    (void)host, (void)config;
}

// The linker puts these around the real ones.
int __real_host_save_choices(const char *path, const struct choices *choices);
int __wrap_host_save_choices(const char *path, const struct choices *choices);

int __wrap_host_save_choices(const char *path, const struct choices *choices)
{
    const char *gate = getenv("VHOTPLUG_TEST_SAVING");
    CLEANUP(cleanup_close) int fd = gate ? open(gate, O_RDONLY | O_CLOEXEC) : -1;
    char byte;
    if (gate && read(fd, &byte, 1) != 1)
        return -EIO;
    return __real_host_save_choices(path, choices);
}

int __real_host_save_memory(const char *path, const struct memory *memory);
int __wrap_host_save_memory(const char *path, const struct memory *memory);

int __wrap_host_save_memory(const char *path, const struct memory *memory)
{
    step();
    int status = __real_host_save_memory(path, memory);
    step();
    return status;
}

void __real_vmms_offer_iommu(struct vmms *vmms, const char *node);
void __wrap_vmms_offer_iommu(struct vmms *vmms, const char *node);

void __wrap_vmms_offer_iommu(struct vmms *vmms, const char *node)
{
    if (strcmp(node, "/dev/iommu") == 0)
        __real_vmms_offer_iommu(vmms, getenv("VHOTPLUG_TEST_IOMMU"));
}
