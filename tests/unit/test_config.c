// The configuration file: every file of tests/config with exactly the lines it expects, and hostile text.
// With files as arguments it prints the lines that it would expect of them.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/config.h"
#include "core/rule.h"
#include "unit.h"
#include "util/text.h"

#define FILE_MAX 65536

static char *read_whole(const char *path, size_t *length)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    char *text = memory_new(FILE_MAX + 1, 1);
    *length = fread(text, 1, FILE_MAX, file);
    fclose(file);
    return text;
}

static void add_lines(struct text *text, const char *prefix, const struct config_messages *messages)
{
    for (size_t i = 0; i < messages->count; i++)
        text_printf(text, "%s%s\n", prefix, messages->lines[i]);
}

// All that parsing says of the file at PATH under its short name NAME.
static char *outcome(const char *path, const char *name)
{
    size_t length = 0;
    CLEANUP(cleanup_free) char *text = read_whole(path, &length);
    assert_non_null(text);
    struct config_report report;
    CLEANUP(cleanup_config) struct config *config = config_parse(name, text, length, &report);
    struct text said = {0};
    assert_int_equal(config == NULL, report.errors.count > 0);
    add_lines(&said, "", &report.errors);
    if (config) {
        CLEANUP(cleanup_free) char *summary = config_summary(config);
        text_printf(&said, "%s\n", summary);
        add_lines(&said, "warning: ", &report.warnings);
        add_lines(&said, "note: ", &report.notes);
    }
    config_report_clear(&report);
    return text_take(&said);
}

static void check_file(const char *folder, const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s/%s.json", CONFIG_FILES, folder, name);
    CLEANUP(cleanup_free) char *expect_path = string_printf("%s/%s/%s.expect", CONFIG_FILES, folder, name);
    CLEANUP(cleanup_free) char *short_name = string_printf("%s.json", name);
    size_t length = 0;
    CLEANUP(cleanup_free) char *expected = read_whole(expect_path, &length);
    assert_non_null(expected);
    CLEANUP(cleanup_free) char *said = outcome(path, short_name);
    assert_string_equal(said, expected);
}

static void test_bad_file(void **state)
{
    check_file("bad", *state);
}

static void test_good_file(void **state)
{
    check_file("good", *state);
}

// Parses text that must be good.
static struct config *parse(const char *text)
{
    struct config_report report;
    struct config *config = config_parse("f", text, strlen(text), &report);
    if (!config)
        fail_msg("%s", report.errors.lines[0]);
    config_report_clear(&report);
    return config;
}

static void accept_text(const char *text)
{
    config_free(parse(text));
}

// Parses text that must be bad and checks the first error.
static void refuse(const char *text, size_t length, const char *error)
{
    struct config_report report;
    assert_null(config_parse("f", text, length, &report));
    assert_true(report.errors.count > 0);
    if (error)
        assert_string_equal(report.errors.lines[0], error);
    config_report_clear(&report);
}

static void test_parsed_values(void **state)
{
    (void)state;
    CLEANUP(cleanup_config)
    struct config *config = parse("{\"vms\":[{\"name\":\"a\",\"type\":\"qemu\",\"socket\":\"/s\"},"
                                  "{\"name\":\"c\",\"type\":\"cloud-hypervisor\"}],"
                                  "\"usbPassthrough\":[{\"allowedVms\":[\"c\",\"a\",\"c\",\"zz\"],"
                                  "\"tag\":\"t\",\"skipOnSuspend\":true,\"description\":\"d\","
                                  "\"allow\":[{\"bus\":1,\"port\":2,\"disable\":true},{\"bus\":3}],"
                                  "\"deny\":[{\"port\":4}]},{\"targetVm\":\"a\",\"enable\":false}],"
                                  "\"evdevPassthrough\":{\"targetVm\":\"a\",\"pcieBusPrefix\":\"ep\"},"
                                  "\"pciPassthrough\":[{\"targetVm\":\"a\",\"pciIommuAddAll\":true,"
                                  "\"pciIommuSkipIfShared\":true,\"autoOvmf\":true,"
                                  "\"qemuUseRootBus\":true,\"crosvmUseRootBus\":true,"
                                  "\"allow\":[{\"address\":\"00:1F.3\"}]}]}");
    assert_string_equal(config->file, "f");
    assert_int_equal(config->vm_count, 2);
    assert_int_equal(config->vms[1].type, VM_CLOUD_HYPERVISOR);
    assert_null(config->vms[1].socket);
    assert_string_equal(config_vm(config, "a")->socket, "/s");
    assert_null(config_vm(config, "zz"));
    const struct group *group = &config->usb.groups[0];
    assert_string_equal(group->path, "usbPassthrough[0]");
    assert_string_equal(group->tag, "t");
    assert_string_equal(group->description, "d");
    assert_true(group->skip_on_suspend && group->chooses && !group->disabled);
    assert_int_equal(group->vm_count, 2);
    assert_string_equal(group->vms[0], "c");
    assert_int_equal(group->allow_count, 1);
    assert_string_equal(group->allow[0]->path, "usbPassthrough[0].allow[1]");
    assert_int_equal(group->deny_count, 1);
    assert_true(config->usb.groups[1].disabled);
    assert_true(config->input.groups[0].all_inputs);
    assert_string_equal(config->input.groups[0].bus_prefix, "ep");
    const struct group *pci = &config->pci.groups[0];
    assert_true(pci->iommu_add_all && pci->iommu_skip_if_shared && pci->auto_ovmf && pci->qemu_root_bus);
    assert_true(pci->crosvm_root_bus);
    assert_string_equal(pci->allow[0]->address, "0000:00:1f.3");
}

static void test_general_defaults(void **state)
{
    static const char *const texts[] = {"{}", "{\"general\":{}}", "{\"general\":{\"api\":{}}}",
                                        "{\"general\":{\"api\":{\"port\":null,\"host\":null,\"transports\":null,"
                                        "\"allowedCids\":null,\"selectTimeout\":null,\"unixSocketMode\":null},"
                                        "\"persistency\":null,\"statePath\":null}}"};
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        CLEANUP(cleanup_config) struct config *config = parse(texts[i]);
        const struct api_config *api = &config->api;
        assert_true(api->enabled && api->unix_socket && !api->tcp && !api->vsock && !api->allow_remote);
        assert_string_equal(api->path, "/var/lib/vhotplug/vhotplug.sock");
        assert_int_equal(api->mode, 0600);
        assert_null(api->user);
        assert_null(api->group);
        assert_string_equal(api->host, "127.0.0.1");
        assert_int_equal(api->port, 2000);
        assert_int_equal(api->cid_count, 0);
        assert_int_equal(api->select_timeout, 15000000);
        assert_true(config->persistent && config->grant_access);
        assert_string_equal(config->state_path, "/var/lib/vhotplug/vhotplug.state");
        assert_null(config->ovmf_code);
        assert_null(config->ovmf_vars);
        assert_false(config->authorization.enabled);
    }
}

// The general settings of a file of tests/config/good.
static struct config *parse_good(const char *name)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/good/%s.json", CONFIG_FILES, name);
    size_t length = 0;
    CLEANUP(cleanup_free) char *text = read_whole(path, &length);
    assert_non_null(text);
    return parse(text);
}

static void test_general_values(void **state)
{
    (void)state;
    CLEANUP(cleanup_config) struct config *config = parse_good("general_api_all");
    const struct api_config *api = &config->api;
    assert_true(api->enabled && api->unix_socket && api->tcp && api->vsock && api->allow_remote);
    assert_string_equal(api->host, "::1");
    assert_int_equal(api->port, 65535);
    assert_string_equal(api->path, "/run/v/v.sock");
    assert_string_equal(api->user, "0");
    assert_string_equal(api->group, "kvm");
    assert_int_equal(api->mode, 0660);
    assert_true(api->select_timeout == UINT64_MAX);
    assert_false(config->persistent);
    assert_string_equal(config->state_path, "/run/v/state");
}

static void test_general_values_for_pci(void **state)
{
    (void)state;
    CLEANUP(cleanup_config) struct config *config = parse_good("general_pci");
    assert_false(config->grant_access);
    assert_string_equal(config->ovmf_code, "/o/CODE.fd");
    assert_string_equal(config->ovmf_vars, "/o/VARS.fd");
}

static void test_authorization(void **state)
{
    static const struct {
        const char *section;
        bool enabled, sweeps;
    } cases[] = {
        {"{\"enable\":true}", true, false},
        {"{\"enable\":false,\"deauthorizeUnmatched\":true}", false, true},
        {"{\"disable\":false,\"deauthorizeUnmatched\":true}", true, true},
        {"{\"disable\":true}", false, false},
        {"{\"enable\":true,\"disable\":false}", true, false},
        {"{\"deauthorizeUnmatched\":true}", false, true}, // not asked for: it may take a keyboard from people
        {"{}", false, false},
        {"null", false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        CLEANUP(cleanup_free) char *text = string_printf("{\"usbAuthorization\":%s}", cases[i].section);
        CLEANUP(cleanup_config) struct config *config = parse(text);
        assert_int_equal(config->authorization.enabled, cases[i].enabled);
        assert_int_equal(config->authorization.deauthorize_unmatched, cases[i].sweeps);
    }
    CLEANUP(cleanup_config) struct config *config = parse_good("authorization");
    const struct authorization_config *authorization = &config->authorization;
    assert_true(authorization->enabled && !authorization->deauthorize_unmatched);
    assert_int_equal(authorization->host_allow_count, 2); // those in force
    assert_string_equal(authorization->host_allow[0]->path, "usbAuthorization.hostAllow[0]");
    assert_string_equal(authorization->host_allow[1]->path, "usbAuthorization.hostAllow[2]");
}

static void test_acpi_groups(void **state)
{
    (void)state;
    CLEANUP(cleanup_config) struct config *config = parse_good("microvm_host");
    assert_int_equal(config->acpi.count, 1);
    const struct group *group = &config->acpi.groups[0];
    assert_string_equal(group->vms[0], "audio-vm");
    assert_string_equal(group->allow[0]->acpi_table, "/sys/firmware/acpi/tables/NHLT");
    assert_string_equal(group->allow[0]->set_user, "microvm");
    assert_string_equal(group->allow[0]->set_group, "kvm");
}

static void test_f47_permissions_of_a_guest(void **state)
{
    static const struct {
        unsigned cid, permissions;
        size_t vms;
    } expected[] = {{3, API_LIST | API_NOTIFY | API_CONTROL, 0},
                    {4, API_LIST | API_NOTIFY | API_CONTROL, 0},
                    {5, API_LIST | API_NOTIFY, 1},
                    {6, API_LIST | API_NOTIFY | API_CONTROL, 0}};
    (void)state;
    CLEANUP(cleanup_config) struct config *config = parse_good("general_api_all");
    const struct api_config *api = &config->api;
    assert_int_equal(api->cid_count, sizeof(expected) / sizeof(*expected));
    for (size_t i = 0; i < api->cid_count; i++) {
        assert_int_equal(api->cids[i].cid, expected[i].cid);
        assert_int_equal(api->cids[i].permissions, expected[i].permissions);
        assert_int_equal(api->cids[i].vm_count, expected[i].vms);
    }
    assert_string_equal(api->cids[2].vms[0], "vm1");
    CLEANUP(cleanup_config) struct config *fewer = parse_good("general_api_cid_vm_left_out");
    assert_int_equal(fewer->api.cids[0].vm_count, 1); // none would mean all
    assert_string_equal(fewer->api.cids[0].vms[0], "vm1");
}

static void test_general_forms(void **state)
{
    static const struct {
        const char *text;
        bool enabled;
        unsigned mode;
        uint64_t timeout;
        const char *host;
    } cases[] = {
        {"\"unixSocketMode\":\"0660\",\"selectTimeout\":0", true, 0660, 0, "127.0.0.1"},
        {"\"unixSocketMode\":\"660\",\"selectTimeout\":0.25", true, 0660, 250000, "127.0.0.1"},
        {"\"unixSocketMode\":\"0o640\",\"selectTimeout\":7", true, 0640, 7000000, "127.0.0.1"},
        {"\"unixSocketMode\":\"0\",\"selectTimeout\":31536000", true, 0, UINT64_C(31536000000000), "127.0.0.1"},
        {"\"unixSocketMode\":\"777\",\"selectTimeout\":\"ask\"", true, 0777, UINT64_MAX, "127.0.0.1"},
        {"\"unixSocketMode\":660,\"enable\":true", true, 0660, 15000000, "127.0.0.1"},
        {"\"unixSocketMode\":600,\"enable\":false", false, 0600, 15000000, "127.0.0.1"},
        {"\"unixSocketMode\":432,\"disable\":true", false, 0660, 15000000, "127.0.0.1"},
        {"\"unixSocketMode\":384,\"disable\":false", true, 0600, 15000000, "127.0.0.1"},
        {"\"unixSocketMode\":511,\"host\":\"localhost\"", true, 0777, 15000000, "127.0.0.1"},
        {"\"transports\":[\"tcp\"],\"host\":\"192.0.2.1\"", true, 0600, 15000000, "127.0.0.1"},
        {"\"transports\":[\"tcp\"],\"host\":\"192.0.2.1\",\"allowRemote\":true", true, 0600, 15000000, "192.0.2.1"},
        {"\"transports\":[\"tcp\"],\"host\":\"::\"", true, 0600, 15000000, "::1"},
        {"\"transports\":[\"tcp\"],\"host\":\"127.9.9.9\"", true, 0600, 15000000, "127.9.9.9"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        CLEANUP(cleanup_free) char *text = string_printf("{\"general\":{\"api\":{%s}}}", cases[i].text);
        CLEANUP(cleanup_config) struct config *config = parse(text);
        assert_int_equal(config->api.enabled, cases[i].enabled);
        assert_int_equal(config->api.mode, cases[i].mode);
        assert_true(config->api.select_timeout == cases[i].timeout);
        assert_string_equal(config->api.host, cases[i].host);
    }
}

static void test_names_of_vm_types(void **state)
{
    (void)state;
    assert_string_equal(config_vm_type(VM_QEMU), "qemu");
    assert_string_equal(config_vm_type(VM_CROSVM), "crosvm");
    assert_string_equal(config_vm_type(VM_CLOUD_HYPERVISOR), "cloud-hypervisor");
}

// A bad expression is found when the file is read, with its place and position.
static void test_f12_bad_regex_named_with_position(void **state)
{
    static const char text[] = "{\"usbPassthrough\":[{\"targetVm\":\"a\",\"allow\":[{\"productName\":\"ab(c\"}]}],"
                               "\"vms\":[{\"name\":\"a\",\"type\":\"qemu\",\"socket\":\"/s\"}]}";
    (void)state;
    refuse(text, strlen(text),
           "f: usbPassthrough[0].allow[0].productName: bad regular expression: missing closing parenthesis at "
           "position 5");
}

// null is absent, and where Python would have read a rule otherwise a note says so.
static void test_f15_null_is_absent_and_python_differences_noted(void **state)
{
    static const char text[] =
        "{\"usbPassthrough\":[{\"targetVm\":\"a\",\"allowedVms\":null,\"tag\":null,\"allow\":["
        "{\"vendorId\":\"046d\",\"productId\":null,\"productName\":\"x\",\"bus\":null,\"disable\":null}]}],"
        "\"general\":null,\"vms\":[{\"name\":\"a\",\"type\":\"qemu\",\"socket\":\"/s\"}]}";
    struct config_report report;
    (void)state;
    CLEANUP(cleanup_config) struct config *config = config_parse("f", text, strlen(text), &report);
    assert_non_null(config);
    assert_int_equal(report.warnings.count, 0);
    assert_int_equal(report.notes.count, 2);
    assert_string_equal(report.notes.lines[0],
                        "f: usbPassthrough[0].allow[0]: matches here, but had no effect in the Python vhotplug, which "
                        "wanted vendorId and productId together");
    assert_string_equal(report.notes.lines[1],
                        "f: usbPassthrough[0].allow[0]: all must match here (ids, product name); the Python vhotplug "
                        "took a device that matched any of them");
    config_report_clear(&report);
}

static void test_f16_summary_counts_rules_per_kind_and_vm(void **state)
{
#define VMS                                                                                                            \
    "\"vms\":[{\"name\":\"a\",\"type\":\"qemu\",\"socket\":\"/s\"},"                                                   \
    "{\"name\":\"b\",\"type\":\"qemu\",\"socket\":\"/t\"}]}"
    static const char *const cases[][2] = {
        {"{}", "no USB allow rules, 0 VMs"},
        {"{\"usbPassthrough\":[]," VMS, "no USB allow rules, 2 VMs"},
        {"{\"usbPassthrough\":[{\"targetVm\":\"b\",\"allow\":[{\"bus\":1}]}]," VMS, "1 USB allow rule (b: 1), 2 VMs"},
        {"{\"usbPassthrough\":[{\"targetVm\":\"b\",\"allow\":[{\"bus\":1},{\"bus\":2}]},"
         "{\"targetVm\":\"a\",\"allow\":[{\"bus\":1}],\"disable\":true},"
         "{\"allowedVms\":[\"a\",\"b\"],\"allow\":[{\"bus\":1}]},"
         "{\"targetVm\":\"b\",\"allow\":[{\"bus\":3},{\"bus\":4,\"disable\":true}]}]," VMS,
         "4 USB allow rules (b: 3, a or b: 1), 2 VMs"},
        {"{\"evdevPassthrough\":[{\"targetVm\":\"a\",\"allow\":[{\"name\":\"x\"}]}],"
         "\"pciPassthrough\":[{\"targetVm\":\"a\",\"allow\":[{\"deviceClass\":2},{\"deviceClass\":3}]}]," VMS,
         "no USB allow rules, 1 input allow rule (a: 1), 2 PCI allow rules (a: 2), 2 VMs"},
        {"{\"evdevPassthrough\":{\"targetVm\":\"a\"}," VMS, "no USB allow rules, all input devices (a), 2 VMs"},
        {"{\"evdevPassthrough\":{\"targetVm\":\"a\",\"disable\":true}," VMS, "no USB allow rules, 2 VMs"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        CLEANUP(cleanup_config) struct config *config = parse(cases[i][0]);
        CLEANUP(cleanup_free) char *summary = config_summary(config);
        assert_string_equal(summary, cases[i][1]);
    }
}

// A file cut off at any byte is an error, never a crash, and never half a configuration.
static void test_every_prefix_is_refused(void **state)
{
    size_t length = 0;
    (void)state;
    CLEANUP(cleanup_free) char *text = read_whole(CONFIG_FILES "/good/sample.json", &length);
    assert_non_null(text);
    while (length > 0 && text[length - 1] != '}')
        length--;
    for (size_t i = 0; i < length; i++)
        refuse(text, i, NULL);
}

static char *repeat(const char *head, const char *part, size_t count, const char *tail)
{
    struct text text = {0};
    text_add(&text, head);
    for (size_t i = 0; i < count; i++)
        text_add(&text, part);
    text_add(&text, tail);
    return text_take(&text);
}

static void test_size_limit(void **state)
{
    (void)state;
    CLEANUP(cleanup_free) char *most = repeat("{", " ", 1024 * 1024 - 2, "}");
    accept_text(most);
    CLEANUP(cleanup_free) char *more = repeat("{", " ", 1024 * 1024 - 1, "}");
    refuse(more, strlen(more), "f:1:1: the file is larger than 1 MiB");
}

static void test_depth_limit(void **state)
{
    (void)state;
    CLEANUP(cleanup_free) char *most_open = repeat("{\"_\":", "[", 31, "");
    CLEANUP(cleanup_free) char *most = repeat(most_open, "]", 31, "}");
    accept_text(most);
    CLEANUP(cleanup_free) char *more = repeat("{\"_\":", "[", 32, "");
    refuse(more, strlen(more), "f:1:37: nested too deep");
    CLEANUP(cleanup_free) char *endless = repeat("{\"_\":", "[", 500000, "");
    refuse(endless, strlen(endless), "f:1:37: nested too deep");
    CLEANUP(cleanup_free) char *objects = repeat("", "{\"_\":", 100000, "");
    refuse(objects, strlen(objects), "f:1:161: nested too deep");
}

static void test_key_count_limit(void **state)
{
    struct text text = {0};
    (void)state;
    text_add(&text, "{");
    for (int i = 0; i < 256; i++)
        text_printf(&text, "\"_%d\":0,", i);
    size_t length = text.length;
    text_add(&text, "}");
    accept_text(text.string);
    text.string[length] = 0;
    text.length = length;
    text_add(&text, "\"_\":0}");
    refuse(text.string, text.length, NULL);
    text_clear(&text);
}

static void test_cid_limit(void **state)
{
    struct text text = {0};
    (void)state;
    text_add(&text, "{\"general\":{\"api\":{\"allowedCids\":[");
    for (int i = 0; i < 1024; i++)
        text_printf(&text, "%d,", i);
    CLEANUP(cleanup_free) char *most = string_printf("%s]}}}", text.string);
    accept_text(most);
    text_add(&text, "1024]}}}");
    refuse(text.string, text.length, "f: general.api.allowedCids: has more than 1024 entries");
    text_clear(&text);
}

static void test_many_errors_are_all_told(void **state)
{
    struct config_report report;
    (void)state;
    CLEANUP(cleanup_free) char *text = repeat("{\"vms\":[", "0,", 5000, "]}");
    assert_null(config_parse("f", text, strlen(text), &report));
    assert_int_equal(report.errors.count, 5000);
    assert_string_equal(report.errors.lines[4999], "f: vms[4999]: must be an object in { }, not a number");
    config_report_clear(&report);
}

// As many groups and VMs as a file can hold.
static void test_crowded_file(void **state)
{
    struct text text = {0};
    (void)state;
    text_add(&text, "{\"vms\":[");
    for (int i = 0; i < 4000; i++)
        text_printf(&text, "{\"name\":\"%d\",\"type\":\"qemu\",\"socket\":\"/%d\"},", i, i);
    text_add(&text, "],\"usbPassthrough\":[");
    for (int i = 0; i < 4000; i++)
        text_printf(&text, "{\"targetVm\":\"%d\",\"allow\":[{\"bus\":1}]},", i);
    text_add(&text, "]}");
    CLEANUP(cleanup_config) struct config *config = parse(text.string);
    CLEANUP(cleanup_free) char *summary = config_summary(config);
    assert_memory_equal(summary, "4000 USB allow rules (0: 1, 1: 1, ", 34);
    text_clear(&text);
    config_free(NULL);
}

static void test_bytes_that_are_no_text(void **state)
{
    static const struct {
        const char *text;
        size_t length;
        const char *error;
    } cases[] = {
        {"{\"a\0\":1}", 8, "f:1:4: a NUL byte: this is no text file"},
        {"{}\0", 3, "f:1:3: a NUL byte: this is no text file"},
        {"{\"\xff\":1}", 7, "f:1:3: not valid UTF-8"},
        {"{\"\xc3\xa4\xc0\x80\":1}", 10, "f:1:4: not valid UTF-8"},
        {"{\"\xed\xa0\x80\":1}", 9, "f:1:3: not valid UTF-8"},
        {"{\"\xe0\x9f\xbf\":1}", 9, "f:1:3: not valid UTF-8"},
        {"{\"\xf4\x90\x80\x80\":1}", 10, "f:1:3: not valid UTF-8"},
        {"{\"\xf0\x8f\xbf\xbf\":1}", 10, "f:1:3: not valid UTF-8"},
        {"{\"\xf0\x9f\x98 \":1}", 10, "f:1:3: not valid UTF-8"},
        {"{\"\xf5\x80\x80\x80\":1}", 10, "f:1:3: not valid UTF-8"},
        {"{\"\xc3", 3, "f:1:3: not valid UTF-8"},
        {"\xfe\xff\0{\0}", 6, "f:1:1: not valid UTF-8"},
        {"", 0, "f:1:1: the file is empty: it must hold one object in { }"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        refuse(cases[i].text, cases[i].length, cases[i].error);
    accept_text("\xef\xbb\xbf{\"_\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"}");
}

static int name_order(const void *a, const void *b)
{
    return strcmp(((const struct CMUnitTest *)a)->name, ((const struct CMUnitTest *)b)->name);
}

// Adds a test for each .json file in the folder.
static void add_files(struct CMUnitTest **tests, size_t *count, const char *folder, CMUnitTestFunction function)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", CONFIG_FILES, folder);
    DIR *directory = opendir(path);
    if (!directory)
        return;
    for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
        char *end = strrchr(entry->d_name, '.');
        if (!end || strcmp(end, ".json") != 0)
            continue;
        char *name = strndup(entry->d_name, (size_t)(end - entry->d_name));
        *tests = memory_resize(*tests, *count + 1, sizeof(**tests));
        (*tests)[(*count)++] = (struct CMUnitTest){
            .name = string_printf("test_%s_%s", folder, name), .test_func = function, .initial_state = name};
    }
    closedir(directory);
}

static int print_outcomes(int count, char **paths)
{
    for (int i = 0; i < count; i++) {
        CLEANUP(cleanup_free) char *said = outcome(paths[i], basename(paths[i]));
        fputs(said, stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest own[] = {
        cmocka_unit_test(test_parsed_values),
        cmocka_unit_test(test_general_defaults),
        cmocka_unit_test(test_general_values),
        cmocka_unit_test(test_general_values_for_pci),
        cmocka_unit_test(test_authorization),
        cmocka_unit_test(test_acpi_groups),
        cmocka_unit_test(test_f47_permissions_of_a_guest),
        cmocka_unit_test(test_general_forms),
        cmocka_unit_test(test_names_of_vm_types),
        cmocka_unit_test(test_f12_bad_regex_named_with_position),
        cmocka_unit_test(test_f15_null_is_absent_and_python_differences_noted),
        cmocka_unit_test(test_f16_summary_counts_rules_per_kind_and_vm),
        cmocka_unit_test(test_every_prefix_is_refused),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_depth_limit),
        cmocka_unit_test(test_key_count_limit),
        cmocka_unit_test(test_cid_limit),
        cmocka_unit_test(test_many_errors_are_all_told),
        cmocka_unit_test(test_crowded_file),
        cmocka_unit_test(test_bytes_that_are_no_text),
    };
    if (argc > 1)
        return print_outcomes(argc - 1, argv + 1);
    size_t count = 0;
    struct CMUnitTest *tests = NULL;
    add_files(&tests, &count, "bad", test_bad_file);
    add_files(&tests, &count, "good", test_good_file);
    size_t files = count;
    qsort(tests, files, sizeof(*tests), name_order);
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        tests = memory_resize(tests, count + 1, sizeof(*tests));
        tests[count++] = own[i];
    }
    int failed = files > 100 ? _cmocka_run_group_tests("config", tests, count, NULL, NULL) : 1;
    for (size_t i = 0; i < files; i++) {
        free((char *)tests[i].name);
        free(tests[i].initial_state);
    }
    free(tests);
    return failed ? 1 : 0;
}
