// USB authorization, in the loop: what each device is to be, the record of that, and what people are told.
#include "host/authorize.h"

#include <string.h>

#include "core/policy.h"
#include "core/rule.h"
#include "host/again.h"
#include "host/authorize_buses.h"
#include "host/authorize_record.h"
#include "host/sysfs.h"
#include "util/text.h"

struct authorize {
    sd_event *loop;
    sd_event_source *again; // runs once each time it is asked for; NULL: not yet needed
    struct log *log;
    struct authorize_paths paths;
    char *file;
    void (*settle)(void *user, struct device *device, bool to_host);
    void *user;
    const struct config *config; // NULL: not known yet
    struct authorize_record record;
    bool save_failed; // said already
};

struct authorize_plan {
    struct authorize_act act;
    enum authorize_end end;
    char *title, *why;
    bool unmatched;  // why it is to be unauthorized
    uint64_t opened; // of its entry, when it was made
    uint64_t bus;    // instance of the bus that is held for it; 0: none
};

struct authorize *authorize_new(sd_event *loop, struct log *log, const struct authorize_paths *paths,
                                const char *record, void (*settle)(void *user, struct device *device, bool to_host),
                                void *user)
{
    struct authorize *authorize = memory_new(1, sizeof(*authorize));

    *authorize = (struct authorize){.loop = sd_event_ref(loop),
                                    .log = log,
                                    .paths = *paths,
                                    .file = string_copy(record),
                                    .settle = settle,
                                    .user = user};
    return authorize;
}

void authorize_free(struct authorize *authorize)
{
    if (authorize == NULL)
        return;
    sd_event_source_disable_unref(authorize->again);
    sd_event_unref(authorize->loop);
    authorize_record_clear(&authorize->record);
    free(authorize->file);
    free(authorize);
}

static bool is_on(const struct authorize *authorize)
{
    return authorize->config != NULL && authorize->config->authorization.enabled;
}

static void save(struct authorize *authorize)
{
    int error = authorize_record_save(authorize->file, &authorize->record);

    if (error < 0 && !authorize->save_failed)
        log_warning(authorize->log, "%s cannot be written: %s; a restart may not know what was done to USB devices",
                    authorize->file, strerror(-error));
    authorize->save_failed = error < 0;
}

// ---- the switches for new devices

static void log_switches(struct authorize *authorize, const struct text *changed, const char *now,
                         const struct text *wrong)
{
    if (changed->length > 0)
        log_info(authorize->log, "usbAuthorization: new USB devices %s (%s)", now, changed->string);
    if (wrong->length > 0)
        log_error(authorize->log,
                  "usbAuthorization: authorized_default cannot be set: %s; vhotplug needs to be root, "
                  "with /sys writable",
                  wrong->string);
}

// What is open is on record before it is closed.
static void close_buses(struct authorize *authorize)
{
    CLEANUP(text_clear) struct text changed = {0}, wrong = {0};

    if (!authorize_buses_note(&authorize->paths, &authorize->record))
        return;
    save(authorize);
    authorize_buses_close(&authorize->paths, &authorize->record, &changed, &wrong);
    log_switches(authorize, &changed, "stay unauthorized until something names them", &wrong);
}

static void open_buses(struct authorize *authorize)
{
    CLEANUP(text_clear) struct text changed = {0}, wrong = {0};

    if (authorize->record.bus_count == 0 && !authorize->record.closed)
        return;
    authorize_buses_open(&authorize->paths, &authorize->record, &changed, &wrong);
    save(authorize);
    log_switches(authorize, &changed, "are the host's again, as it is turned off", &wrong);
}

static void load(struct authorize *authorize)
{
    CLEANUP(cleanup_free) char *wrong = authorize_record_load(authorize->file, &authorize->record);

    if (wrong != NULL)
        log_warning(authorize->log, "%s", wrong);
    if (authorize_buses_repair(&authorize->paths, &authorize->record))
        save(authorize);
}

static bool is_for_a_vm(const struct authorize *authorize, const struct device *device)
{
    CLEANUP(verdict_clear) struct verdict verdict = {0};

    policy_decide(authorize->config, device, &verdict);
    return verdict.kind == VERDICT_ALLOWED;
}

// Whether it rests on the host, where the configuration may say another thing of it now. What that gives to a VM is not
// for the host's drivers to have a moment before.
static bool rests_on_host(const struct authorize *authorize, const struct authorize_entry *entry)
{
    return entry->on_host && is_on(authorize) && !is_for_a_vm(authorize, entry->device);
}

// What rests on the host, or was left unauthorized.
static void settle_again(struct authorize *authorize)
{
    for (struct authorize_entry *entry = authorize->record.entries; entry != NULL; entry = entry->next)
        if (entry->device != NULL && (rests_on_host(authorize, entry) || entry->mark == AUTHORIZE_REOPENED))
            authorize->settle(authorize->user, entry->device, true);
}

void authorize_configure(struct authorize *authorize, const struct config *config)
{
    if (authorize->config == NULL)
        load(authorize);
    authorize->config = config;
    if (is_on(authorize))
        close_buses(authorize);
    else
        open_buses(authorize);
    settle_again(authorize);
}

// ---- one device

static bool is_root_hub(const struct device *device)
{
    return strncmp(device->port_path, "usb", 3) == 0;
}

// The entry of this very device.
static struct authorize_entry *touch(struct authorize *authorize, struct device *device)
{
    struct authorize_entry **place = authorize_record_find(&authorize->record, device->syspath);
    struct authorize_entry *entry;

    if (*place != NULL && (*place)->instance != device->instance)
        authorize_record_remove(place);
    place = authorize_record_find(&authorize->record, device->syspath);
    entry = *place != NULL ? *place : authorize_record_add(&authorize->record, device->syspath, device->instance);
    if (entry->device != device) {
        device_release(entry->device);
        entry->device = device_reference(device);
    }
    return entry;
}

void authorize_forget(struct authorize *authorize, const char *syspath)
{
    struct authorize_entry **place = authorize_record_find(&authorize->record, syspath);

    if (*place != NULL)
        authorize_record_remove(place);
}

// FIRST and what policy says of it, for free().
static char *policy_reason(const struct authorize *authorize, const struct device *device, const char *first)
{
    CLEANUP(verdict_clear) struct verdict verdict = {0};

    policy_decide(authorize->config, device, &verdict);
    return string_printf("%s%s", first, verdict.reason);
}

// Takes WHY over.
static struct authorize_plan *plan_new(const struct authorize *authorize, const struct authorize_entry *entry,
                                       enum authorize_deed deed, char *why)
{
    struct authorize_plan *plan = memory_new(1, sizeof(*plan));

    *plan = (struct authorize_plan){
        .act = {.paths = authorize->paths,
                .deed = deed,
                .syspath = string_copy(entry->syspath),
                .instance = entry->instance,
                .bus = entry->device->bus},
        .end = AUTHORIZE_GONE, // unless it is run
        .title = device_title(entry->device),
        .why = why,
        .opened = entry->opened,
    };
    return plan;
}

void authorize_plan_free(struct authorize_plan *plan)
{
    if (plan == NULL)
        return;
    authorize_act_clear(&plan->act);
    free(plan->title);
    free(plan->why);
    free(plan);
}

// The instance of the bus of a device, if that is closed; else 0.
static uint64_t hold_bus(struct authorize *authorize, const struct device *device)
{
    CLEANUP(cleanup_free) char *name = string_printf("usb%u", device->bus);

    for (size_t i = 0; i < authorize->record.bus_count; i++)
        if (string_equal(authorize->record.buses[i].name, name)) {
            authorize->record.buses[i].held++;
            return authorize->record.buses[i].instance;
        }
    return 0;
}

struct authorize_plan *authorize_open(struct authorize *authorize, struct device *device)
{
    struct authorize_entry *entry;
    struct authorize_plan *plan;

    if (device->kind != DEVICE_USB || authorize->config == NULL)
        return NULL;
    entry = touch(authorize, device);
    entry->on_host = entry->busy = false;
    if (!is_on(authorize) && entry->mark != AUTHORIZE_REOPENED)
        return NULL;
    if (!is_on(authorize))
        return plan_new(authorize, entry, AUTHORIZE_FOR_HOST, string_copy("usbAuthorization is off"));
    entry->mark = AUTHORIZE_LENT;
    entry->opened++;
    plan = plan_new(authorize, entry, AUTHORIZE_FOR_VM, policy_reason(authorize, device, ""));
    plan->bus = hold_bus(authorize, device);
    save(authorize);
    return plan;
}

struct authorize_plan *authorize_withhold(struct authorize *authorize, struct device *device)
{
    struct authorize_entry *entry;

    if (device->kind != DEVICE_USB || !is_on(authorize))
        return NULL;
    entry = touch(authorize, device);
    if (entry->mark != AUTHORIZE_LENT)
        return NULL;
    return plan_new(authorize, entry, AUTHORIZE_WITHHELD, string_copy("it is to leave its VM"));
}

// Why the host may have a device that rests there, for free(), or NULL.
static char *host_reason(const struct authorize *authorize, const struct device *device)
{
    const struct rule *rule = NULL;

    if (device_is_only_hub(device))
        return string_copy("hubs always are");
    return policy_host_allows(authorize->config, device, &rule) ? string_printf("allowed by %s", rule->path) : NULL;
}

// Of a device that was authorized for a VM. HOST is taken over; NULL: the host may not have it.
static struct authorize_plan *take_back(const struct authorize *authorize, const struct authorize_entry *entry,
                                        bool to_host, char *host)
{
    struct authorize_plan *plan = host != NULL ? plan_new(authorize, entry, AUTHORIZE_FOR_HOST, host)
                                               : plan_new(authorize, entry, AUTHORIZE_NOBODY,
                                                          policy_reason(authorize, entry->device, "it is in no VM; "));

    plan->act.returned = to_host;
    return plan;
}

static struct authorize_plan *settle_off(const struct authorize *authorize, const struct authorize_entry *entry,
                                         bool to_host)
{
    bool returned = to_host && entry->mark == AUTHORIZE_LENT;
    struct authorize_plan *plan;

    if (!returned && entry->mark != AUTHORIZE_REOPENED)
        return NULL;
    plan = plan_new(authorize, entry, AUTHORIZE_FOR_HOST, string_copy("usbAuthorization is off"));
    plan->act.returned = returned;
    return plan;
}

static struct authorize_plan *sweep_out(const struct authorize *authorize, struct authorize_entry *entry)
{
    struct authorize_plan *plan =
        plan_new(authorize, entry, AUTHORIZE_NOBODY,
                 policy_reason(authorize, entry->device, "usbAuthorization.deauthorizeUnmatched; "));

    entry->unmatched = false;
    plan->unmatched = true;
    return plan;
}

struct authorize_plan *authorize_settle(struct authorize *authorize, struct device *device, bool to_host)
{
    struct authorize_entry *entry;
    char *host;

    if (device->kind != DEVICE_USB || authorize->config == NULL)
        return NULL;
    if (is_root_hub(device)) {
        if (is_on(authorize))
            close_buses(authorize);
        return NULL;
    }
    entry = touch(authorize, device);
    entry->on_host = to_host;
    if (!is_on(authorize))
        return settle_off(authorize, entry, to_host);
    if (entry->unmatched)
        return sweep_out(authorize, entry);
    if (device->host_use != NULL)
        return NULL;
    host = to_host ? host_reason(authorize, device) : NULL;
    if (entry->mark == AUTHORIZE_LENT)
        return take_back(authorize, entry, to_host, host);
    return host != NULL ? plan_new(authorize, entry, AUTHORIZE_FOR_HOST, host) : NULL;
}

// ---- a plan

void authorize_run(struct authorize_plan *plan)
{
    if (plan != NULL)
        plan->end = authorize_act(&plan->act);
}

bool authorize_failed(const struct authorize_plan *plan, enum host_open_kind *kind, char **text)
{
    if (plan == NULL || (plan->end != AUTHORIZE_GONE && plan->end != AUTHORIZE_FAILED))
        return false;
    *kind = plan->end == AUTHORIZE_GONE ? HOST_OPEN_GONE : HOST_OPEN_RETRY;
    *text = plan->end == AUTHORIZE_GONE ? string_copy("the device has gone") : string_copy(plan->act.error);
    return true;
}

static void log_end(struct authorize *authorize, const struct authorize_plan *plan)
{
    static const char *const words[] = {[AUTHORIZE_FOR_HOST] = "authorized for the host",
                                        [AUTHORIZE_FOR_VM] = "authorized for its VM",
                                        [AUTHORIZE_NOBODY] = "deauthorized",
                                        [AUTHORIZE_WITHHELD] = "kept from the host's drivers"};

    if (plan->end == AUTHORIZE_DONE && plan->act.deed == AUTHORIZE_WITHHELD)
        log_debug(authorize->log, "%s: %s: %s", plan->title, words[plan->act.deed], plan->why);
    else if (plan->end == AUTHORIZE_DONE)
        log_info(authorize->log, "%s: %s: %s", plan->title, words[plan->act.deed], plan->why);
    else if (plan->end == AUTHORIZE_IN_USE)
        log_debug(authorize->log, "%s: not %s, as it is in use: %s", plan->title, words[plan->act.deed], plan->why);
    else if (plan->end == AUTHORIZE_FAILED && plan->act.deed != AUTHORIZE_FOR_VM) // that is the answer to its opening
        log_warning(authorize->log, "%s: cannot be %s: %s", plan->title, words[plan->act.deed], plan->act.error);
}

static int handle_again(sd_event_source *source, uint64_t time, void *user)
{
    struct authorize *authorize = user;

    (void)source, (void)time;
    for (struct authorize_entry *entry = authorize->record.entries; entry != NULL; entry = entry->next)
        if (entry->busy && entry->device != NULL) {
            entry->busy = false;
            authorize->settle(authorize->user, entry->device, entry->on_host);
        }
    return 0;
}

// The host, and no program or VM, would not let go of it.
static void try_again(struct authorize *authorize, struct authorize_entry *entry, const struct authorize_plan *plan)
{
    int error;

    entry->busy = true;
    entry->unmatched = plan->unmatched;
    error = again_later(&authorize->again, authorize->loop, handle_again, authorize);
    if (error < 0)
        log_warning(authorize->log, "%s: stays authorized until its next plug: %s", plan->title, strerror(-error));
}

void authorize_done(struct authorize *authorize, const struct authorize_plan *plan)
{
    struct authorize_entry *entry;
    struct authorize_bus *bus;
    bool changed;

    log_end(authorize, plan);
    bus = plan->bus != 0 ? authorize_record_bus(&authorize->record, plan->bus) : NULL;
    changed = bus != NULL && bus->held > 0;
    if (changed)
        bus->held--;
    entry = *authorize_record_find(&authorize->record, plan->act.syspath);
    // What was done for an earlier opening says nothing of a later one.
    if (entry != NULL && (entry->instance != plan->act.instance || entry->opened != plan->opened))
        entry = NULL;
    if (entry != NULL && plan->end == AUTHORIZE_IN_USE && plan->act.of_host)
        try_again(authorize, entry, plan);
    if (entry != NULL && plan->act.deed != AUTHORIZE_FOR_VM && plan->act.deed != AUTHORIZE_WITHHELD &&
        (plan->end == AUTHORIZE_DONE || plan->end == AUTHORIZE_AS_WAS)) {
        changed |= entry->mark != AUTHORIZE_NO_MARK;
        entry->mark = AUTHORIZE_NO_MARK;
    }
    if (changed)
        save(authorize);
}

// ---- what nothing names

// One to type on for sure, as it says.
static bool is_usb_keyboard(const struct device *device)
{
    for (size_t i = 0; i < device->interface_count; i++) {
        const struct usb_interface *interface = &device->interfaces[i];
        if (interface->class == 3 && interface->subclass == 1 && interface->protocol == 1)
            return true;
    }
    return false;
}

// What may be one, or have one behind it: of all that is HID only a boot mouse is none for sure, and keyboards come
// over Bluetooth.
static bool may_be_keyboard(const struct device *device)
{
    for (size_t i = 0; device->kind == DEVICE_USB && i < device->interface_count; i++) {
        const struct usb_interface *interface = &device->interfaces[i];
        bool mouse = interface->subclass == 1 && interface->protocol == 2;
        bool bluetooth = interface->class == 0xe0 && interface->subclass == 1 && interface->protocol == 1;
        if ((interface->class == 3 && !mouse) || bluetooth)
            return true;
    }
    return false;
}

// A keyboard that programs make is none to type on.
static bool is_other_keyboard(const struct authorize *authorize, const struct device *device)
{
    CLEANUP(cleanup_free) char *made = string_printf("%s/devices/virtual", authorize->paths.sys);

    if (device->kind != DEVICE_INPUT || sysfs_is_below(device->syspath, made))
        return false;
    for (size_t i = 0; i < device->property_count; i++)
        if (string_equal(device->properties[i], "ID_INPUT_KEYBOARD=1"))
            return true;
    return false;
}

static bool is_authorized(const struct device *device)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(device->syspath);
    unsigned long authorized;

    return directory >= 0 && sysfs_number(directory, "authorized", 10, 1, &authorized) >= 0 && authorized == 1;
}

static bool is_unmatched(const struct authorize *authorize, const struct device *device)
{
    return device->kind == DEVICE_USB && !device_is_only_hub(device) && device->host_use == NULL &&
           is_authorized(device) && !policy_host_allows(authorize->config, device, NULL) &&
           !is_for_a_vm(authorize, device);
}

// Whether it stays the host's, and so does all that it hangs on.
static bool is_kept(const struct authorize *authorize, const struct device *device, struct device *const *devices,
                    size_t count)
{
    if (is_for_a_vm(authorize, device))
        return false;
    for (size_t i = 0; i < count; i++)
        if (sysfs_is_below(device->syspath, devices[i]->syspath) &&
            (is_unmatched(authorize, devices[i]) || is_for_a_vm(authorize, devices[i])))
            return false;
    return true;
}

// Whether the host has a keyboard that it keeps.
static bool keeps_keyboard(const struct authorize *authorize, struct device *const *devices, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct device *device = devices[i];
        bool usb = device->kind == DEVICE_USB && is_usb_keyboard(device);
        bool there = usb ? is_authorized(device) || policy_host_allows(authorize->config, device, NULL)
                         : is_other_keyboard(authorize, device);
        if (there && is_kept(authorize, device, devices, count))
            return true;
    }
    return false;
}

// Whether it, or what hangs on it, may be what somebody types on.
static bool leads_to_keyboard(const struct authorize *authorize, const struct device *device,
                              struct device *const *devices, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (sysfs_is_below(devices[i]->syspath, device->syspath) &&
            (may_be_keyboard(devices[i]) || is_other_keyboard(authorize, devices[i])))
            return true;
    return false;
}

static void spare_keyboard(struct authorize *authorize, const struct device *device)
{
    CLEANUP(cleanup_free) char *title = device_title(device);

    log_warning(authorize->log,
                "%s: not deauthorized, though nothing names it: the host would have no keyboard left; allow it with "
                "{\"vendorId\": \"%04x\", \"productId\": \"%04x\"} in usbAuthorization.hostAllow",
                title, device->vendor_id, device->product_id);
}

void authorize_sweep(struct authorize *authorize, struct device *const *devices, size_t count)
{
    bool spare;

    if (!is_on(authorize) || !authorize->config->authorization.deauthorize_unmatched || authorize->record.swept)
        return;
    authorize->record.swept = true;
    save(authorize);
    spare = !keeps_keyboard(authorize, devices, count);
    for (size_t i = 0; i < count; i++) {
        if (!is_unmatched(authorize, devices[i]))
            continue;
        if (spare && leads_to_keyboard(authorize, devices[i], devices, count)) {
            spare_keyboard(authorize, devices[i]);
            continue;
        }
        touch(authorize, devices[i])->unmatched = true;
        authorize->settle(authorize->user, devices[i], true);
    }
}
