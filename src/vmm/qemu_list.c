// Reading back what host devices a QEMU has.
#include "vmm/qemu_list.h"

#include <stdio.h>
#include <string.h>

#include "util/json.h"
#include "util/text.h"

// What is asked of one attachment; a tag is its index times ASK_COUNT plus one of these.
enum { ASK_ATTACHED, ASK_BUS, ASK_ADDRESS, ASK_NODE, ASK_PCI, ASK_PCI_PATH, ASK_COUNT };
static const char *const properties[ASK_COUNT] = {"attached", "hostbus", "hostaddr", "hostdevice", "host", "sysfsdev"};

const struct attachment *qemu_list_find(const struct qemu *qemu, const char *object)
{
    for (size_t i = 0; i < qemu->attachment_count; i++)
        if (strcmp(qemu->attachments[i].object, object) == 0)
            return &qemu->attachments[i];
    return NULL;
}

bool qemu_list_knew(const struct qemu *qemu, const char *object)
{
    for (size_t i = 0; i < qemu->known_count; i++)
        if (strcmp(qemu->known[i].object, object) == 0)
            return true;
    return false;
}

static void set_error(struct qemu *qemu, char *error)
{
    free(qemu->list_error);
    qemu->list_error = error;
}

// Where objects without an id are named by their path, as device_del takes them.
static void name_object(char object[OBJECT_NAME_MAX], const struct qom_child *child, bool anonymous)
{
    if (anonymous)
        (void)snprintf(object, OBJECT_NAME_MAX, QOM_ANONYMOUS "/%.64s", child->name);
    else
        (void)snprintf(object, OBJECT_NAME_MAX, "%s", child->name);
}

// The address in a node's path: "/dev/bus/usb/001/004".
static void read_node(struct attachment *attachment, const char *node)
{
    static const char start[] = "/dev/bus/usb/";
    char bus[8] = "";
    unsigned long bus_number, address;
    if (strncmp(node, start, sizeof start - 1) != 0)
        return;
    node += sizeof start - 1;
    const char *slash = strchr(node, '/');
    if (!slash || (size_t)(slash - node) >= sizeof bus)
        return;
    memcpy(bus, node, (size_t)(slash - node));
    if (string_to_number(bus, 10, 999, &bus_number) && string_to_number(slash + 1, 10, 999, &address)) {
        attachment->bus = (unsigned)bus_number;
        attachment->address = (unsigned)address;
    }
}

// The PCI address, or the path in sysfs that ends in one.
static void read_pci(struct attachment *attachment, const char *text)
{
    const char *name = strrchr(text, '/');
    CLEANUP(cleanup_free) char *address = device_parse_pci_address(name ? name + 1 : text);
    if (address && strlen(address) < sizeof attachment->pci)
        memcpy(attachment->pci, address, strlen(address) + 1);
}

static void handle_property(struct qemu *qemu, unsigned tag, const struct qmp_reply *reply)
{
    struct attachment *attachment = &qemu->attachments[tag / ASK_COUNT];
    if (!reply->value) {
        // It went while we asked; what lacks a property is only known less well.
        if (strcmp(reply->error_class, "DeviceNotFound") == 0)
            attachment->object[0] = '\0';
        return;
    }
    bool number = json_object_is_type(reply->value, json_type_int);
    unsigned value = number ? (unsigned)json_object_get_int(reply->value) : 0;
    switch (tag % ASK_COUNT) {
    case ASK_ATTACHED:
        attachment->dead =
            json_object_is_type(reply->value, json_type_boolean) && !json_object_get_boolean(reply->value);
        break;
    case ASK_BUS:
        if (value)
            attachment->bus = value;
        break;
    case ASK_ADDRESS:
        if (value)
            attachment->address = value;
        break;
    case ASK_NODE:
        if (json_object_is_type(reply->value, json_type_string))
            read_node(attachment, json_object_get_string(reply->value));
        break;
    default: // the address and the path say the same, where QEMU tells both
        if (json_object_is_type(reply->value, json_type_string))
            read_pci(attachment, json_object_get_string(reply->value));
        break;
    }
}

static void ask(struct qemu *qemu, size_t index, unsigned property)
{
    const char *object = qemu->attachments[index].object;
    CLEANUP(cleanup_free)
    char *path = object[0] == '/' ? string_copy(object) : string_printf(QOM_PERIPHERAL "/%s", object);
    qemu_send(qemu, "qom-get", qemu_path(path, properties[property]), -1, handle_property,
              (unsigned)index * ASK_COUNT + property);
}

// Takes over what was known of the same object; false if nothing was.
static bool recall(const struct qemu *qemu, struct attachment *attachment)
{
    for (size_t i = 0; i < qemu->known_count; i++) {
        if (strcmp(qemu->known[i].object, attachment->object) != 0)
            continue;
        attachment->dead = qemu->known[i].dead;
        attachment->bus = qemu->known[i].bus;
        attachment->address = qemu->known[i].address;
        memcpy(attachment->pci, qemu->known[i].pci, sizeof attachment->pci);
        return true;
    }
    return false;
}

static void ask_usb(struct qemu *qemu, size_t index)
{
    if (qemu->attachments[index].ours)
        ask(qemu, index, ASK_ATTACHED);
    else
        for (unsigned property = ASK_BUS; property <= ASK_NODE; property++)
            ask(qemu, index, property);
}

static void add(struct qemu *qemu, const struct qom_child *child, bool anonymous)
{
    uint64_t instance = 0;
    bool ours = !anonymous && object_parse(child->name, &instance);
    if (!ours && !qom_is_host_device(child->type))
        return;
    struct attachment *attachment = &qemu->attachments[qemu->attachment_count];
    *attachment = (struct attachment){.ours = ours, .instance = instance};
    name_object(attachment->object, child, anonymous);
    attachment->leaving = qemu_asked(qemu, attachment->object);
    bool known = recall(qemu, attachment);
    size_t index = qemu->attachment_count++;
    if (known && !qemu->list_fresh)
        return;
    if (strcmp(child->type, "usb-host") == 0)
        ask_usb(qemu, index);
    else if (!ours && strncmp(child->type, "vfio-pci", 8) == 0)
        for (unsigned property = ASK_PCI; property <= ASK_PCI_PATH; property++)
            ask(qemu, index, property);
}

static void end_list(struct qemu *qemu)
{
    size_t kept = 0;
    for (size_t i = 0; i < qemu->attachment_count; i++)
        if (qemu->attachments[i].object[0])
            qemu->attachments[kept++] = qemu->attachments[i];
    qemu->attachment_count = kept;
    free(steal_pointer(&qemu->known));
    qemu->known = memory_new(kept + 1, sizeof *qemu->known);
    if (kept > 0)
        memcpy(qemu->known, qemu->attachments, kept * sizeof *qemu->known);
    qemu->known_count = kept;
    qemu->listed(qemu);
}

static void list_details(struct qemu *qemu)
{
    size_t count = qemu->peripheral.count + qemu->anonymous.count;
    if (qemu->list_error) {
        qemu->listed(qemu);
        return;
    }
    free(steal_pointer(&qemu->attachments));
    qemu->attachments = memory_new(count + 1, sizeof *qemu->attachments);
    for (size_t i = 0; i < qemu->peripheral.count; i++)
        add(qemu, &qemu->peripheral.children[i], false);
    for (size_t i = 0; i < qemu->anonymous.count; i++)
        add(qemu, &qemu->anonymous.children[i], true);
    qemu_then(qemu, end_list);
}

static void handle_children(struct qemu *qemu, unsigned anonymous, const struct qmp_reply *reply)
{
    struct qom_children *children = anonymous ? &qemu->anonymous : &qemu->peripheral;
    if (!reply->value) {
        // A QEMU without anonymous devices has them all listed; one without the other has no machine.
        if (!anonymous)
            set_error(qemu, qemu_words(reply->error));
        return;
    }
    if (!qom_children_read(children, reply->value))
        set_error(qemu, string_copy("its list of devices is none"));
}

void qemu_list(struct qemu *qemu, bool fresh, qemu_step next)
{
    qemu->listed = next;
    qemu->list_fresh = fresh;
    qemu->attachment_count = 0;
    set_error(qemu, NULL);
    qom_children_clear(&qemu->peripheral);
    qom_children_clear(&qemu->anonymous);
    qemu_send(qemu, "qom-list", qemu_path(QOM_PERIPHERAL, NULL), -1, handle_children, false);
    qemu_send(qemu, "qom-list", qemu_path(QOM_ANONYMOUS, NULL), -1, handle_children, true);
    qemu_then(qemu, list_details);
}
