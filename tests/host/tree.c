// A directory of files for a test: a sysfs, a /proc or a /dev of our own making.
#include "tree.h"

// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/usb.h"
#include "util/text.h"

const unsigned char tree_mouse[] = {
    18, 1,    0x00, 0x02, 0, 0, 0,    64,   0x27, 0x06, 0x01, 0x00, 0x00, 0x00, 1, 2, 3, 1, // device
    9,  2,    34,   0,    1, 1, 4,    0xa0, 50,                                             // configuration
    9,  4,    0,    0,    1, 3, 1,    2,    0,                                              // interface: HID mouse
    9,  0x21, 1,    0,    0, 1, 0x22, 52,   0,                                              // HID
    7,  5,    0x81, 3,    4, 0, 7,                                                          // endpoint
};
const size_t tree_mouse_length = sizeof(tree_mouse);

char *tree_new(void)
{
    char pattern[] = "/tmp/vhotplug-test-XXXXXX";
    char real[PATH_MAX];

    assert_non_null(mkdtemp(pattern));
    assert_non_null(realpath(pattern, real));
    return string_copy(real);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

void tree_free(char *root)
{
    if (root != NULL)
        nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(root);
}

static char *make_parents(const char *root, const char *path)
{
    char *full = string_printf("%s/%s", root, path);

    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        assert_true(mkdir(full, 0755) == 0 || errno == EEXIST);
        *slash = '/';
    }
    return full;
}

void tree_directory(const char *root, const char *path)
{
    CLEANUP(cleanup_free) char *full = make_parents(root, path);

    assert_true(mkdir(full, 0755) == 0 || errno == EEXIST);
}

void tree_write_bytes(const char *root, const char *path, const void *bytes, size_t length)
{
    CLEANUP(cleanup_free) char *full = make_parents(root, path);
    CLEANUP(cleanup_close) int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), length);
}

void tree_write(const char *root, const char *path, const char *text)
{
    tree_write_bytes(root, path, text, strlen(text));
}

void tree_link(const char *root, const char *path, const char *target)
{
    CLEANUP(cleanup_free) char *full = make_parents(root, path);

    assert_int_equal(symlink(target, full), 0);
}

void tree_remove(const char *root, const char *path)
{
    CLEANUP(cleanup_free) char *full = string_printf("%s/%s", root, path);

    assert_int_equal(nftw(full, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void tree_limit_descriptors(int free)
{
    static struct rlimit before;
    struct rlimit limit;
    int next = dup(STDERR_FILENO);

    if (before.rlim_max == 0)
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = before;
    if (free >= 0) {
        assert_true(next >= 0);
        limit.rlim_cur = (rlim_t)(next + free);
    }
    if (next >= 0)
        close(next);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

void tree_usb(const char *root, const char *path, const char *bus, const char *address)
{
    const char *const files[][2] = {
        {"busnum", bus},
        {"devnum", address},
        {"idVendor", "0627\n"},
        {"idProduct", "0001\n"},
        {"dev", "189:3\n"},
        {"bDeviceClass", "00\n"},
        {"bDeviceSubClass", "00\n"},
        {"bDeviceProtocol", "00\n"},
        {"speed", "480\n"},
        {"serial", "42\n"},
        {"removable", "removable\n"},
        {"manufacturer", "QEMU\n"},
        {"product", "QEMU USB Mouse\n"},
    };
    CLEANUP(cleanup_free) char *descriptors = string_printf("%s/descriptors", path);

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        CLEANUP(cleanup_free) char *file = string_printf("%s/%s", path, files[i][0]);
        tree_write(root, file, files[i][1]);
    }
    tree_write_bytes(root, descriptors, tree_mouse, tree_mouse_length);
}

struct device *tree_mouse_device(const char *root)
{
    struct device *device = device_new(DEVICE_USB);

    tree_usb(root, "1-2", "1\n", "4\n");
    tree_write_bytes(root, "node", tree_mouse, tree_mouse_length);
    device->key = string_copy("usb:1-2");
    device->syspath = string_printf("%s/1-2", root);
    device->node = string_printf("%s/node", root);
    device->vendor_id = 0x0627;
    device->product_id = 0x0001;
    device->instance = usb_instance(device->syspath);
    return device;
}

void tree_card(const char *root, const char *path)
{
    const char *const files[][2] = {{"vendor", "0x8086\n"}, {"device", "0x10d3\n"}, {"class", "0x020000\n"}};
    CLEANUP(cleanup_free) char *group = string_printf("%s/iommu_group", path);

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        CLEANUP(cleanup_free) char *file = string_printf("%s/%s", path, files[i][0]);
        tree_write(root, file, files[i][1]);
    }
    tree_link(root, group, "../../../kernel/iommu_groups/12");
    tree_write(root, "sys/class/vfio/12/dev", "0:0\n"); // as files have it
    tree_write(root, "dev/vfio/12", "");
}
