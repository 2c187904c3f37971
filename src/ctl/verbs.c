// The verbs of vhotplugctl: one request, one reply, and its text.
#include "ctl/verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/device.h"
#include "ctl/explanation.h"
#include "ctl/say.h"
#include "ctl/table.h"
#include "util/json.h"
#include "util/text.h"

#define INPUT_NAME "event"

static struct json_object *request_new(const char *action)
{
    struct json_object *request = json_object_new_object();
    json_object_object_add(request, "action", json_object_new_string(action));
    return request;
}

static void request_add(struct json_object *request, const char *name, const char *value)
{
    if (value)
        json_object_object_add(request, name, json_object_new_string(value));
}

// The device that a person named. What lists call event5 is known to the daemon by its node.
static void request_add_device(struct json_object *request, const char *device)
{
    const char *digits = device + strlen(INPUT_NAME);
    bool input =
        strncmp(device, INPUT_NAME, strlen(INPUT_NAME)) == 0 && *digits && !digits[strspn(digits, "0123456789")];
    CLEANUP(cleanup_free) char *node = string_printf("/dev/input/%s", device);
    request_add(request, "device", input ? node : device);
}

// "usb_attach" or "pci_attach": an address is that of a PCI function, any other name may be that of any device.
static struct json_object *request_for(const char *verb, const char *device)
{
    CLEANUP(cleanup_free) char *address = device_parse_pci_address(device);
    CLEANUP(cleanup_free) char *action = string_printf("%s_%s", address ? "pci" : "usb", verb);
    struct json_object *request = request_new(action);
    request_add_device(request, device);
    return request;
}

// Sends a request and takes the reply, whatever its result is; says what went wrong. REQUEST is used up.
static int exchange(const struct verbs_settings *settings, struct json_object *request, struct json_object **reply)
{
    CLEANUP(cleanup_json) struct json_object *owned = request;
    CLEANUP(cleanup_channel) struct channel *channel = NULL;
    CLEANUP(cleanup_free) char *error = channel_open(&settings->address, settings->seconds, &channel);
    if (error)
        return say_error("cannot connect to %s", error);
    error = channel_request(channel, owned, reply);
    return error ? say_error("%s", error) : EXIT_SUCCESS;
}

// As exchange, and a reply that is not ok is an error too.
static int ask(const struct verbs_settings *settings, struct json_object *request, struct json_object **reply)
{
    if (exchange(settings, request, reply) != EXIT_SUCCESS)
        return EXIT_FAILURE;
    CLEANUP(cleanup_free) char *failure = channel_failure(*reply);
    if (!failure)
        return EXIT_SUCCESS;
    CLEANUP(cleanup_free) char *safe = say_safe(failure);
    return say_error("%s", safe);
}

// Each line of a text of errors as a line of ours: the lines themselves are hostile, their ends are not.
static void say_lines(char *text)
{
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        CLEANUP(cleanup_free) char *safe = say_safe(line);
        if (*line)
            (void)say_error("%s", safe);
    }
}

// The reply as JSON; its exit status. WRONG is NULL, or why it is none that was wished for, which is said too.
static int print_reply(struct json_object *reply, const char *wrong)
{
    CLEANUP(cleanup_free) char *text = string_copy(wrong);
    say_json(stdout, reply, true);
    int status = say_done();
    if (!text)
        return status;
    say_lines(text);
    return EXIT_FAILURE;
}

// Whether the device is of those that are to be listed. There are dozens of PCI functions on any host, of which few
// are of interest.
static bool is_listed(const struct verbs_settings *settings, struct json_object *device)
{
    bool pci = string_equal(json_member_string(device, "kind"), "pci");
    bool of_interest = !json_member(device, "named") || say_flag(device, "named") || json_member(device, "vm");
    return settings->pci ? pci : !pci || of_interest;
}

// The devices that are to be listed; json_object_put.
static struct json_object *listed_devices(const struct verbs_settings *settings, struct json_object *list)
{
    struct json_object *listed = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *device = json_object_array_get_idx(list, i);
        if (is_listed(settings, device))
            json_object_array_add(listed, json_object_get(device));
    }
    return listed;
}

// Asks for a list and prints it by PRINT; of devices, those that are to be listed.
static int show_list(const struct verbs_settings *settings, const char *action, const char *member,
                     int (*print)(struct json_object *list))
{
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    if (ask(settings, request_new(action), &reply) != EXIT_SUCCESS)
        return EXIT_FAILURE;
    struct json_object *list = json_member(reply, member);
    if (!json_object_is_type(list, json_type_array))
        return say_error("the answer has no list of %s", member);
    CLEANUP(cleanup_json) struct json_object *shown = listed_devices(settings, list);
    if (!settings->json)
        return print(shown);
    say_json(stdout, shown, true);
    return say_done();
}

int verbs_list(const struct verbs_settings *settings, char **arguments)
{
    (void)arguments;
    return show_list(settings, "device_list", "devices", settings->tree ? table_tree : table_devices);
}

int verbs_vms(const struct verbs_settings *settings, char **arguments)
{
    (void)arguments;
    return show_list(settings, "vm_list", "vms", table_vms);
}

// "DEVICE: attached to vm1", of an answer that has the state, the VM and the reason.
static void print_state(const char *device, struct json_object *answer)
{
    CLEANUP(cleanup_free) char *state = say_member(answer, "state");
    CLEANUP(cleanup_free) char *vm = say_member(answer, "vm");
    CLEANUP(cleanup_free) char *reason = say_member(answer, "reason");
    bool in = strcmp(state, "attached") == 0;
    (void)printf("%s: %s%s%s", device, *state ? state : "done", in && *vm ? " to " : "", in ? vm : "");
    if (say_flag(answer, "skipped"))
        (void)fputs(" (skipOnSuspend)", stdout);
    (void)printf("%s%s\n", *reason && !in ? ": " : "", in ? "" : reason);
}

// What became of each device of a request for several.
static void print_results(struct json_object *devices)
{
    size_t count = json_object_array_length(devices);
    for (size_t i = 0; i < count; i++) {
        struct json_object *device = json_object_array_get_idx(devices, i);
        CLEANUP(cleanup_free) char *title = say_title(device);
        CLEANUP(cleanup_free) char *error = say_member(device, "error");
        if (string_equal(json_member_string(device, "result"), "failed"))
            (void)printf("%s: failed: %s\n", title, error);
        else
            print_state(title, device);
    }
}

// What is wrong with a reply to a request that moves SUBJECT, safe; NULL: nothing.
static char *wrong_move(struct json_object *reply, const char *subject, bool goes_out)
{
    CLEANUP(cleanup_free) char *failure = channel_failure(reply);
    if (failure)
        return say_safe(failure);
    CLEANUP(cleanup_free) char *not_out = goes_out ? say_not_out(reply) : NULL;
    return not_out ? string_printf("%s: %s", subject, not_out) : NULL;
}

// Asks to move something, and says what became of it; SUBJECT is what the person named, DONE what to say
// of it when all is well.
static int move(const struct verbs_settings *settings, struct json_object *request, const char *subject,
                const char *done)
{
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    CLEANUP(cleanup_free) char *name = say_safe(subject);
    bool goes_out = string_equal(json_member_string(request, "action") + strlen("usb_"), "detach");
    if (exchange(settings, request, &reply) != EXIT_SUCCESS)
        return EXIT_FAILURE;
    CLEANUP(cleanup_free) char *wrong = wrong_move(reply, name, goes_out);
    struct json_object *devices = json_member(reply, "devices");
    if (settings->json)
        return print_reply(reply, wrong);
    if (json_object_is_type(devices, json_type_array))
        print_results(devices);
    if (wrong)
        return (void)fflush(stdout), say_error("%s", wrong);
    if (done)
        (void)printf("%s: %s\n", name, done);
    else if (!devices)
        print_state(name, reply);
    return say_done();
}

int verbs_attach(const struct verbs_settings *settings, char **arguments)
{
    struct json_object *request = request_for("attach", arguments[0]);
    request_add(request, "vm", arguments[1]);
    return move(settings, request, arguments[0], NULL);
}

int verbs_detach(const struct verbs_settings *settings, char **arguments)
{
    struct json_object *request = request_for("detach", arguments[0]);
    return move(settings, request, arguments[0], "detached; it stays out until you attach it");
}

int verbs_suspend(const struct verbs_settings *settings, char **arguments)
{
    struct json_object *request = request_new(settings->pci ? "pci_suspend" : "usb_suspend");
    request_add(request, "vm", arguments[0]);
    return move(settings, request, arguments[0] ? arguments[0] : "all VMs", "suspended");
}

int verbs_resume(const struct verbs_settings *settings, char **arguments)
{
    struct json_object *request = request_new(settings->pci ? "pci_resume" : "usb_resume");
    request_add(request, "vm", arguments[0]);
    return move(settings, request, arguments[0] ? arguments[0] : "all VMs", "resumed");
}

int verbs_reload(const struct verbs_settings *settings, char **arguments)
{
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    (void)arguments;
    if (exchange(settings, request_new("reload"), &reply) != EXIT_SUCCESS)
        return EXIT_FAILURE;
    CLEANUP(cleanup_free) char *failure = channel_failure(reply);
    if (settings->json)
        return print_reply(reply, failure);
    if (!failure) {
        (void)puts("The configuration was read again.");
        return say_done();
    }
    struct json_object *errors = json_member(reply, "errors");
    size_t count = json_object_is_type(errors, json_type_array) ? json_object_array_length(errors) : 0;
    for (size_t i = 0; i < count; i++) {
        CLEANUP(cleanup_free) char *line = string_copy(json_object_get_string(json_object_array_get_idx(errors, i)));
        if (line)
            say_lines(line);
    }
    if (count == 0)
        say_lines(failure);
    return say_error("the configuration that runs stays");
}

// ---- status

// "devices: 2 attached, 1 waits", of an object that counts each state.
static void print_counts(const char *label, struct json_object *counts)
{
    const char *comma = "";
    if (!json_object_is_type(counts, json_type_object))
        return;
    (void)printf("%s ", label);
    struct json_object_iterator at = json_object_iter_begin(counts), end = json_object_iter_end(counts);
    for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
        const char *name = json_object_iter_peek_name(&at);
        struct json_object *value = json_object_iter_peek_value(&at);
        CLEANUP(cleanup_free) char *state = say_safe(name);
        CLEANUP(cleanup_free) char *count = say_safe(json_object_get_string(value));
        (void)printf("%s%s %s", comma, count, state);
        comma = ", ";
    }
    (void)puts(*comma ? "" : "none");
}

static void print_status(struct json_object *reply)
{
    CLEANUP(cleanup_free) char *version = say_member(reply, "version");
    CLEANUP(cleanup_free) char *since = say_since(reply, "since");
    CLEANUP(cleanup_free) char *config = say_member(reply, "config");
    (void)printf("vhotplug %s%s%s\n", version, *since ? ", running since " : " is running", since);
    if (*config)
        (void)printf("config:  %s\n", config);
    print_counts("devices:", json_member(reply, "devices"));
    print_counts("VMs:    ", json_member(reply, "vms"));
}

int verbs_status(const struct verbs_settings *settings, char **arguments)
{
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    (void)arguments;
    if (ask(settings, request_new("status"), &reply) != EXIT_SUCCESS)
        return EXIT_FAILURE;
    if (settings->json)
        return print_reply(reply, NULL);
    print_status(reply);
    return say_done();
}

// ---- explain

// "now: attached to vm1 since 12:03", "now: waits since 12:03: vm2 is not running"
static void print_now(struct json_object *device)
{
    CLEANUP(cleanup_free) char *state = say_member(device, "state");
    CLEANUP(cleanup_free) char *vm = say_member(device, "vm");
    CLEANUP(cleanup_free) char *target = say_member(device, "target");
    CLEANUP(cleanup_free) char *since = say_since(device, "since");
    CLEANUP(cleanup_free) char *reason = say_member(device, "reason");
    if (!*state)
        return;
    const char *where = *vm ? vm : target;
    const char *link = strcmp(state, "attached") == 0 || strcmp(state, "attaching") == 0 ? " to "
                       : strcmp(state, "detaching") == 0                                 ? " from "
                       : strcmp(state, "refused") == 0                                   ? " by "
                                                                                         : NULL;
    (void)printf("now:    %s%s%s%s%s%s%s\n", state, link && *where ? link : "", link ? where : "",
                 *since ? " since " : "", since, *reason ? ": " : "", reason);
}

static void print_choice(struct json_object *device)
{
    CLEANUP(cleanup_free) char *selected = say_member(device, "selected");
    if (say_flag(device, "detached"))
        (void)puts("choice: a person took it out; it stays out until it is attached again");
    else if (say_flag(device, "selecting"))
        (void)puts("choice: asked, and not answered yet");
    else if (*selected)
        (void)printf("choice: %s was chosen for it last\n", selected);
}

int verbs_explain(const struct verbs_settings *settings, char **arguments)
{
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    struct json_object *request = request_new("explain");
    request_add_device(request, arguments[0]);
    if (ask(settings, request, &reply) != EXIT_SUCCESS)
        return EXIT_FAILURE;
    if (settings->json)
        return print_reply(reply, NULL);
    struct json_object *explanation = json_member(reply, "explanation");
    struct json_object *device = json_member(reply, "device");
    CLEANUP(cleanup_free) char *title = say_title(device);
    (void)printf("%s\n", title);
    print_now(device);
    print_choice(device);
    explanation_print(explanation ? explanation : reply, stdout);
    return say_done();
}
