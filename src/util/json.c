// JSON, by json-c: strict parsing with limits, and members read with their types checked.
#include "util/json.h"

#include <string.h>

#include "util/text.h"

static inline void cleanup_tokener(struct json_tokener **owned)
{
    if (*owned)
        json_tokener_free(*owned);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct json_object *json_parse(const char *text, size_t length, const struct json_limits *limits, char **error)
{
    if (length > limits->length) {
        *error = string_printf("longer than %zu bytes", limits->length);
        return NULL;
    }
    if (memchr(text, '\0', length)) {
        *error = string_copy("a NUL byte in it");
        return NULL;
    }
    CLEANUP(cleanup_tokener) struct json_tokener *tokener = json_tokener_new_ex(limits->depth);
    if (!tokener) {
        *error = string_copy("no memory for it");
        return NULL;
    }
    json_tokener_set_flags(tokener,
                           JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS | JSON_TOKENER_VALIDATE_UTF8);
    CLEANUP(cleanup_json) struct json_object *value = json_tokener_parse_ex(tokener, text, (int)length);
    enum json_tokener_error status = json_tokener_get_error(tokener);
    if (status == json_tokener_continue && !value) {
        // A number at the very end is only known to be whole when something follows it.
        value = json_tokener_parse_ex(tokener, " ", 1);
        status = json_tokener_get_error(tokener);
        if (status == json_tokener_success && value)
            return steal_pointer(&value);
    }
    if (status == json_tokener_success && !value) {
        *error = string_copy("null");
        return NULL;
    }
    if (status != json_tokener_success) {
        *error = status == json_tokener_continue ? string_copy("it ends too early")
                                                 : string_copy(json_tokener_error_desc(status));
        return NULL;
    }
    size_t end = json_tokener_get_parse_end(tokener);
    while (end < length && is_blank(text[end]))
        end++;
    if (end < length) {
        *error = string_copy("something follows the value");
        return NULL;
    }
    return steal_pointer(&value);
}

struct json_object *json_member(struct json_object *object, const char *name)
{
    struct json_object *member = NULL;
    if (!json_object_is_type(object, json_type_object) || !json_object_object_get_ex(object, name, &member))
        return NULL;
    return member;
}

const char *json_member_string(struct json_object *object, const char *name)
{
    struct json_object *member = json_member(object, name);
    if (!json_object_is_type(member, json_type_string))
        return NULL;
    const char *string = json_object_get_string(member);
    // A string with a NUL inside is none that we could hold whole.
    return strlen(string) == (size_t)json_object_get_string_len(member) ? string : NULL;
}

bool json_member_uint64(struct json_object *object, const char *name, uint64_t *number)
{
    struct json_object *member = json_member(object, name);
    if (!json_object_is_type(member, json_type_int))
        return false;
    if (json_object_get_int64(member) < 0)
        return false;
    *number = json_object_get_uint64(member);
    return true;
}

bool json_member_bool(struct json_object *object, const char *name, bool *value)
{
    struct json_object *member = json_member(object, name);
    if (!json_object_is_type(member, json_type_boolean))
        return false;
    *value = json_object_get_boolean(member);
    return true;
}

char *json_print(struct json_object *value)
{
    return string_copy(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}
