// The command line of vhotplugctl; under the name vhotplugcli it is that of the Python vhotplug's client.
#include <getopt.h>
#include <locale.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/classic.h"
#include "ctl/monitor.h"
#include "ctl/offline.h"
#include "ctl/say.h"
#include "ctl/verbs.h"
#include "util/text.h"

#define EXIT_USAGE 2
#define SECONDS_MAX 3600

enum {
    OPTION_HOST = 256,
    OPTION_PORT,
    OPTION_CID,
    OPTION_TIMEOUT,
    OPTION_TREE,
    OPTION_PCI,
    OPTION_DEVICE,
    OPTION_VERSION
};

// What an option was given for: each verb takes some.
enum { GIVEN_JSON = 1, GIVEN_TREE = 2, GIVEN_OFFLINE = 4, GIVEN_ADDRESS = 8, GIVEN_PCI = 16 };

static const char usage[] = "usage: vhotplugctl [-s SOCKET | --host ADDRESS | --cid CID] [--port PORT] "
                            "[--timeout SECONDS] [-j] VERB [ARGUMENT...]\n";

static const char help[] = "\n"
                           "Shows what vhotplug does with the devices of this host, says why, and steers it.\n"
                           "\n"
                           "verbs:\n"
                           "  status               how the daemon is doing\n"
                           "  list [--tree] [--pci]\n"
                           "                       the devices, their state and the VM each is in\n"
                           "  vms                  the VMs\n"
                           "  explain DEVICE       every rule that was tried, what matched, what stands in the way\n"
                           "  attach DEVICE [VM]   put a device into a VM, and keep it there\n"
                           "  detach DEVICE        take it out, and keep it out until it is attached again\n"
                           "  suspend [--pci] [VM] take the USB devices out of a VM, or of all, before sleep\n"
                           "  resume [--pci] [VM]  put them back\n"
                           "  monitor              events as they come\n"
                           "  reload               read the configuration again\n"
                           "  check CONFIG         check a configuration, without a daemon\n"
                           "  explain -c CONFIG --device FILE\n"
                           "                       explain devices that stand in a file, without a daemon\n"
                           "\n"
                           "DEVICE is what you have at hand: 1-2.3, /dev/bus/usb/001/004, 046d:c52b, 001:004,\n"
                           "a PCI address such as 0000:01:00.0 or 01:00.0, a name.\n"
                           "\n"
                           "options:\n"
                           "  -h, --help               show this help and exit\n"
                           "  -s, --socket SOCKET      the daemon's socket (default " CHANNEL_PATH ")\n"
                           "      --host ADDRESS       ask over TCP\n"
                           "      --cid CID            ask over vsock; the host of a guest is 2\n"
                           "      --port PORT          the port of TCP or vsock (default 2000)\n"
                           "      --timeout SECONDS    the time limit of a command (default 15)\n"
                           "  -j, --json               print JSON\n"
                           "      --tree               of list: buses and hubs with what is on them\n"
                           "      --pci                of list: all PCI functions, of suspend and resume: those\n"
                           "  -c, --config CONFIG      of explain: a configuration in place of the daemon\n"
                           "      --device FILE        of explain: one device or a list of them, as JSON\n"
                           "      --version            show the version and exit\n";

static const struct option options[] = {
    {"help", no_argument, NULL, 'h'},
    {"socket", required_argument, NULL, 's'},
    {"host", required_argument, NULL, OPTION_HOST},
    {"cid", required_argument, NULL, OPTION_CID},
    {"port", required_argument, NULL, OPTION_PORT},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"json", no_argument, NULL, 'j'},
    {"tree", no_argument, NULL, OPTION_TREE},
    {"pci", no_argument, NULL, OPTION_PCI},
    {"config", required_argument, NULL, 'c'},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

struct command_line {
    struct verbs_settings settings;
    const char *config, *device_file; // of explain
    unsigned given;
    unsigned ways; // how many ways to the daemon were named
    bool has_port;
};

struct verb {
    const char *name;
    int least, most; // arguments
    unsigned takes;  // of GIVEN_…
    int (*run)(const struct verbs_settings *settings, char **arguments);
};

static int run_monitor(const struct verbs_settings *settings, char **arguments)
{
    (void)arguments;
    return monitor_run(&settings->address, settings->seconds, settings->json);
}

// Arguments are followed by two NULLs, so a verb may look at those that were not given.
static const struct verb verbs[] = {
    {"status", 0, 0, GIVEN_JSON | GIVEN_ADDRESS, verbs_status},
    {"list", 0, 0, GIVEN_JSON | GIVEN_ADDRESS | GIVEN_TREE | GIVEN_PCI, verbs_list},
    {"vms", 0, 0, GIVEN_JSON | GIVEN_ADDRESS, verbs_vms},
    {"explain", 1, 1, GIVEN_JSON | GIVEN_ADDRESS, verbs_explain},
    {"attach", 1, 2, GIVEN_JSON | GIVEN_ADDRESS, verbs_attach},
    {"detach", 1, 1, GIVEN_JSON | GIVEN_ADDRESS, verbs_detach},
    {"suspend", 0, 1, GIVEN_JSON | GIVEN_ADDRESS | GIVEN_PCI, verbs_suspend},
    {"resume", 0, 1, GIVEN_JSON | GIVEN_ADDRESS | GIVEN_PCI, verbs_resume},
    {"monitor", 0, 0, GIVEN_JSON | GIVEN_ADDRESS, run_monitor},
    {"reload", 0, 0, GIVEN_JSON | GIVEN_ADDRESS, verbs_reload},
    {"check", 1, 1, 0, NULL},
};

static int wrong_usage(const char *why)
{
    (void)fputs(usage, stderr);
    if (why)
        (void)fprintf(stderr, "vhotplugctl: %s\n", why);
    return EXIT_USAGE;
}

// Takes a number of an option; false when it is none.
static bool take_number(const char *string, unsigned long least, unsigned long most, unsigned *number)
{
    unsigned long value;
    if (!string_to_number(string, 10, most, &value) || value < least)
        return false;
    *number = (unsigned)value;
    return true;
}

static void name_way(struct command_line *line, enum channel_transport transport)
{
    line->settings.address.transport = transport;
    line->given |= GIVEN_ADDRESS;
    line->ways++;
}

// NULL, or what is wrong with the option.
static const char *take_option(struct command_line *line, int option)
{
    struct verbs_settings *settings = &line->settings;
    switch (option) {
    case 's':
        settings->address.path = optarg;
        name_way(line, CHANNEL_UNIX);
        return NULL;
    case OPTION_HOST:
        settings->address.host = optarg;
        name_way(line, CHANNEL_TCP);
        return NULL;
    case OPTION_CID:
        name_way(line, CHANNEL_VSOCK);
        return take_number(optarg, 0, UINT32_MAX, &settings->address.cid) ? NULL : "--cid takes a number";
    case OPTION_PORT:
        line->has_port = true;
        line->given |= GIVEN_ADDRESS;
        return take_number(optarg, 1, UINT32_MAX, &settings->address.port) ? NULL : "--port takes a number from 1";
    case OPTION_TIMEOUT:
        line->given |= GIVEN_ADDRESS;
        return take_number(optarg, 1, SECONDS_MAX, &settings->seconds) ? NULL : "--timeout takes 1 to 3600 seconds";
    case 'j':
        settings->json = true;
        line->given |= GIVEN_JSON;
        return NULL;
    case OPTION_TREE:
        settings->tree = true;
        line->given |= GIVEN_TREE;
        return NULL;
    case OPTION_PCI:
        settings->pci = true;
        line->given |= GIVEN_PCI;
        return NULL;
    case 'c':
        line->config = optarg;
        line->given |= GIVEN_OFFLINE;
        return NULL;
    default:
        line->device_file = optarg;
        line->given |= GIVEN_OFFLINE;
        return NULL;
    }
}

// NULL, or what is wrong with the options as a whole.
static const char *check_way(struct command_line *line)
{
    if (line->ways > 1)
        return "-s, --host and --cid exclude each other";
    if (line->has_port && line->ways == 0)
        line->settings.address.transport = CHANNEL_TCP;
    if (line->has_port && line->settings.address.transport == CHANNEL_UNIX)
        return "--port goes with --host or --cid";
    if (line->settings.address.transport == CHANNEL_TCP && line->settings.address.port > UINT16_MAX)
        return "a TCP port is at most 65535";
    if (line->settings.json && line->settings.tree)
        return "--json and --tree exclude each other";
    return NULL;
}

static int explain_from_files(const struct command_line *line, int count)
{
    if (!line->config || !line->device_file)
        return wrong_usage("explain needs -c CONFIG and --device FILE together, or DEVICE");
    if (count > 0 || (line->given & GIVEN_ADDRESS))
        return wrong_usage("explain -c CONFIG --device FILE asks no daemon: no DEVICE, and no way to one");
    if (line->given & (GIVEN_TREE | GIVEN_PCI))
        return wrong_usage("this verb does not take that option");
    return offline_explain(line->config, line->device_file, line->settings.json);
}

static int run_verb(const struct command_line *line, const char *name, int count, char **arguments)
{
    if (strcmp(name, "explain") == 0 && (line->given & GIVEN_OFFLINE))
        return explain_from_files(line, count);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        const struct verb *verb = &verbs[i];
        if (strcmp(name, verb->name) != 0)
            continue;
        if (count < verb->least)
            return wrong_usage("an argument is missing");
        if (count > verb->most)
            return wrong_usage("there are too many arguments");
        if (line->given & ~verb->takes)
            return wrong_usage("this verb does not take that option");
        if (!verb->run)
            return offline_check(arguments[0]);
        char *given[] = {count > 0 ? arguments[0] : NULL, count > 1 ? arguments[1] : NULL, NULL};
        return verb->run(&line->settings, given);
    }
    return wrong_usage("there is no such verb");
}

static int run_ctl(int argc, char *argv[])
{
    struct command_line line = {
        .settings = {.address = {CHANNEL_UNIX, CHANNEL_PATH, CHANNEL_HOST, CHANNEL_PORT, CHANNEL_CID_HOST},
                     .seconds = CHANNEL_SECONDS}};
    int option;
    while ((option = getopt_long(argc, argv, "hs:jc:", options, NULL)) != -1) {
        if (option == '?')
            return wrong_usage(NULL);
        if (option == 'h') {
            (void)fputs(usage, stdout);
            (void)fputs(help, stdout);
            return say_done();
        }
        if (option == OPTION_VERSION) {
            (void)puts("vhotplugctl " VERSION);
            return say_done();
        }
        const char *wrong = take_option(&line, option);
        if (wrong)
            return wrong_usage(wrong);
    }
    const char *wrong = check_way(&line);
    if (wrong)
        return wrong_usage(wrong);
    if (optind >= argc)
        return wrong_usage("a verb is missing; --help names them");
    return run_verb(&line, argv[optind], argc - optind - 1, argv + optind + 1);
}

int main(int argc, char *argv[])
{
    (void)setlocale(LC_CTYPE, "");
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
    return strcmp(name, "vhotplugcli") == 0 ? classic_main(argc, argv) : run_ctl(argc, argv);
}
