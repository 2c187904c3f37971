// Putting a USB device into a QEMU: on a bus and port of our choice, by descriptor where there is one.
// Whether it worked is what QEMU lists afterwards.
#include "vmm/qemu_attach.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "util/text.h"
#include "vmm/qemu_list.h"
#include "vmm/qemu_survey.h"

#define ADVICE "start QEMU with -device qemu-xhci,id=xhci"

static void choose(struct qemu *qemu);

// A set number of its own for each try: a set that holds an older descriptor must not be met again.
static int fdset_number(const struct qemu *qemu)
{
    uint64_t hash = 0xcbf29ce484222325; // FNV-1a
    for (const char *c = qemu->name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
    hash = (hash ^ qemu->tries) * 0x100000001b3;
    return (int)((hash ^ hash >> 32) & 0x3fffffff);
}

static void handle_fd(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)tag;
    if (!reply->value && !qemu->add_error)
        qemu->add_error = qemu_words(reply->error);
}

static void handle_added(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)tag;
    if (reply->value) {
        free(steal_pointer(&qemu->add_error));
        return;
    }
    // What went wrong with the descriptor before is the better reason.
    if (!qemu->add_error)
        qemu->add_error = qemu_words(reply->error);
}

static void handle_removed(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)qemu;
    (void)tag;
    (void)reply; // QEMU drops the descriptor at the latest when it ends
}

// The words of both versions for a port that is taken. Were they to change, the device would wait
// for a retry instead of getting the next port at once.
static bool says_port_taken(const char *words)
{
    return words && strncmp(words, "usb port ", 9) == 0;
}

static void end_failed(struct qemu *qemu)
{
    const char *vm = qemu->setup.vm;
    if (!qemu->list_error && qemu_list_find(qemu, qemu->name))
        qemu_finish(qemu, RESULT_DONE, NULL, true);
    else if (qemu_device_gone(qemu->operation.device))
        qemu_finish_gone(qemu);
    else
        qemu_finish(qemu, RESULT_RETRY, string_printf("%s: QEMU did not take it: %s", vm, qemu->add_error),
                    !qemu->list_error);
}

static void end_added(struct qemu *qemu)
{
    const char *vm = qemu->setup.vm;
    const struct attachment *attachment = qemu_list_find(qemu, qemu->name);
    if (qemu->list_error) {
        char *text = string_printf("%s: QEMU took it and does not list: %s", vm, qemu->list_error);
        qemu_finish(qemu, RESULT_LOST, text, false);
    } else if (attachment) {
        topology_take(&qemu->topology.buses[qemu->bus], qemu->port, qemu->name);
        qemu_finish(qemu, RESULT_DONE, NULL, true);
    } else {
        qemu_finish(qemu, RESULT_RETRY, string_printf("%s: QEMU took it and lists it no more", vm), true);
    }
}

// The choice was made from what had been read in an earlier operation; it has been read again now.
static void judge_again(struct qemu *qemu)
{
    size_t bus = 0;
    unsigned port = 0;
    bool found = qemu->topology_known &&
                 topology_choose(&qemu->topology, qemu->operation.device->speed, &bus, &port) == TOPOLOGY_FOUND;
    if (found && port == qemu->port && strcmp(qemu->topology.buses[bus].name, qemu->bus_name) == 0)
        qemu_list(qemu, false, end_failed); // the place is right, so it is not the place that failed
    else
        choose(qemu);
}

static void end_try(struct qemu *qemu)
{
    if (!qemu->add_error) {
        qemu_list(qemu, false, end_added);
    } else if (says_port_taken(qemu->add_error)) {
        // Taken by something that was not given this port by number.
        topology_take(&qemu->topology.buses[qemu->bus], qemu->port, "?");
        choose(qemu);
    } else if (!qemu->topology_fresh) {
        memcpy(qemu->bus_name, qemu->topology.buses[qemu->bus].name, QOM_NAME_MAX);
        qemu_survey(qemu, judge_again);
    } else {
        qemu_list(qemu, false, end_failed);
    }
}

static struct json_object *usb_arguments(const struct qemu *qemu, int fdset)
{
    const struct device *device = qemu->operation.device;
    char text[64];
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "driver", json_object_new_string("usb-host"));
    json_object_object_add(arguments, "id", json_object_new_string(qemu->name));
    json_object_object_add(arguments, "bus", json_object_new_string(qemu->topology.buses[qemu->bus].name));
    (void)snprintf(text, sizeof text, "%u", qemu->port);
    json_object_object_add(arguments, "port", json_object_new_string(text));
    if (qemu->fd >= 0) {
        (void)snprintf(text, sizeof text, "/dev/fdset/%d", fdset);
        json_object_object_add(arguments, "hostdevice", json_object_new_string(text));
    } else {
        json_object_object_add(arguments, "hostbus", json_object_new_int64(device->bus));
        json_object_object_add(arguments, "hostaddr", json_object_new_int64(device->address));
    }
    return arguments;
}

static void try_port(struct qemu *qemu)
{
    int fdset = fdset_number(qemu);
    int fd = qemu->fd >= 0 ? fcntl(qemu->fd, F_DUPFD_CLOEXEC, 0) : -1;
    free(steal_pointer(&qemu->add_error));
    qemu->tries++;
    if (fd >= 0) {
        struct json_object *arguments = json_object_new_object();
        json_object_object_add(arguments, "fdset-id", json_object_new_int(fdset));
        json_object_object_add(arguments, "opaque", json_object_new_string(qemu->name));
        qemu_send(qemu, "add-fd", arguments, fd, handle_fd, 0);
    }
    qemu_send(qemu, "device_add", usb_arguments(qemu, fdset), -1, handle_added, 0);
    if (fd >= 0) {
        struct json_object *arguments = json_object_new_object();
        json_object_object_add(arguments, "fdset-id", json_object_new_int(fdset));
        qemu_send(qemu, "remove-fd", arguments, -1, handle_removed, 0);
    }
    qemu_then(qemu, end_try);
}

static void refuse(struct qemu *qemu, enum topology_verdict verdict)
{
    const char *vm = qemu->setup.vm;
    char *text = NULL;
    switch (verdict) {
    case TOPOLOGY_FOUND:
        break;
    case TOPOLOGY_NO_CONTROLLER:
        text = string_printf("%s has no USB controller: " ADVICE, vm);
        break;
    case TOPOLOGY_TOO_SLOW:
        text = string_printf("%s has only USB 2.0 (EHCI) controllers, which take no low- or full-speed device: " ADVICE,
                             vm);
        break;
    case TOPOLOGY_NO_PORT:
        text = string_printf("all %u USB ports of %s that suit it are in use: " ADVICE ",p2=15,p3=15 for more",
                             topology_port_count(&qemu->topology, qemu->operation.device->speed), vm);
        break;
    }
    qemu_finish(qemu, RESULT_REFUSED, text, false);
}

static void choose(struct qemu *qemu)
{
    if (!qemu->topology_known) {
        qemu_finish(qemu, RESULT_RETRY, string_printf("%s: QEMU does not tell its USB buses", qemu->setup.vm), false);
        return;
    }
    enum topology_verdict verdict =
        topology_choose(&qemu->topology, qemu->operation.device->speed, &qemu->bus, &qemu->port);
    if (verdict == TOPOLOGY_FOUND)
        try_port(qemu);
    else if (!qemu->topology_fresh)
        qemu_survey(qemu, choose);
    else
        refuse(qemu, verdict);
}

void qemu_attach(struct qemu *qemu)
{
    const struct device *device = qemu->operation.device;
    if (qemu_device_gone(device)) {
        qemu_finish_gone(qemu);
        return;
    }
    object_name(qemu->name, device, qemu->operation.serial);
    if (qemu->topology_known)
        choose(qemu);
    else
        qemu_survey(qemu, choose);
}
