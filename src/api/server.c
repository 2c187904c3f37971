// The ways in. One that cannot be opened is said, and is no reason not to serve the others.
#include "api/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>

#include "api/listen.h"
#include "util/text.h"

enum {
    ACCEPT_A_TURN = 16,
    PAUSE = 100 * 1000, // µs, before who comes is looked at again when nothing could be done
    REFUSED_MAX = 32,
};
// That somebody was refused is said no more often.
#define SILENCE (600 * UINT64_C(1000000)) // µs

struct way {
    struct server *server;
    enum client_kind kind;
    int fd;
    sd_event_source *source, *resume; // the second ends a pause
    char *where;                      // its path, or its address and port; NULL: closed
    struct stat file;                 // UNIX: the socket that is ours
    uint64_t silent;                  // until then nothing is said of those for whom there is no room
};

struct server {
    sd_event *loop;
    struct log *log;
    struct clients *clients;
    struct way ways[CLIENT_KINDS];
    int spare;                     // given up to take in, and send away, one for whom there is no descriptor
    unsigned refused[REFUSED_MAX]; // CIDs that were sent away, each said once
    size_t refused_count;
};

// ---- who comes

union sender {
    struct sockaddr any;
    struct sockaddr_vm vsock;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    struct sockaddr_storage room; // for the longest
};

static bool get_peer(enum client_kind kind, int fd, const union sender *from, struct client_peer *peer, char **address)
{
    *peer = (struct client_peer){.kind = kind};
    if (kind == CLIENT_VSOCK) {
        peer->cid = from->vsock.svm_cid;
    } else if (kind == CLIENT_UNIX) {
        struct ucred who;
        socklen_t length = sizeof who;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) < 0)
            return false;
        peer->uid = who.uid;
        peer->pid = who.pid;
    } else {
        char text[INET6_ADDRSTRLEN] = "?";
        bool is_six = from->any.sa_family == AF_INET6;
        const void *number = is_six ? (const void *)&from->six.sin6_addr : &from->four.sin_addr;
        (void)inet_ntop(from->any.sa_family, number, text, sizeof text);
        *address = string_printf(is_six ? "[%s]:%u" : "%s:%u", text,
                                 ntohs(is_six ? from->six.sin6_port : from->four.sin_port));
        peer->address = *address;
    }
    return true;
}

// A guest may come again and again: that is worth one line.
static bool is_news(struct server *server, unsigned cid)
{
    for (size_t i = 0; i < server->refused_count; i++)
        if (server->refused[i] == cid)
            return false;
    if (server->refused_count == REFUSED_MAX)
        return false;
    server->refused[server->refused_count++] = cid;
    return true;
}

static void say_full(struct way *way, const char *why)
{
    uint64_t now = 0;
    (void)sd_event_now(way->server->loop, CLOCK_MONOTONIC, &now);
    if (now >= way->silent)
        log_warning(way->server->log, "API: %s: a client is refused: %s", way->where, why);
    way->silent = now + SILENCE;
}

static void say_refused(struct way *way, const struct client_peer *peer, const char *why)
{
    if (peer->kind != CLIENT_VSOCK)
        say_full(way, why);
    else if (is_news(way->server, peer->cid))
        log_warning(way->server->log, "API: a guest with CID %u may not connect: %s", peer->cid, why);
}

static void welcome(struct way *way, int fd, const union sender *from)
{
    CLEANUP(cleanup_close) int owned = fd;
    CLEANUP(cleanup_free) char *address = NULL;
    struct client_peer peer;
    int on = 1;
    if (!get_peer(way->kind, fd, from, &peer, &address))
        return;
    if (way->kind == CLIENT_TCP) // one whose host has died is noticed at last, by the kernel
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    const char *why = clients_add(way->server->clients, steal_fd(&owned), &peer);
    if (why)
        say_refused(way, &peer, why);
}

static bool is_full(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

// There is no descriptor for who waits to be let in; left alone, it would wake us for ever. False when not
// even this could be done.
static bool send_away(struct way *way)
{
    struct server *server = way->server;
    say_full(way, "too many files are open");
    if (server->spare >= 0)
        close(steal_fd(&server->spare));
    // cppcheck-suppress nullPointer ; who it was is not asked
    CLEANUP(cleanup_close) int fd = accept4(way->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    bool done = fd >= 0 || !is_full(errno);
    if (fd >= 0)
        close(steal_fd(&fd));
    server->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return done;
}

static int on_resume(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time;
    const struct way *way = user;
    return sd_event_source_set_enabled(way->source, SD_EVENT_ON);
}

// Who comes is left alone for a while.
static int way_pause(struct way *way)
{
    uint64_t now = 0;
    int status;
    (void)sd_event_now(way->server->loop, CLOCK_MONOTONIC, &now);
    if ((status = sd_event_source_set_time(way->resume, now + PAUSE)) < 0 ||
        (status = sd_event_source_set_enabled(way->resume, SD_EVENT_ONESHOT)) < 0)
        return status;
    return sd_event_source_set_enabled(way->source, SD_EVENT_OFF);
}

static int on_come(sd_event_source *source, int listening, uint32_t events, void *user)
{
    (void)source, (void)events;
    struct way *way = user;
    for (int turn = 0; turn < ACCEPT_A_TURN; turn++) {
        union sender from;
        memset(&from, 0, sizeof from);
        socklen_t length = sizeof from;
        int fd = accept4(listening, &from.any, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
        bool full = fd < 0 && is_full(errno);
        if (fd >= 0)
            welcome(way, fd, &from);
        else if (full && !send_away(way))
            return way_pause(way);
        else if (!full && errno != EINTR && errno != ECONNABORTED)
            break;
    }
    return 0;
}

// ---- opening and closing

static void way_close(struct way *way)
{
    if (!way->where)
        return;
    sd_event_source_disable_unref(way->source);
    way->source = NULL;
    sd_event_source_disable_unref(way->resume);
    way->resume = NULL;
    if (way->kind == CLIENT_UNIX && listen_unix_is(way->where, &way->file))
        (void)unlink(way->where);
    if (way->fd >= 0)
        close(steal_fd(&way->fd));
    free(steal_pointer(&way->where));
    way->silent = 0;
}

static int way_watch(struct way *way)
{
    sd_event *loop = way->server->loop;
    int status;
    if ((status = sd_event_add_io(loop, &way->source, way->fd, EPOLLIN, on_come, way)) < 0 ||
        (status = sd_event_source_set_priority(way->source, API_PRIORITY)) < 0 ||
        (status = sd_event_add_time(loop, &way->resume, CLOCK_MONOTONIC, 0, 1000, on_resume, way)) < 0 ||
        (status = sd_event_source_set_priority(way->resume, API_PRIORITY)) < 0)
        return status;
    return sd_event_source_set_enabled(way->resume, SD_EVENT_OFF);
}

static void set_owner(struct way *way, const struct api_config *config)
{
    CLEANUP(cleanup_free) char *error = NULL;
    if (!listen_unix_owner(config, &way->file, &error))
        log_error(way->server->log, "API: %s is for the daemon's own user only: %s", way->where, error);
}

static void way_open(struct way *way, const struct api_config *config, char *where)
{
    static int (*const open_way[CLIENT_KINDS])(const struct api_config *config, char **error) = {
        [CLIENT_UNIX] = listen_unix, [CLIENT_TCP] = listen_tcp, [CLIENT_VSOCK] = listen_vsock};
    struct log *log = way->server->log;
    CLEANUP(cleanup_free) char *error = NULL;
    way->where = where;
    way->fd = open_way[way->kind](config, &error);
    if (way->fd < 0) {
        log_error(log, "API: %s is not served: %s", where, error);
        free(steal_pointer(&way->where));
        return;
    }
    if (way->kind == CLIENT_UNIX)
        set_owner(way, config);
    int status = way_watch(way);
    if (status < 0) {
        log_error(log, "API: %s is not served: %s", where, strerror(-status));
        way_close(way);
        return;
    }
    log_info(log, "API: listens on %s", where);
}

// What tells this way in from another of its kind; NULL: it is to be closed.
static char *name_way(enum client_kind kind, const struct api_config *config)
{
    if (!config->enabled)
        return NULL;
    switch (kind) {
    case CLIENT_UNIX:
        return config->unix_socket ? string_copy(config->path) : NULL;
    case CLIENT_TCP:
        return config->tcp ? string_printf(strchr(config->host, ':') ? "[%s]:%u" : "%s:%u", config->host, config->port)
                           : NULL;
    case CLIENT_VSOCK:
        break;
    }
    return config->vsock ? string_printf("vsock port %u", config->port) : NULL;
}

static bool is_open(const struct way *way, const char *where)
{
    return way->where && string_equal(way->where, where) &&
           (way->kind != CLIENT_UNIX || listen_unix_is(where, &way->file));
}

void server_configure(struct server *server, const struct api_config *config)
{
    server->refused_count = 0;
    for (int kind = 0; kind < CLIENT_KINDS; kind++) {
        struct way *way = &server->ways[kind];
        CLEANUP(cleanup_free) char *where = name_way(way->kind, config);
        if (is_open(way, where)) {
            if (way->kind == CLIENT_UNIX)
                set_owner(way, config);
            continue;
        }
        if (way->where && !string_equal(way->where, where)) // not when only its name in the file system was lost
            clients_hang_up(server->clients, way->kind);
        way_close(way);
        if (where)
            way_open(way, config, steal_pointer(&where));
    }
}

// ---- life

int server_new(struct server **server, sd_event *loop, struct log *log, struct clients *clients)
{
    struct server *new = memory_new(1, sizeof *new);
    *new = (struct server){.loop = loop, .log = log, .clients = clients};
    for (int kind = 0; kind < CLIENT_KINDS; kind++)
        new->ways[kind] = (struct way){.server = new, .kind = (enum client_kind)kind, .fd = -1};
    new->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    *server = new;
    return 0;
}

void server_free(struct server *server)
{
    if (!server)
        return;
    for (int kind = 0; kind < CLIENT_KINDS; kind++)
        way_close(&server->ways[kind]);
    if (server->spare >= 0)
        close(server->spare);
    free(server);
}
