// What the operations on a crosvm have in common: its state, one request at a time, waiting, and the
// end of an operation. Used by crosvm*.c only.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/backend.h"
#include "vmm/crosvm_message.h"
#include "vmm/crosvm_ports.h"

#define CROSVM_SECOND ((uint64_t)1000 * 1000)
#define CROSVM_RESTART_ADVICE "restart the VM"

struct crosvm;
typedef void (*crosvm_then)(struct crosvm *crosvm);
typedef void (*crosvm_answer)(struct crosvm *crosvm, const struct crosvm_reply *reply);

enum crosvm_request {
    CROSVM_REQUEST_LIST,
    CROSVM_REQUEST_ATTACH,
    CROSVM_REQUEST_DETACH,
    CROSVM_REQUEST_PROBE // any answer tells something
};

struct crosvm {
    struct backend_setup setup;
    int connection; // -1: none
    sd_event_source *readable, *timer;
    crosvm_then timed;

    // What is known of this process.
    bool answered;
    uint64_t first_answer;
    struct crosvm_ports ports;
    unsigned lag; // so many replies its USB is behind,
    bool suspect; // or that is not known
    unsigned slow_failures;
    bool broken;

    // The operation that is running.
    bool running;
    struct operation operation;
    int fd;
    bool recovered;   // its replies were out of step before
    crosvm_then then; // after a list
    crosvm_then resume;
    unsigned ticks, drained;

    // The request in flight.
    bool in_flight;
    enum crosvm_request request;
    unsigned port;   // of DETACH
    uint64_t sent;   // when
    unsigned behind; // further lists that bring the answer
    crosvm_answer answer;
};

uint64_t crosvm_now(const struct crosvm *crosvm) CHECKED;
void crosvm_close(struct crosvm *crosvm);

// Ends the operation. Takes TEXT; LISTED says whether the ports as known go with it.
void crosvm_finish(struct crosvm *crosvm, enum result_kind kind, char *text, bool listed);
// Ends it, and all that follow, as the USB of this process is lost.
void crosvm_finish_broken(struct crosvm *crosvm);
// How an operation ends that went wrong in a way that says nothing: LOST if it may have been done.
enum result_kind crosvm_failure(const struct crosvm *crosvm) CHECKED;

void crosvm_ask_list(struct crosvm *crosvm, crosvm_answer answer);
void crosvm_ask_attach(struct crosvm *crosvm, crosvm_answer answer);
void crosvm_ask_detach(struct crosvm *crosvm, unsigned port, crosvm_answer answer);
// A list, or the request that has no effect (MARKER), where the kind of the answer is what is asked for.
void crosvm_probe(struct crosvm *crosvm, bool marker, crosvm_answer answer);
// The next of the lists that bring the answer of a process that is behind.
void crosvm_ask_further(struct crosvm *crosvm);

// Runs TIMED at that time of the loop's clock.
void crosvm_wait(struct crosvm *crosvm, uint64_t time, crosvm_then timed);
