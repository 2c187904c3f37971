// What must be true: after every step, and when all has become calm.
#include <stdarg.h>
#include <string.h>

#include "sim.h"
#include "util/text.h"

#define ROUNDS_MAX 3000
#define AN_HOUR 3600000000u

void sim_fail(struct sim *sim, const char *format, ...)
{
    if (*sim->failure)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sim->failure, sizeof(sim->failure), format, arguments);
    va_end(arguments);
    sim_say(sim, "FAILURE: %s", sim->failure);
}

static const struct device *told_device(const struct sim *sim, uint64_t instance)
{
    for (unsigned i = 0; i < SIM_PORTS; i++)
        if (sim->ports[i].told && sim->ports[i].told->instance == instance)
            return sim->ports[i].told;
    return NULL;
}

static bool is_managed(const struct sim *sim, uint64_t instance)
{
    for (size_t i = 0; i < sim->at_start.count; i++)
        if (sim->at_start.devices[i].managed && sim->at_start.devices[i].instance == instance)
            return true;
    return sim->attach_connected || sim_set_has(&sim->managed, instance, 0);
}

// Its guest took it out, or the guest of another VM that it may be in, where nothing was said against that.
static bool is_kept_out(struct sim *sim, const struct device *told, const struct sim_vm *vm)
{
    const struct sim_wish *wish = sim_people_wish(sim, told->instance);
    bool free = !wish || wish->loose || *wish->vm; // people have a say in where it is
    for (unsigned i = 0; i < SIM_VMS; i++) {
        const struct sim_vm *other = &sim->vms[i];
        bool runs = !free && other->told_process && other->told_process == other->process;
        if (other == vm || (runs && sim_policy_allows(sim, told, other->name)))
            if (sim_set_has(&sim->kept_out, told->instance, other->told_process))
                return true;
    }
    return false;
}

static void check_attach(struct sim *sim, const struct sim_vm *vm, const struct operation *operation)
{
    uint64_t instance = operation->device->instance;
    const struct device *told = told_device(sim, instance);
    if (!told) {
        sim_fail(sim, "attaches what it was told is gone");
        return;
    }
    const char *forbidden = sim_people_forbid(sim, told, vm->name);
    if (told->host_use || !sim_policy_allows(sim, told, vm->name))
        sim_fail(sim, "attaches %s to %s, which policy does not allow", told->key, vm->name);
    if (forbidden)
        sim_fail(sim, "attaches %s to %s, %s", told->key, vm->name, forbidden);
    if (is_kept_out(sim, told, vm))
        sim_fail(sim, "attaches %s to %s, though a guest took it out", told->key, vm->name);
    if (!is_managed(sim, instance))
        sim_fail(sim, "attaches %s, which was there before, without -a", told->key);
    if (!sim_remembers(&sim->memory, instance, vm))
        sim_fail(sim, "attaches %s to %s before that is on disk", told->key, vm->name);
}

// Of a device that is there, or was.
static void check_removal(struct sim *sim, const struct sim_vm *vm, const char *name, uint64_t instance, bool doomed)
{
    const struct device *told = told_device(sim, instance);
    const struct sim_wish *wish = sim_people_wish(sim, instance);
    bool moves = told && sim_people_detached(sim, told) && sim_sees_twice(sim, told->serial);
    bool loose = moves || (wish && wish->loose);
    if (told && sim_policy_allows(sim, told, vm->name) && !sim_people_forbid(sim, told, vm->name) && !doomed && !loose)
        sim_fail(sim, "removes %s from %s, where it belongs", told->key, vm->name);
    if (!told && !sim->scanned)
        sim_fail(sim, "removes %s before the scan is complete", name);
}

static void check_detach(struct sim *sim, const struct sim_vm *vm, const struct operation *operation)
{
    if (vm->vmm->owner) { // whether it is still there is seen when it is carried out
        uint64_t instance = vm->vmm->owner(vm, operation->object);
        if (!instance)
            sim_fail(sim, "removes %s, which is not ours", operation->object);
        check_removal(sim, vm, operation->object, instance, false);
        return;
    }
    for (unsigned i = 0; i < vm->count; i++) {
        const struct sim_object *object = &vm->objects[i];
        if (strcmp(object->name, operation->object) != 0)
            continue;
        if (!object->ours)
            sim_fail(sim, "removes %s, which is not ours", object->name);
        check_removal(sim, vm, object->name, object->instance, object->dead || vm->doubled);
    }
}

// Functions of one IOMMU group are never on their way into two VMs.
static void check_group(struct sim *sim, const struct sim_vm *vm, const struct operation *operation)
{
    for (unsigned i = 0; i < SIM_VMS; i++) {
        const struct sim_vm *other = &sim->vms[i];
        bool attaches = other->busy && !other->executed && other->operation.kind == OPERATION_ATTACH &&
                        other->operation_process == other->process;
        if (other != vm && attaches && sim_shares(other->operation.device, operation->device))
            sim_fail(sim, "attaches %s to %s while %s is on its way to %s", operation->device->key, vm->name,
                     other->operation.device->key, other->name);
    }
    if (vm->vmm->type != VM_QEMU && operation->device->kind == DEVICE_PCI)
        sim_fail(sim, "attaches %s to %s, which takes none while it runs", operation->device->key, vm->name);
}

void sim_check_operation(struct sim *sim, struct sim_vm *vm, const struct operation *operation)
{
    if (vm->busy)
        sim_fail(sim, "a second operation in flight in %s", vm->name);
    else if (!vm->told_process)
        sim_fail(sim, "an operation for %s, which is down", vm->name);
    else if (!sim_people_saved(sim))
        sim_fail(sim, "an operation for %s before what people decided is on disk", vm->name);
    else if (operation->kind != OPERATION_LIST && vm->must_list)
        sim_fail(sim, "operation %d for %s before its list", operation->kind, vm->name);
    else if (operation->kind == OPERATION_ATTACH)
        check_attach(sim, vm, operation), check_group(sim, vm, operation);
    else if (operation->kind == OPERATION_DETACH)
        check_detach(sim, vm, operation);
}

void sim_check_execute(struct sim *sim, struct sim_vm *vm)
{
    if (sim_vm_object(vm, vm->operation.device->instance))
        sim_fail(sim, "attaches %s twice to %s", vm->operation.device->key, vm->name);
}

// The VM that has the device by an object of ours; NULL: none.
static const struct sim_vm *vm_with(struct sim *sim, const struct device *device)
{
    for (unsigned i = 0; device && i < SIM_VMS; i++)
        if (sim_vm_object(&sim->vms[i], device->instance))
            return &sim->vms[i];
    return NULL;
}

// The VM that has another function of the IOMMU group of DEVICE; NULL: none.
static const struct sim_vm *vm_with_group(struct sim *sim, const struct device *device)
{
    const struct sim_vm *vm = NULL;
    for (unsigned p = SIM_PCI; p < SIM_PORTS && !vm; p++)
        if (sim_shares(device, sim->ports[p].device))
            vm = vm_with(sim, sim->ports[p].device);
    return vm;
}

static void check_groups(struct sim *sim)
{
    for (unsigned p = SIM_PCI; p < SIM_PORTS; p++) {
        const struct device *device = sim->ports[p].device;
        const struct sim_vm *vm = vm_with(sim, device), *other = vm_with_group(sim, device);
        if (vm && other && vm != other)
            sim_fail(sim, "%s is in %s, and another function of its IOMMU group in %s", device->key, vm->name,
                     other->name);
    }
}

void sim_check_world(struct sim *sim)
{
    check_groups(sim);
    for (unsigned p = 0; p < SIM_PORTS; p++) {
        const struct device *device = sim->ports[p].device;
        unsigned in = 0;
        for (unsigned i = 0; device && i < SIM_VMS; i++)
            in += sim_vm_object(&sim->vms[i], device->instance) != NULL;
        if (in > 1)
            sim_fail(sim, "%s is in %u VMs", device->key, in);
    }
}

uint64_t sim_hash(const char *string)
{
    uint64_t value = 0xcbf29ce484222325u;
    for (; *string; string++)
        value = (value ^ (unsigned char)*string) * 0x100000001b3u;
    return value;
}

static struct sim_said *find_said(struct sim *sim, uint64_t instance, const char *vm)
{
    for (unsigned i = 0; i < sim->said_count; i++)
        if (sim->said[i].instance == instance && (instance || strcmp(sim->said[i].vm, vm) == 0))
            return &sim->said[i];
    return NULL;
}

void sim_check_output(struct sim *sim, const struct output *output)
{
    const char *vm = output->vm ? output->vm : "";
    sim_say(sim, "    says %d: %s %d %s: %s", output->kind, output->device ? output->device->key : "",
            output->kind == OUTPUT_VM ? (int)output->vm_state : (int)output->state, vm, output->reason);
    if (output->kind == OUTPUT_NOTE)
        return;
    struct sim_said now = {.instance = output->device ? output->device->instance : 0,
                           .state = output->device ? output->state : (enum device_state)output->vm_state,
                           .reason = output->device ? sim_hash(output->reason) : 0};
    snprintf(now.vm, sizeof(now.vm), "%s", vm);
    struct sim_said *said = find_said(sim, now.instance, vm);
    if (output->gone) {
        if (said)
            *said = sim->said[--sim->said_count];
        else
            sim_fail(sim, "says that %s is gone, of which it has said nothing", output->device->key);
        return;
    }
    if (said && said->state == now.state && said->reason == now.reason && strcmp(said->vm, now.vm) == 0)
        sim_fail(sim, "says the same again: %s", output->reason);
    if (!said && sim->said_count < SIM_SAID)
        said = &sim->said[sim->said_count++];
    if (said)
        *said = now;
}

// Everything works from now on, but what nobody saw stays unseen.
static void calm_down(struct sim *sim)
{
    bool all = true;
    sim_say(sim, "all becomes calm");
    sim->calm = true;
    if (sim_chance(sim, 50))
        sim_people_resume(sim);
    for (unsigned i = 0; i < SIM_VMS; i++) {
        struct sim_vm *vm = &sim->vms[i];
        vm->hung = vm->patient = vm->booting = false;
        vm->full = RESULT_REFUSED;
        for (unsigned o = vm->count; o-- > 0;) {
            if (!vm->objects[o].ours)
                vm->unnoticed |=
                    vm->count == vm->capacity || vm->vmm->type == VM_CROSVM; // nobody is told of ports that become free
            if (!vm->objects[o].ours || vm->objects[o].leaving)
                sim_vm_remove(vm, o);
        }
        if (vm->broken && vm->process) { // as its people are told
            sim_vm_kill(sim, vm);
            sim_vm_start(sim, vm);
        }
        all = all && config_vm(&sim->configs[sim->config].config, vm->name);
    }
    if (!all)
        sim_configure(sim, true);
    if (!sim->reconcile)
        sim_daemon_start(sim);
}

// One thing that is still to happen; false when there is none.
static bool calm_step(struct sim *sim)
{
    if (sim_deliver(sim))
        return true;
    for (unsigned i = 0; i < SIM_VMS; i++) {
        struct sim_vm *vm = &sim->vms[i];
        if (sim_vm_tell(sim, vm) || sim_vm_progress(sim, vm))
            return true;
        if (vm->unnoticed && vm->told) {
            sim_vm_news(sim, vm);
            return true;
        }
    }
    uint64_t deadline = reconcile_deadline(sim->reconcile);
    if (deadline == UINT64_MAX)
        return false;
    if (deadline > sim->now)
        sim->now = deadline;
    return true;
}

static struct sim_vm *vm_of_name(struct sim *sim, const char *name)
{
    for (unsigned i = 0; name && i < SIM_VMS; i++)
        if (strcmp(sim->vms[i].name, name) == 0)
            return &sim->vms[i];
    return NULL;
}

// Whether people are asked, and nothing else tells where it is to go.
static bool is_asked(struct sim *sim, const struct device *device)
{
    const struct api_config *api = &sim->configs[sim->config].config.api;
    const struct sim_wish *wish = sim_people_wish(sim, device->instance);
    return wish && wish->asked && api->enabled && api->select_timeout == UINT64_MAX;
}

// What may be said of a device that is in no VM.
static bool may_be(struct sim *sim, const struct device *device, const struct sim_said *said)
{
    const struct sim_vm *target = vm_of_name(sim, said->vm);
    if (!sim_policy_group(sim, device) || device->host_use || sim_people_detached(sim, device))
        return said->state == STATE_HOST;
    if (!is_managed(sim, device->instance))
        return said->state == STATE_IGNORED;
    if (!target)
        return said->state == STATE_WAITS && is_asked(sim, device);
    if (said->state == STATE_WAITS && target == vm_with_group(sim, device))
        return true; // it is to go into another VM
    if (!sim_policy_allows(sim, device, target->name))
        return false;
    bool at_start = device->kind == DEVICE_PCI && target->vmm->type != VM_QEMU;
    if (sim_people_suspended(sim, device, target->name) || !target->process || at_start)
        return said->state == STATE_WAITS;
    if (said->state == STATE_EJECTED)
        return sim_set_has(&sim->ejected, device->instance, target->process);
    if (said->state == STATE_REFUSED)
        return target->count >= target->capacity || sim_set_has(&sim->refused, device->instance, target->process);
    return false;
}

// How it stands is what was said of it.
static void check_status(struct sim *sim, const struct device *device, const struct sim_said *said)
{
    struct device_status status = {0};
    for (size_t i = 0; i < reconcile_device_count(sim->reconcile) && !status.device; i++) {
        reconcile_device_status(sim->reconcile, i, &status);
        if (status.device->instance != device->instance)
            device_status_clear(&status);
    }
    if (!status.device || status.state != said->state || sim_hash(status.reason) != said->reason)
        sim_fail(sim, "%s stands otherwise than was said", device->key);
    else if (status.detached != sim_people_detached(sim, device))
        sim_fail(sim, "%s is%s said to have been taken out by people", device->key, status.detached ? "" : " not");
    device_status_clear(&status);
}

static void check_device(struct sim *sim, const struct sim_port *port)
{
    const struct device *device = port->device;
    if (port->told != device)
        sim_fail(sim, "the simulation did not tell of a device");
    const struct sim_said *said = find_said(sim, device->instance, "");
    struct sim_vm *holder = NULL;
    for (unsigned i = 0; i < SIM_VMS && !holder; i++)
        if (sim_vm_object(&sim->vms[i], device->instance))
            holder = &sim->vms[i];
    if (!said)
        sim_fail(sim, "nothing was said of %s", device->key);
    else if (holder && (said->state != STATE_ATTACHED || strcmp(said->vm, holder->name) != 0))
        sim_fail(sim, "%s is in %s, but said to be in state %d", device->key, holder->name, said->state);
    else if (!holder && !may_be(sim, device, said))
        sim_fail(sim, "%s is in no VM, and said to be in state %d", device->key, said->state);
    else
        check_status(sim, device, said);
}

static void check_objects(struct sim *sim, struct sim_vm *vm)
{
    for (unsigned i = 0; i < vm->count; i++) {
        const struct sim_object *object = &vm->objects[i];
        const struct device *device = sim_present(sim, object->instance);
        const char *forbidden = device ? sim_people_forbid(sim, device, vm->name) : NULL;
        if (!device || !sim_policy_allows(sim, device, vm->name))
            sim_fail(sim, "%s is left in %s", object->name, vm->name);
        else if (forbidden)
            sim_fail(sim, "%s is left in %s, %s", object->name, vm->name, forbidden);
        else if (object->dead)
            sim_fail(sim, "%s is left dead in %s", object->name, vm->name);
        for (unsigned o = 0; o < i; o++)
            if (vm->objects[o].instance == object->instance)
                sim_fail(sim, "%s is twice in %s", device->key, vm->name);
    }
}

static void check_vm(struct sim *sim, const struct sim_vm *vm)
{
    const struct sim_said *said = find_said(sim, 0, vm->name);
    enum vm_state state = vm->process ? VM_STATE_ANSWERS : VM_STATE_DOWN;
    if (!said || said->state != (enum device_state)state)
        sim_fail(sim, "%s is in state %d, but said to be in %d", vm->name, state, said ? (int)said->state : -1);
}

// An hour in which nothing happens, and events that tell nothing new.
static void check_quiet(struct sim *sim)
{
    sim->outputs = 0;
    sim->now += AN_HOUR;
    for (unsigned i = 0; i < SIM_PORTS; i++)
        if (sim->ports[i].device)
            sim_event(sim, EVENT_PRESENT, i, true);
    while (sim_deliver(sim))
        sim_daemon_run(sim);
    sim_daemon_run(sim);
    if (sim->outputs)
        sim_fail(sim, "%u outputs though nothing happened", sim->outputs);
}

void sim_converge(struct sim *sim)
{
    calm_down(sim);
    unsigned rounds = 0;
    do {
        sim_daemon_run(sim);
        sim_check_world(sim);
        if (++rounds > ROUNDS_MAX)
            sim_fail(sim, "does not come to rest");
    } while (!*sim->failure && calm_step(sim));
    for (unsigned i = 0; i < SIM_PORTS && !*sim->failure; i++)
        if (sim->ports[i].device)
            check_device(sim, &sim->ports[i]);
    for (unsigned i = 0; i < SIM_VMS; i++) {
        check_objects(sim, &sim->vms[i]);
        check_vm(sim, &sim->vms[i]);
    }
    if (!*sim->failure)
        check_quiet(sim);
}
