// The daemon: owns the event loop and is the only place that knows every wing.
#pragma once

#include <stdbool.h>

#include "util/cleanup.h"
#include "util/log.h"

struct daemon_settings {
    const char *config_file;
    bool attach_connected;
};

// Runs until SIGTERM or SIGINT and returns the exit status: 0, or 1 when it could not start, with
// the reasons in the log.
int daemon_run(const struct daemon_settings *settings, struct log *log) CHECKED;
