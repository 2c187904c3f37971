// Text in columns.
#include "ctl/wrap.h"

#include <string.h>
#include <wchar.h>

#include "util/text.h"

// The bytes of the character at S, and the columns that it takes.
static size_t next_character(const char *s, size_t *columns)
{
    wchar_t character;
    mbstate_t state = {0};
    size_t length = mbrtowc(&character, s, strlen(s), &state);
    int width = length > 0 && length < (size_t)-2 ? wcwidth(character) : -1;
    *columns = width < 0 ? 1 : (size_t)width;
    return width < 0 ? 1 : length;
}

// Columns of the first LENGTH bytes.
static size_t width_of(const char *string, size_t length)
{
    size_t width = 0;
    for (size_t at = 0; at < length;) {
        size_t columns;
        at += next_character(string + at, &columns);
        width += columns;
    }
    return width;
}

size_t wrap_width(const char *string)
{
    return width_of(string, strlen(string));
}

// Adds a word that is wider than a line in pieces; returns the width of the last.
static size_t add_cut(struct text *text, const char *word, size_t length, size_t width)
{
    size_t column = 0;
    for (size_t at = 0; at < length;) {
        size_t columns, bytes = next_character(word + at, &columns);
        if (column + columns > width && column > 0) {
            text_add(text, "\n");
            column = 0;
        }
        text_add_bytes(text, word + at, bytes);
        column += columns;
        at += bytes;
    }
    return column;
}

char *wrap_words(const char *string, size_t width)
{
    struct text text = {0};
    size_t column = 0;
    while (*string) {
        string += strspn(string, " ");
        size_t length = strcspn(string, " ");
        size_t columns = width_of(string, length);
        if (length && column && column + 1 + columns > width) {
            text_add(&text, "\n");
            column = 0;
        } else if (length && column) {
            text_add(&text, " ");
            column++;
        }
        column = columns > width ? add_cut(&text, string, length, width)
                                 : (text_add_bytes(&text, string, length), column + columns);
        string += length;
    }
    return text_take(&text);
}
