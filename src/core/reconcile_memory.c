// What the reconciler wants to outlive a kill, and what an earlier run left to it.
#include <stdlib.h>
#include <string.h>

#include "core/reconcile_private.h"
#include "util/text.h"

// Called for each entry of the memory.
typedef void visit(void *user, const struct memory_device *entry);

// The object that VM lists for that instance, or NULL.
static const struct holding *holding_of(const struct vm_record *vm, uint64_t instance)
{
    for (size_t i = 0; i < vm->holding_count; i++)
        if (vm->holdings[i].attachment.ours && vm->holdings[i].attachment.instance == instance)
            return &vm->holdings[i];
    return NULL;
}

// The name of an object, where the VM's own list does not tell which device it is.
static char *name_of(const struct vm_record *vm, const struct holding *holding)
{
    return holding && vm->type == VM_CROSVM ? (char *)holding->attachment.object : NULL;
}

static void visit_holder(visit *call, void *user, const struct device_record *record, const struct vm_record *vm)
{
    const struct holding *holding = holding_of(vm, record->device->instance);
    call(user, &(struct memory_device){.key = record->device->key,
                                       .instance = record->device->instance,
                                       .managed = record->managed,
                                       .vm = vm->name,
                                       .vm_instance = vm->instance,
                                       .object = name_of(vm, holding),
                                       .vendor_id = record->device->vendor_id,
                                       .product_id = record->device->product_id});
}

// An attach of it may begin before the memory is written again.
static bool may_be_attached(const struct vm_record *vm, const struct device_record *record)
{
    // crosvm's list does not tell devices apart: of several that may be there, nobody could tell which
    // one is. So only the next one counts.
    if (vm->type == VM_CROSVM)
        return vm->plan.set && vm->plan.kind == OPERATION_ATTACH && vm->plan.device == record;
    return record->wanted == vm && !record->ejected;
}

static bool vm_may_hold(const struct vm_record *vm, const struct device_record *record)
{
    uint64_t instance = record->device->instance;
    if (!vm->up)
        return false;
    if (vm->flight.busy && !vm->flight.orphan && vm->flight.device && vm->flight.device->instance == instance)
        return true;
    if (vm->doubt && vm->doubt->instance == instance)
        return true;
    if (holding_of(vm, instance))
        return true;
    return may_be_attached(vm, record);
}

static void visit_device(const struct reconcile *reconcile, const struct device_record *record, visit *call, void *user)
{
    bool holder = false;
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        if (!vm_may_hold(reconcile->vms[i], record))
            continue;
        holder = true;
        visit_holder(call, user, record, reconcile->vms[i]);
    }
    if (!holder && record->managed)
        call(user, &(struct memory_device){
                       .key = record->device->key, .instance = record->device->instance, .managed = true});
}

// Objects of devices that have gone: their place is kept, so that the next device there waits.
static void visit_stale(const struct reconcile *reconcile, const struct vm_record *vm, visit *call, void *user)
{
    for (size_t i = 0; i < vm->holding_count; i++) {
        const struct holding *holding = &vm->holdings[i];
        if (!holding->key || device_record_find(reconcile, holding->attachment.instance))
            continue;
        call(user, &(struct memory_device){.key = holding->key,
                                           .instance = holding->attachment.instance,
                                           .vm = vm->name,
                                           .vm_instance = vm->instance,
                                           .object = name_of(vm, holding),
                                           .vendor_id = holding->attachment.vendor_id,
                                           .product_id = holding->attachment.product_id});
    }
}

// A device that was sent to VM and has been unplugged before VM said whether it took it. Where the VM's
// list tells what an object was made for, it need not be known.
static void visit_sent(const struct reconcile *reconcile, const struct vm_record *vm, const struct device *device,
                       visit *call, void *user)
{
    if (vm->type != VM_CROSVM || !device || device_record_find(reconcile, device->instance) ||
        holding_of(vm, device->instance))
        return;
    call(user, &(struct memory_device){.key = device->key,
                                       .instance = device->instance,
                                       .vm = vm->name,
                                       .vm_instance = vm->instance,
                                       .vendor_id = device->vendor_id,
                                       .product_id = device->product_id});
}

static void visit_all(const struct reconcile *reconcile, visit *call, void *user)
{
    for (size_t i = 0; i < reconcile->remembered.count; i++)
        call(user, &reconcile->remembered.devices[i]);
    for (size_t i = 0; i < reconcile->device_count; i++)
        visit_device(reconcile, reconcile->devices[i], call, user);
    for (size_t i = 0; i < reconcile->vm_count; i++) {
        const struct vm_record *vm = reconcile->vms[i];
        visit_stale(reconcile, vm, call, user);
        visit_sent(reconcile, vm, vm->flight.orphan ? NULL : vm->flight.device, call, user);
        visit_sent(reconcile, vm, vm->doubt, call, user);
    }
}

static uint64_t mix(uint64_t digest, const void *bytes, size_t length)
{
    for (const unsigned char *byte = bytes; length; byte++, length--)
        digest = (digest ^ *byte) * 0x100000001b3u;
    return digest;
}

static void add_digest(void *user, const struct memory_device *entry)
{
    uint64_t digest = mix(0xcbf29ce484222325u, entry->key, strlen(entry->key));
    digest = mix(digest, &entry->instance, sizeof(entry->instance));
    digest = mix(digest, &entry->vm_instance, sizeof(entry->vm_instance));
    digest = mix(digest, &entry->managed, sizeof(entry->managed));
    if (entry->vm)
        digest = mix(digest, entry->vm, strlen(entry->vm));
    if (entry->object)
        digest = mix(digest, entry->object, strlen(entry->object));
    digest = (digest ^ (digest >> 30)) * 0xbf58476d1ce4e5b9u; // else small changes would cancel out
    digest = (digest ^ (digest >> 27)) * 0x94d049bb133111ebu;
    *(uint64_t *)user += digest ^ (digest >> 31); // a sum: the order is of no importance
}

uint64_t reconcile_memory_digest(const struct reconcile *reconcile)
{
    uint64_t digest = 0;
    visit_all(reconcile, add_digest, &digest);
    return digest;
}

static void add_entry(void *user, const struct memory_device *entry)
{
    memory_add(user, entry);
}

void reconcile_memory(const struct reconcile *reconcile, struct memory *memory)
{
    *memory = (struct memory){0};
    visit_all(reconcile, add_entry, memory);
}

void reconcile_remember(struct reconcile *reconcile, const struct memory *memory)
{
    memory_clear(&reconcile->remembered);
    memory_copy(&reconcile->remembered, memory);
    reconcile->memory_saved = reconcile_memory_digest(reconcile);
    reconcile->dirty = true;
}

// Keeps the entries for which KEEP says so.
static void filter(struct reconcile *reconcile,
                   bool (*keep)(const struct reconcile *, const struct memory_device *, const void *), const void *user)
{
    struct memory *memory = &reconcile->remembered;
    size_t kept = 0;
    for (size_t i = 0; i < memory->count; i++) {
        struct memory_device *entry = &memory->devices[i];
        if (keep(reconcile, entry, user)) {
            memory->devices[kept++] = *entry;
        } else {
            memory_device_clear(entry);
        }
    }
    memory->count = kept;
    if (!kept)
        memory_clear(memory);
}

struct process {
    const char *vm;
    uint64_t instance;
};

// An entry stands while its process may still be the one that runs. When it falls, what is known of
// a device that is there lives on in its record.
static bool keep_of_process(const struct reconcile *reconcile, const struct memory_device *entry, const void *user)
{
    const struct process *process = user;
    if (!string_equal(entry->vm, process->vm))
        return true;
    if (process->instance && (!entry->vm_instance || entry->vm_instance == process->instance))
        return true;
    return !reconcile->scanned && entry->managed && !device_record_find(reconcile, entry->instance);
}

void reconcile_memory_settle(struct reconcile *reconcile, const struct vm_record *vm, uint64_t keep)
{
    filter(reconcile, keep_of_process, &(struct process){vm->name, keep});
    if (reconcile->scanned)
        return;
    // A managed device that the scan has yet to find: only its VM is settled.
    for (size_t i = 0; i < reconcile->remembered.count; i++) {
        struct memory_device *entry = &reconcile->remembered.devices[i];
        if (!string_equal(entry->vm, vm->name) || (keep && (!entry->vm_instance || entry->vm_instance == keep)))
            continue;
        free(steal_pointer(&entry->vm));
        free(steal_pointer(&entry->object));
    }
}

static bool keep_after_scan(const struct reconcile *reconcile, const struct memory_device *entry, const void *user)
{
    (void)user;
    if (!entry->vm)
        return false;
    if (entry->object) // nothing else tells that it is ours, should the VM be named again
        return true;
    return device_record_find(reconcile, entry->instance) || vm_record_find(reconcile, entry->vm);
}

void reconcile_memory_scanned(struct reconcile *reconcile)
{
    filter(reconcile, keep_after_scan, NULL);
}

static bool same_plug(const struct memory_device *entry, const struct device *device)
{
    return entry->instance == device->instance && strcmp(entry->key, device->key) == 0;
}

const char *reconcile_memory_holder(const struct reconcile *reconcile, const struct device *device,
                                    const struct vm_record *except)
{
    for (size_t i = 0; i < reconcile->remembered.count; i++) {
        const struct memory_device *entry = &reconcile->remembered.devices[i];
        if (entry->vm && same_plug(entry, device) && !(except && strcmp(entry->vm, except->name) == 0))
            return entry->vm;
    }
    return NULL;
}

bool reconcile_memory_names(const struct reconcile *reconcile, const struct device *device, const char *vm)
{
    for (size_t i = 0; i < reconcile->remembered.count; i++)
        if (string_equal(reconcile->remembered.devices[i].vm, vm) &&
            same_plug(&reconcile->remembered.devices[i], device))
            return true;
    return false;
}

bool reconcile_memory_names_any(const struct reconcile *reconcile, const struct device *device, reconcile_those *those,
                                const void *user)
{
    for (size_t i = 0; i < reconcile->remembered.count; i++) {
        const struct memory_device *entry = &reconcile->remembered.devices[i];
        if (entry->vm && same_plug(entry, device) && those(user, entry->vm))
            return true;
    }
    return false;
}

bool reconcile_memory_managed(const struct reconcile *reconcile, const struct device *device)
{
    for (size_t i = 0; i < reconcile->remembered.count; i++)
        if (reconcile->remembered.devices[i].managed && same_plug(&reconcile->remembered.devices[i], device))
            return true;
    return false;
}

void reconcile_memory_adopt(struct reconcile *reconcile, uint64_t instance)
{
    for (size_t i = 0; i < reconcile->remembered.count && !reconcile->scanned; i++)
        if (reconcile->remembered.devices[i].instance == instance)
            reconcile->remembered.devices[i].managed = true;
}

const char *reconcile_memory_key(const struct reconcile *reconcile, uint64_t instance)
{
    for (size_t i = 0; i < reconcile->remembered.count; i++)
        if (reconcile->remembered.devices[i].instance == instance)
            return reconcile->remembered.devices[i].key;
    return NULL;
}
