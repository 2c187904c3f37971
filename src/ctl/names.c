// Looks up names in a process of its own: getaddrinfo knows no time limit, a process can be ended.
#include "ctl/names.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/text.h"

// What that process says, at once.
struct finding {
    int status; // of getaddrinfo
    unsigned count;
    struct name_address addresses[NAMES_MAX];
};

static void look_up(const char *host, unsigned port, struct finding *finding)
{
    CLEANUP(cleanup_free) char *service = string_printf("%u", port);
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    finding->status = getaddrinfo(host, service, &hints, &found);
    for (struct addrinfo *one = found; one && finding->count < NAMES_MAX; one = one->ai_next) {
        struct name_address *address = &finding->addresses[finding->count++];
        address->family = one->ai_family;
        address->length = one->ai_addrlen;
        memcpy(&address->address, one->ai_addr, one->ai_addrlen);
    }
    if (found)
        freeaddrinfo(found);
}

static pid_t start(const char *host, unsigned port, int to)
{
    pid_t parent = getpid(), child = fork();
    if (child != 0)
        return child;
    // It does not outlive who asks.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(EXIT_FAILURE);
    struct finding finding = {0};
    look_up(host, port, &finding);
    _exit(write(to, &finding, sizeof finding) == sizeof finding ? EXIT_SUCCESS : EXIT_FAILURE);
}

static bool wait_for(int fd, int limit)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    int ready;
    do
        ready = poll(&poller, 1, limit);
    while (ready < 0 && errno == EINTR);
    return ready > 0;
}

static void finish(pid_t child)
{
    (void)kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
}

unsigned names_find(const char *host, unsigned port, int limit, struct name_address *addresses, const char **why)
{
    struct finding finding = {0};
    int ends[2];
    *why = strerror(EAGAIN);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return 0;
    CLEANUP(cleanup_close) int from = ends[0];
    CLEANUP(cleanup_close) int to = ends[1];
    pid_t child = start(host, port, to);
    if (child < 0)
        return 0;
    close(steal_fd(&to)); // if it dies, there is nothing to wait for
    bool answered = wait_for(from, limit);
    ssize_t got = answered ? read(from, &finding, sizeof finding) : 0;
    finish(child);
    if (!answered)
        *why = "the name of the host could not be found out in time";
    else if (got == sizeof finding)
        *why = finding.status ? gai_strerror(finding.status) : "this host has no address";
    memcpy(addresses, finding.addresses, sizeof finding.addresses);
    return got == sizeof finding ? finding.count : 0;
}
