// Events as they come: connect, ask for notifications, print, and again when the daemon was restarted.
#include "ctl/monitor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/say.h"
#include "util/json.h"
#include "util/text.h"

// Devices whose names are kept for events that have the node only.
#define NAMES_MAX 1024

struct monitor {
    bool json;
    struct json_object *devices; // by device node, PCI functions by address
};

// What tells the device from others; borrowed, NULL: nothing does.
static const char *identity_of(struct json_object *device)
{
    const char *node = json_member_string(device, "device_node");
    return node ? node : json_member_string(device, "address");
}

static void remember(struct monitor *monitor, struct json_object *device)
{
    const char *name = identity_of(device);
    bool room = json_object_object_length(monitor->devices) < NAMES_MAX;
    if (name && json_member(device, "product_name") && (room || json_member(monitor->devices, name)))
        json_object_object_add(monitor->devices, name, json_object_get(device));
}

// Asks for the names of what is there, and then for events. NULL or what went wrong.
static char *begin(struct monitor *monitor, struct channel *channel)
{
    CLEANUP(cleanup_json) struct json_object *list = json_tokener_parse("{\"action\":\"device_list\"}");
    CLEANUP(cleanup_json) struct json_object *notify = json_tokener_parse("{\"action\":\"enable_notifications\"}");
    CLEANUP(cleanup_json) struct json_object *devices_reply = NULL;
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    char *error = channel_request(channel, list, &devices_reply);
    if (error)
        return error;
    // Without names it works as well: who may listen need not be allowed to list.
    struct json_object *devices = json_member(devices_reply, "devices");
    size_t count = json_object_is_type(devices, json_type_array) ? json_object_array_length(devices) : 0;
    for (size_t i = 0; i < count; i++)
        remember(monitor, json_object_array_get_idx(devices, i));
    error = channel_request(channel, notify, &reply);
    if (error)
        return error;
    CLEANUP(cleanup_free) char *failure = channel_failure(reply);
    return failure ? say_safe(failure) : NULL;
}

// The time before a line.
static void print_time(void)
{
    char string[64];
    struct tm parts;
    time_t now = time(NULL);
    if (!localtime_r(&now, &parts))
        return;
    // Who reads a terminal knows the day; who reads a file need not.
    size_t length = isatty(STDOUT_FILENO) ? strftime(string, sizeof string, "%H:%M:%S ", &parts)
                                          : strftime(string, sizeof string, "%Y-%m-%dT%H:%M:%S%z ", &parts);
    if (length)
        (void)fputs(string, stdout);
}

// The device of an event, with what is known of it from before; borrowed.
static struct json_object *event_device(const struct monitor *monitor, struct json_object *event)
{
    struct json_object *device = json_member(event, "usb_device");
    if (!device)
        device = json_member(event, "pci_device");
    if (!device)
        device = json_member(event, "device");
    const char *name = identity_of(device);
    struct json_object *known = name ? json_member(monitor->devices, name) : NULL;
    return known && !json_member(device, "product_name") ? known : device;
}

// What happened, in words; NAME is of the event, and the VM follows where there is a blank at the end.
static const char *event_words(const char *name)
{
    static const char *const words[][2] = {
        {"usb_connected", "plugged in"},
        {"usb_disconnected", "unplugged"},
        {"usb_attached", "attached to "},
        {"usb_detached", "detached from "},
        {"pci_connected", "plugged in"},
        {"pci_disconnected", "unplugged"},
        {"pci_attached", "attached to "},
        {"pci_detached", "detached from "},
        {"attach_failed", "refused by "},
        {"usb_select_vm", "which VM is to have it? "},
        {"vm_up", "is up"},
        {"vm_down", "is down"},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(name, words[i][0]) == 0)
            return words[i][1];
    return NULL;
}

static void print_choices(struct json_object *vms)
{
    size_t count = json_object_is_type(vms, json_type_array) ? json_object_array_length(vms) : 0;
    for (size_t i = 0; i < count; i++) {
        CLEANUP(cleanup_free) char *name = say_safe(json_object_get_string(json_object_array_get_idx(vms, i)));
        (void)printf("%s%s", i ? ", " : "", name);
    }
}

static void print_event(const struct monitor *monitor, struct json_object *event)
{
    const char *name = json_member_string(event, "event");
    const char *words = name ? event_words(name) : NULL;
    struct json_object *device = event_device(monitor, event);
    CLEANUP(cleanup_free) char *vm = say_member(event, "vm");
    print_time();
    if (!words) {
        say_json(stdout, event, false);
        return;
    }
    CLEANUP(cleanup_free) char *title = device ? say_title(device) : string_printf("VM %s", vm);
    (void)printf("%s: %s", title, words);
    if (strcmp(name, "usb_select_vm") == 0)
        print_choices(json_member(event, "allowed_vms"));
    else if (device && words[strlen(words) - 1] == ' ')
        (void)fputs(vm, stdout);
    CLEANUP(cleanup_free) char *reason = say_member(event, "error");
    say_member_else(&reason, event, "reason");
    (void)printf("%s%s\n", *reason ? ": " : "", reason);
}

static void tell(struct monitor *monitor, struct json_object *event)
{
    remember(monitor, json_member(event, "usb_device"));
    remember(monitor, json_member(event, "pci_device"));
    if (monitor->json)
        say_json(stdout, event, false);
    else
        print_event(monitor, event);
}

// Prints what comes until the connection or standard output ends.
static char *follow(struct monitor *monitor, struct channel *channel)
{
    for (;;) {
        CLEANUP(cleanup_json) struct json_object *event = NULL;
        char *error = channel_next(channel, &event);
        if (error)
            return error;
        if (json_member(event, "event"))
            tell(monitor, event);
        if (say_done() != EXIT_SUCCESS)
            return NULL;
    }
}

int monitor_run(const struct channel_address *address, unsigned seconds, bool json)
{
    CLEANUP(cleanup_json) struct json_object *devices = json_object_new_object();
    struct monitor monitor = {.json = json, .devices = devices};
    for (bool first = true;; first = false) {
        CLEANUP(cleanup_channel) struct channel *channel = NULL;
        CLEANUP(cleanup_free) char *error = channel_open(address, seconds, &channel);
        if (!error)
            error = begin(&monitor, channel);
        if (error && first)
            return say_error("%s", error);
        if (!error) {
            (void)fprintf(stderr, first ? "vhotplugctl: listening; end with Ctrl-C\n"
                                        : "vhotplugctl: connected again; what happened meanwhile is not shown\n");
            error = follow(&monitor, channel);
            if (!error)
                return EXIT_FAILURE;
            (void)say_error("%s; trying again", error);
        }
        (void)sleep(MONITOR_PAUSE);
    }
}
