// JSON values as Python would print them.
#pragma once

#include <json-c/json.h>

#include "util/cleanup.h"
#include "util/text.h"

// As print() does: a string bare, everything else as classic_add_repr. Safe for a terminal.
void classic_add_plain(struct text *text, struct json_object *value);
// As repr() does: "['vm1', None, True, {'a': 1}]".
void classic_add_repr(struct text *text, struct json_object *value);
