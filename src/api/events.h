// What is told without being asked, each thing that happened once.
#pragma once

#include "api/messages_private.h"

// Tells all callers that want events, as far as it is for their eyes.
void events_output(struct messages *messages, const struct output *output);
void events_clear(struct messages *messages);
