// A simulated host with its VMs and its daemon: what the simulator's parts share.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/reconcile.h"
#include "util/cleanup.h"
#include "vmm/crosvm_ports.h"

#define SIM_PORTS 8
#define SIM_PCI 5 // from this port on they are places of PCI functions
#define SIM_VMS 3
#define SIM_KINDS 4
#define SIM_SERIALS 3
#define SIM_OBJECTS 24
#define SIM_EVENTS 96
#define SIM_SAID 128
#define SIM_SET 256

struct sim;
struct sim_vm;
struct sim_object;

// How a VMM does things; one table for each type of VMM.
struct sim_vmm {
    enum vm_type type;
    // Carries out vm->operation, as far as it goes, and makes vm->result.
    void (*execute)(struct sim *sim, struct sim_vm *vm);
    // Names a new object; false when there is no place for it.
    bool (*place)(struct sim *sim, struct sim_vm *vm, struct sim_object *object, const struct device *device);
    // The daemon begins to speak with the process that runs now, or learns that none does.
    void (*up)(struct sim *sim, struct sim_vm *vm);
    // The daemon was killed: what nobody could tell from what it remembers does not happen.
    void (*clarify)(struct sim *sim, struct sim_vm *vm);
    // The instance that the daemon takes for that object's, 0 if it is none of ours.
    uint64_t (*owner)(const struct sim_vm *vm, const char *name);
};
extern const struct sim_vmm sim_qemu, sim_crosvm;

struct sim_object {
    char name[OBJECT_NAME_MAX];
    bool ours, leaving, dead;
    bool asked;        // the guest was asked once to let go
    bool told;         // a list has told this daemon of it
    uint64_t number;   // of this very object; crosvm uses names anew
    uint64_t instance; // 0 for a foreign one
    unsigned bus, address;
    char pci[16];           // the address of a PCI function, "" of none
    unsigned port, product; // in crosvm
};

struct sim_vm {
    const struct sim_vmm *vmm;
    char name[8];
    uint64_t process; // 0: down
    bool anonymous;   // its process cannot be told
    unsigned capacity;
    enum result_kind full; // what it says when it is full
    bool patient;          // its guest lets go when it likes
    bool booting;          // crosvm: its ports leak
    bool broken;           // crosvm: its USB answers no more
    struct crosvm_ports ports;
    bool hung;
    bool unnoticed; // something changed in it that nobody has told
    struct sim_object objects[SIM_OBJECTS];
    unsigned count;

    bool busy, executed; // an operation of the daemon
    bool lost;           // its result will be LOST
    bool news;           // told since it began
    uint64_t listed;     // the number of the last object that may be in its result
    uint64_t operation_process;
    struct operation operation;
    struct result result;
    bool zombie; // an operation of a daemon that was killed, not read by the VM yet
    struct operation zombie_operation;
    uint64_t zombie_instance; // what it detaches

    bool told; // the daemon knows whether it is up
    uint64_t told_process;
    bool must_list; // nothing but LIST may go to it
    bool doubled;   // objects were planted twice
};

struct sim_port {
    struct device *device; // what is there
    struct device *told;   // what the daemon knows to be there
};

enum sim_event_kind { EVENT_PRESENT, EVENT_GONE, EVENT_SCANNED };

struct sim_event {
    enum sim_event_kind kind;
    unsigned port;
    struct device *device; // PRESENT
    uint64_t instance;     // GONE
    bool plugged;
};

struct sim_pair {
    uint64_t instance, process;
};

struct sim_set {
    struct sim_pair pairs[SIM_SET];
    unsigned count;
};

struct sim_said {
    uint64_t instance;
    enum device_state state;
    uint64_t reason;
    char vm[8];
};

// What people decided last of a device: one with a serial number is known wherever it is, any other by its port.
struct sim_decision {
    bool detached;
};

// Of the device that was told to be at a port.
struct sim_wish {
    uint64_t instance;
    char vm[8];        // the VM that a person named for this very plug; "": none
    bool loose;        // which VM is meant is for the daemon to know
    bool tried;        // it was sent to a VM
    bool asked;        // people were asked
    uint64_t asked_at; // when, 0: they need not be waited for any more
};

// What policy says: which VMs each kind of device may go to.
struct sim_config {
    struct config config; // first: the policy finds the rest by it
    struct vm_config vms[SIM_VMS];
    struct group groups[SIM_KINDS];
    char *targets[SIM_KINDS][SIM_VMS];
    bool allowed[SIM_KINDS];
};

struct sim {
    uint64_t random;
    uint64_t now;
    uint64_t ran_at;  // when the daemon last did what there was to do
    uint64_t counter; // of instances, processes, objects
    bool verbose;
    bool calm; // nothing goes wrong any more
    char failure[512];

    struct sim_port ports[SIM_PORTS];
    unsigned port_count; // in use: half of the hosts have no PCI functions that matter
    unsigned next_address;
    unsigned hand_kind; // what was unplugged last
    char hand_serial;   // '\0': none
    struct sim_vm vms[SIM_VMS];
    struct sim_event events[SIM_EVENTS];
    unsigned event_first, event_count;

    struct sim_config configs[2]; // the one in use and the next
    unsigned config;
    struct reconcile *reconcile; // NULL: no daemon runs
    bool attach_connected, scanned;
    struct memory memory;   // what is on disk
    struct choices choices; // likewise
    struct sim_decision decisions[SIM_KINDS][SIM_PORTS + SIM_SERIALS];
    struct sim_wish wishes[SIM_PORTS];
    bool known[SIM_VMS];                     // this daemon has heard of it
    bool suspended[DEVICE_PCI + 1][SIM_VMS]; // devices of that kind stay out of it
    struct memory at_start;                  // what was there when the daemon started
    struct sim_set managed;                  // instances that this daemon saw plugged or found attached
    struct sim_set ejected;                  // and the process: what its guest took out
    struct sim_set kept_out;                 // and the process: ejected, and nothing happened that puts it back
    struct sim_set refused;                  // and the process: what it refused for good
    struct sim_set astray;                   // and the process: what nobody could find on its ports any more
    struct sim_said said[SIM_SAID];
    unsigned said_count;
    unsigned outputs; // since the last look
};

// sim_world.c: the host and the people around it
void sim_init(struct sim *sim, uint64_t seed, bool verbose);
void sim_clear(struct sim *sim);
void sim_chaos(struct sim *sim); // one random thing happens
unsigned sim_random(struct sim *sim, unsigned below);
bool sim_chance(struct sim *sim, unsigned percent);
void sim_say(struct sim *sim, const char *format, ...) PRINTF(2, 3);
bool sim_deliver(struct sim *sim); // the next event of the host
void sim_event(struct sim *sim, enum sim_event_kind kind, unsigned port, bool plugged);
void sim_configure(struct sim *sim, bool all_vms);
// Whether they are two functions of one IOMMU group.
bool sim_shares(const struct device *a, const struct device *b);
bool sim_sees_twice(const struct sim *sim, const char *serial); // the daemon does, as a device moves

// sim_vm.c
void sim_vm_start(struct sim *sim, struct sim_vm *vm);
void sim_vm_kill(struct sim *sim, struct sim_vm *vm);
bool sim_vm_tell(struct sim *sim, struct sim_vm *vm);     // whether it is up
bool sim_vm_progress(struct sim *sim, struct sim_vm *vm); // its operation goes one step on
void sim_vm_zombie(struct sim *sim, struct sim_vm *vm, bool run);
void sim_vm_news(struct sim *sim, struct sim_vm *vm);
void sim_vm_clear(struct sim_vm *vm);
void sim_vm_remove(struct sim_vm *vm, unsigned index);
void sim_vm_finish(struct sim_vm *vm, enum result_kind kind, const char *text);
struct sim_object *sim_vm_add(struct sim *sim, struct sim_vm *vm, bool ours, const struct device *device);
struct sim_object *sim_vm_object(struct sim_vm *vm, uint64_t instance);
const struct device *sim_present(const struct sim *sim, uint64_t instance);

// sim_crosvm.c
void sim_crosvm_part(struct sim_vm *vm, unsigned product); // foreign devices with these numbers leave
void sim_crosvm_leave(struct sim_vm *vm, unsigned index);  // an object goes, and takes its foreign twins along

// sim_people.c: what people ask of the daemon, and what follows from it
void sim_people_ask(struct sim *sim); // one random request
void sim_people_resume(struct sim *sim);
void sim_people_forget(struct sim *sim); // the daemon has gone
void sim_people_reload(struct sim *sim); // before the next configuration is in use
void sim_people_told(struct sim *sim, unsigned port, const struct device *device, bool plugged);
void sim_people_asked(struct sim *sim, const struct device *device);
struct sim_wish *sim_people_wish(struct sim *sim, uint64_t instance); // NULL: none
bool sim_people_detached(const struct sim *sim, const struct device *device);
bool sim_people_suspended(const struct sim *sim, const struct device *device, const char *vm);
// Why it must not be put into VM now, as far as people have a say; NULL: it may be.
const char *sim_people_forbid(struct sim *sim, const struct device *device, const char *vm);
bool sim_people_saved(const struct sim *sim); // the disk knows all that they decided

// sim_daemon.c
void sim_daemon_start(struct sim *sim);
void sim_daemon_kill(struct sim *sim);
void sim_daemon_run(struct sim *sim); // until it has nothing to do at this time

void sim_set_add(struct sim_set *set, uint64_t instance, uint64_t process);
bool sim_set_has(const struct sim_set *set, uint64_t instance, uint64_t process);
bool sim_remembers(const struct memory *memory, uint64_t instance, const struct sim_vm *vm);

// sim_check.c: each sets sim->failure when something is wrong
void sim_fail(struct sim *sim, const char *format, ...) PRINTF(2, 3);
void sim_check_operation(struct sim *sim, struct sim_vm *vm, const struct operation *operation);
void sim_check_execute(struct sim *sim, struct sim_vm *vm);
void sim_check_world(struct sim *sim);
void sim_check_output(struct sim *sim, const struct output *output);
void sim_converge(struct sim *sim);
uint64_t sim_hash(const char *string);

// sim_policy.c
const struct group *sim_policy_group(const struct sim *sim, const struct device *device); // NULL: none takes it
bool sim_policy_allows(const struct sim *sim, const struct device *device, const char *vm);
