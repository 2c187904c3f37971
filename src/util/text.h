// Text that grows and text that is made safe: everything that people read is put together here.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

// A string that grows; {0} is the empty one. A failed allocation ends the process.
struct text {
    char *string; // NULL while empty
    size_t length;
    size_t room;
};

// Appends; the text stays terminated.
void text_add(struct text *text, const char *string);
void text_add_bytes(struct text *text, const char *bytes, size_t length);
void text_printf(struct text *text, const char *format, ...) PRINTF(2, 3);

// Appends a hostile string for people: valid UTF-8 stays, control, escape, bidirectional and
// invalid bytes become \xNN, and at most LIMIT bytes are taken, with "…" where it was cut.
void text_add_safe(struct text *text, const char *string, size_t limit);

// Whether a character moves the cursor, switches colours, cannot be seen or turns the direction of reading around.
bool text_is_harmful(uint32_t point) CHECKED;

// Hands the string over, never NULL; the text is empty then. Free it with free().
char *text_take(struct text *text) CHECKED;
void text_clear(struct text *text);

// Allocation that ends the process with a message when there is no memory.
void *memory_new(size_t count, size_t size) CHECKED;
void *memory_resize(void *owned, size_t count, size_t size) CHECKED;
char *string_copy(const char *string) CHECKED; // NULL stays NULL
char *string_printf(const char *format, ...) PRINTF(1, 2) CHECKED;

// True when both are equal or both NULL.
bool string_equal(const char *a, const char *b);

// Reads a whole number in BASE that fills the string and is at most LIMIT; false if it is not one.
bool string_to_number(const char *string, int base, unsigned long limit, unsigned long *number) CHECKED;
// The same for what does not fit into a long everywhere.
bool string_to_uint64(const char *string, int base, uint64_t limit, uint64_t *number) CHECKED;
