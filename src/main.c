// The command line of vhotplug.
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon.h"
#include "util/heap.h"
#include "util/log.h"

#define EXIT_USAGE 2

enum { OPTION_NO_ATTACH = 256, OPTION_NO_DEBUG, OPTION_VERSION };

static const char usage[] = "usage: vhotplug [-h] -c CONFIG [-a | --attach-connected | --no-attach-connected] "
                            "[-d | --debug | --no-debug] [--version]\n";

static const char help[] = "\n"
                           "Keeps each device of this host in the virtual machine that the configuration names.\n"
                           "\n"
                           "options:\n"
                           "  -h, --help                show this help and exit\n"
                           "  -c, --config CONFIG       the configuration file, see vhotplug.conf(5)\n"
                           "  -a, --attach-connected    attach also what is connected at start-up already\n"
                           "      --no-attach-connected attach only what is plugged from then on (default)\n"
                           "  -d, --debug               log more\n"
                           "      --no-debug            log what happens (default)\n"
                           "      --version             show the version and exit\n";

static const struct option options[] = {
    {"help", no_argument, NULL, 'h'},
    {"config", required_argument, NULL, 'c'},
    {"attach-connected", no_argument, NULL, 'a'},
    {"no-attach-connected", no_argument, NULL, OPTION_NO_ATTACH},
    {"debug", no_argument, NULL, 'd'},
    {"no-debug", no_argument, NULL, OPTION_NO_DEBUG},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

// Standard output may be a full disk or a closed pipe: then the text was not shown.
static int shown(void)
{
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int wrong_usage(const char *why)
{
    (void)fputs(usage, stderr);
    if (why)
        (void)fprintf(stderr, "vhotplug: %s\n", why);
    return EXIT_USAGE;
}

int main(int argc, char *argv[])
{
    struct daemon_settings settings = {0};
    enum log_level level = LOG_LEVEL_INFO;
    int option;
    while ((option = getopt_long(argc, argv, "hc:ad", options, NULL)) != -1) {
        switch (option) {
        case 'h':
            (void)fputs(usage, stdout);
            (void)fputs(help, stdout);
            return shown();
        case OPTION_VERSION:
            (void)puts("vhotplug " VERSION);
            return shown();
        case 'c':
            settings.config_file = optarg;
            break;
        case 'a':
            settings.attach_connected = true;
            break;
        case OPTION_NO_ATTACH:
            settings.attach_connected = false;
            break;
        case 'd':
            level = LOG_LEVEL_DEBUG;
            break;
        case OPTION_NO_DEBUG:
            level = LOG_LEVEL_INFO;
            break;
        default:
            return wrong_usage(NULL);
        }
    }
    if (optind < argc)
        return wrong_usage("it takes no arguments but its options");
    if (!settings.config_file)
        return wrong_usage("-c CONFIG is needed: the configuration file");
    heap_share();
    CLEANUP(cleanup_log) struct log *log = log_new(level);
    return daemon_run(&settings, log);
}
