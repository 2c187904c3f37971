// What a thread does to one USB device: the kernel lets the host's drivers at it, or a VM alone, or nobody.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "host/network.h"
#include "util/cleanup.h"

enum authorize_deed {
    AUTHORIZE_FOR_HOST, // its drivers are bound
    AUTHORIZE_FOR_VM,   // configured, and no driver is bound; of a device that is authorized nothing is changed
    AUTHORIZE_NOBODY,   // unauthorized; not while the host has claimed a disk of it, or has its network by it
    AUTHORIZE_WITHHELD, // its interfaces unauthorized, which takes them from the VM that has them
};

enum authorize_end {
    AUTHORIZE_DONE,   // it was changed
    AUTHORIZE_AS_WAS, // it was so already
    AUTHORIZE_IN_USE, // it stays as it is: a program has it, or the host has claimed a disk of it
    AUTHORIZE_GONE,   // it is not there any more, or another one is
    AUTHORIZE_FAILED,
};

// Where things are; borrowed strings.
struct authorize_paths {
    const char *sys, *dev, *run; // "/sys", "/dev", "/run"
    struct network_paths network;
};

// The device as found, and what is asked for. It owns its strings, and touches nothing of the loop.
struct authorize_act {
    struct authorize_paths paths;
    enum authorize_deed deed;
    char *syspath;
    uint64_t instance;
    unsigned bus;
    bool
        returned; // no VM has it for sure: NOBODY holds even if a program claims it still, FOR_HOST binds drivers again
    bool of_host; // of IN_USE: the host uses it, and no program
    char *error;  // of FAILED: what and why
};

// Does it. Blocks as long as the device takes. At most one write to `authorized`.
enum authorize_end authorize_act(struct authorize_act *act) CHECKED;
void authorize_act_clear(struct authorize_act *act);
