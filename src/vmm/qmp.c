// A conversation in QMP over one connection: greeting, commands by id, events. Everything the peer
// says is bounded and checked; the first thing that is not QMP ends it.
#include "vmm/qmp.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "util/json.h"
#include "util/text.h"
#include "vmm/wire.h"

#define DEPTH_MAX 32
#define EXCERPT_MAX 80

// A command whose answer is awaited.
struct command {
    uint64_t id;
    qmp_answer answer;
    unsigned tag;
};

struct qmp {
    struct wire *wire;
    struct qmp_callbacks callbacks;
    void *user;
    bool greeted;
    uint64_t last_id;
    struct command *commands;
    size_t command_count;
    char *why; // why we end it ourselves
};

// Ends the conversation because the peer sent LINE, which is WHAT.
static void end_broken(struct qmp *qmp, const char *what, const char *line)
{
    struct text why = {0};
    text_printf(&why, "sent %s: ", what);
    text_add_safe(&why, line, EXCERPT_MAX);
    free(qmp->why);
    qmp->why = text_take(&why);
    wire_end(qmp->wire, -EPROTO);
}

static void handle_capabilities(void *user, unsigned tag, const struct qmp_reply *reply)
{
    (void)user;
    (void)tag;
    (void)reply; // when it was refused, so is every command after it, with QEMU's reason
}

static void handle_greeting(struct qmp *qmp)
{
    qmp->greeted = true;
    qmp_send(qmp, "qmp_capabilities", NULL, -1, handle_capabilities, 0);
    qmp->callbacks.greeted(qmp->user);
}

// Takes the command of that id out of those that are awaited.
static bool take_command(struct qmp *qmp, uint64_t id, struct command *command)
{
    for (size_t i = 0; i < qmp->command_count; i++) {
        if (qmp->commands[i].id != id)
            continue;
        *command = qmp->commands[i];
        qmp->command_count--;
        memmove(qmp->commands + i, qmp->commands + i + 1, (qmp->command_count - i) * sizeof *qmp->commands);
        return true;
    }
    return false;
}

static void handle_reply(struct qmp *qmp, struct json_object *message, const char *line)
{
    uint64_t id = 0;
    struct command command;
    struct qmp_reply reply = {.error_class = "", .error = ""};
    struct json_object *error = json_member(message, "error");
    reply.value = json_member(message, "return");
    if (!reply.value == !error || (error && !json_object_is_type(error, json_type_object))) {
        end_broken(qmp, "something that is not QMP", line);
        return;
    }
    if (!json_member_uint64(message, "id", &id) || !take_command(qmp, id, &command)) {
        end_broken(qmp, "an answer to nothing we asked", line);
        return;
    }
    if (error) {
        const char *class = json_member_string(error, "class");
        const char *text = json_member_string(error, "desc");
        reply.error_class = class ? class : "";
        reply.error = text && *text ? text : "no reason given";
    }
    command.answer(qmp->user, command.tag, &reply);
}

static void handle_line(void *user, const char *line, size_t length)
{
    struct qmp *qmp = user;
    const struct json_limits limits = {.length = WIRE_LINE_MAX, .depth = DEPTH_MAX};
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_json) struct json_object *message = json_parse(line, length, &limits, &error);
    if (!json_object_is_type(message, json_type_object)) {
        end_broken(qmp, "something that is not QMP", line);
        return;
    }
    const char *event = json_member_string(message, "event");
    if (!qmp->greeted) {
        if (json_object_is_type(json_member(message, "QMP"), json_type_object))
            handle_greeting(qmp);
        else
            end_broken(qmp, "something else than QMP's greeting", line);
    } else if (event) {
        qmp->callbacks.event(qmp->user, event, json_member(message, "data"));
    } else {
        handle_reply(qmp, message, line);
    }
}

static void handle_ended(void *user, int error)
{
    struct qmp *qmp = user;
    CLEANUP(cleanup_free) char *why = steal_pointer(&qmp->why);
    bool broken = error == -EPROTO || error == -EMSGSIZE;
    if (!why && error == 0)
        why = string_copy("closed the connection");
    else if (!why && error == -EMSGSIZE)
        why = string_printf("sent a line of more than %zu bytes", WIRE_LINE_MAX);
    else if (!why && error == -ENOBUFS)
        why = string_copy("does not read what we send");
    else if (!why)
        why = string_printf("cannot be talked to: %s", strerror(-error));
    qmp->callbacks.ended(qmp->user, why, broken);
}

int qmp_new(struct qmp **qmp, sd_event *loop, int fd, const struct qmp_callbacks *callbacks, void *user)
{
    static const struct wire_callbacks on_wire = {.line = handle_line, .ended = handle_ended};
    CLEANUP(cleanup_qmp) struct qmp *new = memory_new(1, sizeof *new);
    new->callbacks = *callbacks;
    new->user = user;
    int r = wire_new(&new->wire, loop, fd, &on_wire, new);
    if (r < 0)
        return r;
    *qmp = steal_pointer(&new);
    return 0;
}

void qmp_free(struct qmp *qmp)
{
    if (!qmp)
        return;
    wire_free(qmp->wire);
    free(qmp->commands);
    free(qmp->why);
    free(qmp);
}

bool qmp_is_greeted(const struct qmp *qmp)
{
    return qmp->greeted;
}

static char *print_command(const char *command, struct json_object *arguments, uint64_t id)
{
    CLEANUP(cleanup_json) struct json_object *message = json_object_new_object();
    json_object_object_add(message, "execute", json_object_new_string(command));
    if (arguments)
        json_object_object_add(message, "arguments", arguments);
    json_object_object_add(message, "id", json_object_new_uint64(id));
    CLEANUP(cleanup_free) char *text = json_print(message);
    return string_printf("%s\r\n", text);
}

void qmp_send(struct qmp *qmp, const char *command, struct json_object *arguments, int fd, qmp_answer answer,
              unsigned tag)
{
    uint64_t id = ++qmp->last_id;
    CLEANUP(cleanup_free) char *line = print_command(command, arguments, id);
    qmp->commands = memory_resize(qmp->commands, qmp->command_count + 1, sizeof *qmp->commands);
    qmp->commands[qmp->command_count++] = (struct command){.id = id, .answer = answer, .tag = tag};
    wire_send(qmp->wire, line, strlen(line), fd);
}
