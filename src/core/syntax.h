// From the relaxed text of a file (comments, trailing commas) to JSON values, strict in all else.
#pragma once

#include <json-c/json.h>
#include <stddef.h>

#include "core/config.h"
#include "util/cleanup.h"

#define SYNTAX_LENGTH_MAX (1 << 20)
#define SYNTAX_DEPTH_MAX 32
#define SYNTAX_KEYS_MAX 256 // in one object

// Returns the owned value, or NULL with lines "FILE:LINE:COLUMN: what is wrong" added to ERRORS.
struct json_object *syntax_parse(const char *file, const char *text, size_t length,
                                 struct config_messages *errors) CHECKED;
