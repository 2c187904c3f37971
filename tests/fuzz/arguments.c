// The command lines of fuzzers: an input read as arguments, and what the program prints thrown away.
#include "arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

// libFuzzer has taken hold of standard error before, and still says there what it finds.
static void be_silent(void)
{
    static FILE *nowhere;
    if (!nowhere)
        stdout = stderr = nowhere = fopen("/dev/null", "we");
    if (!nowhere)
        abort();
}

void arguments_read(struct arguments *arguments, const uint8_t *bytes, size_t length)
{
    be_silent();
    *arguments = (struct arguments){.text = memory_new(length + 1, 1)};
    memcpy(arguments->text, bytes, length);
    char *rest = length > 0 ? arguments->text : NULL;
    while (rest && arguments->count < ARGUMENTS_MAX)
        arguments->list[arguments->count++] = strsep(&rest, "\n");
}

void arguments_clear(struct arguments *arguments)
{
    free(arguments->text);
}
