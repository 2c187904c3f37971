// Fuzzes what a USB device says of itself, and paths of sysfs.
#include <string.h>

#include "fuzz.h"
#include "host/descriptors.h"
#include "host/idpath.h"
#include "util/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct descriptors descriptors;
    if (descriptors_parse(bytes, length, &descriptors)) {
        CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
        descriptors_to_device(&descriptors, device);
        for (size_t i = 0; i < descriptors.count; i++)
            free(descriptors_modalias(&descriptors, i));
        if (device->interface_count > descriptors.count ||
            (device_is_hub(device) && descriptors_tell_class(&descriptors) && descriptors.count == 0))
            abort();
    }
    char *path = memory_new(length + 1, 1);
    memcpy(path, bytes, length);
    free(idpath_of_usb(path));
    free(device_parse_pci_address(path));
    free(path);
    return 0;
}
