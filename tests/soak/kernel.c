// Is the kernel to the daemon (LD_PRELOAD, after fail.c), where /sys is plain files of the test's making: what is
// written into them has its effect on drivers, interfaces of USB devices appear and go, and a disk is in use.
//
// Its own calls are made by number, so that fail.c does not take them for the daemon's.
#undef _FILE_OFFSET_BITS // both forms of open are defined here
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATH_ROOM 512
#define DISK_IN_USE "/dev/sda"

static void *next_of(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

// ---- files

static long read_link(const char *path, char text[PATH_ROOM])
{
    long length = syscall(SYS_readlinkat, AT_FDCWD, path, text, (size_t)PATH_ROOM - 1);
    text[length > 0 ? length : 0] = '\0';
    return length;
}

__attribute__((format(printf, 2, 3))) static void path_to(char path[PATH_ROOM], const char *format, ...)
{
    va_list values;
    va_start(values, format);
    (void)vsnprintf(path, PATH_ROOM, format, values);
    va_end(values);
}

// The first line; "" if there is none.
static void read_line(const char *path, char line[PATH_ROOM])
{
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    long length = fd >= 0 ? syscall(SYS_read, fd, line, (size_t)PATH_ROOM - 1) : 0;
    line[length > 0 ? length : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (fd >= 0)
        syscall(SYS_close, fd);
}

static void write_text(const char *path, const char *text)
{
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    syscall(SYS_write, fd, text, strlen(text));
    syscall(SYS_close, fd);
}

static bool ends_in(const char *path, const char *end)
{
    size_t length = strlen(path), part = strlen(end);
    return length >= part && strcmp(path + length - part, end) == 0;
}

// ---- udevd's word

static void tell_of_interface(const char *action, const char *syspath)
{
    static const uint32_t usb = 0x0577c5e5, usb_interface = 0xb1024765; // hashes as in hosts.py
    char text[2 * PATH_ROOM];
    struct {
        char prefix[8];
        uint32_t magic, size, offset, length, subsystem, type, tags[2];
    } header = {"libudev", htonl(0xfeedcafe), 40, 40, 0, htonl(usb), htonl(usb_interface), {0}};
    struct iovec parts[] = {{&header, sizeof header}, {text, 0}};
    struct sockaddr_nl listeners = {.nl_family = AF_NETLINK, .nl_groups = 2};
    struct msghdr message = {
        .msg_name = &listeners, .msg_namelen = sizeof listeners, .msg_iov = parts, .msg_iovlen = 2};
    int length = snprintf(text, sizeof text,
                          "ACTION=%s%cDEVPATH=%s%cSUBSYSTEM=usb%cDEVTYPE=usb_interface%cSEQNUM=1%cUSEC_INITIALIZED=1",
                          action, 0, syspath + strlen("/sys"), 0, 0, 0, 0);
    long fd = syscall(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    header.length = (uint32_t)length + 1;
    parts[1].iov_len = header.length;
    syscall(SYS_sendmsg, fd, &message, 0);
    syscall(SYS_close, fd);
}

// ---- USB

static void bind_interface(const char *syspath)
{
    char path[PATH_ROOM], authorized[PATH_ROOM];
    path_to(path, "%s/authorized", syspath);
    read_line(path, authorized);
    path_to(path, "%s/driver", syspath);
    if (strcmp(authorized, "1") == 0)
        syscall(SYS_symlinkat, "/sys/bus/usb/drivers/usbhid", AT_FDCWD, path);
}

static void unbind(const char *syspath)
{
    char path[PATH_ROOM];
    path_to(path, "%s/driver", syspath);
    syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

// DEVICE is "/sys/devices/…/usb1/1-2", and its interface "…/1-2/1-2:1.0".
static void configure(const char *device, const char *interface)
{
    char path[PATH_ROOM], value[PATH_ROOM];
    if (syscall(SYS_mkdirat, AT_FDCWD, interface, 0755) < 0)
        return; // it has been
    path_to(path, "%.*s/interface_authorized_default", (int)(strrchr(device, '/') - device), device);
    read_line(path, value);
    path_to(path, "%s/authorized", interface);
    write_text(path, value);
    bind_interface(interface);
    tell_of_interface("add", interface);
}

static void deconfigure(const char *interface)
{
    char path[PATH_ROOM];
    unbind(interface);
    path_to(path, "%s/authorized", interface);
    syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (syscall(SYS_unlinkat, AT_FDCWD, interface, AT_REMOVEDIR) == 0)
        tell_of_interface("remove", interface);
}

static void authorize(const char *directory, bool authorized)
{
    const char *name = strrchr(directory, '/') + 1;
    char interface[PATH_ROOM];
    if (strchr(name, ':')) {
        if (!authorized)
            unbind(directory);
        return;
    }
    path_to(interface, "%s/%s:1.0", directory, name);
    if (authorized)
        configure(directory, interface);
    else
        deconfigure(interface);
}

static void probe_interface(const char *name)
{
    char device[PATH_ROOM], link[PATH_ROOM], path[PATH_ROOM];
    path_to(device, "/sys/bus/usb/devices/%.*s", (int)strcspn(name, ":"), name);
    if (read_link(device, link) > 0) {
        path_to(path, "%s/%s", device, name);
        bind_interface(path);
    }
}

// ---- PCI

// Only the driver that is wanted for a function takes it.
static bool bind_function(const char *address, const char *driver)
{
    char path[PATH_ROOM], wanted[PATH_ROOM], target[PATH_ROOM];
    path_to(path, "/sys/bus/pci/devices/%s/driver_override", address);
    read_line(path, wanted);
    if (!*wanted || strcmp(wanted, "(null)") == 0) {
        path_to(path, "/sys/bus/pci/devices/%s/usual_driver", address);
        read_line(path, wanted);
    }
    if (driver && strcmp(driver, wanted) != 0)
        return false;
    path_to(path, "/sys/bus/pci/devices/%s/driver", address);
    path_to(target, "/sys/bus/pci/drivers/%s", wanted);
    syscall(SYS_symlinkat, target, AT_FDCWD, path);
    return true;
}

// What a write into PATH brings about; false: the kernel refuses.
static bool take_effect(const char *path, const char *text)
{
    char name[PATH_ROOM];
    if (sscanf(path, "/sys/bus/pci/drivers/%255[^/]/bind", name) == 1 && ends_in(path, "/bind"))
        return bind_function(text, name);
    if (ends_in(path, "/unbind")) {
        path_to(name, "/sys/bus/pci/devices/%s", text);
        unbind(name);
    } else if (strcmp(path, "/sys/bus/pci/drivers_probe") == 0) {
        return bind_function(text, NULL);
    } else if (strcmp(path, "/sys/bus/usb/drivers_probe") == 0) {
        probe_interface(text);
    } else if (ends_in(path, "/authorized")) {
        path_to(name, "%.*s", (int)(strlen(path) - strlen("/authorized")), path);
        authorize(name, *text == '1');
    }
    return true;
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    char link[64], path[PATH_ROOM], text[PATH_ROOM];
    if (!real)
        *(void **)&real = next_of("write");
    ssize_t written = real(fd, bytes, size);
    int before = errno;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (written > 0 && read_link(link, path) > 0 && strncmp(path, "/sys/", 5) == 0) {
        syscall(SYS_ftruncate, fd, size);
        path_to(text, "%.*s", (int)size, (const char *)bytes);
        if (!take_effect(path, text)) {
            errno = ENODEV;
            return -1;
        }
    }
    errno = before;
    return written;
}

// An attribute is not another because somebody has opened it to write.
int openat64(int directory, const char *path, int flags, ...)
{
    static int (*real)(int, const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (!real)
        *(void **)&real = next_of("openat64");
    return real(directory, path, flags & O_CREAT ? flags : flags & ~O_TRUNC, mode);
}

// A file system or swap that is not seen from here has the disk.
int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (!real)
        *(void **)&real = next_of("open64");
    if ((flags & O_EXCL) && strcmp(path, DISK_IN_USE) == 0) {
        errno = EBUSY;
        return -1;
    }
    return real(path, flags, mode);
}
