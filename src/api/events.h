// What is told without being asked, each thing that happened once.
#pragma once

#include "api/caller.h"
#include "core/reconcile.h"
#include "util/cleanup.h"

struct events;

// RECONCILE is borrowed.
struct events *events_new(const struct reconcile *reconcile) CHECKED;
void events_free(struct events *events); // NULL is fine
// They want events from now on, as long as they may have them. Borrowed until events_forget.
void events_want(struct events *events, struct caller *caller);
void events_forget(struct events *events, const struct caller *caller);
// Tells all callers that want events, as far as it is for their eyes.
void events_output(struct events *events, const struct output *output);
