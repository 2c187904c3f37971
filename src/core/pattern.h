// Regular expressions and globs of rules: what Python's users wrote, matched within limits.
#pragma once

#include <stdbool.h>

#include "util/cleanup.h"

#define PATTERN_LENGTH_MAX 4096
#define PATTERN_SUBJECT_MAX 4096 // longer subjects are cut

// A compiled regular expression: case-insensitive, anchored at the start only.
struct pattern;

// Compiles TEXT. Returns NULL with ERROR (free with free()) saying what is wrong and at which position.
struct pattern *pattern_new(const char *text, char **error) CHECKED;
// What it was compiled from; borrowed.
const char *pattern_text(const struct pattern *pattern) CHECKED;
void pattern_free(struct pattern *pattern); // NULL is fine
DEFINE_CLEANUP(struct pattern *, cleanup_pattern, pattern_free)

// Whether it matches. OTHERWISE is the answer when the match took too long and was given up.
bool pattern_matches(const struct pattern *pattern, const char *subject, bool otherwise);

// Whether SUBJECT as a whole is of the form GLOB (*, ?, […]).
bool pattern_glob(const char *glob, const char *subject);
