// The simulated policy: takes the place of core/policy.c, so that histories are about convergence.
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "util/text.h"

void policy_decide(const struct config *config, const struct device *device, struct verdict *verdict)
{
    const struct sim_config *sim = (const struct sim_config *)config;
    unsigned kind = device->product_id % SIM_KINDS;
    *verdict = (struct verdict){0};
    if (device->host_use)
        verdict->kind = VERDICT_HOST;
    else if (sim->allowed[kind])
        verdict->kind = VERDICT_ALLOWED;
    else
        verdict->kind = VERDICT_NO_RULE;
    if (verdict->kind == VERDICT_ALLOWED)
        verdict->group = &sim->groups[kind];
    verdict->reason = string_copy(verdict->group ? verdict->group->path : "no rule allows it");
}

void verdict_clear(struct verdict *verdict)
{
    free(verdict->reason);
    *verdict = (struct verdict){0};
}

const struct group *sim_policy_group(const struct sim *sim, const struct device *device)
{
    const struct sim_config *config = &sim->configs[sim->config];
    unsigned kind = device->product_id % SIM_KINDS;
    return config->allowed[kind] ? &config->groups[kind] : NULL;
}

bool sim_policy_allows(const struct sim *sim, const struct device *device, const char *vm)
{
    const struct group *group = sim_policy_group(sim, device);
    for (size_t i = 0; group && i < group->vm_count; i++)
        if (strcmp(group->vms[i], vm) == 0)
            return true;
    return false;
}
