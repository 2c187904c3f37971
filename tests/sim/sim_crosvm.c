// Simulated crosvm, with the back end that speaks to it: objects are ports, which are used anew at once,
// and which device is on a port only the back end knows: by its real crosvm_ports.c.
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "util/text.h"

#define FOREIGN_PRODUCT 100 // numbers that no device of ours has

static struct sim_object *object_at(struct sim_vm *vm, unsigned port)
{
    for (unsigned i = 0; i < vm->count; i++)
        if (vm->objects[i].port == port)
            return &vm->objects[i];
    return NULL;
}

static unsigned port_of(const char *name)
{
    unsigned port = 0;
    return name && crosvm_ports_parse(name, &port) ? port : 0;
}

// ---- what nobody could tell, and so does not happen: a foreign device with the numbers of one of ours is
// taken for it where it takes over its port unseen, or comes while it is not known whether ours is there

static bool is_of_process(const struct memory_device *entry, const struct sim_vm *vm, unsigned product)
{
    return entry->vm && strcmp(entry->vm, vm->name) == 0 && entry->vm_instance == vm->process &&
           entry->product_id == product;
}

static bool memory_misleads(const struct memory *memory, const struct sim_vm *vm, unsigned port, unsigned product)
{
    for (size_t i = 0; i < memory->count; i++) {
        const struct memory_device *entry = &memory->devices[i];
        if (is_of_process(entry, vm, product) && (!entry->object || port_of(entry->object) == port))
            return true;
    }
    return false;
}

static bool would_be_taken_for_ours(const struct sim *sim, const struct sim_vm *vm, unsigned port, unsigned product)
{
    const struct crosvm_ports *ports = &vm->ports;
    for (size_t i = 0; i < ports->doubt_count; i++)
        if (ports->doubts[i].product_id == product)
            return true;
    return (ports->owners[port] && ports->ports[port].product_id == product) ||
           memory_misleads(&sim->memory, vm, port, product) || memory_misleads(&sim->at_start, vm, port, product);
}

// Foreign devices with these numbers leave: people take all of them out together, as they are told.
void sim_crosvm_part(struct sim_vm *vm, unsigned product)
{
    for (unsigned i = vm->count; i-- > 0;)
        if (!vm->objects[i].ours && vm->objects[i].product == product)
            sim_vm_remove(vm, i);
}

void sim_crosvm_leave(struct sim_vm *vm, unsigned index)
{
    struct sim_object object = vm->objects[index];
    sim_vm_remove(vm, index);
    if (!object.ours || vm->ports.owners[object.port] != object.instance)
        sim_crosvm_part(vm, object.product);
}

static bool is_remembered_as_another(struct sim_vm *vm, const struct memory_device *entry)
{
    const struct sim_object *object = entry->object ? object_at(vm, port_of(entry->object)) : NULL;
    return object && object->ours && object->instance != entry->instance && is_of_process(entry, vm, object->product);
}

// After a kill of the daemon, for its memory is all that is left.
static void crosvm_clarify(struct sim *sim, struct sim_vm *vm)
{
    for (size_t i = 0; i < sim->memory.count; i++) {
        const struct memory_device *entry = &sim->memory.devices[i];
        if (string_equal(entry->vm, vm->name) && is_remembered_as_another(vm, entry))
            sim_vm_remove(vm, (unsigned)(object_at(vm, port_of(entry->object)) - vm->objects));
    }
    for (size_t i = 0; i < sim->memory.count; i++) {
        const struct memory_device *entry = &sim->memory.devices[i];
        if (!entry->vm || strcmp(entry->vm, vm->name) != 0)
            continue;
        struct sim_object *object = entry->object ? NULL : sim_vm_object(vm, entry->instance);
        // What was on its way to a VM that is not configured any more is forgotten when its device goes.
        if (object && !config_vm(&sim->configs[sim->config].config, vm->name))
            sim_vm_remove(vm, (unsigned)(object - vm->objects));
        if (!entry->object && !sim_vm_object(vm, entry->instance))
            sim_crosvm_part(vm, entry->product_id);
    }
}

static bool crosvm_place(struct sim *sim, struct sim_vm *vm, struct sim_object *object, const struct device *device)
{
    unsigned first = device->speed == SPEED_SUPER ? CROSVM_PORTS_OF_A_KIND + 1 : 1, port = first;
    while (port < first + CROSVM_PORTS_OF_A_KIND && object_at(vm, port))
        port++;
    if (port == first + CROSVM_PORTS_OF_A_KIND)
        return false;
    object->port = port;
    object->product = device->product_id;
    if (!object->ours && (sim_chance(sim, 50) || would_be_taken_for_ours(sim, vm, port, object->product)))
        object->product += FOREIGN_PRODUCT;
    snprintf(object->name, sizeof(object->name), "%u", port);
    return true;
}

// ---- what the back end knows, in the back end's own words

static void crosvm_up(struct sim *sim, struct sim_vm *vm)
{
    crosvm_ports_clear(&vm->ports);
    vm->broken = false;
    for (size_t i = 0; vm->process && i < sim->at_start.count; i++) {
        const struct memory_device *entry = &sim->at_start.devices[i];
        unsigned port = port_of(entry->object);
        if (!entry->vm || strcmp(entry->vm, vm->name) != 0 || entry->vm_instance != vm->process)
            continue;
        if (port)
            crosvm_ports_own(&vm->ports, port, entry->instance, 0, entry->product_id);
        else if (!crosvm_ports_find(&vm->ports, entry->instance))
            crosvm_ports_doubt(&vm->ports, entry->instance, 0, entry->product_id, true);
    }
}

// Nobody can tell which of several it is: it is as if another tool had put it there.
static void lose_sight(struct sim *sim, struct sim_vm *vm, uint64_t instance)
{
    struct sim_object *object = sim_vm_object(vm, instance);
    if (!object)
        return;
    unsigned others = 0;
    for (unsigned i = 0; i < vm->count; i++)
        others += !vm->objects[i].ours && vm->objects[i].product == object->product;
    for (size_t i = 0; i < vm->ports.doubt_count; i++) // one that was lost sight of before may be there as well
        others += vm->ports.doubts[i].product_id == object->product &&
                  sim_set_has(&sim->astray, vm->ports.doubts[i].instance, vm->process);
    if (!others)
        sim_fail(sim, "loses sight of port %s of %s, where nobody else has put such a device", object->name, vm->name);
    sim_say(sim, "nobody can tell any more what is on port %s of %s", object->name, vm->name);
    sim_set_add(&sim->astray, instance, vm->process);
    object->ours = false;
    object->instance = 0;
    if (sim->calm) { // people take it out, as they do with all that others have put in
        sim_vm_remove(vm, (unsigned)(object - vm->objects));
        vm->unnoticed = true;
    }
}

static void take_list(struct sim *sim, struct sim_vm *vm)
{
    struct crosvm_port listed[CROSVM_PORTS + 1] = {0};
    for (unsigned i = 0; i < vm->count; i++)
        listed[vm->objects[i].port] = (struct crosvm_port){true, 0, (uint16_t)vm->objects[i].product};
    crosvm_ports_take(&vm->ports, listed);
    for (size_t i = 0; i < vm->ports.doubt_count; i++)
        lose_sight(sim, vm, vm->ports.doubts[i].instance);
}

// Frees a port that must be one of ours.
static void free_port(struct sim *sim, struct sim_vm *vm, unsigned port)
{
    const struct sim_object *object = object_at(vm, port);
    if (!object || !object->ours || object->instance != vm->ports.owners[port])
        sim_fail(sim, "removes port %u of %s, which another device has taken", port, vm->name);
    else
        sim_vm_remove(vm, (unsigned)(object - vm->objects));
}

// Every list frees what has leaked.
static void ask_list(struct sim *sim, struct sim_vm *vm)
{
    take_list(sim, vm);
    unsigned port = crosvm_ports_leaked(&vm->ports);
    if (!port)
        return;
    free_port(sim, vm, port);
    take_list(sim, vm);
}

static void finish_listed(struct sim_vm *vm, enum result_kind kind, const char *text)
{
    sim_vm_finish(vm, kind, text);
    free(vm->result.attachments);
    vm->result.attachments = crosvm_ports_list(&vm->ports, &vm->result.attachment_count);
    vm->result.listed = true;
}

// ---- operations; where the connection is lost, what was asked is done and no answer is read

static void no_port(struct sim *sim, struct sim_vm *vm, uint64_t instance, bool super_speed)
{
    crosvm_ports_leak(&vm->ports, instance);
    if (vm->booting && !sim->calm && sim_chance(sim, 20)) {
        vm->lost = true; // before the port is freed again
        return;
    }
    ask_list(sim, vm);
    if (crosvm_ports_are_full(&vm->ports, super_speed)) {
        sim_set_add(&sim->refused, instance, vm->process);
        finish_listed(vm, RESULT_REFUSED, "all 8 USB ports are in use");
    } else {
        finish_listed(vm, RESULT_RETRY, "the guest is not ready for USB yet");
    }
}

static void ask_attach(struct sim *sim, struct sim_vm *vm, const struct device *device)
{
    bool late = !sim->calm && sim_chance(sim, 5);
    const struct sim_object *object = late ? NULL : sim_vm_add(sim, vm, true, device);
    bool leaks = object && vm->booting && !sim->calm;
    if (leaks) {
        sim_say(sim, "port %s of %s leaks", object->name, vm->name);
        vm->booting = sim_chance(sim, 60);
    }
    if (vm->lost || (leaks && sim_chance(sim, 20))) {
        vm->lost = true;
        return;
    }
    if (!late && (leaks || !object)) {
        no_port(sim, vm, device->instance, device->speed == SPEED_SUPER);
        return;
    }
    if (object && sim_chance(sim, 70)) // else its answer comes too late to be told from others
        crosvm_ports_own(&vm->ports, object->port, device->instance, 0, device->product_id);
    ask_list(sim, vm);
    bool done = crosvm_ports_find(&vm->ports, device->instance) != 0;
    finish_listed(vm, done ? RESULT_DONE : RESULT_RETRY, done ? "" : "it did not answer in time");
}

static void execute_attach(struct sim *sim, struct sim_vm *vm)
{
    const struct device *asked = vm->operation.device, *device = sim_present(sim, asked->instance);
    ask_list(sim, vm);
    if (crosvm_ports_find(&vm->ports, asked->instance)) {
        finish_listed(vm, RESULT_DONE, "");
        return;
    }
    if (crosvm_ports_is_doubtful(&vm->ports, asked->instance)) {
        sim_set_add(&sim->refused, asked->instance, vm->process);
        finish_listed(vm, RESULT_REFUSED, "vhotplug cannot tell whether it is this device");
        return;
    }
    crosvm_ports_doubt(&vm->ports, asked->instance, 0, asked->product_id, false);
    sim_check_execute(sim, vm);
    bool fails = device && (device->host_use || (!sim->calm && sim_chance(sim, 5)));
    if (device && !fails) {
        ask_attach(sim, vm, device);
        return;
    }
    if (vm->lost)
        return;
    crosvm_ports_drop(&vm->ports, asked->instance);
    if (fails)
        sim_set_add(&sim->refused, asked->instance, vm->process);
    sim_vm_finish(vm, fails ? RESULT_REFUSED : RESULT_GONE, fails ? "crosvm cannot open it" : "it cannot be read");
}

static void execute_detach(struct sim *sim, struct sim_vm *vm)
{
    ask_list(sim, vm);
    unsigned port = port_of(vm->operation.object);
    if (!vm->ports.owners[port]) {
        finish_listed(vm, RESULT_DONE, "");
        return;
    }
    bool late = !sim->calm && sim_chance(sim, 10);
    if (!late)
        free_port(sim, vm, port);
    if (vm->lost)
        return;
    if (!late)
        vm->ports.owners[port] = 0;
    ask_list(sim, vm);
    finish_listed(vm, late ? RESULT_RETRY : RESULT_DONE, late ? "it did not answer in time" : "");
}

static void crosvm_execute(struct sim *sim, struct sim_vm *vm)
{
    if (!sim->calm && sim_random(sim, 300) == 0)
        vm->broken = true;
    if (vm->broken) {
        sim_vm_finish(vm, RESULT_REFUSED, "its USB no longer answers: restart the VM");
    } else if (vm->operation.kind == OPERATION_ATTACH) {
        execute_attach(sim, vm);
    } else if (vm->operation.kind == OPERATION_DETACH) {
        execute_detach(sim, vm);
    } else if (!sim->calm && sim_chance(sim, 10)) {
        sim_vm_finish(vm, RESULT_RETRY, "it cannot be asked");
    } else {
        ask_list(sim, vm);
        finish_listed(vm, RESULT_DONE, "");
    }
}

static uint64_t crosvm_owner(const struct sim_vm *vm, const char *name)
{
    return vm->ports.owners[port_of(name)];
}

const struct sim_vmm sim_crosvm = {.type = VM_CROSVM,
                                   .execute = crosvm_execute,
                                   .place = crosvm_place,
                                   .up = crosvm_up,
                                   .clarify = crosvm_clarify,
                                   .owner = crosvm_owner};
