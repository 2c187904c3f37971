// PCI functions bound to vfio-pci and given back, with a kernel of our own: what is written to sysfs,
// __wrap_sysfs_write does to the tree of files. It can die at each step, as the daemon may. cmocka needs these before
// it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "host/bind.h"
#include "host/pci.h"
#include "host/store.h"
#include "host/sysfs.h"
#include "tree.h"
#include "util/text.h"

#define BRIDGE "sys/devices/pci0000:00/0000:00:1c.0"
#define FIRST BRIDGE "/0000:03:01.0"
#define SECOND BRIDGE "/0000:03:02.0"
#define ISA "sys/devices/pci0000:00/0000:00:1f.0"
#define FIRST_ADDRESS "0000:03:01.0"
#define SECOND_ADDRESS "0000:03:02.0"

enum { DIED = 77, STEPS_MAX = 100 };

struct machine {
    char *root, *sys, *dev, *run, *records, *mountinfo, *swaps, *routes4, *routes6;
    struct bind_paths paths;
    struct device *device; // the first function, as policy saw it
    char *text;
    bool busy;
};

// ---- the kernel

static struct {
    const char *root;
    unsigned step, die;  // 0: it does not
    bool refuses;        // vfio-pci does not take a function
    bool refuses_second; // only the second one
    bool busy;           // vfio-pci takes nothing for now
    bool stuck;          // unbinding fails
    bool keeps;          // unbinding from vfio-pci fails
    bool without_node;   // vfio-pci makes no node
    unsigned busy_opens; // of the group's node that find it open elsewhere
    bool forbidden;      // they find that they may not
    unsigned sleeps, udev_after;
} kernel;

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

static int bind_to(const char *place, const char *name)
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

static int kernel_unbind(const char *place)
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
    return bind_to(place, name);
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
        return kernel_unbind(place_of(text));
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

static void add_function(const struct machine *machine, const char *place, const char *class)
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

static struct device *read_function(const struct machine *machine, const char *place)
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

static int set_up(void **state)
{
    struct machine *machine = memory_new(1, sizeof(*machine));

    machine->root = tree_new();
    set_paths(machine);
    memset(&kernel, 0, sizeof(kernel));
    kernel.root = machine->root;
    tree_write(machine->root, "mountinfo", "");
    tree_directory(machine->root, "sys/bus/pci/drivers/vfio-pci");
    tree_directory(machine->root, "sys/bus/pci/drivers/e1000");
    add_function(machine, BRIDGE, "0x060400\n");
    add_function(machine, FIRST, "0x020000\n");
    add_function(machine, SECOND, "0x020000\n");
    assert_int_equal(bind_to(BRIDGE, "e1000"), 0); // as pcieport, which stays
    assert_int_equal(bind_to(FIRST, "e1000"), 0);
    assert_int_equal(bind_to(SECOND, "e1000"), 0);
    machine->device = read_function(machine, FIRST);
    *state = machine;
    return 0;
}

static int tear_down(void **state)
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

static void take(struct machine *machine, enum host_open_kind kind, const char *text)
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

static void give_back(struct machine *machine, const char *text)
{
    struct bind_others others = {0};

    free(machine->text);
    machine->text = bind_give_back(&machine->paths, machine->device, &others, true, &machine->busy);
    if (text == NULL && machine->text != NULL)
        fail_msg("%s", machine->text);
    if (text != NULL && (machine->text == NULL || strstr(machine->text, text) == NULL))
        fail_msg("\"%s\" is not in: %s", text, machine->text);
}

static void expect(const struct machine *machine, const char *place, const char *driver, const char *override,
                   bool recorded)
{
    CLEANUP(cleanup_free) char *has = driver_of(place);
    CLEANUP(cleanup_free) char *overrides = read_text(place, "driver_override");
    CLEANUP(cleanup_free) char *record = string_printf("%s/%s", machine->records, strrchr(place, '/') + 1);

    assert_string_equal(has, driver);
    assert_string_equal(overrides, override);
    assert_int_equal(access(record, F_OK) == 0, recorded);
}

static void expect_taken(const struct machine *machine)
{
    expect(machine, FIRST, "vfio-pci", "vfio-pci", true);
    expect(machine, SECOND, "vfio-pci", "vfio-pci", true);
    expect(machine, BRIDGE, "e1000", "(null)", false);
}

static void expect_free(const struct machine *machine)
{
    expect(machine, FIRST, "e1000", "(null)", false);
    expect(machine, SECOND, "e1000", "(null)", false);
    expect(machine, BRIDGE, "e1000", "(null)", false);
}

// ---- the tests

static void test_f34_the_whole_group_goes_and_comes_back(void **state)
{
    struct machine *machine = *state;

    take(machine, HOST_OPEN_READY, NULL);
    expect_taken(machine);
    take(machine, HOST_OPEN_READY, NULL); // and what is there stays
    expect_taken(machine);
    give_back(machine, NULL);
    expect_free(machine);
    give_back(machine, NULL);
    expect_free(machine);
}

// The bridge to the ISA bus, as 0000:00:1f.0 of most PCs, of which the kernel makes no exception.
static void test_f34_a_bridge_that_is_none_to_a_bus_goes_with_its_group(void **state)
{
    struct machine *machine = *state;

    add_function(machine, ISA, "0x060100\n");
    tree_directory(machine->root, "sys/bus/pci/drivers/lpc_ich");
    assert_int_equal(bind_to(ISA, "lpc_ich"), 0);
    device_release(machine->device);
    machine->device = read_function(machine, FIRST);
    take(machine, HOST_OPEN_READY,
         "for " FIRST_ADDRESS
         " these of its IOMMU group 12 are bound to vfio-pci too: 0000:00:1f.0 (lpc_ich), " SECOND_ADDRESS " (e1000)");
    expect_taken(machine);
    expect(machine, ISA, "vfio-pci", "vfio-pci", true);
    take(machine, HOST_OPEN_READY, NULL);
    assert_null(machine->text); // nothing has been lost besides
    give_back(machine, NULL);
    expect_free(machine);
    expect(machine, ISA, "lpc_ich", "(null)", false);
}

// The one that the processor hangs on, as 0000:00:00.0, has no driver and hinders nobody.
static void test_a_bridge_without_a_driver_is_left_alone(void **state)
{
    struct machine *machine = *state;

    add_function(machine, ISA, "0x060000\n");
    device_release(machine->device);
    machine->device = read_function(machine, FIRST);
    take(machine, HOST_OPEN_READY, NULL);
    expect_taken(machine);
    expect(machine, ISA, "", "(null)", false);
    give_back(machine, NULL);
    expect_free(machine);
}

static void test_a_function_without_a_driver_ends_without_one(void **state)
{
    struct machine *machine = *state;
    CLEANUP(cleanup_free) char *drivers = NULL;

    assert_int_equal(kernel_unbind(SECOND), 0);
    drivers = bind_drivers(machine->device);
    assert_string_equal(drivers, FIRST_ADDRESS ": e1000, " SECOND_ADDRESS ": none");
    take(machine, HOST_OPEN_READY, NULL);
    give_back(machine, NULL);
    expect(machine, FIRST, "e1000", "(null)", false);
    expect(machine, SECOND, "", "(null)", false);
}

static void test_what_was_on_vfio_before_us_stays_there(void **state)
{
    struct machine *machine = *state;

    assert_int_equal(kernel_unbind(SECOND), 0);
    tree_write(machine->root, SECOND "/driver_override", "vfio-pci\n");
    assert_int_equal(bind_to(SECOND, "vfio-pci"), 0);
    take(machine, HOST_OPEN_READY, NULL);
    give_back(machine, NULL);
    expect(machine, FIRST, "e1000", "(null)", false);
    expect(machine, SECOND, "vfio-pci", "vfio-pci", false);
}

static void test_a_driver_that_was_chosen_by_hand_is_chosen_again(void **state)
{
    struct machine *machine = *state;

    tree_directory(machine->root, "sys/bus/pci/drivers/other");
    assert_int_equal(kernel_unbind(FIRST), 0);
    tree_write(machine->root, FIRST "/driver_override", "other\n");
    assert_int_equal(bind_to(FIRST, "other"), 0);
    take(machine, HOST_OPEN_READY, NULL);
    give_back(machine, NULL);
    expect(machine, FIRST, "other", "other", false);
}

static void test_a_driver_that_has_gone_is_said(void **state)
{
    struct machine *machine = *state;

    take(machine, HOST_OPEN_READY, NULL);
    assert_int_equal(kernel_unbind(BRIDGE), 0);
    tree_remove(machine->root, "sys/bus/pci/drivers/e1000");
    give_back(machine, FIRST_ADDRESS " has no driver now, for e1000 did not take it back: Invalid argument; load that");
    assert_non_null(strstr(machine->text, "; " SECOND_ADDRESS " has no driver now"));
    expect(machine, FIRST, "", "(null)", false);
}

// Runs one call in a process that dies at its step DIE; true if it did.
static bool dies(struct machine *machine, unsigned die, bool takes)
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        struct bind_others others = {0};
        char *text = NULL;
        kernel.step = 0;
        kernel.die = die;
        if (takes)
            _exit(bind_take(&machine->paths, machine->device, &text) == HOST_OPEN_READY ? 0 : 1);
        text = bind_give_back(&machine->paths, machine->device, &others, true, &machine->busy);
        _exit(text == NULL ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == DIED || WEXITSTATUS(status) == 0);
    return WEXITSTATUS(status) == DIED;
}

static void test_f34_killed_at_each_step_of_binding(void **state)
{
    struct machine *machine = *state;
    unsigned die;

    for (die = 1; die < STEPS_MAX; die++) {
        bool died = dies(machine, die, true);
        give_back(machine, NULL); // the next run finds it the host's
        expect_free(machine);
        if (!died)
            break;
        assert_true(dies(machine, die, true));
        take(machine, HOST_OPEN_READY, NULL); // or a VM's still
        expect_taken(machine);
        give_back(machine, NULL);
        expect_free(machine);
    }
    assert_true(die >= 9); // record, override, unbind and probe, twice
}

static void test_f34_killed_at_each_step_of_giving_back(void **state)
{
    struct machine *machine = *state;
    unsigned die;

    for (die = 1; die < STEPS_MAX; die++) {
        take(machine, HOST_OPEN_READY, NULL);
        bool died = dies(machine, die, false);
        give_back(machine, NULL);
        expect_free(machine);
        if (!died)
            break;
        take(machine, HOST_OPEN_READY, NULL);
        assert_true(dies(machine, die, false));
        take(machine, HOST_OPEN_READY, NULL);
        expect_taken(machine);
        give_back(machine, NULL);
        expect_free(machine);
    }
    assert_true(die >= 9); // override, unbind, bind and record, twice
}

static void test_f34_a_group_in_use_is_left_alone(void **state)
{
    struct machine *machine = *state;
    struct bind_others others = {0};

    take(machine, HOST_OPEN_READY, NULL);
    bind_others_add(&others, "pci:" SECOND_ADDRESS, true);
    assert_null(bind_give_back(&machine->paths, machine->device, &others, true, &machine->busy));
    assert_false(machine->busy); // its own end will be the time
    bind_others_clear(&others);
    expect_taken(machine);
    kernel.busy_opens = UINT32_MAX; // a VM that had it before our start
    give_back(machine, NULL);
    assert_true(machine->busy);
    expect_taken(machine);
    kernel.busy_opens = 3; // one that is about to let it go
    kernel.sleeps = 0;
    assert_null(bind_give_back(&machine->paths, machine->device, &others, false, &machine->busy));
    assert_true(machine->busy);
    assert_int_equal(kernel.sleeps, 0);
    expect_taken(machine);
    give_back(machine, NULL);
    assert_false(machine->busy);
    assert_int_equal(kernel.sleeps, 2);
    expect_free(machine);
}

static void test_f34_what_is_kept_for_a_vm_is_not_given_back(void **state)
{
    struct machine *machine = *state;
    struct bind_others others = {0};

    take(machine, HOST_OPEN_READY, NULL);
    bind_others_add(&others, "pci:" SECOND_ADDRESS, false);
    assert_null(bind_give_back(&machine->paths, machine->device, &others, true, &machine->busy));
    bind_others_clear(&others);
    expect(machine, FIRST, "e1000", "(null)", false);
    expect(machine, SECOND, "vfio-pci", "vfio-pci", true);
}

static void test_a_group_that_cannot_be_asked_is_left_alone(void **state)
{
    struct machine *machine = *state;

    take(machine, HOST_OPEN_READY, NULL);
    tree_remove(machine->root, "dev/vfio/12");
    tree_directory(machine->root, "dev/vfio/12");
    give_back(machine, FIRST_ADDRESS " stays on vfio-pci: whether a VM uses its IOMMU group cannot be told");
    expect_taken(machine);
}

static void test_a_group_that_the_unit_does_not_allow_is_asked_again(void **state)
{
    struct machine *machine = *state;

    take(machine, HOST_OPEN_READY, NULL);
    kernel.busy_opens = 2;
    kernel.forbidden = true;
    give_back(machine, "restart vhotplug");
    assert_true(machine->busy);
    assert_null(bind_give_back(&machine->paths, machine->device, &(struct bind_others){0}, false, &machine->busy));
    assert_true(machine->busy); // and has been said already
    give_back(machine, NULL);
    expect_free(machine);
}

static void test_what_vfio_does_not_take_is_as_before(void **state)
{
    struct machine *machine = *state;

    kernel.refuses = true;
    take(machine, HOST_OPEN_REFUSED, "vfio-pci does not take " FIRST_ADDRESS ": Invalid argument");
    expect_free(machine);
}

static void test_what_cannot_be_given_back_then_is_said_too(void **state)
{
    struct machine *machine = *state;

    kernel.refuses_second = true;
    kernel.keeps = true;
    take(machine, HOST_OPEN_REFUSED,
         "vfio-pci does not take " SECOND_ADDRESS ": Invalid argument; the kernel's log says more; " FIRST_ADDRESS
         " cannot be taken from vfio-pci: Device or resource busy; it stays there until it is detached again");
    expect(machine, FIRST, "vfio-pci", "(null)", true);
    expect(machine, SECOND, "e1000", "(null)", false);
}

static void test_a_driver_that_does_not_let_go(void **state)
{
    struct machine *machine = *state;

    kernel.busy = true;
    take(machine, HOST_OPEN_RETRY, "vfio-pci does not take " FIRST_ADDRESS ": Device or resource busy");
    expect_free(machine);
    kernel.stuck = true;
    take(machine, HOST_OPEN_RETRY, FIRST_ADDRESS " cannot be taken from its driver e1000: Device or resource busy");
    expect_free(machine);
}

static void test_without_records_nothing_is_done(void **state)
{
    struct machine *machine = *state;

    tree_write(machine->root, "records", "a file where a directory should be");
    take(machine, HOST_OPEN_RETRY, "what driver " FIRST_ADDRESS " has cannot be written down in ");
    tree_remove(machine->root, "records");
    expect_free(machine);
}

static void test_records_of_another_plug_or_damaged_ones_are_worth_nothing(void **state)
{
    struct machine *machine = *state;
    CLEANUP(cleanup_free)
    char *other = string_printf("%llx other -\n", (unsigned long long)(machine->device->instance + 1));
    CLEANUP(cleanup_free) char *evil = string_printf("%llx ../x -\n", (unsigned long long)machine->device->instance);

    tree_write(machine->root, "records/pci/" FIRST_ADDRESS, other);
    give_back(machine, NULL);
    expect(machine, FIRST, "e1000", "(null)", true);
    tree_write(machine->root, "records/pci/" FIRST_ADDRESS, evil);
    give_back(machine, NULL);
    expect(machine, FIRST, "e1000", "(null)", true);
    tree_write(machine->root, "records/pci/" FIRST_ADDRESS, "rubbish");
    take(machine, HOST_OPEN_READY, NULL);
    give_back(machine, NULL);
    expect_free(machine);
}

static void test_f23_the_node_is_waited_for(void **state)
{
    struct machine *machine = *state;

    kernel.without_node = true;
    take(machine, HOST_OPEN_RETRY, "/dev/vfio/12, the node of its IOMMU group, has not come within 5 s");
    expect_taken(machine);
    kernel.without_node = false;
    tree_write(machine->root, "dev/vfio/12", "");
    tree_write(machine->root, "run/udev/control", "");
    take(machine, HOST_OPEN_RETRY,
         "/dev/vfio/12, the node of its IOMMU group, has not been dealt with by udevd within");
    kernel.udev_after = kernel.sleeps + 3;
    take(machine, HOST_OPEN_READY, NULL);
    assert_int_equal(kernel.sleeps, kernel.udev_after);
}

static void test_without_an_iommu(void **state)
{
    struct machine *machine = *state;

    tree_remove(machine->root, FIRST "/iommu_group");
    take(machine, HOST_OPEN_REFUSED, FIRST_ADDRESS " is in no IOMMU group: switch the IOMMU on");
    assert_non_null(strstr(machine->text, "intel_iommu=on"));
    expect_free(machine);
}

static void test_without_vfio(void **state)
{
    struct machine *machine = *state;

    tree_remove(machine->root, "sys/bus/pci/drivers/vfio-pci");
    take(machine, HOST_OPEN_REFUSED, "the kernel module vfio-pci cannot be loaded: ");
    expect_free(machine);
}

static void test_it_has_gone_or_another_is_there(void **state)
{
    struct machine *machine = *state;

    machine->device->instance++;
    take(machine, HOST_OPEN_GONE, "the function has gone");
    machine->device->instance--;
    tree_remove(machine->root, FIRST);
    take(machine, HOST_OPEN_GONE, "the function has gone");
    give_back(machine, NULL);
}

static void test_f34_a_function_that_policy_has_not_seen(void **state)
{
    struct machine *machine = *state;

    add_function(machine, BRIDGE "/0000:03:03.0", "0x020000\n");
    take(machine, HOST_OPEN_RETRY, "0000:03:03.0 has come into its IOMMU group");
    expect_free(machine);
}

// A disk of this function, with this number.
static void add_disk(const struct machine *machine, const char *function)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/nvme/nvme0/nvme0n1", function);
    CLEANUP(cleanup_free) char *target = string_printf("../../%s", path + strlen("sys/"));

    tree_directory(machine->root, path);
    tree_link(machine->root, "sys/class/block/nvme0n1", target);
    tree_link(machine->root, "sys/dev/block/259:0", target);
}

static void test_f35_a_disk_that_the_host_lives_on(void **state)
{
    struct machine *machine = *state;

    add_disk(machine, FIRST);
    take(machine, HOST_OPEN_READY, NULL);
    give_back(machine, NULL);
    tree_write(machine->root, "mountinfo", "21 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    take(machine, HOST_OPEN_IN_USE, "/ is mounted from nvme0n1");
    expect_free(machine);
    device_release(machine->device);
    machine->device = read_function(machine, SECOND);
    take(machine, HOST_OPEN_IN_USE, FIRST_ADDRESS " of its IOMMU group: / is mounted from nvme0n1");
    expect_free(machine);
}

static void add_interface(const struct machine *machine, const char *path, const char *target)
{
    CLEANUP(cleanup_free) char *full = string_printf("sys/%s", target);

    tree_directory(machine->root, full);
    CLEANUP(cleanup_free) char *up = string_printf("../../%s", target);
    tree_link(machine->root, path, up);
}

// One of two ways out may go, but not both, and it is the group that goes.
static void test_f35_the_only_network_of_the_host(void **state)
{
    struct machine *machine = *state;

    add_interface(machine, "sys/class/net/eth0", "devices/pci0000:00/0000:00:1c.0/0000:03:01.0/net/eth0");
    add_interface(machine, "sys/class/net/eth1", "devices/pci0000:00/0000:00:1c.0/0000:03:02.0/net/eth1");
    tree_write(machine->root, "routes4",
               "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
               "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
               "eth1\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
    take(machine, HOST_OPEN_IN_USE, "the host's only IPv4 default route goes through eth1");
    expect_free(machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_f34_the_whole_group_goes_and_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_bridge_that_is_none_to_a_bus_goes_with_its_group, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_bridge_without_a_driver_is_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_function_without_a_driver_ends_without_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_on_vfio_before_us_stays_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_driver_that_was_chosen_by_hand_is_chosen_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_driver_that_has_gone_is_said, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_killed_at_each_step_of_binding, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_killed_at_each_step_of_giving_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_group_in_use_is_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_what_is_kept_for_a_vm_is_not_given_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_group_that_cannot_be_asked_is_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_group_that_the_unit_does_not_allow_is_asked_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_vfio_does_not_take_is_as_before, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_given_back_then_is_said_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_driver_that_does_not_let_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_records_nothing_is_done, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_records_of_another_plug_or_damaged_ones_are_worth_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_f23_the_node_is_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_an_iommu, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_vfio, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_has_gone_or_another_is_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_function_that_policy_has_not_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_a_disk_that_the_host_lives_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_the_only_network_of_the_host, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("bind", tests, NULL, NULL);
}
