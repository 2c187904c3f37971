// vhotplugcli: the command lines and texts of the Python vhotplug's client.
#include "ctl/classic.h"

#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/channel.h"
#include "ctl/classic_text.h"
#include "ctl/monitor.h"
#include "ctl/say.h"
#include "util/json.h"
#include "util/text.h"

#define EXIT_USAGE 2
#define SECONDS_MAX 3600
#define ARGUMENTS_SECONDS 30 // the daemon may have to read the host, and to make PCI functions ready
#define KEY_WIDTH 16
#define TRY_PAUSE 1000 // ms

// Options of the commands; a command takes those of its mask.
enum word {
    DEVNODE,
    BUS,
    PORT,
    VID,
    PID,
    DID,
    ADDRESS,
    VM,
    TAG,
    DISCONNECTED,
    CONNECTED,
    SHORT,
    PREFIX,
    INDEX,
    REQUIRE,
    WORD_COUNT
};
#define TAKES(word) (1U << (word))

static const struct {
    const char *name;   // the option
    const char *member; // of the request
    bool is_switch;
    bool is_number;
} words[WORD_COUNT] = {
    [DEVNODE] = {"devnode", "device_node", false, false},
    [BUS] = {"bus", "bus", false, true},
    [PORT] = {"port", "port", false, true},
    [VID] = {"vid", "vid", false, false},
    [PID] = {"pid", "pid", false, false},
    [DID] = {"did", "did", false, false},
    [ADDRESS] = {"address", "address", false, false},
    [VM] = {"vm", "vm", false, false},
    [TAG] = {"tag", "tag", false, false},
    [DISCONNECTED] = {"disconnected", "disconnected", true, false},
    [CONNECTED] = {"connected", NULL, true, false},
    [SHORT] = {"short", NULL, true, false},
    [PREFIX] = {"qemu-bus-prefix", "qemu_bus_prefix", false, false},
    [INDEX] = {"qemu-bus-start-index", "qemu_bus_start_index", false, true},
    [REQUIRE] = {"require-pci", "require_pci", true, false},
};

struct call;

struct command {
    const char *subsystem, *name; // "usb", "attach"; the name is NULL when there is none
    unsigned takes;
    const char *action;  // of the request
    const char *failure; // "attach USB"
    const char *success; // "attached"
    int (*run)(const struct call *call);
};

// One run of the program.
struct call {
    const struct command *command;
    struct channel_address address;
    unsigned seconds; // to wait for an answer
    bool timed;       // they were given
    bool debug;
    const char *values[WORD_COUNT]; // NULL: not given
};

// "LEVEL message" on standard error; MESSAGE is safe already.
static void report(const char *level, const char *format, ...) PRINTF(2, 3);
static void report(const char *level, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr, "%s ", level);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
}

// Connects; false after having said why not.
static bool open_channel(const struct call *call, struct channel **channel)
{
    CLEANUP(cleanup_free) char *error = channel_open(&call->address, call->seconds, channel);
    if (error)
        report("ERROR", "Failed to connect: %s", error);
    return !error;
}

static bool is_given(const struct call *call, enum word word)
{
    return call->values[word] && *call->values[word];
}

static void add_word(struct json_object *request, const struct call *call, enum word word)
{
    const char *value = call->values[word];
    struct json_object *member = !value                  ? NULL
                                 : words[word].is_switch ? json_object_new_boolean(true)
                                 : words[word].is_number ? json_object_new_int64(strtol(value, NULL, 10))
                                                         : json_object_new_string(value);
    if (member)
        json_object_object_add(request, words[word].member, member);
}

// The request of a command, with every value that was given for one of these words.
static struct json_object *request_with(const struct call *call, unsigned takes)
{
    struct json_object *request = json_object_new_object();
    json_object_object_add(request, "action", json_object_new_string(call->command->action));
    for (unsigned word = 0; word < WORD_COUNT; word++)
        if (words[word].member && (takes & TAKES(word)))
            add_word(request, call, word);
    return request;
}

static struct json_object *request_of(const struct call *call)
{
    return request_with(call, call->command->takes);
}

// Sends REQUEST, which is used up, and takes a reply that is ok; false after having said why not.
static bool ask(const struct call *call, struct channel *channel, struct json_object *request,
                struct json_object **reply)
{
    CLEANUP(cleanup_json) struct json_object *owned = request;
    CLEANUP(cleanup_free) char *error = channel_request(channel, owned, reply);
    CLEANUP(cleanup_free) char *failure = error ? NULL : channel_failure(*reply);
    if (call->debug && !error) {
        CLEANUP(text_clear) struct text text = {0};
        classic_add_repr(&text, *reply);
        report("DEBUG", "Reply: %s", text.string);
    }
    CLEANUP(cleanup_free) char *safe = say_safe(failure);
    if (error || failure)
        report("ERROR", "Failed to %s: %s", call->command->failure, error ? error : safe);
    return !error && !failure;
}

// A request, which is used up, whose reply has nothing to print.
static int run_silent(const struct call *call, struct json_object *request)
{
    CLEANUP(cleanup_channel) struct channel *channel = NULL;
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    CLEANUP(cleanup_json) struct json_object *owned = request;
    if (!open_channel(call, &channel) || !ask(call, channel, steal_pointer(&owned), &reply))
        return EXIT_FAILURE;
    CLEANUP(cleanup_free) char *not_out = string_equal(call->command->name, "detach") ? say_not_out(reply) : NULL;
    if (not_out) {
        report("ERROR", "Failed to %s: %s", call->command->failure, not_out);
        return EXIT_FAILURE;
    }
    report("INFO", "Successfully %s", call->command->success);
    return EXIT_SUCCESS;
}

static int run_request(const struct call *call)
{
    return run_silent(call, request_of(call));
}

// Ways to name a device; the first that was given in whole is sent, and no other.
static const unsigned selectors[] = {
    TAKES(DEVNODE), TAKES(ADDRESS),          TAKES(BUS) | TAKES(PORT),
    TAKES(TAG),     TAKES(VID) | TAKES(PID), TAKES(VID) | TAKES(DID),
};

// A request that needs a device to be named.
static int run_selected(const struct call *call)
{
    unsigned given = 0, all = 0, chosen = 0;
    for (unsigned word = 0; word < WORD_COUNT; word++)
        given |= is_given(call, word) ? TAKES(word) : 0;
    for (size_t i = 0; i < sizeof selectors / sizeof *selectors; i++) {
        all |= selectors[i];
        if (!chosen && (given & selectors[i]) == selectors[i])
            chosen = selectors[i];
    }
    if (chosen)
        return run_silent(call, request_with(call, (call->command->takes & ~all) | chosen));
    bool usb = call->command->takes & TAKES(DEVNODE);
    report("ERROR", "You must specify either %s or --tag",
           usb ? "--devnode or --bus and --port or --vid and --pid" : "--address or --vid and --did");
    return EXIT_FAILURE;
}

// ---- lists

static bool is_pci(const struct call *call)
{
    return strcmp(call->command->subsystem, "pci") == 0;
}

static void print_members(struct json_object *device, const char *const *names, size_t count, const char *between)
{
    for (size_t i = 0; i < count; i++) {
        CLEANUP(text_clear) struct text text = {0};
        classic_add_plain(&text, json_member(device, names[i]));
        (void)printf("%s%s", text.string ? text.string : "", i + 1 < count ? between : "");
    }
}

static void print_details(struct json_object *device)
{
    struct json_object_iterator at = json_object_iter_begin(device), end = json_object_iter_end(device);
    for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
        const char *name = json_object_iter_peek_name(&at);
        struct json_object *value = json_object_iter_peek_value(&at);
        CLEANUP(cleanup_free) char *key = say_safe(name);
        CLEANUP(text_clear) struct text text = {0};
        classic_add_plain(&text, value);
        (void)printf("  %-*s: %s\n", KEY_WIDTH, key, text.string ? text.string : "");
    }
    (void)putchar('\n');
}

static void print_device(const struct call *call, struct json_object *device)
{
    static const char *const place[] = {"address", NULL};
    static const char *const ids[][2] = {{"vid", "pid"}, {"vid", "did"}};
    static const char *const names[][2] = {{"vendor_name", "product_name"}, {"vendor_name", "device_name"}};
    size_t kind = is_pci(call);
    if (kind) {
        print_members(device, place, 1, "");
        (void)putchar(' ');
    }
    print_members(device, ids[kind], 2, ":");
    (void)putchar(' ');
    print_members(device, names[kind], 2, " ");
    (void)putchar('\n');
    if (!is_given(call, SHORT))
        print_details(device);
}

// Asks for a list, which REPLY holds; NULL after having said why not.
static struct json_object *ask_list(const struct call *call, struct channel *channel, bool disconnected,
                                    struct json_object **reply)
{
    struct json_object *request = request_of(call);
    json_object_object_add(request, "disconnected", json_object_new_boolean(disconnected));
    if (!ask(call, channel, request, reply))
        return NULL;
    struct json_object *list = json_member(*reply, is_pci(call) ? "pci_devices" : "usb_devices");
    if (json_object_is_type(list, json_type_array))
        return list;
    report("ERROR", "Failed to %s: the answer has no list", call->command->failure);
    return NULL;
}

static const char *identity(const struct call *call, struct json_object *device)
{
    const char *name = json_member_string(device, is_pci(call) ? "address" : "device_node");
    return name ? name : "";
}

// The devices of a list by their identity, to look them up.
static struct json_object *by_identity(const struct call *call, struct json_object *list)
{
    struct json_object *found = json_object_new_object();
    for (size_t i = 0; i < json_object_array_length(list); i++)
        json_object_object_add(found, identity(call, json_object_array_get_idx(list, i)), NULL);
    return found;
}

// The list, but with --connected without what a person took out.
static int run_list(const struct call *call)
{
    CLEANUP(cleanup_channel) struct channel *channel = NULL;
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    CLEANUP(cleanup_json) struct json_object *out_reply = NULL;
    CLEANUP(cleanup_json) struct json_object *out = NULL;
    if (!open_channel(call, &channel))
        return EXIT_FAILURE;
    struct json_object *list = ask_list(call, channel, is_given(call, DISCONNECTED), &reply);
    if (list && is_given(call, CONNECTED)) {
        struct json_object *out_list = ask_list(call, channel, true, &out_reply);
        if (!out_list)
            return EXIT_FAILURE;
        out = by_identity(call, out_list);
    }
    if (!list)
        return EXIT_FAILURE;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *device = json_object_array_get_idx(list, i);
        bool is_out = json_object_object_get_ex(out, identity(call, device), NULL);
        if (json_object_is_type(device, json_type_object) && !is_out)
            print_device(call, device);
    }
    return say_done();
}

// ---- arguments of a VMM, and events

// A VM may be started before the daemon, so connecting is tried again as long as there is time; the answer has
// to come in that time too.
static int run_vmm_args(const struct call *call)
{
    CLEANUP(cleanup_channel) struct channel *channel = NULL;
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    for (int64_t deadline = channel_deadline(call->seconds);;) {
        CLEANUP(cleanup_free) char *error = channel_open_until(&call->address, call->seconds, deadline, &channel);
        if (!error)
            break;
        int left = channel_left(deadline);
        report(left > 0 ? "WARNING" : "ERROR", "Failed to connect: %s", error);
        if (left <= 0)
            return EXIT_FAILURE;
        (void)poll(NULL, 0, left < TRY_PAUSE ? left : TRY_PAUSE);
    }
    if (!ask(call, channel, request_of(call), &reply))
        return EXIT_FAILURE;
    struct json_object *arguments = json_member(reply, "vmm_args");
    size_t count = json_object_is_type(arguments, json_type_array) ? json_object_array_length(arguments) : 0;
    for (size_t i = 0; i < count; i++) {
        CLEANUP(text_clear) struct text text = {0};
        classic_add_plain(&text, json_object_array_get_idx(arguments, i));
        (void)printf("%s%s", i ? " " : "", text.string ? text.string : "");
    }
    return say_done();
}

// Prints events until the connection ends; says why it did.
static void listen_once(const struct call *call)
{
    CLEANUP(cleanup_channel) struct channel *channel = NULL;
    CLEANUP(cleanup_json) struct json_object *reply = NULL;
    if (!open_channel(call, &channel) || !ask(call, channel, request_of(call), &reply))
        return;
    while (!ferror(stderr)) {
        CLEANUP(cleanup_json) struct json_object *event = NULL;
        CLEANUP(text_clear) struct text text = {0};
        CLEANUP(cleanup_free) char *error = channel_next(channel, &event);
        if (error) {
            report("ERROR", "%s", error);
            return;
        }
        classic_add_repr(&text, event);
        report("INFO", "%s", text.string);
    }
}

static int run_listen(const struct call *call)
{
    report("INFO", "Listening for notifications");
    while (!ferror(stderr)) {
        listen_once(call);
        (void)sleep(MONITOR_PAUSE);
    }
    return EXIT_FAILURE;
}

// ---- the command line

#define USB_SELECTORS (TAKES(DEVNODE) | TAKES(BUS) | TAKES(PORT) | TAKES(VID) | TAKES(PID) | TAKES(TAG))
#define PCI_SELECTORS (TAKES(ADDRESS) | TAKES(VID) | TAKES(DID) | TAKES(TAG))
#define LIST_WORDS (TAKES(DISCONNECTED) | TAKES(CONNECTED) | TAKES(SHORT) | TAKES(TAG))

static const struct command commands[] = {
    {"usb", "attach", USB_SELECTORS | TAKES(VM), "usb_attach", "attach USB", "attached", run_selected},
    {"usb", "detach", USB_SELECTORS, "usb_detach", "detach USB", "detached", run_selected},
    {"usb", "list", LIST_WORDS, "usb_list", "get USB list", NULL, run_list},
    {"usb", "suspend", TAKES(VM), "usb_suspend", "suspend USB", "suspended", run_request},
    {"usb", "resume", TAKES(VM), "usb_resume", "resume USB", "resumed", run_request},
    {"pci", "attach", PCI_SELECTORS | TAKES(VM), "pci_attach", "attach PCI", "attached", run_selected},
    {"pci", "detach", PCI_SELECTORS, "pci_detach", "detach PCI", "detached", run_selected},
    {"pci", "list", LIST_WORDS, "pci_list", "get PCI list", NULL, run_list},
    {"pci", "suspend", TAKES(VM), "pci_suspend", "suspend PCI", "suspended", run_request},
    {"pci", "resume", TAKES(VM), "pci_resume", "resume PCI", "resumed", run_request},
    {"vmm", "args", TAKES(VM) | TAKES(PREFIX) | TAKES(INDEX) | TAKES(REQUIRE), "vmm_args",
     "get VMM args for PCI devices", NULL, run_vmm_args},
    {"listen", NULL, 0, "enable_notifications", "listen", NULL, run_listen},
};
#define COMMAND_COUNT (sizeof commands / sizeof *commands)

static void print_usage(FILE *file)
{
    (void)fputs("usage: vhotplugcli [-h] [-d | --debug | --no-debug] [-t {unix,tcp,vsock}] [-u PATH] [-s HOST]\n"
                "                   [-p PORT] [-c CID] [--timeout SECONDS] COMMAND\n"
                "commands:\n",
                file);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        (void)fprintf(file, "  %s%s%s", commands[i].subsystem, commands[i].name ? " " : "",
                      commands[i].name ? commands[i].name : "");
        for (unsigned word = 0; word < WORD_COUNT; word++)
            if (commands[i].takes & TAKES(word))
                (void)fprintf(file, " [--%s%s]", words[word].name, words[word].is_switch ? "" : " …");
        (void)fputc('\n', file);
    }
}

static int wrong_usage(const char *why)
{
    print_usage(stderr);
    if (why)
        (void)fprintf(stderr, "vhotplugcli: error: %s\n", why);
    return EXIT_USAGE;
}

static int show_help(void)
{
    print_usage(stdout);
    (void)fputs("\nThe client of the Python vhotplug, as vhotplugctl speaks it; see vhotplugctl(1).\n", stdout);
    return say_done();
}

enum { OPTION_NO_DEBUG = 256, OPTION_TIMEOUT, OPTION_WORD };

static const char *take_transport(struct channel_address *address, const char *name)
{
    static const char *const names[] = {"unix", "tcp", "vsock"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            address->transport = (enum channel_transport)i;
            return NULL;
        }
    return "--transport is one of unix, tcp and vsock";
}

static const char *take_number(unsigned long most, unsigned *number, const char *wrong)
{
    unsigned long value;
    if (!string_to_number(optarg, 10, most, &value))
        return wrong;
    *number = (unsigned)value;
    return NULL;
}

// NULL, or what is wrong with an option that stands before the command.
static const char *take_option(struct call *call, int option)
{
    switch (option) {
    case 'd':
    case OPTION_NO_DEBUG:
        call->debug = option == 'd';
        return NULL;
    case 't':
        return take_transport(&call->address, optarg);
    case 'u':
        call->address.path = optarg;
        return NULL;
    case 's':
        call->address.host = optarg;
        return NULL;
    case 'p':
        return take_number(UINT32_MAX, &call->address.port, "--net-port takes a number");
    case 'c':
        return take_number(UINT32_MAX, &call->address.cid, "--cid takes a number");
    default: {
        call->timed = true;
        const char *wrong = take_number(SECONDS_MAX, &call->seconds, "--timeout takes a number of seconds");
        return wrong || call->seconds ? wrong : "--timeout is at least 1";
    }
    }
}

// NULL, or what is wrong with a value that stands after the command.
static const char *take_word(struct call *call, unsigned word)
{
    unsigned long number;
    if (words[word].is_number && !string_to_number(optarg, 10, INT_MAX, &number))
        return word == INDEX ? "--qemu-bus-start-index takes a number" : "--bus and --port take numbers";
    call->values[word] = words[word].is_switch ? "yes" : optarg;
    return NULL;
}

static const struct command *find_command(const char *subsystem, const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(subsystem, commands[i].subsystem) == 0 &&
            (!commands[i].name || (name && strcmp(name, commands[i].name) == 0)))
            return &commands[i];
    return NULL;
}

static bool has_own_time(const struct command *command)
{
    return command->run == run_vmm_args;
}

// Reads what follows the command, of which ARGV[0] is the last word, and runs it.
static int run_command(struct call *call, int argc, char **argv)
{
    struct option options[WORD_COUNT + 3] = {{"help", no_argument, NULL, 'h'}};
    size_t count = 1;
    if (has_own_time(call->command)) // as the Python client takes it
        options[count++] = (struct option){"timeout", required_argument, NULL, OPTION_TIMEOUT};
    for (unsigned word = 0; word < WORD_COUNT; word++)
        if (call->command->takes & TAKES(word))
            options[count++] =
                (struct option){words[word].name, words[word].is_switch ? no_argument : required_argument, NULL,
                                (int)(OPTION_WORD + word)};
    optind = 0; // begin anew
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h')
            return show_help();
        const char *wrong = option == '?'              ? ""
                            : option == OPTION_TIMEOUT ? take_option(call, option)
                                                       : take_word(call, (unsigned)option - OPTION_WORD);
        if (wrong)
            return wrong_usage(*wrong ? wrong : NULL);
    }
    if (optind < argc)
        return wrong_usage("there are too many arguments");
    if (is_given(call, CONNECTED) && is_given(call, DISCONNECTED))
        return wrong_usage("--connected and --disconnected exclude each other");
    return call->command->run(call);
}

int classic_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"debug", no_argument, NULL, 'd'},
        {"no-debug", no_argument, NULL, OPTION_NO_DEBUG},
        {"transport", required_argument, NULL, 't'},
        {"path", required_argument, NULL, 'u'},
        {"host", required_argument, NULL, 's'},
        {"net-port", required_argument, NULL, 'p'},
        {"cid", required_argument, NULL, 'c'},
        {"timeout", required_argument, NULL, OPTION_TIMEOUT},
        {NULL, 0, NULL, 0},
    };
    struct call call = {.address = {channel_is_guest() ? CHANNEL_VSOCK : CHANNEL_UNIX, CHANNEL_PATH, CHANNEL_HOST,
                                    CHANNEL_PORT, CHANNEL_CID_HOST},
                        .seconds = CHANNEL_SECONDS};
    say_errors_as("ERROR ");
    int option;
    while ((option = getopt_long(argc, argv, "+hdt:u:s:p:c:", options, NULL)) != -1) {
        if (option == 'h')
            return show_help();
        const char *wrong = option == '?' ? "" : take_option(&call, option);
        if (wrong)
            return wrong_usage(*wrong ? wrong : NULL);
    }
    if (call.address.transport == CHANNEL_TCP && call.address.port > UINT16_MAX)
        return wrong_usage("a TCP port is at most 65535");
    int left = argc - optind;
    if (left < 1)
        return wrong_usage("a command is missing");
    call.command = find_command(argv[optind], left > 1 ? argv[optind + 1] : NULL);
    if (!call.command)
        return wrong_usage("there is no such command");
    if (!call.timed && has_own_time(call.command))
        call.seconds = ARGUMENTS_SECONDS;
    int words_of_it = call.command->name ? 2 : 1;
    return run_command(&call, left - words_of_it + 1, argv + optind + words_of_it - 1);
}
