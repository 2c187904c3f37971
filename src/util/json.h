// JSON, by json-c: parsing of hostile text with limits, and reading of members with types checked.
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

static inline void cleanup_json(struct json_object **owned)
{
    json_object_put(*owned);
}

struct json_limits {
    size_t length; // bytes of the text
    int depth;     // nesting
};

// Parses one whole strict JSON text (nothing but blanks after it, no NUL, valid UTF-8). Returns an
// owned value, or NULL with ERROR (free with free()) set. A JSON null is an error here.
struct json_object *json_parse(const char *text, size_t length, const struct json_limits *limits, char **error) CHECKED;

// Members of an object; each returns false or NULL when OBJECT is no object, the member is absent or
// of another type. Borrowed from OBJECT.
struct json_object *json_member(struct json_object *object, const char *name) CHECKED;
const char *json_member_string(struct json_object *object, const char *name) CHECKED;
bool json_member_uint64(struct json_object *object, const char *name, uint64_t *number) CHECKED;
bool json_member_bool(struct json_object *object, const char *name, bool *value) CHECKED;

// The compact text of a value on one line; free with free().
char *json_print(struct json_object *value) CHECKED;
