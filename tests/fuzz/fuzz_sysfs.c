// Fuzzes what sysfs says of a device. The input is attributes, "NAME=VALUE" after a line end and an "@" each, that
// become files of one directory in memory, which is read as a USB device, as a PCI function and as an input device.
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "host/input.h"
#include "host/pci.h"
#include "host/usb.h"
#include "util/text.h"

#define VALUE_MAX 8192

// Where the attributes are; links of these names lead to it, as each kind of device has its name.
#define DIRECTORY "1-2"
static const char *const links[] = {"0000:00:14.0", "input5"};

struct attribute {
    const char *name;
    bool is_link;
    bool there, given; // as a file now, and in this input
    char value[VALUE_MAX];
    size_t length;
};

static struct attribute attributes[] = {
    {.name = "busnum"},
    {.name = "devnum"},
    {.name = "idVendor"},
    {.name = "idProduct"},
    {.name = "dev"},
    {.name = "bDeviceClass"},
    {.name = "bDeviceSubClass"},
    {.name = "bDeviceProtocol"},
    {.name = "manufacturer"},
    {.name = "product"},
    {.name = "serial"},
    {.name = "speed"},
    {.name = "removable"},
    {.name = "descriptors"},
    {.name = "vendor"},
    {.name = "device"},
    {.name = "class"},
    {.name = "config"},
    {.name = "subsystem_vendor"},
    {.name = "subsystem_device"},
    {.name = "driver", .is_link = true},
    {.name = "iommu_group", .is_link = true},
    {.name = "name"},
    {.name = "properties"},
    {.name = "id/vendor"},
    {.name = "id/product"},
    {.name = "capabilities/key"},
    {.name = "capabilities/rel"},
    {.name = "capabilities/abs"},
    {.name = "event3/dev"},
};
enum { ATTRIBUTES = sizeof attributes / sizeof *attributes };
static const char *const directories[] = {"id", "capabilities", "event3"};

static char root[] = "/dev/shm/vhotplug-fuzz-XXXXXX";
static int directory = -1;

// ---- the tree

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

static void remove_tree(void)
{
    (void)nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_tree(void)
{
    if (!mkdtemp(root) || atexit(remove_tree) != 0)
        abort();
    CLEANUP(cleanup_free) char *path = string_printf("%s/" DIRECTORY, root);
    if (mkdir(path, 0700) < 0 || (directory = open(path, O_PATH | O_CLOEXEC)) < 0)
        abort();
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        CLEANUP(cleanup_free) char *link = string_printf("%s/%s", root, links[i]);
        if (symlink(DIRECTORY, link) < 0)
            abort();
    }
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        if (mkdirat(directory, directories[i], 0700) < 0)
            abort();
}

static void write_link(const struct attribute *attribute)
{
    // Its last part is all that is looked at; what it leads to is not there.
    CLEANUP(cleanup_free) char *target = string_printf("/nowhere/%.200s", attribute->value);
    for (char *slash; (slash = strchr(target + 9, '/'));)
        *slash = '!';
    if (symlinkat(target, directory, attribute->name) < 0)
        abort();
}

static void write_attribute(struct attribute *attribute)
{
    if (attribute->there && (attribute->is_link || !attribute->given) && unlinkat(directory, attribute->name, 0) < 0)
        abort();
    attribute->there = attribute->given;
    if (!attribute->given)
        return;
    if (attribute->is_link) {
        write_link(attribute);
        return;
    }
    CLEANUP(cleanup_close) int fd = openat(directory, attribute->name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, attribute->value, attribute->length) != (ssize_t)attribute->length)
        abort();
}

// ---- the input

// Most inputs differ from the one before in little: only what differs is written.
static void set(struct attribute *attribute, const char *value, size_t length)
{
    length = length < VALUE_MAX ? length : VALUE_MAX - 1;
    attribute->given = true;
    if (attribute->there && attribute->length == length && memcmp(attribute->value, value, length) == 0)
        return;
    memcpy(attribute->value, value, length);
    attribute->value[length] = 0;
    attribute->length = length;
    write_attribute(attribute);
}

static void read_record(const char *record, size_t length)
{
    const char *equals = memchr(record, '=', length);
    size_t name = equals ? (size_t)(equals - record) : 0;
    for (size_t i = 0; i < ATTRIBUTES; i++)
        if (equals && strlen(attributes[i].name) == name && memcmp(attributes[i].name, record, name) == 0 &&
            !attributes[i].given)
            set(&attributes[i], equals + 1, length - name - 1);
}

static void read_records(const char *text, size_t length)
{
    for (size_t i = 0; i < ATTRIBUTES; i++)
        attributes[i].given = false;
    for (const char *end = text + length, *next; text; text = next ? next + 2 : NULL) {
        next = memmem(text, (size_t)(end - text), "\n@", 2);
        read_record(text, (size_t)((next ? next : end) - text));
    }
    for (size_t i = 0; i < ATTRIBUTES; i++)
        if (attributes[i].there && !attributes[i].given)
            write_attribute(&attributes[i]);
}

// ---- the readings

static struct source *source_of(enum device_kind kind, const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", root, name);
    struct source *source = source_new(kind, path, true);
    if (kind == DEVICE_INPUT)
        source->event = string_copy("event3");
    return source;
}

static void read_device(int (*read_it)(const struct source *source, struct reading *reading), enum device_kind kind,
                        const char *name)
{
    CLEANUP(cleanup_source) struct source *source = source_of(kind, name);
    struct reading reading, again;
    int error = read_it(source, &reading);
    if (error < 0) {
        if (reading.device || reading.modalias_count)
            abort();
        return;
    }
    if (!reading.device->key || reading.device->kind != kind || reading.device->instance == 0 ||
        reading.modalias_count > READING_MODALIASES_MAX)
        abort();
    if (read_it(source, &again) < 0 || !device_equal(reading.device, again.device))
        abort();
    reading_clear(&reading);
    reading_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    if (directory < 0)
        make_tree();
    read_records((const char *)bytes, length);
    read_device(usb_read, DEVICE_USB, DIRECTORY);
    read_device(pci_read, DEVICE_PCI, links[0]);
    read_device(input_read, DEVICE_INPUT, links[1]);
    return 0;
}
