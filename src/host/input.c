// Input devices of the host that are not USB: builds the value that policy sees from sysfs and what
// udev knows.
#include "host/input.h"

#include <errno.h>
#include <limits.h>
#include <linux/input-event-codes.h>
#include <string.h>

#include "host/sysfs.h"
#include "util/text.h"

enum { LONG_BITS = sizeof(unsigned long) * CHAR_BIT, BITS_MAX = KEY_CNT };

// The bits of a capability.
struct bits {
    bool set[BITS_MAX];
};

// The number in NAME after START; false if it is not of that form.
static bool number_after(const char *name, const char *start, unsigned long *number)
{
    size_t length = strlen(start);

    return strncmp(name, start, length) == 0 && string_to_number(name + length, 10, UINT32_MAX, number);
}

char *input_of_event(const char *syspath)
{
    const char *name = sysfs_name(syspath);
    unsigned long number;
    char *parent;

    if (name == syspath || !number_after(name, "event", &number))
        return NULL;
    parent = string_printf("%.*s", (int)(name - 1 - syspath), syspath);
    if (number_after(sysfs_name(parent), "input", &number))
        return parent;
    free(parent);
    return NULL;
}

bool input_is_usb(const char *syspath)
{
    CLEANUP(cleanup_free) char *path = string_copy(syspath);
    char *rest = NULL;
    unsigned long number;
    bool usb = false;

    for (char *part = strtok_r(path, "/", &rest); part != NULL; part = strtok_r(NULL, "/", &rest))
        if (number_after(part, "usb", &number)) // a root hub
            usb = true;
        else if (string_equal(part, "bluetooth"))
            usb = false;
    return usb;
}

static int instance_of(int directory, const char *syspath, uint64_t *instance)
{
    unsigned long number;

    if (!number_after(sysfs_name(syspath), "input", &number))
        return -EINVAL;
    return sysfs_instance(directory, number, instance);
}

uint64_t input_instance(const char *syspath)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(syspath);
    uint64_t instance;

    return directory < 0 || instance_of(directory, syspath, &instance) < 0 ? 0 : instance;
}

// Words of hexadecimal digits, the highest bits first; what is absent or makes no sense has no bits.
static int read_bits(int directory, const char *name, struct bits *bits)
{
    CLEANUP(cleanup_free) char *text = NULL;
    int error = sysfs_string(directory, name, &text);
    size_t first = 0;

    *bits = (struct bits){0};
    if (error < 0 || text == NULL)
        return error;
    while (*text != '\0' && first < BITS_MAX) {
        char *space = strrchr(text, ' ');
        unsigned long word;
        if (!string_to_number(space != NULL ? space + 1 : text, 16, ULONG_MAX, &word))
            return 0;
        for (size_t i = 0; i < LONG_BITS && first + i < BITS_MAX; i++)
            bits->set[first + i] = (word >> i & 1) != 0;
        first += LONG_BITS;
        *(space != NULL ? space : text) = '\0';
    }
    return 0;
}

static bool has_all_keys(const struct bits *keys)
{
    for (int key = KEY_ESC; key <= KEY_D; key++)
        if (!keys->set[key])
            return false;
    return true;
}

// What udev would say of it, in the main.
static int read_types(int directory, struct source *types)
{
    struct bits keys, relative, absolute, properties;
    int error = read_bits(directory, "capabilities/key", &keys);

    if (error >= 0)
        error = read_bits(directory, "capabilities/rel", &relative);
    if (error >= 0)
        error = read_bits(directory, "capabilities/abs", &absolute);
    if (error >= 0)
        error = read_bits(directory, "properties", &properties);
    if (error < 0)
        return error;
    source_add_property(types, "ID_INPUT", "1");
    if (has_all_keys(&keys))
        source_add_property(types, "ID_INPUT_KEYBOARD", "1");
    if (relative.set[REL_X] && relative.set[REL_Y] && keys.set[BTN_LEFT])
        source_add_property(types, "ID_INPUT_MOUSE", "1");
    if (!absolute.set[ABS_X] || !absolute.set[ABS_Y])
        return 0;
    if (keys.set[BTN_TOOL_PEN] || keys.set[BTN_STYLUS])
        source_add_property(types, "ID_INPUT_TABLET", "1");
    else if (keys.set[BTN_TOOL_FINGER] && !properties.set[INPUT_PROP_DIRECT])
        source_add_property(types, "ID_INPUT_TOUCHPAD", "1");
    else if (keys.set[BTN_TOUCH])
        source_add_property(types, "ID_INPUT_TOUCHSCREEN", "1");
    else if (keys.set[BTN_LEFT]) // an absolute pointer, as virtual machines have
        source_add_property(types, "ID_INPUT_MOUSE", "1");
    return 0;
}

static void copy_properties(const struct source *source, struct device *device)
{
    device->properties = memory_new(source->property_count + 1, sizeof(*device->properties));
    for (size_t i = 0; i < source->property_count; i++)
        device->properties[device->property_count++] = string_copy(source->properties[i]);
}

static int read_properties(int directory, const struct source *source, struct device *device)
{
    CLEANUP(cleanup_source) struct source *types = NULL;
    int error;

    if (source->knows) {
        copy_properties(source, device);
        return 0;
    }
    types = source_new(DEVICE_INPUT, source->syspath, true);
    error = read_types(directory, types);
    if (error >= 0)
        copy_properties(types, device);
    return error;
}

static int read_ids(int directory, struct device *device)
{
    static const char *const names[] = {"id/vendor", "id/product"};
    uint16_t *const places[] = {&device->vendor_id, &device->product_id};

    for (size_t i = 0; i < 2; i++) {
        unsigned long number = 0;
        int error = sysfs_number(directory, names[i], 16, UINT16_MAX, &number);
        if (error < 0 && error != -ENOENT)
            return error;
        *places[i] = (uint16_t)number;
    }
    return 0;
}

static int read_attributes(int directory, const struct source *source, struct device *device)
{
    CLEANUP(cleanup_free) char *number_name = string_printf("%s/dev", source->event);
    int error = read_ids(directory, device);

    if (error >= 0)
        error = sysfs_string(directory, "name", &device->product_reported);
    if (error >= 0)
        error = read_properties(directory, source, device);
    // Last, as it proves that the directory is alive: what was absent before was so by itself.
    return error < 0 ? error : sysfs_device_number(directory, number_name, &device->number);
}

int input_read(const struct source *source, struct reading *reading)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(source->syspath);
    CLEANUP(cleanup_device) struct device *device = NULL;
    int error;

    *reading = (struct reading){0};
    if (directory < 0)
        return directory;
    if (source->event == NULL)
        return -ENOENT;
    device = device_new(DEVICE_INPUT);
    device->key = string_printf("input:%s", sysfs_name(source->syspath));
    device->syspath = string_copy(source->syspath);
    device->node = string_printf("/dev/input/%s", source->event);
    device->path_tag = string_copy(source->path_tag);
    error = instance_of(directory, source->syspath, &device->instance);
    if (error >= 0)
        error = read_attributes(directory, source, device);
    if (error >= 0)
        reading->device = steal_pointer(&device);
    return error;
}
