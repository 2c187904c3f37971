// Text in columns: how wide it is on a terminal, and where its lines end.
#pragma once

#include <stddef.h>

#include "util/cleanup.h"

// Columns that STRING takes; what the locale cannot show counts as one for each byte.
size_t wrap_width(const char *string) CHECKED;
// STRING with its blanks turned into newlines where a line would be wider than WIDTH (at least 1); words
// that are wider are cut. Free with free().
char *wrap_words(const char *string, size_t width) CHECKED;
