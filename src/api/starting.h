// What a VM is started with (vmm_args): the answer waits until the host has made the PCI functions ready.
#pragma once

#include "api/messages_private.h"

// What a request says.
struct starting_wish {
    const char *vm;
    const char *bus_prefix; // may be NULL
    unsigned first;         // number of the first bus
    bool require_pci;       // without a PCI function it is to fail
};

int starting_init(struct messages *messages) CHECKED;
// The first scan of the host is complete: requests that came before go on.
void starting_scanned(const struct messages *messages);
// Answers the request, now or later.
void starting_serve(struct messages *messages, struct caller *caller, const struct starting_wish *wish);
// As api_prepared.
void starting_prepared(struct messages *messages, uint64_t serial, const char *why_not);
// A caller has gone.
void starting_forget(struct messages *messages, const struct caller *caller);
void starting_clear(struct messages *messages);
