// Getting into step again with a crosvm whose USB replies are behind. When its xHCI takes more than 2 s
// for a request, crosvm answers with an error, and the late answer comes to the next request, for ever.
#include "vmm/crosvm_recovery.h"

#include "util/text.h"
#include "vmm/crosvm_list.h"

#define TICKS 5 // of a second: until the slow request has ended
#define DRAIN_LISTS 4
#define LAG_MAX 4
#define SLOW_FAILURES_MAX 3

// Whatever was asked, the list tells what came of it.
static void judge(struct crosvm *crosvm)
{
    bool done = true;
    unsigned port = 0;
    if (crosvm->operation.kind == OPERATION_ATTACH)
        done = crosvm_ports_find(&crosvm->ports, crosvm->operation.device->instance) != 0;
    else if (crosvm->operation.kind == OPERATION_DETACH && crosvm_ports_parse(crosvm->operation.object, &port))
        done = !crosvm->ports.owners[port];
    char *text = done ? NULL : string_printf("%s did not answer in time, and it has not been done", crosvm->setup.vm);
    crosvm_finish(crosvm, done ? RESULT_DONE : RESULT_RETRY, text, true);
}

static void measure(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    if (reply->kind == CROSVM_DEVICES && crosvm->drained == LAG_MAX) {
        crosvm_finish_broken(crosvm);
    } else if (reply->kind == CROSVM_DEVICES) {
        crosvm->drained++;
        crosvm_probe(crosvm, false, measure);
    } else {
        // The answer to the marker came after so many lists: so far are the replies behind.
        crosvm->lag = crosvm->drained;
        crosvm->suspect = false;
        crosvm->slow_failures = 0;
        crosvm_list(crosvm, crosvm->resume ? crosvm->resume : judge);
    }
}

// Lists until only lists are under way; then a request whose answer is none, to see how late it comes.
static void drain(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    if (reply->kind == CROSVM_NO_PORT && crosvm->operation.kind == OPERATION_ATTACH)
        crosvm_ports_leak(&crosvm->ports, crosvm->operation.device->instance);
    if (++crosvm->drained < DRAIN_LISTS) {
        crosvm_probe(crosvm, false, drain);
        return;
    }
    crosvm->drained = 0;
    crosvm_probe(crosvm, true, measure);
}

static void begin(struct crosvm *crosvm)
{
    if (crosvm->ticks > 0) {
        crosvm->ticks--;
        crosvm_wait(crosvm, crosvm_now(crosvm) + CROSVM_SECOND, begin);
        return;
    }
    crosvm->drained = 0;
    crosvm_probe(crosvm, false, drain);
}

void crosvm_recover(struct crosvm *crosvm, bool slow, crosvm_then resume)
{
    crosvm->suspect = true;
    crosvm->resume = resume;
    if (slow && ++crosvm->slow_failures == SLOW_FAILURES_MAX) {
        crosvm_finish_broken(crosvm);
    } else if (!slow && crosvm->recovered) {
        crosvm_finish(crosvm, crosvm_failure(crosvm),
                      string_printf("%s gives answers that belong to other questions", crosvm->setup.vm), false);
    } else {
        log_debug(crosvm->setup.log, "%s: crosvm's USB replies are late; asking again", crosvm->setup.vm);
        crosvm->recovered = true;
        crosvm->ticks = slow ? TICKS : 0;
        begin(crosvm);
    }
}
