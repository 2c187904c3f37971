// What the VMM wing has to tell, kept in order and told from the loop, one thing a turn: so nobody is
// called from inside a call of his own.
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

#include "util/cleanup.h"
#include "vmm/vmm.h"

enum letter_kind {
    LETTER_UP,
    LETTER_DOWN,
    LETTER_SILENT,
    LETTER_NEWS,
    LETTER_DONE,
    LETTER_TIDY, // to the wing itself: what could be done after the letters before has been done
};

struct outbox;

// TIDY gets the wing and the VM's name.
int outbox_new(struct outbox **outbox, sd_event *loop, const struct vmms_callbacks *callbacks, void *user,
               void (*tidy)(void *wing, const char *vm), void *wing) CHECKED;
void outbox_free(struct outbox *outbox);
DEFINE_CLEANUP(struct outbox *, cleanup_outbox, outbox_free)

void outbox_up(struct outbox *outbox, const char *vm, uint64_t instance);
void outbox_add(struct outbox *outbox, enum letter_kind kind, const char *vm);
void outbox_silent(struct outbox *outbox, const char *vm, const char *why);
// Takes the result's contents.
void outbox_done(struct outbox *outbox, const char *vm, struct result *result);

// Drops what is still to be told of a VM, but for results.
void outbox_forget(struct outbox *outbox, const char *vm);
