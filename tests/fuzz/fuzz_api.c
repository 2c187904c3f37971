// Fuzzes the API: lines of clients of all permissions, against a reconciler with devices and VMs. Each line that is
// answered is answered with one line of JSON, and nobody is told anything raw.
#include <stdio.h>
#include <string.h>

#include "api/messages.h"
#include "fuzz.h"
#include "util/json.h"
#include "util/text.h"

#define CONFIG                                                                                                         \
    "{\"vms\": [{\"name\": \"vm1\", \"type\": \"qemu\", \"socket\": \"/a\"}, {\"name\": \"vm2\", \"type\": "           \
    "\"crosvm\", \"socket\": \"/b\"}], \"usbPassthrough\": [{\"allowedVms\": [\"vm1\", \"vm2\"], \"tag\": \"t\", "     \
    "\"allow\": [{\"vendorId\": \"046d\"}]}]}"

struct host {
    sd_event *loop;
    struct log *log;
    struct config *config;
    struct reconcile *reconcile;
    struct messages *messages;
    uint64_t now;
};

static char *reload(void *user)
{
    (void)user;
    return string_copy("not here");
}

static void hear(struct caller *caller, const char *line, size_t length)
{
    (void)caller;
    static const struct json_limits limits = {1 << 20, 64};
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_json) struct json_object *value = json_parse(line, length, &limits, &error);
    if (!value || memchr(line, '\n', length) || memchr(line, 0x1b, length))
        abort();
}

static void turn(struct host *host)
{
    struct output output = {0};
    host->now += 1000;
    while (reconcile_next(host->reconcile, host->now, &output)) {
        if (output.kind != OUTPUT_OPERATION) {
            messages_output(host->messages, &output);
            continue;
        }
        struct result result = {.serial = output.operation.serial, .kind = RESULT_DONE, .listed = true};
        struct attachment attachment = {.ours = true};
        if (output.operation.kind == OPERATION_ATTACH) {
            attachment.instance = output.operation.device->instance;
            object_name(attachment.object, output.operation.device, output.operation.serial);
            result.attachments = &attachment;
            result.attachment_count = 1;
        }
        reconcile_result(host->reconcile, output.operation.vm, &result, host->now);
        operation_clear(&output.operation);
    }
}

static void plug(struct host *host, unsigned port, const char *serial)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    device->key = string_printf("usb:1-%u", port);
    device->port_path = string_printf("1-%u", port);
    device->node = string_printf("/dev/bus/usb/001/%03u", port);
    device->syspath = string_printf("/sys/devices/usb1/1-%u", port);
    device->serial = string_copy(serial);
    device->product_reported = string_copy("Evil\x1b[31m\n");
    device->vendor_id = 0x046d;
    device->product_id = 0xc077;
    device->bus = 1;
    device->address = device->root_port = port;
    device->instance = port;
    reconcile_device(host->reconcile, device, true, host->now);
}

static void host_set_up(struct host *host)
{
    static const struct api_callbacks callbacks = {.reload = reload};
    CLEANUP(config_report_clear) struct config_report report = {0};
    host->now = 1000000;
    host->log = log_new(LOG_LEVEL_ERROR);
    host->config = config_parse("fuzz", CONFIG, strlen(CONFIG), &report);
    host->reconcile = reconcile_new(1, true);
    if (!host->config || sd_event_new(&host->loop) < 0 ||
        messages_new(&host->messages, host->loop, host->log, host->reconcile, &callbacks, host) < 0)
        abort();
    reconcile_configure(host->reconcile, host->config, host->now);
    messages_configure(host->messages, host->config);
    plug(host, 1, "A");
    plug(host, 2, "A");
    reconcile_scanned(host->reconcile, host->now);
    reconcile_vm_up(host->reconcile, "vm1", 7, host->now);
    reconcile_vm_down(host->reconcile, "vm2", host->now);
    turn(host);
}

static void host_clear(struct host *host)
{
    messages_free(host->messages);
    reconcile_free(host->reconcile);
    config_free(host->config);
    log_free(host->log);
    sd_event_unref(host->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static char vm[] = "vm1";
    char *const vms[] = {vm};
    struct host host = {0};
    struct caller caller = {.say = hear};
    if (length == 0)
        return 0;
    caller.permissions = bytes[0] & 7;
    caller.vms = bytes[0] & 8 ? vms : NULL;
    caller.vm_count = bytes[0] & 8 ? 1 : 0;
    caller.may_reload = bytes[0] & 16;
    host_set_up(&host);
    char *text = memory_new(length, 1);
    memcpy(text, bytes + 1, length - 1);
    for (char *line = text, *end; line < text + length - 1 && !caller.owed; line = end + 1) {
        end = memchr(line, '\n', (size_t)(text + length - 1 - line));
        end = end ? end : text + length - 1;
        *end = 0;
        messages_request(host.messages, &caller, line, (size_t)(end - line));
        turn(&host);
    }
    messages_forget(host.messages, &caller);
    host_clear(&host);
    free(text);
    return 0;
}
