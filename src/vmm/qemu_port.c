// Putting something of the host into a QEMU as a PCI device: on a PCIe port that is free, or on the PCI bus
// of a machine that has no such ports. QEMU is asked for its ports each time: one that is occupied may be
// accepted by device_add, and the device is then lost to host and guest.
#include "vmm/qemu_port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/json.h"
#include "util/text.h"
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

// Input devices that are told to use certain ports can use no others.
static bool is_spared(const struct qemu *qemu, const struct qemu_port *port)
{
    const char *prefix = qemu->operation.spared;
    return *prefix && number_of(port, prefix) > 0;
}

static bool is_better(const struct qemu *qemu, const struct qemu_port *a, const struct qemu_port *b)
{
    bool a_spared = is_spared(qemu, a), b_spared = is_spared(qemu, b);
    return a_spared != b_spared ? b_spared : is_before(a, b);
}

static const struct qemu_port *free_port(const struct qemu *qemu)
{
    const struct qemu_port *best = NULL;
    for (size_t i = 0; i < qemu->port_count; i++) {
        const struct qemu_port *port = &qemu->ports[i];
        if (suits(qemu, port) && !port->occupied && (!best || is_better(qemu, port, best)))
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

static void refuse_root_bus(struct qemu *qemu)
{
    char *text = string_printf("the root bus of %s takes nothing while the VM runs: leave out qemuUseRootBus to use a "
                               "PCIe root port, or start QEMU with the device, as vmm_args says",
                               qemu->setup.vm);
    qemu_finish(qemu, RESULT_REFUSED, text, false);
}

static void end_failed(struct qemu *qemu)
{
    if (!qemu->list_error && qemu_list_find(qemu, qemu->name))
        qemu_finish(qemu, RESULT_DONE, NULL, true);
    else
        qemu->plug->refused(qemu);
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

static void end_try(struct qemu *qemu)
{
    qemu_list(qemu, false, qemu->add_error ? end_failed : end_added);
}

static void add(struct qemu *qemu, const char *bus)
{
    const struct qemu_port_plug *plug = qemu->plug;
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "driver", json_object_new_string(plug->driver));
    json_object_object_add(arguments, "id", json_object_new_string(qemu->name));
    json_object_object_add(arguments, plug->property, json_object_new_string(plug->value(qemu->operation.device)));
    json_object_object_add(arguments, "bus", json_object_new_string(bus));
    if (plug->before)
        plug->before(qemu, arguments);
    qemu_send(qemu, "device_add", arguments, -1, qemu_note_added, 0);
    if (plug->after)
        plug->after(qemu);
    qemu_then(qemu, end_try);
}

static void choose(struct qemu *qemu)
{
    const struct qemu_port *port = qemu->operation.root_bus ? NULL : free_port(qemu);
    if (port)
        add(qemu, port->name);
    else if (qemu->board_bus)
        add(qemu, "pci.0");
    else if (qemu->operation.root_bus)
        refuse_root_bus(qemu);
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

void qemu_port_attach(struct qemu *qemu, const struct qemu_port_plug *plug)
{
    object_name(qemu->name, qemu->operation.device, qemu->operation.serial);
    qemu->plug = plug;
    qemu->port_count = 0;
    qemu_send(qemu, "qom-list", qemu_path(QOM_PERIPHERAL, NULL), -1, handle_devices, 0);
    qemu_send(qemu, "qom-list", qemu_path(BOARD_BUS, NULL), -1, handle_board, 0);
    qemu_then(qemu, ask_ports);
}
