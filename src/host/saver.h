// Saves what people chose in a thread, so that a slow disk delays no device and no VM.
#pragma once

#include <systemd/sd-event.h>

#include "core/choice.h"
#include "util/cleanup.h"

struct saver;

// SAVED is called from the loop, once after each saver_start, with 0 or negative errno. Negative errno.
int saver_new(struct saver **saver, sd_event *loop, void (*saved)(void *user, int status), void *user) CHECKED;
// Begins to save as host_save_choices does; PATH and CHOICES are borrowed for the call. None may be under way.
void saver_start(struct saver *saver, const char *path, const struct choices *choices);
// What hangs is left to end by itself; SAVED is not called any more.
void saver_free(struct saver *saver);
DEFINE_CLEANUP(struct saver *, cleanup_saver, saver_free)
