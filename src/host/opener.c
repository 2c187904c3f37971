// Opens a USB device's node, and makes sure that it is the very device that policy saw.
#include "host/opener.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/claim.h"
#include "host/usage.h"
#include "host/usb.h"
#include "util/text.h"

enum { CLAIM_WAITS = 20, CLAIM_WAIT_MICROSECONDS = 50000 };

// What is opened, and how it goes.
struct opening {
    const struct device *device;
    struct opener_result *result;
};

static void answer_gone(const struct opening *opening, const char *text)
{
    opening->result->kind = HOST_OPEN_GONE;
    opening->result->text = string_printf("%s: %s", opening->device->node, text);
}

// Could not be opened: because it has gone, or for a reason that another program may not have.
static void answer_failure(const struct opening *opening, const char *what, int error)
{
    if (error == ENODEV || error == ENXIO || usb_instance(opening->device->syspath) != opening->device->instance) {
        answer_gone(opening, "the device has gone");
        return;
    }
    opening->result->kind = HOST_OPEN_NO_FD;
    opening->result->text = string_printf("%s %s: %s", what, opening->device->node, strerror(error));
}

// The node's device descriptor; usbfs gives its numbers in the byte order of the host.
static bool read_ids(int fd, uint16_t *vendor_id, uint16_t *product_id)
{
    uint8_t bytes[18];
    ssize_t got = pread(fd, bytes, sizeof(bytes), 0);

    if (got >= 0 && got < (ssize_t)sizeof(bytes))
        errno = ENODEV;
    if (got < (ssize_t)sizeof(bytes))
        return false;
    memcpy(vendor_id, bytes + 8, sizeof(*vendor_id));
    memcpy(product_id, bytes + 10, sizeof(*product_id));
    return true;
}

// Is FD the device that policy saw? Looks at the node, at the device behind it, and last at sysfs:
// if the instance is still there, the node that was opened before is its own.
static bool check(const struct opening *opening, int fd)
{
    uint16_t vendor_id, product_id;
    struct stat status;

    if (fstat(fd, &status) < 0) {
        answer_failure(opening, "looking at", errno);
        return false;
    }
    if (status.st_rdev != opening->device->number) {
        answer_gone(opening, "the node belongs to another device");
        return false;
    }
    if (!read_ids(fd, &vendor_id, &product_id)) {
        answer_failure(opening, "reading", errno);
        return false;
    }
    if (vendor_id != opening->device->vendor_id || product_id != opening->device->product_id ||
        usb_instance(opening->device->syspath) != opening->device->instance) {
        answer_gone(opening, "another device has taken its place");
        return false;
    }
    return true;
}

static void open_node(const struct opening *opening)
{
    CLEANUP(cleanup_close) int fd = open(opening->device->node, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);

    if (fd < 0) {
        answer_failure(opening, "opening", errno);
        return;
    }
    if (!check(opening, fd))
        return;
    opening->result->kind = HOST_OPENED;
    opening->result->fd = steal_fd(&fd);
}

// After an unmount the kernel still writes back what is left, and a disk must not be taken from it
// in the midst of that. A moment is waited for it here.
static char *wait_for_claim(const struct device *device)
{
    char *claim = claim_of(usage_paths.sys, usage_paths.dev, device->syspath);

    for (int i = 0; i < CLAIM_WAITS && claim != NULL; i++) {
        free(claim);
        usleep(CLAIM_WAIT_MICROSECONDS);
        claim = claim_of(usage_paths.sys, usage_paths.dev, device->syspath);
    }
    return claim;
}

void opener_open(const struct device *device, struct opener_result *result)
{
    struct opening opening = {device, result};

    *result = (struct opener_result){HOST_OPEN_GONE, -1, wait_for_claim(device)};
    if (result->text == NULL)
        open_node(&opening);
    else
        result->kind = HOST_OPEN_IN_USE;
}
