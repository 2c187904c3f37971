// What vhotplugctl writes: everything that came from elsewhere is made safe for a terminal here.
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>

#include "util/cleanup.h"

// The longest text from elsewhere that is shown in one piece.
#define SAY_MAX 4096

// STRING (NULL: "") escaped as text_add_safe does; free with free().
char *say_safe(const char *string) CHECKED;
// The same of a member that is a string, a number or a boolean; "" if there is none.
char *say_member(struct json_object *object, const char *name) CHECKED;
// Puts that of another member in place of TEXT where TEXT is empty.
void say_member_else(char **text, struct json_object *object, const char *name);

// Whether a member is there and true.
bool say_flag(struct json_object *object, const char *name) CHECKED;

// A value as JSON and a newline, pretty or on one line. It is the same value, but no character of it that
// a terminal would obey stands there as itself.
void say_json(FILE *file, struct json_object *value, bool pretty);

// "046d:c52b", or "" without; free with free().
char *say_ids(struct json_object *device) CHECKED;
// "Logitech USB Receiver (046d:c52b, 1-2.3)" of a device as the API gives it, safe; free with free().
char *say_title(struct json_object *device) CHECKED;
// Its name alone: "Logitech USB Receiver".
char *say_name(struct json_object *device) CHECKED;
// Where it is: "1-2.3", "event5", "0000:00:14.3".
char *say_place(struct json_object *device) CHECKED;

// A member that is a time as the API writes it: here and now "12:03" when it is of today, else with its date;
// "" if it is none. Free with free().
char *say_since(struct json_object *object, const char *name) CHECKED;

// NULL when the reply to a detach, or each device in it, is out; else what is not, safe: "still in vm1: …".
char *say_not_out(struct json_object *reply) CHECKED;

// What messages begin with in place of "vhotplugctl: ".
void say_errors_as(const char *start);
// "vhotplugctl: MESSAGE" on standard error; MESSAGE is safe already. Returns EXIT_FAILURE.
int say_error(const char *format, ...) PRINTF(1, 2);
// EXIT_SUCCESS, or EXIT_FAILURE, and said, when standard output did not take all that was written.
int say_done(void) CHECKED;
