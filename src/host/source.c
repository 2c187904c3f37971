// A device of the host before it is a value: where it is with what udev says of it, and what was read.
#include "host/source.h"

#include <stdlib.h>
#include <string.h>

#include "util/text.h"

struct source *source_new(enum device_kind kind, const char *syspath, bool ready)
{
    struct source *source = memory_new(1, sizeof(*source));

    *source = (struct source){.kind = kind, .syspath = string_copy(syspath), .ready = ready};
    return source;
}

void source_free(struct source *source)
{
    if (source == NULL)
        return;
    for (size_t i = 0; i < source->property_count; i++)
        free(source->properties[i]);
    free(source->properties);
    free(source->syspath);
    free(source->vendor_database);
    free(source->product_database);
    free(source->id_path);
    free(source->event);
    free(source->path_tag);
    free(source);
}

void source_add_property(struct source *source, const char *name, const char *value)
{
    if (source->property_count == SOURCE_PROPERTIES_MAX ||
        strlen(name) + 1 + strlen(value) > SOURCE_PROPERTY_LENGTH_MAX)
        return;
    source->properties = memory_resize(source->properties, source->property_count + 1, sizeof(*source->properties));
    source->properties[source->property_count++] = string_printf("%s=%s", name, value);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void source_sort_properties(struct source *source)
{
    if (source->property_count > 0)
        qsort(source->properties, source->property_count, sizeof(*source->properties), compare);
}

void reading_clear(struct reading *reading)
{
    device_release(reading->device);
    for (size_t i = 0; i < reading->modalias_count; i++)
        free(reading->modaliases[i]);
    *reading = (struct reading){0};
}
