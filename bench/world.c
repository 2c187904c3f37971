// The world around the daemon in the benchmarks: plugs devices, is the VMs that they go into, and takes the times. It
// is told what to do by lines on its standard input, and answers each with one line. bench.py runs it, in namespaces of
// its own, where /sys, /dev and /run are empty file systems in memory.
//     start PROGRAM ARGUMENT...  starts it, its log in DIRECTORY/log: its process, and ns until it was ready
//     listen PATH                to the events of the API at that socket
//     make FIRST COUNT VMS       devices, numbered from FIRST, whose serial numbers name one of VMS VMs: "vm0000", ...
//     plug COUNT VMS FORGET      COUNT times a device comes and goes; of each, ns until device_add came to the VM, and
//                                until its attach was told. FORGET 1: nobody else removes it from the VM
//     burst FIRST COUNT          the news of devices that were made, all at once: these two times, of the last one
//     settled COUNT              waits until COUNT devices are in VMs that nobody talks to: ns since the start
//     counts                     connections and commands so far
//     wait NS                    lets so much time pass
// In the lab devices are really plugged, by somebody else:
//     watch                      listens to the kernel and to udevd from now on
//     proxy SOCKET               is between a real QEMU with that QMP socket and DIRECTORY/proxy.qmp
//     seen                       waits for one device: ns from the kernel's event to udevd's, until device_add came,
//                                until a real QEMU had answered it (else 0), and until its attach was told
//     gone FORGET                waits until it is gone for everybody; FORGET as above
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common.h"
#include "devices.h"
#include "peers.h"
#include "proxy.h"
#include "util/text.h"
#include "watch.h"

#define PATIENCE_MS 120000
#define PAUSE_NS 2000000 // between plugs, so that each begins with everybody asleep
#define SETTLED_NS 200000000
#define ARGUMENTS_MAX 16

struct world {
    const char *directory;
    int epoll, uevents;
    int notify; // where readiness is told
    int api;    // events of who is measured; -1: not yet
    struct peers *peers;
    struct watch *watch; // NULL: not told to
    struct proxy *proxy; // NULL: not told to
    struct text events;
    size_t attached, disconnected; // told so far
    size_t seen;                   // of the attaches
    uint64_t told;                 // when the last attach was
    uint64_t started;
};

static void give_up(const char *what)
{
    (void)fprintf(stderr, "bench-world: %s did not happen in %d s\n", what, PATIENCE_MS / 1000);
    exit(EXIT_FAILURE);
}

// ---- events of who is measured

static void handle_event_line(struct world *world, const char *line, uint64_t came)
{
    if (strstr(line, "\"usb_attached\"")) {
        world->attached++;
        world->told = came;
    }
    if (strstr(line, "\"usb_disconnected\""))
        world->disconnected++;
}

static void read_events(struct world *world)
{
    char bytes[65536];
    ssize_t got = recv(world->api, bytes, sizeof bytes, MSG_DONTWAIT);
    uint64_t came = now_ns();
    if (got <= 0)
        fail("the events of who is measured have ended");
    text_add_bytes(&world->events, bytes, (size_t)got);
    char *line = world->events.string;
    for (char *end = strchr(line, '\n'); end; end = strchr(line, '\n')) {
        *end = '\0';
        handle_event_line(world, line, came);
        line = end + 1;
    }
    world->events.length -= (size_t)(line - world->events.string);
    memmove(world->events.string, line, world->events.length + 1);
}

// One wait for what may happen, TIMEOUT in ms; false if nothing did.
static bool turn(struct world *world, int timeout)
{
    struct epoll_event events[64];
    int count = epoll_wait(world->epoll, events, 64, timeout);
    if (count < 0 && errno != EINTR)
        fail("epoll");
    for (int i = 0; i < count; i++)
        if (!peers_handle(world->peers, events[i].data.ptr) && !watch_handle(world->watch, events[i].data.ptr) &&
            !proxy_handle(world->proxy, events[i].data.ptr))
            read_events(world);
    return count > 0;
}

static void let_pass(struct world *world, uint64_t ns)
{
    for (uint64_t end = now_ns() + ns, now = now_ns(); now < end; now = now_ns())
        (void)turn(world, (int)((end - now) / 1000000) + 1);
}

static void wait_attached(struct world *world, size_t count)
{
    while (world->attached < count)
        if (!turn(world, PATIENCE_MS))
            give_up("an attach");
}

// Nobody talks to the VMs, which have that many devices.
static bool is_calm(const struct world *world, size_t devices)
{
    struct peers_counts counts = peers_counts(world->peers);
    return counts.connected == 0 && counts.devices == devices && !(world->proxy && proxy_is_connected(world->proxy));
}

static void wait_calm(struct world *world, size_t devices)
{
    while (!is_calm(world, devices))
        if (!turn(world, PATIENCE_MS))
            give_up("the end of all talk with the VMs");
}

// ---- what it is told to do

static int open_notify(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        fail(path);
    return fd;
}

static void wait_ready(struct world *world)
{
    char bytes[4096];
    struct pollfd ready = {.fd = world->notify, .events = POLLIN};
    do {
        if (poll(&ready, 1, PATIENCE_MS) <= 0)
            give_up("readiness");
        ssize_t got = recv(world->notify, bytes, sizeof bytes - 1, 0);
        bytes[got > 0 ? got : 0] = '\0';
    } while (!strstr(bytes, "READY=1"));
}

static void start(struct world *world, char *const arguments[])
{
    CLEANUP(cleanup_free) char *log = string_printf("%s/log", world->directory);
    CLEANUP(cleanup_free) char *notify = string_printf("NOTIFY_SOCKET=%s/notify", world->directory);
    CLEANUP(cleanup_free) char *runtime = string_printf("RUNTIME_DIRECTORY=%s/run", world->directory);
    static char lenient[] = "SYSTEMD_DEVICE_VERIFY_SYSFS=0"; // libudev would insist on a real sysfs
    char *const environment[] = {notify, runtime, lenient, NULL};
    posix_spawn_file_actions_t files;
    pid_t process = 0;
    errno = posix_spawn_file_actions_init(&files);
    if (errno == 0)
        errno = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (errno == 0)
        errno = posix_spawn_file_actions_addopen(&files, 2, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (errno == 0)
        errno = posix_spawn_file_actions_adddup2(&files, 2, 1);
    world->started = now_ns();
    if (errno == 0)
        errno = posix_spawn(&process, arguments[0], &files, NULL, arguments, environment);
    if (errno != 0)
        fail(arguments[0]);
    posix_spawn_file_actions_destroy(&files);
    wait_ready(world);
    (void)printf("%d %llu\n", (int)process, (unsigned long long)(now_ns() - world->started));
}

static void listen_to(struct world *world, const char *path)
{
    static const char request[] = "{\"action\": \"enable_notifications\"}\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = world};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    world->api = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (world->api < 0 || connect(world->api, (const struct sockaddr *)&address, sizeof address) < 0 ||
        send(world->api, request, sizeof request - 1, MSG_NOSIGNAL) < 0 ||
        epoll_ctl(world->epoll, EPOLL_CTL_ADD, world->api, &event) < 0)
        fail(path);
    (void)puts("ok");
}

static void make(size_t first, size_t count, size_t vms)
{
    for (size_t i = first; i < first + count; i++) {
        CLEANUP(cleanup_free) char *serial = string_printf("vm%04zu\n", i % vms);
        device_make(i, serial);
    }
    (void)puts("ok");
}

static void plug(struct world *world, size_t vms, size_t number, bool forget)
{
    CLEANUP(cleanup_free) char *serial = string_printf("vm%04zu\n", number % vms);
    size_t index = number % DEVICES_A_BUS;
    size_t attached = world->attached, disconnected = world->disconnected;
    device_make(index, serial);
    let_pass(world, PAUSE_NS);
    uint64_t begin = now_ns();
    uevent_send(world->uevents, "add", index);
    wait_attached(world, attached + 1);
    uint64_t added = peers_counts(world->peers).added;
    (void)printf("%llu,%llu ", (unsigned long long)(added - begin), (unsigned long long)(world->told - begin));
    wait_calm(world, 1);
    device_remove(index);
    uevent_send(world->uevents, "remove", index);
    if (forget)
        peers_forget(world->peers);
    else
        while (world->disconnected == disconnected)
            if (!turn(world, PATIENCE_MS))
                give_up("that the device is gone");
    wait_calm(world, 0);
}

static void burst(struct world *world, size_t first, size_t count)
{
    size_t attached = world->attached;
    uint64_t begin = now_ns();
    for (size_t i = first; i < first + count; i++)
        uevent_send(world->uevents, "add", i);
    wait_attached(world, attached + count);
    (void)printf("%llu,%llu\n", (unsigned long long)(peers_counts(world->peers).added - begin),
                 (unsigned long long)(world->told - begin));
}

// Calm now, and still after a while, of which the time is not told.
static void settled(struct world *world, size_t devices)
{
    uint64_t calm;
    do {
        wait_calm(world, devices);
        calm = now_ns();
        let_pass(world, SETTLED_NS);
    } while (!is_calm(world, devices));
    (void)printf("%llu\n", (unsigned long long)(calm - world->started));
}

static void start_proxy(struct world *world, const char *target)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/proxy.qmp", world->directory);
    world->proxy = proxy_new(world->epoll, path, target);
    (void)puts("ok");
}

static void print_since(uint64_t begin, uint64_t end, char after)
{
    (void)printf("%lld%c", end ? (long long)(end - begin) : 0, after);
}

// A device that was plugged, before or after this was told.
static void see(struct world *world)
{
    while (world->attached == world->seen || !watch_times(world->watch).kernel || !watch_times(world->watch).udevd)
        if (!turn(world, PATIENCE_MS))
            give_up("an attach");
    struct watch_times times = watch_times(world->watch);
    world->seen = world->attached;
    print_since(times.kernel, times.udevd, ' ');
    print_since(times.kernel, world->proxy ? proxy_added(world->proxy) : peers_counts(world->peers).added, ' ');
    print_since(times.kernel, world->proxy ? proxy_answered(world->proxy) : 0, ' ');
    print_since(times.kernel, world->told, '\n');
}

static void wait_gone(struct world *world, bool forget)
{
    while (watch_times(world->watch).gone == 0 || (!forget && world->disconnected < world->seen))
        if (!turn(world, PATIENCE_MS))
            give_up("that the device is gone");
    if (forget)
        peers_forget(world->peers);
    wait_calm(world, 0);
    watch_forget(world->watch);
    let_pass(world, SETTLED_NS);
    (void)puts("ok");
}

static size_t number_of(const char *word)
{
    unsigned long number = 0;
    if (!word || !string_to_number(word, 10, (unsigned long)-1, &number)) {
        (void)fprintf(stderr, "bench-world: not a number: %s\n", word ? word : "");
        exit(2);
    }
    return number;
}

static void obey(struct world *world, char *words[ARGUMENTS_MAX])
{
    const char *verb = words[0];
    if (strcmp(verb, "start") == 0) {
        start(world, words + 1);
    } else if (strcmp(verb, "listen") == 0) {
        listen_to(world, words[1]);
    } else if (strcmp(verb, "make") == 0) {
        make(number_of(words[1]), number_of(words[2]), number_of(words[3]));
    } else if (strcmp(verb, "plug") == 0) {
        for (size_t i = 0; i < number_of(words[1]); i++)
            plug(world, number_of(words[2]), i, number_of(words[3]) != 0);
        (void)puts("");
    } else if (strcmp(verb, "burst") == 0) {
        burst(world, number_of(words[1]), number_of(words[2]));
    } else if (strcmp(verb, "settled") == 0) {
        settled(world, number_of(words[1]));
    } else if (strcmp(verb, "counts") == 0) {
        struct peers_counts counts = peers_counts(world->peers);
        (void)printf("%zu %zu\n", counts.connections, counts.commands);
    } else if (strcmp(verb, "wait") == 0) {
        let_pass(world, number_of(words[1]));
        (void)puts("ok");
    } else if (strcmp(verb, "watch") == 0) {
        world->watch = watch_new(world->epoll);
        (void)puts("ok");
    } else if (strcmp(verb, "proxy") == 0 && words[1]) {
        start_proxy(world, words[1]);
    } else if (strcmp(verb, "seen") == 0) {
        see(world);
    } else if (strcmp(verb, "gone") == 0) {
        wait_gone(world, number_of(words[1]) != 0);
    } else {
        (void)fprintf(stderr, "bench-world: no such verb: %s\n", verb);
        exit(2);
    }
    (void)fflush(stdout);
}

// The VMs answer while it is told nothing.
static void wait_for_line(struct world *world)
{
    struct pollfd either[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = world->epoll, .events = POLLIN}};
    while (poll(either, 2, -1) > 0 && !either[0].revents)
        (void)turn(world, 0);
}

int main(int argc, char *argv[])
{
    char line[4096];
    if (argc != 5) {
        (void)fputs("usage: bench-world DIRECTORY VMS HANGING CONTROLLERS\n", stderr);
        return 2;
    }
    CLEANUP(cleanup_free) char *notify = string_printf("%s/notify", argv[1]);
    struct world world = {.directory = argv[1], .epoll = epoll_create1(EPOLL_CLOEXEC), .api = -1};
    world.notify = open_notify(notify);
    world.uevents = uevent_socket();
    world.peers = peers_new(world.epoll, argv[1], number_of(argv[2]), number_of(argv[3]), number_of(argv[4]));
    setvbuf(stdin, NULL, _IONBF, 0); // what is read ahead is not seen by poll
    for (wait_for_line(&world); fgets(line, sizeof line, stdin); wait_for_line(&world)) {
        char *words[ARGUMENTS_MAX] = {0}, *rest = line;
        for (size_t i = 0; i + 1 < ARGUMENTS_MAX && (words[i] = strtok_r(rest, " \n", &rest)) != NULL; i++)
            ;
        if (words[0])
            obey(&world, words);
    }
    return EXIT_SUCCESS;
}
