// A device that may go into several VMs: who decides, and what is remembered of it; the rows F.. are those of
// the catalogue of failures.
#include <string.h>

#include "bench.h"
#include "unit.h"

#define RULE "allowed by usbPassthrough[0].allow[0]"
#define WAITS "waiting for a choice between vm1 and vm2"
#define ASKED "usb:1-1 waits: " WAITS "\nSELECT usb:1-1: " WAITS "\nMEMORY\n"
#define SECOND UINT64_C(1000000)

// Devices of vendor 1 may go into VMS (JSON), those of vendor 2 into vm2 only; API is the text of general.api.
static void configure(struct bench *bench, const char *vms, const char *api)
{
    CLEANUP(cleanup_free)
    char *text = string_printf("{\"usbPassthrough\":[{\"allowedVms\":[%s],\"allow\":[{\"vendorId\":\"0001\"}]},"
                               "{\"targetVm\":\"vm2\",\"allow\":[{\"vendorId\":\"0002\"}]}],"
                               "\"vms\":[{\"name\":\"vm1\",\"type\":\"qemu\",\"socket\":\"/1\"},"
                               "{\"name\":\"vm2\",\"type\":\"qemu\",\"socket\":\"/2\"},"
                               "{\"name\":\"vm3\",\"type\":\"qemu\",\"socket\":\"/3\"}],\"general\":{\"api\":{%s}}}",
                               vms, api);
    bench_configure_text(bench, text);
}

static void begin(struct bench *bench, const char *vms, const char *api)
{
    bench_init(bench, true);
    configure(bench, vms, api);
}

// All VMs are up and empty.
static void ready(struct bench *bench, const char *vms, const char *api)
{
    static const char *const names[] = {"vm1", "vm2", "vm3"};
    begin(bench, vms, api);
    reconcile_scanned(bench->reconcile, bench->now);
    for (unsigned i = 0; i < 3; i++)
        bench_up(bench, names[i], 11 * (i + 1));
    bench_skip(bench);
    for (unsigned i = 0; i < 3; i++)
        bench_answer(bench, names[i], RESULT_DONE, "", "");
    bench_skip(bench);
}

#define TWO "\"vm1\",\"vm2\""

static void attach(struct bench *bench, uint64_t instance, const char *vm)
{
    CLEANUP(cleanup_free) char *error = reconcile_attach(bench->reconcile, instance, vm, bench->now);
    if (error)
        fail_msg("%s", error);
}

static void choose_earlier(struct bench *bench, unsigned port, const char *vm)
{
    struct choices choices = {0};
    CLEANUP(cleanup_device) struct device *device = bench_device(port, 1, 1);
    assert_int_equal(choices_set(&choices, device, vm, false, NULL, NULL), CHOICE_SET);
    reconcile_choices_load(bench->reconcile, &choices);
    choices_clear(&choices);
}

static void test_a_person_is_asked_once_and_answers(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, TWO, "");
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, ASKED);
    bench_plug(&bench, 1, 5, 1, true);
    bench_down(&bench, "vm2");
    bench_expect(&bench, "vm2 down\n");
    attach(&bench, 5, "vm2");
    bench_expect(&bench, "CHOICES\nusb:1-1 waits vm2: vm2 is not running\n");
    bench_up(&bench, "vm2", 23);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_expect(&bench, "vm2 answers\nusb:1-1 attaching vm2: " RULE "\nATTACH vm2 usb:1-1 5\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "usb:1-1 attached vm2: " RULE "\n");
    attach(&bench, 5, "vm2"); // done already
    bench_idle(&bench);
    bench_down(&bench, "vm2"); // it comes back to where the person put it
    bench_expect(&bench, "vm2 down\nusb:1-1 waits vm2: vm2 is not running\nMEMORY\n");
    bench_clear(&bench);
}

static void test_nobody_answers(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, TWO, "\"selectTimeout\":7");
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, ASKED);
    assert_true(reconcile_deadline(bench.reconcile) == bench.now + 7 * SECOND);
    bench.now += 7 * SECOND - 1;
    bench_plug(&bench, 2, 6, 9, true);
    bench_expect(&bench, "usb:1-2 host: no rule allows it\nMEMORY\n");
    bench_at_deadline(&bench);
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE "\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "usb:1-1 attached vm1: " RULE "\n");
    assert_int_equal(reconcile_choices(bench.reconcile)->count, 0); // nobody chose
    bench_down(&bench, "vm1");                                      // and nobody is asked again
    bench_expect(&bench, "vm1 down\nusb:1-1 waits vm1: vm1 is not running\nMEMORY\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_nobody_answers_and_the_last_choice_is_taken(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, TWO, "");
    choose_earlier(&bench, 1, "vm2");
    bench_plug(&bench, 1, 5, 1, true);
    bench_plug(&bench, 2, 6, 1, true); // a twin, of which nothing was said
    bench_skip(&bench);
    bench_at_deadline(&bench);
    bench_expect(&bench, "usb:1-1 attaching vm2: " RULE "\nusb:1-2 attaching vm1: " RULE "\nMEMORY\n"
                         "ATTACH vm1 usb:1-2 6\nATTACH vm2 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_waiting_for_ever(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, TWO, "\"selectTimeout\":\"ask\"");
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, ASKED);
    bench.now += 1000000 * SECOND;
    bench_idle(&bench);
    attach(&bench, 5, NULL); // whichever
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE "\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_nobody_is_asked_when_there_is_nothing_to_choose_or_no_way_to(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, "\"vm2\"", "");
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, "usb:1-1 attaching vm2: " RULE "\nMEMORY\nATTACH vm2 usb:1-1 5\n");
    bench_clear(&bench);
    ready(&bench, TWO, "\"enable\":false");
    choose_earlier(&bench, 1, "vm2");
    bench_plug(&bench, 1, 5, 1, true);
    bench_plug(&bench, 2, 6, 1, true);
    bench_expect(&bench, "usb:1-1 attaching vm2: " RULE "\nusb:1-2 attaching vm1: " RULE "\nMEMORY\n"
                         "ATTACH vm1 usb:1-2 6\nATTACH vm2 usb:1-1 5\n");
    bench_clear(&bench);
}

// What is found at the start is put where it was, else where it was chosen to be, else into the first.
static void test_at_the_start_nobody_is_asked(void **state)
{
    (void)state;
    struct bench bench;
    begin(&bench, TWO, "");
    choose_earlier(&bench, 1, "vm2");
    bench_plug(&bench, 1, 5, 1, false);
    bench_plug(&bench, 2, 6, 1, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_down(&bench, "vm1");
    bench_down(&bench, "vm2");
    bench_down(&bench, "vm3");
    bench_expect(&bench, "vm1 down\nvm2 down\nvm3 down\nusb:1-1 waits vm2: vm2 is not running\n"
                         "usb:1-2 waits vm1: vm1 is not running\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f05_what_a_vm_has_stays_there_over_a_restart_of_the_daemon(void **state)
{
    (void)state;
    struct bench bench;
    struct memory_device entry = {(char *)"usb:1-2", 6, true, (char *)"vm2", 22, NULL, 0, 0};
    begin(&bench, TWO, "");
    reconcile_remember(bench.reconcile, &(struct memory){&entry, 1});
    bench_plug(&bench, 1, 5, 1, false);
    bench_plug(&bench, 2, 6, 1, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_up(&bench, "vm1", 11);
    bench_up(&bench, "vm2", 22);
    bench_down(&bench, "vm3");
    bench_expect(&bench, "vm1 starting\nvm2 starting\nvm3 down\nMEMORY\nLIST vm1\nLIST vm2\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "a=5"); // of 6 the memory only says that it was on its way
    bench_expect(&bench, "vm1 answers\nvm2 answers\nusb:1-1 attached vm2: " RULE "\nusb:1-2 attaching vm2: " RULE "\n"
                         "MEMORY\nATTACH vm2 usb:1-2 6\n");
    bench_clear(&bench);
}

static void test_moving_to_another_vm_takes_it_out_first(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, TWO, "");
    bench_plug(&bench, 1, 5, 1, true);
    attach(&bench, 5, "vm1");
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "usb:1-1 attached vm1: " RULE "\n");
    attach(&bench, 5, "vm2");
    bench_expect(&bench, "CHOICES\nusb:1-1 detaching vm1: it is taken out of vm1, for it now belongs in vm2\n"
                         "MEMORY\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-1 attaching vm2: " RULE "\nMEMORY\nATTACH vm2 usb:1-1 5\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "b=5");
    bench_expect(&bench, "usb:1-1 attached vm2: " RULE "\n");
    attach(&bench, 5, NULL); // it stays where it is
    bench_idle(&bench);
    bench_clear(&bench);
}

// What the guest took out does not go into the other VM by itself.
static void test_an_ejected_device_stays_with_its_vm(void **state)
{
    (void)state;
    struct bench bench;
    begin(&bench, TWO, "");
    bench_plug(&bench, 1, 5, 1, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_up(&bench, "vm1", 11);
    bench_up(&bench, "vm2", 22);
    bench_down(&bench, "vm3");
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "a=5");
    bench_skip(&bench);
    reconcile_vm_news(bench.reconcile, "vm2", bench.now);
    bench_expect(&bench, "LIST vm2\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_expect(&bench,
                 "usb:1-1 ejected vm2: the guest of vm2 took it out; plug it again, restart the VM or reload the "
                 "configuration to put it back\nMEMORY\n");
    bench_down(&bench, "vm2"); // now nothing speaks for it any more
    bench_expect(&bench, "vm2 down\nusb:1-1 attaching vm1: " RULE "\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_f43_a_reload_keeps_a_choice_that_is_still_allowed(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, TWO, "");
    bench_plug(&bench, 1, 5, 1, true);
    bench_plug(&bench, 2, 6, 1, true);
    attach(&bench, 5, "vm2");
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "a=5");
    bench_at_deadline(&bench);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=6");
    bench_skip(&bench);
    configure(&bench, "\"vm3\",\"vm1\",\"vm2\"", "");
    bench_idle(&bench);
    // vm1 is taken from the list: a person is asked anew of what was in it; what is in vm2 stays.
    configure(&bench, "\"vm3\",\"vm2\"", "");
    bench_expect(&bench, "usb:1-2 detaching vm1: waiting for a choice between vm3 and vm2\n"
                         "SELECT usb:1-2: waiting for a choice between vm3 and vm2\nDETACH vm1 b\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-2 waits: waiting for a choice between vm3 and vm2\nMEMORY\n");
    bench_at_deadline(&bench);
    bench_expect(&bench, "usb:1-2 attaching vm3: " RULE "\nMEMORY\nATTACH vm3 usb:1-2 6\n");
    bench_clear(&bench);
}

static void test_a_reload_while_a_person_is_asked(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, TWO, "");
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, ASKED);
    uint64_t until = reconcile_deadline(bench.reconcile);
    bench.now += SECOND;
    configure(&bench, TWO, ""); // the same: the question stands, and the time runs on
    bench_expect(&bench, "");
    assert_true(reconcile_deadline(bench.reconcile) == until);
    configure(&bench, "\"vm1\",\"vm2\",\"vm3\"", "");
    bench_expect(&bench, "usb:1-1 waits: waiting for a choice between vm1, vm2 and vm3\n"
                         "SELECT usb:1-1: waiting for a choice between vm1, vm2 and vm3\n");
    configure(&bench, "\"vm1\",\"vm2\",\"vm3\"", "\"enable\":false");
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE "\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_a_choice_that_is_not_allowed_any_more_is_not_taken(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, TWO, "\"enable\":false");
    choose_earlier(&bench, 1, "vm3");
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE "\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

// A group that begins to let people choose: what is in one of its VMs is left there.
static void test_a_reload_that_lets_people_choose_asks_nobody_of_what_is_attached(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, "\"vm2\"", "");
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "a=5");
    bench_skip(&bench);
    configure(&bench, TWO, "");
    bench_idle(&bench);
    configure(&bench, "\"vm1\"", "");
    bench_expect(&bench, "usb:1-1 detaching vm2: it is taken out of vm2, for it now belongs in vm1\n"
                         "MEMORY\nDETACH vm2 a\n");
    bench_clear(&bench);
}

// The verdict may change while a person is asked.
static void test_the_question_ends_with_its_reason(void **state)
{
    (void)state;
    struct bench bench;
    ready(&bench, TWO, "");
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, ASKED);
    bench_configure_text(&bench, "{\"usbPassthrough\":[],\"vms\":[{\"name\":\"vm1\",\"type\":\"qemu\","
                                 "\"socket\":\"/1\"}]}");
    bench_expect(&bench, "usb:1-1 host: no rule allows it\n");
    bench_idle(&bench);
    configure(&bench, TWO, "");
    bench_expect(&bench, "usb:1-1 waits: " WAITS "\nSELECT usb:1-1: " WAITS "\n");
    bench_clear(&bench);
}

static void expect_refused(struct bench *bench, char *error)
{
    assert_string_equal(error,
                        "unnamed device (0001:0000, usb:1-1): 4096 devices are detached by request, and no more can be "
                        "remembered: attach some of them first");
    free(error);
    bench_idle(bench);
}

// Nobody's detach is forgotten for another's.
static void test_what_cannot_be_remembered_is_refused(void **state)
{
    (void)state;
    struct bench bench;
    struct choices choices = {0};
    begin(&bench, TWO, "");
    for (unsigned i = 0; i < CHOICES_MAX; i++) {
        CLEANUP(cleanup_device) struct device *device = bench_device(100 + i, 1, 2);
        assert_int_equal(choices_set(&choices, device, NULL, true, NULL, NULL), CHOICE_SET);
    }
    reconcile_choices_load(bench.reconcile, &choices);
    choices_clear(&choices);
    reconcile_scanned(bench.reconcile, bench.now);
    for (unsigned i = 0; i < 3; i++)
        bench_down(&bench, (const char *[]){"vm1", "vm2", "vm3"}[i]);
    bench_plug(&bench, 1, 5, 1, false);
    bench_skip(&bench);
    expect_refused(&bench, reconcile_detach(bench.reconcile, 5, bench.now));
    expect_refused(&bench, reconcile_attach(bench.reconcile, 5, "vm2", bench.now));
    assert_int_equal(reconcile_choices(bench.reconcile)->count, CHOICES_MAX);
    attach(&bench, 5, NULL); // this needs no room
    bench_clear(&bench);
}

// Clients are told of USB devices only.
static void test_nobody_is_asked_about_an_input_device(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, true);
    bench_configure_text(&bench, "{\"evdevPassthrough\":[{\"allowedVms\":[\"vm2\",\"vm1\"],\"pcieBusPrefix\":\"ep\","
                                 "\"allow\":[{\"property\":\"ID_INPUT_MOUSE\",\"value\":\"1\"}]}],"
                                 "\"vms\":[{\"name\":\"vm1\",\"type\":\"qemu\",\"socket\":\"/1\"},"
                                 "{\"name\":\"vm2\",\"type\":\"qemu\",\"socket\":\"/2\"}]}");
    reconcile_scanned(bench.reconcile, bench.now);
    bench_down(&bench, "vm1");
    bench_down(&bench, "vm2");
    bench_skip(&bench);
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_INPUT);
    device->key = string_copy("input:input5");
    device->instance = 5;
    device->properties = memory_new(1, sizeof(char *));
    device->properties[0] = string_copy("ID_INPUT_MOUSE=1");
    device->property_count = 1;
    reconcile_device(bench.reconcile, device, true, bench.now);
    bench_expect(&bench, "input:input5 waits vm2: vm2 is not running\nMEMORY\n");
    bench_clear(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_person_is_asked_once_and_answers),
        cmocka_unit_test(test_nobody_answers),
        cmocka_unit_test(test_nobody_answers_and_the_last_choice_is_taken),
        cmocka_unit_test(test_waiting_for_ever),
        cmocka_unit_test(test_nobody_is_asked_when_there_is_nothing_to_choose_or_no_way_to),
        cmocka_unit_test(test_at_the_start_nobody_is_asked),
        cmocka_unit_test(test_nobody_is_asked_about_an_input_device),
        cmocka_unit_test(test_f05_what_a_vm_has_stays_there_over_a_restart_of_the_daemon),
        cmocka_unit_test(test_moving_to_another_vm_takes_it_out_first),
        cmocka_unit_test(test_an_ejected_device_stays_with_its_vm),
        cmocka_unit_test(test_f43_a_reload_keeps_a_choice_that_is_still_allowed),
        cmocka_unit_test(test_a_reload_while_a_person_is_asked),
        cmocka_unit_test(test_a_choice_that_is_not_allowed_any_more_is_not_taken),
        cmocka_unit_test(test_a_reload_that_lets_people_choose_asks_nobody_of_what_is_attached),
        cmocka_unit_test(test_the_question_ends_with_its_reason),
        cmocka_unit_test(test_what_cannot_be_remembered_is_refused),
    };
    return cmocka_run_group_tests_name("reconcile_choices", tests, NULL, NULL);
}
