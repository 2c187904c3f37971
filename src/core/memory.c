// What must outlive a kill, as text and back.
#include "core/memory.h"

#include <stdlib.h>
#include <string.h>

#include "util/json.h"
#include "util/text.h"

#define MEMORY_VERSION 1
#define MEMORY_NAME_MAX 256
#define MEMORY_TEXT_MAX ((size_t)MEMORY_DEVICES_MAX * 1024)
#define MEMORY_DEPTH 4

static const struct json_limits limits = {.length = MEMORY_TEXT_MAX, .depth = MEMORY_DEPTH};

static struct json_object *print_device(const struct memory_device *device)
{
    struct json_object *object = json_object_new_object();
    json_object_object_add(object, "key", json_object_new_string(device->key));
    json_object_object_add(object, "instance", json_object_new_uint64(device->instance));
    json_object_object_add(object, "managed", json_object_new_boolean(device->managed));
    if (device->vm) {
        json_object_object_add(object, "vm", json_object_new_string(device->vm));
        json_object_object_add(object, "vmInstance", json_object_new_uint64(device->vm_instance));
        json_object_object_add(object, "vendorId", json_object_new_int(device->vendor_id));
        json_object_object_add(object, "productId", json_object_new_int(device->product_id));
    }
    if (device->vm && device->object)
        json_object_object_add(object, "object", json_object_new_string(device->object));
    return object;
}

// One device after the other: a tree of all would be large, and is needed before each attach.
char *memory_print(const struct memory *memory)
{
    struct text text = {0};
    text_printf(&text, "{\"version\":%d,\"devices\":[", MEMORY_VERSION);
    for (size_t i = 0; i < memory->count; i++) {
        CLEANUP(cleanup_json) struct json_object *object = print_device(&memory->devices[i]);
        CLEANUP(cleanup_free) char *device = json_print(object);
        text_printf(&text, "%s%s", i > 0 ? "," : "", device);
    }
    text_add(&text, "]}");
    return text_take(&text);
}

static bool is_name(const char *name)
{
    return name && *name && strlen(name) < MEMORY_NAME_MAX;
}

// The VM that has it, and as what; NULL, or what is wrong with it.
static const char *parse_holder(struct json_object *object, struct memory_device *device)
{
    const char *vm = json_member_string(object, "vm");
    const char *name = json_member_string(object, "object");
    uint64_t vendor, product;
    if (!is_name(vm) || !json_member_uint64(object, "vmInstance", &device->vm_instance))
        return "no valid vm or vmInstance";
    if (!json_member_uint64(object, "vendorId", &vendor) || !json_member_uint64(object, "productId", &product) ||
        vendor > UINT16_MAX || product > UINT16_MAX)
        return "no valid vendorId or productId";
    if (json_object_object_get_ex(object, "object", NULL) && !is_name(name))
        return "no valid object";
    device->vendor_id = (uint16_t)vendor;
    device->product_id = (uint16_t)product;
    device->vm = string_copy(vm);
    device->object = string_copy(name);
    return NULL;
}

// NULL, or what is wrong with it.
static const char *parse_device(struct json_object *object, struct memory_device *device)
{
    const char *key = json_member_string(object, "key");
    if (!is_name(key))
        return "no valid key";
    if (!json_member_uint64(object, "instance", &device->instance) || !device->instance)
        return "no valid instance";
    if (!json_member_bool(object, "managed", &device->managed))
        return "no valid managed";
    const char *wrong = json_object_object_get_ex(object, "vm", NULL) ? parse_holder(object, device) : NULL;
    if (!wrong)
        device->key = string_copy(key);
    return wrong;
}

static char *parse_devices(struct json_object *devices, struct memory *memory)
{
    size_t count = json_object_array_length(devices);
    if (count > MEMORY_DEVICES_MAX)
        return string_printf("more than %d devices", MEMORY_DEVICES_MAX);
    if (count)
        memory->devices = memory_new(count, sizeof(*memory->devices));
    for (size_t i = 0; i < count; i++) {
        const char *wrong = parse_device(json_object_array_get_idx(devices, i), &memory->devices[i]);
        if (wrong)
            return string_printf("devices[%zu]: %s", i, wrong);
        memory->count++;
    }
    return NULL;
}

char *memory_parse(const char *text, size_t length, struct memory *memory)
{
    *memory = (struct memory){0};
    char *error = NULL;
    CLEANUP(cleanup_json) struct json_object *root = json_parse(text, length, &limits, &error);
    if (!root)
        return error;
    uint64_t version;
    if (!json_member_uint64(root, "version", &version) || version != MEMORY_VERSION)
        return string_copy("not a memory of a version that is known");
    struct json_object *devices = json_member(root, "devices");
    if (!json_object_is_type(devices, json_type_array))
        return string_copy("no list of devices");
    error = parse_devices(devices, memory);
    if (error)
        memory_clear(memory);
    return error;
}

void memory_device_clear(struct memory_device *device)
{
    free(device->key);
    free(device->vm);
    free(device->object);
    *device = (struct memory_device){0};
}

void memory_add(struct memory *memory, const struct memory_device *device)
{
    if (memory->count == MEMORY_DEVICES_MAX)
        return;
    if ((memory->count & (memory->count - 1)) == 0) // grows at powers of two
        memory->devices =
            memory_resize(memory->devices, memory->count ? memory->count * 2 : 1, sizeof(*memory->devices));
    struct memory_device *copy = &memory->devices[memory->count++];
    *copy = *device;
    copy->key = string_copy(device->key);
    copy->vm = string_copy(device->vm);
    copy->object = string_copy(device->object);
}

void memory_copy(struct memory *to, const struct memory *from)
{
    for (size_t i = 0; i < from->count; i++)
        memory_add(to, &from->devices[i]);
}

void memory_clear(struct memory *memory)
{
    for (size_t i = 0; i < memory->count; i++)
        memory_device_clear(&memory->devices[i]);
    free(memory->devices);
    *memory = (struct memory){0};
}
