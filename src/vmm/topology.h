// The USB buses of a VM and which of their ports are free: the choice of bus and port, which QEMU
// would make badly by itself. Pure: filled from outside.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/device.h"
#include "core/operation.h"
#include "util/cleanup.h"
#include "vmm/qom.h"

#define TOPOLOGY_PATH_MAX (2UL * QOM_NAME_MAX)
#define TOPOLOGY_PORTS_MAX 32
#define TOPOLOGY_BUSES_MAX 32

enum topology_speed { TOPOLOGY_XHCI, TOPOLOGY_EHCI, TOPOLOGY_FULL_SPEED };

struct topology_bus {
    enum topology_speed speed;
    char path[TOPOLOGY_PATH_MAX];            // of the controller in QOM
    char name[QOM_NAME_MAX];                 // "xhci.0", as `bus=` takes it; "" until known
    unsigned ports;                          // that take low, full and high speed: numbers 1 to this
    unsigned super_ports;                    // xHCI: that take super speed: numbers 1 to this
    bool companion;                          // EHCI: an UHCI or OHCI serves its slower devices
    char *occupants[TOPOLOGY_PORTS_MAX + 1]; // by port number; NULL when free
};

struct topology {
    struct topology_bus *buses;
    size_t count;
};

void topology_clear(struct topology *topology);

// Adds the controller of that type at PATH; false if the type is no USB controller, or there are too many.
bool topology_add(struct topology *topology, const char *type, const char *path) CHECKED;

// Sets what a property of a controller says: "p2" and "p3" of xHCI, "num-ports" of OHCI.
void topology_set_ports(struct topology_bus *bus, const char *property, unsigned count);
// A controller serves the slow devices of the EHCI whose bus has that name.
void topology_set_companion(struct topology *topology, const char *master_bus);
// OBJECT has that port of BUS.
void topology_take(struct topology_bus *bus, unsigned port, const char *object);
// OBJECT, asked for with that port, is on the bus at BUS_PATH.
void topology_occupy(struct topology *topology, const char *bus_path, unsigned port, const char *object);
// OBJECT has gone.
void topology_vacate(struct topology *topology, const char *object);

enum topology_verdict { TOPOLOGY_FOUND, TOPOLOGY_NO_CONTROLLER, TOPOLOGY_TOO_SLOW, TOPOLOGY_NO_PORT };

// The best free port for a device of SPEED. Ports are taken from the top, as QEMU gives those that
// nobody asked for from the bottom.
enum topology_verdict topology_choose(const struct topology *topology, enum usb_speed speed, size_t *bus,
                                      unsigned *port) CHECKED;
// How many ports suit a device of SPEED, free or not.
unsigned topology_port_count(const struct topology *topology, enum usb_speed speed) CHECKED;
