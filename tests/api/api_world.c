// A host with devices and VMs that do as they are told, behind the real API: the messages, the clients and the
// sockets are those of the daemon, the reconciler too. Each line of standard input is a JSON object that
// changes this world; it is answered with a line when all that follows from it has been done.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "api/client.h"
#include "api/messages.h"
#include "api/server.h"
#include "core/device_json.h"
#include "util/json.h"
#include "util/text.h"

#define VMS_MAX 8
#define OBJECTS_MAX 32
#define LINE_MAX_LENGTH 65536
#define CONFIG_MAX 65536

struct world_vm {
    char name[VM_NAME_MAX];
    struct attachment objects[OBJECTS_MAX];
    size_t count;
    char *refuses;              // attaches, with this text; NULL: it does not
    char *fails;                // attaches, for now
    bool hangs;                 // answers nothing
    struct operation operation; // that it has not answered
    bool busy;
};

struct world {
    sd_event *loop;
    sd_event_source *input, *pump, *timer;
    struct log *log;
    struct reconcile *reconcile;
    struct messages *messages;
    struct clients *clients;
    struct server *server;
    const char *file;
    struct config *config;
    struct world_vm vms[VMS_MAX];
    size_t vm_count;
    uint64_t instances;
    struct text line;
    uint64_t preparing[OBJECTS_MAX]; // serials of functions that are to be made ready
    size_t preparing_count;
    char *unprepared;  // why functions are not made ready; NULL: they are
    bool slow;         // functions are not made ready
    uint64_t ready;    // but for so many
    size_t operations; // that were asked of VMs
    uint64_t decided;  // revisions of what people decided
    bool hangs;        // the disk: none of them is saved
    bool said;         // a command waits for its answer
};

// How long the host has slept; CLOCK_MONOTONIC does not know of that. In seconds.
static time_t slept;

// In place of the C library's, for libsystemd also.
int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status = (int)syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && clock != CLOCK_MONOTONIC)
        now->tv_sec += slept;
    return status;
}

static uint64_t world_now(struct world *world)
{
    uint64_t now = 0;
    (void)sd_event_now(world->loop, CLOCK_BOOTTIME, &now);
    return now;
}

static void world_die(const char *why)
{
    (void)fprintf(stderr, "api_world: %s\n", why);
    exit(2);
}

// ---- VMs

static struct world_vm *world_vm(struct world *world, const char *name)
{
    for (size_t i = 0; i < world->vm_count; i++)
        if (strcmp(world->vms[i].name, name) == 0)
            return &world->vms[i];
    if (world->vm_count == VMS_MAX || strlen(name) >= VM_NAME_MAX)
        world_die("too many VMs");
    struct world_vm *vm = &world->vms[world->vm_count++];
    memcpy(vm->name, name, strlen(name));
    return vm;
}

static void world_detach(struct world_vm *vm, const char *object)
{
    for (size_t i = 0; i < vm->count; i++)
        if (strcmp(vm->objects[i].object, object) == 0)
            vm->objects[i] = vm->objects[--vm->count];
}

static void world_attach(struct world_vm *vm, const struct operation *operation, struct result *result)
{
    if (vm->refuses || vm->fails) {
        result->kind = vm->refuses ? RESULT_REFUSED : RESULT_RETRY;
        result->text = string_copy(vm->refuses ? vm->refuses : vm->fails);
        return;
    }
    if (vm->count == OBJECTS_MAX)
        world_die("too many objects");
    struct attachment *object = &vm->objects[vm->count++];
    *object = (struct attachment){.ours = true, .instance = operation->device->instance};
    object_name(object->object, operation->device, operation->serial);
}

static void world_execute(struct world *world, struct world_vm *vm)
{
    CLEANUP(result_clear) struct result result = {.serial = vm->operation.serial, .kind = RESULT_DONE};
    if (vm->operation.kind == OPERATION_ATTACH)
        world_attach(vm, &vm->operation, &result);
    else if (vm->operation.kind == OPERATION_DETACH)
        world_detach(vm, vm->operation.object);
    result.listed = true;
    result.attachment_count = vm->count;
    result.attachments = memory_new(vm->count, sizeof(*result.attachments));
    memcpy(result.attachments, vm->objects, vm->count * sizeof(*result.attachments));
    operation_clear(&vm->operation);
    vm->busy = false;
    reconcile_result(world->reconcile, vm->name, &result, world_now(world));
}

// ---- the loop

static void world_output(struct world *world, struct output *output)
{
    if (output->kind == OUTPUT_CHOICES) {
        messages_decided(world->messages, ++world->decided);
        if (!world->hangs)
            messages_settled(world->messages, world->decided);
        return;
    }
    if (output->kind != OUTPUT_OPERATION) {
        messages_output(world->messages, output);
        return;
    }
    struct world_vm *vm = world_vm(world, output->operation.vm);
    vm->operation = output->operation;
    vm->busy = true;
    world->operations += output->operation.kind != OPERATION_LIST;
}

static bool world_answer(struct world *world)
{
    for (size_t i = 0; i < world->vm_count; i++) {
        if (!world->vms[i].busy || world->vms[i].hangs)
            continue;
        world_execute(world, &world->vms[i]);
        return true;
    }
    return false;
}

static void world_prepare(void *user, struct device *device, uint64_t serial)
{
    struct world *world = user;
    (void)device;
    if (world->preparing_count == OBJECTS_MAX)
        world_die("too many functions are made ready");
    world->preparing[world->preparing_count++] = serial;
}

static void world_prepared(struct world *world)
{
    for (; world->preparing_count && (!world->slow || world->ready); world->ready -= world->ready > 0)
        messages_prepared(world->messages, world->preparing[--world->preparing_count], world->unprepared);
}

static int on_pump(sd_event_source *source, void *user)
{
    (void)source;
    struct world *world = user;
    struct output output = {0};
    world_prepared(world);
    do
        while (reconcile_next(world->reconcile, world_now(world), &output))
            world_output(world, &output);
    while (world_answer(world));
    if (world->said) {
        world->said = false;
        (void)printf("{\"operations\":%zu,\"preparing\":%zu}\n", world->operations, world->preparing_count);
        (void)fflush(stdout);
    }
    uint64_t deadline = reconcile_deadline(world->reconcile);
    if (deadline == UINT64_MAX)
        return sd_event_source_set_enabled(world->timer, SD_EVENT_OFF);
    int status = sd_event_source_set_time(world->timer, deadline);
    return status < 0 ? status : sd_event_source_set_enabled(world->timer, SD_EVENT_ONESHOT);
}

static int on_deadline(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time, (void)user;
    return 0;
}

// ---- configuration

static char *world_reload(void *user)
{
    struct world *world = user;
    CLEANUP(cleanup_close) int fd = open(world->file, O_RDONLY | O_CLOEXEC);
    CLEANUP(cleanup_free) char *text = memory_new(CONFIG_MAX, 1);
    ssize_t length = fd < 0 ? -1 : read(fd, text, CONFIG_MAX);
    if (length < 0)
        return string_printf("%s cannot be read: %s", world->file, strerror(errno));
    CLEANUP(config_report_clear) struct config_report report = {0};
    struct config *config = config_parse(world->file, text, (size_t)length, &report);
    if (!config) {
        struct text lines = {0};
        for (size_t i = 0; i < report.errors.count; i++)
            text_printf(&lines, "%s%s", i ? "\n" : "", report.errors.lines[i]);
        return text_take(&lines);
    }
    reconcile_configure(world->reconcile, config, world_now(world));
    messages_configure(world->messages, config);
    clients_configure(world->clients, &config->api);
    server_configure(world->server, &config->api);
    config_free(world->config);
    world->config = config;
    return NULL;
}

static const struct api_callbacks callbacks = {.reload = world_reload, .prepare = world_prepare};

// ---- commands

static const char *member(struct json_object *command, const char *name)
{
    const char *string = json_member_string(command, name);
    if (!string)
        world_die("a member of a command is missing");
    return string;
}

static bool flag(struct json_object *command, const char *name)
{
    bool value;
    return json_member_bool(command, name, &value) && value;
}

static uint64_t number(struct json_object *command, const char *name)
{
    uint64_t value;
    return json_member_uint64(command, name, &value) ? value : 0;
}

static void do_plug(struct world *world, struct json_object *command)
{
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_device) struct device *device = device_from_json(json_member(command, "device"), &error);
    if (!device)
        world_die(error);
    const char *raw = json_member_string(command, "raw"); // hex: a name that no JSON can hold
    if (raw) {
        free(device->product_reported);
        device->product_reported = memory_new(strlen(raw) / 2 + 1, 1);
        for (size_t i = 0; raw[2 * i] && raw[2 * i + 1]; i++) {
            char digits[3] = {raw[2 * i], raw[2 * i + 1], 0};
            device->product_reported[i] = (char)strtoul(digits, NULL, 16);
        }
    }
    device->instance = flag(command, "again") ? world->instances : ++world->instances;
    reconcile_device(world->reconcile, device, !flag(command, "there"), world_now(world));
}

static void do_pull(struct world *world, struct json_object *command)
{
    reconcile_device_gone(world->reconcile, member(command, "key"), 0, world_now(world));
}

static void do_scanned(struct world *world, struct json_object *command)
{
    (void)command;
    reconcile_scanned(world->reconcile, world_now(world));
    messages_scanned(world->messages);
}

static void do_up(struct world *world, struct json_object *command)
{
    struct world_vm *vm = world_vm(world, member(command, "vm"));
    vm->count = 0;
    reconcile_vm_up(world->reconcile, vm->name, number(command, "process"), world_now(world));
}

static void do_down(struct world *world, struct json_object *command)
{
    struct world_vm *vm = world_vm(world, member(command, "vm"));
    vm->count = 0;
    reconcile_vm_down(world->reconcile, vm->name, world_now(world));
}

static void do_silent(struct world *world, struct json_object *command)
{
    reconcile_vm_silent(world->reconcile, member(command, "vm"), member(command, "why"), world_now(world));
}

static void do_mood(struct world *world, struct json_object *command)
{
    struct world_vm *vm = world_vm(world, member(command, "vm"));
    free(vm->refuses);
    free(vm->fails);
    vm->refuses = string_copy(json_member_string(command, "refuses"));
    vm->fails = string_copy(json_member_string(command, "fails"));
    vm->hangs = flag(command, "hangs");
}

// How the host makes functions ready: slowly, but for so many.
static void do_host(struct world *world, struct json_object *command)
{
    free(world->unprepared);
    world->unprepared = string_copy(json_member_string(command, "refuses"));
    world->slow = flag(command, "slow");
    world->ready = number(command, "ready");
}

// Whether the disk hangs, and up to which revision of what people decided all is saved even so.
static void do_disk(struct world *world, struct json_object *command)
{
    world->hangs = flag(command, "hangs");
    if (!world->hangs)
        messages_settled(world->messages, world->decided);
    else if (number(command, "saved"))
        messages_settled(world->messages, number(command, "saved"));
}

// The host sleeps.
static void do_sleep(struct world *world, struct json_object *command)
{
    (void)world;
    slept += (time_t)number(command, "seconds");
}

static void do_guest(struct world *world, struct json_object *command)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = member(command, "path");
    if (strlen(path) >= sizeof(address.sun_path))
        world_die("a path is too long");
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        world_die("a guest cannot be connected");
    const struct client_peer peer = {.kind = CLIENT_VSOCK, .cid = (unsigned)number(command, "cid")};
    if (clients_add(world->clients, fd, &peer))
        world_die("a guest is not let in");
}

// What an earlier run left behind of one device.
static void do_remember(struct world *world, struct json_object *command)
{
    CLEANUP(cleanup_free) char *key = string_copy(member(command, "key"));
    CLEANUP(cleanup_free) char *vm = string_copy(member(command, "vm"));
    struct memory_device device = {.key = key,
                                   .instance = number(command, "instance"),
                                   .managed = true,
                                   .vm = vm,
                                   .vm_instance = number(command, "process")};
    reconcile_remember(world->reconcile, &(struct memory){.devices = &device, .count = 1});
}

static const struct {
    const char *name;
    void (*act)(struct world *world, struct json_object *command);
} commands[] = {{"plug", do_plug},         {"pull", do_pull},     {"scanned", do_scanned}, {"up", do_up},
                {"down", do_down},         {"silent", do_silent}, {"mood", do_mood},       {"guest", do_guest},
                {"remember", do_remember}, {"disk", do_disk},     {"sleep", do_sleep},     {"host", do_host}};

static void obey(struct world *world, const char *line, size_t length)
{
    static const struct json_limits limits = {.length = LINE_MAX_LENGTH, .depth = 8};
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_json) struct json_object *command = json_parse(line, length, &limits, &error);
    const char *name = member(command, "do");
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            commands[i].act(world, command);
    world->said = true;
}

static int on_input(sd_event_source *source, int fd, uint32_t events, void *user)
{
    (void)source, (void)events;
    struct world *world = user;
    char bytes[4096];
    ssize_t got = read(fd, bytes, sizeof(bytes));
    if (got <= 0)
        return sd_event_exit(world->loop, 0);
    text_add_bytes(&world->line, bytes, (size_t)got);
    char *newline = memchr(world->line.string, '\n', world->line.length);
    if (!newline)
        return 0;
    obey(world, world->line.string, (size_t)(newline - world->line.string));
    text_clear(&world->line);
    return 0;
}

// ---- life

static int world_start(struct world *world)
{
    int status;
    world->log = log_new(LOG_LEVEL_DEBUG);
    world->reconcile = reconcile_new(1, false);
    if ((status = sd_event_new(&world->loop)) < 0 ||
        (status = sd_event_add_io(world->loop, &world->input, STDIN_FILENO, EPOLLIN, on_input, world)) < 0 ||
        (status = sd_event_add_post(world->loop, &world->pump, on_pump, world)) < 0 ||
        (status = sd_event_add_time(world->loop, &world->timer, CLOCK_BOOTTIME, 0, 1000, on_deadline, world)) < 0 ||
        (status = sd_event_source_set_enabled(world->timer, SD_EVENT_OFF)) < 0 ||
        (status = messages_new(&world->messages, world->loop, world->log, world->reconcile, &callbacks, world)) < 0 ||
        (status = clients_new(&world->clients, world->loop, world->log, world->messages)) < 0)
        return status;
    return server_new(&world->server, world->loop, world->log, world->clients);
}

static void world_clear(struct world *world)
{
    server_free(world->server);
    clients_free(world->clients);
    messages_free(world->messages);
    reconcile_free(world->reconcile);
    config_free(world->config);
    for (size_t i = 0; i < world->vm_count; i++) {
        operation_clear(&world->vms[i].operation);
        free(world->vms[i].refuses);
        free(world->vms[i].fails);
    }
    free(world->unprepared);
    text_clear(&world->line);
    sd_event_source_unref(world->input);
    sd_event_source_unref(world->pump);
    sd_event_source_unref(world->timer);
    sd_event_unref(world->loop);
    log_free(world->log);
}

int main(int argc, char *argv[])
{
    CLEANUP(world_clear) struct world world = {.file = argc == 2 ? argv[1] : "/dev/null"};
    (void)signal(SIGPIPE, SIG_IGN);
    if (world_start(&world) < 0)
        world_die("cannot start");
    CLEANUP(cleanup_free) char *errors = world_reload(&world);
    if (errors)
        world_die(errors);
    (void)puts("{\"operations\":0}");
    (void)fflush(stdout);
    return sd_event_loop(world.loop) < 0 ? 2 : 0;
}
