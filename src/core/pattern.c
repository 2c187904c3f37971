// Regular expressions and globs of rules; PCRE2 stays behind this file.
#include "core/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fnmatch.h>
#include <pcre2.h>
#include <stdint.h>
#include <string.h>

#include "util/text.h"

// Names of devices are a hundred bytes long: an honest match takes some thousand steps. The limit keeps
// the worst pair of pattern and subject at about a millisecond.
#define STEPS_MAX 50000
#define HEAP_KIB_MAX 4096
#define NESTING_MAX 100

#define LITERAL_MAX 32

struct pattern {
    // What every subject must hold, in lower case, at its start or else anywhere: most rules are ruled
    // out by it at a hundredth of the price. Empty where the pattern has no such thing.
    char literal[LITERAL_MAX];
    uint8_t literal_length;
    bool anywhere;
    pcre2_code *code;
    char *text;
};

static unsigned char lower(unsigned char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (unsigned char)(byte - 'A' + 'a') : byte;
}

// Finds the literal of "name…" and ".*name…". Alternatives may do without it, and a quantifier may make
// its last character optional.
static void literal_find(struct pattern *pattern, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-,/:;@=&%!~<>";
    if (strchr(text, '|'))
        return;
    pattern->anywhere = strncmp(text, ".*", 2) == 0;
    text += pattern->anywhere ? 2 : 0;
    size_t length = strspn(text, plain);
    if (length > 0 && text[length] && strchr("*+?{", text[length]))
        length--;
    pattern->literal_length = (uint8_t)(length < LITERAL_MAX ? length : LITERAL_MAX);
    for (size_t i = 0; i < pattern->literal_length; i++)
        pattern->literal[i] = (char)lower((unsigned char)text[i]);
}

// False when the literal is surely not at SUBJECT. Characters beyond ASCII may be other cases of those
// within (the Kelvin sign is a K): there PCRE2 has to look.
static bool literal_may_be_at(const struct pattern *pattern, const char *subject)
{
    for (size_t i = 0; i < pattern->literal_length; i++) {
        unsigned char byte = (unsigned char)subject[i];
        if (byte >= 0x80)
            return true;
        if (lower(byte) != (unsigned char)pattern->literal[i])
            return false;
    }
    return true;
}

static bool literal_may_be_in(const struct pattern *pattern, const char *subject)
{
    if (pattern->literal_length == 0 || !pattern->anywhere)
        return literal_may_be_at(pattern, subject);
    const unsigned char *byte = (const unsigned char *)subject;
    unsigned char first = (unsigned char)pattern->literal[0];
    unsigned char other = first >= 'a' && first <= 'z' ? (unsigned char)(first - 'a' + 'A') : first;
    for (; *byte; byte++)
        if ((*byte == first || *byte == other || *byte >= 0x80) && literal_may_be_at(pattern, (const char *)byte))
            return true;
    return false;
}

// What PCRE2 made, unless there was no memory for it.
static void *made(void *pointer)
{
    if (!pointer)
        abort();
    return pointer;
}

static pcre2_code *compile(const char *text, char **error)
{
    // UTF, as Python's strings are; subjects may be invalid and must be matched all the same. Code
    // generated at run time (JIT) would need memory that is both writable and executable: not here.
    uint32_t options =
        PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_UCP | PCRE2_CASELESS | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C;
    pcre2_compile_context *context = made(pcre2_compile_context_create(NULL));
    pcre2_set_parens_nest_limit(context, NESTING_MAX);
    int number;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options, &number, &offset, context);
    pcre2_compile_context_free(context);
    if (!code) {
        PCRE2_UCHAR message[256];
        (void)pcre2_get_error_message(number, message, sizeof(message));
        *error = string_printf("%s at position %zu", (const char *)message, (size_t)offset + 1);
    }
    return code;
}

struct pattern *pattern_new(const char *text, char **error)
{
    if (strlen(text) > PATTERN_LENGTH_MAX) {
        *error = string_printf("longer than %d bytes", PATTERN_LENGTH_MAX);
        return NULL;
    }
    pcre2_code *code = compile(text, error);
    if (!code)
        return NULL;
    struct pattern *pattern = memory_new(1, sizeof(*pattern));
    pattern->code = code;
    pattern->text = string_copy(text);
    literal_find(pattern, text);
    return pattern;
}

void pattern_free(struct pattern *pattern)
{
    if (!pattern)
        return;
    pcre2_code_free(pattern->code);
    free(pattern->text);
    free(pattern);
}

const char *pattern_text(const struct pattern *pattern)
{
    return pattern->text;
}

bool pattern_matches(const struct pattern *pattern, const char *subject, bool otherwise)
{
    if (!literal_may_be_in(pattern, subject))
        return false;
    // Both are made anew each time: kept, they would add up over a thousand rules, and PCRE2 keeps the memory of its
    // deepest match in the latter. One pair only: nobody asks where it matched.
    pcre2_match_context *context = made(pcre2_match_context_create(NULL));
    pcre2_set_match_limit(context, STEPS_MAX);
    pcre2_set_depth_limit(context, STEPS_MAX);
    pcre2_set_heap_limit(context, HEAP_KIB_MAX);
    pcre2_match_data *data = made(pcre2_match_data_create(1, NULL));
    int result =
        pcre2_match(pattern->code, (PCRE2_SPTR)subject, strnlen(subject, PATTERN_SUBJECT_MAX), 0, 0, data, context);
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (result >= 0)
        return true;
    return result == PCRE2_ERROR_NOMATCH ? false : otherwise;
}

bool pattern_glob(const char *glob, const char *subject)
{
    return fnmatch(glob, subject, 0) == 0;
}
