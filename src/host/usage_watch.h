// Tells when something is mounted, unmounted, or begins or ends to swap.
#pragma once

#include <systemd/sd-event.h>

#include "util/cleanup.h"

struct usage_watch;

// Watches the two files of the kernel; one that is not there is left out, as a kernel without swap has no such
// file. Negative errno if neither is there, or there is no room to watch one.
int usage_watch_new(struct usage_watch **watch, sd_event *loop, const char *mountinfo, const char *swaps,
                    void (*changed)(void *user), void *user) CHECKED;
void usage_watch_free(struct usage_watch *watch);
DEFINE_CLEANUP(struct usage_watch *, cleanup_usage_watch, usage_watch_free)
