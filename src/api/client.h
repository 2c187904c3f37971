// The clients that are connected: lines in, lines out, both bounded. Who a client is stands in its
// connection, as the kernel says it, never in what it sends.
#pragma once

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "api/messages.h"
#include "core/config.h"
#include "util/cleanup.h"
#include "util/log.h"

// All event sources of the API have this priority: whatever clients do, events of devices and VMs go first.
#define API_PRIORITY (SD_EVENT_PRIORITY_NORMAL + 10)

enum client_kind { CLIENT_UNIX, CLIENT_TCP, CLIENT_VSOCK };
#define CLIENT_KINDS 3

struct client_peer {
    enum client_kind kind;
    uid_t uid;           // UNIX
    pid_t pid;           // UNIX; 0 if it cannot be seen from here
    unsigned cid;        // VSOCK
    const char *address; // TCP, borrowed
};

struct clients;

// Their lines go to MESSAGES, borrowed.
int clients_new(struct clients **clients, sd_event *loop, struct log *log, struct messages *messages) CHECKED;
void clients_free(struct clients *clients);
DEFINE_CLEANUP(struct clients *, cleanup_clients, clients_free)

// Takes FD over in any case. NULL: the client is served from now on; else why not, and it was told so.
const char *clients_add(struct clients *clients, int fd, const struct client_peer *peer) CHECKED;
// The configuration, borrowed until replaced: what each client may do. One that may no longer be here is
// hung up on.
void clients_configure(struct clients *clients, const struct api_config *config);
// That way in is closed.
void clients_hang_up(struct clients *clients, enum client_kind kind);
