// The command lines of fuzzers: an input read as arguments, and what the program prints thrown away.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ARGUMENTS_MAX 64

struct arguments {
    char *text;
    int count;
    char *list[ARGUMENTS_MAX + 1]; // ends with NULL
};

// Each line of the input is an argument; none is without one. Clear with arguments_clear.
void arguments_read(struct arguments *arguments, const uint8_t *bytes, size_t length);
void arguments_clear(struct arguments *arguments);
