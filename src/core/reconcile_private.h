// What the parts of the reconciler share among themselves: its records of devices and VMs.
#pragma once

#include "core/policy.h"
#include "core/reconcile.h"

// Why a device is in its state; with the VM and the text beside it, it makes the reason.
enum why {
    WHY_VERDICT,       // text: what policy says
    WHY_IGNORED,       // there before us, and -a was not given
    WHY_UNSERVED,      // its VM cannot be served; text: its type
    WHY_AT_START,      // its VM takes devices of its kind only at its start; text: the kind in words
    WHY_UNKNOWN,       // not known yet whether its VM runs
    WHY_DOWN,          // its VM does not run
    WHY_STARTING,      // its VM has not answered yet
    WHY_SILENT,        // its VM does not answer; text: why
    WHY_SCAN,          // a PCI function: those of the host are not all known yet
    WHY_MAYBE,         // another VM may have it; text: that VM's name
    WHY_UNLISTED,      // a VM that could have it has not said yet what it has
    WHY_OLD,           // its VM still has the device that was in its place before
    WHY_FOREIGN,       // another tool has put it into a VM; text: the object
    WHY_GROUP,         // a VM has another function of its IOMMU group, or is getting it; text: the address of that
    WHY_GROUP_MAYBE,   // a VM may have another function of its IOMMU group; text: the VM's name
    WHY_GROUP_FOREIGN, // another tool has put another function of its IOMMU group into a VM; text: the object
    WHY_TROUBLE,       // text: what the VM said to the last attempt
    WHY_EJECTED,       // the guest took it out
    WHY_MOVES,         // a VM has it, another shall have it; text: the other's name
    WHY_LEAVING,       // its VM has been asked to let go of it
    WHY_DEAD,          // its VM holds an object that has lost the device
    WHY_STUCK,         // a VM does not let go of it; text: what it said
    WHY_DETACHED,      // a person took it out for good
    WHY_TAKEN,         // the same, and a VM has it still
    WHY_SELECT,        // a person is asked which VM shall have it; text: their names
    WHY_SUSPENDED,     // its VM is suspended
    WHY_SUSPENDS,      // the same, and a VM has it still; text: the suspended VM's name
};

struct saying {
    enum device_state state;
    enum why why;
    const struct vm_record *vm; // may be NULL
    const char *text;           // NULL where the reason has none
};

// Whether a person is asked which of several VMs shall have a device.
enum selection { SELECTION_NONE, SELECTION_ASKS, SELECTION_OVER };

enum trouble { TROUBLE_NONE, TROUBLE_RETRY, TROUBLE_REFUSED };

// A device that is there.
struct device_record {
    struct device *device;
    uint64_t order;       // of arrival
    uint64_t moves_until; // so long it may be one that is not reported gone yet from another place
    bool plugged;
    bool managed;                         // plugged while we listened, or attached by us
    bool held;                            // a VM has it, or may have it by an operation of ours
    bool gated;                           // some VM that may have it has not said so yet
    struct verdict verdict, verdict_held; // the latter as if the host did not live on it
    struct vm_record *wanted;             // the VM that shall have it, NULL: none
    struct vm_record *rests;              // the VM that shall have it when it is resumed; wanted is NULL then

    char *chosen;           // the VM that was chosen for it last; NULL: none
    bool detached;          // a person took it out for good
    char *picked;           // the VM that a person named for this very plug; NULL: none
    struct vm_record *seat; // the VM of several that it was to be in last; it stays with it until that one goes down
    enum selection selection;
    uint64_t asked_at; // when the selection began
    char *asked_text;  // what was asked, NULL: nothing yet
    char *select_text; // the VMs to choose from, "vm1 and vm2"; NULL: its group does not choose

    enum trouble trouble; // how the last attempt ended
    char *trouble_text;
    bool again;          // refused, but there was news since
    bool ejected;        // only news about the device or its VM puts it back
    uint64_t foreign_at; // the list of the VM in which it was last seen as foreign, 0: it was not
    unsigned failures;   // in a row
    unsigned deaths;     // how often its object in this VM has lost it
    uint64_t not_before; // the next attempt

    bool ready; // may be attached once not_before has come
    struct saying now;
    bool said;
    struct saying said_saying; // vm and text are not to be followed
    uint64_t said_vm;          // id of that VM, 0: none
    char *said_text;
    char *said_reason;
    uint64_t since; // when that was said, or it arrived
};

// An object in a VM, as its last list shows it.
struct holding {
    struct attachment attachment;
    char *key;     // the place of its device, when that is known and the device has gone
    bool asked;    // we asked for its removal: its absence is no eject
    bool pending;  // the guest has been asked and has not let go
    bool noted;    // its removal has been told
    bool moved;    // scratch, while lists are compared
    char *trouble; // what the VM said to its removal
    unsigned failures;
    uint64_t not_before;
};

struct flight {
    bool busy;
    bool orphan; // of a process that has gone: its result tells nothing
    uint64_t serial;
    enum operation_kind kind;
    struct device *device; // ATTACH
    char object[OBJECT_NAME_MAX];
};

struct plan {
    bool set;
    enum operation_kind kind;
    struct device_record *device; // ATTACH
    size_t holding;               // DETACH
};

struct vm_record {
    char *name;
    uint64_t id;
    enum vm_type type;
    bool configured;
    bool suspended[DEVICE_PCI + 1]; // devices of that kind stay out of it
    bool known, up;
    uint64_t instance;
    bool first_list_due; // what an earlier run left in it is not known yet
    bool listed;         // holdings is what it has
    bool look_again;     // there was news while an operation was in flight
    bool heard;          // it has given a list since it came up
    bool uncertain;      // holdings may be those of an earlier process
    bool silent;
    bool mute; // it gives lists, but the last attach or detach had no answer; not said to answer then
    char *why;
    unsigned failures;
    uint64_t list_at;
    uint64_t lists; // how many it has given
    struct flight flight;
    struct device *doubt; // an attach whose outcome is not known
    struct holding *holdings;
    size_t holding_count;
    struct plan plan;
    bool said;
    enum vm_state said_state;
    uint64_t since; // when that was said, or it was first named
};

// An output on its way; owns what it points to.
struct message {
    enum output_kind kind;
    struct device *device;
    enum device_state state;
    enum vm_state vm_state;
    enum verdict_kind verdict;
    const struct group *group; // of reconcile->config
    char *vm, *reason;
    bool gone, plugged, rests;
};

struct reconcile {
    uint64_t random;
    uint64_t serial; // of the last operation
    uint64_t order;  // of the last record
    bool attach_connected, scanned, dirty;
    const struct config *config;
    struct device_record **devices;
    size_t device_count;
    struct vm_record **vms;
    size_t vm_count;
    struct memory remembered; // of an earlier run, as far as it is not settled
    uint64_t memory_saved, memory_now;
    struct choices choices; // of people
    bool choices_changed;   // since the last OUTPUT_CHOICES
    struct message *queue;
    size_t queue_first, queue_count, queue_room;
    struct message current; // what the last output borrows from
    uint64_t deadline;
};

// reconcile_delay.c
uint64_t reconcile_random(struct reconcile *reconcile);
// The time until the next try after so many failures in a row, at least one.
uint64_t reconcile_delay(struct reconcile *reconcile, unsigned failures);

// reconcile_find.c: each is NULL when there is none
struct device_record *device_record_find(const struct reconcile *reconcile, uint64_t instance);
struct device_record *device_record_at(const struct reconcile *reconcile, const char *key);
struct vm_record *vm_record_find(const struct reconcile *reconcile, const char *name);
// The reconciler has work to do there, or wants to know about it.
bool vm_record_served(const struct vm_record *vm);
// The object that makes RECORD attached in VM, or NULL.
struct holding *device_record_keeper(const struct vm_record *vm, const struct device_record *record);
// Any object of it in VM, or NULL.
const struct holding *device_record_object(const struct vm_record *vm, const struct device_record *record);
// An attach of it is on its way, or was and its outcome is not known.
bool device_record_flies(const struct vm_record *vm, const struct device_record *record);
// What policy says of it where it is: the host cannot have begun to live on what a VM has.
const struct verdict *device_record_verdict(const struct device_record *record);
// Whether OTHER is another function of its IOMMU group.
bool device_record_shares(const struct device_record *record, const struct device *other);
// Which VM other than EXCEPT (NULL: any) another tool has put the device into, and as which OBJECT; NULL: none.
const struct vm_record *reconcile_foreign(const struct reconcile *reconcile, const struct device *device,
                                          const struct vm_record *except, const char **object);

// reconcile_output.c
void reconcile_say_device(struct reconcile *reconcile, struct device_record *record, uint64_t now);
// Asks a person, once for each list of VMs to choose from.
void reconcile_say_selection(struct reconcile *reconcile, struct device_record *record);
void reconcile_say_gone(struct reconcile *reconcile, const struct device_record *record);
void reconcile_say_vm(struct reconcile *reconcile, struct vm_record *vm, uint64_t now);
// The reason in words; free with free().
char *reconcile_saying_text(const struct saying *saying) CHECKED;
enum vm_state reconcile_vm_state(const struct vm_record *vm) CHECKED;
void reconcile_note(struct reconcile *reconcile, const struct vm_record *vm, const char *before, const char *object,
                    const char *after);
bool reconcile_pop(struct reconcile *reconcile, struct output *output);
void reconcile_output_free(struct reconcile *reconcile);
// The configuration is another: what has not been taken out yet names groups of that.
void reconcile_output_regroup(struct reconcile *reconcile);

// reconcile_memory.c
uint64_t reconcile_memory_digest(const struct reconcile *reconcile);
// Forgets what was remembered of a VM, but for entries of process KEEP (0: keeps none).
void reconcile_memory_settle(struct reconcile *reconcile, const struct vm_record *vm, uint64_t keep);
// Forgets what need not be known any more after the first scan.
void reconcile_memory_scanned(struct reconcile *reconcile);
// The VM other than EXCEPT that a remembered entry says may have it, or NULL.
const char *reconcile_memory_holder(const struct reconcile *reconcile, const struct device *device,
                                    const struct vm_record *except);
// Whether a remembered entry says that the VM of that name may have it.
bool reconcile_memory_names(const struct reconcile *reconcile, const struct device *device, const char *vm);
// Whether a remembered entry says that a VM of which THOSE tells may have it.
bool reconcile_memory_names_any(const struct reconcile *reconcile, const struct device *device, reconcile_those *those,
                                const void *user);
// Takes what is remembered of a device that was just seen: whether it is managed.
bool reconcile_memory_managed(const struct reconcile *reconcile, const struct device *device);
// A VM has a device that the first scan is still to find: it is managed, whatever becomes of that VM until then.
void reconcile_memory_adopt(struct reconcile *reconcile, uint64_t instance);
// The place that is remembered for an instance, or NULL.
const char *reconcile_memory_key(const struct reconcile *reconcile, uint64_t instance);

// reconcile_devices.c
void device_record_add(struct reconcile *reconcile, struct device *device, bool plugged, uint64_t now);
void device_record_change(struct reconcile *reconcile, struct device_record *record, struct device *device,
                          uint64_t now);
void device_record_remove(struct reconcile *reconcile, struct device_record *record, uint64_t now);
void device_record_free(struct device_record *record);
void device_record_decide(struct reconcile *reconcile, struct device_record *record);
// Which VM shall have it now.
void device_record_update(struct reconcile *reconcile, struct device_record *record, uint64_t now);
// Its state and reason now, and whether it is ready.
void device_record_judge(const struct reconcile *reconcile, struct device_record *record);
// Those that are there with the serial number of DEVICE are twins, none of which is on its way to another place.
void device_record_part(const struct reconcile *reconcile, const struct device *device);
// News: tries again at once. EJECTED: also what its guest took out.
void device_record_retry(struct device_record *record, bool ejected, uint64_t now);
void device_record_fail(struct reconcile *reconcile, struct device_record *record, enum trouble trouble,
                        const char *text, uint64_t now);

// reconcile_iommu.c
// Whether another function of its IOMMU group keeps it out of the VM that it shall have, and what to say then.
bool device_record_judge_group(const struct reconcile *reconcile, struct device_record *record);
// Whether a PCI function is attached before another one to the same VM: by the order of the rules, then by address.
bool device_record_before(const struct device_record *a, const struct device_record *b);

// reconcile_choose.c
bool group_names(const struct group *group, const char *vm);
// "vm1, vm2 and vm3"; free with free().
char *group_list_vms(const struct group *group) CHECKED;
// What people decided about it, or NULL; what they decided about its twin in another place does not count.
const struct choice *device_record_choice(const struct reconcile *reconcile, const struct device_record *record);
// The same, set.
enum choice_result device_record_decided(struct reconcile *reconcile, const struct device_record *record,
                                         const char *vm, bool detached) CHECKED;
// How it is now becomes what was decided about it, if there is room.
void device_record_keep(struct reconcile *reconcile, const struct device_record *record);
// Takes what people decided about it, after that or the device has changed.
void device_record_recall(const struct reconcile *reconcile, struct device_record *record);
// A new configuration: whether a person is to be asked (again).
void device_record_reconsider(struct device_record *record);
// Which VM of its group shall have it; NULL: none yet, for a person is asked.
struct vm_record *device_record_choose(const struct reconcile *reconcile, struct device_record *record, uint64_t now);
// The VM of its group that is meant when nobody names one.
const char *device_record_meant(const struct reconcile *reconcile, const struct device_record *record);
// When it need not wait for a person any more; UINT64_MAX: never.
uint64_t device_record_selects_until(const struct reconcile *reconcile, const struct device_record *record);

// reconcile_vms.c
void vm_record_add(struct reconcile *reconcile, const struct vm_config *config, uint64_t now);
void vm_record_free(struct vm_record *vm);
void vm_record_down(struct reconcile *reconcile, struct vm_record *vm, uint64_t now);
void vm_record_up(struct reconcile *reconcile, struct vm_record *vm, uint64_t instance, uint64_t now);
void vm_record_look(struct vm_record *vm, uint64_t now);
void vm_record_silent(struct vm_record *vm, const char *why);
// Every device that it shall have is tried again.
void vm_record_retry(struct reconcile *reconcile, const struct vm_record *vm, bool ejected, uint64_t now);
// The objects of RECORD (NULL: of every device) that are fixed in a VM are asked for again.
void reconcile_remove_again(struct reconcile *reconcile, const struct device_record *record, uint64_t now);

// reconcile_results.c
void vm_record_result(struct reconcile *reconcile, struct vm_record *vm, const struct result *result, uint64_t now);

// reconcile_plan.c
void reconcile_settle(struct reconcile *reconcile, uint64_t now);
bool reconcile_issue(struct reconcile *reconcile, struct output *output);
