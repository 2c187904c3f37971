// What is said over the sockets: requests in, replies and events out. Knows nothing of sockets.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "api/api.h"
#include "api/caller.h"

// The longest line of a request, without its newline.
#define MESSAGE_LINE_MAX 65536

struct messages;

// As api_new.
int messages_new(struct messages **messages, sd_event *loop, struct log *log, struct reconcile *reconcile,
                 const struct api_callbacks *callbacks, void *user) CHECKED;
void messages_configure(struct messages *messages, const struct config *config);
// One line of a caller who is owed nothing, with a NUL after it. It is answered now, or CALLER is owed the
// answer on return. It may be a reload: messages_configure comes from within then.
void messages_request(struct messages *messages, struct caller *caller, const char *line, size_t length);
// The answer to a line that is too long to be read whole.
void messages_too_long(struct caller *caller);
// The caller has gone: nothing is said to them any more.
void messages_forget(struct messages *messages, struct caller *caller);
void messages_output(struct messages *messages, const struct output *output);
// As api_prepared.
void messages_prepared(struct messages *messages, uint64_t serial, const char *why_not);
// As api_scanned.
void messages_scanned(const struct messages *messages);
// As api_decided and api_settled.
void messages_decided(struct messages *messages, uint64_t revision);
void messages_settled(struct messages *messages, uint64_t revision);
void messages_free(struct messages *messages); // NULL is fine
DEFINE_CLEANUP(struct messages *, cleanup_messages, messages_free)
