// Access of a VM's user to the node by which QEMU opens a device itself: which node that is, and how it went.
#include "host/access_device.h"

#include <errno.h>

#include "host/access.h"
#include "host/input.h"
#include "host/pci.h"
#include "host/sysfs.h"
#include "util/text.h"

static bool is_input_current(const void *subject)
{
    const struct device *device = subject;

    return input_instance(device->syspath) == device->instance;
}

static bool is_function_current(const void *subject)
{
    return pci_is_current(subject);
}

// The number that the kernel gave to the node of an IOMMU group.
static int group_number(const char *sys, int group, dev_t *number)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/class/vfio/%d", sys, group);
    CLEANUP(cleanup_close) int directory = sysfs_open(path);

    return directory < 0 ? directory : sysfs_device_number(directory, "dev", number);
}

static enum host_open_kind kind_of(int error)
{
    switch (error) {
    case 0:
        return HOST_OPEN_READY;
    case -ENODEV:
        return HOST_OPEN_GONE;
    case -EPERM:
    case -EOPNOTSUPP:
    case -EROFS:
        return HOST_OPEN_REFUSED;
    default:
        return HOST_OPEN_RETRY;
    }
}

enum host_open_kind access_open(const struct access_paths *paths, const struct device *device,
                                const struct host_receiver *receiver, char **text)
{
    bool input = device->kind == DEVICE_INPUT;
    CLEANUP(cleanup_free)
    char *node = input ? string_copy(device->node) : string_printf("%s/vfio/%d", paths->dev, device->iommu_group);
    CLEANUP(cleanup_free) char *why = NULL;
    struct access_grant grant = {node,           device->number,    device->key,
                                 receiver->user, receiver->process, input ? is_input_current : is_function_current,
                                 device};
    enum host_open_kind kind;
    int error = input ? 0 : group_number(paths->sys, device->iommu_group, &grant.number);

    if (error < 0) {
        *text = string_printf("%s is not there any more", node);
        return HOST_OPEN_RETRY;
    }
    kind = kind_of(access_give(paths->records, &grant, &why));
    if (kind == HOST_OPEN_REFUSED)
        *text = string_printf("%s; give it that right by other means, or set grantAccess to false", why);
    else
        *text = steal_pointer(&why);
    return kind;
}
