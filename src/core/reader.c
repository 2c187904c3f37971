// Reads values of the parsed file and collects the complaints.
#include "core/reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "util/text.h"

#define WORD_SHOWN_MAX 64
#define GUESSES_MAX 256 // names compared: a great many cost more than the hint is worth

static PRINTF(1, 0) char *formatted(const char *format, va_list arguments)
{
    char *string;
    if (vasprintf(&string, format, arguments) < 0)
        abort();
    return string;
}

void reader_add(struct config_messages *messages, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    messages->lines = memory_resize(messages->lines, messages->count + 1, sizeof(*messages->lines));
    messages->lines[messages->count++] = formatted(format, arguments);
    va_end(arguments);
}

static void path_add(const struct reader *reader, struct text *text)
{
    if (!reader->parent)
        return;
    path_add(reader->parent, text);
    if (!reader->key) {
        text_printf(text, "[%zu]", reader->index);
        return;
    }
    if (text->length > 0)
        text_add(text, ".");
    text_add_safe(text, reader->key, WORD_SHOWN_MAX);
}

char *reader_path(const struct reader *reader)
{
    struct text text = {0};
    path_add(reader, &text);
    return text_take(&text);
}

static PRINTF(3, 0) void complain(const struct reader *reader, struct config_messages *messages, const char *format,
                                  va_list arguments)
{
    CLEANUP(cleanup_free) char *path = reader_path(reader);
    CLEANUP(cleanup_free) char *what = formatted(format, arguments);
    reader_add(messages, "%s: %s%s%s", reader->file, path, *path ? ": " : "", what);
}

void reader_error(const struct reader *reader, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(reader, &reader->report->errors, format, arguments);
    va_end(arguments);
}

void reader_warning(const struct reader *reader, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(reader, &reader->report->warnings, format, arguments);
    va_end(arguments);
}

void reader_note(const struct reader *reader, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(reader, &reader->report->notes, format, arguments);
    va_end(arguments);
}

static size_t least_of(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

static char lower(char byte)
{
    return (char)(byte >= 'A' && byte <= 'Z' ? byte - 'A' + 'a' : byte);
}

// How many letters to insert, delete or change to make A into B; case costs nothing.
static size_t distance(const char *a, const char *b)
{
    size_t row[WORD_SHOWN_MAX + 1], length = strlen(b);
    for (size_t j = 0; j <= length; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t corner = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < length; j++) {
            size_t above = row[j + 1];
            row[j + 1] = least_of(above + 1, row[j] + 1, corner + (lower(a[i]) != lower(b[j])));
            corner = above;
        }
    }
    return row[length];
}

char *reader_guess(const char *word, const char *const *names, size_t count)
{
    const char *nearest = NULL;
    size_t best = strlen(word) / 3 + 1; // further off is not meant
    for (size_t i = 0; i < count && i < GUESSES_MAX; i++) {
        size_t length = strlen(names[i]);
        if (length > WORD_SHOWN_MAX || strlen(word) > WORD_SHOWN_MAX)
            continue;
        size_t changes = distance(word, names[i]);
        if (changes < length && (nearest ? changes < best : changes <= best)) {
            nearest = names[i];
            best = changes;
        }
    }
    if (!nearest)
        return string_copy("");
    struct text text = {0};
    text_add(&text, " (did you mean ");
    text_add_safe(&text, nearest, WORD_SHOWN_MAX);
    text_add(&text, "?)");
    return text_take(&text);
}

static const char *type_name(struct json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_boolean:
        return json_object_get_boolean(value) ? "true" : "false";
    case json_type_double:
        return "a fraction";
    case json_type_int:
        return "a number";
    case json_type_object:
        return "an object";
    case json_type_array:
        return "a list";
    case json_type_string:
        return "a text";
    case json_type_null:
    default:
        return "null";
    }
}

static void wrong_type(const struct reader *reader, const char *wanted)
{
    reader_error(reader, "must be %s, not %s", wanted, type_name(reader->value));
}

static bool is_comment(const char *key)
{
    return *key == '_' || *key == '$' || strncmp(key, "x-", 2) == 0;
}

static void unknown_key(const struct reader *member, const struct reader_key *keys, size_t count,
                        enum reader_unknown unknown)
{
    CLEANUP(cleanup_free) const char **names = memory_new(count, sizeof(*names));
    for (size_t i = 0; i < count; i++)
        names[i] = keys[i].name;
    CLEANUP(cleanup_free) char *guess = reader_guess(member->key, names, count);
    if (unknown == READER_REFUSE)
        reader_error(member, "unknown key%s", guess);
    else
        reader_warning(member, "unknown key, not looked at%s", guess);
}

static const struct reader_key *key_find(const char *name, const struct reader_key *keys, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

uint64_t reader_object(const struct reader *reader, const struct reader_key *keys, size_t count,
                       enum reader_unknown unknown, void *target)
{
    if (!json_object_is_type(reader->value, json_type_object)) {
        wrong_type(reader, "an object in { }");
        return 0;
    }
    uint64_t present = 0;
    struct json_object_iterator at = json_object_iter_begin(reader->value);
    struct json_object_iterator end = json_object_iter_end(reader->value);
    for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
        struct reader member = {.file = reader->file,
                                .report = reader->report,
                                .parent = reader,
                                .key = json_object_iter_peek_name(&at),
                                .value = json_object_iter_peek_value(&at)};
        const struct reader_key *key = key_find(member.key, keys, count);
        if (!member.value || is_comment(member.key))
            continue;
        if (!key) {
            unknown_key(&member, keys, count, unknown);
            continue;
        }
        present |= UINT64_C(1) << (key - keys);
        key->read(&member, key, (char *)target + key->offset);
    }
    return present;
}

size_t reader_count(const struct reader *reader)
{
    if (json_object_is_type(reader->value, json_type_array))
        return json_object_array_length(reader->value);
    wrong_type(reader, "a list in [ ]");
    return 0;
}

struct reader reader_item(const struct reader *reader, size_t index)
{
    return (struct reader){.file = reader->file,
                           .report = reader->report,
                           .parent = reader,
                           .index = index,
                           .value = json_object_array_get_idx(reader->value, index)};
}

const char *reader_string(const struct reader *value)
{
    if (json_object_is_type(value->value, json_type_string))
        return json_object_get_string(value->value);
    wrong_type(value, "a text in quotes");
    return NULL;
}

bool reader_word(const struct reader *value, const char *const *words, size_t count, size_t *index)
{
    const char *string = reader_string(value);
    if (!string)
        return false;
    for (*index = 0; *index < count; ++*index)
        if (strcmp(string, words[*index]) == 0)
            return true;
    CLEANUP(text_clear) struct text list = {0};
    for (size_t i = 0; i < count; i++)
        text_printf(&list, "%s%s", i == 0 ? "" : i + 1 < count ? ", " : " or ", words[i]);
    CLEANUP(cleanup_free) char *guess = reader_guess(string, words, count);
    reader_error(value, "must be %s%s", list.string, guess);
    return false;
}

void reader_text(const struct reader *value, const struct reader_key *key, void *place)
{
    const char *string = reader_string(value);
    if (!string)
        return;
    if (!*string) {
        reader_error(value, "is empty");
    } else if (key->most && strlen(string) > key->most) {
        reader_error(value, "is longer than %lu bytes", key->most);
    } else {
        char **text = place;
        free(*text);
        *text = string_copy(string);
    }
}

void reader_remark(const struct reader *value, const struct reader_key *key, void *place)
{
    const char *string = reader_string(value);
    char **text = place;
    (void)key;
    if (string) {
        free(*text);
        *text = string_copy(string);
    }
}

void reader_path_name(const struct reader *value, const struct reader_key *key, void *place)
{
    const char *string = reader_string(value);
    if (!string)
        return;
    if (*string && *string != '/')
        reader_error(value, "must be an absolute path: it has to begin with /");
    else
        reader_text(value, key, place);
}

void reader_flag(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    bool *flag = place;
    if (json_object_is_type(value->value, json_type_boolean))
        *flag = json_object_get_boolean(value->value);
    else
        wrong_type(value, "true or false");
}

void reader_number(const struct reader *value, const struct reader_key *key, void *place)
{
    unsigned long number;
    if (!json_object_is_type(value->value, json_type_int)) {
        const char *string = json_object_get_string(value->value);
        if (json_object_is_type(value->value, json_type_string) && string_to_number(string, 10, key->most, &number))
            reader_error(value, "must be a number, not a text: write %lu without the quotes", number);
        else
            reader_error(value, "must be a whole number from %lu to %lu, not %s", key->least, key->most,
                         type_name(value->value));
        return;
    }
    int64_t given = json_object_get_int64(value->value); // what does not fit is its largest or least
    if (given < (int64_t)key->least || given > (int64_t)key->most)
        reader_error(value, "must be from %lu to %lu", key->least, key->most);
    else
        *(unsigned *)place = (unsigned)given;
}

void reader_hex(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    if (!json_object_is_type(value->value, json_type_string)) {
        reader_error(value, "must be up to four hex digits in quotes, such as \"046d\", not %s",
                     type_name(value->value));
        return;
    }
    const char *digits = json_object_get_string(value->value);
    if (strncasecmp(digits, "0x", 2) == 0)
        digits += 2;
    size_t length = strspn(digits, "0123456789abcdefABCDEF");
    unsigned long number;
    if (digits[length] || length > 4 || !string_to_number(digits, 16, 0xffff, &number))
        reader_error(value, "must be up to four hex digits, such as \"046d\"");
    else
        *(unsigned *)place = (unsigned)number;
}

void reader_any(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)value;
    (void)key;
    (void)place;
}

bool reader_disabled(const struct reader *reader)
{
    struct json_object *disable = NULL, *enable = NULL;
    (void)json_object_object_get_ex(reader->value, "disable", &disable);
    (void)json_object_object_get_ex(reader->value, "enable", &enable);
    bool off = json_object_is_type(disable, json_type_boolean) && json_object_get_boolean(disable);
    bool on = !json_object_is_type(enable, json_type_boolean) || json_object_get_boolean(enable);
    bool both = json_object_is_type(disable, json_type_boolean) && json_object_is_type(enable, json_type_boolean);
    if (both && off == on)
        reader_error(reader, "disable and enable contradict each other");
    return off || !on;
}
