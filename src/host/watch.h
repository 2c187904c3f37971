// Tells when something is mounted, unmounted, or begins or ends to swap.
#pragma once

#include <systemd/sd-event.h>

#include "util/cleanup.h"

struct watch;

// Watches the two files of the kernel; one that cannot be watched is left out, as a kernel without
// swap has no such file. Negative errno if neither can be watched.
int watch_new(struct watch **watch, sd_event *loop, const char *mountinfo, const char *swaps,
              void (*changed)(void *user), void *user) CHECKED;
void watch_free(struct watch *watch);
DEFINE_CLEANUP(struct watch *, cleanup_watch, watch_free)
