// Opens a device node in a thread, and makes sure that it is the very device that policy saw.
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

// All that is needed of the device, as a copy: the device belongs to the loop.
struct opener_job {
    struct job job; // first
    char *node, *syspath;
    dev_t number;
    uint16_t vendor_id, product_id;
    uint64_t instance;
    void (*done)(void *user, struct opener_result *result);
    void *user;
    uint64_t serial;
    enum host_open_kind kind;
    int fd;
    char *text;
};

static void answer_gone(struct opener_job *opener, const char *text)
{
    opener->kind = HOST_OPEN_GONE;
    opener->text = string_printf("%s: %s", opener->node, text);
}

// Could not be opened: because it has gone, or for a reason that another program may not have.
static void answer_failure(struct opener_job *opener, const char *what, int error)
{
    if (error == ENODEV || error == ENXIO || usb_instance(opener->syspath) != opener->instance) {
        answer_gone(opener, "the device has gone");
        return;
    }
    opener->kind = HOST_OPEN_NO_FD;
    opener->text = string_printf("%s %s: %s", what, opener->node, strerror(error));
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
static bool check(struct opener_job *opener, int fd)
{
    uint16_t vendor_id, product_id;
    struct stat status;

    if (fstat(fd, &status) < 0) {
        answer_failure(opener, "looking at", errno);
        return false;
    }
    if (status.st_rdev != opener->number) {
        answer_gone(opener, "the node belongs to another device");
        return false;
    }
    if (!read_ids(fd, &vendor_id, &product_id)) {
        answer_failure(opener, "reading", errno);
        return false;
    }
    if (vendor_id != opener->vendor_id || product_id != opener->product_id ||
        usb_instance(opener->syspath) != opener->instance) {
        answer_gone(opener, "another device has taken its place");
        return false;
    }
    return true;
}

static void open_node(struct opener_job *opener)
{
    CLEANUP(cleanup_close) int fd = open(opener->node, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);

    if (fd < 0) {
        answer_failure(opener, "opening", errno);
        return;
    }
    if (!check(opener, fd))
        return;
    opener->kind = HOST_OPENED;
    opener->fd = steal_fd(&fd);
}

// After an unmount the kernel still writes back what is left, and a disk must not be taken from it
// in the midst of that. A moment is waited for it here, in the thread.
static char *wait_for_claim(const struct opener_job *opener)
{
    char *claim = claim_of(usage_paths.sys, usage_paths.dev, opener->syspath);

    for (int i = 0; i < CLAIM_WAITS && claim != NULL; i++) {
        free(claim);
        usleep(CLAIM_WAIT_MICROSECONDS);
        claim = claim_of(usage_paths.sys, usage_paths.dev, opener->syspath);
    }
    return claim;
}

static void run(struct job *job)
{
    struct opener_job *opener = (struct opener_job *)job;

    if (opener->kind == HOST_OPEN_IN_USE)
        return;
    opener->text = wait_for_claim(opener);
    if (opener->text == NULL)
        open_node(opener);
    else
        opener->kind = HOST_OPEN_IN_USE;
}

static void done(struct job *job)
{
    struct opener_job *opener = (struct opener_job *)job;
    struct opener_result result = {opener->serial, opener->kind, opener->fd, opener->text, opener->syspath};

    opener->done(opener->user, &result);
    opener->fd = result.fd;
}

static void release(struct job *job)
{
    struct opener_job *opener = (struct opener_job *)job;

    if (opener->fd >= 0)
        close(opener->fd);
    free(opener->node);
    free(opener->syspath);
    free(opener->text);
    free(opener);
}

void opener_submit(struct worker *worker, const struct device *device, uint64_t serial, char *refusal,
                   void (*done_call)(void *user, struct opener_result *result), void *user)
{
    struct opener_job *opener = memory_new(1, sizeof(*opener));

    *opener = (struct opener_job){
        .job = {.run = run, .done = done, .release = release},
        .node = string_copy(device->node),
        .syspath = string_copy(device->syspath),
        .number = device->number,
        .vendor_id = device->vendor_id,
        .product_id = device->product_id,
        .instance = device->instance,
        .done = done_call,
        .user = user,
        .serial = serial,
        .kind = refusal != NULL ? HOST_OPEN_IN_USE : HOST_OPEN_GONE,
        .fd = -1,
        .text = refusal,
    };
    worker_submit(worker, &opener->job);
}
