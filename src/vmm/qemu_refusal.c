// What a person can do about a device_add that QEMU refused: the ends of such an attach.
#include "vmm/qemu_refusal.h"

#include <stdlib.h>
#include <string.h>

#include "util/text.h"
#include "vmm/peer.h"

void qemu_finish_explained(struct qemu *qemu, enum result_kind kind, char *text)
{
    qemu_finish(qemu, kind, text, !qemu->list_error);
}

void qemu_finish_refused(struct qemu *qemu)
{
    const char *vm = qemu->setup.vm;
    if (strstr(qemu->add_error, "no slot/function available"))
        qemu_finish_explained(qemu, RESULT_REFUSED, string_printf("all slots of the PCI bus of %s are in use", vm));
    else
        qemu_finish_explained(qemu, RESULT_RETRY, string_printf("%s: QEMU did not take it: %s", vm, qemu->add_error));
}

bool qemu_words_denied(const char *words)
{
    return strstr(words, "Permission denied") != NULL;
}

void qemu_finish_denied(struct qemu *qemu, const char *node)
{
    const char *vm = qemu->setup.vm;
    CLEANUP(cleanup_free) char *user = peer_user(&qemu->peer);
    char *text = NULL;
    if (!user)
        text = string_printf("QEMU of %s may not open %s: give its user read and write access", vm, node);
    else if (strcmp(user, "root") == 0)
        text = string_printf("QEMU of %s runs as root and yet may not open %s: what confines it (a device cgroup, "
                             "AppArmor, SELinux) has to allow that",
                             vm, node);
    else
        text = string_printf("QEMU of %s runs as user %s and may not open %s: give that user read and write access", vm,
                             user, node);
    qemu_finish_explained(qemu, RESULT_RETRY, text);
}

// ---- taken by another program

static void finish_taken(struct qemu *qemu, const char *names)
{
    const char *node = qemu->taken_node, *how = qemu->taken_how;
    char *text = names ? string_printf("%s is %s by another program, which has to let go of it: %s %s it open", node,
                                       how, names, strchr(names, ',') ? "have" : "has")
                       : string_printf("%s is %s by another program, which has to let go of it (as root, fuser -v %s "
                                       "tells its name)",
                                       node, how, node);
    qemu_finish_explained(qemu, RESULT_RETRY, text);
}

static void end_search(void *user, const char *names)
{
    struct qemu *qemu = user;
    struct qemu_taken *place = &qemu->taken[qemu->taken_next];
    qemu->taken_next = (qemu->taken_next + 1) % QEMU_TAKEN_MAX;
    free(place->names);
    *place = (struct qemu_taken){qemu->operation.device->instance, string_copy(names)};
    finish_taken(qemu, place->names);
}

// Searched for once for each plug: who else looks at the device meanwhile would make the same trouble look
// like another.
void qemu_finish_taken(struct qemu *qemu, const char *node, const char *how)
{
    free(qemu->taken_node);
    qemu->taken_node = string_copy(node);
    qemu->taken_how = how;
    for (size_t i = 0; i < QEMU_TAKEN_MAX; i++) {
        if (qemu->taken[i].instance == qemu->operation.device->instance) {
            finish_taken(qemu, qemu->taken[i].names);
            return;
        }
    }
    qemu->grabber = grabber_search(qemu->setup.loop, qemu->taken_node, end_search, qemu);
    if (!qemu->grabber)
        finish_taken(qemu, NULL);
}
