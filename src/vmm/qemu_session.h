// What the operations on a QEMU have in common: its state, steps of pipelined commands, and the end
// of an operation. Used by qemu*.c only.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "vmm/backend.h"
#include "vmm/grabber.h"
#include "vmm/qmp.h"
#include "vmm/qom.h"
#include "vmm/topology.h"

#define QEMU_ASKED_MAX 64
#define QEMU_TAKEN_MAX 8
#define QEMU_PLACES_MAX 1024
#define QEMU_PORTS_MAX 256
#define QEMU_WORDS_MAX 300 // of QEMU's own words in a text

struct qemu;
struct qemu_port_plug; // qemu_port.h
typedef void (*qemu_step)(struct qemu *qemu);
typedef void (*qemu_answer)(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply);

// A USB device of the VM and the port it was given.
struct qemu_place {
    char object[OBJECT_NAME_MAX];
    char bus[2 * TOPOLOGY_PATH_MAX];
    unsigned port; // 0: none was asked for
};

// A PCIe port of the VM.
struct qemu_port {
    char name[QOM_NAME_MAX]; // also that of its bus
    bool hotplug, occupied;
};

struct qemu {
    struct backend_setup setup;
    struct qmp *qmp;   // NULL: not connected
    struct ucred peer; // the process that listens; pid 0: not known

    // The operation that is running.
    bool running;
    bool begun; // its first command has been sent
    struct operation operation;
    int fd;
    uint64_t no_fd_said; // the instance of the device whose missing descriptor was said last

    // Its current step.
    struct qemu_call {
        qemu_answer answer;
        unsigned tag;
    } * calls;
    size_t call_count, unanswered;
    qemu_step next; // when all are answered

    // What the VM has (qemu_list.c).
    struct qom_children peripheral, anonymous, unattached;
    struct attachment *attachments;
    size_t attachment_count;
    char *list_error;         // it did not list: its words
    struct attachment *known; // as listed the last time
    size_t known_count;
    bool list_fresh;
    qemu_step listed;

    // Its USB buses, as last read (qemu_survey.c).
    struct topology topology;
    bool topology_known;
    bool topology_fresh; // read in this operation
    bool survey_failed;
    struct qemu_place *places;
    size_t place_count;
    char (*masters)[QOM_NAME_MAX]; // buses that have companions
    size_t master_count;
    qemu_step surveyed;

    // ATTACH (qemu_attach.c).
    char name[OBJECT_NAME_MAX];
    size_t bus;                  // the choice: index into topology,
    char bus_name[QOM_NAME_MAX]; // its name before a survey,
    unsigned port, tries;        // and the port
    char *add_error;             // QEMU's words; NULL: it was added

    // ATTACH of input and PCI (qemu_port.c, qemu_refusal.c).
    const struct qemu_port_plug *plug;
    struct qemu_port *ports;
    size_t port_count;
    bool board_bus; // the machine takes devices on pci.0
    struct grabber *grabber;
    char *taken_node;      // that another program has
    const char *taken_how; // "grabbed"
    struct qemu_taken {
        uint64_t instance; // of the device
        char *names;       // who had it open when it was first found taken; NULL: nobody we may look at
    } taken[QEMU_TAKEN_MAX];
    size_t taken_next;

    // ATTACH of PCI by descriptor (qemu_iommufd.c).
    enum { DESCRIPTORS_UNKNOWN, DESCRIPTORS_REFUSED, DESCRIPTORS_TAKEN } descriptors;
    bool has_iommufd; // our object is in it
    qemu_step prepared;

    // DETACH (qemu_detach.c).
    char *delete_error; // QEMU's words; NULL: it took the command
    bool guest_refused; // the guest said that it keeps the device
    bool waiting;       // for the device to go
    unsigned polls;
    sd_event_source *timer;
    char *asked[QEMU_ASKED_MAX]; // what we asked to delete, a ring; NULL: it came to nothing
    size_t asked_next;
};

// One command of the current step; takes ARGUMENTS and FD.
void qemu_send(struct qemu *qemu, const char *command, struct json_object *arguments, int fd, qemu_answer answer,
               unsigned tag);
// Ends the sending of a step: NEXT runs when all of its answers are in.
void qemu_then(struct qemu *qemu, qemu_step next);

// {"path": PATH}, with "property" if that is not NULL.
struct json_object *qemu_path(const char *path, const char *property) CHECKED;

// QEMU's words for a text, made safe; owned.
char *qemu_words(const char *words) CHECKED;
// For qemu_send: keeps the words of the error in qemu->add_error, NULL if it was done.
void qemu_note_added(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply);

// Whether the host has lost the device, as far as its node tells.
bool qemu_device_gone(const struct device *device) CHECKED;
// Ends an ATTACH whose device has gone.
void qemu_finish_gone(struct qemu *qemu);

// Ends the operation. Takes TEXT; LISTED says whether attachments goes with it.
void qemu_finish(struct qemu *qemu, enum result_kind kind, char *text, bool listed);

// Remembers that we asked for the deletion of OBJECT, or that it came to nothing; whether we did.
void qemu_ask(struct qemu *qemu, const char *object);
bool qemu_unask(struct qemu *qemu, const char *object) CHECKED;
bool qemu_asked(const struct qemu *qemu, const char *object) CHECKED;
