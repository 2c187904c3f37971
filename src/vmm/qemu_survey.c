// Reading which USB buses a QEMU has and what is on them.
#include "vmm/qemu_survey.h"

#include <stdio.h>
#include <string.h>

#include "util/json.h"
#include "util/text.h"

// The folders of QOM in which devices are.
enum { FOLDER_PERIPHERAL, FOLDER_ANONYMOUS, FOLDER_UNATTACHED, FOLDER_COUNT };
static const char *const folders[FOLDER_COUNT] = {QOM_PERIPHERAL, QOM_ANONYMOUS, QOM_UNATTACHED};

static struct qom_children *folder(struct qemu *qemu, unsigned which)
{
    struct qom_children *all[FOLDER_COUNT] = {&qemu->peripheral, &qemu->anonymous, &qemu->unattached};
    return all[which];
}

static void end_survey(struct qemu *qemu)
{
    // A companion names the bus of its master; both are known only now.
    for (size_t i = 0; i < qemu->master_count; i++)
        topology_set_companion(&qemu->topology, qemu->masters[i]);
    for (size_t i = 0; i < qemu->place_count; i++) {
        const struct qemu_place *place = &qemu->places[i];
        topology_occupy(&qemu->topology, place->bus, place->port, place->object);
    }
    free(steal_pointer(&qemu->places));
    free(steal_pointer(&qemu->masters));
    qemu->place_count = qemu->master_count = 0;
    qemu->topology_known = qemu->topology_fresh = !qemu->survey_failed;
    qemu->surveyed(qemu);
}

static void handle_bus(struct qemu *qemu, unsigned index, const struct qmp_reply *reply)
{
    struct qom_children children = {0};
    if (reply->value && qom_children_read(&children, reply->value))
        for (size_t i = 0; i < children.count; i++)
            if (strcmp(children.children[i].type, "usb-bus") == 0)
                memcpy(qemu->topology.buses[index].name, children.children[i].name, QOM_NAME_MAX);
    qom_children_clear(&children);
}

static void set_ports(struct qemu *qemu, unsigned index, const struct qmp_reply *reply, const char *property)
{
    if (!json_object_is_type(reply->value, json_type_int))
        return;
    int64_t count = json_object_get_int64(reply->value);
    if (count >= 0)
        topology_set_ports(&qemu->topology.buses[index], property,
                           count > TOPOLOGY_PORTS_MAX ? TOPOLOGY_PORTS_MAX : (unsigned)count);
}

static void handle_p2(struct qemu *qemu, unsigned index, const struct qmp_reply *reply)
{
    set_ports(qemu, index, reply, "p2");
}

static void handle_p3(struct qemu *qemu, unsigned index, const struct qmp_reply *reply)
{
    set_ports(qemu, index, reply, "p3");
}

static void handle_num_ports(struct qemu *qemu, unsigned index, const struct qmp_reply *reply)
{
    set_ports(qemu, index, reply, "num-ports");
}

static void handle_master(struct qemu *qemu, unsigned index, const struct qmp_reply *reply)
{
    (void)index;
    if (!json_object_is_type(reply->value, json_type_string))
        return;
    const char *name = json_object_get_string(reply->value);
    if (!*name || strlen(name) >= QOM_NAME_MAX || qemu->master_count == TOPOLOGY_BUSES_MAX)
        return;
    qemu->masters = memory_resize(qemu->masters, qemu->master_count + 1, sizeof *qemu->masters);
    (void)snprintf(qemu->masters[qemu->master_count++], QOM_NAME_MAX, "%s", name);
}

static void handle_parent(struct qemu *qemu, unsigned index, const struct qmp_reply *reply)
{
    struct qemu_place *place = &qemu->places[index];
    if (json_object_is_type(reply->value, json_type_string))
        (void)snprintf(place->bus, sizeof place->bus, "%.*s", (int)sizeof place->bus - 1,
                       json_object_get_string(reply->value));
}

static void handle_port(struct qemu *qemu, unsigned index, const struct qmp_reply *reply)
{
    unsigned long port;
    if (json_object_is_type(reply->value, json_type_string) &&
        string_to_number(json_object_get_string(reply->value), 10, TOPOLOGY_PORTS_MAX, &port))
        qemu->places[index].port = (unsigned)port;
}

static void ask_controller(struct qemu *qemu, size_t index)
{
    const struct topology_bus *bus = &qemu->topology.buses[index];
    unsigned tag = (unsigned)index;
    qemu_send(qemu, "qom-list", qemu_path(bus->path, NULL), -1, handle_bus, tag);
    switch (bus->speed) {
    case TOPOLOGY_XHCI:
        qemu_send(qemu, "qom-get", qemu_path(bus->path, "p2"), -1, handle_p2, tag);
        qemu_send(qemu, "qom-get", qemu_path(bus->path, "p3"), -1, handle_p3, tag);
        break;
    case TOPOLOGY_EHCI:
        break;
    case TOPOLOGY_FULL_SPEED:
        qemu_send(qemu, "qom-get", qemu_path(bus->path, "masterbus"), -1, handle_master, tag);
        qemu_send(qemu, "qom-get", qemu_path(bus->path, "num-ports"), -1, handle_num_ports, tag);
        break;
    }
}

// A USB device, which sits on a port: asks for the one it was given, if it was.
static void ask_place(struct qemu *qemu, const struct qom_child *child, const char *path)
{
    if (qemu->place_count == QEMU_PLACES_MAX)
        return;
    qemu->places = memory_resize(qemu->places, qemu->place_count + 1, sizeof *qemu->places);
    unsigned tag = (unsigned)qemu->place_count;
    struct qemu_place *place = &qemu->places[qemu->place_count++];
    *place = (struct qemu_place){0};
    (void)snprintf(place->object, sizeof place->object, "%s", child->name);
    qemu_send(qemu, "qom-get", qemu_path(path, "parent_bus"), -1, handle_parent, tag);
    qemu_send(qemu, "qom-get", qemu_path(path, "port"), -1, handle_port, tag);
}

static void survey_details(struct qemu *qemu)
{
    if (qemu->survey_failed) {
        end_survey(qemu);
        return;
    }
    for (unsigned which = 0; which < FOLDER_COUNT; which++) {
        const struct qom_children *children = folder(qemu, which);
        for (size_t i = 0; i < children->count; i++) {
            const struct qom_child *child = &children->children[i];
            CLEANUP(cleanup_free) char *path = string_printf("%s/%s", folders[which], child->name);
            if (topology_add(&qemu->topology, child->type, path))
                continue;
            if (which != FOLDER_UNATTACHED && strncmp(child->type, "usb-", 4) == 0)
                ask_place(qemu, child, path);
        }
    }
    for (size_t i = 0; i < qemu->topology.count; i++)
        ask_controller(qemu, i);
    qemu_then(qemu, end_survey);
}

static void handle_folder(struct qemu *qemu, unsigned which, const struct qmp_reply *reply)
{
    if (!reply->value || !qom_children_read(folder(qemu, which), reply->value))
        qemu->survey_failed = true;
}

void qemu_survey(struct qemu *qemu, qemu_step next)
{
    topology_clear(&qemu->topology);
    qemu->topology_known = qemu->topology_fresh = qemu->survey_failed = false;
    qemu->surveyed = next;
    qemu->place_count = qemu->master_count = 0;
    for (unsigned which = 0; which < FOLDER_COUNT; which++) {
        qom_children_clear(folder(qemu, which));
        qemu_send(qemu, "qom-list", qemu_path(folders[which], NULL), -1, handle_folder, which);
    }
    qemu_then(qemu, survey_details);
}
