// The configuration file, checked and made ready for decisions. Nothing here changes after parsing.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/device.h"
#include "util/cleanup.h"

struct rule; // core/rule.h

enum vm_type { VM_QEMU, VM_CROSVM, VM_CLOUD_HYPERVISOR };

// "qemu", …
const char *config_vm_type(enum vm_type type) CHECKED;

struct vm_config {
    char *name;
    enum vm_type type;
    char *socket;
};

// One group of usbPassthrough, evdevPassthrough, pciPassthrough or acpiPassthrough.
struct group {
    char *path; // "usbPassthrough[0]", as errors and verdicts name it
    char *description;
    char **vms; // targetVm, or those of allowedVms that exist; at least one
    size_t vm_count;
    bool chooses; // given as allowedVms
    bool disabled;
    bool skip_on_suspend;
    char *tag;
    struct rule **allow;
    size_t allow_count;
    struct rule **deny;
    size_t deny_count;
    char *bus_prefix; // evdev: pcieBusPrefix; else NULL
    bool all_inputs;  // evdev, single-object form: every mouse, keyboard, touchpad, touchscreen, tablet
    bool iommu_add_all, iommu_skip_if_shared, auto_ovmf, qemu_root_bus, crosvm_root_bus; // PCI
};

struct group_list {
    struct group *groups;
    size_t count;
};

// Who may connect over vsock, and what for.
enum api_permission { API_LIST = 1, API_NOTIFY = 2, API_CONTROL = 4 };
struct api_cid {
    unsigned cid;
    unsigned permissions; // of enum api_permission
    char **vms;           // the VMs that it may see and name; none: all
    size_t vm_count;
};

// general.api
struct api_config {
    bool enabled; // unless disabled
    bool unix_socket, tcp, vsock;
    char *path;        // of the Unix socket
    unsigned mode;     // its permission bits
    char *user;        // its owner, a name or a number; NULL: as it is
    char *group;       // likewise
    char *host;        // TCP: the numeric address to listen on; loopback unless allow_remote
    bool allow_remote; // TCP: HOST may be another than loopback
    unsigned port;     // TCP and vsock
    struct api_cid *cids;
    size_t cid_count;
    uint64_t select_timeout; // µs to wait for a person's choice; UINT64_MAX: for ever
};

// usbAuthorization
struct authorization_config {
    bool enabled;
    bool deauthorize_unmatched; // at the start: what no rule and no host_allow names loses the host's drivers
    struct rule **host_allow;   // devices that the host may use
    size_t host_allow_count;
};

struct config {
    char *file;
    struct group_list usb, input, pci, acpi;
    struct authorization_config authorization;
    bool grant_access;           // a VM's user is given access to what QEMU opens by name
    char *ovmf_code, *ovmf_vars; // files for vmm_args; NULL: not given
    struct vm_config *vms;
    size_t vm_count;
    struct api_config api;
    bool persistent;  // choices of people outlive the daemon
    char *state_path; // where they are kept
};

// What parsing has to say, one line each, in the file's order, each beginning with the file's name.
struct config_messages {
    char **lines;
    size_t count;
};
struct config_report {
    struct config_messages errors;   // any: the file is refused
    struct config_messages warnings; // unknown keys outside rules and groups, what a VM cannot take, …
    struct config_messages notes;    // for debug: keys accepted and unused, rules that Python read otherwise
};

// Parses TEXT of LENGTH bytes. Returns the configuration, or NULL when REPORT has errors; REPORT is
// filled in both cases and cleared by config_report_clear.
struct config *config_parse(const char *file, const char *text, size_t length, struct config_report *report) CHECKED;
void config_free(struct config *config);
void config_report_clear(struct config_report *report);
DEFINE_CLEANUP(struct config *, cleanup_config, config_free)

// The names of a group's VMs: "vm1", or "vm1 or vm2" where people choose; safe for logs. Free with free().
char *config_group_vms(const struct group *group) CHECKED;

// The VM of that name, or NULL.
const struct vm_config *config_vm(const struct config *config, const char *name);

// "3 USB allow rules (vm1: 2, vm2: 1), 2 VMs": rules per kind and VM, for the log. Free with free().
char *config_summary(const struct config *config) CHECKED;
