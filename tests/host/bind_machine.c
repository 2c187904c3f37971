// A machine with PCI functions, and a kernel of our own that binds them: what is written to sysfs, __wrap_sysfs_write
// does to the tree of files.
#include "bind_machine.h"

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
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/pci.h"
#include "host/store.h"
#include "host/sysfs.h"
#include "tree.h"
#include "util/text.h"

// ---- the kernel

struct bind_kernel kernel;

int __real_sysfs_write(const char *path, const char *text);
int __wrap_sysfs_write(const char *path, const char *text);
int __real_store_replace(const char *path, const char *text);
int __wrap_store_replace(const char *path, const char *text);
int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_usleep(unsigned microseconds);

static void step(void)
{
    if (++kernel.step == kernel.die)
        _exit(DIED);
}

static const char *place_of(const char *address)
{
    return strcmp(address, FIRST_ADDRESS) == 0 ? FIRST : strcmp(address, SECOND_ADDRESS) == 0 ? SECOND : ISA;
}

static char *read_text(const char *place, const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s/%s", kernel.root, place, name);
    char *text = NULL;
    size_t length;
    CLEANUP(cleanup_free) char *why = store_read(path, 4096, &text, &length);

    assert_null(why);
    if (text != NULL && length > 0 && text[length - 1] == '\n')
        text[length - 1] = '\0';
    return text;
}

// "" where there is none; for free().
static char *driver_of(const char *place)
{
    CLEANUP(cleanup_free) char *link = string_printf("%s/%s/driver", kernel.root, place);
    char target[4096];
    ssize_t length = readlink(link, target, sizeof(target) - 1);

    if (length <= 0)
        return string_copy("");
    target[length] = '\0';
    return string_copy(strrchr(target, '/') + 1);
}

static bool has_driver(const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/sys/bus/pci/drivers/%s", kernel.root, name);

    return access(path, F_OK) == 0;
}

int bind_machine_driver(const char *place, const char *name)
{
    CLEANUP(cleanup_free) char *link = string_printf("%s/driver", place);
    CLEANUP(cleanup_free) char *target = string_printf("%s/sys/bus/pci/drivers/%s", kernel.root, name);
    bool vfio = strcmp(name, "vfio-pci") == 0;

    if (!has_driver(name) || (vfio && kernel.refuses) || (vfio && kernel.refuses_second && strcmp(place, SECOND) == 0))
        return -EINVAL;
    if (vfio && kernel.busy)
        return -EBUSY;
    tree_link(kernel.root, link, target);
    if (vfio && !kernel.without_node)
        tree_write(kernel.root, "dev/vfio/12", "");
    return 0;
}

int bind_machine_unbind(const char *place)
{
    CLEANUP(cleanup_free) char *link = string_printf("%s/%s/driver", kernel.root, place);
    CLEANUP(cleanup_free) char *driver = driver_of(place);

    if (kernel.keeps && strcmp(driver, "vfio-pci") == 0)
        return -EBUSY;
    return kernel.stuck ? -EBUSY : __real_unlink(link) < 0 ? -ENODEV : 0;
}

static int kernel_bind(const char *place, const char *name)
{
    CLEANUP(cleanup_free) char *override = read_text(place, "driver_override");
    CLEANUP(cleanup_free) char *driver = driver_of(place);

    if (driver[0] != '\0')
        return -EBUSY;
    if (name == NULL)
        name = strcmp(override, "(null)") != 0 ? override : "e1000";
    else if (strcmp(override, "(null)") != 0 && strcmp(override, name) != 0)
        return -ENODEV;
    return bind_machine_driver(place, name);
}

int __wrap_sysfs_write(const char *path, const char *text)
{
    const char *name = strrchr(path, '/') + 1;
    struct stat status;

    step();
    if (strcmp(name, "driver_override") == 0) {
        bool none = strcspn(text, "\n") == 0;
        CLEANUP(cleanup_free) char *line = string_printf("%s", none ? "(null)\n" : text);
        tree_write(kernel.root, path + strlen(kernel.root) + 1, line);
        return 0;
    }
    if (strcmp(name, "unbind") == 0)
        return bind_machine_unbind(place_of(text));
    if (strcmp(name, "drivers_probe") == 0)
        return kernel_bind(place_of(text), NULL);
    assert_string_equal(name, "bind");
    CLEANUP(cleanup_free) char *directory = string_printf("%.*s", (int)(name - 1 - path), path);
    return stat(directory, &status) < 0 ? -ENOENT : kernel_bind(place_of(text), strrchr(directory, '/') + 1);
}

int __wrap_store_replace(const char *path, const char *text)
{
    step();
    return __real_store_replace(path, text);
}

int __wrap_unlink(const char *path)
{
    step();
    return __real_unlink(path);
}

static bool is_busy(const char *path)
{
    if (strstr(path, "/dev/vfio/") == NULL || kernel.busy_opens == 0)
        return false;
    kernel.busy_opens--;
    errno = kernel.forbidden ? EPERM : EBUSY;
    return true;
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return is_busy(path) ? -1 : __real_open(path, flags, mode);
}

int __wrap_open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return is_busy(path) ? -1 : __real_open64(path, flags, mode);
}

int __wrap_usleep(unsigned microseconds)
{
    (void)microseconds;
    if (++kernel.sleeps == kernel.udev_after)
        tree_write(kernel.root, "run/udev/data/c0:0", "");
    return 0;
}

// ---- a machine with two functions behind a bridge, in one group

void bind_machine_add(const struct machine *machine, const char *place, const char *class)
{
    const char *const files[][2] = {
        {"vendor", "0x8086\n"}, {"device", "0x100e\n"}, {"class", class}, {"driver_override", "(null)\n"}};
    const char *address = strrchr(place, '/') + 1;
    CLEANUP(cleanup_free) char *link = string_printf("%s/iommu_group", place);
    CLEANUP(cleanup_free) char *group = string_printf("%s/kernel/iommu_groups/12", machine->sys);
    CLEANUP(cleanup_free) char *member = string_printf("sys/kernel/iommu_groups/12/devices/%s", address);
    CLEANUP(cleanup_free) char *full = string_printf("%s/%s", machine->root, place);

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        CLEANUP(cleanup_free) char *file = string_printf("%s/%s", place, files[i][0]);
        tree_write(machine->root, file, files[i][1]);
    }
    tree_link(machine->root, link, group);
    tree_link(machine->root, member, full);
}

struct device *bind_machine_read(const struct machine *machine, const char *place)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", machine->root, place);
    struct device *device = NULL;

    assert_int_equal(pci_read_at(path, &device), 0);
    return device;
}

static void set_paths(struct machine *machine)
{
    const char *const names[] = {"sys", "dev", "run", "records/pci", "mountinfo", "swaps", "routes4", "routes6"};
    char **const places[] = {&machine->sys,       &machine->dev,   &machine->run,     &machine->records,
                             &machine->mountinfo, &machine->swaps, &machine->routes4, &machine->routes6};

    for (size_t i = 0; i < 8; i++)
        *places[i] = string_printf("%s/%s", machine->root, names[i]);
    machine->paths = (struct bind_paths){
        .usage = {machine->sys, machine->dev, machine->mountinfo, machine->swaps},
        .network = {machine->sys, machine->routes4, machine->routes6},
        .run = machine->run,
        .modules = machine->run,
        .records = machine->records,
    };
}

int bind_machine_set_up(void **state)
{
    struct machine *machine = memory_new(1, sizeof(*machine));

    machine->root = tree_new();
    set_paths(machine);
    memset(&kernel, 0, sizeof(kernel));
    kernel.root = machine->root;
    tree_write(machine->root, "mountinfo", "");
    tree_directory(machine->root, "sys/bus/pci/drivers/vfio-pci");
    tree_directory(machine->root, "sys/bus/pci/drivers/e1000");
    bind_machine_add(machine, BRIDGE, "0x060400\n");
    bind_machine_add(machine, FIRST, "0x020000\n");
    bind_machine_add(machine, SECOND, "0x020000\n");
    assert_int_equal(bind_machine_driver(BRIDGE, "e1000"), 0); // as pcieport, which stays
    assert_int_equal(bind_machine_driver(FIRST, "e1000"), 0);
    assert_int_equal(bind_machine_driver(SECOND, "e1000"), 0);
    machine->device = bind_machine_read(machine, FIRST);
    *state = machine;
    return 0;
}

int bind_machine_tear_down(void **state)
{
    struct machine *machine = *state;
    char *const strings[] = {machine->sys,   machine->dev,     machine->run,     machine->records, machine->mountinfo,
                             machine->swaps, machine->routes4, machine->routes6, machine->text};

    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        free(strings[i]);
    device_release(machine->device);
    tree_free(machine->root);
    free(machine);
    return 0;
}

void bind_machine_take(struct machine *machine, enum host_open_kind kind, const char *text)
{
    enum host_open_kind got;

    free(steal_pointer(&machine->text));
    got = bind_take(&machine->paths, machine->device, &machine->text);
    if (got != kind)
        fail_msg("%d: %s", got, machine->text != NULL ? machine->text : "");
    if (text == NULL && kind == HOST_OPEN_READY && machine->text != NULL)
        assert_non_null(strstr(machine->text, " are bound to vfio-pci too: ")); // no complaint
    else if (text == NULL)
        assert_null(machine->text);
    else if (machine->text == NULL || strstr(machine->text, text) == NULL)
        fail_msg("\"%s\" is not in: %s", text, machine->text);
}

void bind_machine_give_back(struct machine *machine, const char *text)
{
    struct bind_others others = {0};

    free(machine->text);
    machine->text = bind_give_back(&machine->paths, machine->device, &others, true, &machine->busy);
    if (text == NULL && machine->text != NULL)
        fail_msg("%s", machine->text);
    if (text != NULL && (machine->text == NULL || strstr(machine->text, text) == NULL))
        fail_msg("\"%s\" is not in: %s", text, machine->text);
}

void bind_machine_expect(const struct machine *machine, const char *place, const char *driver, const char *override,
                         bool recorded)
{
    CLEANUP(cleanup_free) char *has = driver_of(place);
    CLEANUP(cleanup_free) char *overrides = read_text(place, "driver_override");
    CLEANUP(cleanup_free) char *record = string_printf("%s/%s", machine->records, strrchr(place, '/') + 1);

    assert_string_equal(has, driver);
    assert_string_equal(overrides, override);
    assert_int_equal(access(record, F_OK) == 0, recorded);
}

void bind_machine_expect_taken(const struct machine *machine)
{
    bind_machine_expect(machine, FIRST, "vfio-pci", "vfio-pci", true);
    bind_machine_expect(machine, SECOND, "vfio-pci", "vfio-pci", true);
    bind_machine_expect(machine, BRIDGE, "e1000", "(null)", false);
}

void bind_machine_expect_free(const struct machine *machine)
{
    bind_machine_expect(machine, FIRST, "e1000", "(null)", false);
    bind_machine_expect(machine, SECOND, "e1000", "(null)", false);
    bind_machine_expect(machine, BRIDGE, "e1000", "(null)", false);
}
