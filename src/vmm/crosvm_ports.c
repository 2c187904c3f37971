// What is known of a crosvm's USB ports. A doubt ends at the next list: with no port that can be the
// device it is nowhere, with one it is there, and with several nobody can tell.
#include "vmm/crosvm_ports.h"

#include <stdio.h>
#include <string.h>

#include "util/text.h"

void crosvm_ports_clear(struct crosvm_ports *ports)
{
    free(ports->doubts);
    *ports = (struct crosvm_ports){0};
}

static struct crosvm_doubt *find_doubt(const struct crosvm_ports *ports, uint64_t instance)
{
    for (size_t i = 0; i < ports->doubt_count; i++)
        if (ports->doubts[i].instance == instance)
            return &ports->doubts[i];
    return NULL;
}

void crosvm_ports_drop(struct crosvm_ports *ports, uint64_t instance)
{
    struct crosvm_doubt *doubt = find_doubt(ports, instance);
    if (doubt)
        *doubt = ports->doubts[--ports->doubt_count];
}

void crosvm_ports_doubt(struct crosvm_ports *ports, uint64_t instance, uint16_t vendor_id, uint16_t product_id,
                        bool anywhere)
{
    crosvm_ports_drop(ports, instance);
    ports->doubts = memory_resize(ports->doubts, ports->doubt_count + 1, sizeof *ports->doubts);
    struct crosvm_doubt *doubt = &ports->doubts[ports->doubt_count++];
    *doubt = (struct crosvm_doubt){.instance = instance, .vendor_id = vendor_id, .product_id = product_id};
    for (unsigned port = 1; port <= CROSVM_PORTS && !anywhere; port++)
        if (ports->ports[port].used)
            doubt->before |= UINT32_C(1) << port;
}

void crosvm_ports_leak(struct crosvm_ports *ports, uint64_t instance)
{
    struct crosvm_doubt *doubt = find_doubt(ports, instance);
    if (doubt)
        doubt->leaked = true;
}

void crosvm_ports_own(struct crosvm_ports *ports, unsigned port, uint64_t instance, uint16_t vendor_id,
                      uint16_t product_id)
{
    crosvm_ports_drop(ports, instance);
    ports->ports[port] = (struct crosvm_port){true, vendor_id, product_id};
    ports->owners[port] = instance;
    ports->leaked[port] = false;
}

static bool may_be_on(const struct crosvm_ports *ports, const struct crosvm_doubt *doubt, unsigned port)
{
    const struct crosvm_port *listed = &ports->ports[port];
    return listed->used && !ports->owners[port] && listed->vendor_id == doubt->vendor_id &&
           listed->product_id == doubt->product_id && !(doubt->before >> port & 1);
}

// The ports that DOUBT may be on; PORT is one of them.
static unsigned count_candidates(const struct crosvm_ports *ports, const struct crosvm_doubt *doubt, unsigned *found)
{
    unsigned candidates = 0;
    for (unsigned port = 1; port <= CROSVM_PORTS; port++) {
        if (may_be_on(ports, doubt, port)) {
            *found = port;
            candidates++;
        }
    }
    return candidates;
}

static bool has_rival(const struct crosvm_ports *ports, const struct crosvm_doubt *doubt, unsigned port)
{
    for (size_t i = 0; i < ports->doubt_count; i++)
        if (&ports->doubts[i] != doubt && may_be_on(ports, &ports->doubts[i], port))
            return true;
    return false;
}

static void end_doubts(struct crosvm_ports *ports)
{
    for (size_t i = ports->doubt_count; i-- > 0;) {
        struct crosvm_doubt doubt = ports->doubts[i];
        unsigned port = 0, candidates = count_candidates(ports, &ports->doubts[i], &port);
        if (candidates > 1 || (candidates == 1 && has_rival(ports, &ports->doubts[i], port)))
            continue;
        crosvm_ports_drop(ports, doubt.instance);
        if (candidates == 1) {
            ports->owners[port] = doubt.instance;
            ports->leaked[port] = doubt.leaked;
        }
    }
}

void crosvm_ports_take(struct crosvm_ports *ports, const struct crosvm_port listed[CROSVM_PORTS + 1])
{
    for (unsigned port = 1; port <= CROSVM_PORTS; port++) {
        const struct crosvm_port *before = &ports->ports[port], *now = &listed[port];
        bool same =
            before->used && now->used && now->vendor_id == before->vendor_id && now->product_id == before->product_id;
        if (!same) {
            ports->owners[port] = 0;
            ports->leaked[port] = false;
        }
        ports->ports[port] = *now;
    }
    end_doubts(ports);
}

unsigned crosvm_ports_find(const struct crosvm_ports *ports, uint64_t instance)
{
    for (unsigned port = 1; port <= CROSVM_PORTS; port++)
        if (ports->owners[port] == instance)
            return port;
    return 0;
}

bool crosvm_ports_is_doubtful(const struct crosvm_ports *ports, uint64_t instance)
{
    return find_doubt(ports, instance) != NULL;
}

unsigned crosvm_ports_leaked(const struct crosvm_ports *ports)
{
    for (unsigned port = 1; port <= CROSVM_PORTS; port++)
        if (ports->leaked[port])
            return port;
    return 0;
}

bool crosvm_ports_are_full(const struct crosvm_ports *ports, bool super_speed)
{
    unsigned first = super_speed ? CROSVM_PORTS_OF_A_KIND + 1 : 1;
    for (unsigned port = first; port < first + CROSVM_PORTS_OF_A_KIND; port++)
        if (!ports->ports[port].used)
            return false;
    return true;
}

bool crosvm_ports_parse(const char *object, unsigned *port)
{
    unsigned long number = 0;
    if (!string_to_number(object, 10, CROSVM_PORTS, &number) || number == 0)
        return false;
    *port = (unsigned)number;
    return true;
}

struct attachment *crosvm_ports_list(const struct crosvm_ports *ports, size_t *count)
{
    struct attachment *attachments = memory_new(CROSVM_PORTS, sizeof *attachments);
    *count = 0;
    for (unsigned port = 1; port <= CROSVM_PORTS; port++) {
        if (!ports->ports[port].used)
            continue;
        struct attachment *attachment = &attachments[(*count)++];
        attachment->ours = ports->owners[port] != 0;
        attachment->instance = ports->owners[port];
        attachment->vendor_id = ports->ports[port].vendor_id;
        attachment->product_id = ports->ports[port].product_id;
        (void)snprintf(attachment->object, sizeof attachment->object, "%u", port);
    }
    return attachments;
}
