// The descriptors of a USB device as sysfs gives them: what the device says of itself, hostile.
#include "host/descriptors.h"

#include <string.h>

#include "util/text.h"

enum { TYPE_DEVICE = 1, TYPE_INTERFACE = 4 };
enum { LENGTH_HEADER = 2, LENGTH_INTERFACE = 9, LENGTH_DEVICE = 18 };

// USB is little endian on the wire and in sysfs.
static uint16_t number_at(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static bool same_triple(const struct usb_interface *a, const struct usb_interface *b)
{
    return a->class == b->class && a->subclass == b->subclass && a->protocol == b->protocol;
}

// False when there are more than any device needs: one that hides interfaces behind a crowd of
// others must not slip past a deny rule.
static bool add_interface(struct descriptors *descriptors, const uint8_t *bytes)
{
    struct descriptors_interface new = {{bytes[5], bytes[6], bytes[7]}, bytes[2]};

    for (size_t i = 0; i < descriptors->count; i++)
        if (same_triple(&descriptors->interfaces[i].is, &new.is) && descriptors->interfaces[i].number == new.number)
            return true;
    if (descriptors->count == DEVICE_INTERFACES_MAX)
        return false;
    descriptors->interfaces[descriptors->count++] = new;
    return true;
}

// sysfs joins the configurations and has already cut each one before its first malformed
// descriptor, so that wTotalLength is not to be relied on: the walk is one line.
bool descriptors_parse(const uint8_t *bytes, size_t length, struct descriptors *descriptors)
{
    size_t at = LENGTH_DEVICE;

    memset(descriptors, 0, sizeof(*descriptors));
    if (length < LENGTH_DEVICE || bytes[0] != LENGTH_DEVICE || bytes[1] != TYPE_DEVICE)
        return false;
    descriptors->class = bytes[4];
    descriptors->subclass = bytes[5];
    descriptors->protocol = bytes[6];
    descriptors->vendor_id = number_at(bytes + 8);
    descriptors->product_id = number_at(bytes + 10);
    descriptors->release = number_at(bytes + 12);
    while (length - at >= LENGTH_HEADER) {
        size_t size = bytes[at];
        if (size < LENGTH_HEADER || size > length - at)
            break;
        if (bytes[at + 1] == TYPE_INTERFACE && size >= LENGTH_INTERFACE && !add_interface(descriptors, bytes + at))
            return false;
        at += size;
    }
    return true;
}

void descriptors_to_device(const struct descriptors *descriptors, struct device *device)
{
    if (descriptors->count == 0)
        return;
    device->interfaces = memory_new(descriptors->count, sizeof(*device->interfaces));
    device->interface_count = 0;
    for (size_t i = 0; i < descriptors->count; i++) {
        size_t known = 0;
        while (known < device->interface_count &&
               !same_triple(&device->interfaces[known], &descriptors->interfaces[i].is))
            known++;
        if (known == device->interface_count)
            device->interfaces[device->interface_count++] = descriptors->interfaces[i].is;
    }
}

bool descriptors_tell_class(const struct descriptors *descriptors)
{
    for (size_t i = 0; i < descriptors->count; i++)
        if (descriptors->interfaces[i].is.class != 0 && descriptors->interfaces[i].is.class != 255)
            return true;
    return false;
}

char *descriptors_modalias(const struct descriptors *descriptors, size_t index)
{
    const struct descriptors_interface *interface = &descriptors->interfaces[index];

    return string_printf("usb:v%04Xp%04Xd%04Xdc%02Xdsc%02Xdp%02Xic%02Xisc%02Xip%02Xin%02X", descriptors->vendor_id,
                         descriptors->product_id, descriptors->release, descriptors->class, descriptors->subclass,
                         descriptors->protocol, interface->is.class, interface->is.subclass, interface->is.protocol,
                         interface->number);
}
