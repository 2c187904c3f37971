// crosvm's control messages: JSON with externally tagged values, one packet each.
#include "vmm/crosvm_message.h"

#include <stdio.h>
#include <string.h>

#include "util/json.h"
#include "util/text.h"

// The members bus to pid are of crosvm before June 2022, which wants them; later ones do not look.
#define ATTACH_REQUEST "{\"UsbCommand\":{\"AttachDevice\":{\"bus\":0,\"addr\":0,\"vid\":0,\"pid\":0,\"file\":0}}}"
// Exactly 16 numbers, or there is no reply.
#define LIST_REQUEST "{\"UsbCommand\":{\"ListDevice\":{\"ports\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}}}"

static const struct json_limits limits = {CROSVM_MESSAGE_MAX, 16};

const char *crosvm_list_request(void)
{
    return LIST_REQUEST;
}

const char *crosvm_attach_request(void)
{
    return ATTACH_REQUEST;
}

void crosvm_detach_request(char request[CROSVM_DETACH_MAX], unsigned port)
{
    (void)snprintf(request, CROSVM_DETACH_MAX, "{\"UsbCommand\":{\"DetachDevice\":{\"port\":%u}}}", port);
}

static void set_text(struct crosvm_reply *reply, enum crosvm_reply_kind kind, const char *words)
{
    struct text text = {0};
    text_add_safe(&text, words, CROSVM_ERROR_TEXT_MAX);
    reply->kind = kind;
    (void)snprintf(reply->text, sizeof reply->text, "%s", text.string ? text.string : "");
    text_clear(&text);
}

static bool parse_devices(struct json_object *devices, struct crosvm_reply *reply)
{
    if (!json_object_is_type(devices, json_type_array))
        return false;
    size_t count = json_object_array_length(devices);
    for (size_t i = 0; i < count; i++) {
        struct json_object *entry = json_object_array_get_idx(devices, i);
        uint64_t port, vendor, product;
        if (!json_member_uint64(entry, "port", &port) || !json_member_uint64(entry, "vendor_id", &vendor) ||
            !json_member_uint64(entry, "product_id", &product) || vendor > UINT16_MAX || product > UINT16_MAX)
            return false;
        if (port == 0)
            continue;
        if (port > CROSVM_PORTS || reply->ports[port].used)
            return false;
        reply->ports[port] = (struct crosvm_port){true, (uint16_t)vendor, (uint16_t)product};
    }
    reply->kind = CROSVM_DEVICES;
    return true;
}

static bool is_no_device(const char *word)
{
    // The second is never sent, the third is what crosvm called it until November 2023.
    static const char *const words[] = {"NoSuchDevice", "NoSuchPort", "FailedToInitHostDevice"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    return false;
}

static bool parse_usb(struct json_object *value, struct crosvm_reply *reply)
{
    const char *word = json_member_string(value, "UsbResponse");
    if (word) {
        if (strcmp(word, "NoAvailablePort") == 0)
            reply->kind = CROSVM_NO_PORT;
        else if (is_no_device(word))
            reply->kind = CROSVM_NO_DEVICE;
        else
            set_text(reply, CROSVM_FAILED, word);
        return true;
    }
    struct json_object *response = json_member(value, "UsbResponse");
    uint64_t port;
    if (json_member_uint64(json_member(response, "Ok"), "port", &port) && port >= 1 && port <= CROSVM_PORTS) {
        reply->kind = CROSVM_PORT;
        reply->port = (unsigned)port;
        return true;
    }
    return parse_devices(json_member(response, "Devices"), reply);
}

static bool parse_error(struct json_object *value, struct crosvm_reply *reply)
{
    const char *words = json_member_string(value, "ErrString");
    if (words) {
        set_text(reply, CROSVM_OTHER, words);
        return true;
    }
    uint64_t number;
    if (!json_member_uint64(value, "Err", &number) || number == 0 || number > 4095)
        return false;
    reply->kind = CROSVM_ERROR;
    reply->number = (int)number;
    return true;
}

void crosvm_parse_reply(const char *packet, size_t length, struct crosvm_reply *reply)
{
    *reply = (struct crosvm_reply){.kind = CROSVM_OTHER};
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_json) struct json_object *value = json_parse(packet, length, &limits, &error);
    if (value && (parse_usb(value, reply) || parse_error(value, reply)))
        return;
    CLEANUP(cleanup_free) char *raw = string_printf("%.*s", (int)(length < 400 ? length : 400), packet);
    *reply = (struct crosvm_reply){0};
    set_text(reply, CROSVM_OTHER, raw);
}
