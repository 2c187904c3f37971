// Reads values of the parsed file: types and ranges are checked, and each complaint says where it is.
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/config.h"
#include "util/cleanup.h"

// A value of the file and the way to it. Lives on the stack; borrows all it points to.
struct reader {
    const char *file;
    struct config_report *report;
    const struct reader *parent; // NULL: the whole file
    const char *key;             // member of PARENT; NULL: item INDEX of it
    size_t index;
    struct json_object *value;
};

// One key of an object: how to read its value into the object's structure.
struct reader_key {
    const char *name;
    void (*read)(const struct reader *value, const struct reader_key *key, void *place);
    size_t offset;             // of the place in the structure
    unsigned long least, most; // numbers: range; texts: MOST is the longest, 0: no limit
};

enum reader_unknown { READER_REFUSE, READER_WARN }; // what an unknown key is

// Adds one line.
void reader_add(struct config_messages *messages, const char *format, ...) PRINTF(2, 3);

// Complaints about this value: "FILE: usbPassthrough[0].allow[2].vendorId: text".
void reader_error(const struct reader *reader, const char *format, ...) PRINTF(2, 3);
void reader_warning(const struct reader *reader, const char *format, ...) PRINTF(2, 3);
void reader_note(const struct reader *reader, const char *format, ...) PRINTF(2, 3);

// "usbPassthrough[0].allow[2]"; free with free().
char *reader_path(const struct reader *reader) CHECKED;

// Reads the members of an object in the file's order by the table KEYS into TARGET; null members are
// absent, keys that begin with _, $ or x- are comments. Returns a bit for each key that is present.
uint64_t reader_object(const struct reader *reader, const struct reader_key *keys, size_t count,
                       enum reader_unknown unknown, void *target);
// Number of items of a list, 0 and an error when it is no list. reader_item is one of them.
size_t reader_count(const struct reader *reader);
struct reader reader_item(const struct reader *reader, size_t index) CHECKED;

// For reader_key.read. On an error the place stays as it is.
void reader_text(const struct reader *value, const struct reader_key *key, void *place);      // char *, not empty
void reader_remark(const struct reader *value, const struct reader_key *key, void *place);    // char *, may be empty
void reader_path_name(const struct reader *value, const struct reader_key *key, void *place); // char *, absolute
void reader_flag(const struct reader *value, const struct reader_key *key, void *place);      // bool
void reader_number(const struct reader *value, const struct reader_key *key, void *place);    // unsigned
void reader_hex(const struct reader *value, const struct reader_key *key, void *place);       // unsigned, 4 digits
void reader_any(const struct reader *value, const struct reader_key *key, void *place);       // nothing: accepted as is

// The text of a string value, or NULL with an error; borrowed.
const char *reader_string(const struct reader *value) CHECKED;
// Which of COUNT words a string value is; false with an error that names them all when it is none.
bool reader_word(const struct reader *value, const char *const *words, size_t count, size_t *index) CHECKED;
// disable and enable as given: whether that means disabled; an error when they contradict each other.
bool reader_disabled(const struct reader *reader);

// " (did you mean NAME?)" for the nearest of COUNT names, or "" when none is near; free with free().
char *reader_guess(const char *word, const char *const *names, size_t count) CHECKED;
