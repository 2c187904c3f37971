// The simulated world: devices come and go, VMs start and die, people change their minds.
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "util/text.h"

unsigned sim_random(struct sim *sim, unsigned below)
{
    uint64_t value = sim->random += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return (unsigned)((value ^ (value >> 31)) >> 33) % below;
}

bool sim_chance(struct sim *sim, unsigned percent)
{
    return sim_random(sim, 100) < percent;
}

void sim_say(struct sim *sim, const char *format, ...)
{
    if (!sim->verbose)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("%12.6f  ", (double)sim->now / 1e6);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

static char vm_names[SIM_VMS][4] = {"vm0", "vm1", "vm2"};
static char group_paths[SIM_KINDS][SIM_VMS][16] = {
    {"rule 0 for vm0", "rule 0 for vm1", "rule 0 for vm2"},
    {"rule 1 for vm0", "rule 1 for vm1", "rule 1 for vm2"},
    {"rule 2 for vm0", "rule 2 for vm1", "rule 2 for vm2"},
    {"rule 3 for vm0", "rule 3 for vm1", "rule 3 for vm2"},
};

static void stop_serving(struct sim *sim, struct sim_vm *vm)
{
    vm->told = false;
    if (vm->vmm->up)
        vm->vmm->up(sim, vm); // when it is served again
}

// Which VM devices of that kind go to, or several for people to choose from.
static void configure_kind(struct sim *sim, struct sim_config *config, unsigned kind, unsigned left_out)
{
    unsigned vm = sim_random(sim, SIM_VMS);
    bool chooses = sim_chance(sim, 40);
    config->allowed[kind] = vm != left_out && sim_chance(sim, 85);
    config->groups[kind] = (struct group){.path = group_paths[kind][vm],
                                          .vms = config->targets[kind],
                                          .vm_count = 1,
                                          .chooses = chooses,
                                          .skip_on_suspend = sim_chance(sim, 20)};
    config->targets[kind][0] = vm_names[vm];
    for (unsigned i = 0; chooses && i < SIM_VMS; i++)
        if (i != vm && i != left_out && sim_chance(sim, 70))
            config->targets[kind][config->groups[kind].vm_count++] = vm_names[i];
}

static void configure_api(struct sim *sim, struct api_config *api)
{
    static const uint64_t timeouts[] = {0, 500000, 15000000, UINT64_MAX};
    *api = (struct api_config){.enabled = sim_chance(sim, 85), .select_timeout = timeouts[sim_random(sim, 4)]};
}

void sim_configure(struct sim *sim, bool all_vms)
{
    struct sim_config *config = &sim->configs[!sim->config];
    *config = (struct sim_config){.config.vms = config->vms};
    unsigned left_out = all_vms || sim_chance(sim, 70) ? SIM_VMS : sim_random(sim, SIM_VMS);
    for (unsigned i = 0; i < SIM_VMS; i++)
        if (i != left_out)
            config->vms[config->config.vm_count++] =
                (struct vm_config){.name = vm_names[i], .type = sim->vms[i].vmm->type};
    for (unsigned i = 0; i < SIM_KINDS; i++)
        configure_kind(sim, config, i, left_out);
    configure_api(sim, &config->config.api);
    sim_people_reload(sim);
    sim->config = !sim->config;
    if (!sim->reconcile)
        return;
    sim_say(sim, "the configuration is reloaded");
    sim->kept_out.count = 0;
    for (unsigned i = 0; i < SIM_VMS; i++)
        sim->known[i] |= i != left_out;
    reconcile_configure(sim->reconcile, &config->config, sim->now);
    for (unsigned i = 0; i < SIM_VMS; i++) // who is not served any more is not watched
        if (!config_vm(&config->config, vm_names[i]) && !reconcile_needs_vm(sim->reconcile, vm_names[i]))
            stop_serving(sim, &sim->vms[i]);
}

const struct vm_config *config_vm(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->vm_count; i++)
        if (strcmp(config->vms[i].name, name) == 0)
            return &config->vms[i];
    return NULL;
}

// The last character is the port.
static char *key_of(unsigned port)
{
    return string_printf(port < SIM_PCI ? "usb:1-%u" : "pci:0000:01:00.%u", port);
}

bool sim_shares(const struct device *a, const struct device *b)
{
    return a && b && a->kind == DEVICE_PCI && b->kind == DEVICE_PCI && a->instance != b->instance &&
           a->iommu_group == b->iommu_group && a->iommu_group >= 0;
}

void sim_event(struct sim *sim, enum sim_event_kind kind, unsigned port, bool plugged)
{
    if (!sim->reconcile || sim->event_count == SIM_EVENTS)
        return;
    struct device *device = sim->ports[port].device;
    sim->events[(sim->event_first + sim->event_count++) % SIM_EVENTS] =
        (struct sim_event){.kind = kind,
                           .port = port,
                           .device = kind == EVENT_PRESENT ? device_reference(device) : NULL,
                           .instance = kind == EVENT_GONE && device && sim_chance(sim, 80) ? device->instance : 0,
                           .plugged = plugged};
}

static void tell_present(struct sim *sim, const struct sim_event *event)
{
    struct sim_port *port = &sim->ports[event->port];
    uint64_t instance = event->device->instance;
    bool new = !port->told || port->told->instance != instance;
    if (new && event->plugged)
        sim_set_add(&sim->managed, instance, 0);
    sim_say(sim, "tells: %s is kind %d, instance %llu%s%s", event->device->key, event->device->product_id,
            (unsigned long long)instance, event->plugged ? ", plugged" : "", event->device->host_use ? ", used" : "");
    if (port->told != event->device)
        sim->kept_out.count = 0; // policy may have changed its mind
    if (new)
        sim_people_told(sim, event->port, event->device, event->plugged);
    device_release(port->told);
    port->told = device_reference(event->device);
    reconcile_device(sim->reconcile, event->device, event->plugged, sim->now);
}

bool sim_deliver(struct sim *sim)
{
    if (!sim->event_count)
        return false;
    struct sim_event event = sim->events[sim->event_first];
    sim->event_first = (sim->event_first + 1) % SIM_EVENTS;
    sim->event_count--;
    struct sim_port *port = &sim->ports[event.port];
    CLEANUP(cleanup_free) char *key = key_of(event.port);
    if (event.kind == EVENT_PRESENT) {
        tell_present(sim, &event);
    } else if (event.kind == EVENT_SCANNED) {
        sim_say(sim, "tells: scanned");
        sim->scanned = true;
        reconcile_scanned(sim->reconcile, sim->now);
    } else if (port->told && (!event.instance || port->told->instance == event.instance)) {
        sim_say(sim, "tells: %s is gone", key);
        device_release(port->told);
        port->told = NULL;
        sim->wishes[event.port] = (struct sim_wish){0};
        reconcile_device_gone(sim->reconcile, key, event.instance, sim->now);
    }
    device_release(event.device);
    return true;
}

static void unplug(struct sim *sim, unsigned port, bool tell)
{
    struct device *device = sim->ports[port].device;
    if (!device)
        return;
    sim_say(sim, "%s is unplugged", device->key);
    sim->hand_kind = device->product_id;
    sim->hand_serial = device->serial ? *device->serial : '\0';
    if (tell)
        sim_event(sim, EVENT_GONE, port, false);
    for (unsigned i = 0; i < SIM_VMS; i++) {
        struct sim_object *object = sim_vm_object(&sim->vms[i], device->instance);
        if (object && sim_chance(sim, 50)) {
            if (sim->vms[i].vmm->type == VM_CROSVM)
                sim_crosvm_leave(&sim->vms[i], (unsigned)(object - sim->vms[i].objects));
            else
                object->dead = true;
        }
    }
    device_release(device);
    sim->ports[port].device = NULL;
}

static bool is_known_serial(const struct device *device, const char *serial)
{
    return device && string_equal(device->serial, serial);
}

// The one, or one that no other device has, or NULL. What the daemon knows or is about to be told counts too: two
// with one serial number are twins to it, which tests/unit has.
static char *new_serial(struct sim *sim, char hand)
{
    char serial[] = {hand ? hand : (char)('1' + sim_random(sim, SIM_SERIALS)), '\0'};
    bool used = !hand && sim_chance(sim, 60);
    for (unsigned i = 0; i < SIM_PORTS; i++)
        used |= is_known_serial(sim->ports[i].device, serial) || is_known_serial(sim->ports[i].told, serial);
    for (unsigned i = 0; i < sim->event_count; i++)
        used |= is_known_serial(sim->events[(sim->event_first + i) % SIM_EVENTS].device, serial);
    return used ? NULL : string_copy(serial);
}

static void plug_one(struct sim *sim, unsigned port, unsigned kind, char *serial)
{
    bool pci = port >= SIM_PCI;
    struct device *device = device_new(pci ? DEVICE_PCI : DEVICE_USB);
    device->key = key_of(port);
    device->instance = ++sim->counter;
    device->product_id = (uint16_t)kind;
    if (pci) {
        device->iommu_group = sim_chance(sim, 80) ? 7 : sim_chance(sim, 50) ? 8 : -1;
    } else {
        device->serial = serial;
        device->bus = 1;
        device->speed = kind < SIM_KINDS / 2 ? SPEED_HIGH : SPEED_SUPER;
        device->address = ++sim->next_address;
    }
    if (sim_chance(sim, 4))
        device->host_use = string_copy("the host lives on it");
    sim->ports[port].device = device;
    sim_say(sim, "%s is plugged: kind %u, instance %llu", device->key, kind, (unsigned long long)device->instance);
    sim_event(sim, EVENT_PRESENT, port, true);
}

static void plug(struct sim *sim, unsigned port, unsigned kind, char serial)
{
    plug_one(sim, port, kind, port < SIM_PCI ? new_serial(sim, serial) : NULL);
}

bool sim_sees_twice(const struct sim *sim, const char *serial)
{
    unsigned seen = 0;
    for (unsigned i = 0; i < SIM_PORTS; i++)
        seen += serial && is_known_serial(sim->ports[i].told, serial);
    return seen > 1;
}

static bool sees_any_twice(const struct sim *sim)
{
    for (unsigned i = 0; i < SIM_PORTS; i++)
        if (sim->ports[i].told && sim_sees_twice(sim, sim->ports[i].told->serial))
            return true;
    return false;
}

// The host tells of the new place before it tells that the old one is empty.
static bool move(struct sim *sim, unsigned from, unsigned to)
{
    struct device *device = sim->ports[from].device;
    if (!device->serial || sim->ports[to].device || sees_any_twice(sim) || sim->event_count + 2 > SIM_EVENTS)
        return false;
    uint64_t instance = device->instance;
    unsigned kind = device->product_id;
    char *serial = string_copy(device->serial);
    unplug(sim, from, false);
    plug_one(sim, to, kind, serial);
    sim_event(sim, EVENT_GONE, from, false);
    sim->events[(sim->event_first + sim->event_count - 1) % SIM_EVENTS].instance = instance;
    return true;
}

static void change_port(struct sim *sim)
{
    unsigned port = sim_random(sim, sim->port_count);
    struct device *device = sim->ports[port].device;
    if (!device) {
        bool hand = sim_chance(sim, 50); // it was in another port before
        plug(sim, port, hand ? sim->hand_kind : sim_random(sim, SIM_KINDS), hand ? sim->hand_serial : '\0');
        return;
    }
    if (sim->reconcile && sim_chance(sim, 25) && move(sim, port, sim_random(sim, SIM_PCI)))
        return;
    unsigned kind = sim_chance(sim, 70) ? device->product_id : sim_random(sim, SIM_KINDS); // a mode switch
    unplug(sim, port, sim_chance(sim, 85) || !sim->reconcile);
    if (sim_chance(sim, 60))
        plug(sim, port, kind, '\0');
    else
        sim_event(sim, EVENT_GONE, port, false);
}

static bool is_in_a_vm(struct sim *sim, const struct device *device)
{
    for (unsigned i = 0; i < SIM_VMS; i++)
        if (sim_vm_object(&sim->vms[i], device->instance))
            return true;
    return false;
}

// The host begins or ends to live on a device.
static void change_use(struct sim *sim)
{
    unsigned port = sim_random(sim, sim->port_count);
    struct device *device = sim->ports[port].device;
    if (!device || is_in_a_vm(sim, device))
        return;
    struct device *changed = device_new(device->kind);
    changed->iommu_group = device->iommu_group;
    changed->key = string_copy(device->key);
    changed->instance = device->instance;
    changed->product_id = device->product_id;
    changed->serial = string_copy(device->serial);
    changed->bus = device->bus;
    changed->speed = device->speed;
    changed->address = device->address;
    changed->host_use = device->host_use ? NULL : string_copy("the host lives on it");
    sim->ports[port].device = changed;
    device_release(device);
    sim_event(sim, EVENT_PRESENT, port, true);
}

static void change_vm(struct sim *sim, struct sim_vm *vm)
{
    unsigned what = sim_random(sim, 6);
    if (!vm->process) {
        sim_vm_start(sim, vm);
    } else if (what < 2) {
        sim_vm_kill(sim, vm);
        if (what == 0)
            sim_vm_start(sim, vm); // perhaps before anybody has noticed
    } else if (what < 4) {
        vm->hung = !vm->hung;
        sim_say(sim, "%s %s", vm->name, vm->hung ? "hangs" : "goes on");
    } else {
        vm->capacity = 1 + sim_random(sim, 5);
        vm->unnoticed = true;
        vm->full = sim_chance(sim, 50) ? RESULT_REFUSED : RESULT_RETRY;
        vm->patient = sim_chance(sim, 30);
    }
}

static void eject(struct sim *sim, struct sim_vm *vm, unsigned index)
{
    sim_say(sim, "%s loses %s by itself", vm->name, vm->objects[index].name);
    const struct sim_object *object = &vm->objects[index];
    bool detaching = vm->busy && vm->operation.kind == OPERATION_DETACH;
    if (object->ours)
        sim_set_add(&sim->ejected, object->instance, vm->process);
    if (object->ours && vm->told && !vm->must_list && !detaching && !vm->doubled && !object->dead && !object->asked &&
        object->told)
        sim_set_add(&sim->kept_out, object->instance, vm->process);
    if (vm->vmm->type == VM_CROSVM)
        sim_crosvm_leave(vm, index);
    else
        sim_vm_remove(vm, index);
    vm->unnoticed = true;
}

static void change_object(struct sim *sim, struct sim_vm *vm)
{
    struct device *device = sim->ports[sim_random(sim, sim->port_count)].device;
    bool crosvm = vm->vmm->type == VM_CROSVM;
    unsigned given = 0;
    if (crosvm && device && device->kind == DEVICE_PCI) // only at its start
        device = NULL;
    if (device && vm->process && sim_chance(sim, crosvm ? 40 : 20))
        given = crosvm && sim_chance(sim, 20) ? CROSVM_PORTS_OF_A_KIND : 1;
    while (given--) {
        const struct sim_object *object = sim_vm_add(sim, vm, false, device);
        sim_say(sim, "%s is given %s as %s by another tool", vm->name, device->key, object ? object->name : "-");
        vm->unnoticed = true;
    }
    if (!vm->count)
        return;
    unsigned index = sim_random(sim, vm->count);
    struct sim_object *object = &vm->objects[index];
    if (!object->ours) {
        if (crosvm && sim_chance(sim, 70))
            return;
        vm->unnoticed |= vm->full == RESULT_REFUSED || crosvm; // a free port that nobody sees is found with luck only
        if (crosvm)
            sim_crosvm_leave(vm, index);
        else
            sim_vm_remove(vm, index);
    } else if (object->leaving) {
        if (sim_chance(sim, 70))
            sim_vm_remove(vm, index); // the guest lets go
        else
            object->leaving = false; // the guest does not want to
    } else if (crosvm || sim_chance(sim, 60)) {
        eject(sim, vm, index);
    } else {
        object->dead = true;
        vm->unnoticed = true;
    }
}

// Whether the memory knows of an attach in VM already whose outcome it does not know; one is at a time.
static bool in_flight(const struct sim *sim, const struct sim_vm *vm)
{
    for (size_t i = 0; i < sim->memory.count; i++)
        if (string_equal(sim->memory.devices[i].vm, vm->name) && !sim->memory.devices[i].object)
            return true;
    return false;
}

// What crosvm has is known once only: a device is in one place, and a port has one device.
static void forget(struct sim *sim, const struct sim_vm *vm, const struct device *device,
                   const struct sim_object *object)
{
    struct memory *memory = &sim->memory;
    for (size_t i = memory->count; i-- > 0;) {
        struct memory_device *entry = &memory->devices[i];
        bool same_port = string_equal(entry->vm, vm->name) && string_equal(entry->object, object->name);
        if (entry->instance != device->instance && !same_port)
            continue;
        memory_device_clear(entry);
        *entry = memory->devices[--memory->count];
    }
}

static void remember(struct sim *sim, const struct sim_vm *vm, const struct device *device,
                     const struct sim_object *object)
{
    bool named = vm->vmm->type == VM_CROSVM &&
                 (sim_chance(sim, 80) || in_flight(sim, vm) || !config_vm(&sim->configs[sim->config].config, vm->name));
    if (vm->vmm->type == VM_CROSVM)
        forget(sim, vm, device, object);
    memory_add(&sim->memory, &(struct memory_device){.key = device->key,
                                                     .instance = device->instance,
                                                     .managed = sim_present(sim, device->instance) != NULL,
                                                     .vm = (char *)vm->name,
                                                     .vm_instance = vm->anonymous ? 0 : vm->process,
                                                     .object = named ? (char *)object->name : NULL,
                                                     .product_id = device->product_id});
}

static void plant_stale(struct sim *sim, struct sim_vm *vm)
{
    struct device stale = {.key = (char[]){"usb:1-9"}, .instance = ++sim->counter};
    const struct sim_object *object = sim_vm_add(sim, vm, true, &stale);
    if (object && vm->vmm->type == VM_CROSVM)
        remember(sim, vm, &stale, object);
}

// Whether another VM has the function or another one of its IOMMU group.
static bool is_group_elsewhere(struct sim *sim, const struct sim_vm *vm, const struct device *device)
{
    bool elsewhere = false;
    for (unsigned i = 0; i < SIM_VMS; i++)
        for (unsigned p = SIM_PCI; &sim->vms[i] != vm && p < SIM_PORTS; p++) {
            const struct device *other = sim->ports[p].device;
            bool same = other == device || sim_shares(other, device);
            elsewhere |= same && sim_vm_object(&sim->vms[i], other->instance);
        }
    return elsewhere;
}

// A daemon of before leaves something behind, and its memory says so.
static void plant(struct sim *sim, struct sim_vm *vm)
{
    struct device *device = sim->ports[sim_random(sim, sim->port_count)].device;
    bool zombies = false, crosvm = vm->vmm->type == VM_CROSVM;
    for (unsigned i = 0; i < SIM_VMS; i++)
        zombies = zombies || sim->vms[i].zombie;
    if (!vm->process || !device || zombies)
        return;
    if (sim_chance(sim, 50)) {
        plant_stale(sim, vm);
        return;
    }
    if (device->kind == DEVICE_PCI && (crosvm || is_group_elsewhere(sim, vm, device)))
        return;
    if ((is_in_a_vm(sim, device) && (crosvm || !sim_vm_object(vm, device->instance))) || device->host_use)
        return;
    vm->doubled |= sim_vm_object(vm, device->instance) != NULL;
    const struct sim_object *object = sim_vm_add(sim, vm, true, device);
    if (object || !crosvm)
        remember(sim, vm, device, object);
    sim_say(sim, "%s has %s as %s from before", vm->name, device->key, object ? object->name : "-");
}

// The monitor's buffer overflowed: what is left is a scan.
static void overflow(struct sim *sim)
{
    if (!sim->scanned)
        return;
    sim_say(sim, "events are lost, the host is scanned again");
    while (sim->event_count)
        device_release(sim->events[(sim->event_first + --sim->event_count) % SIM_EVENTS].device);
    for (unsigned i = 0; i < SIM_PORTS; i++)
        sim_event(sim, sim->ports[i].device ? EVENT_PRESENT : EVENT_GONE, i, true);
}

static void while_daemon_is_dead(struct sim *sim, struct sim_vm *vm)
{
    unsigned what = sim_random(sim, 6);
    if (what < 2) {
        sim_daemon_start(sim);
    } else if (what == 2) {
        plant(sim, vm);
    } else if (what == 3 && sim_chance(sim, 20)) {
        for (unsigned i = 0; i < SIM_VMS; i++) // a reboot
            sim_vm_kill(sim, &sim->vms[i]);
        memory_clear(&sim->memory);
    }
}

static void disturb_daemon(struct sim *sim, struct sim_vm *vm)
{
    switch (sim_random(sim, 6)) {
    case 0:
        if (sim_chance(sim, 30))
            sim_daemon_kill(sim);
        break;
    case 1:
        if (sim_chance(sim, 50))
            sim_configure(sim, false);
        break;
    case 2:
        overflow(sim);
        break;
    case 3:
        sim_vm_news(sim, vm);
        break;
    case 4:
    default:
        if (vm->busy)
            reconcile_vm_silent(sim->reconcile, vm->name, "no greeting for 2 s", sim->now);
        break;
    }
}

static void time_passes(struct sim *sim)
{
    if (sees_any_twice(sim)) // a moment only
        return;
    static const unsigned steps[] = {1, 1000, 100000, 1000000, 40000000};
    sim->now += 1 + sim_random(sim, steps[sim_random(sim, 5)]);
}

void sim_chaos(struct sim *sim)
{
    struct sim_vm *vm = &sim->vms[sim_random(sim, SIM_VMS)];
    unsigned what = sim_random(sim, 100);
    if (sim_chance(sim, 40))
        time_passes(sim);
    if (sim->reconcile && sim_chance(sim, 6) && !sees_any_twice(sim))
        sim_people_ask(sim);
    else if (what < 8)
        change_port(sim);
    else if (what < 10)
        change_use(sim);
    else if (what < 14)
        change_vm(sim, vm);
    else if (what < 20)
        change_object(sim, vm);
    else if (!sim->reconcile)
        while_daemon_is_dead(sim, vm);
    else if (what < 25)
        disturb_daemon(sim, vm);
    else if (what < 45)
        sim_deliver(sim);
    else if (what < 60)
        sim_vm_tell(sim, vm);
    else
        sim_vm_progress(sim, vm);
}

void sim_init(struct sim *sim, uint64_t seed, bool verbose)
{
    *sim = (struct sim){.random = seed, .verbose = verbose, .now = 1000000};
    sim->port_count = sim_chance(sim, 50) ? SIM_PORTS : SIM_PCI;
    for (unsigned i = 0; i < SIM_VMS; i++) {
        struct sim_vm *vm = &sim->vms[i];
        *vm = (struct sim_vm){
            .vmm = sim_chance(sim, 50) ? &sim_qemu : &sim_crosvm, .capacity = 4, .full = RESULT_REFUSED};
        memcpy(vm->name, vm_names[i], sizeof(vm_names[i]));
        if (sim_chance(sim, 50))
            sim_vm_start(sim, vm);
    }
    for (unsigned i = 0; i < sim->port_count; i++)
        if (sim_chance(sim, 30))
            plug(sim, i, sim_random(sim, SIM_KINDS), '\0');
    sim_configure(sim, true);
    sim_daemon_start(sim);
}

void sim_clear(struct sim *sim)
{
    sim_daemon_kill(sim);
    for (unsigned i = 0; i < SIM_PORTS; i++)
        device_release(sim->ports[i].device);
    for (unsigned i = 0; i < SIM_VMS; i++)
        sim_vm_clear(&sim->vms[i]);
    memory_clear(&sim->memory);
    memory_clear(&sim->at_start);
    choices_clear(&sim->choices);
}
