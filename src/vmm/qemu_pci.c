// Putting a PCI function of the host into a QEMU, with all that can be in its way. The host wing has bound
// its IOMMU group to vfio-pci before.
#include "vmm/qemu_pci.h"

#include <stdio.h>
#include <string.h>

#include "util/text.h"
#include "vmm/peer.h"
#include "vmm/qemu_iommufd.h"
#include "vmm/qemu_port.h"
#include "vmm/qemu_refusal.h"

#define CONTAINER "/dev/vfio/vfio" // which all groups share
#define MEBIBYTE ((uint64_t)1 << 20)

// All of a VM's memory is locked for a device that writes into it by itself.
static char *explain_memory(const struct qemu *qemu)
{
    const char *vm = qemu->setup.vm;
    uint64_t limit = peer_locked_memory(&qemu->peer);
    if (limit == UINT64_MAX || (qemu->peer.pid > 0 && peer_acts_as(&qemu->peer) == 0)) // no limit holds for root
        return string_printf("the host has too little memory to lock all of that of %s, which a PCI function needs",
                             vm);
    CLEANUP(cleanup_free)
    char *may = limit == 0 ? string_copy("not lock enough memory")
                : limit < MEBIBYTE
                    ? string_printf("lock only %llu KiB of memory", (unsigned long long)limit / 1024)
                    : string_printf("lock only %llu MiB of memory", (unsigned long long)(limit / MEBIBYTE));
    CLEANUP(cleanup_free)
    char *now = qemu->peer.pid > 0 ? string_printf(" (as it runs: prlimit --pid %d --memlock=unlimited:unlimited)",
                                                   (int)qemu->peer.pid)
                                   : string_copy("");
    return string_printf("QEMU of %s may %s, and for a PCI function all memory of the VM is locked: set "
                         "LimitMEMLOCK=infinity in the unit that starts it%s",
                         vm, may, now);
}

// The rest of its IOMMU group, for people: "0000:03:02.0, 0000:03:03.0"; NULL: none is known.
static char *list_peers(const struct device *device)
{
    struct text text = {0};
    for (size_t i = 0; i < device->peer_count; i++) {
        const char *address = device_pci_address(device->peers[i]);
        if (device_is_bus_bridge(device->peers[i]) || !address)
            continue;
        text_add(&text, text.length ? ", " : "");
        text_add(&text, address);
    }
    return text.length ? text_take(&text) : NULL;
}

static char *explain_group(const struct device *device)
{
    CLEANUP(cleanup_free) char *peers = list_peers(device);
    return string_printf("a driver of the host holds another function of IOMMU group %d%s%s%s: all of them have to be "
                         "bound to vfio-pci",
                         device->iommu_group, peers ? " (" : "", peers ? peers : "", peers ? ")" : "");
}

// QEMU's words for what a person can mend; NULL: they stand for themselves.
static char *explain(const struct qemu *qemu, const char *node)
{
    const struct device *device = qemu->operation.device;
    const char *words = qemu->add_error;
    if (strstr(words, "Cannot allocate memory"))
        return explain_memory(qemu);
    if (strstr(words, "is not viable"))
        return explain_group(device);
    if (strstr(words, "set iommu for container") && strstr(words, "Operation not permitted"))
        return string_printf(
            "the kernel passes no PCI functions, as this host does not remap interrupts: turn interrupt "
            "remapping on in its firmware, or, if %s may be trusted with the whole host, load "
            "vfio_iommu_type1 with allow_unsafe_interrupts=1",
            qemu->setup.vm);
    if (strstr(words, "/dev/vfio/") && strstr(words, "No such file or directory"))
        return string_printf("%s is not bound to vfio-pci: there is no %s", device_pci_address(device), node);
    if (strstr(words, "device is already attached"))
        return string_printf("%s has %s already, and not from vhotplug", qemu->setup.vm, device_pci_address(device));
    return NULL;
}

static bool holds(const struct qemu *qemu, const struct device *function)
{
    for (size_t i = 0; i < qemu->attachment_count; i++) {
        const struct attachment *attachment = &qemu->attachments[i];
        if (attachment->ours ? attachment->instance == function->instance
                             : string_equal(attachment->pci, device_pci_address(function)))
            return true;
    }
    return false;
}

// The address of another function of the group that the VM has, or NULL.
static const char *held_peer(const struct qemu *qemu)
{
    const struct device *device = qemu->operation.device;
    for (size_t i = 0; i < device->peer_count; i++)
        if (holds(qemu, device->peers[i]))
            return device_pci_address(device->peers[i]);
    return NULL;
}

// A group's node that is open already: QEMU opens it once for all functions, so that a VM which has one of them and is
// refused the node has that one by descriptor.
static void finish_busy(struct qemu *qemu, const char *node)
{
    const char *vm = qemu->setup.vm, *peer = held_peer(qemu);
    if (!peer) {
        qemu_finish_taken(qemu, node, "in use");
        return;
    }
    char *text = string_printf("%s has %s of the same IOMMU group by descriptor, beside which the kernel does not open "
                               "%s: detach %s and attach it again, then all of the group goes by that node",
                               vm, peer, node, peer);
    qemu_finish_explained(qemu, RESULT_RETRY, text);
}

static void refused(struct qemu *qemu)
{
    const struct device *device = qemu->operation.device;
    const char *words = qemu->add_error;
    char node[32];
    if (strstr(words, CONTAINER))
        (void)snprintf(node, sizeof node, CONTAINER);
    else
        (void)snprintf(node, sizeof node, "/dev/vfio/%d", device->iommu_group);
    if (qemu_iommufd_refused(qemu))
        return;
    if (strstr(words, "no such host device")) {
        char *text = string_printf("%s has gone from the host", device_pci_address(device));
        qemu_finish_explained(qemu, RESULT_GONE, text);
    } else if (qemu_words_denied(words)) {
        qemu_finish_denied(qemu, node);
    } else if (strstr(words, "Device or resource busy")) {
        finish_busy(qemu, node);
    } else {
        char *text = explain(qemu, node);
        if (text)
            qemu_finish_explained(qemu, RESULT_RETRY, text);
        else
            qemu_finish_refused(qemu);
    }
}

static void attach_by_group(struct qemu *qemu)
{
    static const struct qemu_port_plug plug = {
        .driver = "vfio-pci", .property = "host", .value = device_pci_address, .refused = refused};
    qemu_port_attach(qemu, &plug);
}

// The address says only what it is then: QEMU opens nothing.
static void attach_by_descriptor(struct qemu *qemu)
{
    static const struct qemu_port_plug plug = {.driver = "vfio-pci",
                                               .property = "host",
                                               .value = device_pci_address,
                                               .before = qemu_iommufd_before,
                                               .after = qemu_iommufd_after,
                                               .refused = refused};
    qemu_port_attach(qemu, &plug);
}

void qemu_pci_attach(struct qemu *qemu)
{
    if (!device_pci_address(qemu->operation.device))
        qemu_finish(qemu, RESULT_REFUSED, string_printf("%s: no PCI address is known", qemu->setup.vm), false);
    else if (qemu->fd >= 0)
        qemu_iommufd_prepare(qemu, attach_by_descriptor);
    else
        attach_by_group(qemu);
}
