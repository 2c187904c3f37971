// Fuzzes a QEMU: whatever it says over its socket, the conversation ends or goes on, and nothing else happens.
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "util/json.h"
#include "vmm/qmp.h"
#include "vmm/qom.h"

struct talk {
    struct qmp *qmp;
};

static void on_greeted(void *user)
{
    (void)user;
}

static void on_event(void *user, const char *name, struct json_object *data)
{
    (void)user, (void)data;
    if (!name)
        abort();
}

static void on_ended(void *user, const char *why, bool broken)
{
    (void)broken;
    struct talk *talk = user;
    if (!why)
        abort();
    qmp_free(talk->qmp);
    talk->qmp = NULL;
}

static void on_answer(void *user, unsigned tag, const struct qmp_reply *reply)
{
    (void)user, (void)tag;
    struct qom_children children = {0};
    if (reply->value && qom_children_read(&children, reply->value) && children.count > QOM_CHILDREN_MAX)
        abort();
    qom_children_clear(&children);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const struct qmp_callbacks callbacks = {.greeted = on_greeted, .event = on_event, .ended = on_ended};
    static const char greeting[] =
        "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n{\"return\": {}, \"id\": 1}\r\n";
    static sd_event *loop;
    struct talk talk = {0};
    int pair[2];
    if ((!loop && sd_event_new(&loop) < 0) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        abort();
    if (qmp_new(&talk.qmp, loop, pair[0], &callbacks, &talk) < 0)
        abort();
    bool greets = length && bytes[0] & 1;
    if (greets && write(pair[1], greeting, sizeof greeting - 1) < 0)
        abort();
    for (int i = 0; i < 8 && talk.qmp && !qmp_is_greeted(talk.qmp) && greets; i++)
        (void)sd_event_run(loop, 0);
    if (talk.qmp && qmp_is_greeted(talk.qmp))
        for (unsigned i = 0; i < 4; i++)
            qmp_send(talk.qmp, "qom-list", NULL, -1, on_answer, i);
    if (length > 1 && write(pair[1], bytes + 1, length - 1) < 0 && length < 4096)
        abort();
    (void)shutdown(pair[1], SHUT_WR);
    for (int i = 0; i < 64 && talk.qmp; i++)
        if (sd_event_run(loop, 0) == 0)
            break;
    qmp_free(talk.qmp);
    (void)close(pair[1]);
    return 0;
}
