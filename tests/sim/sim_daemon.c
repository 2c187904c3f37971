// The simulated daemon: does what the reconciler says, and is killed in the middle of it.
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "util/text.h"

#define OUTPUTS_MAX 400

static void copy_memory(struct memory *to, const struct memory *from)
{
    memory_clear(to);
    memory_copy(to, from);
}

bool sim_set_has(const struct sim_set *set, uint64_t instance, uint64_t process)
{
    for (unsigned i = 0; i < set->count; i++)
        if (set->pairs[i].instance == instance && set->pairs[i].process == process)
            return true;
    return false;
}

void sim_set_add(struct sim_set *set, uint64_t instance, uint64_t process)
{
    if (set->count < SIM_SET && !sim_set_has(set, instance, process))
        set->pairs[set->count++] = (struct sim_pair){instance, process};
}

bool sim_remembers(const struct memory *memory, uint64_t instance, const struct sim_vm *vm)
{
    for (size_t i = 0; i < memory->count; i++) {
        const struct memory_device *entry = &memory->devices[i];
        if (entry->instance == instance && entry->vm && strcmp(entry->vm, vm->name) == 0)
            return true;
    }
    return false;
}

static void load_choices(struct sim *sim)
{
    struct choices choices;
    CLEANUP(cleanup_free) char *text = choices_print(&sim->choices);
    CLEANUP(cleanup_free) char *error = choices_parse(text, strlen(text), &choices);
    if (error)
        sim_fail(sim, "cannot read its own choices: %s", error);
    reconcile_choices_load(sim->reconcile, &choices);
    choices_clear(&choices);
}

void sim_daemon_start(struct sim *sim)
{
    sim_say(sim, "the daemon starts");
    sim->attach_connected = sim_chance(sim, 70);
    sim->scanned = false;
    sim->managed.count = sim->kept_out.count = sim->ejected.count = sim->refused.count = sim->said_count = 0;
    sim->reconcile = reconcile_new(sim->random, sim->attach_connected);
    load_choices(sim);
    reconcile_configure(sim->reconcile, &sim->configs[sim->config].config, sim->now);
    reconcile_remember(sim->reconcile, &sim->memory);
    copy_memory(&sim->at_start, &sim->memory);
    for (unsigned i = 0; i < SIM_VMS; i++)
        sim->known[i] = config_vm(&sim->configs[sim->config].config, sim->vms[i].name) != NULL;
    for (unsigned i = 0; i < SIM_PORTS; i++)
        if (sim->ports[i].device)
            sim_event(sim, EVENT_PRESENT, i, false);
    sim_event(sim, EVENT_SCANNED, 0, false);
}

void sim_daemon_kill(struct sim *sim)
{
    if (!sim->reconcile)
        return;
    sim_say(sim, "the daemon is killed");
    reconcile_free(sim->reconcile);
    sim->reconcile = NULL;
    for (unsigned i = 0; i < SIM_VMS; i++) {
        struct sim_vm *vm = &sim->vms[i];
        vm->told = false;
        vm->told_process = 0;
        for (unsigned o = 0; o < vm->count; o++)
            vm->objects[o].told = false;
        if (vm->busy && !vm->executed && vm->operation_process == vm->process && !vm->lost) {
            operation_clear(&vm->zombie_operation);
            operation_copy(&vm->zombie_operation, &vm->operation);
            vm->zombie = true;
            vm->zombie_instance = vm->vmm->owner ? vm->vmm->owner(vm, vm->operation.object) : 0;
            if (!vm->hung)
                sim_vm_zombie(sim, vm, sim_chance(sim, 50));
        }
        vm->busy = vm->lost = false;
        operation_clear(&vm->operation);
        result_clear(&vm->result);
        crosvm_ports_clear(&vm->ports);
        if (vm->vmm->clarify)
            vm->vmm->clarify(sim, vm);
    }
    sim_people_forget(sim);
    for (unsigned i = 0; i < SIM_PORTS; i++) {
        device_release(sim->ports[i].told);
        sim->ports[i].told = NULL;
    }
    while (sim->event_count)
        device_release(sim->events[(sim->event_first + --sim->event_count) % SIM_EVENTS].device);
}

static void start_operation(struct sim *sim, const struct operation *operation)
{
    struct sim_vm *vm = NULL;
    for (unsigned i = 0; i < SIM_VMS; i++)
        if (strcmp(sim->vms[i].name, operation->vm) == 0)
            vm = &sim->vms[i];
    sim_say(sim, "operation %d to %s: %s%s", operation->kind, operation->vm, operation->object,
            operation->device ? operation->device->key : "");
    sim_check_operation(sim, vm, operation);
    bool attach = operation->kind == OPERATION_ATTACH;
    struct sim_wish *wish = sim_people_wish(sim, attach ? operation->device->instance : 0);
    if (wish)
        wish->tried = true;
    vm->busy = true;
    vm->executed = vm->lost = vm->news = false;
    vm->operation_process = vm->told_process;
    operation_clear(&vm->operation);
    operation_copy(&vm->operation, operation);
    result_clear(&vm->result);
}

static void save_memory(struct sim *sim)
{
    struct memory memory;
    reconcile_memory(sim->reconcile, &memory);
    memory_clear(&sim->memory);
    sim->memory = memory;
}

static void save_choices(struct sim *sim)
{
    choices_clear(&sim->choices);
    choices_copy(&sim->choices, reconcile_choices(sim->reconcile));
}

void sim_daemon_run(struct sim *sim)
{
    struct output output;
    sim->ran_at = sim->now;
    for (unsigned i = 0; sim->reconcile && reconcile_next(sim->reconcile, sim->now, &output); i++) {
        sim->outputs++;
        if (i > OUTPUTS_MAX)
            sim_fail(sim, "outputs without end");
        if (output.kind == OUTPUT_MEMORY)
            save_memory(sim);
        else if (output.kind == OUTPUT_CHOICES)
            save_choices(sim);
        else if (output.kind == OUTPUT_SELECT)
            sim_people_asked(sim, output.device);
        else if (output.kind == OUTPUT_OPERATION)
            start_operation(sim, &output.operation);
        else
            sim_check_output(sim, &output);
        operation_clear(&output.operation);
        if (*sim->failure)
            return;
        if (!sim->calm && sim_random(sim, 400) == 0)
            sim_daemon_kill(sim);
    }
}
