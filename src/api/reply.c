// Answers and the objects that they are made of.
#include "api/reply.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/scope.h"
#include "util/json.h"
#include "util/text.h"

#define ERROR_MAX 16384

struct json_object *reply_new(void)
{
    struct json_object *reply = json_object_new_object();
    reply_add(reply, "result", "ok");
    return reply;
}

void reply_add(struct json_object *object, const char *name, const char *string)
{
    json_object_object_add(object, name, string ? json_object_new_string(string) : NULL);
}

void reply_add_vms(struct json_object *object, const struct caller *caller, const struct group *group)
{
    struct json_object *names = json_object_new_array();
    for (size_t i = 0; group && i < group->vm_count; i++)
        if (scope_has_vm(caller, group->vms[i]))
            json_object_array_add(names, json_object_new_string(group->vms[i]));
    json_object_object_add(object, "allowed_vms", names);
}

void reply_fail(struct json_object *reply, const char *error)
{
    struct text safe = {0};
    text_add_safe(&safe, error, ERROR_MAX);
    CLEANUP(cleanup_free) char *text = text_take(&safe);
    reply_add(reply, "result", "failed");
    reply_add(reply, "error", text);
}

void reply_say(struct caller *caller, struct json_object *reply)
{
    CLEANUP(cleanup_free) char *line = json_print(reply);
    caller->say(caller, line, strlen(line));
}

void reply_owed(struct caller *caller, struct json_object *reply)
{
    caller->owed = false;
    reply_say(caller, reply);
    if (caller->answered)
        caller->answered(caller);
}

void reply_failed(struct caller *caller, const char *format, ...)
{
    CLEANUP(cleanup_free) char *error = NULL;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&error, format, arguments) < 0)
        error = NULL;
    va_end(arguments);
    CLEANUP(cleanup_json) struct json_object *reply = reply_new();
    reply_fail(reply, error ? error : "no memory");
    reply_say(caller, reply);
}
