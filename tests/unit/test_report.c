// The lines of the log.
#include <string.h>

#include "core/report.h"
#include "unit.h"
#include "util/text.h"

static struct device *mouse(void)
{
    struct device *device = device_new(DEVICE_USB);
    device->key = string_copy("usb:1-3");
    device->product_reported = string_copy("Evil\x1b[2J\nMouse");
    device->port_path = string_copy("1-3");
    device->vendor_id = 0x0627;
    device->product_id = 1;
    return device;
}

static void check(const struct output *output, enum log_level level, const char *end)
{
    struct report report;
    report_output(&report, output);
    size_t length = strlen(report.text), want = strlen(end);
    if (length < want || strcmp(report.text + length - want, end) != 0)
        fail_msg("\"%s\" does not end in \"%s\"", report.text, end);
    assert_int_equal(report.level, level);
    assert_null(strpbrk(report.text, "\n\x1b"));
    report_clear(&report);
    assert_null(report.text);
}

static void test_lines_of_devices(void **state)
{
    (void)state;
    struct device *device = mouse();
    static const struct {
        enum device_state state;
        enum verdict_kind verdict;
        const char *vm, *reason;
        bool gone;
        enum log_level level;
        const char *end;
    } cases[] = {
        {STATE_ATTACHED, VERDICT_ALLOWED, "vm1", "allowed by x", false, LOG_LEVEL_INFO,
         ": attached to vm1, allowed by x"},
        {STATE_ATTACHING, VERDICT_ALLOWED, "vm1", "allowed by x", false, LOG_LEVEL_DEBUG,
         ": is being attached to vm1, allowed by x"},
        {STATE_DETACHING, VERDICT_ALLOWED, "vm1", "why", false, LOG_LEVEL_INFO, ": is being detached from vm1: why"},
        {STATE_WAITS, VERDICT_ALLOWED, "vm1", "vm1 is not running", false, LOG_LEVEL_INFO,
         ": waits: vm1 is not running"},
        {STATE_REFUSED, VERDICT_ALLOWED, "vm1", "no controller", false, LOG_LEVEL_WARNING,
         ": refused by vm1: no controller"},
        {STATE_EJECTED, VERDICT_ALLOWED, "vm1", "the guest", false, LOG_LEVEL_INFO, ": ejected: the guest"},
        {STATE_IGNORED, VERDICT_ALLOWED, NULL, "before us", false, LOG_LEVEL_INFO, ": stays on the host: before us"},
        {STATE_HOST, VERDICT_DENIED, NULL, "denied by x", false, LOG_LEVEL_INFO, ": stays on the host: denied by x"},
        {STATE_HOST, VERDICT_SHARED, NULL, "0000:03:01.0 …", false, LOG_LEVEL_INFO,
         ": stays on the host: 0000:03:01.0 …"},
        {STATE_HOST, VERDICT_HOST, NULL, "/ is on it", false, LOG_LEVEL_INFO, ": stays on the host: / is on it"},
        {STATE_HOST, VERDICT_NO_RULE, NULL, "no rule\x1b", false, LOG_LEVEL_DEBUG, ": stays on the host: no rule\\x1b"},
        {STATE_HOST, VERDICT_HUB, NULL, "a hub", false, LOG_LEVEL_DEBUG, ": stays on the host: a hub"},
        {STATE_HOST, VERDICT_DENIED, NULL, "", true, LOG_LEVEL_DEBUG, ": unplugged"},
        {STATE_ATTACHED, VERDICT_ALLOWED, NULL, "", true, LOG_LEVEL_INFO, ": unplugged"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct output output = {.kind = OUTPUT_DEVICE,
                                .device = device,
                                .state = cases[i].state,
                                .verdict = cases[i].verdict,
                                .vm = cases[i].vm,
                                .reason = cases[i].reason,
                                .gone = cases[i].gone};
        check(&output, cases[i].level, cases[i].end);
    }
    device_release(device);
}

static void test_lines_of_vms_and_notes(void **state)
{
    (void)state;
    struct output output = {.kind = OUTPUT_VM, .vm = "vm1", .reason = "no\ngreeting"};
    check(&output, LOG_LEVEL_INFO, "vm1 is not running");
    output.vm_state = VM_STATE_STARTING;
    check(&output, LOG_LEVEL_DEBUG, "vm1 is starting");
    output.vm_state = VM_STATE_ANSWERS;
    check(&output, LOG_LEVEL_INFO, "vm1 answers");
    output.vm_state = VM_STATE_SILENT;
    check(&output, LOG_LEVEL_WARNING, "vm1 does not answer: no\\x0agreeting");
    output.kind = OUTPUT_NOTE;
    check(&output, LOG_LEVEL_INFO, "vm1: no\\x0agreeting");
    output.vm = NULL;
    check(&output, LOG_LEVEL_INFO, "no\\x0agreeting");
}

static void test_a_question_is_said_by_the_state_of_its_device(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *device = mouse();
    struct output output = {.kind = OUTPUT_SELECT, .device = device, .reason = "a choice between vm1\x1b and vm2"};
    check(&output, LOG_LEVEL_DEBUG, ": people are asked: a choice between vm1\\x1b and vm2");
    struct report report;
    report_output(&report, &output);
    assert_string_equal(report.subject.verdict, "asked");
    assert_string_equal(report.subject.device, "usb:1-3");
    report_clear(&report);
}

static void test_what_is_no_line_of_the_log(void **state)
{
    (void)state;
    static const enum output_kind kinds[] = {OUTPUT_OPERATION, OUTPUT_MEMORY, OUTPUT_CHOICES};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        struct report report;
        report_output(&report, &(struct output){.kind = kinds[i]});
        assert_string_equal(report.text, "");
        report_clear(&report);
    }
}

static void test_fields_of_the_journal(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *device = mouse();
    struct output output = {
        .kind = OUTPUT_DEVICE, .device = device, .state = STATE_WAITS, .vm = "vm\n1", .reason = "x"};
    struct report report;
    report_output(&report, &output);
    assert_string_equal(report.subject.device, "usb:1-3");
    assert_string_equal(report.subject.vm, "vm\\x0a1");
    assert_string_equal(report.subject.verdict, "waits");
    report_clear(&report);
    output.gone = true;
    report_output(&report, &output);
    assert_string_equal(report.subject.verdict, "unplugged");
    report_clear(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_of_devices),
        cmocka_unit_test(test_lines_of_vms_and_notes),
        cmocka_unit_test(test_a_question_is_said_by_the_state_of_its_device),
        cmocka_unit_test(test_what_is_no_line_of_the_log),
        cmocka_unit_test(test_fields_of_the_journal),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
