// What people decided about devices, to outlive everything: which VM one shall be in, and which shall stay out of all.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/device.h"
#include "util/cleanup.h"

#define CHOICES_MAX 4096
#define CHOICES_TEXT_MAX ((size_t)32 << 20) // bytes; no text form of choices of ours is longer

struct choice {
    char *id;      // "usb-046d:c52b:SERIAL", as the Python vhotplug names it
    char *path;    // where it is plugged, as choice_path says; NULL: wherever
    char *vm;      // the VM chosen last; NULL: none
    bool detached; // a person took it out; it stays out until a person attaches it
};

// The newest is the last.
struct choices {
    struct choice *items;
    size_t count;
};

// Whether a device other than the one that is asked about is in the place of ENTRY and has its id: a twin.
typedef bool choice_is_taken(const void *user, const struct choice *entry);
// What holds for DEVICE, or NULL: the entry of its place, else one for wherever, else, if it has a
// serial number, the newest of another place that is not taken (IS_TAKEN may be NULL: none is). Borrowed.
const struct choice *choices_find(const struct choices *choices, const struct device *device, choice_is_taken *is_taken,
                                  const void *user) CHECKED;
// Sets what holds for DEVICE in its place and makes it the newest entry; VM NULL leaves the VM as it was,
// as choices_find says.
// When there are CHOICES_MAX, the oldest entry makes room that keeps nothing out; if all do, CHOICE_NO_ROOM, and
// nothing changes.
enum choice_result { CHOICE_SAME, CHOICE_SET, CHOICE_NO_ROOM };
enum choice_result choices_set(struct choices *choices, const struct device *device, const char *vm, bool detached,
                               choice_is_taken *is_taken, const void *user) CHECKED;
size_t choices_detached(const struct choices *choices) CHECKED; // how many entries keep something out
void choices_forget(struct choices *choices, size_t index);

// "usb-046d:c52b:SERIAL" ("None" for no serial), "pci-0000:00:14.3", "input-NAME"; free with free().
// Bytes that cannot stand in a text file are escaped.
char *choice_id(const struct device *device) CHECKED;
// Where it is plugged, as it is called after a restart of the host also, as far as there is such a name:
// its id path, for input its path tag, else its key. Free with free().
char *choice_path(const struct device *device) CHECKED;

// Text form (JSON, one object) and back; the Python vhotplug's form is read too. Parsing takes hostile
// input: NULL on success, else what is wrong (free with free()), and CHOICES is empty then.
char *choices_print(const struct choices *choices) CHECKED;
char *choices_parse(const char *text, size_t length, struct choices *choices) CHECKED;
void choices_clear(struct choices *choices);
// Adds what EARLIER has: what is detached in either is detached then, and the VM is that of CHOICES where both name
// one. Returns how many of EARLIER that keep something out had no room.
size_t choices_join(struct choices *choices, const struct choices *earlier) CHECKED;
// TO is empty before.
void choices_copy(struct choices *to, const struct choices *from);
