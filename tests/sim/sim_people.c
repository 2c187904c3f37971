// The people of the simulation: they put devices into VMs, take them out for good, suspend and resume; and
// what must be true because of it, told independently of the reconciler.
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "util/text.h"

static const struct sim_decision *decision_of(const struct sim *sim, const struct device *device)
{
    // A PCI function is known by its address, whatever is there.
    unsigned kind = device->kind == DEVICE_PCI ? 0 : device->product_id % SIM_KINDS;
    if (device->serial)
        return &sim->decisions[kind][SIM_PORTS + (unsigned)(*device->serial - '1')];
    return &sim->decisions[kind][device->key[strlen(device->key) - 1] - '0'];
}

static void decide(const struct sim *sim, const struct device *device, bool detached)
{
    ((struct sim_decision *)decision_of(sim, device))->detached = detached;
}

struct sim_wish *sim_people_wish(struct sim *sim, uint64_t instance)
{
    for (unsigned i = 0; i < SIM_PORTS; i++)
        if (instance && sim->wishes[i].instance == instance)
            return &sim->wishes[i];
    return NULL;
}

void sim_people_forget(struct sim *sim)
{
    memset(sim->wishes, 0, sizeof(sim->wishes));
    memset(sim->suspended, 0, sizeof(sim->suspended));
}

// Whether anything but people could tell which VM is to have it.
static bool is_new(const struct sim *sim, const struct device *device)
{
    bool known = false;
    for (unsigned i = 0; i < SIM_VMS; i++)
        known |= sim->suspended[DEVICE_USB][i] || sim->vms[i].zombie ||
                 sim_remembers(&sim->memory, device->instance, &sim->vms[i]) ||
                 sim_vm_object((struct sim_vm *)&sim->vms[i], device->instance);
    return !known;
}

void sim_people_told(struct sim *sim, unsigned port, const struct device *device, bool plugged)
{
    const struct group *group = sim_policy_group(sim, device);
    sim->wishes[port] = (struct sim_wish){.instance = device->instance};
    bool usb = device->kind == DEVICE_USB; // nobody is asked about others
    if (usb && plugged && group && group->chooses && group->vm_count > 1 && !device->host_use && is_new(sim, device))
        sim->wishes[port].asked_at = sim->now; // as it must be
}

void sim_people_asked(struct sim *sim, const struct device *device)
{
    struct sim_wish *wish = sim_people_wish(sim, device->instance);
    const struct group *group = sim_policy_group(sim, device);
    sim_say(sim, "    asks people about %s", device->key);
    if (!wish || !group || !group->chooses || group->vm_count < 2)
        sim_fail(sim, "asks about %s, of which there is nothing to choose", device->key);
    else if (!wish->asked_at)
        wish->asked_at = sim->now;
    if (wish)
        wish->asked = true;
}

static bool is_waited_for(const struct sim *sim, const struct sim_wish *wish, uint64_t at)
{
    const struct api_config *api = &sim->configs[sim->config].config.api;
    return wish && wish->asked_at && api->enabled && at - wish->asked_at < api->select_timeout;
}

void sim_people_reload(struct sim *sim)
{
    for (unsigned i = 0; i < SIM_PORTS; i++) {
        const struct device *told = sim->ports[i].told;
        const struct group *group = told ? sim_policy_group(sim, told) : NULL;
        // A time that has run out since the daemon last looked has not: the new configuration comes before that.
        if (!is_waited_for(sim, &sim->wishes[i], sim->ran_at) || !group || !group->chooses || group->vm_count < 2)
            sim->wishes[i].asked_at = 0;
    }
}

bool sim_people_detached(const struct sim *sim, const struct device *device)
{
    return decision_of(sim, device)->detached;
}

bool sim_people_suspended(const struct sim *sim, const struct device *device, const char *vm)
{
    const struct group *group = sim_policy_group(sim, device);
    for (unsigned i = 0; i < SIM_VMS; i++)
        if (strcmp(sim->vms[i].name, vm) == 0)
            return sim->suspended[device->kind][i] && !(group && group->skip_on_suspend);
    return false;
}

// The VM that a person named for this very plug, if policy has nothing against it; else NULL.
static const char *picked(const struct sim *sim, const struct device *device, const struct sim_wish *wish)
{
    return wish && *wish->vm && sim_policy_allows(sim, device, wish->vm) ? wish->vm : NULL;
}

const char *sim_people_forbid(struct sim *sim, const struct device *device, const char *vm)
{
    const struct sim_wish *wish = sim_people_wish(sim, device->instance);
    const struct group *group = sim_policy_group(sim, device);
    const char *pick = picked(sim, device, wish);
    if (sim_people_detached(sim, device) && !sim_sees_twice(sim, device->serial))
        return "though a person took it out";
    if (sim_people_suspended(sim, device, vm))
        return "which is suspended";
    if (pick && strcmp(pick, vm) != 0)
        return "though a person chose another VM";
    bool several = group && group->chooses && group->vm_count > 1;
    if (several && !pick && is_waited_for(sim, wish, sim->now) && !wish->loose && !wish->tried)
        return "while people are asked where it is to go";
    return NULL;
}

static bool choices_equal(const struct choices *a, const struct choices *b)
{
    bool equal = a->count == b->count;
    for (size_t i = 0; equal && i < a->count; i++)
        equal = strcmp(a->items[i].id, b->items[i].id) == 0 && string_equal(a->items[i].path, b->items[i].path) &&
                string_equal(a->items[i].vm, b->items[i].vm) && a->items[i].detached == b->items[i].detached;
    return equal;
}

bool sim_people_saved(const struct sim *sim)
{
    return choices_equal(&sim->choices, reconcile_choices(sim->reconcile));
}

// Says what became of a request, and whether that was right.
static bool expect(struct sim *sim, const char *what, char *error, bool good)
{
    CLEANUP(cleanup_free) char *owned = error;
    sim_say(sim, "people ask: %s: %s", what, owned ? owned : "ok");
    if ((owned == NULL) != good)
        sim_fail(sim, "%s: %s", what, owned ? owned : "accepted");
    return !owned;
}

// A name that people may type: of a VM, of none (NULL) or a wrong one.
static const char *some_vm(struct sim *sim)
{
    unsigned vm = sim_random(sim, SIM_VMS + 2);
    return vm < SIM_VMS ? sim->vms[vm].name : vm == SIM_VMS ? NULL : "vm9";
}

// The other functions of its IOMMU group that the same rule takes go where it goes.
static void take_along(struct sim *sim, const struct device *told, const struct sim_wish *wish)
{
    for (unsigned i = SIM_PCI; i < SIM_PORTS; i++) {
        const struct device *other = sim->ports[i].told;
        if (!sim_shares(told, other) || sim_policy_group(sim, told) != sim_policy_group(sim, other))
            continue;
        memcpy(sim->wishes[i].vm, wish->vm, sizeof(wish->vm));
        sim->wishes[i].loose = wish->loose;
        if (!other->host_use)
            continue;
        *sim->wishes[i].vm = '\0'; // that depends on whether a VM had it first
        sim->wishes[i].loose = true;
    }
}

static void attach(struct sim *sim, unsigned port)
{
    const struct device *told = sim->ports[port].told;
    const struct group *group = told ? sim_policy_group(sim, told) : NULL;
    const char *vm = some_vm(sim);
    uint64_t instance = told ? told->instance : ++sim->counter;
    char *error = reconcile_attach(sim->reconcile, instance, vm, sim->now);
    bool good = group && (!vm || sim_policy_allows(sim, told, vm));
    if (good && told->host_use)
        good = !error; // unless a VM had it first
    if (!expect(sim, "attach", error, good))
        return;
    struct sim_wish *wish = sim_people_wish(sim, instance);
    decide(sim, told, false);
    sim_set_add(&sim->managed, instance, 0);
    sim->kept_out.count = 0;
    if (vm) {
        snprintf(wish->vm, sizeof(wish->vm), "%s", vm);
        wish->loose = false;
    } else if (!picked(sim, told, wish)) {
        *wish->vm = '\0';
        wish->loose = true;
    }
    take_along(sim, told, wish);
}

static void detach(struct sim *sim, unsigned port)
{
    const struct device *told = sim->ports[port].told;
    char *error = reconcile_detach(sim->reconcile, told ? told->instance : ++sim->counter, sim->now);
    if (expect(sim, "detach", error, told))
        decide(sim, told, true);
}

static void set_suspended(struct sim *sim, enum device_kind kind, const char *name, bool suspended)
{
    bool good = !name;
    for (unsigned i = 0; name && i < SIM_VMS; i++)
        good |= strcmp(sim->vms[i].name, name) == 0 && sim->known[i];
    char *error = suspended ? reconcile_suspend(sim->reconcile, kind, name, sim->now)
                            : reconcile_resume(sim->reconcile, kind, name, sim->now);
    if (!expect(sim, suspended ? "suspend" : "resume", error, good))
        return;
    for (unsigned i = 0; i < SIM_VMS; i++)
        if (sim->known[i] && (!name || strcmp(sim->vms[i].name, name) == 0))
            sim->suspended[kind][i] = suspended;
    sim->kept_out.count = 0; // what comes back is tried again
}

void sim_people_resume(struct sim *sim)
{
    if (sim->reconcile)
        set_suspended(sim, DEVICE_USB, NULL, false);
    if (sim->reconcile)
        set_suspended(sim, DEVICE_PCI, NULL, false);
}

void sim_people_ask(struct sim *sim)
{
    unsigned what = sim_random(sim, 10), port = sim_random(sim, sim->port_count);
    if (what < 5)
        attach(sim, port);
    else if (what < 7)
        detach(sim, port);
    else
        set_suspended(sim, sim_chance(sim, 60) ? DEVICE_USB : DEVICE_PCI, some_vm(sim), what < 8);
}
