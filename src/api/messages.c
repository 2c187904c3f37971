// What is said over the sockets: lines of text become requests, and what the reconciler puts out becomes events.
#include "api/messages.h"

#include <stdlib.h>

#include "api/events.h"
#include "api/messages_private.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/starting.h"
#include "api/view.h"
#include "api/waiting.h"
#include "util/json.h"
#include "util/text.h"

#define REQUEST_DEPTH 8

int messages_new(struct messages **messages, sd_event *loop, struct log *log, struct reconcile *reconcile,
                 const struct api_callbacks *callbacks, void *user)
{
    CLEANUP(cleanup_messages) struct messages *new = memory_new(1, sizeof(*new));
    *new = (struct messages){.loop = loop, .log = log, .reconcile = reconcile, .callbacks = callbacks, .user = user};
    new->started = view_now(new);
    new->events = events_new(reconcile);
    int status = waiting_init(new);
    if (status < 0 || (status = starting_init(new)) < 0)
        return status;
    *messages = steal_pointer(&new);
    return 0;
}

void messages_free(struct messages *messages)
{
    if (!messages)
        return;
    waiting_clear(messages);
    starting_clear(messages);
    events_free(messages->events);
    free(messages);
}

void messages_configure(struct messages *messages, const struct config *config)
{
    messages->config = config;
}

void messages_request(struct messages *messages, struct caller *caller, const char *line, size_t length)
{
    static const struct json_limits limits = {.length = MESSAGE_LINE_MAX, .depth = REQUEST_DEPTH};
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_json) struct json_object *request = json_parse(line, length, &limits, &error);
    caller->confused |= !json_object_is_type(request, json_type_object);
    if (!request)
        reply_failed(caller, "The line is not JSON: %s", error);
    else if (!json_object_is_type(request, json_type_object))
        reply_failed(caller, "The line is not a JSON object");
    else if (!messages->config)
        reply_failed(caller, "vhotplug is still starting");
    else
        request_serve(messages, caller, request);
}

void messages_too_long(struct caller *caller)
{
    reply_failed(caller, "The line is longer than %d bytes", MESSAGE_LINE_MAX);
}

void messages_forget(struct messages *messages, struct caller *caller)
{
    waiting_forget(messages, caller);
    starting_forget(messages, caller);
    events_forget(messages->events, caller);
}

void messages_prepared(struct messages *messages, uint64_t serial, const char *why_not)
{
    starting_prepared(messages, serial, why_not);
}

void messages_scanned(const struct messages *messages)
{
    starting_scanned(messages);
}

void messages_decided(struct messages *messages, uint64_t revision)
{
    messages->decided = revision;
}

void messages_settled(struct messages *messages, uint64_t revision)
{
    messages->settled = revision;
    waiting_touch(messages);
}

void messages_output(struct messages *messages, const struct output *output)
{
    events_output(messages->events, output);
    waiting_touch(messages);
}
