// Fuzzes the command line of vhotplugctl, and of vhotplugcli: each line of the input is an argument, the first one the
// program's name. There is no daemon and no file; a way to a daemon that is asked for makes sense.
#include <getopt.h>
#include <string.h>

#include "arguments.h"
#include "ctl/channel.h"
#include "fuzz.h"
#include "util/file.h"
#include "util/text.h"

int ctl_main(int argc, char *argv[]);

char *channel_open_until(const struct channel_address *address, unsigned seconds, int64_t deadline,
                         struct channel **channel)
{
    (void)deadline, (void)channel;
    bool named = (address->transport == CHANNEL_UNIX && address->path) ||
                 (address->transport == CHANNEL_TCP && address->host && address->port <= UINT16_MAX) ||
                 address->transport == CHANNEL_VSOCK;
    if (!named || address->port == 0 || seconds == 0)
        abort();
    return string_copy("nowhere: there is no daemon");
}

char *channel_open(const struct channel_address *address, unsigned seconds, struct channel **channel)
{
    return channel_open_until(address, seconds, 0, channel);
}

int64_t channel_deadline(unsigned seconds)
{
    return seconds;
}

int channel_left(int64_t deadline)
{
    (void)deadline;
    return 0;
}

char *channel_request(struct channel *channel, struct json_object *request, struct json_object **reply)
{
    (void)channel, (void)request, (void)reply;
    abort();
}

char *channel_next(struct channel *channel, struct json_object **message)
{
    (void)channel, (void)message;
    abort();
}

char *channel_failure(struct json_object *reply)
{
    (void)reply;
    abort();
}

void channel_close(struct channel *channel)
{
    (void)channel;
}

bool channel_is_guest(void)
{
    return false;
}

char *file_read(const char *file, size_t *length, char **error)
{
    (void)file, (void)length;
    *error = string_copy("cannot be read: there are no files");
    return NULL;
}

char *file_read_from(int fd, size_t *length, char **error)
{
    (void)fd;
    return file_read("", length, error);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct arguments arguments;
    arguments_read(&arguments, bytes, length);
    optind = 0; // getopt begins anew
    int status = ctl_main(arguments.count, arguments.list);
    if (status < 0 || status > 2)
        abort();
    arguments_clear(&arguments);
    return 0;
}
