// Opens a PCI function that is bound to vfio-pci by a node of its own, which kernels from 6.6 on may have beside that
// of its IOMMU group: what a VMM is handed then needs no right on any node.
#include "host/iommufd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "host/pci.h"
#include "host/sysfs.h"
#include "util/text.h"

// "vfio3", as sysfs lists it of the function, for free(); NULL: it has no such node.
static char *find_name(const struct device *device)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/vfio-dev", device->syspath);
    CLEANUP(cleanup_directory) DIR *listing = opendir(path);
    const struct dirent *entry;

    while (listing != NULL && (entry = readdir(listing)) != NULL)
        if (strncmp(entry->d_name, "vfio", strlen("vfio")) == 0)
            return string_copy(entry->d_name);
    return NULL;
}

// What the kernel gave to the node.
static int read_number(const struct device *device, const char *name, dev_t *number)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/vfio-dev/%s", device->syspath, name);
    CLEANUP(cleanup_close) int directory = sysfs_open(path);

    return directory < 0 ? directory : sysfs_device_number(directory, "dev", number);
}

static int open_node(const struct device *device, const char *name, const char *node)
{
    CLEANUP(cleanup_close) int fd = open(node, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
    struct stat status;
    dev_t number = 0;
    int error;

    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    error = read_number(device, name, &number);
    if (error < 0)
        return error;
    // Last: if the function is still the one that policy saw, the node that was opened before is its own.
    if (status.st_rdev != number || !pci_is_current(device))
        return -ESTALE;
    return steal_fd(&fd);
}

int iommufd_open(const char *dev, const struct device *device, char **why)
{
    CLEANUP(cleanup_free) char *name = find_name(device);
    CLEANUP(cleanup_free) char *node = NULL;
    int fd;

    if (name == NULL)
        return -EOPNOTSUPP;
    node = string_printf("%s/vfio/devices/%s", dev, name);
    fd = open_node(device, name, node);
    if (fd < 0)
        *why = string_printf(
            "%s is passed by the node of its IOMMU group, as %s, its own, %s%s", device_pci_address(device), node,
            fd == -ESTALE ? "belongs to another device" : "cannot be opened: ", fd == -ESTALE ? "" : strerror(-fd));
    return fd;
}
