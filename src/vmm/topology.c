// The USB buses of a VM and which of their ports are free: the choice of bus and port, which QEMU
// would make badly by itself. Pure: filled from outside.
#include "vmm/topology.h"

#include <stdio.h>
#include <string.h>

#include "util/text.h"

#define RANKS 3

// Types of controllers and the ports QEMU gives them; xHCI and OHCI can be asked.
static const struct {
    const char *prefix;
    enum topology_speed speed;
    unsigned ports, super_ports;
} types[] = {
    {"qemu-xhci", TOPOLOGY_XHCI, 4, 4},
    {"nec-usb-xhci", TOPOLOGY_XHCI, 4, 4},
    {"sysbus-xhci", TOPOLOGY_XHCI, 4, 4},
    {"usb-ehci", TOPOLOGY_EHCI, 6, 0},
    {"ich9-usb-ehci", TOPOLOGY_EHCI, 6, 0},
    {"piix3-usb-uhci", TOPOLOGY_FULL_SPEED, 2, 0},
    {"piix4-usb-uhci", TOPOLOGY_FULL_SPEED, 2, 0},
    {"ich9-usb-uhci", TOPOLOGY_FULL_SPEED, 2, 0},
    {"vt82c686b-usb-uhci", TOPOLOGY_FULL_SPEED, 2, 0},
    {"pci-ohci", TOPOLOGY_FULL_SPEED, 3, 0},
};

void topology_clear(struct topology *topology)
{
    for (size_t i = 0; i < topology->count; i++)
        for (unsigned port = 1; port <= TOPOLOGY_PORTS_MAX; port++)
            free(topology->buses[i].occupants[port]);
    free(topology->buses);
    *topology = (struct topology){0};
}

bool topology_add(struct topology *topology, const char *type, const char *path)
{
    if (topology->count == TOPOLOGY_BUSES_MAX || strlen(path) >= TOPOLOGY_PATH_MAX)
        return false;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strncmp(type, types[i].prefix, strlen(types[i].prefix)) != 0)
            continue;
        topology->buses = memory_resize(topology->buses, topology->count + 1, sizeof *topology->buses);
        struct topology_bus *bus = &topology->buses[topology->count++];
        *bus = (struct topology_bus){
            .speed = types[i].speed, .ports = types[i].ports, .super_ports = types[i].super_ports};
        memcpy(bus->path, path, strlen(path) + 1);
        return true;
    }
    return false;
}

void topology_set_ports(struct topology_bus *bus, const char *property, unsigned count)
{
    if (count > TOPOLOGY_PORTS_MAX)
        count = TOPOLOGY_PORTS_MAX;
    if (strcmp(property, "p3") == 0)
        bus->super_ports = count;
    else
        bus->ports = count;
}

void topology_set_companion(struct topology *topology, const char *master_bus)
{
    for (size_t i = 0; i < topology->count; i++)
        if (topology->buses[i].speed == TOPOLOGY_EHCI && strcmp(topology->buses[i].name, master_bus) == 0)
            topology->buses[i].companion = true;
}

void topology_take(struct topology_bus *bus, unsigned port, const char *object)
{
    free(bus->occupants[port]);
    bus->occupants[port] = string_copy(object);
}

void topology_occupy(struct topology *topology, const char *bus_path, unsigned port, const char *object)
{
    char path[TOPOLOGY_PATH_MAX + QOM_NAME_MAX + 1];
    if (port == 0 || port > TOPOLOGY_PORTS_MAX)
        return;
    for (size_t i = 0; i < topology->count; i++) {
        struct topology_bus *bus = &topology->buses[i];
        (void)snprintf(path, sizeof path, "%s/%s", bus->path, bus->name);
        if (bus->name[0] && strcmp(path, bus_path) == 0)
            topology_take(bus, port, object);
    }
}

void topology_vacate(struct topology *topology, const char *object)
{
    for (size_t i = 0; i < topology->count; i++)
        for (unsigned port = 1; port <= TOPOLOGY_PORTS_MAX; port++)
            if (string_equal(topology->buses[i].occupants[port], object))
                free(steal_pointer(&topology->buses[i].occupants[port]));
}

// How well a bus suits a speed: 0 is best, RANKS and more means not at all.
static unsigned rank(const struct topology_bus *bus, enum usb_speed speed)
{
    bool slow = speed == SPEED_LOW || speed == SPEED_FULL;
    if (!bus->name[0])
        return RANKS; // the companion of another has no bus of its own
    switch (bus->speed) {
    case TOPOLOGY_XHCI:
        return 0;
    case TOPOLOGY_EHCI:
        if (slow && !bus->companion)
            return RANKS;
        return slow || speed == SPEED_UNKNOWN ? 2 : 1;
    case TOPOLOGY_FULL_SPEED:
        return slow || speed == SPEED_UNKNOWN ? 1 : 2;
    }
    return RANKS;
}

static unsigned free_port(const struct topology_bus *bus, unsigned ports)
{
    for (unsigned port = ports; port > 0; port--)
        if (!bus->occupants[port])
            return port;
    return 0;
}

static unsigned free_port_for(const struct topology_bus *bus, enum usb_speed speed)
{
    unsigned port = speed == SPEED_SUPER ? free_port(bus, bus->super_ports) : 0;
    return port ? port : free_port(bus, bus->ports);
}

unsigned topology_port_count(const struct topology *topology, enum usb_speed speed)
{
    unsigned count = 0;
    for (size_t i = 0; i < topology->count; i++) {
        const struct topology_bus *bus = &topology->buses[i];
        bool more = speed == SPEED_SUPER && bus->super_ports > bus->ports;
        if (rank(bus, speed) < RANKS)
            count += more ? bus->super_ports : bus->ports;
    }
    return count;
}

enum topology_verdict topology_choose(const struct topology *topology, enum usb_speed speed, size_t *bus,
                                      unsigned *port)
{
    bool any = false, suits = false;
    for (unsigned wanted = 0; wanted < RANKS; wanted++) {
        for (size_t i = 0; i < topology->count; i++) {
            any = any || topology->buses[i].name[0];
            if (rank(&topology->buses[i], speed) != wanted)
                continue;
            suits = true;
            *bus = i;
            *port = free_port_for(&topology->buses[i], speed);
            if (*port)
                return TOPOLOGY_FOUND;
        }
    }
    if (!any)
        return TOPOLOGY_NO_CONTROLLER;
    return suits ? TOPOLOGY_NO_PORT : TOPOLOGY_TOO_SLOW;
}
