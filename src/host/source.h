// A device of the host before it is a value: where it is with what udev says of it, and what was read.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/device.h"
#include "util/cleanup.h"

#define SOURCE_PROPERTIES_MAX 128
#define SOURCE_PROPERTY_LENGTH_MAX 1024

// Strings are owned and may be NULL but the syspath.
struct source {
    enum device_kind kind;
    char *syspath;
    bool ready; // udev is done with it: it may be reported
    char *vendor_database, *product_database;
    char *id_path;
    char *event;       // input: name of its event node, "event5", a directory in that of the device
    bool knows;        // input: udev says what it is; else its capabilities do
    char *path_tag;    // input: ID_PATH_TAG
    char **properties; // input: "NAME=value" of the event node
    size_t property_count;
};

struct source *source_new(enum device_kind kind, const char *syspath, bool ready) CHECKED;
void source_free(struct source *source);
DEFINE_CLEANUP(struct source *, cleanup_source, source_free)

// Adds a property; what is too long, or one too many, is left out.
void source_add_property(struct source *source, const char *name, const char *value);
// In the order of their names, as the same ones come in any order.
void source_sort_properties(struct source *source);

#define READING_MODALIASES_MAX 32

// What was read.
struct reading {
    struct device *device;
    char *modaliases[READING_MODALIASES_MAX]; // to ask for drivers; none where the classes tell what it is
    size_t modalias_count;
};

void reading_clear(struct reading *reading);
