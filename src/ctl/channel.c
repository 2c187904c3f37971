// The way to the daemon: Unix, TCP and vsock sockets, with limits on time, length and nesting.
#include "ctl/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ctl/names.h"
#include "ctl/say.h"
#include "util/json.h"
#include "util/text.h"

#define LINE_MAX_BYTES ((size_t)16 * 1024 * 1024)
#define DEPTH_MAX 32
#define CHUNK 65536
#define FULL_PAUSE 50 // ms until the next try at a socket whose queue of callers is full

static const struct json_limits limits = {.length = LINE_MAX_BYTES, .depth = DEPTH_MAX};

struct channel {
    int fd;
    unsigned seconds;
    int64_t deadline; // ms; INT64_MAX: none
    struct text in;
    size_t taken;   // bytes of IN that were handed out as lines
    size_t scanned; // bytes of IN in which no newline is left
};

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t channel_deadline(unsigned seconds)
{
    return now_ms() + (int64_t)seconds * 1000;
}

int channel_left(int64_t deadline)
{
    if (deadline == INT64_MAX)
        return -1;
    int64_t left = deadline - now_ms();
    return left < 0 ? 0 : (int)left;
}

// 0 when EVENTS are there; -ETIMEDOUT or another negative errno.
static int wait_for(int fd, short events, int64_t deadline)
{
    struct pollfd poller = {.fd = fd, .events = events};
    for (;;) {
        int ready = poll(&poller, 1, channel_left(deadline));
        if (ready > 0)
            return 0;
        if (ready == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

// Connects FD; negative errno on failure.
static int connect_within(int fd, const struct sockaddr *address, socklen_t length, int64_t deadline)
{
    while (connect(fd, address, length) < 0) {
        if (errno == EAGAIN && channel_left(deadline) > 0) {
            // A Unix socket whose queue is full does not say when it has room.
            (void)poll(NULL, 0, FULL_PAUSE);
            continue;
        }
        if (errno == EAGAIN)
            return -ETIMEDOUT;
        if (errno != EINPROGRESS && errno != EINTR)
            return -errno;
        int error = wait_for(fd, POLLOUT, deadline);
        socklen_t size = sizeof error;
        if (error < 0)
            return error;
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? -errno : -error;
    }
    return 0;
}

// A connected socket of FAMILY, or negative errno.
static int connected_socket(int family, const void *address, socklen_t length, int64_t deadline)
{
    CLEANUP(cleanup_close) int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int error = connect_within(fd, address, length, deadline);
    return error < 0 ? error : steal_fd(&fd);
}

static int connect_unix(const char *path, int64_t deadline)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!*path)
        return -ENOENT;
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    return connected_socket(AF_UNIX, &address, sizeof address, deadline);
}

static int connect_vsock(unsigned cid, unsigned port, int64_t deadline)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    return connected_socket(AF_VSOCK, &address, sizeof address, deadline);
}

// Tries each address of the host; the result is of the last. WHY is set when there is no address.
static int connect_tcp(const struct channel_address *address, int64_t deadline, const char **why)
{
    struct name_address addresses[NAMES_MAX];
    unsigned count = names_find(address->host, address->port, channel_left(deadline), addresses, why);
    int fd = -ENXIO;
    for (unsigned i = 0; i < count && fd < 0; i++)
        fd = connected_socket(addresses[i].family, &addresses[i].address, addresses[i].length, deadline);
    if (count)
        *why = NULL;
    return fd;
}

static char *address_title(const struct channel_address *address)
{
    switch (address->transport) {
    case CHANNEL_TCP: {
        CLEANUP(cleanup_free) char *host = say_safe(address->host);
        return string_printf("%s port %u", host, address->port);
    }
    case CHANNEL_VSOCK:
        return string_printf("vsock CID %u port %u", address->cid, address->port);
    case CHANNEL_UNIX:
        break;
    }
    return say_safe(address->path);
}

static const char *hint(const struct channel_address *address, int error)
{
    if (error == EACCES || error == EPERM)
        return " (only who may use the socket of the daemon can ask it; root can)";
    bool nobody = error == ENOENT || error == ECONNREFUSED || error == ECONNRESET || error == ENODEV;
    if (nobody && address->transport == CHANNEL_UNIX)
        return " (is vhotplug running?)";
    return nobody ? " (is vhotplug running, and does general.api.transports name this way in?)" : "";
}

char *channel_open(const struct channel_address *address, unsigned seconds, struct channel **channel)
{
    return channel_open_until(address, seconds, channel_deadline(seconds), channel);
}

char *channel_open_until(const struct channel_address *address, unsigned seconds, int64_t deadline,
                         struct channel **channel)
{
    const char *why = NULL;
    int fd = address->transport == CHANNEL_UNIX  ? connect_unix(address->path, deadline)
             : address->transport == CHANNEL_TCP ? connect_tcp(address, deadline, &why)
                                                 : connect_vsock(address->cid, address->port, deadline);
    if (fd < 0) {
        CLEANUP(cleanup_free) char *title = address_title(address);
        if (fd == -ETIMEDOUT)
            return string_printf("%s: no answer within %u s", title, seconds);
        return string_printf("%s: %s%s", title, why ? why : strerror(-fd), why ? "" : hint(address, -fd));
    }
    struct channel *made = memory_new(1, sizeof *made);
    *made = (struct channel){.fd = fd, .seconds = seconds, .deadline = deadline};
    *channel = made;
    return NULL;
}

void channel_close(struct channel *channel)
{
    close(channel->fd);
    text_clear(&channel->in);
    free(channel);
}

static char *trouble(const struct channel *channel, int error)
{
    if (error == -ETIMEDOUT)
        return string_printf("no answer within %u s", channel->seconds);
    return string_printf("the connection failed: %s", strerror(-error));
}

static char *send_line(struct channel *channel, struct json_object *request)
{
    CLEANUP(cleanup_free) char *line = json_print(request);
    size_t length = strlen(line), sent = 0;
    line[length++] = '\n'; // in the place of the NUL
    while (sent < length) {
        ssize_t count = send(channel->fd, line + sent, length - sent, MSG_NOSIGNAL);
        if (count >= 0) {
            sent += (size_t)count;
            continue;
        }
        int error = errno == EAGAIN ? wait_for(channel->fd, POLLOUT, channel->deadline) : errno == EINTR ? 0 : -errno;
        // What it said before it hung up is worth more than that it did.
        if (error == -EPIPE || error == -ECONNRESET)
            return NULL;
        if (error < 0)
            return trouble(channel, error);
    }
    return NULL;
}

// Reads once more; 0, -ENODATA at the end, or another negative errno.
static int receive(struct channel *channel, int64_t deadline)
{
    char chunk[CHUNK];
    for (;;) {
        int error = wait_for(channel->fd, POLLIN, deadline);
        if (error < 0)
            return error;
        ssize_t count = recv(channel->fd, chunk, sizeof chunk, 0);
        if (count > 0) {
            text_add_bytes(&channel->in, chunk, (size_t)count);
            return 0;
        }
        if (count == 0)
            return -ENODATA;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
    }
}

// Forgets the lines that were handed out, when that frees much.
static void make_room(struct channel *channel)
{
    if (channel->taken < CHUNK && channel->taken < channel->in.length)
        return;
    channel->in.length -= channel->taken;
    if (channel->in.length)
        memmove(channel->in.string, channel->in.string + channel->taken, channel->in.length);
    channel->scanned -= channel->taken;
    channel->taken = 0;
}

// The next line, without its newline; it lives until the next call.
static char *next_line(struct channel *channel, int64_t deadline, const char **line, size_t *length)
{
    make_room(channel);
    for (;;) {
        struct text *in = &channel->in;
        const char *end = in->length > channel->scanned
                              ? memchr(in->string + channel->scanned, '\n', in->length - channel->scanned)
                              : NULL;
        if (end) {
            *line = in->string + channel->taken;
            *length = (size_t)(end - *line);
            channel->taken = channel->scanned = (size_t)(end + 1 - in->string);
            return NULL;
        }
        channel->scanned = in->length;
        if (in->length - channel->taken > LINE_MAX_BYTES)
            return string_printf("the answer is longer than %zu MiB", LINE_MAX_BYTES >> 20);
        int error = receive(channel, deadline);
        if (error == -ENODATA)
            return string_copy("the other end hung up without an answer");
        if (error < 0)
            return trouble(channel, error);
    }
}

static char *next_message(struct channel *channel, int64_t deadline, struct json_object **message)
{
    const char *line = NULL;
    size_t length = 0;
    char *error = next_line(channel, deadline, &line, &length);
    if (error)
        return error;
    CLEANUP(cleanup_free) char *wrong = NULL;
    CLEANUP(cleanup_json) struct json_object *value = json_parse(line, length, &limits, &wrong);
    if (!value)
        return string_printf("the answer is not JSON: %s", wrong);
    if (!json_object_is_type(value, json_type_object))
        return string_copy("the answer is not a JSON object");
    *message = steal_pointer(&value);
    return NULL;
}

char *channel_request(struct channel *channel, struct json_object *request, struct json_object **reply)
{
    char *error = send_line(channel, request);
    while (!error) {
        CLEANUP(cleanup_json) struct json_object *message = NULL;
        error = next_message(channel, channel->deadline, &message);
        if (error || json_member(message, "result") || !json_member(message, "event")) {
            *reply = steal_pointer(&message);
            break;
        }
        // Lines that keep coming are no answer either.
        if (channel_left(channel->deadline) == 0)
            return trouble(channel, -ETIMEDOUT);
    }
    return error;
}

char *channel_next(struct channel *channel, struct json_object **message)
{
    return next_message(channel, INT64_MAX, message);
}

char *channel_failure(struct json_object *reply)
{
    const char *result = json_member_string(reply, "result");
    if (string_equal(result, "ok"))
        return NULL;
    const char *error = json_member_string(reply, "error");
    if (!string_equal(result, "failed"))
        return string_copy("the answer has no result");
    return string_copy(error && *error ? error : "no reason given");
}

bool channel_is_guest(void)
{
    CLEANUP(cleanup_close) int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
    unsigned cid;
    if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0)
        return false;
    return cid != VMADDR_CID_ANY && cid > VMADDR_CID_HOST;
}
