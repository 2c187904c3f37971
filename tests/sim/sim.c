// Random histories against a simulated host, simulated VMs and a simulated clock, each replayable
// from its seed: sim [--histories N] [--seed S] [--verbose]
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define STEPS_MIN 20
#define STEPS_MAX 300
#define FAILURES_SHOWN 5

struct options {
    uint64_t histories, seed;
    bool verbose;
};

static bool run_history(uint64_t seed, bool verbose)
{
    static struct sim sim; // large
    sim_init(&sim, seed, verbose);
    unsigned steps = STEPS_MIN + sim_random(&sim, STEPS_MAX - STEPS_MIN);
    for (unsigned i = 0; i < steps && !*sim.failure; i++) {
        sim_chaos(&sim);
        sim_check_world(&sim);
        sim_daemon_run(&sim);
    }
    if (!*sim.failure)
        sim_converge(&sim);
    sim_clear(&sim);
    if (*sim.failure)
        printf("seed %llu: %s\n", (unsigned long long)seed, sim.failure);
    return !*sim.failure;
}

static bool parse(int count, char **arguments, struct options *options)
{
    static const struct option long_options[] = {{"histories", required_argument, NULL, 'n'},
                                                 {"seed", required_argument, NULL, 's'},
                                                 {"verbose", no_argument, NULL, 'v'},
                                                 {0}};
    int option;
    while ((option = getopt_long(count, arguments, "", long_options, NULL)) != -1) {
        if (option == 'n')
            options->histories = strtoull(optarg, NULL, 10);
        else if (option == 's')
            options->seed = strtoull(optarg, NULL, 10);
        else if (option == 'v')
            options->verbose = true;
        else
            return false;
    }
    return optind == count;
}

int main(int count, char **arguments)
{
    struct options options = {.histories = 1000, .seed = 1};
    if (!parse(count, arguments, &options)) {
        fprintf(stderr, "usage: sim [--histories N] [--seed S] [--verbose]\n");
        return 2;
    }
    uint64_t failed = 0, i;
    for (i = 0; i < options.histories && failed < FAILURES_SHOWN; i++)
        failed += !run_history(options.seed + i, options.verbose);
    if (failed)
        printf("replay one: sim --histories 1 --seed SEED --verbose\n");
    printf("%llu histories, %llu failed\n", (unsigned long long)i, (unsigned long long)failed);
    return failed ? 1 : 0;
}
