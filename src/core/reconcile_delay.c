// How long to wait before the next try.
#include "core/reconcile_private.h"

#define DELAY_MIN 100000u   // 0.1 s
#define DELAY_MAX 30000000u // 30 s
#define DELAY_STEPS 10

// splitmix64
uint64_t reconcile_random(struct reconcile *reconcile)
{
    uint64_t value = reconcile->random += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

// Exponential, with jitter: devices that failed together are not retried together.
uint64_t reconcile_delay(struct reconcile *reconcile, unsigned failures)
{
    unsigned steps = failures > DELAY_STEPS ? DELAY_STEPS : failures;
    uint64_t delay = (uint64_t)DELAY_MIN << (steps - 1);
    delay += reconcile_random(reconcile) % (delay / 2);
    return delay > DELAY_MAX ? DELAY_MAX - reconcile_random(reconcile) % (DELAY_MAX / 4) : delay;
}
