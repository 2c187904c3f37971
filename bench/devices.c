// USB devices of the benchmarks' own making: their directories in sysfs, their nodes, and what udevd says of them.
// /sys, /dev and /run are file systems in memory then, in a mount namespace; and the network namespace is a new one, so
// that nobody else hears of these devices.
#include "devices.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"
#include "util/cleanup.h"
#include "util/text.h"

#define UDEVD_LISTENERS 2 // their multicast group
#define CONTROLLER "/devices/pci0000:00/0000:00:14.0"

// A mouse, as the kernel gives its descriptors.
static const uint8_t mouse[] = {
    18, 1,    0x00, 0x02, 0, 0, 0,    64,   0x27, 0x06, 0x01, 0x00, 0x00, 0x00, 1, 2, 3, 1, // device
    9,  2,    34,   0,    1, 1, 4,    0xa0, 50,                                             // configuration
    9,  4,    0,    0,    1, 3, 1,    2,    0,                                              // interface
    9,  0x21, 1,    0,    0, 1, 0x22, 52,   0,                                              // HID
    7,  5,    0x81, 3,    4, 0, 7,                                                          // endpoint
};

static unsigned bus_of(size_t index)
{
    return (unsigned)(index / DEVICES_A_BUS) + 1;
}

static unsigned address_of(size_t index)
{
    return (unsigned)(index % DEVICES_A_BUS) + 1;
}

static char *path_of(size_t index)
{
    unsigned bus = bus_of(index);
    return string_printf(CONTROLLER "/usb%u/%u-%u", bus, bus, address_of(index));
}

static char *node_of(size_t index)
{
    return string_printf("/dev/bus/usb/%03u/%03u", bus_of(index), address_of(index));
}

static void make_parents(const char *path)
{
    CLEANUP(cleanup_free) char *part = string_copy(path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            fail(part);
        *slash = '/';
    }
}

static void write_bytes(const char *path, const void *bytes, size_t length)
{
    CLEANUP(cleanup_close) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 && errno == ENOENT) {
        make_parents(path);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    }
    if (fd < 0 || write(fd, bytes, length) != (ssize_t)length)
        fail(path);
}

static void write_attribute(const char *directory, const char *name, const char *text)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", directory, name);
    write_bytes(path, text, strlen(text));
}

static void write_number(const char *directory, const char *name, unsigned number)
{
    CLEANUP(cleanup_free) char *text = string_printf("%u\n", number);
    write_attribute(directory, name, text);
}

static void make_link(const char *target, const char *path)
{
    if (symlink(target, path) == 0)
        return;
    make_parents(path);
    if (symlink(target, path) < 0)
        fail(path);
}

static char *link_of(size_t index)
{
    return string_printf("/sys/bus/usb/devices/%u-%u", bus_of(index), address_of(index));
}

static char *record_of(size_t index)
{
    return string_printf("/run/udev/data/+usb:%u-%u", bus_of(index), address_of(index));
}

// The node is a plain file of descriptors, whose device number is none: 0:0.
void device_make(size_t index, const char *serial)
{
    static const char *const attributes[][2] = {
        {"idVendor", "0627\n"},      {"idProduct", "0001\n"},     {"dev", "0:0\n"},   {"bDeviceClass", "00\n"},
        {"bDeviceSubClass", "00\n"}, {"bDeviceProtocol", "00\n"}, {"speed", "480\n"}, {"removable", "removable\n"},
        {"manufacturer", "QEMU\n"},  {"product", "QEMU Mouse\n"},
    };
    CLEANUP(cleanup_free) char *path = path_of(index);
    CLEANUP(cleanup_free) char *directory = string_printf("/sys%s", path);
    CLEANUP(cleanup_free)
    char *uevent = string_printf("DEVTYPE=usb_device\nBUSNUM=%03u\nDEVNUM=%03u\n", bus_of(index), address_of(index));
    CLEANUP(cleanup_free) char *subsystem = string_printf("%s/subsystem", directory);
    CLEANUP(cleanup_free) char *descriptors = string_printf("%s/descriptors", directory);
    CLEANUP(cleanup_free) char *node = node_of(index);
    CLEANUP(cleanup_free) char *link = link_of(index);
    CLEANUP(cleanup_free) char *record = record_of(index);
    CLEANUP(cleanup_free) char *target = string_printf("../../..%s", path);
    static const char known[] = "I:1\nE:ID_VENDOR_FROM_DATABASE=QEMU\n";

    write_attribute(directory, "uevent", uevent);
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        write_attribute(directory, attributes[i][0], attributes[i][1]);
    write_number(directory, "busnum", bus_of(index));
    write_number(directory, "devnum", address_of(index));
    write_attribute(directory, "serial", serial);
    write_bytes(descriptors, mouse, sizeof mouse);
    make_link("../../../../../bus/usb", subsystem);
    write_bytes(node, mouse, sizeof mouse);
    write_bytes(record, known, sizeof known - 1);
    make_link(target, link);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

void device_remove(size_t index)
{
    CLEANUP(cleanup_free) char *path = path_of(index);
    CLEANUP(cleanup_free) char *directory = string_printf("/sys%s", path);
    CLEANUP(cleanup_free) char *node = node_of(index);
    CLEANUP(cleanup_free) char *link = link_of(index);
    CLEANUP(cleanup_free) char *record = record_of(index);
    if (unlink(link) < 0 || unlink(node) < 0 || unlink(record) < 0 ||
        nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0)
        fail(directory);
}

int uevent_socket(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        fail("a socket for device events");
    return fd;
}

// MurmurHash2 with the seed 0, by which listeners let the kernel drop what they do not ask for.
static uint32_t hash(const char *text)
{
    const uint32_t m = 0x5bd1e995;
    size_t length = strlen(text);
    uint32_t h = (uint32_t)length;
    for (; length >= 4; text += 4, length -= 4) {
        uint32_t k;
        memcpy(&k, text, sizeof k);
        k *= m;
        k ^= k >> 24;
        h = h * m ^ k * m;
    }
    for (size_t i = length; i > 0; i--)
        h ^= (uint32_t)(uint8_t)text[i - 1] << 8 * (i - 1);
    if (length > 0)
        h *= m;
    h ^= h >> 13;
    h *= m;
    return h ^ h >> 15;
}

// Before the properties of each message; the same since udev 175.
struct header {
    char prefix[8];
    uint32_t magic, size, properties_offset, properties_length;
    uint32_t subsystem, type; // hashes
    uint32_t tags[2];
};

// As udevd has it, each property ends with a zero byte; here that is a line break until it is sent.
void uevent_send(int fd, const char *action, size_t index)
{
    static unsigned sequence;
    CLEANUP(cleanup_free) char *path = path_of(index);
    CLEANUP(cleanup_free) char *node = node_of(index);
    CLEANUP(cleanup_free)
    char *text = string_printf(
        "ACTION=%s\nDEVPATH=%s\nSUBSYSTEM=usb\nDEVTYPE=usb_device\nDEVNAME=%s\nSEQNUM=%u\nBUSNUM=%03u\nDEVNUM=%03u\n"
        "PRODUCT=627/1/0\nTYPE=0/0/0\nUSEC_INITIALIZED=1\nID_VENDOR_FROM_DATABASE=QEMU\nID_SERIAL=QEMU_Mouse\n"
        "ID_PATH=pci-0000:00:14.0-usb-0:%u\nID_USB_INTERFACES=:030102:\n",
        action, path, node, ++sequence, bus_of(index), address_of(index), address_of(index));
    size_t length = strlen(text);
    struct header header = {.prefix = "libudev",
                            .magic = htobe32(0xfeedcafe),
                            .size = sizeof header,
                            .properties_offset = sizeof header,
                            .properties_length = (uint32_t)length,
                            .subsystem = htobe32(hash("usb")),
                            .type = htobe32(hash("usb_device"))};
    struct iovec parts[] = {{&header, sizeof header}, {text, length}};
    struct sockaddr_nl listeners = {.nl_family = AF_NETLINK, .nl_groups = UDEVD_LISTENERS};
    struct msghdr message = {
        .msg_name = &listeners, .msg_namelen = sizeof listeners, .msg_iov = parts, .msg_iovlen = 2};
    for (char *end = strchr(text, '\n'); end; end = strchr(end + 1, '\n'))
        *end = '\0';
    // Nobody listens, or somebody has not kept up: the latter is the listener's business.
    if (sendmsg(fd, &message, 0) < 0 && errno != ECONNREFUSED && errno != ENOBUFS)
        fail("sending a device event");
}
