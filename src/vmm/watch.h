// Notices when a path's file may have come or gone, without a timer: inotify on its directory, and on
// the directories above it, which may be missing, removed, made again or moved at any time.
#pragma once

#include <systemd/sd-event.h>

#include "util/cleanup.h"

// What all watches share: two inotify instances, of which a user may have few, and one watch in each of a directory.
struct watcher;
struct watch;

// Called from the loop: look at the file. May free the watch.
typedef void (*watch_look)(void *user);

struct watcher *watcher_new(sd_event *loop) CHECKED;
// After all its watches.
void watcher_free(struct watcher *watcher);

// PATH must be absolute. Negative errno: it cannot be watched, and *WATCH is NULL; or, for now, it is only looked at
// every few seconds, until it can be, and *WATCH is set.
int watch_new(struct watch **watch, struct watcher *watcher, const char *path, watch_look look, void *user) CHECKED;
void watch_free(struct watch *watch);
