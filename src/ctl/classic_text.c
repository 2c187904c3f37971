// JSON values as Python would print them: None, True, ['a', 'b'], {'a': 1}.
#include "ctl/classic_text.h"

#include <string.h>

#include "ctl/say.h"

static void add_safe(struct text *text, const char *string)
{
    text_add_safe(text, string, SAY_MAX);
}

// Python takes single quotes, but for a string that has those and no double ones.
static void add_quoted(struct text *text, const char *string)
{
    char quote = strchr(string, '\'') && !strchr(string, '"') ? '"' : '\'';
    CLEANUP(text_clear) struct text quoted = {0};
    for (const char *c = string; *c; c++) {
        if (*c == '\\' || *c == quote)
            text_printf(&quoted, "\\%c", *c);
        else if (*c == '\n' || *c == '\r' || *c == '\t')
            text_add(&quoted, *c == '\n' ? "\\n" : *c == '\r' ? "\\r" : "\\t");
        else
            text_add_bytes(&quoted, c, 1);
    }
    text_printf(text, "%c", quote);
    add_safe(text, quoted.string ? quoted.string : "");
    text_printf(text, "%c", quote);
}

static void add_list(struct text *text, struct json_object *list)
{
    size_t count = json_object_array_length(list);
    text_add(text, "[");
    for (size_t i = 0; i < count; i++) {
        text_add(text, i ? ", " : "");
        classic_add_repr(text, json_object_array_get_idx(list, i));
    }
    text_add(text, "]");
}

static void add_dictionary(struct text *text, struct json_object *object)
{
    const char *comma = "";
    text_add(text, "{");
    struct json_object_iterator at = json_object_iter_begin(object), end = json_object_iter_end(object);
    for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
        const char *name = json_object_iter_peek_name(&at);
        struct json_object *value = json_object_iter_peek_value(&at);
        text_add(text, comma);
        add_quoted(text, name);
        text_add(text, ": ");
        classic_add_repr(text, value);
        comma = ", ";
    }
    text_add(text, "}");
}

void classic_add_repr(struct text *text, struct json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_null:
        text_add(text, "None");
        break;
    case json_type_boolean:
        text_add(text, json_object_get_boolean(value) ? "True" : "False");
        break;
    case json_type_string:
        add_quoted(text, json_object_get_string(value));
        break;
    case json_type_array:
        add_list(text, value);
        break;
    case json_type_object:
        add_dictionary(text, value);
        break;
    case json_type_int:
    case json_type_double:
        text_add(text, json_object_get_string(value));
        break;
    }
}

void classic_add_plain(struct text *text, struct json_object *value)
{
    if (json_object_is_type(value, json_type_string))
        add_safe(text, json_object_get_string(value));
    else
        classic_add_repr(text, value);
}
