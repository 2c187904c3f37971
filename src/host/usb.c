// USB devices of the host: builds the value that policy sees from sysfs and what udev knows.
#include "host/usb.h"

#include <errno.h>
#include <string.h>

#include "host/descriptors.h"
#include "host/idpath.h"
#include "host/sysfs.h"
#include "util/text.h"

static int read_place(int directory, unsigned long *bus, unsigned long *address)
{
    int error = sysfs_number(directory, "busnum", 10, UINT16_MAX, bus);

    return error < 0 ? error : sysfs_number(directory, "devnum", 10, UINT16_MAX, address);
}

static uint64_t place_number(unsigned long bus, unsigned long address)
{
    return (uint64_t)bus << 32 | address;
}

uint64_t usb_instance_in(int directory)
{
    unsigned long bus, address;
    uint64_t instance;

    if (read_place(directory, &bus, &address) < 0 ||
        sysfs_instance(directory, place_number(bus, address), &instance) < 0)
        return 0;
    return instance;
}

uint64_t usb_instance(const char *syspath)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(syspath);

    return directory < 0 ? 0 : usb_instance_in(directory);
}

static enum usb_speed speed_from(const char *text)
{
    unsigned long number;

    if (text == NULL)
        return SPEED_UNKNOWN;
    if (string_equal(text, "1.5"))
        return SPEED_LOW;
    if (!string_to_number(text, 10, 1000000, &number))
        return SPEED_UNKNOWN;
    if (number >= 5000)
        return SPEED_SUPER;
    return number == 480 ? SPEED_HIGH : number == 12 ? SPEED_FULL : SPEED_UNKNOWN;
}

static enum usb_removable removable_from(const char *text)
{
    if (string_equal(text, "fixed"))
        return REMOVABLE_FIXED;
    return string_equal(text, "removable") ? REMOVABLE_REMOVABLE : REMOVABLE_UNKNOWN;
}

// 2 of "1-2.3"; 0 of a root hub, "usb1".
static unsigned root_port_of(const char *port_path)
{
    const char *dash = strchr(port_path, '-');
    unsigned long number;
    char digits[8] = "";

    if (dash == NULL)
        return 0;
    strncpy(digits, dash + 1, sizeof(digits) - 1);
    digits[strspn(digits, "0123456789")] = '\0';
    return string_to_number(digits, 10, 255, &number) ? (unsigned)number : 0;
}

// The class of the device itself; absent ones stay 0.
static int read_classes(int directory, struct device *device)
{
    static const char *const names[] = {"bDeviceClass", "bDeviceSubClass", "bDeviceProtocol"};
    uint8_t *const places[] = {&device->class, &device->subclass, &device->protocol};

    for (size_t i = 0; i < 3; i++) {
        unsigned long number = 0;
        int error = sysfs_number(directory, names[i], 16, UINT8_MAX, &number);
        if (error < 0 && error != -ENOENT)
            return error;
        *places[i] = (uint8_t)number;
    }
    return 0;
}

static int read_strings(int directory, struct device *device)
{
    static const char *const names[] = {"manufacturer", "product", "serial"};
    char **const places[] = {&device->vendor_reported, &device->product_reported, &device->serial};

    for (size_t i = 0; i < 3; i++) {
        int error = sysfs_string(directory, names[i], places[i]);
        if (error < 0)
            return error;
    }
    return 0;
}

// Speed and kind of port.
static int read_port(int directory, struct device *device)
{
    CLEANUP(cleanup_free) char *speed = NULL;
    CLEANUP(cleanup_free) char *removable = NULL;
    int error = sysfs_string(directory, "speed", &speed);

    if (error >= 0)
        error = sysfs_string(directory, "removable", &removable);
    if (error < 0)
        return error;
    device->speed = speed_from(speed);
    device->removable = removable_from(removable);
    return 0;
}

// Without these it is not known which device it is; none of them may be absent.
static int read_identity(int directory, struct device *device)
{
    unsigned long bus, address, vendor, product;
    int error = read_place(directory, &bus, &address);

    if (error >= 0)
        error = sysfs_number(directory, "idVendor", 16, UINT16_MAX, &vendor);
    if (error >= 0)
        error = sysfs_number(directory, "idProduct", 16, UINT16_MAX, &product);
    if (error >= 0)
        error = sysfs_device_number(directory, "dev", &device->number);
    if (error >= 0)
        error = sysfs_instance(directory, place_number(bus, address), &device->instance);
    if (error < 0)
        return error;
    device->bus = (unsigned)bus;
    device->address = (unsigned)address;
    device->vendor_id = (uint16_t)vendor;
    device->product_id = (uint16_t)product;
    device->node = string_printf("/dev/bus/usb/%03u/%03u", device->bus, device->address);
    return 0;
}

// Interfaces come from here alone: an unauthorized device has no interface directories. They must
// be there, else a deny rule for an interface would not be seen to match.
static int read_descriptors(int directory, struct reading *reading)
{
    CLEANUP(cleanup_free) char *bytes = NULL;
    CLEANUP(cleanup_free) struct descriptors *descriptors = memory_new(1, sizeof(*descriptors));
    size_t length = 0;
    int error = sysfs_read(directory, "descriptors", DESCRIPTORS_LENGTH_MAX, &bytes, &length);

    if (error < 0)
        return error;
    if (!descriptors_parse((const uint8_t *)bytes, length, descriptors))
        return -EINVAL;
    descriptors_to_device(descriptors, reading->device);
    if (descriptors_tell_class(descriptors))
        return 0;
    for (size_t i = 0; i < descriptors->count && i < READING_MODALIASES_MAX; i++)
        reading->modaliases[reading->modalias_count++] = descriptors_modalias(descriptors, i);
    return 0;
}

// The directory may have died between any two reads; attributes that were absent only because of
// that must not be taken for a device that never had them.
static int check_alive(int directory, const struct device *device)
{
    unsigned long bus, address;
    int error = read_place(directory, &bus, &address);

    if (error < 0)
        return error;
    return bus == device->bus && address == device->address ? 0 : -ESTALE;
}

static int read_attributes(int directory, struct reading *reading)
{
    int error = read_identity(directory, reading->device);

    if (error >= 0)
        error = read_classes(directory, reading->device);
    if (error >= 0)
        error = read_strings(directory, reading->device);
    if (error >= 0)
        error = read_port(directory, reading->device);
    if (error >= 0)
        error = read_descriptors(directory, reading);
    return error < 0 ? error : check_alive(directory, reading->device);
}

static void name_place(const struct source *source, struct device *device)
{
    const char *slash = strrchr(source->syspath, '/');
    const char *name = slash != NULL ? slash + 1 : source->syspath;

    device->key = string_printf("usb:%s", name);
    device->syspath = string_copy(source->syspath);
    device->port_path = string_copy(name);
    device->root_port = root_port_of(name);
    device->id_path = source->id_path != NULL ? string_copy(source->id_path) : idpath_of_usb(source->syspath);
    device->vendor_database = string_copy(source->vendor_database);
    device->product_database = string_copy(source->product_database);
}

int usb_read(const struct source *source, struct reading *reading)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(source->syspath);
    int error;

    *reading = (struct reading){0};
    if (directory < 0)
        return directory;
    reading->device = device_new(DEVICE_USB);
    name_place(source, reading->device);
    error = read_attributes(directory, reading);
    if (error < 0)
        reading_clear(reading);
    return error;
}
