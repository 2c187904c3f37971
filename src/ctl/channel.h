// The way to the daemon: one connection, lines of JSON out and in. The other end may be hostile.
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/cleanup.h"

#define CHANNEL_PATH "/var/lib/vhotplug/vhotplug.sock"
#define CHANNEL_HOST "127.0.0.1"
#define CHANNEL_PORT 2000U
#define CHANNEL_CID_HOST 2U // what a guest calls its host
#define CHANNEL_SECONDS 15U

enum channel_transport { CHANNEL_UNIX, CHANNEL_TCP, CHANNEL_VSOCK };

struct channel_address {
    enum channel_transport transport;
    const char *path;   // UNIX
    const char *host;   // TCP
    unsigned port, cid; // TCP and VSOCK; VSOCK
};

struct channel;

// The time, of the monotonic clock, when these seconds will be over, and what is left until it, both in ms.
int64_t channel_deadline(unsigned seconds) CHECKED;
int channel_left(int64_t deadline) CHECKED;

// Each returns NULL, or what went wrong, safe for people (free with free()).
// SECONDS is the time limit for connecting and for all requests together.
char *channel_open(const struct channel_address *address, unsigned seconds, struct channel **channel) CHECKED;
// The same for one of several tries: all of them end at DEADLINE, which was SECONDS away.
char *channel_open_until(const struct channel_address *address, unsigned seconds, int64_t deadline,
                         struct channel **channel) CHECKED;
// Sends one request and waits for its reply, which is an object and the caller's. Events that come in
// between are dropped. A reply of "failed" is none of our errors.
char *channel_request(struct channel *channel, struct json_object *request, struct json_object **reply) CHECKED;
// The next message, whatever it is, without a time limit.
char *channel_next(struct channel *channel, struct json_object **message) CHECKED;
void channel_close(struct channel *channel);
DEFINE_CLEANUP(struct channel *, cleanup_channel, channel_close)

// NULL, or the error of a reply that does not say "ok" as it came, unsafe (free with free()).
char *channel_failure(struct json_object *reply) CHECKED;

// Whether this is a guest that reaches its host by vsock.
bool channel_is_guest(void);
