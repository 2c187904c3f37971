// What could not be done now is tried again after a while.
#include "host/again.h"

#include <errno.h>
#include <stdint.h>
#include <time.h>

enum { MICROSECONDS = AGAIN_SECONDS * 1000000, ACCURACY = 1000000 };

bool again_helps(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == EIO;
}

void again_note(int result, int *error)
{
    if (again_helps(-result))
        *error = result;
}

int again_later(sd_event_source **timer, sd_event *loop, sd_event_time_handler_t handler, void *user)
{
    int error, enabled = SD_EVENT_OFF;

    if (*timer == NULL)
        return sd_event_add_time_relative(loop, timer, CLOCK_MONOTONIC, MICROSECONDS, ACCURACY, handler, user);
    if (sd_event_source_get_enabled(*timer, &enabled) > 0)
        return 0; // who asks again and again does not put it off
    error = sd_event_source_set_time_relative(*timer, MICROSECONDS);
    return error < 0 ? error : sd_event_source_set_enabled(*timer, SD_EVENT_ONESHOT);
}
