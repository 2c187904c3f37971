// Simulated VMs: they take operations, carry them out sooner or later, and lose answers.
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "util/text.h"

const struct device *sim_present(const struct sim *sim, uint64_t instance)
{
    for (unsigned i = 0; i < SIM_PORTS; i++)
        if (sim->ports[i].device && sim->ports[i].device->instance == instance)
            return sim->ports[i].device;
    return NULL;
}

struct sim_object *sim_vm_object(struct sim_vm *vm, uint64_t instance)
{
    for (unsigned i = 0; i < vm->count; i++)
        if (vm->objects[i].ours && vm->objects[i].instance == instance)
            return &vm->objects[i];
    return NULL;
}

void sim_vm_remove(struct sim_vm *vm, unsigned index)
{
    vm->objects[index] = vm->objects[--vm->count];
}

struct sim_object *sim_vm_add(struct sim *sim, struct sim_vm *vm, bool ours, const struct device *device)
{
    if (vm->count == SIM_OBJECTS)
        return NULL;
    struct sim_object *object = &vm->objects[vm->count];
    *object = (struct sim_object){.ours = ours, .number = ++sim->counter};
    if (!vm->vmm->place(sim, vm, object, device))
        return NULL;
    vm->count++;
    if (ours)
        object->instance = device->instance;
    else if (device->kind == DEVICE_PCI)
        snprintf(object->pci, sizeof(object->pci), "%s", device_pci_address(device));
    else if (!object->port) // crosvm does not tell
        object->bus = device->bus, object->address = device->address;
    return object;
}

void sim_vm_finish(struct sim_vm *vm, enum result_kind kind, const char *text)
{
    free(vm->result.text);
    vm->result.kind = kind;
    vm->result.text = string_copy(text);
}

// The answer holds what the VM has at this moment.
static void add_list(struct sim_vm *vm)
{
    free(vm->result.attachments);
    vm->result.attachments = memory_new(vm->count + 1, sizeof(struct attachment));
    vm->result.attachment_count = vm->count;
    vm->result.listed = true;
    for (unsigned i = 0; i < vm->count; i++) {
        const struct sim_object *object = &vm->objects[i];
        struct attachment *attachment = &vm->result.attachments[i];
        memcpy(attachment->object, object->name, OBJECT_NAME_MAX);
        attachment->ours = object->ours;
        attachment->instance = object->instance;
        attachment->leaving = object->leaving;
        attachment->dead = object->dead;
        attachment->bus = object->bus;
        attachment->address = object->address;
        memcpy(attachment->pci, object->pci, sizeof(object->pci));
    }
}

static void refuse(struct sim *sim, struct sim_vm *vm, const char *text)
{
    sim_set_add(&sim->refused, vm->operation.device->instance, vm->process);
    sim_vm_finish(vm, RESULT_REFUSED, text);
}

static void execute_attach(struct sim *sim, struct sim_vm *vm)
{
    const struct device *device = sim_present(sim, vm->operation.device->instance);
    sim_check_execute(sim, vm);
    if (!device)
        sim_vm_finish(vm, RESULT_GONE, "it is not there any more");
    else if (device->host_use)
        refuse(sim, vm, "the host uses it");
    else if (vm->count >= vm->capacity)
        sim_vm_finish(vm, vm->full, "no free port");
    else if (!sim->calm && sim_chance(sim, 10))
        sim_vm_finish(vm, RESULT_RETRY, "not now");
    else if (!sim->calm && sim_chance(sim, 5))
        refuse(sim, vm, "no USB controller");
    else if (sim_vm_add(sim, vm, true, device))
        sim_vm_finish(vm, RESULT_DONE, "");
    if (vm->result.kind == RESULT_DONE || sim_chance(sim, 70))
        add_list(vm);
}

static void execute_detach(struct sim *sim, struct sim_vm *vm)
{
    unsigned i = 0;
    while (i < vm->count && strcmp(vm->objects[i].name, vm->operation.object) != 0)
        i++;
    if (i == vm->count) {
        sim_vm_finish(vm, RESULT_DONE, "");
    } else if (!sim->calm && sim_chance(sim, 10)) {
        sim_vm_finish(vm, sim_chance(sim, 50) ? RESULT_RETRY : RESULT_REFUSED, "device is busy");
    } else if (vm->patient && !sim->calm) {
        vm->objects[i].leaving = vm->objects[i].asked = true;
        sim_vm_finish(vm, RESULT_PENDING, "");
    } else {
        sim_vm_remove(vm, i);
        sim_vm_finish(vm, RESULT_DONE, "");
    }
    if (sim_chance(sim, 80))
        add_list(vm);
}

static void qemu_execute(struct sim *sim, struct sim_vm *vm)
{
    if (vm->operation.kind == OPERATION_ATTACH) {
        execute_attach(sim, vm);
    } else if (vm->operation.kind == OPERATION_DETACH) {
        execute_detach(sim, vm);
    } else if (!sim->calm && sim_chance(sim, 10)) {
        sim_vm_finish(vm, RESULT_RETRY, "no greeting");
    } else {
        sim_vm_finish(vm, RESULT_DONE, "");
        add_list(vm);
    }
}

static bool qemu_place(struct sim *sim, struct sim_vm *vm, struct sim_object *object, const struct device *device)
{
    (void)vm, (void)device;
    snprintf(object->name, sizeof(object->name), "%s-%llu", object->ours ? "vhotplug" : "foreign",
             (unsigned long long)++sim->counter);
    return true;
}

const struct sim_vmm sim_qemu = {.type = VM_QEMU, .execute = qemu_execute, .place = qemu_place};

void sim_vm_start(struct sim *sim, struct sim_vm *vm)
{
    vm->process = ++sim->counter;
    vm->anonymous = vm->vmm->type == VM_QEMU && sim_chance(sim, 15);
    vm->booting = vm->vmm->type == VM_CROSVM && sim_chance(sim, 50);
    sim_say(sim, "%s starts as process %llu", vm->name, (unsigned long long)vm->process);
}

void sim_vm_kill(struct sim *sim, struct sim_vm *vm)
{
    sim_say(sim, "%s dies", vm->name);
    vm->process = 0;
    vm->count = 0;
    vm->hung = vm->unnoticed = vm->doubled = vm->zombie = false;
}

bool sim_vm_tell(struct sim *sim, struct sim_vm *vm)
{
    const struct sim_config *config = &sim->configs[sim->config];
    bool served = reconcile_needs_vm(sim->reconcile, vm->name) || config_vm(&config->config, vm->name);
    if (!served || (vm->told && vm->told_process == vm->process))
        return false;
    bool same = vm->told_process == vm->process;
    vm->told = true;
    vm->told_process = vm->process;
    vm->must_list = vm->news = true;
    if (vm->vmm->up && !same)
        vm->vmm->up(sim, vm);
    sim_say(sim, "tells: %s is %s", vm->name, vm->process ? "up" : "down");
    if (vm->process)
        reconcile_vm_up(sim->reconcile, vm->name, vm->anonymous ? 0 : vm->process, sim->now);
    else
        reconcile_vm_down(sim->reconcile, vm->name, sim->now);
    return true;
}

static void run_zombie(struct sim *sim, struct sim_vm *vm)
{
    const struct operation *operation = &vm->zombie_operation;
    sim_say(sim, "%s carries out what a killed daemon asked", vm->name);
    bool attach = operation->kind == OPERATION_ATTACH;
    const struct device *device = attach ? sim_present(sim, operation->device->instance) : NULL;
    if (device && !device->host_use && (vm->count < vm->capacity || vm->vmm->type == VM_CROSVM))
        sim_vm_add(sim, vm, true, device);
    for (unsigned i = 0; operation->kind == OPERATION_DETACH && i < vm->count; i++)
        if (strcmp(vm->objects[i].name, operation->object) == 0 &&
            (!vm->vmm->owner || vm->objects[i].instance == vm->zombie_instance))
            sim_vm_remove(vm, i);
}

void sim_vm_zombie(struct sim *sim, struct sim_vm *vm, bool run)
{
    if (!vm->zombie)
        return;
    vm->zombie = false;
    if (run)
        run_zombie(sim, vm);
    if (vm->vmm->clarify)
        vm->vmm->clarify(sim, vm);
}

void sim_vm_clear(struct sim_vm *vm)
{
    crosvm_ports_clear(&vm->ports);
    operation_clear(&vm->operation);
    operation_clear(&vm->zombie_operation);
    result_clear(&vm->result);
}

// What its answer tells the daemon of, and is there still.
static void mark_told(struct sim_vm *vm)
{
    for (size_t i = 0; i < vm->result.attachment_count; i++)
        for (unsigned o = 0; o < vm->count; o++) {
            struct sim_object *object = &vm->objects[o];
            object->told |= object->number <= vm->listed && strcmp(object->name, vm->result.attachments[i].object) == 0;
        }
}

static void answer(struct sim *sim, struct sim_vm *vm)
{
    sim_say(sim, "%s answers operation %d: result %d \"%s\"%s", vm->name, vm->operation.kind, vm->result.kind,
            vm->result.text, vm->result.listed ? " with its list" : "");
    if (vm->operation_process == vm->told_process)
        vm->must_list = !vm->result.listed || vm->news;
    for (size_t i = 0; i < vm->result.attachment_count; i++)
        if (vm->result.attachments[i].ours) {
            struct sim_wish *wish = sim_people_wish(sim, vm->result.attachments[i].instance);
            if (wish)
                wish->asked_at = 0; // it is somewhere already
            sim_set_add(&sim->managed, vm->result.attachments[i].instance, 0);
        }
    if (!vm->news && vm->operation_process == vm->process)
        mark_told(vm);
    vm->busy = false;
    vm->result.serial = vm->operation.serial;
    reconcile_result(sim->reconcile, vm->name, &vm->result, sim->now);
    result_clear(&vm->result);
    operation_clear(&vm->operation);
}

// What an earlier daemon sent comes before it, or never.
static void execute(struct sim *sim, struct sim_vm *vm)
{
    sim_vm_zombie(sim, vm, sim_chance(sim, 50));
    vm->vmm->execute(sim, vm);
    vm->executed = true;
    vm->listed = sim->counter;
}

bool sim_vm_progress(struct sim *sim, struct sim_vm *vm)
{
    if (!vm->busy || (vm->hung && !vm->lost))
        return false;
    if (vm->operation_process != vm->process)
        vm->lost = true;
    if (!sim->calm && !vm->lost && sim_chance(sim, 4)) {
        vm->lost = true;
        sim_say(sim, "the connection to %s is lost", vm->name);
    }
    if (vm->lost) {
        if (!vm->executed && vm->operation_process == vm->process && !sim->calm && sim_chance(sim, 50))
            execute(sim, vm); // it had read it
        result_clear(&vm->result);
        sim_vm_finish(vm, RESULT_LOST, "the connection ended");
    } else if (!vm->executed) {
        execute(sim, vm);
        if (vm->lost || sim_chance(sim, 50))
            return true; // the answer is under way
    }
    answer(sim, vm);
    return true;
}

void sim_vm_news(struct sim *sim, struct sim_vm *vm)
{
    if (!vm->told || !vm->told_process)
        return;
    sim_say(sim, "tells: news from %s", vm->name);
    vm->unnoticed = false;
    vm->news = true;
    vm->must_list = true;
    reconcile_vm_news(sim->reconcile, vm->name, sim->now);
}
