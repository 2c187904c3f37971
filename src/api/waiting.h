// Answers that wait: until devices have come to where a request wants them, or for at most 10 s.
#pragma once

#include "api/messages_private.h"

int waiting_init(struct messages *messages) CHECKED;
void waiting_clear(struct messages *messages);

// An answer that CALLER is owed from now on. LISTS: it tells of each device.
struct waiting *waiting_new(struct messages *messages, struct caller *caller, enum waiting_kind kind,
                            bool lists) CHECKED;
// One more device; VM (may be NULL) is where an attach is to bring it.
void waiting_add(struct waiting *waiting, struct device *device, const char *vm, bool skipped);
// One that cannot be done, and why (owned from now on).
void waiting_add_failed(struct waiting *waiting, struct device *device, char *error);
// Something has changed: look again at what waits.
void waiting_touch(const struct messages *messages);
// A caller has gone.
void waiting_forget(struct messages *messages, const struct caller *caller);
