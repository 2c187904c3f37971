// A scripted QEMU for tests: speaks QMP on a socket, one client at a time, from the test's own loop,
// with a tree of devices, and with faults on demand.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "util/text.h"

struct fake_device {
    char id[128];
    char type[64];
    char port[8];
    char on[128];    // PCIe: the port that it is on, "" for none
    bool no_hotplug; // a port that takes nothing while the VM runs
    bool detached;   // its host device has gone
    unsigned bus, address;
    char host[64], sysfsdev[64]; // PCI: what it says of its host's device, "" for nothing
    ino_t function;              // PCI: what was handed over of it; 0: nothing
};

struct fake_qemu {
    char *path;
    int listener, client;
    sd_event_source *accepting, *reading;
    struct text input;
    struct fake_device devices[64];
    size_t device_count;

    // What was asked, one line each: "device_add", "qom-list /machine/peripheral", …
    char *asked[512];
    size_t asked_count, commands; // commands: without the negotiation
    unsigned greeted;
    dev_t fd_device; // of the descriptor that came last
    ino_t fd_inode;
    unsigned fds;

    // PCI functions by descriptor, in the words of QEMU 10.0.
    bool takes_functions;
    struct fake_named {
        char name[32]; // "": none
        ino_t inode;
    } named[4];
    ino_t context;              // of its object "vhotplug-iommufd"; 0: it has none
    const char *object_error;   // words of the error for object-add
    const char *function_error; // and for device_add of a function that was handed over

    // Faults.
    bool mute;             // accepts and never greets
    bool holds_device_del; // the guest does not let go
    bool no_controller, ehci_only;
    bool pc;             // has a PCI bus of its own
    bool backwards;      // answers in pairs in the wrong order
    char *held;          // the answer that waits for its successor
    bool chatty;         // events between all answers
    size_t fail_command; // the command of that number (from 1) gets an error
    size_t cut;          // hangs up after that many bytes sent, over the whole life; 0: never
    size_t sent;
    const char *garbage; // sent instead of the answer to the command garbage_at
    size_t garbage_length, garbage_at;
    const char *answer_error;                                             // words of the error for device_add
    const char *delete_error;                                             // and for device_del
    bool adds_all_the_same;                                               // what it gives an error for
    enum { GUEST_AGREES, GUEST_REFUSES_FIRST, GUEST_REFUSES_LAST } guest; // before or after the answer to device_del
    uint64_t add_delay;                                                   // µs until the answer to device_add
    sd_event_source *late;
    char *late_answer;
};

void fake_qemu_start(struct fake_qemu *fake, sd_event *loop, const char *directory, const char *name);
void fake_qemu_stop(struct fake_qemu *fake); // unlinks the socket
void fake_qemu_send(struct fake_qemu *fake, const char *text);
void fake_qemu_greet(struct fake_qemu *fake); // what a mute one did not say
void fake_qemu_add(struct fake_qemu *fake, const char *id, const char *type);
// The host's device, not a USB one, that has the port or bus ON; fails if there is none.
const struct fake_device *fake_qemu_on(const struct fake_qemu *fake, const char *on);
// How often a command line beginning with START was asked.
size_t fake_qemu_asked(const struct fake_qemu *fake, const char *start);
