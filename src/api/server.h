// The ways in: opens and closes them as the configuration says, and lets clients in.
#pragma once

#include <systemd/sd-event.h>

#include "api/client.h"
#include "core/config.h"
#include "util/cleanup.h"
#include "util/log.h"

struct server;

// Who comes goes to CLIENTS, borrowed. Negative errno on failure.
int server_new(struct server **server, sd_event *loop, struct log *log, struct clients *clients) CHECKED;
// Touches only the ways in that have changed. What cannot be opened is said in the log.
void server_configure(struct server *server, const struct api_config *config);
void server_free(struct server *server);
DEFINE_CLEANUP(struct server *, cleanup_server, server_free)
