// Reading the ports of a crosvm, and freeing those that leaked: an attach before the guest's driver is
// up fails and leaves the device on its port, where it ends the guest's USB when the driver comes.
#include "vmm/crosvm_list.h"

static void check_undone(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    crosvm_ports_take(&crosvm->ports, reply->ports);
    if (crosvm_ports_leaked(&crosvm->ports))
        crosvm_finish_broken(crosvm);
    else
        crosvm->then(crosvm);
}

static void handle_undone(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    (void)reply; // "no such device" although it was freed, while the guest cannot be told
    crosvm_ask_list(crosvm, check_undone);
}

static void handle_list(struct crosvm *crosvm, const struct crosvm_reply *reply)
{
    crosvm_ports_take(&crosvm->ports, reply->ports);
    unsigned port = crosvm_ports_leaked(&crosvm->ports);
    if (port)
        crosvm_ask_detach(crosvm, port, handle_undone);
    else
        crosvm->then(crosvm);
}

void crosvm_list(struct crosvm *crosvm, crosvm_then then)
{
    crosvm->then = then;
    crosvm_ask_list(crosvm, handle_list);
}
