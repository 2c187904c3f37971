// Answers and the objects that they are made of.
#pragma once

#include <json-c/json.h>

#include "api/caller.h"
#include "core/config.h"

// An object with "result": "ok"; json_object_put.
struct json_object *reply_new(void) CHECKED;
// Adds a string, or null for NULL. What comes from devices or VMs is made safe before.
void reply_add(struct json_object *object, const char *name, const char *string);
// Adds "allowed_vms": the names of the VMs that a group offers, as far as they are the caller's. GROUP may be NULL.
void reply_add_vms(struct json_object *object, const struct caller *caller, const struct group *group);
// Makes it "failed", with "error", which is made safe here.
void reply_fail(struct json_object *reply, const char *error);
// Says a line. REPLY stays the caller's own.
void reply_say(struct caller *caller, struct json_object *reply);
// Says the answer that was owed, and lets them go on.
void reply_owed(struct caller *caller, struct json_object *reply);
// Says that a request failed, and why.
void reply_failed(struct caller *caller, const char *format, ...) PRINTF(2, 3);
