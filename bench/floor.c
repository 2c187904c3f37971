// The floor of the benchmarks: the least that a program can do to put a plugged device into a VM. It receives the
// udev event, connects, negotiates and sends device_add, always the same bytes. It decides, checks and remembers
// nothing.
#include <errno.h>
#include <libudev.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char bytes[] =
    "{\"execute\": \"qmp_capabilities\"}\r\n"
    "{\"execute\": \"device_add\", \"arguments\": {\"driver\": \"usb-host\", \"id\": \"floor\", "
    "\"bus\": \"xhci0.0\", \"port\": \"1\", \"hostbus\": 1, \"hostaddr\": 1}}\r\n";

static void fail(const char *what)
{
    (void)fprintf(stderr, "bench-floor: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static int connect_to(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        fail(path);
    return fd;
}

// Reads until that many lines have come.
static void read_lines(int fd, unsigned count)
{
    char buffer[4096];
    while (count > 0) {
        ssize_t got = read(fd, buffer, sizeof buffer);
        if (got <= 0)
            fail("the VM");
        for (ssize_t i = 0; i < got; i++)
            if (buffer[i] == '\n' && count > 0)
                count--;
    }
}

static void attach(const char *socket_path, int told)
{
    static const char line[] = "{\"event\": \"usb_attached\"}\n";
    int fd = connect_to(socket_path, SOCK_STREAM);
    read_lines(fd, 1); // the greeting
    if (send(fd, bytes, sizeof bytes - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof bytes - 1))
        fail("sending");
    read_lines(fd, 2);
    if (send(told, line, sizeof line - 1, MSG_NOSIGNAL) < 0)
        fail("telling");
    close(fd);
}

// Whom it tells of each device that is in the VM, as the API of the daemon does.
static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    (void)unlink(path);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0)
        fail(path);
    return fd;
}

static void say_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    int fd = path ? connect_to(path, SOCK_DGRAM) : -1;
    if (fd < 0)
        return;
    if (send(fd, "READY=1", 7, MSG_NOSIGNAL) < 0)
        fail("NOTIFY_SOCKET");
    close(fd);
}

int main(int argc, char *argv[])
{
    if (argc != 3) {
        (void)fputs("usage: bench-floor QMP-SOCKET EVENT-SOCKET\n", stderr);
        return 2;
    }
    struct udev *udev = udev_new();
    struct udev_monitor *monitor = udev ? udev_monitor_new_from_netlink(udev, "udev") : NULL;
    if (!monitor || udev_monitor_set_receive_buffer_size(monitor, 16 * 1024 * 1024) < 0 ||
        udev_monitor_filter_add_match_subsystem_devtype(monitor, "usb", "usb_device") < 0 ||
        udev_monitor_enable_receiving(monitor) < 0)
        fail("listening to udev");
    int listening = listen_at(argv[2]);
    say_ready();
    int told = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    if (told < 0)
        fail(argv[2]);
    struct pollfd wait = {.fd = udev_monitor_get_fd(monitor), .events = POLLIN};
    while (poll(&wait, 1, -1) > 0) {
        struct udev_device *device;
        while ((device = udev_monitor_receive_device(monitor)) != NULL) {
            const char *action = udev_device_get_action(device);
            bool plugged = action && strcmp(action, "add") == 0;
            udev_device_unref(device);
            if (plugged)
                attach(argv[1], told);
        }
    }
    fail("waiting");
}
