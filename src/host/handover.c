// Makes devices ready for VMs and takes them back: the one place where both are done. Each device (PCI: each IOMMU
// group) has a lane, in which one job at a time runs in a thread; a lane without jobs is forgotten.
#include "host/handover.h"

#include <errno.h>
#include <string.h>

#include "host/access.h"
#include "host/again.h"
#include "host/input.h"
#include "host/iommufd.h"
#include "host/opener.h"
#include "util/text.h"

enum {
    ACCURACY = 1000000,
    SLOW_SECONDS = 12, // more than all that is waited for in a job about a group
};

struct lane {
    char *name;
    struct handover_job *first, **end;  // those that wait
    const struct handover_job *running; // the one that is with the worker
    sd_event_source *slow;              // says so when that takes long; PCI only, else NULL
    struct lane *next;
};

// What the loop knows of a PCI function of which something was asked.
struct member {
    char *key;
    int group;
    bool taken;       // it is in a VM or on its way into one; else it is kept for one
    uint64_t opening; // serial of the last one
    bool said;        // that it keeps its group from going back
    struct member *next;
};

// A PCI function that is the host's again, once the VM lets go of its group; or a device to whose node a user still has
// access.
struct late {
    struct device *device; // a copy
    bool to_host;
    struct late *next;
};

struct handover {
    struct worker *worker;
    sd_event *loop;
    struct log *log;
    const struct bind_paths *paths;
    void (*answered)(void *user, struct handover_answer *answer);
    void *user;
    struct authorize *authorize;       // NULL: nothing is authorized
    const struct access_paths *access; // NULL: nothing is given or taken
    bool grant;                        // else it is only taken back
    struct lane *lanes;
    struct member *members;
    struct late *late;
    sd_event_source *again; // runs once each time it is asked for; NULL: not yet needed
};

// All that a thread needs: it touches nothing of the loop.
struct handover_job {
    struct job job; // first
    struct handover_job *next;
    struct handover *handover; // for the loop
    struct lane *lane;         // for the loop
    struct bind_paths paths;
    struct access_paths access;
    char *bind_records, *access_records; // copies of theirs, for a thread may outlive the wing; NULL: no access
    struct device *device;               // a copy likewise
    bool withhold, settle, to_host;
    struct bind_others others;            // settle, PCI
    char *besides;                        // opening, PCI: which others of its group were bound with it, or NULL
    char *by_group;                       // opening, PCI: why it is not passed by descriptor, or NULL
    bool again;                           // settle: not the first try
    bool busy;                            // settle: to be tried again, as when a VM still uses its IOMMU group
    struct authorize_plan *authorization; // NULL: there is nothing to do
    struct host_receiver receiver;
    uint64_t serial;
    struct opener_result result;
};

// ---- in a thread

static void look_at_input(struct handover_job *job)
{
    bool there = input_instance(job->device->syspath) == job->device->instance;

    job->result.kind = there ? HOST_OPEN_READY : HOST_OPEN_GONE;
    job->result.text = there ? NULL : string_copy("the device has gone");
}

// Gives the VM's user its right to what is ready, or where none is given takes back what another VM's user may still
// have of it.
static enum host_open_kind pass_access(struct handover_job *job)
{
    CLEANUP(cleanup_free) char *why = NULL;
    enum host_open_kind kind;

    if (job->receiver.known && job->result.fd < 0)
        kind = access_open(&job->access, job->device, &job->receiver, &why);
    else
        kind = access_take(job->access_records, job->device->key, &why) < 0 ? HOST_OPEN_RETRY : HOST_OPEN_READY;
    if (kind == HOST_OPEN_READY)
        return kind;
    free(job->result.text);
    job->result.text = steal_pointer(&why);
    return kind;
}

// The VM is asked next, whatever has come of this.
static void withhold(struct handover_job *job)
{
    authorize_run(job->authorization);
    job->result.kind = HOST_OPEN_READY;
}

static void make_function_ready(struct handover_job *job)
{
    struct opener_result *result = &job->result;

    result->kind = bind_take(&job->paths, job->device, &result->text);
    if (result->kind != HOST_OPEN_READY)
        return;
    job->besides = steal_pointer(&result->text);
    if (job->receiver.takes_functions)
        result->fd = iommufd_open(job->paths.usage.dev, job->device, &job->by_group);
    if (result->fd < 0)
        result->fd = -1;
}

// Makes the device ready for the VM, and says in the result how that went.
static void make_ready(struct handover_job *job)
{
    switch (job->device->kind) {
    case DEVICE_USB:
        authorize_run(job->authorization);
        if (!authorize_failed(job->authorization, &job->result.kind, &job->result.text))
            opener_open(job->device, &job->result);
        break;
    case DEVICE_INPUT:
        look_at_input(job);
        break;
    case DEVICE_PCI:
        make_function_ready(job);
        break;
    }
    if (job->result.kind == HOST_OPEN_READY && job->access_records != NULL)
        job->result.kind = pass_access(job);
}

// Whether what could not be taken back now may be in a while: not where the record is damaged, or the file system does
// not let it.
static bool may_take_later(int error)
{
    return error < 0 && error != -EINVAL && error != -EPERM && error != -EOPNOTSUPP && error != -EROFS;
}

// Takes back what was done for a VM; what people should know of it is the result's text.
static void take_back(struct handover_job *job)
{
    CLEANUP(cleanup_free) char *still_given = NULL, *not_given_back = NULL;
    int error = job->access_records != NULL ? access_take(job->access_records, job->device->key, &still_given) : 0;

    if (job->again) // the first try has said it
        free(steal_pointer(&still_given));
    authorize_run(job->authorization);
    if (job->device->kind == DEVICE_PCI && job->to_host)
        not_given_back = bind_give_back(&job->paths, job->device, &job->others, !job->again, &job->busy);
    job->busy |= may_take_later(error);
    if (not_given_back != NULL && still_given != NULL)
        job->result.text = string_printf("%s; %s", not_given_back, still_given);
    else
        job->result.text = steal_pointer(not_given_back != NULL ? &not_given_back : &still_given);
}

static void run(struct job *base)
{
    struct handover_job *job = (struct handover_job *)base;

    if (job->settle)
        take_back(job);
    else if (job->withhold)
        withhold(job);
    else if (job->result.kind != HOST_OPEN_IN_USE)
        make_ready(job);
}

static void release(struct job *base)
{
    struct handover_job *job = (struct handover_job *)base;

    if (job->result.fd >= 0)
        close(job->result.fd);
    free(job->result.text);
    free(job->besides);
    free(job->by_group);
    bind_others_clear(&job->others);
    authorize_plan_free(job->authorization);
    free(job->bind_records);
    free(job->access_records);
    device_release(job->device);
    free(job);
}

// ---- PCI functions of one group

static struct member **find_member(struct handover *handover, const char *key)
{
    struct member **place = &handover->members;

    while (*place != NULL && strcmp((*place)->key, key) != 0)
        place = &(*place)->next;
    return place;
}

static void forget_member(struct handover *handover, const char *key)
{
    struct member **place = find_member(handover, key);
    struct member *member = *place;

    if (member == NULL)
        return;
    *place = member->next;
    free(member->key);
    free(member);
}

// The member; NULL: it is no PCI function.
static struct member *note_member(struct handover *handover, const struct device *device, bool taken)
{
    struct member **place = find_member(handover, device->key);

    if (device->kind != DEVICE_PCI)
        return NULL;
    if (*place == NULL) {
        *place = memory_new(1, sizeof(**place));
        **place = (struct member){.key = string_copy(device->key)};
    }
    (*place)->group = device->iommu_group;
    (*place)->taken = taken;
    (*place)->said = (*place)->said && taken;
    return *place;
}

static void note_opening(struct handover *handover, const struct device *device, uint64_t serial, bool taken)
{
    struct member *member = note_member(handover, device, taken);

    if (member != NULL)
        member->opening = serial;
}

// It was not made ready after all; unless it has gone meanwhile, or was asked for again, it is kept for its VM.
static void note_failure(const struct handover_job *job)
{
    struct member *member = *find_member(job->handover, job->device->key);

    if (member != NULL && member->opening == job->serial)
        member->taken = false;
}

// Nothing else would tell why a function does not come back to the host.
static void tell_held(const struct handover_job *job, struct member *member)
{
    if (!member->said)
        log_info(job->handover->log, "%s stays on vfio-pci, as all of its IOMMU group %d, until %s has left its VM",
                 device_pci_address(job->device), member->group, member->key + strlen("pci:"));
    member->said = true;
}

// The members of its group that are not the host's.
static void find_others(struct handover_job *job)
{
    for (struct member *member = job->handover->members; member != NULL; member = member->next) {
        if (member->group != job->device->iommu_group || string_equal(member->key, job->device->key))
            continue;
        bind_others_add(&job->others, member->key, member->taken);
        if (member->taken && job->to_host)
            tell_held(job, member);
    }
}

// ---- lanes

static char *lane_name(const struct device *device)
{
    if (device->kind == DEVICE_PCI && device->iommu_group >= 0)
        return string_printf("group %d", device->iommu_group);
    return string_copy(device->key);
}

static struct lane **find_lane(struct handover *handover, const char *name)
{
    struct lane **place = &handover->lanes;

    while (*place != NULL && !string_equal((*place)->name, name))
        place = &(*place)->next;
    return place;
}

static int handle_slow(sd_event_source *source, uint64_t time, void *user)
{
    const struct handover_job *job = ((struct lane *)user)->running;
    CLEANUP(cleanup_free) char *drivers = bind_drivers(job->device);

    (void)source, (void)time;
    log_warning(
        job->handover->log,
        "%s has not been %s for %d s: a driver of its IOMMU group does not answer (%s); the kernel's log may say "
        "why, and the group waits until it does",
        device_pci_address(job->device), job->settle ? "given back" : "made ready", SLOW_SECONDS, drivers);
    return 0;
}

static void start(struct handover_job *job)
{
    struct lane *lane = job->lane;
    int error = 0;

    lane->running = job;
    if (job->settle && job->device->kind == DEVICE_PCI)
        find_others(job);
    if (job->device->kind == DEVICE_PCI)
        error = sd_event_add_time_relative(job->handover->loop, &lane->slow, CLOCK_MONOTONIC,
                                           SLOW_SECONDS * UINT64_C(1000000), ACCURACY, handle_slow, lane);
    if (error < 0)
        log_debug(job->handover->log, "%s: how long it takes is not watched: %s", job->device->key, strerror(-error));
    worker_submit(job->handover->worker, &job->job);
}

static void submit(struct handover_job *job)
{
    CLEANUP(cleanup_free) char *name = lane_name(job->device);
    struct lane **place = find_lane(job->handover, name);

    if (*place != NULL) {
        job->lane = *place;
        *job->lane->end = job;
        job->lane->end = &job->next;
        return;
    }
    job->lane = *place = memory_new(1, sizeof(**place));
    *job->lane = (struct lane){.name = steal_pointer(&name)};
    job->lane->end = &job->lane->first;
    start(job);
}

static void free_lane(struct lane *lane)
{
    while (lane->first != NULL) {
        struct handover_job *job = lane->first;
        lane->first = job->next;
        release(&job->job);
    }
    sd_event_source_disable_unref(lane->slow);
    free(lane->name);
    free(lane);
}

// The job of this lane has ended: the next one's turn.
static void advance(struct handover *handover, struct lane *lane)
{
    struct handover_job *job = lane->first;
    struct lane **place = find_lane(handover, lane->name);

    lane->slow = sd_event_source_disable_unref(lane->slow);
    if (job == NULL) {
        *place = lane->next;
        free_lane(lane);
        return;
    }
    lane->first = job->next;
    if (lane->first == NULL)
        lane->end = &lane->first;
    start(job);
}

// ---- what could not be taken back yet, as groups that a VM would not let go of

// What was to be done with it is done, or has been overtaken.
static void forget_late(struct handover *handover, const char *key)
{
    struct late **place = &handover->late;

    while (*place != NULL && !string_equal((*place)->device->key, key))
        place = &(*place)->next;
    struct late *late = *place;
    if (late == NULL)
        return;
    *place = late->next;
    device_release(late->device);
    free(late);
}

static struct handover_job *job_new(struct handover *handover, const struct device *device);

static int handle_again(sd_event_source *source, uint64_t time, void *user)
{
    struct handover *handover = user;

    (void)source, (void)time;
    while (handover->late != NULL) {
        struct handover_job *job = job_new(handover, handover->late->device);
        job->settle = job->again = true;
        job->to_host = handover->late->to_host;
        forget_late(handover, job->device->key);
        if (!job->to_host || *find_member(handover, job->device->key) == NULL)
            submit(job);
        else // meanwhile it has been asked for
            release(&job->job);
    }
    return 0;
}

static void try_again(struct handover *handover, struct device *device, bool to_host)
{
    struct late *late = memory_new(1, sizeof(*late));
    int error;

    forget_late(handover, device->key);
    *late = (struct late){device, to_host, handover->late};
    handover->late = late;
    error = again_later(&handover->again, handover->loop, handle_again, handover);
    if (error < 0)
        log_warning(handover->log, "%s: what was done for its VM stays until it is detached again: %s", device->key,
                    strerror(-error));
}

// ---- in the loop

static void answer(struct handover_job *job)
{
    struct opener_result *result = &job->result;
    struct handover_answer answer;

    if (job->device->kind == DEVICE_INPUT && result->kind == HOST_OPEN_READY)
        look_at_input(job); // another one may have come meanwhile
    answer = (struct handover_answer){job->serial, result->kind, result->fd, result->text, job->device};
    job->handover->answered(job->handover->user, &answer);
    result->fd = answer.fd;
}

// Something else is to be done with its device next.
static bool is_overtaken(const struct handover_job *job)
{
    for (const struct handover_job *next = job->lane->first; next != NULL; next = next->next)
        if (strcmp(next->device->key, job->device->key) == 0)
            return true;
    return false;
}

static void done(struct job *base)
{
    struct handover_job *job = (struct handover_job *)base;
    bool again = job->settle && job->busy && !is_overtaken(job);

    if (!job->settle && job->result.kind != HOST_OPEN_READY)
        note_failure(job); // before the next one of its group is told who has what
    advance(job->handover, job->lane);
    if (again)
        try_again(job->handover, steal_pointer(&job->device), job->to_host);
    if (job->authorization != NULL)
        authorize_done(job->handover->authorize, job->authorization);
    if (job->besides != NULL)
        log_info(job->handover->log, "%s", job->besides);
    if (job->by_group != NULL)
        log_info(job->handover->log, "%s", job->by_group);
    if (!job->settle)
        answer(job);
    else if (job->result.text != NULL)
        log_warning(job->handover->log, "%s", job->result.text);
}

// The device belongs to the loop, and a thread may outlive that.
static struct device *copy_one(const struct device *device)
{
    struct device *copy = device_new(device->kind);

    copy->key = string_copy(device->key);
    copy->instance = device->instance;
    copy->syspath = string_copy(device->syspath);
    copy->node = string_copy(device->node);
    copy->number = device->number;
    copy->vendor_database = string_copy(device->vendor_database);
    copy->product_database = string_copy(device->product_database);
    copy->vendor_reported = string_copy(device->vendor_reported);
    copy->product_reported = string_copy(device->product_reported);
    copy->vendor_id = device->vendor_id;
    copy->product_id = device->product_id;
    copy->port_path = string_copy(device->port_path);
    copy->class = device->class;
    copy->subclass = device->subclass;
    copy->header = device->header;
    copy->iommu_group = device->iommu_group;
    return copy;
}

static struct device *copy_device(const struct device *device)
{
    struct device *copy = copy_one(device);

    copy->peers = device->peer_count > 0 ? memory_new(device->peer_count, sizeof(*copy->peers)) : NULL;
    for (size_t i = 0; i < device->peer_count; i++)
        copy->peers[copy->peer_count++] = copy_one(device->peers[i]);
    return copy;
}

static struct handover_job *job_new(struct handover *handover, const struct device *device)
{
    struct handover_job *job = memory_new(1, sizeof(*job));

    *job = (struct handover_job){
        .job = {.run = run, .done = done, .release = release},
        .handover = handover,
        .paths = *handover->paths,
        .bind_records = string_copy(handover->paths->records),
        .device = copy_device(device),
        .result = {.kind = HOST_OPEN_GONE, .fd = -1},
    };
    job->paths.records = job->bind_records;
    if (handover->access != NULL) {
        job->access = *handover->access;
        job->access.records = job->access_records = string_copy(handover->access->records);
    }
    return job;
}

void handover_open(struct handover *handover, struct device *device, uint64_t serial,
                   const struct host_receiver *receiver, char *refusal)
{
    struct handover_job *job = job_new(handover, device);

    job->serial = serial;
    job->receiver = *receiver;
    job->receiver.known = receiver->known && handover->grant;
    if (!receiver->known && handover->grant && device->kind != DEVICE_USB)
        log_debug(handover->log, "%s: the user of the VM's process is not known; its node stays as it is", device->key);
    if (refusal != NULL)
        job->result = (struct opener_result){HOST_OPEN_IN_USE, -1, refusal};
    else if (handover->authorize != NULL)
        job->authorization = authorize_open(handover->authorize, device);
    note_opening(handover, device, serial, !receiver->awaited);
    forget_late(handover, device->key);
    submit(job);
}

bool handover_withhold(struct handover *handover, struct device *device, uint64_t serial)
{
    struct authorize_plan *plan = handover->authorize != NULL ? authorize_withhold(handover->authorize, device) : NULL;
    struct handover_job *job;

    if (plan == NULL)
        return false;
    job = job_new(handover, device);
    job->withhold = true;
    job->serial = serial;
    job->authorization = plan;
    submit(job);
    return true;
}

void handover_held(struct handover *handover, const struct device *device)
{
    (void)note_member(handover, device, true);
    forget_late(handover, device->key);
}

void handover_gone(struct handover *handover, const struct device *device)
{
    struct handover_job *job = job_new(handover, device);

    forget_member(handover, device->key);
    forget_late(handover, device->key);
    job->settle = true;
    submit(job);
}

void handover_settle(struct handover *handover, struct device *device, bool to_host)
{
    struct handover_job *job = job_new(handover, device);

    job->settle = true;
    job->to_host = to_host;
    if (handover->authorize != NULL)
        job->authorization = authorize_settle(handover->authorize, device, to_host);
    if (to_host)
        forget_member(handover, device->key);
    else
        (void)note_member(handover, device, false);
    forget_late(handover, device->key);
    submit(job);
}

struct handover *handover_new(struct worker *worker, sd_event *loop, struct log *log, const struct bind_paths *paths,
                              void (*answered)(void *user, struct handover_answer *answer), void *user)
{
    struct handover *handover = memory_new(1, sizeof(*handover));

    *handover = (struct handover){
        .worker = worker, .loop = sd_event_ref(loop), .log = log, .paths = paths, .answered = answered, .user = user};
    return handover;
}

void handover_authorize(struct handover *handover, struct authorize *authorize)
{
    handover->authorize = authorize;
}

void handover_access(struct handover *handover, const struct access_paths *access, bool grant)
{
    handover->access = access;
    handover->grant = grant && access != NULL;
}

void handover_free(struct handover *handover)
{
    if (handover == NULL)
        return;
    while (handover->lanes != NULL) {
        struct lane *lane = handover->lanes;
        handover->lanes = lane->next;
        free_lane(lane);
    }
    while (handover->members != NULL)
        forget_member(handover, handover->members->key);
    while (handover->late != NULL)
        forget_late(handover, handover->late->device->key);
    sd_event_source_disable_unref(handover->again);
    sd_event_unref(handover->loop);
    free(handover);
}
