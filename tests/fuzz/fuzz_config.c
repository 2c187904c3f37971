// Fuzzes the configuration: syntax, keys, rules, patterns; what loads must decide about a device and explain it.
#include "core/config.h"
#include "core/explain.h"
#include "core/policy.h"
#include "fuzz.h"
#include "util/json.h"
#include "util/text.h"

static struct device *some_device(enum device_kind kind)
{
    struct device *device = device_new(kind);
    device->key = string_copy(kind == DEVICE_PCI ? "pci:0000:01:00.0" : "usb:1-2.3");
    device->port_path = string_copy("1-2.3");
    device->product_reported = string_copy("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa Mouse");
    device->vendor_database = string_copy("Logitech, Inc.");
    device->serial = string_copy("0001");
    device->vendor_id = 0x046d;
    device->interfaces = memory_new(1, sizeof *device->interfaces);
    device->interfaces[device->interface_count++] = (struct usb_interface){3, 1, 2};
    return device;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    CLEANUP(config_report_clear) struct config_report report = {0};
    CLEANUP(cleanup_config) struct config *config = config_parse("fuzz", (const char *)bytes, length, &report);
    if (!config == (report.errors.count == 0))
        abort(); // refused without a word, or in spite of one
    if (!config)
        return 0;
    free(config_summary(config));
    for (enum device_kind kind = DEVICE_USB; kind <= DEVICE_PCI; kind++) {
        CLEANUP(cleanup_device) struct device *device = some_device(kind);
        CLEANUP(verdict_clear) struct verdict verdict;
        CLEANUP(cleanup_json) struct json_object *explanation = explain_device(config, device);
        policy_decide(config, device, &verdict);
        if (!verdict.reason || !explanation)
            abort();
    }
    return 0;
}
