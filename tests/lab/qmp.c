// Talks to a VM's QMP socket inside the lab: qmp SOCKET COMMAND… prints one reply a line, in order.
// The daemon shares that one-client socket, so a greeting may be late and a queued client may be
// dropped: it connects again until its limit of 120 s. A command whose answer was lost is sent again.
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LIMIT 120
#define GREETING_LIMIT 10
#define LINE_BYTES (4U << 20)

struct link {
    int fd;
    size_t used;
    char *line; // LINE_BYTES
};

static time_t seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void say(const char *what)
{
    fprintf(stderr, "qmp: %s\n", what);
}

static bool link_open(struct link *link, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    link->used = 0;
    link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (link->fd >= 0 && connect(link->fd, (struct sockaddr *)&address, sizeof address) == 0)
        return true;
    say(strerror(errno));
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    return false;
}

// The next line without its end, or NULL at the deadline or when the connection ends. Valid until the next call.
static char *link_line(struct link *link, time_t deadline)
{
    static size_t taken; // of the line returned last
    if (taken > link->used)
        taken = link->used;
    memmove(link->line, link->line + taken, link->used - taken);
    link->used -= taken;
    taken = 0;
    for (;;) {
        char *end = memchr(link->line, '\n', link->used);
        if (end) {
            taken = (size_t)(end - link->line) + 1;
            *end = '\0';
            if (end > link->line && end[-1] == '\r')
                end[-1] = '\0';
            return link->line;
        }
        time_t left = deadline - seconds();
        struct pollfd wait = {.fd = link->fd, .events = POLLIN};
        if (left <= 0 || link->used == LINE_BYTES || poll(&wait, 1, (int)left * 1000) <= 0)
            return NULL;
        ssize_t got = read(link->fd, link->line + link->used, LINE_BYTES - link->used);
        if (got <= 0)
            return NULL;
        link->used += (size_t)got;
    }
}

static bool link_send(const struct link *link, const char *command)
{
    for (size_t sent = 0; sent < strlen(command);) {
        struct pollfd wait = {.fd = link->fd, .events = POLLOUT};
        if (poll(&wait, 1, 10000) <= 0)
            return false;
        ssize_t put = send(link->fd, command + sent, strlen(command) - sent, MSG_NOSIGNAL);
        if (put <= 0)
            return false;
        sent += (size_t)put;
    }
    return true;
}

// The reply to COMMAND, events left out.
static char *link_ask(struct link *link, const char *command, time_t deadline)
{
    char *line = NULL;
    if (!link_send(link, command))
        return NULL;
    do {
        line = link_line(link, deadline);
    } while (line && strstr(line, "\"event\": "));
    return line;
}

static bool link_greet(struct link *link, time_t deadline)
{
    time_t soon = seconds() + GREETING_LIMIT;
    const char *greeting = link_line(link, soon < deadline ? soon : deadline);
    if (!greeting || !strstr(greeting, "\"QMP\""))
        return false;
    const char *reply = link_ask(link, "{\"execute\": \"qmp_capabilities\"}", deadline);
    return reply && strstr(reply, "\"return\"");
}

int main(int argc, char **argv)
{
    struct link link = {.fd = -1, .line = malloc(LINE_BYTES + 1)};
    if (argc < 3 || !link.line) {
        say("usage: qmp SOCKET COMMAND…");
        return 2;
    }
    time_t deadline = seconds() + LIMIT;
    for (int next = 2; next < argc && seconds() < deadline;) {
        if (link_open(&link, argv[1])) {
            if (!link_greet(&link, deadline))
                say("no greeting, connecting again");
            else
                for (const char *reply; next < argc && (reply = link_ask(&link, argv[next], deadline)); next++)
                    puts(reply);
            close(link.fd);
        }
        if (next == argc) {
            free(link.line);
            return 0;
        }
        usleep(200000);
    }
    say("gave up");
    free(link.line);
    return 3;
}
