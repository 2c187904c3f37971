// The API wing: serves people and their tools with newline-delimited JSON over Unix, TCP and vsock sockets.
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

#include "core/config.h"
#include "core/reconcile.h"
#include "util/cleanup.h"
#include "util/log.h"

struct api_callbacks {
    // Reads the configuration anew, as SIGHUP does. NULL, or what is wrong with it, one line an error
    // (owned by the caller); the running configuration stays then.
    char *(*reload)(void *user);
    // A VM is about to be started with that PCI function: the host is to make it ready. api_prepared answers with
    // SERIAL, once, and not from within.
    void (*prepare)(void *user, struct device *device, uint64_t serial);
};

struct api;

// Serves nothing until api_configure. RECONCILE is borrowed; requests are made to it from the loop.
// Negative errno on failure.
int api_new(struct api **api, sd_event *loop, struct log *log, struct reconcile *reconcile,
            const struct api_callbacks *callbacks, void *user) CHECKED;
// Opens and closes listening sockets as CONFIG (borrowed until replaced) says; connected clients whose
// way in stays open stay. A socket that cannot be opened is an error in the log, and the rest is served.
void api_configure(struct api *api, const struct config *config);
// Tells clients what the reconciler put out (DEVICE, VM, SELECT), and answers those who wait for it.
void api_output(struct api *api, const struct output *output);
// Answers prepare; WHY_NOT is for people, NULL: it is ready.
void api_prepared(struct api *api, uint64_t serial, const char *why_not);
// The first scan of the host is complete: what a VM starts with can be told.
void api_scanned(const struct api *api);
// People decided something, counted on by REVISION: answers to who did wait until it is settled, which is until
// it is saved or the log says why it cannot be.
void api_decided(struct api *api, uint64_t revision);
void api_settled(struct api *api, uint64_t revision);
void api_free(struct api *api);
DEFINE_CLEANUP(struct api *, cleanup_api, api_free)
