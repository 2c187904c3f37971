// The VMM wing: watches the VMs' sockets and runs one operation at a time in each VM.
#include "vmm/vmm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>

#include "util/text.h"
#include "vmm/backend.h"
#include "vmm/outbox.h"
#include "vmm/peer.h"
#include "vmm/watch.h"

#define SECOND_US ((uint64_t)1000 * 1000)
#define SILENT_US (5 * SECOND_US) // an operation without an answer is said to wait,
#define PCI_US (60 * SECOND_US)   // one that may have to pin all of a guest's memory first not before this,
#define LOST_US (25 * SECOND_US)  // and after so much more, once the VMM has answered at all, is lost
#define EXPECTS_US SECOND_US      // for an operation that is being prepared
#define BUSY_US (SECOND_US / 2)   // between tries to connect while others wait in front of us

// A socket is bound before it is listened on, so one that refuses is looked at again a few times after
// news of it: after 1, 4, 16, … ms, the last time after 16 s. Where there is no room to look, it goes on every 4 s.
#define LOOK_FIRST_US ((uint64_t)1000)
#define LOOKS 8
#define LOOKS_WITHOUT_ROOM 6

enum vm_life { LIFE_UNKNOWN, LIFE_DOWN, LIFE_UP };

struct vm {
    struct vmms *vmms;
    char *name;
    enum vm_type type;
    char *socket;
    const struct backend *backend;
    void *session;

    // Its life.
    enum vm_life life;
    struct watch *watch;
    uint64_t instance;
    uint64_t learnt;  // the process that the session's knowledge is about; 0: none that can be told again
    struct stat file; // of the socket, where the instance cannot be told
    int pidfd;
    struct ucred process; // that serves it; pid 0 where it cannot be watched
    sd_event_source *death;
    sd_event_source *look_again;
    unsigned looks;
    int refusal;              // the errno of the last failed connection that was logged
    int spare;                // a connection that was made to look, for the operation that comes next
    sd_event_source *expects; // the next operation is being prepared; ends a while later

    // The operation in flight.
    bool running, waits_for_place, said_silent;
    uint64_t patience;           // from one answer to the next, until it is said that none comes
    struct operation *operation; // owned; until the session has it
    int fd;
    char *no_fd;
    sd_event_source *timer, *place_timer;
};

struct vmms {
    sd_event *loop;
    struct log *log;
    void *user;
    struct outbox *outbox;
    struct watcher *watcher;
    struct vm **vms;
    size_t count;
    struct memory memory; // of an earlier run
    const char *iommu;    // NULL: no functions are passed by descriptor
};

static void look(struct vm *vm);

static const struct backend *backend_of(enum vm_type type)
{
    switch (type) {
    case VM_QEMU:
        return &backend_qemu;
    case VM_CROSVM:
        return &backend_crosvm;
    case VM_CLOUD_HYPERVISOR:
        break;
    }
    return NULL;
}

bool vmms_serves(enum vm_type type)
{
    return backend_of(type) != NULL;
}

static struct vm *find(const struct vmms *vmms, const char *name)
{
    for (size_t i = 0; i < vmms->count; i++)
        if (strcmp(vmms->vms[i]->name, name) == 0)
            return vmms->vms[i];
    return NULL;
}

// --- The operation in flight

static void drop_operation(struct vm *vm)
{
    if (vm->operation)
        operation_clear(vm->operation);
    free(steal_pointer(&vm->operation));
    cleanup_close(&vm->fd);
    vm->fd = -1;
    free(steal_pointer(&vm->no_fd));
    vm->timer = sd_event_source_disable_unref(vm->timer);
    vm->place_timer = sd_event_source_disable_unref(vm->place_timer);
    vm->running = vm->waits_for_place = vm->said_silent = false;
}

static void handle_finished(void *user, struct result *result)
{
    struct vm *vm = user;
    if (!vm->running) {
        result_clear(result);
        return;
    }
    drop_operation(vm);
    outbox_done(vm->vmms->outbox, vm->name, result);
    // If no other operation follows at once, others shall have the socket.
    outbox_add(vm->vmms->outbox, LETTER_TIDY, vm->name);
}

// Ends an operation that never reached the session.
static void end_unstarted(struct vm *vm, enum result_kind kind, char *text)
{
    struct result result = {.serial = vm->operation->serial, .kind = kind, .text = text};
    handle_finished(vm, &result);
}

// Ends whatever is in flight.
static void end_operation(struct vm *vm, const char *why)
{
    if (vm->running && vm->waits_for_place)
        end_unstarted(vm, RESULT_RETRY, string_printf("%s %s", vm->backend->program, why));
    else if (vm->running)
        vm->backend->cancel(vm->session, why);
}

static const char *silence(const struct vm *vm)
{
    return vm->waits_for_place
               ? "others wait for its socket too, which serves one at a time: it is stopped, or another "
                 "client holds the socket; give vhotplug a socket of its own"
               : vm->backend->silence(vm->session);
}

static int handle_timer(sd_event_source *source, uint64_t now, void *user)
{
    struct vm *vm = user;
    (void)now;
    bool answered = vm->backend->has_answered(vm->session);
    if (vm->said_silent && answered) {
        vm->backend->cancel(vm->session, "did not answer a command in time");
        return 0;
    }
    if (!vm->said_silent)
        outbox_silent(vm->vmms->outbox, vm->name, silence(vm));
    vm->said_silent = true;
    // Who has not greeted us may do so at any time; a command must be answered.
    if (answered && sd_event_source_set_time_relative(source, LOST_US) >= 0)
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

static void handle_answered(void *user)
{
    struct vm *vm = user;
    if (!vm->running || !vm->timer)
        return;
    uint64_t time = vm->said_silent ? LOST_US : vm->patience;
    if (sd_event_source_set_time_relative(vm->timer, time) >= 0)
        (void)sd_event_source_set_enabled(vm->timer, SD_EVENT_ONESHOT);
}

static void handle_news(void *user)
{
    struct vm *vm = user;
    if (vm->life == LIFE_UP)
        outbox_add(vm->vmms->outbox, LETTER_NEWS, vm->name);
}

static void handle_closed(void *user)
{
    look(user);
}

// --- Its life

static void say_refusal(struct vm *vm, int error)
{
    bool usual = error == 0 || error == -ENOENT || error == -ENOTDIR || error == -ECONNREFUSED || error == -EAGAIN;
    if (error == vm->refusal)
        return;
    vm->refusal = error;
    if (!usual)
        log_line(vm->vmms->log, LOG_LEVEL_WARNING, &(struct log_subject){.vm = vm->name},
                 "%s: cannot connect to %s: %s", vm->name, vm->socket, strerror(-error));
}

static void close_spare(struct vm *vm)
{
    cleanup_close(&vm->spare);
    vm->spare = -1;
}

static void forget_process(struct vm *vm)
{
    vm->death = sd_event_source_disable_unref(vm->death);
    cleanup_close(&vm->pidfd);
    vm->pidfd = -1;
    vm->process = (struct ucred){0};
    vm->instance = 0;
}

static void go_down(struct vm *vm)
{
    forget_process(vm);
    close_spare(vm);
    if (vm->life == LIFE_DOWN)
        return;
    vm->life = LIFE_DOWN;
    end_operation(vm, "is down");
    vm->backend->hang_up(vm->session);
    outbox_add(vm->vmms->outbox, LETTER_DOWN, vm->name);
}

static int handle_death(sd_event_source *source, int fd, uint32_t events, void *user)
{
    struct vm *vm = user;
    (void)source;
    (void)fd;
    (void)events;
    forget_process(vm);
    look(vm);
    return 0;
}

// The file behind the socket's name is another one than before.
static bool is_new_file(struct vm *vm)
{
    struct stat now = {0};
    (void)stat(vm->socket, &now);
    bool same = now.st_ino == vm->file.st_ino && now.st_ctim.tv_sec == vm->file.st_ctim.tv_sec &&
                now.st_ctim.tv_nsec == vm->file.st_ctim.tv_nsec;
    vm->file = now;
    return !same;
}

// What an earlier run of ours put into the process that serves the VM now.
static void remember(struct vm *vm)
{
    const struct memory *memory = &vm->vmms->memory;
    for (size_t i = 0; vm->backend->remember && vm->instance && i < memory->count; i++) {
        const struct memory_device *device = &memory->devices[i];
        if (string_equal(device->vm, vm->name) && device->vm_instance == vm->instance)
            vm->backend->remember(vm->session, device);
    }
}

// A connection stands, to PEER, whose pidfd is taken. False if it is another VMM than before; that has
// been told, and what was in flight has ended.
static bool go_up(struct vm *vm, struct peer *peer)
{
    bool new_file = is_new_file(vm);
    bool same = vm->life == LIFE_UP && peer->instance == vm->instance && (peer->instance != 0 || !new_file);
    if (same && vm->pidfd >= 0) {
        cleanup_close(&peer->pidfd);
        return true;
    }
    forget_process(vm);
    vm->instance = peer->instance;
    vm->pidfd = peer->pidfd;
    vm->process = peer->process;
    if (vm->pidfd >= 0 && sd_event_add_io(vm->vmms->loop, &vm->death, vm->pidfd, EPOLLIN, handle_death, vm) >= 0)
        (void)sd_event_source_set_enabled(vm->death, SD_EVENT_ONESHOT);
    if (same)
        return true;
    if (vm->life == LIFE_UP) {
        end_operation(vm, "was replaced by another process");
        vm->backend->hang_up(vm->session);
    }
    // Where the VM's own list does not tell all, a process that could not be reached for a while is known still.
    bool known = vm->backend->remember && vm->instance != 0 && vm->instance == vm->learnt;
    if (!known) {
        vm->backend->forget(vm->session);
        vm->learnt = vm->instance;
        remember(vm);
    }
    vm->life = LIFE_UP;
    outbox_up(vm->vmms->outbox, vm->name, vm->instance);
    return false;
}

static int handle_look_again(sd_event_source *source, uint64_t now, void *user)
{
    (void)source;
    (void)now;
    look(user);
    return 0;
}

static void plan_look(struct vm *vm)
{
    if (vm->looks == LOOKS)
        return;
    uint64_t time = LOOK_FIRST_US << (2 * vm->looks++);
    (void)sd_event_add_time_relative(vm->vmms->loop, &vm->look_again, CLOCK_MONOTONIC, time, time / 8,
                                     handle_look_again, vm);
}

// That there was no room for a connection, which tells nothing of who serves the socket.
static bool is_shortage(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
}

// Who serves the socket cannot be told now, while the process that did is watched: there was no room to ask, or it has
// just ended, which is news by itself. Nobody is taken for another because of that.
static bool is_unclear(const struct vm *vm, struct peer *peer)
{
    if (vm->life != LIFE_UP || vm->instance == 0 || !vm->death || peer->instance != 0)
        return false;
    cleanup_close(&peer->pidfd);
    return true;
}

static void look_without_room(struct vm *vm)
{
    if (vm->looks > LOOKS_WITHOUT_ROOM)
        vm->looks = LOOKS_WITHOUT_ROOM;
    plan_look(vm);
}

// Whether anybody serves the socket, and who.
static void look(struct vm *vm)
{
    vm->look_again = sd_event_source_disable_unref(vm->look_again);
    int connection = peer_connect(vm->socket, vm->backend->socket_type);
    say_refusal(vm, connection < 0 ? connection : 0);
    if (connection == -EAGAIN) {
        // Somebody serves it and has no place for us. Who it is shows when there is one.
        struct peer unknown = {.instance = vm->instance, .pidfd = -1};
        if (vm->life != LIFE_UP)
            (void)go_up(vm, &unknown);
    } else if (is_shortage(connection)) {
        if (vm->life != LIFE_UP)
            go_down(vm);
        look_without_room(vm);
    } else if (connection < 0) {
        go_down(vm);
        if (connection == -ECONNREFUSED)
            plan_look(vm);
    } else {
        struct peer peer = peer_of(connection);
        bool unclear = is_unclear(vm, &peer);
        if (unclear)
            look_without_room(vm);
        if (unclear || go_up(vm, &peer)) {
            close(connection);
            return;
        }
        close_spare(vm);
        vm->spare = connection;
        outbox_add(vm->vmms->outbox, LETTER_TIDY, vm->name);
    }
}

static void handle_watch(void *user)
{
    struct vm *vm = user;
    vm->looks = 0;
    look(vm);
}

// --- Starting an operation

static int handle_place(sd_event_source *source, uint64_t now, void *user);

static void wait_for_place(struct vm *vm)
{
    int r = sd_event_add_time_relative(vm->vmms->loop, &vm->place_timer, CLOCK_MONOTONIC, BUSY_US, BUSY_US / 8,
                                       handle_place, vm);
    vm->waits_for_place = true;
    if (r < 0)
        end_operation(vm, "cannot be waited for");
}

// Connects and hands the operation over to the session, or waits until that works.
static void begin_operation(struct vm *vm)
{
    if (!vm->backend->is_connected(vm->session)) {
        int connection = vm->spare >= 0 ? steal_fd(&vm->spare) : peer_connect(vm->socket, vm->backend->socket_type);
        if (connection == -EAGAIN) {
            wait_for_place(vm);
            return;
        }
        if (connection < 0) {
            end_unstarted(vm, RESULT_RETRY, string_printf("nobody serves %s: %s", vm->socket, strerror(-connection)));
            look(vm);
            return;
        }
        struct peer peer = peer_of(connection);
        vm->waits_for_place = true; // not the session's yet
        if (is_unclear(vm, &peer)) {
            close(connection);
            end_unstarted(vm, RESULT_RETRY, string_printf("who serves %s cannot be told now", vm->socket));
            return;
        }
        if (!go_up(vm, &peer)) {
            close(connection);
            return;
        }
        int r = vm->backend->connect(vm->session, connection);
        if (r < 0) {
            end_unstarted(vm, RESULT_RETRY, string_printf("it cannot be talked to: %s", strerror(-r)));
            return;
        }
    }
    vm->waits_for_place = false;
    CLEANUP(cleanup_free) struct operation *operation = steal_pointer(&vm->operation);
    vm->backend->start(vm->session, operation, steal_fd(&vm->fd), vm->no_fd);
}

static int handle_place(sd_event_source *source, uint64_t now, void *user)
{
    struct vm *vm = user;
    (void)source;
    (void)now;
    vm->place_timer = sd_event_source_disable_unref(vm->place_timer);
    begin_operation(vm);
    return 0;
}

// Answers an operation that no VM can take.
static void refuse_start(struct vmms *vmms, struct operation *operation, const char *why)
{
    struct result result = {
        .serial = operation->serial, .kind = RESULT_RETRY, .text = string_printf("%s %s", operation->vm, why)};
    outbox_done(vmms->outbox, operation->vm, &result);
    operation_clear(operation);
}

static uint64_t patience_for(const struct operation *operation)
{
    bool pci = operation->kind == OPERATION_ATTACH && operation->device && operation->device->kind == DEVICE_PCI;
    return pci ? PCI_US : SILENT_US;
}

void vmms_start(struct vmms *vmms, struct operation *operation, int fd, const char *no_fd)
{
    CLEANUP(cleanup_close) int owned = fd;
    struct vm *vm = find(vmms, operation->vm);
    if (!vm || vm->life != LIFE_UP || vm->running) {
        refuse_start(vmms, operation, !vm ? "no such VM" : vm->running ? "an operation is in flight" : "is down");
        return;
    }
    vm->running = true;
    vm->expects = sd_event_source_disable_unref(vm->expects);
    vm->patience = patience_for(operation);
    vm->operation = memory_new(1, sizeof *vm->operation);
    *vm->operation = *operation;
    *operation = (struct operation){0};
    vm->fd = steal_fd(&owned);
    vm->no_fd = string_copy(no_fd);
    (void)sd_event_add_time_relative(vmms->loop, &vm->timer, CLOCK_MONOTONIC, SILENT_US, SECOND_US / 8, handle_timer,
                                     vm);
    begin_operation(vm);
}

// All that was told before this has been dealt with: a connection nobody uses is given back.
static void tidy(void *wing, const char *name)
{
    struct vm *vm = find(wing, name);
    if (!vm || vm->expects)
        return;
    close_spare(vm);
    if (!vm->running)
        vm->backend->hang_up(vm->session);
}

static int handle_expects(sd_event_source *source, uint64_t now, void *user)
{
    struct vm *vm = user;
    (void)source;
    (void)now;
    vm->expects = sd_event_source_disable_unref(vm->expects);
    tidy(vm->vmms, vm->name);
    return 0;
}

void vmms_expect(struct vmms *vmms, const char *name)
{
    struct vm *vm = find(vmms, name);
    if (!vm || vm->running)
        return;
    vm->expects = sd_event_source_disable_unref(vm->expects);
    // Without it, the next operation connects anew.
    (void)sd_event_add_time_relative(vmms->loop, &vm->expects, CLOCK_MONOTONIC, EXPECTS_US, EXPECTS_US / 8,
                                     handle_expects, vm);
    // The VMM may greet meanwhile. What goes wrong here is looked at when the operation comes.
    if (vm->expects && vm->life == LIFE_UP && vm->spare < 0 && !vm->backend->is_connected(vm->session))
        vm->spare = peer_connect(vm->socket, vm->backend->socket_type);
}

// --- The set of VMs

static void vm_free(struct vm *vm)
{
    watch_free(vm->watch);
    forget_process(vm);
    sd_event_source_disable_unref(vm->look_again);
    sd_event_source_disable_unref(vm->expects);
    close_spare(vm);
    vm->backend->session_free(vm->session);
    drop_operation(vm);
    free(vm->name);
    free(vm->socket);
    free(vm);
}

static struct vm *vm_new(struct vmms *vmms, const struct vm_config *config, const struct backend *backend)
{
    struct vm *vm = memory_new(1, sizeof *vm);
    *vm = (struct vm){.vmms = vmms, .type = config->type, .pidfd = -1, .spare = -1, .fd = -1};
    vm->name = string_copy(config->name);
    vm->socket = string_copy(config->socket ? config->socket : "");
    vm->backend = backend;
    const struct backend_setup setup = {.loop = vmms->loop,
                                        .log = vmms->log,
                                        .vm = vm->name,
                                        .iommu = vmms->iommu,
                                        .callbacks = {.answered = handle_answered,
                                                      .finished = handle_finished,
                                                      .news = handle_news,
                                                      .closed = handle_closed},
                                        .user = vm};
    vm->session = vm->backend->session_new(&setup);
    int r = watch_new(&vm->watch, vmms->watcher, vm->socket, handle_watch, vm);
    if (r < 0)
        log_line(vmms->log, LOG_LEVEL_ERROR, &(struct log_subject){.vm = vm->name},
                 "%s: its socket %s cannot be watched, so its start will %s: %s%s", vm->name, vm->socket,
                 vm->watch ? "be noticed some seconds late" : "not be noticed", strerror(-r),
                 r == -EMFILE   ? " (raise fs.inotify.max_user_instances, or the limit of its descriptors)"
                 : r == -ENOSPC ? " (raise fs.inotify.max_user_watches)"
                                : "");
    look(vm);
    return vm;
}

static bool is_same(const struct vm *vm, const struct vm_config *config)
{
    return vm->type == config->type && string_equal(vm->socket, config->socket ? config->socket : "");
}

// A VM that is served no longer: what was in flight is answered, the rest is not told any more.
static void remove_vm(struct vm *vm)
{
    struct vmms *vmms = vm->vmms;
    end_operation(vm, "is not served any longer");
    outbox_forget(vmms->outbox, vm->name);
    vm_free(vm);
}

void vmms_configure(struct vmms *vmms, const struct config *config, bool (*keep)(void *user, const char *vm))
{
    size_t kept = 0;
    for (size_t i = 0; i < vmms->count; i++) {
        struct vm *vm = vmms->vms[i];
        const struct vm_config *wanted = config_vm(config, vm->name);
        if (wanted ? is_same(vm, wanted) : keep && keep(vmms->user, vm->name))
            vmms->vms[kept++] = vm;
        else
            remove_vm(vm);
    }
    vmms->count = kept;
    vmms->vms = memory_resize(vmms->vms, kept + config->vm_count + 1, sizeof(struct vm *));
    for (size_t i = 0; i < config->vm_count; i++) {
        const struct backend *backend = backend_of(config->vms[i].type);
        if (backend && !find(vmms, config->vms[i].name))
            vmms->vms[vmms->count++] = vm_new(vmms, &config->vms[i], backend);
    }
}

void vmms_offer_iommu(struct vmms *vmms, const char *node)
{
    vmms->iommu = node;
}

bool vmms_takes_functions(const struct vmms *vmms, const char *vm)
{
    const struct vm *found = find(vmms, vm);
    return found && found->backend->takes_functions && found->backend->takes_functions(found->session);
}

void vmms_remember(struct vmms *vmms, const struct memory *memory)
{
    memory_clear(&vmms->memory);
    memory_copy(&vmms->memory, memory);
}

int vmms_new(struct vmms **vmms, sd_event *loop, struct log *log, const struct vmms_callbacks *callbacks, void *user)
{
    CLEANUP(cleanup_vmms) struct vmms *new = memory_new(1, sizeof *new);
    new->loop = sd_event_ref(loop);
    new->watcher = watcher_new(loop);
    new->log = log;
    new->user = user;
    int r = outbox_new(&new->outbox, loop, callbacks, user, tidy, new);
    if (r < 0)
        return r;
    // The first timer of a clock makes the loop's descriptor for all; later there may be no room for it.
    sd_event_source *timer = NULL;
    r = sd_event_add_time_relative(loop, &timer, CLOCK_MONOTONIC, 0, 0, handle_look_again, NULL);
    if (r < 0)
        return r;
    sd_event_source_disable_unref(timer);
    *vmms = steal_pointer(&new);
    return 0;
}

void vmms_free(struct vmms *vmms)
{
    if (!vmms)
        return;
    for (size_t i = 0; i < vmms->count; i++)
        vm_free(vmms->vms[i]);
    watcher_free(vmms->watcher);
    free(vmms->vms);
    memory_clear(&vmms->memory);
    outbox_free(vmms->outbox);
    sd_event_unref(vmms->loop);
    free(vmms);
}

bool vmms_process(const struct vmms *vmms, const char *vm, pid_t *process, uid_t *user)
{
    const struct vm *found = find(vmms, vm);
    if (!found)
        return false;
    *process = found->process.pid;
    *user = peer_acts_as(&found->process);
    return !peer_has_ended(found->pidfd); // else there is none, or its number may already be another's
}
