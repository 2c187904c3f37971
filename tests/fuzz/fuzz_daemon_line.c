// Fuzzes the command line of vhotplug: each line of the input is an argument, the first one the program's name.
#include <getopt.h>

#include "arguments.h"
#include "daemon.h"
#include "fuzz.h"

int daemon_main(int argc, char *argv[]);

static bool ran;

int daemon_run(const struct daemon_settings *settings, struct log *log)
{
    if (!settings->config_file || !log)
        abort();
    ran = true;
    return EXIT_SUCCESS;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct arguments arguments;
    arguments_read(&arguments, bytes, length);
    ran = false;
    optind = 0; // getopt begins anew
    int status = daemon_main(arguments.count, arguments.list);
    if (status != EXIT_SUCCESS && (status != 2 || ran))
        abort();
    arguments_clear(&arguments);
    return 0;
}
