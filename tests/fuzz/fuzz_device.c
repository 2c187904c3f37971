// Fuzzes devices in JSON, as vhotplugctl explain reads them: what is read prints, and reads again as the same.
#include "core/device_json.h"
#include "fuzz.h"
#include "util/json.h"
#include "util/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const struct json_limits limits = {65536, 16};
    CLEANUP(cleanup_free) char *error = NULL, *again_error = NULL;
    CLEANUP(cleanup_json) struct json_object *value = json_parse((const char *)bytes, length, &limits, &error);
    if (!value)
        return 0;
    free(steal_pointer(&error));
    CLEANUP(cleanup_device) struct device *device = device_from_json(value, &error);
    if (!device == !error)
        abort();
    if (!device)
        return 0;
    free(device_title(device));
    CLEANUP(cleanup_json) struct json_object *printed = device_to_json(device);
    CLEANUP(cleanup_device) struct device *again = device_from_json(printed, &again_error);
    if (!again)
        abort(); // what we print we must read
    return 0;
}
