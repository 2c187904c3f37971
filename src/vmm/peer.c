// Who is at the other end of a VM's socket: a connection to it, and the process behind it.
#include "vmm/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/text.h"

// Pids have at most 22 bits (/proc/sys/kernel/pid_max).
#define PID_BITS 22

int peer_connect(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0)
        return -ENOENT;
    if (length >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, length + 1);
    CLEANUP(cleanup_close) int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -errno;
    return steal_fd(&fd);
}

// The start time of a process in clock ticks since boot, field 22 of its stat; 0 if unknown.
static uint64_t start_time(pid_t pid)
{
    char path[64], text[1024];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    // The second field is the program's name in brackets, which may hold anything.
    char *field = strrchr(text, ')');
    for (int i = 2; field && i < 22; i++)
        field = strchr(field + 1, ' ');
    uint64_t ticks = 0;
    if (!field)
        return 0;
    field++;
    field[strcspn(field, " ")] = '\0';
    return string_to_uint64(field, 10, UINT64_MAX >> PID_BITS, &ticks) ? ticks : 0;
}

struct ucred peer_process(int fd)
{
    struct ucred who = {0};
    socklen_t length = sizeof who;
    // A process outside our pid namespace has pid 0 here.
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) < 0 || who.pid <= 0)
        return (struct ucred){0};
    return who;
}

uid_t peer_acts_as(const struct ucred *process)
{
    char path[64], line[256];
    unsigned long user;
    uid_t found = process->uid;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)process->pid);
    CLEANUP(cleanup_file) FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Uid: %*u %lu", &user) == 1)
            found = (uid_t)user;
    return found;
}

char *peer_user(const struct ucred *process)
{
    if (process->pid <= 0)
        return NULL;
    uid_t user = peer_acts_as(process);
    // Only the host's own list: to ask a name service could take long.
    CLEANUP(cleanup_file) FILE *file = fopen("/etc/passwd", "re");
    struct passwd *entry;
    char *name = NULL;
    while (file && !name && (entry = fgetpwent(file)))
        if (entry->pw_uid == user)
            name = string_copy(entry->pw_name);
    return name ? name : string_printf("%lu", (unsigned long)user);
}

bool peer_has_ended(int pidfd)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    return pidfd < 0 || poll(&ended, 1, 0) != 0;
}

// A line of /proc/PID/limits: "Max locked memory         8388608              8388608              bytes     ".
uint64_t peer_locked_memory(const struct ucred *process)
{
    char path[64], line[256], soft[32];
    uint64_t bytes = 0, found = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/limits", (int)process->pid);
    CLEANUP(cleanup_file) FILE *file = process->pid > 0 ? fopen(path, "re") : NULL;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "Max locked memory %31s", soft) != 1)
            continue;
        if (strcmp(soft, "unlimited") == 0)
            found = UINT64_MAX;
        else if (string_to_uint64(soft, 10, UINT64_MAX, &bytes))
            found = bytes;
    }
    return found;
}

struct peer peer_of(int fd)
{
    struct peer peer = {.pidfd = -1};
    struct ucred who = peer_process(fd);
    if (who.pid == 0)
        return peer;
    peer.pidfd = (int)syscall(SYS_pidfd_open, who.pid, 0);
    if (peer.pidfd < 0)
        return peer;
    // One that has ended already (its socket lives on in another process) tells nothing.
    if (peer_has_ended(peer.pidfd)) {
        close(peer.pidfd);
        peer.pidfd = -1;
        return peer;
    }
    peer.process = who;
    uint64_t ticks = start_time(who.pid);
    if (ticks != 0)
        peer.instance = ticks << PID_BITS | (uint64_t)who.pid;
    return peer;
}
