// A stream socket that carries lines: never blocks, bounded both ways, sends descriptors along.
#pragma once

#include <stddef.h>
#include <systemd/sd-event.h>

#include "util/cleanup.h"

#define WIRE_LINE_MAX ((size_t)1024 * 1024)
#define WIRE_UNSENT_MAX ((size_t)1024 * 1024)

// Called from the loop only.
struct wire_callbacks {
    // One line, without its end, NUL-terminated. Must not free the wire.
    void (*line)(void *user, const char *line, size_t length);
    // The last word: ERROR is 0 when the peer hung up, else a negative errno: -EMSGSIZE for a line
    // that was too long, -ENOBUFS for a peer that does not read, or what wire_end was given. May
    // free the wire.
    void (*ended)(void *user, int error);
};

struct wire;

// Takes FD, a connected non-blocking stream socket. Negative errno; FD is closed then too.
int wire_new(struct wire **wire, sd_event *loop, int fd, const struct wire_callbacks *callbacks, void *user) CHECKED;
void wire_free(struct wire *wire);
DEFINE_CLEANUP(struct wire *, cleanup_wire, wire_free)

// Sends LENGTH bytes, at once as far as they go. FD (-1: none) travels with the first byte and is
// taken, whatever happens. A failure is told by `ended`.
void wire_send(struct wire *wire, const char *bytes, size_t length, int fd);

// Ends it: no more lines, and `ended` says ERROR from the loop.
void wire_end(struct wire *wire, int error);
