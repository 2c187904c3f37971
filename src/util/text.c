// Text that grows and text that is made safe.
#include "util/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define PRINTED_BRIEF 128

static void end_for_lack_of_memory(void)
{
    static const char message[] = "error out of memory\n";
    if (write(STDERR_FILENO, message, sizeof message - 1) < 0)
        abort();
    abort();
}

void *memory_new(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (!memory)
        end_for_lack_of_memory();
    return memory;
}

void *memory_resize(void *owned, size_t count, size_t size)
{
    void *memory = reallocarray(owned, count ? count : 1, size ? size : 1);
    if (!memory)
        end_for_lack_of_memory();
    return memory;
}

char *string_copy(const char *string)
{
    if (!string)
        return NULL;
    size_t size = strlen(string) + 1;
    return memcpy(memory_new(size, 1), string, size);
}

char *string_printf(const char *format, ...)
{
    char *string = NULL;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&string, format, arguments) < 0)
        end_for_lack_of_memory();
    va_end(arguments);
    return string;
}

bool string_equal(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool string_to_number(const char *string, int base, unsigned long limit, unsigned long *number)
{
    uint64_t value;
    if (!string_to_uint64(string, base, limit, &value))
        return false;
    *number = (unsigned long)value;
    return true;
}

bool string_to_uint64(const char *string, int base, uint64_t limit, uint64_t *number)
{
    // strtoull takes blanks and signs; a number here begins with a digit.
    char first = string[0];
    bool digit = (first >= '0' && first <= '9') ||
                 (base == 16 && ((first >= 'a' && first <= 'f') || (first >= 'A' && first <= 'F')));
    if (!digit || (base == 16 && (string[1] == 'x' || string[1] == 'X')))
        return false;
    char *end;
    errno = 0;
    uint64_t value = strtoull(string, &end, base);
    if (errno || *end || value > limit)
        return false;
    *number = value;
    return true;
}

void text_add_bytes(struct text *text, const char *bytes, size_t length)
{
    if (text->room - text->length <= length) {
        size_t room = text->room ? text->room : 64;
        while (room - text->length <= length)
            room *= 2;
        text->string = memory_resize(text->string, room, 1);
        text->room = room;
    }
    memcpy(text->string + text->length, bytes, length);
    text->length += length;
    text->string[text->length] = '\0';
}

void text_add(struct text *text, const char *string)
{
    text_add_bytes(text, string, strlen(string));
}

void text_printf(struct text *text, const char *format, ...)
{
    char brief[PRINTED_BRIEF]; // what most come to
    CLEANUP(cleanup_free) char *string = NULL;
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(brief, sizeof brief, format, arguments);
    if (length >= (int)sizeof brief)
        length = vasprintf(&string, format, again);
    va_end(again);
    va_end(arguments);
    if (length < 0)
        end_for_lack_of_memory();
    text_add_bytes(text, string ? string : brief, (size_t)length);
}

// The length of the well-formed UTF-8 sequence at S and its code point; 0 if there is none.
static size_t utf8_sequence(const unsigned char *s, uint32_t *point)
{
    size_t length;
    uint32_t least;
    if (s[0] < 0x80) {
        *point = s[0];
        return 1;
    }
    if (s[0] >= 0xc2 && s[0] < 0xe0) {
        length = 2, least = 0x80, *point = s[0] & 0x1fU;
    } else if (s[0] >= 0xe0 && s[0] < 0xf0) {
        length = 3, least = 0x800, *point = s[0] & 0x0fU;
    } else if (s[0] >= 0xf0 && s[0] < 0xf5) {
        length = 4, least = 0x10000, *point = s[0] & 0x07U;
    } else {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        *point = *point << 6 | (s[i] & 0x3fU);
    }
    bool surrogate = *point >= 0xd800 && *point < 0xe000;
    return *point < least || surrogate || *point > 0x10ffff ? 0 : length;
}

bool text_is_harmful(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x061c || (point >= 0x200b && point <= 0x200f) ||
           (point >= 0x2028 && point <= 0x202e) || (point >= 0x2060 && point <= 0x2069) || point == 0xfeff;
}

void text_add_safe(struct text *text, const char *string, size_t limit)
{
    const unsigned char *s = (const unsigned char *)string;
    const unsigned char *end = s + strlen(string);
    size_t taken = 0;
    while (s < end) {
        uint32_t point;
        size_t length = utf8_sequence(s, &point);
        size_t step = length ? length : 1;
        if (taken + step > limit) {
            text_add(text, "…");
            return;
        }
        if (length && !text_is_harmful(point)) {
            text_add_bytes(text, (const char *)s, length);
        } else {
            for (size_t i = 0; i < step; i++)
                text_printf(text, "\\x%02x", s[i]);
        }
        taken += step;
        s += step;
    }
}

char *text_take(struct text *text)
{
    char *string = text->string ? text->string : string_copy("");
    *text = (struct text){0};
    return string;
}

void text_clear(struct text *text)
{
    free(text->string);
    *text = (struct text){0};
}
