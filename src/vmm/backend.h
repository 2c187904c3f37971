// One VMM program behind a VM's socket: what the VMM wing asks of it, as a table of functions, and
// what it tells. A back end knows one conversation; sockets, processes and waiting are the wing's.
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "core/memory.h"
#include "core/operation.h"
#include "util/cleanup.h"
#include "util/log.h"

// What a back end tells of one VM. None may free the session.
struct backend_callbacks {
    void (*answered)(void *user); // the VMM said something: the time limits begin anew
    // The operation has ended. Takes the result's contents.
    void (*finished)(void *user, struct result *result);
    void (*news)(void *user);   // the VM changed by itself
    void (*closed)(void *user); // the VMM ended the connection, after `finished` if one was running
};

struct backend_setup {
    sd_event *loop;
    struct log *log;
    const char *vm;    // outlives the session
    const char *iommu; // as vmms_offer_iommu has it
    struct backend_callbacks callbacks;
    void *user;
};

// A session holds what is known of one VM, connected or not.
struct backend {
    const char *program; // for people: "QEMU"
    int socket_type;
    void *(*session_new)(const struct backend_setup *setup);
    void (*session_free)(void *session); // also with an operation running, which is then never answered
    bool (*is_connected)(const void *session);
    // Takes the descriptor of a new connection. Negative errno: it is closed.
    int (*connect)(void *session, int connection);
    void (*hang_up)(void *session); // no operation is running
    // Runs one operation over the connection. Takes its contents and FD; NO_FD may be NULL.
    void (*start)(void *session, struct operation *operation, int fd, const char *no_fd);
    // Ends the operation that is running with `finished`, and hangs up.
    void (*cancel)(void *session, const char *why);
    void (*forget)(void *session); // another process serves the VM: nothing learnt holds any more
    // What an earlier run of ours put into this very process, or may have put, where its object is
    // NULL. NULL where the VMM's own list tells that.
    void (*remember)(void *session, const struct memory_device *device);
    // Why it may be that nothing has come for a while, for people.
    const char *(*silence)(const void *session);
    // Whether PCI functions are passed to it by descriptor; NULL: to none.
    bool (*takes_functions)(const void *session);
    // Since it was connected, or ever where that tells more: who has, must answer a request in time.
    bool (*has_answered)(const void *session);
};

extern const struct backend backend_qemu;
extern const struct backend backend_crosvm;
