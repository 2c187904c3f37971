// Putting an input device of the host into a QEMU: on a PCIe port that is free, or on the PCI bus of
// a machine that has no such ports. QEMU is asked for its ports each time: one that is occupied may be
// accepted by device_add, and the device is then lost to host and guest.
#include "vmm/qemu_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/json.h"
#include "util/text.h"
#include "vmm/peer.h"
#include "vmm/qemu_list.h"

#define BOARD_BUS "/machine/i440fx/pci.0" // of -M pc
#define DEFAULT_PREFIX "ep"

static struct qemu_port *port_of(struct qemu *qemu, unsigned index)
{
    return &qemu->ports[index];
}

// The number of a port whose name is PREFIX and a number; 0 if it is not, or has none.
static unsigned long number_of(const struct qemu_port *port, const char *prefix)
{
    size_t length = strlen(prefix);
    unsigned long number = 0;
    if (strncmp(port->name, prefix, length) != 0 || !string_to_number(port->name + length, 10, UINT32_MAX, &number))
        return 0;
    return number;
}

static bool suits(const struct qemu *qemu, const struct qemu_port *port)
{
    const char *prefix = qemu->operation.bus_prefix;
    return port->hotplug && (!*prefix || number_of(port, prefix) > 0);
}

// In the order of their numbers.
static bool is_before(const struct qemu_port *a, const struct qemu_port *b)
{
    size_t a_length = strlen(a->name), b_length = strlen(b->name);
    return a_length != b_length ? a_length < b_length : strcmp(a->name, b->name) < 0;
}

static size_t count_suiting(const struct qemu *qemu, const struct qemu_port **first)
{
    size_t count = 0;
    for (size_t i = 0; i < qemu->port_count; i++) {
        const struct qemu_port *port = &qemu->ports[i];
        if (!suits(qemu, port))
            continue;
        count++;
        if (!*first || is_before(port, *first))
            *first = port;
    }
    return count;
}

static const struct qemu_port *free_port(const struct qemu *qemu)
{
    const struct qemu_port *best = NULL;
    for (size_t i = 0; i < qemu->port_count; i++) {
        const struct qemu_port *port = &qemu->ports[i];
        if (suits(qemu, port) && !port->occupied && (!best || is_before(port, best)))
            best = port;
    }
    return best;
}

// What to start QEMU with to get one more port.
static char *advice(const struct qemu *qemu)
{
    const char *prefix = *qemu->operation.bus_prefix ? qemu->operation.bus_prefix : DEFAULT_PREFIX;
    unsigned long last = 0;
    for (size_t i = 0; i < qemu->port_count; i++) {
        unsigned long number = number_of(&qemu->ports[i], prefix);
        last = number > last ? number : last;
    }
    unsigned long chassis = last > qemu->port_count ? last + 1 : qemu->port_count + 1;
    return string_printf("start QEMU with -device pcie-root-port,id=%s%lu,chassis=%lu", prefix, last + 1, chassis);
}

static void refuse(struct qemu *qemu)
{
    CLEANUP(cleanup_free) char *more = advice(qemu);
    const char *vm = qemu->setup.vm, *prefix = qemu->operation.bus_prefix;
    const struct qemu_port *first = NULL;
    size_t count = count_suiting(qemu, &first);
    char *text = NULL;
    if (count == 0 && *prefix)
        text = string_printf("%s has no PCIe root port %s1, %s2, … that takes devices while it runs: %s", vm, prefix,
                             prefix, more);
    else if (count == 0)
        text = string_printf("%s has no PCIe root port that takes devices while it runs: %s", vm, more);
    else if (count == 1)
        text = string_printf("the only PCIe root port of %s, %s, is in use: %s", vm, first->name, more);
    else
        text = string_printf("all %zu PCIe root ports %s… of %s are in use: %s", count, first->name, vm, more);
    qemu_finish(qemu, RESULT_REFUSED, text, false);
}

// QEMU's words for what a person can mend; NULL: they stand for themselves.
static char *explain(const struct qemu *qemu, enum result_kind *kind)
{
    const char *vm = qemu->setup.vm, *node = qemu->operation.device->node, *words = qemu->add_error;
    if (strstr(words, "Permission denied")) {
        CLEANUP(cleanup_free) char *user = peer_user(&qemu->peer);
        if (!user)
            return string_printf("QEMU of %s may not open %s: give its user read and write access", vm, node);
        if (strcmp(user, "root") == 0)
            return string_printf("QEMU of %s runs as root and yet may not open %s: what confines it (a device cgroup, "
                                 "AppArmor, SELinux) has to allow that",
                                 vm, node);
        return string_printf("QEMU of %s runs as user %s and may not open %s: give that user read and write access", vm,
                             user, node);
    }
    if (strstr(words, "no slot/function available")) {
        *kind = RESULT_REFUSED;
        return string_printf("all slots of the PCI bus of %s are in use", vm);
    }
    return NULL;
}

static void finish_grabbed(struct qemu *qemu, const char *names)
{
    const char *node = qemu->operation.device->node;
    char *text = names ? string_printf("%s is grabbed by another program, which has to let go of it: %s %s it open",
                                       node, names, strchr(names, ',') ? "have" : "has")
                       : string_printf("%s is grabbed by another program, which has to let go of it (as root, "
                                       "fuser -v %s tells its name)",
                                       node, node);
    qemu_finish(qemu, RESULT_RETRY, text, !qemu->list_error);
}

static void end_search(void *user, const char *names)
{
    struct qemu *qemu = user;
    struct qemu_grabbed *place = &qemu->grabbed[qemu->grabbed_next];
    qemu->grabbed_next = (qemu->grabbed_next + 1) % QEMU_GRABBED_MAX;
    free(place->names);
    *place = (struct qemu_grabbed){qemu->operation.device->instance, string_copy(names)};
    finish_grabbed(qemu, place->names);
}

static bool is_grabbed(const char *words)
{
    return strstr(words, "exclusive access") || strstr(words, "Device or resource busy");
}

// Once for each plug: who else looks at the device meanwhile would make the same trouble look like another.
static void search_grabber(struct qemu *qemu)
{
    const struct device *device = qemu->operation.device;
    for (size_t i = 0; i < QEMU_GRABBED_MAX; i++) {
        if (qemu->grabbed[i].instance == device->instance) {
            finish_grabbed(qemu, qemu->grabbed[i].names);
            return;
        }
    }
    qemu->grabber = grabber_search(qemu->setup.loop, device->node, end_search, qemu);
    if (!qemu->grabber)
        finish_grabbed(qemu, NULL);
}

static void end_failed(struct qemu *qemu)
{
    enum result_kind kind = RESULT_RETRY;
    if (!qemu->list_error && qemu_list_find(qemu, qemu->name)) {
        qemu_finish(qemu, RESULT_DONE, NULL, true);
    } else if (qemu_device_gone(qemu->operation.device)) {
        qemu_finish_gone(qemu);
    } else if (is_grabbed(qemu->add_error)) {
        search_grabber(qemu);
    } else {
        char *text = explain(qemu, &kind);
        if (!text)
            text = string_printf("%s: QEMU did not take it: %s", qemu->setup.vm, qemu->add_error);
        qemu_finish(qemu, kind, text, !qemu->list_error);
    }
}

static void end_added(struct qemu *qemu)
{
    const char *vm = qemu->setup.vm;
    if (qemu->list_error) {
        char *text = string_printf("%s: QEMU took it and does not list: %s", vm, qemu->list_error);
        qemu_finish(qemu, RESULT_LOST, text, false);
    } else if (qemu_list_find(qemu, qemu->name)) {
        qemu_finish(qemu, RESULT_DONE, NULL, true);
    } else {
        qemu_finish(qemu, RESULT_RETRY, string_printf("%s: QEMU took it and lists it no more", vm), true);
    }
}

static void handle_added(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)tag;
    free(steal_pointer(&qemu->add_error));
    if (!reply->value)
        qemu->add_error = qemu_words(reply->error);
}

static void end_try(struct qemu *qemu)
{
    qemu_list(qemu, false, qemu->add_error ? end_failed : end_added);
}

static void add(struct qemu *qemu, const char *bus)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "driver", json_object_new_string("virtio-input-host-pci"));
    json_object_object_add(arguments, "id", json_object_new_string(qemu->name));
    json_object_object_add(arguments, "evdev", json_object_new_string(qemu->operation.device->node));
    json_object_object_add(arguments, "bus", json_object_new_string(bus));
    qemu_send(qemu, "device_add", arguments, -1, handle_added, 0);
    qemu_then(qemu, end_try);
}

static void choose(struct qemu *qemu)
{
    const struct qemu_port *port = free_port(qemu);
    if (port)
        add(qemu, port->name);
    else if (qemu->board_bus)
        add(qemu, "pci.0");
    else
        refuse(qemu);
}

// A port's bus: what is on it is linked as child[0], child[1], …
static void handle_bus(struct qemu *qemu, unsigned index, const struct qmp_reply *reply)
{
    static const char start[] = "child[";
    struct qemu_port *port = port_of(qemu, index);
    if (!json_object_is_type(reply->value, json_type_array))
        return;
    port->occupied = false;
    for (size_t i = 0; i < json_object_array_length(reply->value); i++) {
        const char *name = json_member_string(json_object_array_get_idx(reply->value, i), "name");
        if (name && strncmp(name, start, sizeof start - 1) == 0)
            port->occupied = true;
    }
}

// Only what says so does not take devices; older ports do not know the word.
static void handle_hotplug(struct qemu *qemu, unsigned index, const struct qmp_reply *reply)
{
    port_of(qemu, index)->hotplug =
        !json_object_is_type(reply->value, json_type_boolean) || json_object_get_boolean(reply->value);
}

static bool is_port(const struct qom_child *child)
{
    return strcmp(child->type, "pcie-root-port") == 0 || strcmp(child->type, "ioh3420") == 0 ||
           strcmp(child->type, "xio3130-downstream") == 0;
}

// A port's bus bears the name of the port.
static void ask_port(struct qemu *qemu, const char *name)
{
    CLEANUP(cleanup_free) char *port_path = string_printf(QOM_PERIPHERAL "/%s", name);
    CLEANUP(cleanup_free) char *bus_path = string_printf("%s/%s", port_path, name);
    unsigned index = (unsigned)qemu->port_count;
    qemu->ports = memory_resize(qemu->ports, qemu->port_count + 1, sizeof *qemu->ports);
    qemu->ports[qemu->port_count++] = (struct qemu_port){.occupied = true}; // until its bus says otherwise
    (void)snprintf(qemu->ports[index].name, QOM_NAME_MAX, "%s", name);
    qemu_send(qemu, "qom-list", qemu_path(bus_path, NULL), -1, handle_bus, index);
    qemu_send(qemu, "qom-get", qemu_path(port_path, "hotplug"), -1, handle_hotplug, index);
}

static void ask_ports(struct qemu *qemu)
{
    if (qemu->list_error) {
        char *text = string_printf("%s: QEMU does not tell its ports: %s", qemu->setup.vm, qemu->list_error);
        qemu_finish(qemu, RESULT_RETRY, text, false);
        return;
    }
    for (size_t i = 0; i < qemu->peripheral.count && qemu->port_count < QEMU_PORTS_MAX; i++)
        if (is_port(&qemu->peripheral.children[i]))
            ask_port(qemu, qemu->peripheral.children[i].name);
    qemu_then(qemu, choose);
}

static void handle_devices(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)tag;
    free(steal_pointer(&qemu->list_error));
    if (!reply->value)
        qemu->list_error = qemu_words(reply->error);
    else if (!qom_children_read(&qemu->peripheral, reply->value))
        qemu->list_error = string_copy("its list of devices is none");
}

static void handle_board(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    (void)tag;
    qemu->board_bus = reply->value != NULL;
}

void qemu_input_attach(struct qemu *qemu)
{
    if (qemu_device_gone(qemu->operation.device)) {
        qemu_finish_gone(qemu);
        return;
    }
    object_name(qemu->name, qemu->operation.device, qemu->operation.serial);
    qemu->port_count = 0;
    qemu_send(qemu, "qom-list", qemu_path(QOM_PERIPHERAL, NULL), -1, handle_devices, 0);
    qemu_send(qemu, "qom-list", qemu_path(BOARD_BUS, NULL), -1, handle_board, 0);
    qemu_then(qemu, ask_ports);
}
