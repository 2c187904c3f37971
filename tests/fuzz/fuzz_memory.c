// Fuzzes the daemon's memory of an earlier run, and the choices of people: what is read prints, and reads again.
#include <string.h>

#include "core/choice.h"
#include "core/memory.h"
#include "fuzz.h"
#include "util/text.h"

static void read_memory(const char *text, size_t length)
{
    CLEANUP(memory_clear) struct memory memory = {0}, again = {0};
    CLEANUP(cleanup_free) char *error = memory_parse(text, length, &memory);
    if (error)
        return;
    CLEANUP(cleanup_free) char *printed = memory_print(&memory);
    CLEANUP(cleanup_free) char *again_error = memory_parse(printed, strlen(printed), &again);
    if (again_error || again.count != memory.count)
        abort();
}

static void read_choices(const char *text, size_t length)
{
    CLEANUP(choices_clear) struct choices choices = {0}, again = {0};
    CLEANUP(cleanup_free) char *error = choices_parse(text, length, &choices);
    if (error)
        return;
    CLEANUP(cleanup_free) char *printed = choices_print(&choices);
    CLEANUP(cleanup_free) char *again_error = choices_parse(printed, strlen(printed), &again);
    if (again_error || again.count != choices.count)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    read_memory((const char *)bytes, length);
    read_choices((const char *)bytes, length);
    return 0;
}
