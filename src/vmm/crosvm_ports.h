// What is known of a crosvm's USB ports: it lists numbers of vendor and product only, so which device
// is on which port is remembered here. Pure.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/operation.h"
#include "vmm/crosvm_message.h"

// A device that may be on one of the ports: its attach was asked for and what came of it is not known.
struct crosvm_doubt {
    uint64_t instance;
    uint16_t vendor_id, product_id;
    bool leaked;     // crosvm said "no port": where it is, it does not work and must leave at once
    uint32_t before; // a bit for each port that was in use before
};

struct crosvm_ports {
    struct crosvm_port ports[CROSVM_PORTS + 1]; // as listed last
    uint64_t owners[CROSVM_PORTS + 1];          // the device instance that we put there; 0: not ours
    bool leaked[CROSVM_PORTS + 1];
    struct crosvm_doubt *doubts;
    size_t doubt_count;
};

void crosvm_ports_clear(struct crosvm_ports *ports);

// Takes a list: ports whose device is another one are ours no more, and doubts end where they can.
void crosvm_ports_take(struct crosvm_ports *ports, const struct crosvm_port listed[CROSVM_PORTS + 1]);

// The device is about to be attached, or was by an earlier run (ANYWHERE: then what was before is not known).
void crosvm_ports_doubt(struct crosvm_ports *ports, uint64_t instance, uint16_t vendor_id, uint16_t product_id,
                        bool anywhere);
// The attach failed, and the device is nowhere.
void crosvm_ports_drop(struct crosvm_ports *ports, uint64_t instance);
// The attach failed, and left the device on a port all the same, if the next list has it.
void crosvm_ports_leak(struct crosvm_ports *ports, uint64_t instance);
// The device is on PORT.
void crosvm_ports_own(struct crosvm_ports *ports, unsigned port, uint64_t instance, uint16_t vendor_id,
                      uint16_t product_id);

// The port of a device; 0: none.
unsigned crosvm_ports_find(const struct crosvm_ports *ports, uint64_t instance) CHECKED;
bool crosvm_ports_is_doubtful(const struct crosvm_ports *ports, uint64_t instance) CHECKED;
unsigned crosvm_ports_leaked(const struct crosvm_ports *ports) CHECKED; // a port to be freed; 0: none
bool crosvm_ports_are_full(const struct crosvm_ports *ports, bool super_speed) CHECKED;
// Reads the name of a port as crosvm_ports_list writes it; false if it is none.
bool crosvm_ports_parse(const char *object, unsigned *port) CHECKED;
struct attachment *crosvm_ports_list(const struct crosvm_ports *ports, size_t *count) CHECKED;
