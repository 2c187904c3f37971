// PCI functions of the host: builds the value that policy sees from sysfs and what udev knows.
#include "host/pci.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/again.h"
#include "host/sysfs.h"
#include "util/text.h"

// Domain, bus, slot and function in one number; false if NAME is no address. Some domains have five digits.
static bool parse_address(const char *name, uint64_t *number)
{
    unsigned domain, bus, slot, function;
    int length = 0;

    if (strlen(name) > 16 || sscanf(name, "%8x:%2x:%2x.%1o%n", &domain, &bus, &slot, &function, &length) != 4 ||
        name[length] != '\0')
        return false;
    *number = (uint64_t)domain << 32 | bus << 16 | slot << 8 | function;
    return true;
}

// An attribute as the kernel writes it for PCI: "0x8086".
static int read_hex(int directory, const char *name, unsigned long limit, unsigned long *number)
{
    CLEANUP(cleanup_free) char *string = NULL;
    int error = sysfs_string(directory, name, &string);

    if (error < 0)
        return error;
    if (string == NULL)
        return -ENOENT;
    return strncmp(string, "0x", 2) == 0 && string_to_number(string + 2, 16, limit, number) ? 0 : -EINVAL;
}

// The form of the configuration header. It is asked of bridges only, and not of those that the kernel calls PCI to PCI
// just when the header is theirs: to read it wakes a port or a card that sleeps.
static enum pci_header read_header(int directory, const struct device *device)
{
    enum { HEADER_TYPE = 0x0e, SEVERAL_FUNCTIONS = 0x80 };
    CLEANUP(cleanup_free) char *bytes = NULL;
    size_t length = 0;

    if (device->class != 0x06)
        return HEADER_UNKNOWN;
    if (device->subclass == 0x04)
        return HEADER_BUS_BRIDGE;
    if (sysfs_read(directory, "config", HEADER_TYPE + 1, &bytes, &length) < 0 || length <= HEADER_TYPE)
        return HEADER_UNKNOWN;
    switch ((unsigned char)bytes[HEADER_TYPE] & ~SEVERAL_FUNCTIONS) {
    case 0:
        return HEADER_ORDINARY;
    case 1:
    case 2:
        return HEADER_BUS_BRIDGE;
    default: // it does not answer
        return HEADER_UNKNOWN;
    }
}

// What tells which function it is and of which kind; none of it may be absent.
static int read_identity(int directory, struct device *device)
{
    unsigned long vendor, product, class;
    int error = read_hex(directory, "vendor", UINT16_MAX, &vendor);

    if (error >= 0)
        error = read_hex(directory, "device", UINT16_MAX, &product);
    if (error >= 0)
        error = read_hex(directory, "class", 0xffffff, &class);
    if (error < 0)
        return error;
    device->vendor_id = (uint16_t)vendor;
    device->product_id = (uint16_t)product;
    device->class = (uint8_t)(class >> 16);
    device->subclass = (uint8_t)(class >> 8);
    device->protocol = (uint8_t) class;
    device->header = read_header(directory, device);
    return 0;
}

// What not every function has: which board it is on, and the driver that it is bound to now.
static void read_rest(int directory, const char *syspath, struct device *device)
{
    unsigned long number;

    if (read_hex(directory, "subsystem_vendor", UINT16_MAX, &number) >= 0)
        device->subsystem_vendor_id = (uint16_t)number;
    if (read_hex(directory, "subsystem_device", UINT16_MAX, &number) >= 0)
        device->subsystem_id = (uint16_t)number;
    device->driver = sysfs_link_name(syspath, "driver");
}

// The number of its IOMMU group; -1 if it has none, as on a machine without an IOMMU.
static int read_group(const char *syspath)
{
    CLEANUP(cleanup_free) char *group = sysfs_link_name(syspath, "iommu_group");
    unsigned long number;

    return group != NULL && string_to_number(group, 10, INT_MAX, &number) ? (int)number : -1;
}

// One function without its peers.
static int read_one(const char *syspath, struct device **result)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(syspath);
    CLEANUP(cleanup_device) struct device *device = NULL;
    uint64_t address;
    int error;

    if (directory < 0)
        return directory;
    if (!parse_address(sysfs_name(syspath), &address))
        return -EINVAL;
    device = device_new(DEVICE_PCI);
    device->key = string_printf("pci:%s", sysfs_name(syspath));
    device->syspath = string_copy(syspath);
    device->iommu_group = read_group(syspath);
    read_rest(directory, syspath, device);
    error = sysfs_instance(directory, address, &device->instance);
    if (error >= 0) // last, as it proves that the directory is alive: it has a group or has none by itself
        error = read_identity(directory, device);
    if (error >= 0)
        *result = steal_pointer(&device);
    return error;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(struct device *const *)a)->key, (*(struct device *const *)b)->key);
}

// The others of its group, by address. One that is on its way out is left out; its removal is news. Negative errno:
// there may be more.
static int read_peers(struct device *device)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/iommu_group/devices", device->syspath);
    CLEANUP(cleanup_directory) DIR *listing = opendir(path);
    const struct dirent *entry;

    if (listing == NULL)
        return errno == ENOENT ? 0 : -errno;
    while (errno = 0, device->peer_count < PCI_GROUP_MAX && (entry = readdir(listing)) != NULL) {
        CLEANUP(cleanup_free) char *link = string_printf("%s/%s", path, entry->d_name);
        char real[PATH_MAX];
        struct device *peer = NULL;
        int error;
        if (entry->d_name[0] == '.' || string_equal(entry->d_name, sysfs_name(device->syspath)))
            continue;
        error = realpath(link, real) == NULL ? -errno : read_one(real, &peer);
        if (again_helps(-error))
            return error;
        if (peer == NULL)
            continue;
        device->peers = memory_resize(device->peers, device->peer_count + 1, sizeof(struct device *));
        device->peers[device->peer_count++] = peer;
    }
    if (errno != 0)
        return -errno;
    if (device->peer_count > 0)
        qsort(device->peers, device->peer_count, sizeof(struct device *), compare_keys);
    return 0;
}

int pci_read_at(const char *syspath, struct device **device)
{
    CLEANUP(cleanup_device) struct device *found = NULL;
    int error = read_one(syspath, &found);

    if (error >= 0 && found->iommu_group >= 0)
        error = read_peers(found);
    if (error >= 0)
        *device = steal_pointer(&found);
    return error;
}

int pci_read(const struct source *source, struct reading *reading)
{
    int error;

    *reading = (struct reading){0};
    error = pci_read_at(source->syspath, &reading->device);
    if (error < 0)
        return error;
    reading->device->vendor_database = string_copy(source->vendor_database);
    reading->device->product_database = string_copy(source->product_database);
    reading->device->id_path = string_copy(source->id_path);
    return 0;
}

bool pci_is_current(const struct device *device)
{
    CLEANUP(cleanup_device) struct device *now = NULL;

    return pci_read_at(device->syspath, &now) >= 0 && now->instance == device->instance &&
           now->iommu_group == device->iommu_group;
}

bool pci_lists(const struct device *device, const struct device *other)
{
    for (size_t i = 0; i < device->peer_count; i++)
        if (device->peers[i]->instance == other->instance && string_equal(device->peers[i]->key, other->key))
            return true;
    return false;
}
