// Binds PCI functions to vfio-pci, whole IOMMU groups at a time, and gives them back to the drivers that they had.
#include "host/bind.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libkmod.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "host/again.h"
#include "host/claim.h"
#include "host/pci.h"
#include "host/store.h"
#include "host/sysfs.h"
#include "util/text.h"

// For udevd to be done with a node, and for a VM to let go of a group.
enum { WAIT_SECONDS = 5, WAITS = 100, WAIT_MICROSECONDS = WAIT_SECONDS * 1000000 / WAITS };

enum { NAME_MAX_HERE = 64, RECORD_MAX = 4096 };

// What a function had before we took it.
struct record {
    uint64_t instance;
    char driver[NAME_MAX_HERE], override[NAME_MAX_HERE]; // "-": none
};

void bind_others_add(struct bind_others *others, const char *key, bool taken)
{
    others->keys = memory_resize(others->keys, others->count + 1, sizeof(*others->keys));
    others->keys[others->count++] = string_copy(key);
    others->taken |= taken;
}

void bind_others_clear(struct bind_others *others)
{
    for (size_t i = 0; i < others->count; i++)
        free(others->keys[i]);
    free(others->keys);
    *others = (struct bind_others){0};
}

// ---- a function's driver

static char *driver_of(const struct device *member)
{
    return sysfs_link_name(member->syspath, "driver");
}

// vfio-pci, or one of those that do the same for one kind of device, as mlx5_vfio_pci.
static bool is_vfio(const char *driver)
{
    size_t length = driver != NULL ? strlen(driver) : 0;

    return length >= 8 &&
           (strcmp(driver + length - 8, "vfio-pci") == 0 || strcmp(driver + length - 8, "vfio_pci") == 0);
}

static bool is_on_vfio(const struct device *member)
{
    CLEANUP(cleanup_free) char *driver = driver_of(member);

    return is_vfio(driver);
}

static int write_override(const struct device *member, const char *driver)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/driver_override", member->syspath);
    CLEANUP(cleanup_free) char *line = string_printf("%s\n", driver);

    return sysfs_write(path, line);
}

// A driver that does not let go holds this up; that is why there are threads.
static int unbind(const struct device *member)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/driver/unbind", member->syspath);

    return sysfs_write(path, device_pci_address(member));
}

static int probe(const struct bind_paths *paths, const struct device *member)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/bus/pci/drivers_probe", paths->usage.sys);

    return sysfs_write(path, device_pci_address(member));
}

// ---- records

static char *record_path(const struct bind_paths *paths, const struct device *member)
{
    return string_printf("%s/%s", paths->records, device_pci_address(member));
}

static bool is_name(const char *name)
{
    return name[0] != '.' && strchr(name, '/') == NULL;
}

// Whether there is a record of this very plug; one of an earlier plug is worth nothing, as is a damaged one.
static bool read_record(const struct bind_paths *paths, const struct device *member, struct record *record)
{
    CLEANUP(cleanup_free) char *path = record_path(paths, member);
    CLEANUP(cleanup_free) char *text = NULL;
    size_t length = 0;
    CLEANUP(cleanup_free) char *why = store_read(path, RECORD_MAX, &text, &length);

    return why == NULL && text != NULL &&
           sscanf(text, "%" SCNx64 " %63s %63s", &record->instance, record->driver, record->override) == 3 &&
           record->instance == member->instance && is_name(record->driver) && is_name(record->override);
}

static void remove_record(const struct bind_paths *paths, const struct device *member)
{
    CLEANUP(cleanup_free) char *path = record_path(paths, member);

    (void)unlink(path);
}

// "-" where there is none, which the kernel writes as "(null)".
static char *override_of(const struct device *member)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(member->syspath);
    char *string = NULL;

    if (directory < 0 || sysfs_string(directory, "driver_override", &string) < 0 || string == NULL)
        return string_copy("-");
    if (strcmp(string, "(null)") != 0 && strlen(string) < NAME_MAX_HERE && strpbrk(string, " \t/") == NULL)
        return string;
    free(string);
    return string_copy("-");
}

// Writes down what the function has. Where a run was killed after it had done so, what it wrote is what holds: the
// driver and its override may be ours by now.
static int keep_record(const struct bind_paths *paths, const struct device *member, const char *driver)
{
    CLEANUP(cleanup_free) char *path = record_path(paths, member);
    CLEANUP(cleanup_free) char *override = NULL;
    CLEANUP(cleanup_free) char *text = NULL;
    struct record old;
    bool known = read_record(paths, member, &old);

    if (known && (driver == NULL || strcmp(driver, old.driver) == 0))
        return 0;
    override = known ? string_copy(old.override) : override_of(member);
    text = string_printf("%" PRIx64 " %s %s\n", member->instance, driver != NULL ? driver : "-", override);
    return store_replace(path, text);
}

// ---- back to the host

// NULL, or what went wrong; the record goes when nothing of it is left to be done.
static char *give_one(const struct bind_paths *paths, const struct device *member, const struct record *record)
{
    const char *address = device_pci_address(member);
    bool had_driver = strcmp(record->driver, "-") != 0;
    CLEANUP(cleanup_free) char *path = string_printf("%s/bus/pci/drivers/%s/bind", paths->usage.sys, record->driver);
    CLEANUP(cleanup_free) char *driver = NULL;
    int error = write_override(member, strcmp(record->override, "-") == 0 ? "" : record->override);

    if (error >= 0 && is_on_vfio(member))
        error = unbind(member);
    if (error < 0)
        return string_printf("%s cannot be taken from vfio-pci: %s; it stays there until it is detached again", address,
                             strerror(-error));
    driver = driver_of(member);
    // The driver by its name, as others may want the function too; if it has gone meanwhile, whichever comes.
    if (had_driver && driver == NULL && sysfs_write(path, address) < 0)
        error = probe(paths, member);
    remove_record(paths, member);
    free(driver);
    driver = driver_of(member);
    if (!had_driver || driver != NULL)
        return NULL;
    return string_printf("%s has no driver now, for %s did not take it back%s%s; load that driver, then write %s into "
                         "/sys/bus/pci/drivers_probe",
                         address, record->driver, error < 0 ? ": " : "", error < 0 ? strerror(-error) : "", address);
}

static bool is_among(const struct bind_others *others, const struct device *member)
{
    for (size_t i = 0; i < others->count; i++)
        if (string_equal(others->keys[i], member->key))
            return true;
    return false;
}

// The functions of a group that a driver is for: all but bridges to other buses, which vfio-pci does not take and the
// kernel does not mind.
struct members {
    const struct device *list[PCI_GROUP_MAX + 1];
    size_t count;
};

static void find_members(const struct device *device, struct members *members)
{
    members->count = 0;
    members->list[members->count++] = device;
    for (size_t i = 0; i < device->peer_count; i++)
        if (!device_is_bus_bridge(device->peers[i]))
            members->list[members->count++] = device->peers[i];
}

char *bind_drivers(const struct device *device)
{
    struct text text = {0};
    struct members members;

    find_members(device, &members);
    for (size_t i = 0; i < members.count; i++) {
        CLEANUP(cleanup_free) char *driver = driver_of(members.list[i]);
        text_printf(&text, "%s%s: %s", i > 0 ? ", " : "", device_pci_address(members.list[i]),
                    driver != NULL ? driver : "none");
    }
    return text_take(&text);
}

// Only one can have a group open: 0 nobody does, -EBUSY somebody, else it cannot be told.
static int ask_group(const struct bind_paths *paths, int group)
{
    CLEANUP(cleanup_free) char *node = string_printf("%s/vfio/%d", paths->usage.dev, group);
    CLEANUP(cleanup_close) int fd = open(node, O_RDWR | O_CLOEXEC);

    return fd >= 0 || errno == ENOENT || errno == ENODEV || errno == ENXIO ? 0 : -errno;
}

// A VM that has been told to let go of a function may take a moment until it has.
static int wait_for_group(const struct bind_paths *paths, int group)
{
    int error = ask_group(paths, group);

    for (int i = 0; i < WAITS && error == -EBUSY; i++) {
        usleep(WAIT_MICROSECONDS);
        error = ask_group(paths, group);
    }
    return error;
}

// DeviceAllow=char-vfio stands for the number that vfio has when the unit starts.
static const char not_allowed[] = "; it is tried again; if the kernel module vfio was loaded after vhotplug was "
                                  "started, its unit does not allow it: restart vhotplug";

char *bind_give_back(const struct bind_paths *paths, const struct device *device, const struct bind_others *others,
                     bool patient, bool *busy)
{
    CLEANUP(cleanup_device) struct device *now = NULL;
    struct members ours = {.count = 0}, all;
    struct text said = {0};
    struct record record;
    int error;

    *busy = false;
    if (others->taken)
        return NULL;
    error = pci_read_at(device->syspath, &now);
    *busy = again_helps(-error);
    if (error < 0)
        return NULL;
    find_members(now, &all);
    for (size_t i = 0; i < all.count; i++)
        if (!is_among(others, all.list[i]) && read_record(paths, all.list[i], &record))
            ours.list[ours.count++] = all.list[i];
    if (ours.count == 0)
        return NULL;
    error = patient ? wait_for_group(paths, now->iommu_group) : ask_group(paths, now->iommu_group);
    // Of a VM that is slow, or has another one of the group since before our start. Or not allowed, by the unit.
    *busy = error == -EBUSY || error == -EPERM || again_helps(-error);
    if (error == -EBUSY || (*busy && !patient)) // the first try has said it
        return NULL;
    if (error < 0)
        return string_printf("%s stays on vfio-pci: whether a VM uses its IOMMU group cannot be told, as %s/vfio/%d "
                             "cannot be opened: %s%s",
                             device_pci_address(device), paths->usage.dev, now->iommu_group, strerror(-error),
                             error == -EPERM ? not_allowed : "");
    for (size_t i = 0; i < ours.count; i++) {
        CLEANUP(cleanup_free)
        char *wrong = read_record(paths, ours.list[i], &record) ? give_one(paths, ours.list[i], &record) : NULL;
        if (wrong != NULL)
            text_printf(&said, "%s%s", said.length > 0 ? "; " : "", wrong);
    }
    return said.length > 0 ? text_take(&said) : NULL;
}

// ---- to vfio-pci

static void ignore_log(void *user, int priority, const char *file, int line, const char *function, const char *format,
                       va_list arguments)
{
    (void)user, (void)priority, (void)file, (void)line, (void)function, (void)format, (void)arguments;
}

// Without commands of modprobe.d: no process is started.
static int insert_module(const char *directory, const char *name)
{
    struct kmod_ctx *kmod = kmod_new(directory, NULL);
    struct kmod_module *module = NULL;
    int error;

    if (kmod == NULL)
        return -ENOMEM;
    kmod_set_log_fn(kmod, ignore_log, NULL);
    error = kmod_module_new_from_name(kmod, name, &module);
    if (error >= 0)
        error = kmod_module_probe_insert_module(module, KMOD_PROBE_IGNORE_COMMAND, NULL, NULL, NULL, NULL);
    kmod_module_unref(module);
    kmod_unref(kmod);
    return error;
}

static char *load_vfio(const struct bind_paths *paths)
{
    CLEANUP(cleanup_free) char *driver = string_printf("%s/bus/pci/drivers/vfio-pci", paths->usage.sys);
    int error = 0;

    if (access(driver, F_OK) == 0)
        return NULL;
    error = insert_module(paths->modules, "vfio-pci");
    if (error >= 0 && access(driver, F_OK) == 0)
        return NULL;
    return string_printf("the kernel module vfio-pci cannot be loaded: %s; install it, or have it loaded at boot",
                         error < 0 ? strerror(-error) : "it made no driver");
}

// Another bridge, as that of the host or to the ISA bus, is the machine's own: without a driver it hinders nobody.
static bool may_stay(const struct device *member)
{
    CLEANUP(cleanup_free) char *driver = driver_of(member);

    return device_is_bridge(member) && driver == NULL;
}

// What the host loses besides the function itself: "0000:00:1f.0 (lpc_ich), 0000:00:1f.4 (i801_smbus)", or NULL.
static char *list_besides(const struct members *members)
{
    struct text text = {0};

    for (size_t i = 1; i < members->count; i++) {
        CLEANUP(cleanup_free) char *driver = driver_of(members->list[i]);
        if (driver != NULL && !is_vfio(driver))
            text_printf(&text, "%s%s (%s)", text.length > 0 ? ", " : "", device_pci_address(members->list[i]), driver);
    }
    return text.length > 0 ? text_take(&text) : NULL;
}

// HOST_OPEN_READY, or with WHY: HOST_OPEN_RETRY, or HOST_OPEN_REFUSED where vfio-pci is not for it.
static enum host_open_kind take_one(const struct bind_paths *paths, const struct device *member, char **why)
{
    const char *address = device_pci_address(member);
    CLEANUP(cleanup_free) char *driver = driver_of(member);
    struct record record;
    int error;

    if (is_vfio(driver)) { // a run that was killed when it gave the function back may have cleared this
        error = read_record(paths, member, &record) ? write_override(member, "vfio-pci") : 0;
        if (error >= 0)
            return HOST_OPEN_READY;
        *why = string_printf("%s cannot be kept on vfio-pci: %s", address, strerror(-error));
        return HOST_OPEN_RETRY;
    }
    error = keep_record(paths, member, driver);
    if (error < 0) {
        *why = string_printf("what driver %s has cannot be written down in %s: %s", address, paths->records,
                             strerror(-error));
        return HOST_OPEN_RETRY;
    }
    error = write_override(member, "vfio-pci");
    if (error >= 0 && driver != NULL)
        error = unbind(member);
    if (error < 0) {
        *why = string_printf("%s cannot be taken from its driver %s: %s", address, driver != NULL ? driver : "(none)",
                             strerror(-error));
        return HOST_OPEN_RETRY;
    }
    error = probe(paths, member);
    if (is_on_vfio(member))
        return HOST_OPEN_READY;
    *why = string_printf("vfio-pci does not take %s%s%s; the kernel's log says more", address, error < 0 ? ": " : "",
                         error < 0 ? strerror(-error) : "");
    return error == -EBUSY ? HOST_OPEN_RETRY : HOST_OPEN_REFUSED;
}

// As it was before. What cannot be given back now stays on record, and SAID tells it.
static void undo(const struct bind_paths *paths, const struct members *taken, struct text *said)
{
    struct record record;

    for (size_t i = 0; i < taken->count; i++) {
        CLEANUP(cleanup_free)
        char *wrong = read_record(paths, taken->list[i], &record) ? give_one(paths, taken->list[i], &record) : NULL;
        if (wrong != NULL)
            text_printf(said, "; %s", wrong);
    }
}

// As take_one, for all of a group or none.
static enum host_open_kind take_all(const struct bind_paths *paths, const struct members *members, char **why)
{
    struct members taken = {.count = 0};
    struct text said = {0};

    for (size_t i = 0; i < members->count; i++) {
        CLEANUP(cleanup_free) char *wrong = NULL;
        enum host_open_kind kind;
        if (may_stay(members->list[i]))
            continue;
        if (!is_on_vfio(members->list[i]))
            taken.list[taken.count++] = members->list[i];
        kind = take_one(paths, members->list[i], &wrong);
        if (kind == HOST_OPEN_READY)
            continue;
        text_add(&said, wrong);
        undo(paths, &taken, &said);
        *why = text_take(&said);
        return kind;
    }
    return HOST_OPEN_READY;
}

// Why the host lives on what is to be taken from it, or NULL. Asked now, of the kernel's files alone.
static char *use_of(const struct bind_paths *paths, const struct members *members)
{
    CLEANUP(cleanup_usage) struct usage *usage = usage_new(&paths->usage);
    CLEANUP(cleanup_network) struct network *network = network_new(&paths->network);
    char *places[PCI_GROUP_MAX + 1];
    size_t count = 0;

    for (size_t i = 0; i < members->count; i++) {
        const struct device *member = members->list[i];
        CLEANUP(cleanup_free) char *use = NULL;
        if (is_on_vfio(member))
            continue;
        places[count++] = member->syspath;
        use = usage_of(usage, member->syspath);
        if (use == NULL)
            use = claim_of(paths->usage.sys, paths->usage.dev, member->syspath);
        if (use != NULL)
            return i == 0 ? steal_pointer(&use)
                          : string_printf("%s of its IOMMU group: %s", device_pci_address(member), use);
    }
    return count > 0 ? network_of(network, places, count) : NULL;
}

// Whether the node is there and udevd, where one runs, is done with it.
static bool is_node_ready(const struct bind_paths *paths, const char *node, const char **missing)
{
    CLEANUP(cleanup_free) char *control = string_printf("%s/udev/control", paths->run);
    CLEANUP(cleanup_free) char *data = NULL;
    struct stat status;

    *missing = "has not come";
    if (stat(node, &status) < 0)
        return false;
    *missing = "has not been dealt with by udevd";
    data = string_printf("%s/udev/data/c%u:%u", paths->run, major(status.st_rdev), minor(status.st_rdev));
    return access(control, F_OK) < 0 || access(data, F_OK) == 0;
}

static char *wait_for_node(const struct bind_paths *paths, int group)
{
    CLEANUP(cleanup_free) char *node = string_printf("%s/vfio/%d", paths->usage.dev, group);
    const char *missing = NULL;

    for (int i = 0; i < WAITS; i++) {
        if (is_node_ready(paths, node, &missing))
            return NULL;
        usleep(WAIT_MICROSECONDS);
    }
    return is_node_ready(paths, node, &missing)
               ? NULL
               : string_printf("%s, the node of its IOMMU group, %s within %d s", node, missing, WAIT_SECONDS);
}

// Which member policy has not seen, as it was plugged a moment ago; their count: none.
static size_t find_stranger(const struct device *device, const struct members *members)
{
    size_t i = 1;

    while (i < members->count && pci_lists(device, members->list[i]))
        i++;
    return i;
}

enum host_open_kind bind_take(const struct bind_paths *paths, const struct device *device, char **text)
{
    CLEANUP(cleanup_device) struct device *now = NULL;
    CLEANUP(cleanup_free) char *besides = NULL;
    struct members members;
    size_t stranger;
    enum host_open_kind kind;
    int error;

    error = pci_read_at(device->syspath, &now);
    if (again_helps(-error)) {
        *text = string_printf("the functions of its IOMMU group cannot be read: %s", strerror(-error));
        return HOST_OPEN_RETRY;
    }
    if (error < 0 || now->instance != device->instance) {
        *text = string_copy("the function has gone");
        return HOST_OPEN_GONE;
    }
    if (now->iommu_group < 0) {
        *text = string_printf("%s is in no IOMMU group: switch the IOMMU on, in the firmware's settings and by "
                              "intel_iommu=on or amd_iommu=on on the kernel's command line",
                              device_pci_address(device));
        return HOST_OPEN_REFUSED;
    }
    find_members(now, &members);
    stranger = find_stranger(device, &members);
    if (stranger < members.count) {
        *text = string_printf("%s has come into its IOMMU group", device_pci_address(members.list[stranger]));
        return HOST_OPEN_RETRY;
    }
    *text = use_of(paths, &members);
    if (*text != NULL)
        return HOST_OPEN_IN_USE;
    *text = load_vfio(paths);
    if (*text != NULL)
        return HOST_OPEN_REFUSED;
    besides = list_besides(&members);
    kind = take_all(paths, &members, text);
    if (kind != HOST_OPEN_READY)
        return kind;
    *text = wait_for_node(paths, now->iommu_group);
    if (*text != NULL)
        return HOST_OPEN_RETRY;
    if (besides != NULL)
        *text = string_printf("for %s these of its IOMMU group %d are bound to vfio-pci too: %s",
                              device_pci_address(device), now->iommu_group, besides);
    return HOST_OPEN_READY;
}
