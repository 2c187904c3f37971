// The clients that are connected. Each is served a bounded piece of what it sends in a turn of the loop, so
// that none delays another; who does not read is first no longer served, and at last hung up on.
#include "api/client.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "util/text.h"

enum {
    READ_A_TURN = 16 * 1024,
    SEND_A_TURN = 256 * 1024,
    LINES_A_TURN = 8,
    QUEUE_HIGH = 64 * 1024,        // with that much unread, no further line of a client is served
    QUEUE_MAX = 1024 * 1024,       // with more unread than that, it is hung up on
    QUEUES_MAX = 32 * 1024 * 1024, // of all together: more, and the one with the most is hung up on
    TRUSTED_MAX = 1024,            // root and who runs the daemon; not counted among the others
    OTHERS_MAX = 1024,             // everybody else together, and of these:
    UID_MAX = 512,
    TCP_MAX = 256,
    CID_MAX = 64,
};

struct client {
    struct caller caller; // the first, so that one is the other
    struct clients *clients;
    struct client *next, **place;
    struct client_peer peer;
    char *name; // "unix: pid 123 uid 0", "tcp: 127.0.0.1:4711", "vsock: cid 5"
    int fd;
    sd_event_source *io;
    struct text in;
    size_t served;   // so much of it is done with
    size_t searched; // up to there, the rest of it has no newline
    struct text out;
    size_t sent;  // so much of it
    bool asking;  // this is its turn
    bool ended;   // it has said all that it will say
    bool leaving; // to be hung up on when it was sent what it is to get
    bool lost;    // hung up on; freed when no caller up the stack can hold it any more
};

struct clients {
    struct log *log;
    sd_event *loop;
    struct messages *messages;
    const struct api_config *config;
    sd_event_source *reaper;
    struct client *first;
    size_t others_max, trusted_max;
    size_t queued; // bytes for all of them
};

static const char busy[] = "{\"result\":\"failed\",\"error\":\"too many clients are connected\"}\n";

static size_t client_unread(const struct client *client)
{
    return client->out.length - client->sent;
}

static void forget_queue(struct client *client)
{
    client->clients->queued -= client_unread(client);
    text_clear(&client->out);
    client->sent = 0;
}

// From now on it is sent nothing and nothing of it is served.
static void lose(struct client *client)
{
    if (client->lost)
        return;
    client->lost = true;
    forget_queue(client);
    (void)sd_event_source_set_enabled(client->io, SD_EVENT_OFF);
    (void)sd_event_source_set_enabled(client->clients->reaper, SD_EVENT_ONESHOT);
}

static void client_free(struct client *client)
{
    struct clients *clients = client->clients;
    messages_forget(clients->messages, &client->caller);
    log_debug(clients->log, "API: %s has gone", client->name);
    forget_queue(client);
    *client->place = client->next;
    if (client->next)
        client->next->place = client->place;
    sd_event_source_disable_unref(client->io);
    text_clear(&client->in);
    free(client->name);
    close(client->fd);
    free(client);
}

static int on_reap(sd_event_source *source, void *user)
{
    (void)source;
    struct clients *clients = user;
    for (struct client *client = clients->first, *next; client; client = next) {
        next = client->next;
        if (client->lost)
            client_free(client);
    }
    return 0;
}

// ---- what each wants of the loop

static bool has_line(struct client *client)
{
    struct text *in = &client->in;
    if (client->searched < in->length && memchr(in->string + client->searched, '\n', in->length - client->searched))
        return true;
    client->searched = in->length;
    return client->ended && client->served < in->length; // the last line may lack its newline
}

static bool may_serve(const struct client *client)
{
    return !client->lost && !client->leaving && !client->caller.owed && client_unread(client) < QUEUE_HIGH;
}

// Lines that were read already wait for the client's next turn, which comes when its socket can take an
// answer: so who has sent much stands in line with all the others, and who does not read waits.
static void client_arm(struct client *client)
{
    if (client->lost)
        return;
    bool serve = may_serve(client), line = has_line(client);
    uint32_t events = client_unread(client) > 0 || (serve && line) ? EPOLLOUT : 0;
    if (serve && !line && !client->ended)
        events |= EPOLLIN;
    // One that has hung up while its answer waits would wake us for ever: it is looked at again later.
    if (sd_event_source_set_io_events(client->io, events) < 0 ||
        sd_event_source_set_enabled(client->io, events ? SD_EVENT_ON : SD_EVENT_OFF) < 0)
        lose(client); // nothing would ever be heard of it again
}

// ---- out

static void client_flush(struct client *client)
{
    size_t unread = client_unread(client);
    if (client->lost || unread == 0)
        return;
    ssize_t sent = send(client->fd, client->out.string + client->sent, unread < SEND_A_TURN ? unread : SEND_A_TURN,
                        MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
            lose(client);
        return;
    }
    client->sent += (size_t)sent;
    client->clients->queued -= (size_t)sent;
    if (client_unread(client) == 0) {
        text_clear(&client->out); // a client that is idle costs no memory
        client->sent = 0;
    }
}

static void drop_slow(struct client *client)
{
    if (client->lost)
        return;
    log_warning(client->clients->log, "API: %s does not read what it is sent, %zu bytes by now: it is hung up on",
                client->name, client_unread(client));
    lose(client);
}

static void drop_slowest(struct clients *clients)
{
    struct client *slowest = clients->first;
    for (struct client *client = clients->first; client; client = client->next)
        if (client_unread(client) > client_unread(slowest))
            slowest = client;
    if (slowest)
        drop_slow(slowest);
}

// Sent at the end of this turn or in a later one, when no device and no VM has anything to be done.
static void on_say(struct caller *caller, const char *line, size_t length)
{
    struct client *client = (struct client *)caller;
    struct text *out = &client->out;
    if (client->lost || (client->leaving && !client->asking))
        return;
    if (client_unread(client) > QUEUE_MAX) {
        drop_slow(client);
        return;
    }
    if (client->sent > out->length / 2) {
        memmove(out->string, out->string + client->sent, out->length - client->sent);
        out->length -= client->sent;
        client->sent = 0;
    }
    text_add_bytes(out, line, length);
    text_add(out, "\n");
    client->clients->queued += length + 1;
    if (client->clients->queued > QUEUES_MAX)
        drop_slowest(client->clients);
    if (!client->asking)
        client_arm(client);
}

// The rest of what it has sent is served in its own turn.
static void on_answered(struct caller *caller)
{
    struct client *client = (struct client *)caller;
    if (!client->asking)
        client_arm(client);
}

// ---- in

static void refuse_long(struct client *client)
{
    log_debug(client->clients->log, "API: %s sent a line of more than %d bytes", client->name, MESSAGE_LINE_MAX);
    text_clear(&client->in);
    client->served = client->searched = 0;
    messages_too_long(&client->caller);
    client->leaving = true;
}

static void serve_line(struct client *client)
{
    char *line = client->in.string + client->served;
    size_t left = client->in.length - client->served;
    char *newline = memchr(line, '\n', left);
    size_t length = newline ? (size_t)(newline - line) : left;
    if (length > MESSAGE_LINE_MAX) {
        refuse_long(client);
        return;
    }
    line[length] = '\0'; // in place of the newline, or of the NUL that ends the text
    client->served += length + (newline ? 1 : 0);
    client->searched = client->served;
    messages_request(client->clients->messages, &client->caller, line, length);
    // A browser can be made to send lines to a port of this host; the first of those is never a request.
    if (client->peer.kind == CLIENT_TCP && client->caller.confused)
        client->leaving = true;
}

static void serve_lines(struct client *client)
{
    client->asking = true;
    for (int lines = 0; lines < LINES_A_TURN && may_serve(client) && has_line(client); lines++)
        serve_line(client);
    if (may_serve(client) && !has_line(client) && client->in.length - client->served > MESSAGE_LINE_MAX)
        refuse_long(client);
    client->asking = false;
    struct text *in = &client->in;
    if (client->served == in->length) {
        text_clear(in);
    } else {
        memmove(in->string, in->string + client->served, in->length - client->served);
        in->length -= client->served;
    }
    client->searched -= client->served;
    client->served = 0;
}

static void client_read(struct client *client)
{
    char bytes[READ_A_TURN];
    ssize_t got = recv(client->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got > 0)
        text_add_bytes(&client->in, bytes, (size_t)got);
    else if (got == 0)
        client->ended = true;
    else if (errno != EAGAIN && errno != EINTR)
        lose(client);
}

static void client_turn(struct client *client, bool readable)
{
    if (readable && may_serve(client) && !client->ended && !has_line(client))
        client_read(client);
    serve_lines(client);
    client_flush(client);
    bool done = client->leaving || (client->ended && client->in.length == 0);
    if (done && !client->caller.owed && client_unread(client) == 0)
        lose(client);
    client_arm(client);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *user)
{
    (void)source, (void)fd;
    client_turn(user, (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0);
    return 0;
}

// ---- who may come

static const struct api_cid *find_cid(const struct clients *clients, unsigned cid)
{
    for (size_t i = 0; clients->config && i < clients->config->cid_count; i++)
        if (clients->config->cids[i].cid == cid)
            return &clients->config->cids[i];
    return NULL;
}

static bool is_trusted(const struct client_peer *peer)
{
    return peer->kind == CLIENT_UNIX && (peer->uid == 0 || peer->uid == geteuid());
}

static bool are_alike(const struct client_peer *one, const struct client_peer *other)
{
    if (one->kind != other->kind)
        return false;
    switch (one->kind) {
    case CLIENT_UNIX:
        return one->uid == other->uid;
    case CLIENT_VSOCK:
        return one->cid == other->cid;
    case CLIENT_TCP:
        break;
    }
    return true;
}

// NULL, or why there is no room for this one.
static const char *check_room(const struct clients *clients, const struct client_peer *peer)
{
    static const size_t alike_max[CLIENT_KINDS] = {
        [CLIENT_UNIX] = UID_MAX, [CLIENT_TCP] = TCP_MAX, [CLIENT_VSOCK] = CID_MAX};
    bool trusted = is_trusted(peer);
    size_t alike = 0, others = 0;
    for (const struct client *client = clients->first; client; client = client->next) {
        alike += are_alike(&client->peer, peer);
        others += !is_trusted(&client->peer);
    }
    if (trusted)
        return alike < clients->trusted_max ? NULL : "this user has too many clients";
    if (others >= clients->others_max)
        return "too many clients are connected";
    return alike < alike_max[peer->kind] ? NULL : "too many clients of its kind are connected";
}

// What it may do, as the configuration says now.
static void set_permissions(struct client *client)
{
    struct caller *caller = &client->caller;
    if (client->peer.kind != CLIENT_VSOCK) {
        caller->permissions = API_LIST | API_NOTIFY | API_CONTROL;
        caller->may_reload = true;
        return;
    }
    const struct api_cid *cid = find_cid(client->clients, client->peer.cid);
    caller->permissions = cid ? cid->permissions : 0;
    caller->vms = cid ? cid->vms : NULL;
    caller->vm_count = cid ? cid->vm_count : 0;
    // What is wrong with the file may name other VMs.
    caller->may_reload = cid && (cid->permissions & API_CONTROL) && cid->vm_count == 0;
}

static char *describe(const struct client_peer *peer)
{
    switch (peer->kind) {
    case CLIENT_UNIX:
        return string_printf("unix: pid %jd uid %ju", (intmax_t)peer->pid, (uintmax_t)peer->uid);
    case CLIENT_VSOCK:
        return string_printf("vsock: cid %u", peer->cid);
    case CLIENT_TCP:
        break;
    }
    return string_printf("tcp: %s", peer->address);
}

static int client_watch(struct client *client)
{
    int status = sd_event_add_io(client->clients->loop, &client->io, client->fd, EPOLLIN, on_io, client);
    return status < 0 ? status : sd_event_source_set_priority(client->io, API_PRIORITY);
}

const char *clients_add(struct clients *clients, int fd, const struct client_peer *peer)
{
    CLEANUP(cleanup_close) int owned = fd;
    if (peer->kind == CLIENT_VSOCK && !find_cid(clients, peer->cid))
        return "general.api.allowedCids does not name its CID"; // no word to it: it need not know who is here
    const char *why = check_room(clients, peer);
    if (why) {
        (void)send(fd, busy, sizeof busy - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        return why;
    }
    struct client *client = memory_new(1, sizeof *client);
    *client = (struct client){.caller = {.say = on_say, .answered = on_answered},
                              .clients = clients,
                              .next = clients->first,
                              .place = &clients->first,
                              .peer = *peer,
                              .name = describe(peer),
                              .fd = steal_fd(&owned)};
    client->peer.address = NULL; // borrowed; it is in the name
    if (client->next)
        client->next->place = &client->next;
    clients->first = client;
    set_permissions(client);
    log_debug(clients->log, "API: %s is connected", client->name);
    if (client_watch(client) < 0) {
        client_free(client);
        return "the event loop does not take it";
    }
    return NULL;
}

// Whoever asked for what made us hang up still gets the answer.
static void hang_up(struct client *client)
{
    if (client->asking)
        client->leaving = true;
    else
        lose(client);
}

void clients_configure(struct clients *clients, const struct api_config *config)
{
    clients->config = config;
    for (struct client *client = clients->first; client; client = client->next) {
        set_permissions(client);
        if (client->caller.permissions == 0)
            hang_up(client);
    }
}

void clients_hang_up(struct clients *clients, enum client_kind kind)
{
    for (struct client *client = clients->first; client; client = client->next)
        if (client->peer.kind == kind)
            hang_up(client);
}

// ---- life

// At most half of the descriptors that we may have open are for clients.
static void set_limits(struct clients *clients)
{
    struct rlimit limit;
    size_t quarter = SIZE_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        quarter = (size_t)(limit.rlim_cur / 4);
    clients->trusted_max = quarter < TRUSTED_MAX ? quarter : TRUSTED_MAX;
    clients->others_max = quarter < OTHERS_MAX ? quarter : OTHERS_MAX;
}

int clients_new(struct clients **clients, sd_event *loop, struct log *log, struct messages *messages)
{
    CLEANUP(cleanup_clients) struct clients *new = memory_new(1, sizeof *new);
    *new = (struct clients){.log = log, .loop = loop, .messages = messages};
    set_limits(new);
    int status;
    if ((status = sd_event_add_defer(loop, &new->reaper, on_reap, new)) < 0 ||
        (status = sd_event_source_set_priority(new->reaper, API_PRIORITY - 1)) < 0 ||
        (status = sd_event_source_set_enabled(new->reaper, SD_EVENT_OFF)) < 0)
        return status;
    *clients = steal_pointer(&new);
    return 0;
}

void clients_free(struct clients *clients)
{
    if (!clients)
        return;
    for (struct client *client = clients->first, *next; client; client = next) {
        next = client->next;
        client_free(client);
    }
    sd_event_source_disable_unref(clients->reaper);
    free(clients);
}
