// The operations on a crosvm. An attach waits until the guest may be up, compares the lists before and
// after, and believes the second.
#include "vmm/crosvm_operations.h"

#include "util/text.h"
#include "vmm/crosvm_list.h"

// The guest's driver comes up some time after crosvm answers; an attach before it can end its USB.
#define SETTLE (3 * CROSVM_SECOND)

static void finish_done(struct crosvm *crosvm)
{
    crosvm_finish(crosvm, RESULT_DONE, NULL, true);
}

// ---- attach

static void finish_no_port(struct crosvm *crosvm)
{
    bool super_speed = crosvm->operation.device->speed == SPEED_SUPER;
    if (crosvm_ports_are_full(&crosvm->ports, super_speed))
        crosvm_finish(crosvm, RESULT_REFUSED,
                      string_printf("all %d USB %d ports of %s are in use", CROSVM_PORTS_OF_A_KIND, super_speed ? 3 : 2,
                                    crosvm->setup.vm),
                      true);
    else
        crosvm_finish(crosvm, RESULT_RETRY, string_printf("the guest of %s is not ready for USB yet", crosvm->setup.vm),
                      true);
}

static void finish_attached(struct crosvm *crosvm)
{
    if (crosvm_ports_find(&crosvm->ports, crosvm->operation.device->instance))
        crosvm_finish(crosvm, RESULT_DONE, NULL, true);
    else
        crosvm_finish(crosvm, RESULT_RETRY, string_printf("%s took the device and lost it again", crosvm->setup.vm),
                      true);
}

static void handle_attached(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    const struct device *device = crosvm->operation.device;
    switch (reply->kind) {
    case CROSVM_PORT:
        crosvm_ports_own(&crosvm->ports, reply->port, device->instance, device->vendor_id, device->product_id);
        crosvm_list(crosvm, finish_attached);
        break;
    case CROSVM_NO_PORT:
        crosvm_ports_leak(&crosvm->ports, device->instance);
        crosvm_list(crosvm, finish_no_port);
        break;
    case CROSVM_NO_DEVICE:
        crosvm_ports_drop(&crosvm->ports, device->instance);
        crosvm_finish(crosvm, RESULT_GONE, string_copy("crosvm cannot read the device"), false);
        break;
    case CROSVM_FAILED:
    case CROSVM_DEVICES: // no answer to an attach: they end before they come here
    case CROSVM_ERROR:
    case CROSVM_OTHER:
        crosvm_ports_drop(&crosvm->ports, device->instance);
        crosvm_finish(
            crosvm, RESULT_REFUSED,
            string_printf("crosvm cannot open the device (%s); if that stays so, " CROSVM_RESTART_ADVICE, reply->text),
            false);
        break;
    }
}

static void attach_to_listed(struct crosvm *crosvm)
{
    const struct device *device = crosvm->operation.device;
    if (crosvm_ports_find(&crosvm->ports, device->instance)) {
        finish_done(crosvm);
    } else if (crosvm_ports_is_doubtful(&crosvm->ports, device->instance)) {
        crosvm_finish(crosvm, RESULT_REFUSED,
                      string_printf("%s has %04x:%04x already, and vhotplug cannot tell whether it is this device: "
                                    "take it out with crosvm usb detach",
                                    crosvm->setup.vm, device->vendor_id, device->product_id),
                      true);
    } else {
        crosvm_ports_doubt(&crosvm->ports, device->instance, device->vendor_id, device->product_id, false);
        crosvm_ask_attach(crosvm, handle_attached);
    }
}

static void attach_settled(struct crosvm *crosvm)
{
    crosvm_list(crosvm, attach_to_listed);
}

static void attach_when_settled(struct crosvm *crosvm)
{
    uint64_t settled = crosvm->first_answer + SETTLE;
    if (crosvm_now(crosvm) < settled)
        crosvm_wait(crosvm, settled, attach_settled);
    else
        attach_settled(crosvm);
}

// ---- detach

static void finish_detached(struct crosvm *crosvm)
{
    unsigned port = 0;
    if (crosvm_ports_parse(crosvm->operation.object, &port) && crosvm->ports.owners[port])
        crosvm_finish(crosvm, RESULT_RETRY, string_printf("%s keeps port %u in use", crosvm->setup.vm, port), true);
    else
        finish_done(crosvm);
}

static void handle_detached(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    if (reply->kind == CROSVM_PORT)
        crosvm->ports.owners[crosvm->port] = 0; // what is listed there now is somebody else's
    crosvm_list(crosvm, finish_detached);
}

static void detach_listed(struct crosvm *crosvm)
{
    unsigned port = 0;
    if (!crosvm_ports_parse(crosvm->operation.object, &port) || !crosvm->ports.owners[port])
        finish_done(crosvm); // ours has gone, whoever is there now
    else
        crosvm_ask_detach(crosvm, port, handle_detached);
}

void crosvm_begin(struct crosvm *crosvm)
{
    switch (crosvm->operation.kind) {
    case OPERATION_LIST:
        crosvm_list(crosvm, finish_done);
        break;
    case OPERATION_ATTACH:
        // Never before the first answer: it would be done at whatever time crosvm reads it.
        if (!crosvm->answered)
            crosvm_list(crosvm, attach_when_settled);
        else
            attach_when_settled(crosvm);
        break;
    case OPERATION_DETACH:
        crosvm_list(crosvm, detach_listed);
        break;
    }
}
