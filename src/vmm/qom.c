// What QEMU's object tree tells of its devices: replies of qom-list, read with care.
#include "vmm/qom.h"

#include <string.h>

#include "util/json.h"
#include "util/text.h"

// Copies LENGTH bytes if they are a sane name: they go into later commands and texts.
static bool copy_name(char to[QOM_NAME_MAX], const char *from, size_t length)
{
    if (length == 0 || length >= QOM_NAME_MAX)
        return false;
    for (size_t i = 0; i < length; i++)
        if (from[i] <= ' ' || from[i] >= 0x7f || from[i] == '/')
            return false;
    memcpy(to, from, length);
    to[length] = '\0';
    return true;
}

static bool read_child(struct qom_child *child, struct json_object *entry)
{
    static const char start[] = "child<";
    const char *name = json_member_string(entry, "name");
    const char *type = json_member_string(entry, "type");
    if (!name || !type || strncmp(type, start, sizeof start - 1) != 0)
        return false;
    type += sizeof start - 1;
    size_t length = strlen(type);
    if (length == 0 || type[length - 1] != '>')
        return false;
    return copy_name(child->name, name, strlen(name)) && copy_name(child->type, type, length - 1);
}

bool qom_children_read(struct qom_children *children, struct json_object *reply)
{
    qom_children_clear(children);
    if (!json_object_is_type(reply, json_type_array))
        return false;
    size_t entries = json_object_array_length(reply);
    if (entries > QOM_CHILDREN_MAX)
        return false;
    if (entries == 0)
        return true;
    children->children = memory_new(entries, sizeof *children->children);
    for (size_t i = 0; i < entries; i++)
        if (read_child(&children->children[children->count], json_object_array_get_idx(reply, i)))
            children->count++;
    return true;
}

void qom_children_clear(struct qom_children *children)
{
    free(children->children);
    *children = (struct qom_children){0};
}

bool qom_is_host_device(const char *type)
{
    return strcmp(type, "usb-host") == 0 || strncmp(type, "vfio-", 5) == 0 ||
           strncmp(type, "virtio-input-host", 17) == 0;
}
