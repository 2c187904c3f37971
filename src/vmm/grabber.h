// Which programs have a device node open: who may have grabbed it. The kernel does not tell who has.
#pragma once

#include <systemd/sd-event.h>

#include "util/cleanup.h"

struct grabber;

// Looks through /proc, one process in each turn of the loop and only when there is nothing else to do. After a
// second it ends with what was found.
// FOUND is called once, with "NAME (process PID), …" or NULL: nobody, or nobody that we may look at.
// It frees the search. NULL: it cannot begin, and FOUND is not called.
struct grabber *grabber_search(sd_event *loop, const char *node, void (*found)(void *user, const char *names),
                               void *user) CHECKED;
void grabber_free(struct grabber *grabber);
DEFINE_CLEANUP(struct grabber *, cleanup_grabber, grabber_free)
