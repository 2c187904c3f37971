// Operations and results as values, and the names of the objects we make in VMs.
#include "core/operation.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/text.h"

#define PREFIX "vhotplug-"

void operation_clear(struct operation *operation)
{
    device_release(operation->device);
    *operation = (struct operation){0};
}

void operation_copy(struct operation *to, const struct operation *from)
{
    *to = *from;
    if (from->device)
        to->device = device_reference(from->device);
}

void result_clear(struct result *result)
{
    free(result->text);
    free(result->attachments);
    *result = (struct result){0};
}

void object_name(char name[OBJECT_NAME_MAX], const struct device *device, uint64_t serial)
{
    switch (device->kind) {
    case DEVICE_USB:
        (void)snprintf(name, OBJECT_NAME_MAX, PREFIX "usb-%u-%u-%" PRIx64 "-%" PRIx64, device->bus, device->address,
                       device->instance, serial);
        break;
    case DEVICE_INPUT:
        (void)snprintf(name, OBJECT_NAME_MAX, PREFIX "input-0-0-%" PRIx64 "-%" PRIx64, device->instance, serial);
        break;
    case DEVICE_PCI:
        (void)snprintf(name, OBJECT_NAME_MAX, PREFIX "pci-0-0-%" PRIx64 "-%" PRIx64, device->instance, serial);
        break;
    }
}

bool object_parse(const char *name, uint64_t *instance)
{
    *instance = 0;
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0)
        return false;
    char parts[OBJECT_NAME_MAX];
    if (strlen(name) >= sizeof parts)
        return true;
    memcpy(parts, name, strlen(name) + 1);
    char *rest = NULL;
    const char *fields[6];
    size_t count = 0;
    for (char *part = strtok_r(parts, "-", &rest); part; part = strtok_r(NULL, "-", &rest)) {
        if (count == 6)
            return true;
        fields[count++] = part;
    }
    unsigned long bus, address;
    uint64_t number, serial;
    bool kind = count == 6 &&
                (strcmp(fields[1], "usb") == 0 || strcmp(fields[1], "input") == 0 || strcmp(fields[1], "pci") == 0);
    if (kind && string_to_number(fields[2], 10, UINT32_MAX, &bus) &&
        string_to_number(fields[3], 10, UINT32_MAX, &address) && string_to_uint64(fields[4], 16, UINT64_MAX, &number) &&
        string_to_uint64(fields[5], 16, UINT64_MAX, &serial))
        *instance = number;
    return true;
}
