// What could not be done now is tried again after a while: a timer that is made when it is first needed.
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "util/cleanup.h"

#define AGAIN_SECONDS 10

// Whether ERROR, a positive errno, is of the moment, and tells nothing of what was to be read.
bool again_helps(int error) CHECKED;
// Where RESULT is the negative errno of such an error, *ERROR becomes it, and stays as it is else.
void again_note(int result, int *error);

// Calls HANDLER once, AGAIN_SECONDS after it was first asked for, however often it is asked for until then. *TIMER is
// NULL at first and the caller's to unref. Negative errno.
int again_later(sd_event_source **timer, sd_event *loop, sd_event_time_handler_t handler, void *user) CHECKED;
