// A device of the host as a value: made, shared, compared, named.
#include "core/device.h"

#include <stdio.h>
#include <string.h>

#include "util/text.h"

#define TITLE_NAME_LENGTH 80

struct device *device_new(enum device_kind kind)
{
    struct device *device = memory_new(1, sizeof *device);
    device->kind = kind;
    device->iommu_group = -1;
    device->references = 1;
    return device;
}

struct device *device_reference(struct device *device)
{
    device->references++;
    return device;
}

static void free_strings(char **strings, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(strings[i]);
    free(strings);
}

void device_release(struct device *device)
{
    if (!device || --device->references)
        return;
    char *strings[] = {device->key,
                       device->syspath,
                       device->node,
                       device->vendor_database,
                       device->product_database,
                       device->vendor_reported,
                       device->product_reported,
                       device->serial,
                       device->port_path,
                       device->id_path,
                       device->path_tag,
                       device->driver,
                       device->host_use};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        free(strings[i]);
    free(device->interfaces);
    for (size_t i = 0; i < device->peer_count; i++)
        device_release(device->peers[i]);
    free(device->peers);
    free_strings(device->drivers, device->driver_count);
    free_strings(device->properties, device->property_count);
    free(device);
}

static bool strings_equal(char *const *a, size_t a_count, char *const *b, size_t b_count)
{
    if (a_count != b_count)
        return false;
    for (size_t i = 0; i < a_count; i++)
        if (!string_equal(a[i], b[i]))
            return false;
    return true;
}

static bool names_equal(const struct device *a, const struct device *b)
{
    return string_equal(a->vendor_database, b->vendor_database) &&
           string_equal(a->product_database, b->product_database) &&
           string_equal(a->vendor_reported, b->vendor_reported) &&
           string_equal(a->product_reported, b->product_reported) && string_equal(a->serial, b->serial) &&
           string_equal(a->port_path, b->port_path) && string_equal(a->id_path, b->id_path) &&
           string_equal(a->path_tag, b->path_tag) && string_equal(a->host_use, b->host_use);
}

static bool numbers_equal(const struct device *a, const struct device *b)
{
    return a->number == b->number && a->vendor_id == b->vendor_id && a->product_id == b->product_id &&
           a->bus == b->bus && a->address == b->address && a->root_port == b->root_port && a->speed == b->speed &&
           a->class == b->class && a->subclass == b->subclass && a->protocol == b->protocol &&
           a->removable == b->removable && a->subsystem_vendor_id == b->subsystem_vendor_id &&
           a->subsystem_id == b->subsystem_id && a->header == b->header && a->iommu_group == b->iommu_group;
}

static bool interfaces_equal(const struct device *a, const struct device *b)
{
    if (a->interface_count != b->interface_count)
        return false;
    for (size_t i = 0; i < a->interface_count; i++) {
        const struct usb_interface *x = &a->interfaces[i];
        const struct usb_interface *y = &b->interfaces[i];
        if (x->class != y->class || x->subclass != y->subclass || x->protocol != y->protocol)
            return false;
    }
    return true;
}

// Peers have none of their own.
static bool peers_equal(const struct device *a, const struct device *b)
{
    if (a->peer_count != b->peer_count)
        return false;
    for (size_t i = 0; i < a->peer_count; i++)
        if (!device_equal(a->peers[i], b->peers[i]))
            return false;
    return true;
}

bool device_equal(const struct device *a, const struct device *b)
{
    return a->kind == b->kind && a->instance == b->instance && string_equal(a->key, b->key) &&
           string_equal(a->syspath, b->syspath) && string_equal(a->node, b->node) && numbers_equal(a, b) &&
           names_equal(a, b) && interfaces_equal(a, b) && peers_equal(a, b) &&
           strings_equal(a->drivers, a->driver_count, b->drivers, b->driver_count) &&
           strings_equal(a->properties, a->property_count, b->properties, b->property_count);
}

bool device_is_bridge(const struct device *device)
{
    return device->kind == DEVICE_PCI && (device->class == 0x06 || device->header == HEADER_BUS_BRIDGE);
}

// PCI to PCI, PCI to CardBus, PCI to PCI half transparent.
static bool is_bus_subclass(uint8_t subclass)
{
    return subclass == 0x04 || subclass == 0x07 || subclass == 0x09;
}

bool device_is_bus_bridge(const struct device *device)
{
    if (!device_is_bridge(device))
        return false;
    return device->header == HEADER_UNKNOWN ? is_bus_subclass(device->subclass) : device->header == HEADER_BUS_BRIDGE;
}

bool device_is_hub(const struct device *device)
{
    if (device->kind != DEVICE_USB)
        return false;
    if (device->class == 9)
        return true;
    for (size_t i = 0; i < device->interface_count; i++)
        if (device->interfaces[i].class == 9)
            return true;
    return false;
}

bool device_is_only_hub(const struct device *device)
{
    if (device->kind != DEVICE_USB || device->class != 9)
        return false;
    for (size_t i = 0; i < device->interface_count; i++)
        if (device->interfaces[i].class != 9)
            return false;
    return device->interface_count > 0;
}

const char *device_pci_address(const struct device *device)
{
    static const char prefix[] = "pci:";
    if (device->kind != DEVICE_PCI || !device->key || strncmp(device->key, prefix, sizeof prefix - 1) != 0)
        return NULL;
    return device->key + sizeof prefix - 1;
}

char *device_parse_pci_address(const char *text)
{
    unsigned domain = 0, bus, device, function;
    int end = 0, short_end = 0;
    bool full = strlen(text) <= 16 && sscanf(text, "%8x:%2x:%2x.%1o%n", &domain, &bus, &device, &function, &end) == 4;
    if (!full) {
        domain = 0;
        full = strlen(text) <= 16 && sscanf(text, "%2x:%2x.%1o%n", &bus, &device, &function, &short_end) == 3;
        end = short_end;
    }
    if (!full || text[end] || device > 0x1f || text[strspn(text, "0123456789abcdefABCDEF:.")])
        return NULL;
    return string_printf("%04x:%02x:%02x.%o", domain, bus, device, function);
}

// Blanks at the ends of what devices report say nothing.
static char *trimmed(const char *name)
{
    if (!name)
        return NULL;
    name += strspn(name, " ");
    size_t length = strlen(name);
    while (length && name[length - 1] == ' ')
        length--;
    return length ? string_printf("%.*s", (int)length, name) : NULL;
}

char *device_title(const struct device *device)
{
    CLEANUP(cleanup_free) char *reported = trimmed(device->product_reported);
    CLEANUP(cleanup_free) char *vendor = trimmed(device->vendor_reported);
    const char *name = reported ? reported : device->product_database;
    const char *maker = vendor ? vendor : device->vendor_database;
    struct text title = {0};
    if (name) {
        text_add_safe(&title, name, TITLE_NAME_LENGTH);
    } else if (maker) {
        text_add_safe(&title, maker, TITLE_NAME_LENGTH);
        text_add(&title, " device");
    } else {
        text_add(&title, "unnamed device");
    }
    const char *place = device->port_path                            ? device->port_path
                        : device->node && device->kind != DEVICE_PCI ? device->node
                        : device_pci_address(device)                 ? device_pci_address(device)
                                                                     : device->key;
    if (device->vendor_id || device->product_id)
        text_printf(&title, " (%04x:%04x, ", device->vendor_id, device->product_id);
    else
        text_add(&title, " (");
    text_add_safe(&title, place ? place : "?", TITLE_NAME_LENGTH);
    text_add(&title, ")");
    return text_take(&title);
}
