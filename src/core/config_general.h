// The general settings of the configuration: the API, and where choices of people are kept.
#pragma once

#include "core/config.h"
#include "core/config_groups.h"
#include "core/reader.h"

// What holds where the file says nothing.
void config_general_defaults(struct config *config);
// Reads the object "general" into CONFIG, which has the defaults.
void config_general_read(const struct reader *value, const struct config_names *vms, struct config *config);
// What can be told only when the whole file, TOP, is read.
void config_general_check(const struct reader *top, const struct config *config);
void config_general_clear(struct config *config);
