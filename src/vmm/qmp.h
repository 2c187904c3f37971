// A conversation in QMP over one connection: greeting, commands by id, events. Everything the peer
// says is bounded and checked; the first thing that is not QMP ends it.
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "util/cleanup.h"

// An answer to one command; borrowed.
struct qmp_reply {
    struct json_object *value; // NULL: it failed
    const char *error_class;   // "" unless it failed
    const char *error;         // QEMU's own words, hostile; "" unless it failed
};

// Called from the loop only. None but `ended` may free the conversation.
struct qmp_callbacks {
    void (*greeted)(void *user);                                           // from now on commands may be sent
    void (*event)(void *user, const char *name, struct json_object *data); // DATA may be NULL
    // The last word; no reply follows. WHY is for people. BROKEN: the peer does not speak QMP.
    void (*ended)(void *user, const char *why, bool broken);
};

struct qmp;

// Takes FD, a connected non-blocking stream socket; it is closed also when this fails.
int qmp_new(struct qmp **qmp, sd_event *loop, int fd, const struct qmp_callbacks *callbacks, void *user) CHECKED;
void qmp_free(struct qmp *qmp);
DEFINE_CLEANUP(struct qmp *, cleanup_qmp, qmp_free)

bool qmp_is_greeted(const struct qmp *qmp) CHECKED;

// Called once, unless the conversation ends before.
typedef void (*qmp_answer)(void *user, unsigned tag, const struct qmp_reply *reply);

// Sends a command, once greeted. Takes ARGUMENTS (NULL: none) and FD (-1: none). ANSWER gets the user of qmp_new
// and TAG.
void qmp_send(struct qmp *qmp, const char *command, struct json_object *arguments, int fd, qmp_answer answer,
              unsigned tag);
