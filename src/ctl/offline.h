// What vhotplugctl does without a daemon: it checks a configuration, and tells what policy says of devices in a file.
#pragma once

#include <stdbool.h>

#include "util/cleanup.h"

// Each returns the exit status, after having said what is wrong.

// check CONFIG: the daemon's own lines for what is wrong with the file, then warnings and notes, all to standard
// error; for a good file, its rules by kind and VM on standard output.
int offline_check(const char *config_file) CHECKED;

// explain -c CONFIG --device FILE: what policy says of the device, or of each of the list, in FILE ("-": standard
// input). With JSON a list with one verdict for each device.
int offline_explain(const char *config_file, const char *device_file, bool json) CHECKED;
