// Arguments for the start of a VM, as the Python vhotplug prints them for each type of VM.
#include "core/vmm_args.h"

#include <string.h>

#include "core/operation.h"
#include "core/rule.h"
#include "util/text.h"

#define NVIDIA 0x10de
#define CLASS_DISPLAY 3
#define TABLE_ARGUMENTS 2

static void add(struct vmm_args *args, char *argument)
{
    args->arguments = memory_resize(args->arguments, args->count + 1, sizeof(*args->arguments));
    args->arguments[args->count++] = argument;
}

// An option and its value, now owned.
static void add_pair(struct vmm_args *args, const char *option, char *value)
{
    add(args, string_copy(option));
    add(args, value);
}

// "PREFIX" and PATH as QEMU reads it as one value: commas are doubled.
static char *qemu_value(const char *prefix, const char *path)
{
    struct text text = {0};
    text_add(&text, prefix);
    for (; *path; path++)
        text_printf(&text, *path == ',' ? ",%c" : "%c", *path);
    return text_take(&text);
}

// ---- which devices, in which order

static bool group_names(const struct group *group, const char *vm)
{
    for (size_t i = 0; i < group->vm_count && !group->disabled; i++)
        if (strcmp(group->vms[i], vm) == 0)
            return true;
    return false;
}

// The VM that an allowed device is for; NULL: a person is to say.
static const char *target_of(const struct vmm_args_device *item)
{
    const struct group *group = item->verdict->group;
    if (item->vm || item->selecting)
        return item->vm;
    return item->chosen && group_names(group, item->chosen) ? item->chosen : group->vms[0];
}

static bool is_for(const struct vmm_args_device *item, enum device_kind kind, const char *vm)
{
    const struct verdict *verdict = item->verdict;
    if (item->device->kind != kind || item->detached || verdict->kind != VERDICT_ALLOWED)
        return false;
    return string_equal(target_of(item), vm);
}

static const char *place_of(const struct device *device)
{
    const char *place = device->kind == DEVICE_PCI ? device_pci_address(device) : device->node;
    return place ? place : "";
}

// "event9" comes before "event10": the shorter first.
static int compare_places(const char *a, const char *b)
{
    size_t a_length = strlen(a), b_length = strlen(b);
    return a_length != b_length ? (a_length < b_length ? -1 : 1) : strcmp(a, b);
}

static int compare_numbers(size_t a, size_t b)
{
    return a < b ? -1 : a > b;
}

// The order of the rules, then that of the addresses. All groups of one kind are in one list.
static int compare(const void *left, const void *right)
{
    const struct vmm_args_device *const *a = left, *const *b = right;
    const struct verdict *first = (*a)->verdict, *second = (*b)->verdict;
    if (first->group != second->group)
        return first->group < second->group ? -1 : 1;
    int order = compare_numbers(first->rule ? first->rule->index : 0, second->rule ? second->rule->index : 0);
    return order ? order : compare_places(place_of((*a)->device), place_of((*b)->device));
}

static void leave_out(struct vmm_args *args, const struct vmm_args_device *item)
{
    args->left_out = memory_resize(args->left_out, args->left_out_count + 1, sizeof(*args->left_out));
    args->left_out[args->left_out_count++] = item;
}

// The devices of that kind for the VM, but for those that are taken; free with free().
static const struct vmm_args_device **select_devices(struct vmm_args *args, const struct vmm_args_request *request,
                                                     enum device_kind kind, size_t *count)
{
    const struct vmm_args_device **list = memory_new(request->device_count, sizeof(const struct vmm_args_device *));
    *count = 0;
    for (size_t i = 0; i < request->device_count; i++) {
        const struct vmm_args_device *item = &request->devices[i];
        if (!is_for(item, kind, request->vm) || !*place_of(item->device))
            continue;
        if (item->taken)
            leave_out(args, item);
        else
            list[(*count)++] = item;
    }
    if (*count > 1)
        qsort(list, *count, sizeof(const struct vmm_args_device *), compare);
    return list;
}

// ---- PCI functions

// QEMU's name for a device is ours, so that it is one of our objects from the start.
static char *qemu_function(const struct vmm_args_request *request, const struct vmm_args_device *item, unsigned number)
{
    char name[OBJECT_NAME_MAX];
    object_name(name, item->device, number);
    CLEANUP(cleanup_free)
    char *plain = string_printf("vfio-pci,host=%s,multifunction=on,id=%s", place_of(item->device), name);
    if (!request->bus_prefix || item->verdict->group->qemu_root_bus)
        return steal_pointer(&plain);
    CLEANUP(cleanup_free) char *prefix = qemu_value(",bus=", request->bus_prefix); // as a client gives it
    return string_printf("%s%s%u", plain, prefix, number);
}

// On the root bus, a function stays for as long as its VM runs.
static char *crosvm_function(const struct vmm_args_device *item)
{
    return string_printf("/sys/bus/pci/devices/%s,iommu=viommu%s", place_of(item->device),
                         item->verdict->group->crosvm_root_bus ? "" : ",removable=true");
}

// Whether some rule may give PCI functions to the VM.
static bool has_functions(const struct vmm_args_request *request)
{
    const struct group_list *list = &request->config->pci;
    for (size_t i = 0; i < list->count; i++)
        if (list->groups[i].allow_count && group_names(&list->groups[i], request->vm))
            return true;
    return false;
}

static void add_function(struct vmm_args *args, const struct vmm_args_request *request, enum vm_type type,
                         const struct vmm_args_device *item, unsigned number)
{
    const char *address = place_of(item->device);
    switch (type) {
    case VM_CROSVM:
        add_pair(args, "--vfio", crosvm_function(item));
        break;
    case VM_CLOUD_HYPERVISOR:
        add_pair(args, "--device", string_printf("path=/sys/bus/pci/devices/%s", address));
        break;
    case VM_QEMU:
    default:
        add_pair(args, "-device", qemu_function(request, item, number));
        break;
    }
    args->functions[args->function_count++] = item->device;
}

static bool needs_firmware(const struct vmm_args_device *item)
{
    return item->verdict->group->auto_ovmf && item->device->vendor_id == NVIDIA && item->device->class == CLASS_DISPLAY;
}

// The firmware that QEMU needs for a display controller of that kind. Returns an error, or NULL.
static char *add_firmware(struct vmm_args *args, const struct config *config,
                          const struct vmm_args_device *const *items, size_t count)
{
    const struct vmm_args_device *needing = NULL;
    for (size_t i = 0; i < count && !needing; i++)
        needing = needs_firmware(items[i]) ? items[i] : NULL;
    if (!needing)
        return NULL;
    if (!config->ovmf_code || !config->ovmf_vars)
        return string_printf("%s.autoOvmf gives %s firmware, and general.%s is missing", needing->verdict->group->path,
                             place_of(needing->device), config->ovmf_code ? "ovmfVars" : "ovmfCode");
    add_pair(args, "-drive", qemu_value("if=pflash,format=raw,unit=0,readonly=on,file=", config->ovmf_code));
    add_pair(args, "-drive", qemu_value("if=pflash,format=raw,unit=1,readonly=on,file=", config->ovmf_vars));
    return NULL;
}

static char *add_functions(struct vmm_args *args, const struct vmm_args_request *request, enum vm_type type)
{
    size_t count;
    CLEANUP(cleanup_free) const struct vmm_args_device **items = select_devices(args, request, DEVICE_PCI, &count);
    char *error = type == VM_QEMU ? add_firmware(args, request->config, items, count) : NULL;
    if (error)
        return error;
    if (type == VM_CROSVM && has_functions(request))
        add(args, string_copy("--vfio-isolate-hotplug"));
    args->functions = memory_new(count, sizeof(const struct device *));
    for (size_t i = 0; i < count; i++)
        add_function(args, request, type, items[i], request->first + (unsigned)i);
    return NULL;
}

// ---- ACPI tables

static void add_table(struct vmm_args *args, enum vm_type type, const struct rule *rule)
{
    args->tables = memory_resize(args->tables, args->table_count + 1, sizeof(*args->tables));
    args->tables[args->table_count++] =
        (struct vmm_args_table){rule->acpi_table, rule->set_user, rule->set_group, args->count};
    if (type == VM_QEMU)
        add_pair(args, "-acpitable", qemu_value("file=", rule->acpi_table));
    else
        add_pair(args, "--acpi-table", string_copy(rule->acpi_table));
}

static bool is_denied(const struct group *group, const struct rule *rule)
{
    for (size_t i = 0; i < group->deny_count; i++)
        if (strcmp(group->deny[i]->acpi_table, rule->acpi_table) == 0)
            return true;
    return false;
}

// A table is no device: each VM that a group names gets it.
static void add_tables(struct vmm_args *args, const struct vmm_args_request *request, enum vm_type type)
{
    const struct group_list *list = &request->config->acpi;
    for (size_t i = 0; i < list->count && type != VM_CLOUD_HYPERVISOR; i++) {
        const struct group *group = &list->groups[i];
        if (!group_names(group, request->vm))
            continue;
        for (size_t j = 0; j < group->allow_count; j++)
            if (!is_denied(group, group->allow[j]))
                add_table(args, type, group->allow[j]);
    }
}

void vmm_args_drop_table(struct vmm_args *args, size_t index)
{
    size_t at = args->tables[index].argument;
    for (size_t i = 0; i < TABLE_ARGUMENTS; i++)
        free(args->arguments[at + i]);
    args->count -= TABLE_ARGUMENTS;
    memmove(&args->arguments[at], &args->arguments[at + TABLE_ARGUMENTS],
            (args->count - at) * sizeof(*args->arguments));
    args->table_count--;
    for (size_t i = index; i < args->table_count; i++) {
        args->tables[i] = args->tables[i + 1];
        args->tables[i].argument -= TABLE_ARGUMENTS;
    }
}

// ---- input devices

// The ports of a group with a pcieBusPrefix count from 1.
static unsigned port_of(const struct vmm_args_device *const *items, size_t index)
{
    unsigned port = 1;
    for (size_t i = 0; i < index; i++)
        port += string_equal(items[i]->verdict->group->bus_prefix, items[index]->verdict->group->bus_prefix);
    return port;
}

static void add_inputs(struct vmm_args *args, const struct vmm_args_request *request, enum vm_type type)
{
    size_t count;
    CLEANUP(cleanup_free) const struct vmm_args_device **items = select_devices(args, request, DEVICE_INPUT, &count);
    for (size_t i = 0; i < count && type != VM_CLOUD_HYPERVISOR; i++) {
        const char *node = items[i]->device->node, *prefix = items[i]->verdict->group->bus_prefix;
        if (type == VM_CROSVM) {
            add_pair(args, "--input", string_printf("evdev[path=%s]", node));
            continue;
        }
        char name[OBJECT_NAME_MAX];
        object_name(name, items[i]->device, request->first + i);
        CLEANUP(cleanup_free)
        char *bus = prefix ? string_printf(",bus=%s%u", prefix, port_of(items, i)) : string_copy("");
        add_pair(args, "-device", string_printf("virtio-input-host-pci,evdev=%s,id=%s%s", node, name, bus));
    }
}

char *vmm_args_make(const struct vmm_args_request *request, struct vmm_args *args)
{
    *args = (struct vmm_args){0};
    const struct vm_config *vm = config_vm(request->config, request->vm);
    if (!vm) {
        struct text text = {0};
        text_add(&text, "VM ");
        text_add_safe(&text, request->vm, VM_NAME_MAX);
        text_add(&text, " is not found in the config file");
        return text_take(&text);
    }
    char *error = add_functions(args, request, vm->type);
    if (error)
        return error;
    add_tables(args, request, vm->type);
    add_inputs(args, request, vm->type);
    return NULL;
}

void vmm_args_clear(struct vmm_args *args)
{
    for (size_t i = 0; i < args->count; i++)
        free(args->arguments[i]);
    free(args->arguments);
    free(args->functions);
    free(args->left_out);
    free(args->tables);
    *args = (struct vmm_args){0};
}
