// Checks the text of a file by a walk of its own, which knows lines, columns and equal keys, and hands
// a strict copy of it to json-c: comments and trailing commas are blanks there, so offsets stay.
#include "core/syntax.h"

#include <string.h>

#include "core/reader.h"
#include "util/text.h"

struct syntax {
    const char *file;
    struct config_messages *errors;
    char *text;   // as given; terminated, and no NUL within
    char *strict; // the copy for json-c
    size_t length;
    size_t at;
    int depth;
};

// A key of an object as it stands in the text, quotes included.
struct key {
    size_t at, length;
};

static bool value_walk(struct syntax *syntax);

static bool fail_at(const struct syntax *syntax, size_t at, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        unsigned char byte = (unsigned char)syntax->text[i];
        if (byte == '\n') {
            line++;
            column = 1;
        } else if ((byte & 0xc0) != 0x80) {
            column++; // characters, not bytes
        }
    }
    reader_add(syntax->errors, "%s:%zu:%zu: %s", syntax->file, line, column, what);
    return false;
}

static bool fail(const struct syntax *syntax, const char *what)
{
    return fail_at(syntax, syntax->at, what);
}

static void blank(struct syntax *syntax, size_t from, size_t to)
{
    memset(syntax->strict + from, ' ', to - from);
}

static bool comment_skip(struct syntax *syntax)
{
    size_t start = syntax->at;
    const char *text = syntax->text + start, *end;
    if (text[1] == '/') {
        end = strchrnul(text, '\n');
    } else if (text[1] == '*') {
        end = strstr(text + 2, "*/");
        if (!end)
            return fail(syntax, "this comment has no end: */ is missing");
        end += 2;
    } else {
        return fail(syntax, "a lone /: comments begin with // or /*");
    }
    syntax->at = (size_t)(end - syntax->text);
    blank(syntax, start, syntax->at);
    return true;
}

static bool space_skip(struct syntax *syntax)
{
    for (;;) {
        syntax->at += strspn(syntax->text + syntax->at, " \t\r\n");
        if (syntax->text[syntax->at] != '/')
            return true;
        if (!comment_skip(syntax))
            return false;
    }
}

static bool escape_walk(struct syntax *syntax)
{
    const char *escape = syntax->text + syntax->at + 1;
    if (*escape && strchr("\"\\/bfnrt", *escape)) {
        syntax->at += 2;
        return true;
    }
    if (*escape != 'u' || strspn(escape + 1, "0123456789abcdefABCDEF") < 4)
        return fail(syntax, "no such escape: after \\ may stand one of \" \\ / b f n r t or u and four hex digits");
    if (strncmp(escape, "u0000", 5) == 0)
        return fail(syntax, "\\u0000 is not allowed");
    syntax->at += 6;
    return true;
}

static bool string_walk(struct syntax *syntax)
{
    size_t start = syntax->at++;
    for (;;) {
        unsigned char byte = (unsigned char)syntax->text[syntax->at];
        if (byte == '"') {
            syntax->at++;
            return true;
        }
        if (byte == '\\') {
            if (!escape_walk(syntax))
                return false;
        } else if (byte == 0 || byte == '\n') {
            return fail_at(syntax, start, "this text has no end: the closing \" is missing");
        } else if (byte < 0x20 || byte == 0x7f) {
            return fail(syntax, "a control character within a text: write it as an escape such as \\t");
        } else {
            syntax->at++;
        }
    }
}

static bool digits_walk(struct syntax *syntax)
{
    size_t count = strspn(syntax->text + syntax->at, "0123456789");
    syntax->at += count;
    return count > 0;
}

static bool number_walk(struct syntax *syntax)
{
    size_t start = syntax->at;
    syntax->at += syntax->text[syntax->at] == '-';
    if (syntax->text[syntax->at] == '0' && strspn(syntax->text + syntax->at, "0123456789xX") > 1)
        return fail_at(syntax, start, "a number cannot begin with 0: decimal is meant, hexadecimal goes in quotes");
    bool good = digits_walk(syntax);
    if (good && syntax->text[syntax->at] == '.') {
        syntax->at++;
        good = digits_walk(syntax);
    }
    if (good && (syntax->text[syntax->at] == 'e' || syntax->text[syntax->at] == 'E')) {
        syntax->at++;
        syntax->at += syntax->text[syntax->at] == '-' || syntax->text[syntax->at] == '+';
        good = digits_walk(syntax);
    }
    return good ? true : fail_at(syntax, start, "not a number");
}

static bool word_walk(struct syntax *syntax)
{
    static const char *const words[] = {"true", "false", "null"};
    const char *text = syntax->text + syntax->at;
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (length == strlen(words[i]) && strncmp(text, words[i], length) == 0) {
            syntax->at += length;
            return true;
        }
    }
    if (*text == 0)
        return fail(syntax, "the file ends where a value is expected");
    if (*text == '\'')
        return fail(syntax, "texts stand in double quotes");
    if (length > 0)
        return fail(syntax, "not a value: texts stand in double quotes, and true, false and null are lower case");
    return fail(syntax, "a value is expected here");
}

// The key with its escapes resolved.
static char *key_name(const struct syntax *syntax, const struct key *key)
{
    CLEANUP(cleanup_free) char *quoted = memory_new(key->length + 1, 1);
    memcpy(quoted, syntax->text + key->at, key->length);
    struct json_object *string = json_tokener_parse(quoted);
    char *name = string_copy(string ? json_object_get_string(string) : "");
    json_object_put(string);
    return name;
}

static bool key_equal(const struct syntax *syntax, const struct key *a, const struct key *b)
{
    const char *first = syntax->text + a->at, *second = syntax->text + b->at;
    if (!memchr(first, '\\', a->length) && !memchr(second, '\\', b->length))
        return a->length == b->length && memcmp(first, second, a->length) == 0;
    CLEANUP(cleanup_free) char *name = key_name(syntax, a);
    CLEANUP(cleanup_free) char *other = key_name(syntax, b);
    return string_equal(name, other);
}

// Remembers the key; one that stands twice is an error after which the walk goes on.
static bool key_check(const struct syntax *syntax, struct key *keys, size_t *count, const struct key *key)
{
    for (size_t i = 0; i < *count; i++) {
        if (key_equal(syntax, &keys[i], key)) {
            CLEANUP(cleanup_free) char *name = key_name(syntax, key);
            struct text what = {0};
            text_add(&what, "the key ");
            text_add_safe(&what, name, 64);
            text_add(&what, " stands twice in the same object");
            (void)fail_at(syntax, key->at, what.string);
            text_clear(&what);
            return true;
        }
    }
    if (*count == SYNTAX_KEYS_MAX)
        return fail_at(syntax, key->at, "too many keys in one object");
    keys[(*count)++] = *key;
    return true;
}

static bool member_walk(struct syntax *syntax, struct key *keys, size_t *count)
{
    if (syntax->text[syntax->at] != '"')
        return fail(syntax, syntax->text[syntax->at] ? "a key in double quotes or } is expected here"
                                                     : "the file ends within an object: } is missing");
    struct key key = {.at = syntax->at};
    if (!string_walk(syntax))
        return false;
    key.length = syntax->at - key.at;
    if (!key_check(syntax, keys, count, &key) || !space_skip(syntax))
        return false;
    if (syntax->text[syntax->at] != ':')
        return fail(syntax, "a : is expected here, between key and value");
    syntax->at++;
    return value_walk(syntax);
}

// After a value of an object or a list: a comma, or the closing byte. DONE tells that it was closed.
static bool end_walk(struct syntax *syntax, char close, bool *done)
{
    if (!space_skip(syntax))
        return false;
    char byte = syntax->text[syntax->at];
    if (byte == ',') {
        size_t comma = syntax->at++;
        if (!space_skip(syntax))
            return false;
        byte = syntax->text[syntax->at];
        if (byte == close)
            blank(syntax, comma, comma + 1);
    } else if (byte == 0) {
        return fail(syntax, close == '}' ? "the file ends within an object: } is missing"
                                         : "the file ends within a list: ] is missing");
    } else if (byte != close) {
        return fail(syntax, close == '}' ? "a comma or } is expected here" : "a comma or ] is expected here");
    }
    *done = byte == close;
    return true;
}

static bool members_walk(struct syntax *syntax, struct key *keys, char close)
{
    size_t count = 0;
    bool done = syntax->text[syntax->at] == close;
    while (!done) {
        bool good = close == '}' ? member_walk(syntax, keys, &count) : value_walk(syntax);
        if (!good || !end_walk(syntax, close, &done))
            return false;
    }
    syntax->at++;
    return true;
}

static bool nested_walk(struct syntax *syntax, char close)
{
    if (syntax->depth == SYNTAX_DEPTH_MAX)
        return fail(syntax, "nested too deep");
    syntax->depth++;
    syntax->at++;
    CLEANUP(cleanup_free) struct key *keys = close == '}' ? memory_new(SYNTAX_KEYS_MAX, sizeof(*keys)) : NULL;
    bool good = space_skip(syntax) && members_walk(syntax, keys, close);
    syntax->depth--;
    return good;
}

static bool value_walk(struct syntax *syntax)
{
    if (!space_skip(syntax))
        return false;
    char byte = syntax->text[syntax->at];
    if (byte == '{')
        return nested_walk(syntax, '}');
    if (byte == '[')
        return nested_walk(syntax, ']');
    if (byte == '"')
        return string_walk(syntax);
    if (byte == '-' || (byte >= '0' && byte <= '9'))
        return number_walk(syntax);
    return word_walk(syntax);
}

static bool file_walk(struct syntax *syntax)
{
    if (strncmp(syntax->text, "\xef\xbb\xbf", 3) == 0) { // a byte order mark, as some editors leave it
        syntax->at = 3;
        blank(syntax, 0, 3);
    }
    if (!space_skip(syntax))
        return false;
    if (syntax->at == syntax->length)
        return fail(syntax, "the file is empty: it must hold one object in { }");
    if (syntax->text[syntax->at] != '{')
        return fail(syntax, "the file must hold one object in { }");
    if (!value_walk(syntax) || !space_skip(syntax))
        return false;
    return syntax->at == syntax->length ? true : fail(syntax, "nothing may follow the object");
}

// Length of the valid UTF-8 character at TEXT, of which LEFT bytes are there, or 0.
static size_t character_length(const unsigned char *text, size_t left)
{
    if (text[0] < 0x80)
        return 1;
    size_t length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    if (text[0] < 0xc2 || text[0] > 0xf4 || left < length)
        return 0;
    // The second byte keeps out what has a shorter form, the surrogates and what is beyond Unicode.
    unsigned char least = text[0] == 0xe0 ? 0xa0 : text[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char most = text[0] == 0xed ? 0x9f : text[0] == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < least || text[1] > most)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

static bool bytes_check(const struct syntax *syntax)
{
    for (size_t at = 0; at < syntax->length;) {
        const unsigned char *byte = (const unsigned char *)syntax->text + at;
        size_t length = character_length(byte, syntax->length - at);
        if (length == 0)
            return fail_at(syntax, at, "not valid UTF-8");
        if (*byte == 0)
            return fail_at(syntax, at, "a NUL byte: this is no text file");
        at += length;
    }
    return true;
}

// The walk has let pass nothing that json-c refuses, but what it says is not taken on trust.
static struct json_object *strict_parse(struct syntax *syntax)
{
    struct json_tokener *tokener = json_tokener_new_ex(SYNTAX_DEPTH_MAX + 1);
    if (!tokener)
        abort();
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    struct json_object *value = json_tokener_parse_ex(tokener, syntax->strict, (int)syntax->length + 1);
    if (!value) {
        syntax->at = json_tokener_get_parse_end(tokener);
        (void)fail(syntax, json_tokener_error_desc(json_tokener_get_error(tokener)));
    }
    json_tokener_free(tokener);
    return value;
}

struct json_object *syntax_parse(const char *file, const char *text, size_t length, struct config_messages *errors)
{
    if (length > SYNTAX_LENGTH_MAX) {
        reader_add(errors, "%s:1:1: the file is larger than 1 MiB", file);
        return NULL;
    }
    size_t before = errors->count;
    CLEANUP(cleanup_free) char *copy = memory_new(length + 1, 1);
    CLEANUP(cleanup_free) char *strict = memory_new(length + 1, 1);
    memcpy(copy, text, length);
    memcpy(strict, text, length);
    struct syntax syntax = {.file = file, .errors = errors, .text = copy, .strict = strict, .length = length};
    if (!bytes_check(&syntax) || !file_walk(&syntax) || errors->count != before)
        return NULL;
    return strict_parse(&syntax);
}
