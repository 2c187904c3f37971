// Events as they come, until the end of the process.
#pragma once

#include <stdbool.h>

#include "ctl/channel.h"

// How long to wait before the next try at a daemon that has gone, in seconds.
#define MONITOR_PAUSE 3

// One line for each event, as JSON or for people. Returns only when the first connection fails, or standard
// output: EXIT_FAILURE, after having said why.
int monitor_run(const struct channel_address *address, unsigned seconds, bool json) CHECKED;
