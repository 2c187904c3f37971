// Tells when default routes or the interfaces below them change.
#pragma once

#include <systemd/sd-event.h>

#include "util/cleanup.h"

struct network_watch;

// Listens to the kernel; CHANGED is called in the loop, once for all that has come by then. Negative errno.
int network_watch_new(struct network_watch **watch, sd_event *loop, void (*changed)(void *user), void *user) CHECKED;
void network_watch_free(struct network_watch *watch);
DEFINE_CLEANUP(struct network_watch *, cleanup_network_watch, network_watch_free)
