// PCI functions for a QEMU by descriptor (QEMU 9.0, Linux 6.6): of the function's own node, and of a context for the
// memory of the VM, which its functions share. The VM's user needs no right on any node then.
//
// The context is an object of QEMU's that stays for as long as the VM runs: QEMU 10.0 does not close what it was made
// of when it is deleted, so that each new one would cost a descriptor for good.
#include "vmm/qemu_iommufd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/json.h"
#include "util/text.h"
#include "vmm/qemu_port.h"

#define OBJECTS "/objects"
#define OBJECT "vhotplug-iommufd"
#define OBJECT_TYPE "iommufd"

// The descriptors' names in QEMU: of each there is one at a time, so that one that was left there is found again.
#define CONTEXT_NAME "vhotplug-iommu"
#define FUNCTION_NAME "vhotplug-function"

static void handle_ignored(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)qemu;
    (void)tag;
    (void)reply;
}

// An error says only that there is none of that name, as QEMU has used it.
static void send_close(struct qemu *qemu, const char *name)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "fdname", json_object_new_string(name));
    qemu_send(qemu, "closefd", arguments, -1, handle_ignored, 0);
}

// Takes FD. Without it, what is made of it later fails, and says that.
static void send_fd(struct qemu *qemu, const char *name, int fd)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "fdname", json_object_new_string(name));
    qemu_send(qemu, "getfd", arguments, fd, handle_ignored, 0);
}

// ---- whether it takes them

static void handle_properties(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    bool object = false, function = false;
    size_t count = json_object_is_type(reply->value, json_type_array) ? json_object_array_length(reply->value) : 0;
    (void)tag;
    for (size_t i = 0; i < count; i++) {
        const char *name = json_member_string(json_object_array_get_idx(reply->value, i), "name");
        object = object || string_equal(name, "iommufd");
        function = function || string_equal(name, "fd");
    }
    qemu->descriptors = object && function ? DESCRIPTORS_TAKEN : DESCRIPTORS_REFUSED;
    if (qemu->descriptors == DESCRIPTORS_TAKEN) {
        send_close(qemu, FUNCTION_NAME); // which would keep vfio-pci from letting go of it
        send_close(qemu, CONTEXT_NAME);
    }
}

void qemu_iommufd_ask(struct qemu *qemu)
{
    if (!qemu->setup.iommu || access(qemu->setup.iommu, F_OK) < 0)
        return;
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "typename", json_object_new_string("vfio-pci"));
    qemu_send(qemu, "device-list-properties", arguments, -1, handle_properties, 0);
}

// ---- falling back

// Takes WHY. The next try is by the node of the group, to which the VM's user is given a right then.
static void fall_back(struct qemu *qemu, char *why)
{
    CLEANUP(cleanup_free) char *owned = why;
    qemu->descriptors = DESCRIPTORS_REFUSED;
    qemu_finish(qemu, RESULT_RETRY,
                string_printf("%s: it was not passed by descriptor: %s; it is tried by the node of its IOMMU group",
                              qemu->setup.vm, owned),
                false);
}

bool qemu_iommufd_refused(struct qemu *qemu)
{
    const char *words = qemu->add_error;
    // Of the device itself, not of the port that it was to be on.
    if (qemu->plug->before != qemu_iommufd_before ||
        (strncmp(words, "vfio ", strlen("vfio ")) != 0 && !strstr(words, "fd")))
        return false;
    fall_back(qemu, string_copy(words));
    return true;
}

// ---- the context

static void end_made(struct qemu *qemu)
{
    if (qemu->add_error)
        fall_back(qemu, steal_pointer(&qemu->add_error));
    else
        qemu->prepared(qemu);
}

static void make_object(struct qemu *qemu)
{
    struct stat status;
    int fd = open(qemu->setup.iommu, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
    if (fd < 0) {
        fall_back(qemu, string_printf("%s cannot be opened: %s", qemu->setup.iommu, strerror(errno)));
        return;
    }
    if (fstat(fd, &status) < 0 || !S_ISCHR(status.st_mode)) {
        close(fd);
        fall_back(qemu, string_printf("%s is no device", qemu->setup.iommu));
        return;
    }
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "qom-type", json_object_new_string(OBJECT_TYPE));
    json_object_object_add(arguments, "id", json_object_new_string(OBJECT));
    json_object_object_add(arguments, "fd", json_object_new_string(CONTEXT_NAME));
    send_fd(qemu, CONTEXT_NAME, fd);
    qemu_send(qemu, "object-add", arguments, -1, qemu_note_added, 0);
    send_close(qemu, CONTEXT_NAME);
    qemu_then(qemu, end_made);
}

static void handle_objects(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    struct qom_children children = {0};
    (void)tag;
    qemu->has_iommufd = false;
    if (reply->value && qom_children_read(&children, reply->value))
        for (size_t i = 0; i < children.count; i++)
            if (strcmp(children.children[i].name, OBJECT) == 0 && strcmp(children.children[i].type, OBJECT_TYPE) == 0)
                qemu->has_iommufd = true;
    qom_children_clear(&children);
}

static void end_objects(struct qemu *qemu)
{
    if (qemu->has_iommufd)
        qemu->prepared(qemu);
    else
        make_object(qemu);
}

void qemu_iommufd_prepare(struct qemu *qemu, qemu_step next)
{
    qemu->prepared = next;
    qemu_send(qemu, "qom-list", qemu_path(OBJECTS, NULL), -1, handle_objects, 0);
    qemu_then(qemu, end_objects);
}

// ---- the function

void qemu_iommufd_before(struct qemu *qemu, struct json_object *arguments)
{
    json_object_object_add(arguments, "iommufd", json_object_new_string(OBJECT));
    json_object_object_add(arguments, "fd", json_object_new_string(FUNCTION_NAME));
    send_fd(qemu, FUNCTION_NAME, steal_fd(&qemu->fd));
}

void qemu_iommufd_after(struct qemu *qemu)
{
    send_close(qemu, FUNCTION_NAME);
}
