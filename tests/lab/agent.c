// The first process of the lab host: runs the commands that the tests send through a virtio-serial
// port and answers with status and output; reaps every orphan.
//
// Request:  "ID LIMIT LENGTH\n" and LENGTH bytes of shell script, which may run LIMIT seconds.
// Answer:   "ID STATUS LENGTH\n" and LENGTH bytes of output. STATUS 124: the time was up.
// A first answer "0 0 0\n" says that the agent is there.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SCRIPT_MAX (1U << 20)
#define OUTPUT_MAX (8U << 20)
#define TIME_UP 124

struct request {
    unsigned id, limit, length;
    char *script;
};

static int port_open(void)
{
    for (;;) {
        DIR *ports = opendir("/sys/class/virtio-ports");
        const struct dirent *entry;
        while (ports && (entry = readdir(ports))) {
            char path[300];
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            int fd = strncmp(entry->d_name, "vport", 5) == 0 ? open(path, O_RDWR | O_CLOEXEC) : -1;
            if (fd >= 0) {
                closedir(ports);
                return fd;
            }
        }
        if (ports)
            closedir(ports);
        usleep(100000);
    }
}

static void reap(pid_t wanted, int *status, bool *found)
{
    int ended;
    pid_t pid;
    while ((pid = waitpid(-1, &ended, WNOHANG)) > 0) {
        if (pid != wanted)
            continue;
        *found = true;
        *status = WIFSIGNALED(ended) ? 128 + WTERMSIG(ended) : WEXITSTATUS(ended);
    }
}

static void signals_drain(int signals)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) > 0)
        ;
}

// Reads exactly LENGTH bytes, however long that takes, and reaps orphans meanwhile.
static void port_read(int port, int signals, char *to, size_t length)
{
    while (length > 0) {
        struct pollfd wait[] = {{.fd = port, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        poll(wait, 2, -1);
        if (wait[1].revents) {
            signals_drain(signals);
            reap(-1, NULL, NULL);
        }
        if (!(wait[0].revents & POLLIN)) {
            if (wait[0].revents) // the other end is not connected
                usleep(100000);
            continue;
        }
        ssize_t got = read(port, to, length);
        if (got <= 0) {
            usleep(100000);
            continue;
        }
        to += got;
        length -= (size_t)got;
    }
}

static void port_write(int port, const char *from, size_t length)
{
    while (length > 0) {
        ssize_t put = write(port, from, length);
        if (put < 0) {
            usleep(100000);
            continue;
        }
        from += put;
        length -= (size_t)put;
    }
}

static bool request_read(int port, int signals, struct request *request)
{
    char line[64];
    size_t length = 0;
    do {
        port_read(port, signals, line + length, 1);
    } while (line[length] != '\n' && ++length < sizeof line - 1);
    line[length] = '\0';
    if (sscanf(line, "%u %u %u", &request->id, &request->limit, &request->length) != 3 || request->length > SCRIPT_MAX)
        return false;
    request->script = calloc(1, request->length + 1);
    if (!request->script)
        abort();
    port_read(port, signals, request->script, request->length);
    return true;
}

static pid_t command_start(const char *script, int output)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    setsid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(output, 1);
    dup2(output, 2);
    close(null);
    execl("/bin/bash", "bash", "-c", script, (char *)NULL);
    _exit(127);
}

static int command_wait(pid_t pid, int signals, unsigned limit)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int status = 127;
    bool ended = pid < 0, killed = false;
    while (!ended) {
        struct pollfd wait = {.fd = signals, .events = POLLIN};
        poll(&wait, 1, 1000);
        signals_drain(signals);
        reap(pid, &status, &ended);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (!ended && !killed && now.tv_sec - start.tv_sec >= (time_t)limit) {
            kill(-pid, SIGKILL);
            killed = true;
        }
    }
    return killed ? TIME_UP : status;
}

static void answer(int port, unsigned id, int status, int output)
{
    struct stat size;
    size_t length = output >= 0 && fstat(output, &size) == 0 ? (size_t)size.st_size : 0;
    if (length > OUTPUT_MAX)
        length = OUTPUT_MAX;
    char line[64];
    int written = snprintf(line, sizeof line, "%u %d %zu\n", id, status, length);
    port_write(port, line, (size_t)written);
    static char block[65536];
    for (off_t at = 0; (size_t)at < length;) {
        size_t want = length - (size_t)at < sizeof block ? length - (size_t)at : sizeof block;
        ssize_t got = pread(output, block, want, at);
        if (got <= 0) { // never: keep the promised length all the same
            memset(block, 0, want);
            got = (ssize_t)want;
        }
        port_write(port, block, (size_t)got);
        at += got;
    }
}

int main(void)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", "/root", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    int port = port_open();
    answer(port, 0, 0, -1);
    for (;;) {
        struct request request = {0};
        if (!request_read(port, signals, &request))
            continue;
        // A file, not a pipe: what the command leaves in the background may hold it open for ever.
        int output = memfd_create("output", MFD_CLOEXEC);
        fcntl(output, F_SETFL, O_APPEND);
        pid_t pid = command_start(request.script, output);
        answer(port, request.id, command_wait(pid, signals, request.limit), output);
        close(output);
        free(request.script);
    }
}
