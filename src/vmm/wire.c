// A stream socket that carries lines: never blocks, bounded both ways, sends descriptors along.
#include "vmm/wire.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/text.h"

// Read at one go; so much of a flood is taken before other sources of the loop have their turn.
#define CHUNK ((size_t)64 * 1024)

// A descriptor that travels with the byte at PLACE of what is unsent.
struct passenger {
    size_t place;
    int fd;
};

struct wire {
    sd_event_source *source;
    int fd;
    struct wire_callbacks callbacks;
    void *user;
    int error; // not 0: it ended, and this is said at the next turn of the loop
    bool over; // the same, for an end without an error
    bool held; // lines are being handed out: what is said to them goes out afterwards, all at once
    struct text unsent;
    struct passenger *passengers;
    size_t passenger_count;
    char *input;
    size_t input_length, input_room;
};

void wire_end(struct wire *wire, int error)
{
    if (wire->over)
        return;
    wire->over = true;
    wire->error = error;
    // Makes the loop look at it, also when the peer says nothing.
    (void)shutdown(wire->fd, SHUT_RDWR);
}

static void set_events(struct wire *wire)
{
    uint32_t events = wire->unsent.length > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN;
    (void)sd_event_source_set_io_events(wire->source, events);
}

static void drop_sent(struct wire *wire, size_t sent)
{
    struct text *unsent = &wire->unsent;
    if (sent == 0)
        return;
    memmove(unsent->string, unsent->string + sent, unsent->length - sent + 1);
    unsent->length -= sent;
    size_t kept = 0;
    for (size_t i = 0; i < wire->passenger_count; i++) {
        struct passenger passenger = wire->passengers[i];
        if (passenger.place < sent) {
            close(passenger.fd);
            continue;
        }
        passenger.place -= sent;
        wire->passengers[kept++] = passenger;
    }
    wire->passenger_count = kept;
}

// Sends up to the next byte that a descriptor travels with.
static ssize_t send_some(struct wire *wire)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    size_t length = wire->unsent.length;
    struct iovec part = {.iov_base = wire->unsent.string};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    size_t next = 0;
    if (wire->passenger_count > 0 && wire->passengers[0].place == 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &wire->passengers[0].fd, sizeof(int));
        next = 1;
    }
    if (wire->passenger_count > next)
        length = wire->passengers[next].place;
    part.iov_len = length;
    return sendmsg(wire->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void flush(struct wire *wire)
{
    while (wire->unsent.length > 0 && !wire->over) {
        ssize_t sent = send_some(wire);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN))
            break;
        if (sent < 0) {
            // What the peer said before it hung up is still to be read: reading finds the end.
            if (errno != EPIPE && errno != ECONNRESET)
                wire_end(wire, -errno);
            drop_sent(wire, wire->unsent.length);
            break;
        }
        drop_sent(wire, (size_t)sent);
    }
    set_events(wire);
}

void wire_send(struct wire *wire, const char *bytes, size_t length, int fd)
{
    CLEANUP(cleanup_close) int passenger = fd;
    if (wire->over || length == 0)
        return;
    if (wire->unsent.length + length > WIRE_UNSENT_MAX) {
        wire_end(wire, -ENOBUFS);
        return;
    }
    if (passenger >= 0) {
        wire->passengers = memory_resize(wire->passengers, wire->passenger_count + 1, sizeof *wire->passengers);
        wire->passengers[wire->passenger_count++] =
            (struct passenger){.place = wire->unsent.length, .fd = steal_fd(&passenger)};
    }
    bool idle = wire->unsent.length == 0;
    text_add_bytes(&wire->unsent, bytes, length);
    if (idle && !wire->held)
        flush(wire);
}

// Hands out the lines that are complete; FROM is where the new bytes begin.
static void take_lines(struct wire *wire, size_t from)
{
    char *start = wire->input;
    char *search = wire->input + from;
    char *end = wire->input + wire->input_length;
    while (!wire->over) {
        char *stop = memchr(search, '\n', (size_t)(end - search));
        if (!stop)
            break;
        size_t length = (size_t)(stop - start);
        if (length > 0 && start[length - 1] == '\r')
            length--;
        start[length] = '\0';
        if (length > WIRE_LINE_MAX)
            wire_end(wire, -EMSGSIZE);
        else
            wire->callbacks.line(wire->user, start, length);
        start = search = stop + 1;
    }
    wire->input_length = (size_t)(end - start);
    memmove(wire->input, start, wire->input_length);
    if (wire->input_length > WIRE_LINE_MAX)
        wire_end(wire, -EMSGSIZE);
}

// Room for one more chunk; what a long line took is given back when it has gone.
static void make_room(struct wire *wire)
{
    size_t room = wire->input_length + CHUNK;
    if (room > wire->input_room || wire->input_room > 4 * room) {
        wire->input = memory_resize(wire->input, room, 1);
        wire->input_room = room;
    }
}

// Most connections are silent most of the time: they keep room for what has begun to come only.
static void give_room_back(struct wire *wire)
{
    if (wire->input_length > 0)
        return;
    free(steal_pointer(&wire->input));
    wire->input_room = 0;
}

static void read_some(struct wire *wire)
{
    make_room(wire);
    ssize_t got = recv(wire->fd, wire->input + wire->input_length, CHUNK, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        give_room_back(wire);
        return;
    }
    if (got <= 0) {
        wire_end(wire, got == 0 || errno == ECONNRESET ? 0 : -errno);
        return;
    }
    size_t from = wire->input_length;
    wire->input_length += (size_t)got;
    wire->held = true;
    take_lines(wire, from);
    wire->held = false;
    give_room_back(wire);
    if (wire->unsent.length > 0 && !wire->over)
        flush(wire);
}

static int handle_io(sd_event_source *source, int fd, uint32_t events, void *user)
{
    struct wire *wire = user;
    (void)source;
    (void)fd;
    if (!wire->over && (events & EPOLLOUT))
        flush(wire);
    if (!wire->over && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        read_some(wire);
    if (wire->over)
        wire->callbacks.ended(wire->user, wire->error);
    return 0;
}

int wire_new(struct wire **wire, sd_event *loop, int fd, const struct wire_callbacks *callbacks, void *user)
{
    CLEANUP(cleanup_wire) struct wire *new = memory_new(1, sizeof *new);
    new->fd = fd;
    new->callbacks = *callbacks;
    new->user = user;
    int r = sd_event_add_io(loop, &new->source, fd, EPOLLIN, handle_io, new);
    if (r < 0)
        return r;
    *wire = steal_pointer(&new);
    return 0;
}

void wire_free(struct wire *wire)
{
    if (!wire)
        return;
    sd_event_source_disable_unref(wire->source);
    if (wire->fd >= 0)
        close(wire->fd);
    for (size_t i = 0; i < wire->passenger_count; i++)
        close(wire->passengers[i].fd);
    free(wire->passengers);
    text_clear(&wire->unsent);
    free(wire->input);
    free(wire);
}
