// What people ask for: attach, detach for good, suspend, resume, and how things stand; the rows F.. are those of
// the catalogue of failures.
#include <string.h>

#include "bench.h"
#include "unit.h"

#define RULE1 "allowed by usbPassthrough[0].allow[0]"
#define RULE2 "allowed by usbPassthrough[1].allow[0]"
#define SECOND 1000000u
#define OUT "a person took it out; attach it to put it back"

static void attach(struct bench *bench, uint64_t instance, const char *vm)
{
    CLEANUP(cleanup_free) char *error = reconcile_attach(bench->reconcile, instance, vm, bench->now);
    if (error)
        fail_msg("%s", error);
}

static void detach(struct bench *bench, uint64_t instance)
{
    CLEANUP(cleanup_free) char *error = reconcile_detach(bench->reconcile, instance, bench->now);
    if (error)
        fail_msg("%s", error);
}

static void suspend(struct bench *bench, const char *vm)
{
    CLEANUP(cleanup_free) char *error = reconcile_suspend(bench->reconcile, DEVICE_USB, vm, bench->now);
    if (error)
        fail_msg("%s", error);
}

static void resume(struct bench *bench, const char *vm)
{
    CLEANUP(cleanup_free) char *error = reconcile_resume(bench->reconcile, DEVICE_USB, vm, bench->now);
    if (error)
        fail_msg("%s", error);
}

static void expect_error(char *error, const char *expected)
{
    CLEANUP(cleanup_free) char *owned = error;
    if (!owned)
        fail_msg("no error, but expected: %s", expected);
    assert_string_equal(owned, expected);
}

// A reconciler after a restart, with what it had put away; vm1 and vm2 run.
static void restart(struct bench *bench)
{
    struct choices parsed;
    CLEANUP(cleanup_free) char *text = choices_print(reconcile_choices(bench->reconcile));
    assert_null(choices_parse(text, strlen(text), &parsed));
    struct memory memory;
    reconcile_memory(bench->reconcile, &memory);
    bench_clear(bench);
    bench_init(bench, true);
    reconcile_choices_load(bench->reconcile, &parsed);
    reconcile_remember(bench->reconcile, &memory);
    choices_clear(&parsed);
    memory_clear(&memory);
    bench_up(bench, "vm1", 11);
    bench_up(bench, "vm2", 22);
}

static void test_f32_a_detach_holds_in_every_path(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    detach(&bench, 5);
    bench_expect(&bench, "CHOICES\nusb:1-1 detaching vm1: a person takes it out of vm1\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-1 host: " OUT "\nMEMORY\n");
    detach(&bench, 5); // done already
    bench_idle(&bench);
    bench_down(&bench, "vm1");
    bench_up(&bench, "vm1", 12);
    bench_expect(&bench, "vm1 starting\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\n");
    bench_unplug(&bench, 1, 5);
    bench_plug(&bench, 1, 6, 1, true); // into the same port
    bench_expect(&bench, "usb:1-1 unplugged\nusb:1-1 host: " OUT "\nMEMORY\n");
    bench_configure(&bench, "{\"targetVm\":\"vm1\",\"allow\":[{\"vendorId\":\"0001\"}]}", true);
    bench_idle(&bench);
    restart(&bench);
    bench_plug(&bench, 1, 6, 1, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_expect(&bench, "vm1 starting\nvm2 starting\nusb:1-1 host: " OUT "\nLIST vm1\nLIST vm2\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\nvm2 answers\n");
    bench_idle(&bench);
    attach(&bench, 6, NULL);
    bench_expect(&bench, "CHOICES\nusb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 6\n");
    bench_clear(&bench);
}

static void test_f32_a_detach_beforehand_holds(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, true);
    bench_down(&bench, "vm1");
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, "vm1 down\nusb:1-1 waits vm1: vm1 is not running\nMEMORY\n");
    detach(&bench, 5);
    bench_expect(&bench, "CHOICES\nusb:1-1 host: " OUT "\n");
    bench_up(&bench, "vm1", 12);
    bench_expect(&bench, "vm1 starting\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\n");
    bench_clear(&bench);
}

// What an earlier daemon left in a VM, though a person has taken it out: it leaves.
static void test_f32_what_is_found_in_a_vm_leaves_it(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    detach(&bench, 5);
    bench_skip(&bench);
    restart(&bench); // before the VM has answered
    bench_plug(&bench, 1, 5, 1, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "vm1 answers\nvm2 answers\nusb:1-1 detaching vm1: a person takes it out of vm1\n"
                         "MEMORY\nDETACH vm1 a\n");
    bench_clear(&bench);
}

static void test_a_detach_while_the_attach_is_on_its_way(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    detach(&bench, 5);
    bench_expect(&bench, "CHOICES\nusb:1-1 detaching vm1: a person takes it out of vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "DETACH vm1 a\n");
    attach(&bench, 5, "vm1"); // and back again, before it has left
    bench_expect(&bench,
                 "CHOICES\nusb:1-1 detaching vm1: vm1 has been asked to let go of it and has not done so yet\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_f05_a_detach_leaves_the_twin_attached(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_plug(&bench, 2, 6, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=6");
    bench_skip(&bench);
    detach(&bench, 5);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=6");
    bench_expect(&bench, "usb:1-1 host: " OUT "\nMEMORY\n");
    restart(&bench);
    bench_plug(&bench, 1, 5, 1, false);
    bench_plug(&bench, 2, 6, 1, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=6");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\nvm2 answers\nusb:1-2 attached vm1: " RULE1 "\nMEMORY\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static struct device *with_serial(unsigned port, uint64_t instance, const char *serial)
{
    struct device *device = bench_device(port, instance, 1);
    device->serial = string_copy(serial);
    return device;
}

static void plug_serial(struct bench *bench, unsigned port, uint64_t instance)
{
    CLEANUP(cleanup_device) struct device *device = with_serial(port, instance, "S");
    reconcile_device(bench->reconcile, device, true, bench->now);
}

// It is the same device: what was said of it last counts, not what was said of it in that place once.
static void test_a_device_with_a_serial_number_takes_its_choice_along(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    plug_serial(&bench, 1, 5);
    detach(&bench, 5);
    bench_unplug(&bench, 1, 5);
    plug_serial(&bench, 2, 6);
    bench_expect(&bench, "CHOICES\nusb:1-1 host: " OUT "\nusb:1-1 unplugged\nusb:1-2 host: " OUT "\nMEMORY\n");
    attach(&bench, 6, "vm1");
    bench_expect(&bench, "CHOICES\nusb:1-2 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-2 6\n");
    assert_int_equal(reconcile_choices(bench.reconcile)->count, 1);
    bench_answer(&bench, "vm1", RESULT_RETRY, "not now", "");
    bench_unplug(&bench, 2, 6);
    plug_serial(&bench, 1, 7); // back in the first place
    bench_expect(&bench, "usb:1-2 unplugged\nusb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 7\n");
    bench_clear(&bench);
}

// Two that claim to be the same device are told apart by their places.
static void test_f05_twins_with_one_serial_number(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_down(&bench, "vm1");
    plug_serial(&bench, 1, 5);
    plug_serial(&bench, 2, 6);
    bench_skip(&bench);
    detach(&bench, 5);
    bench_expect(&bench, "CHOICES\nusb:1-1 host: " OUT "\n");
    bench_unplug(&bench, 1, 5);
    bench_plug(&bench, 3, 7, 1, true);
    bench_skip(&bench);
    detach(&bench, 7); // what is decided of another does not put the twin in its place
    bench_expect(&bench, "CHOICES\nusb:1-3 host: " OUT "\n");
    plug_serial(&bench, 1, 8);
    bench_expect(&bench, "usb:1-1 host: " OUT "\nMEMORY\n");
    attach(&bench, 6, NULL);
    bench_skip(&bench);
    detach(&bench, 6);
    attach(&bench, 8, NULL);
    bench_expect(&bench, "CHOICES\nusb:1-2 host: " OUT "\nusb:1-1 waits vm1: vm1 is not running\n");
    bench_clear(&bench);
}

static void test_f05_twins_are_told_apart_in_any_order_of_the_scan(void **state)
{
    (void)state;
    for (unsigned first = 1; first <= 2; first++) {
        struct bench bench;
        bench_ready(&bench, false);
        plug_serial(&bench, 1, 5);
        plug_serial(&bench, 2, 6);
        detach(&bench, 5);
        restart(&bench);
        plug_serial(&bench, first, 4 + first);
        plug_serial(&bench, 3 - first, 7 - first);
        reconcile_scanned(bench.reconcile, bench.now);
        for (size_t i = 0; i < 2; i++) {
            CLEANUP(device_status_clear) struct device_status status;
            reconcile_device_status(bench.reconcile, i, &status);
            assert_int_equal(status.detached, status.device->instance == 5);
        }
        bench_clear(&bench);
    }
}

// It is reported in its new place, and put into its VM, before its old place is reported empty.
static void test_a_detach_follows_a_device_that_is_seen_twice_while_it_moves(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    plug_serial(&bench, 1, 5);
    detach(&bench, 5);
    plug_serial(&bench, 2, 6);
    CLEANUP(cleanup_device) struct device *other = bench_device(3, 7, 9);
    other->serial = string_copy("T");
    reconcile_device(bench.reconcile, other, true, bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=6");
    detach(&bench, 7); // tells nothing of these
    bench_skip(&bench);
    bench.now += 9 * SECOND;
    bench_unplug(&bench, 1, 5);
    bench_expect(&bench,
                 "usb:1-1 unplugged\nusb:1-2 detaching vm1: a person takes it out of vm1\nMEMORY\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-2 host: " OUT "\nMEMORY\n");
    bench_clear(&bench);
}

// One that has stood beside the other for a while is another: to unplug the one takes nothing out of a VM.
static void test_f05_a_twin_stays_in_its_vm_when_the_detached_one_is_unplugged(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    plug_serial(&bench, 1, 5);
    detach(&bench, 5);
    plug_serial(&bench, 2, 6);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=6");
    bench_skip(&bench);
    bench.now += 10 * SECOND;
    bench_unplug(&bench, 1, 5);
    bench_expect(&bench, "CHOICES\nusb:1-1 unplugged\nMEMORY\n");
    restart(&bench);
    plug_serial(&bench, 2, 6);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=6");
    bench_skip(&bench);
    bench_idle(&bench); // it is not taken out
    plug_serial(&bench, 1, 7);
    bench_expect(&bench, "usb:1-1 host: " OUT "\nMEMORY\n");
    bench_clear(&bench);
}

static void test_no_detach_makes_room_for_a_twin(void **state)
{
    (void)state;
    struct bench bench;
    struct choices choices = {0};
    bench_ready(&bench, false);
    for (unsigned i = 1; i < CHOICES_MAX; i++) {
        CLEANUP(cleanup_device) struct device *device = bench_device(100 + i, 1, 2);
        assert_int_equal(choices_set(&choices, device, NULL, true, NULL, NULL), CHOICE_SET);
    }
    reconcile_choices_load(bench.reconcile, &choices);
    choices_clear(&choices);
    plug_serial(&bench, 1, 5);
    detach(&bench, 5);
    plug_serial(&bench, 2, 6);
    bench_skip(&bench);
    bench.now += 10 * SECOND;
    bench_unplug(&bench, 1, 5);
    bench_expect(&bench, "usb:1-1 unplugged\nMEMORY\n");
    assert_int_equal(choices_detached(reconcile_choices(bench.reconcile)), CHOICES_MAX);
    bench_clear(&bench);
}

static void test_an_attach_while_a_device_moves_holds(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_down(&bench, "vm1");
    plug_serial(&bench, 1, 5);
    detach(&bench, 5);
    plug_serial(&bench, 2, 6);
    attach(&bench, 6, NULL);
    bench_skip(&bench);
    bench_unplug(&bench, 1, 5);
    bench_expect(&bench, "CHOICES\nusb:1-1 unplugged\nMEMORY\n");
    bench_unplug(&bench, 2, 6);
    plug_serial(&bench, 2, 7);
    bench_expect(&bench, "usb:1-2 unplugged\nusb:1-2 waits vm1: vm1 is not running\nMEMORY\n");
    bench_clear(&bench);
}

static void test_f05_a_detached_device_that_comes_anew_in_its_place_leaves_its_twin_alone(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_down(&bench, "vm1");
    plug_serial(&bench, 1, 5);
    detach(&bench, 5);
    plug_serial(&bench, 2, 6);
    bench_skip(&bench);
    plug_serial(&bench, 1, 7); // its old self has gone
    bench_expect(&bench, "usb:1-1 unplugged\nusb:1-1 host: " OUT "\nMEMORY\n");
    bench_clear(&bench);
}

// The Python program's file knows no places.
static void test_f32_a_choice_for_wherever_is_overridden_by_an_exact_one(void **state)
{
    (void)state;
    static const char text[] = "{\"disconnected_devices\":[\"usb-0001:0000:None\",\"usb-0001:0000:S\"]}";
    struct bench bench;
    bench_ready(&bench, false);
    bench_down(&bench, "vm1");
    bench_plug(&bench, 1, 5, 1, true);
    bench_plug(&bench, 2, 6, 1, true);
    plug_serial(&bench, 3, 7);
    bench_skip(&bench);
    struct choices choices;
    assert_null(choices_parse(text, strlen(text), &choices));
    reconcile_choices_load(bench.reconcile, &choices);
    choices_clear(&choices);
    bench_expect(&bench, "usb:1-1 host: " OUT "\nusb:1-2 host: " OUT "\nusb:1-3 host: " OUT "\n");
    attach(&bench, 5, "vm1");
    bench_expect(&bench, "CHOICES\nusb:1-1 waits vm1: vm1 is not running\n");
    attach(&bench, 7, "vm1");
    bench_expect(&bench, "CHOICES\nusb:1-3 waits vm1: vm1 is not running\n");
    bench_unplug(&bench, 3, 7);
    plug_serial(&bench, 4, 8); // it is that one, and it was put back
    bench_expect(&bench, "usb:1-3 unplugged\nusb:1-4 waits vm1: vm1 is not running\nMEMORY\n");
    bench_clear(&bench);
}

static void test_f47_f42_why_a_device_cannot_be_attached(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_configure(&bench,
                    "{\"targetVm\":\"vm1\",\"allow\":[{\"vendorId\":\"0001\"},{\"vendorId\":\"0004\"}],"
                    "\"deny\":[{\"vendorId\":\"0004\"}]},"
                    "{\"allowedVms\":[\"vm1\",\"vm2\"],\"allow\":[{\"vendorId\":\"0002\"}]}",
                    true);
    bench_plug(&bench, 1, 1, 1, true);
    bench_plug(&bench, 2, 2, 2, true);
    bench_plug(&bench, 4, 4, 4, true);
    bench_plug(&bench, 9, 9, 9, true);
    CLEANUP(cleanup_device) struct device *hub = bench_device(5, 5, 1), *used = bench_device(6, 6, 1);
    hub->class = 9;
    used->host_use = string_copy("/ is mounted from it");
    used->product_reported = string_copy("Big\x1b"
                                         "Disk");
    reconcile_device(bench.reconcile, hub, true, bench.now);
    reconcile_device(bench.reconcile, used, true, bench.now);
    bench_skip(&bench);
    static const struct {
        uint64_t instance;
        const char *vm, *error;
    } cases[] = {
        {77, "vm1", "the device is not there any more"},
        {9, "vm1", "unnamed device (0009:0000, usb:1-9): no rule allows it"},
        {4, NULL, "unnamed device (0004:0000, usb:1-4): denied by usbPassthrough[0].deny[0]"},
        {5, "vm1", "unnamed device (0001:0000, usb:1-5): hubs are never passed"},
        {6, "vm1", "Big\\x1bDisk (0001:0000, usb:1-6): the host lives on it: / is mounted from it"},
        {1, "vm2", "unnamed device (0001:0000, usb:1-1): vm2 is not allowed for it: usbPassthrough[0] names vm1"},
        {2, "vm3",
         "unnamed device (0002:0000, usb:1-2): vm3 is not allowed for it: usbPassthrough[1] names vm1 and vm2"},
        {2, "vm\n",
         "unnamed device (0002:0000, usb:1-2): vm\\x0a is not allowed for it: usbPassthrough[1] names vm1 and vm2"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        expect_error(reconcile_attach(bench.reconcile, cases[i].instance, cases[i].vm, bench.now), cases[i].error);
    expect_error(reconcile_detach(bench.reconcile, 77, bench.now), "the device is not there any more");
    expect_error(reconcile_suspend(bench.reconcile, DEVICE_USB, "vm\n9", bench.now), "no VM has the name vm\\x0a9");
    expect_error(reconcile_resume(bench.reconcile, DEVICE_USB, "vm9", bench.now), "no VM has the name vm9");
    bench_expect(&bench, ""); // none of these has done anything
    assert_int_equal(reconcile_choices(bench.reconcile)->count, 0);
    bench_clear(&bench);
}

static void test_before_there_is_a_configuration(void **state)
{
    (void)state;
    struct reconcile *reconcile = reconcile_new(1, true);
    CLEANUP(cleanup_device) struct device *device = bench_device(1, 5, 1);
    reconcile_device(reconcile, device, true, 1);
    expect_error(reconcile_attach(reconcile, 5, NULL, 1),
                 "unnamed device (0001:0000, usb:1-1): there is no configuration yet");
    struct device_status status;
    reconcile_device_status(reconcile, 0, &status);
    assert_string_equal(status.reason, "it was found a moment ago");
    assert_int_equal(status.state, STATE_WAITS);
    device_status_clear(&status);
    reconcile_free(reconcile);
}

// A person's word is news: what was refused or taken out by the guest is tried again.
static void test_an_attach_is_news(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_REFUSED, "no free port", "");
    bench_expect(&bench, "usb:1-1 refused vm1: no free port\n");
    bench_idle(&bench);
    attach(&bench, 5, "vm1");
    bench_expect(&bench, "ATTACH vm1 usb:1-1 5\n"); // nothing to keep: its group has one VM only
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "usb:1-1 attached vm1: " RULE1 "\n");
    reconcile_vm_news(bench.reconcile, "vm1", bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_skip(&bench);
    attach(&bench, 5, NULL);
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_an_attach_of_what_was_there_before_us(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, false);
    bench_expect(&bench, "usb:1-1 ignored: it was there before vhotplug started, and -a was not given\n");
    attach(&bench, 5, NULL);
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

#define MIXED                                                                                                          \
    "{\"targetVm\":\"vm1\",\"allow\":[{\"vendorId\":\"0001\"}]},"                                                      \
    "{\"targetVm\":\"vm1\",\"skipOnSuspend\":true,\"allow\":[{\"vendorId\":\"0002\"}]}"

static void test_f27_a_suspended_vm_has_no_usb_devices(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_configure(&bench, MIXED, true);
    bench_plug(&bench, 2, 6, 2, true);
    bench_plug(&bench, 3, 7, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=6");
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=6 c=7");
    bench_skip(&bench);
    detach(&bench, 7);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=6");
    bench_expect(&bench, "usb:1-3 host: " OUT "\nMEMORY\n");
    suspend(&bench, "vm1");
    bench_expect(&bench, "usb:1-1 detaching vm1: it is taken out of vm1, for vm1 is suspended\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=6");
    bench_expect(&bench, "usb:1-1 waits vm1: vm1 is suspended\nMEMORY\n");
    suspend(&bench, NULL); // once more
    bench_idle(&bench);
    bench_unplug(&bench, 1, 5);
    bench_plug(&bench, 1, 8, 1, true); // enumerated anew while all slept
    bench_plug(&bench, 4, 9, 2, true);
    bench_expect(&bench, "usb:1-1 unplugged\nusb:1-1 waits vm1: vm1 is suspended\n"
                         "usb:1-4 attaching vm1: " RULE2 "\nMEMORY\nATTACH vm1 usb:1-4 9\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=6 d=9");
    bench_expect(&bench, "usb:1-4 attached vm1: " RULE2 "\n");
    resume(&bench, "vm2"); // another
    bench_idle(&bench);
    resume(&bench, NULL);
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 8\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=6 d=9 e=8");
    bench_expect(&bench, "usb:1-1 attached vm1: " RULE1 "\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f27_input_devices_stay(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_INPUT);
    device->key = string_copy("input:input5");
    device->instance = 5;
    device->properties = memory_new(1, sizeof(char *));
    device->properties[0] = string_copy("ID_INPUT_MOUSE=1");
    device->property_count = 1;
    suspend(&bench, NULL);
    reconcile_device(bench.reconcile, device, true, bench.now);
    bench_expect(&bench, "input:input5 attaching vm1: allowed by evdevPassthrough\nMEMORY\n"
                         "ATTACH vm1 input:input5 5 on ep\n");
    bench_clear(&bench);
}

// A failure of before does not delay what comes back.
static void test_f27_resume_tries_at_once(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    for (unsigned i = 0; i < 8; i++) {
        bench_answer(&bench, "vm1", RESULT_RETRY, "not now", "");
        bench_skip(&bench);
        bench_at_deadline(&bench);
        bench_skip(&bench);
    }
    bench_answer(&bench, "vm1", RESULT_RETRY, "not now", "");
    bench_skip(&bench);
    suspend(&bench, "vm1");
    bench_expect(&bench, "usb:1-1 waits vm1: vm1 is suspended\nMEMORY\n");
    bench_idle(&bench);
    resume(&bench, "vm1");
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

#define CHOOSING "{\"allowedVms\":[\"vm1\",\"vm2\"],\"allow\":[{\"vendorId\":\"0001\"}]}"

// It leaves the suspended VM and comes back to that one, whatever is the first.
static void test_f27_what_may_go_into_several_vms_comes_back_to_its_own(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, true);
    bench_configure(&bench, CHOOSING, true);
    reconcile_vm_news(bench.reconcile, "vm2", bench.now);
    bench_skip(&bench);
    bench_plug(&bench, 1, 5, 1, false);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "a=5"); // from an earlier run, of which nothing is remembered
    bench_skip(&bench);
    suspend(&bench, "vm2");
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-1 waits vm2: vm2 is suspended\nMEMORY\n");
    resume(&bench, "vm2");
    bench_expect(&bench, "usb:1-1 attaching vm2: " RULE1 "\nMEMORY\nATTACH vm2 usb:1-1 5\n");
    bench_clear(&bench);
}

// Enumerated anew while its VM slept, it is not taken for something new of which a person is asked.
static void test_f27_what_comes_back_during_the_suspension_is_not_asked_about(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_configure(&bench, CHOOSING, true);
    bench_plug(&bench, 1, 5, 1, true);
    attach(&bench, 5, "vm2");
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "a=5");
    suspend(&bench, NULL);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_skip(&bench);
    bench_unplug(&bench, 1, 5);
    bench_plug(&bench, 1, 6, 1, true);
    bench_plug(&bench, 2, 7, 1, true); // this one is new
    bench_expect(&bench, "usb:1-1 unplugged\nusb:1-1 waits vm2: vm2 is suspended\n"
                         "usb:1-2 waits: waiting for a choice between vm1 and vm2\n"
                         "SELECT usb:1-2: waiting for a choice between vm1 and vm2\nMEMORY\n");
    resume(&bench, NULL);
    bench_expect(&bench, "usb:1-1 attaching vm2: " RULE1 "\nMEMORY\nATTACH vm2 usb:1-1 6\n");
    bench_clear(&bench);
}

static void expect_device(const struct bench *bench, size_t index, enum device_state state, const char *vm,
                          const char *reason)
{
    struct device_status status;
    reconcile_device_status(bench->reconcile, index, &status);
    assert_int_equal(status.state, state);
    assert_true(vm ? status.vm && strcmp(status.vm, vm) == 0 : !status.vm);
    assert_string_equal(status.reason, reason);
    device_status_clear(&status);
    assert_null(status.reason);
}

static void test_f42_how_a_device_stands(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_configure(&bench, CHOOSING, true);
    bench_plug(&bench, 1, 5, 1, true);
    expect_device(&bench, 0, STATE_WAITS, NULL, "it was found a moment ago");
    bench_skip(&bench);
    assert_int_equal(reconcile_device_count(bench.reconcile), 1);
    struct device_status status;
    reconcile_device_status(bench.reconcile, 0, &status);
    assert_true(status.device->instance == 5 && status.verdict->kind == VERDICT_ALLOWED && status.selecting);
    assert_true(!status.chosen && !status.detached && status.since == bench.now);
    uint64_t since = bench.now;
    device_status_clear(&status);
    bench.now += 1000;
    bench_plug(&bench, 2, 6, 9, true);
    expect_device(&bench, 0, STATE_WAITS, NULL, "waiting for a choice between vm1 and vm2"); // as it was said
    bench_skip(&bench);
    reconcile_device_status(bench.reconcile, 0, &status);
    assert_true(status.since == since);
    device_status_clear(&status);
    expect_device(&bench, 1, STATE_HOST, NULL, "no rule allows it");
    bench_down(&bench, "vm2");
    attach(&bench, 5, "vm2");
    expect_device(&bench, 0, STATE_WAITS, "vm2", "vm2 is not running"); // known at once
    reconcile_device_status(bench.reconcile, 0, &status);
    assert_string_equal(status.chosen, "vm2");
    assert_true(!status.selecting && status.since == bench.now);
    device_status_clear(&status);
    suspend(&bench, "vm2");
    expect_device(&bench, 0, STATE_WAITS, "vm2", "vm2 is suspended");
    detach(&bench, 5);
    expect_device(&bench, 0, STATE_HOST, NULL, OUT);
    reconcile_device_status(bench.reconcile, 0, &status);
    assert_true(status.detached);
    assert_string_equal(status.chosen, "vm2");
    device_status_clear(&status);
    bench_clear(&bench);
}

static void test_f42_a_device_that_is_in_a_vm(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    expect_device(&bench, 0, STATE_ATTACHED, "vm1", RULE1);
    reconcile_vm_news(bench.reconcile, "vm2", bench.now); // something came that has not been thought over
    expect_device(&bench, 0, STATE_ATTACHED, "vm1", RULE1);
    detach(&bench, 5);
    expect_device(&bench, 0, STATE_DETACHING, "vm1", "a person takes it out of vm1");
    bench_clear(&bench);
}

static void test_how_a_vm_stands(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    assert_int_equal(reconcile_vm_count(bench.reconcile), 3);
    struct vm_status status;
    reconcile_vm_status(bench.reconcile, 0, &status);
    assert_string_equal(status.name, "vm1");
    assert_true(status.type == VM_QEMU && status.state == VM_STATE_ANSWERS && status.known && status.configured);
    assert_true(status.instance == 11 && !*status.why && !status.suspended);
    assert_true(status.attached == 1 && status.waiting == 0 && status.since == bench.now);
    bench.now += 1000;
    suspend(&bench, "vm1");
    reconcile_vm_status(bench.reconcile, 0, &status); // it has not left yet
    assert_true(status.suspended && status.attached == 1 && status.waiting == 0 && status.since == bench.now - 1000);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_PENDING, "", "a=5~");
    bench_skip(&bench);
    reconcile_vm_status(bench.reconcile, 0, &status);
    assert_true(status.attached == 1 && status.waiting == 0);
    bench_at_deadline(&bench);
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_skip(&bench);
    reconcile_vm_status(bench.reconcile, 0, &status);
    assert_true(status.attached == 0 && status.waiting == 1);
    bench_down(&bench, "vm1");
    bench_skip(&bench);
    reconcile_vm_status(bench.reconcile, 0, &status);
    assert_true(status.state == VM_STATE_DOWN && status.instance == 0 && status.since == bench.now);
    bench_up(&bench, "vm1", 12);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_RETRY, "no greeting", NULL);
    reconcile_vm_status(bench.reconcile, 0, &status);
    assert_true(status.state == VM_STATE_SILENT);
    assert_string_equal(status.why, "no greeting");
    reconcile_vm_status(bench.reconcile, 2, &status); // nobody has said whether it runs
    assert_true(!status.known && status.type == VM_CLOUD_HYPERVISOR);
    bench_configure(&bench, "", false);
    reconcile_vm_status(bench.reconcile, 1, &status);
    assert_true(!status.configured);
    bench_clear(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32_a_detach_holds_in_every_path),
        cmocka_unit_test(test_f32_a_detach_beforehand_holds),
        cmocka_unit_test(test_f32_what_is_found_in_a_vm_leaves_it),
        cmocka_unit_test(test_a_detach_while_the_attach_is_on_its_way),
        cmocka_unit_test(test_f05_a_detach_leaves_the_twin_attached),
        cmocka_unit_test(test_a_device_with_a_serial_number_takes_its_choice_along),
        cmocka_unit_test(test_f05_twins_with_one_serial_number),
        cmocka_unit_test(test_f05_twins_are_told_apart_in_any_order_of_the_scan),
        cmocka_unit_test(test_a_detach_follows_a_device_that_is_seen_twice_while_it_moves),
        cmocka_unit_test(test_f05_a_twin_stays_in_its_vm_when_the_detached_one_is_unplugged),
        cmocka_unit_test(test_no_detach_makes_room_for_a_twin),
        cmocka_unit_test(test_an_attach_while_a_device_moves_holds),
        cmocka_unit_test(test_f05_a_detached_device_that_comes_anew_in_its_place_leaves_its_twin_alone),
        cmocka_unit_test(test_f32_a_choice_for_wherever_is_overridden_by_an_exact_one),
        cmocka_unit_test(test_f47_f42_why_a_device_cannot_be_attached),
        cmocka_unit_test(test_before_there_is_a_configuration),
        cmocka_unit_test(test_an_attach_is_news),
        cmocka_unit_test(test_an_attach_of_what_was_there_before_us),
        cmocka_unit_test(test_f27_a_suspended_vm_has_no_usb_devices),
        cmocka_unit_test(test_f27_input_devices_stay),
        cmocka_unit_test(test_f27_resume_tries_at_once),
        cmocka_unit_test(test_f27_what_may_go_into_several_vms_comes_back_to_its_own),
        cmocka_unit_test(test_f27_what_comes_back_during_the_suspension_is_not_asked_about),
        cmocka_unit_test(test_f42_how_a_device_stands),
        cmocka_unit_test(test_f42_a_device_that_is_in_a_vm),
        cmocka_unit_test(test_how_a_vm_stands),
    };
    return cmocka_run_group_tests_name("reconcile_requests", tests, NULL, NULL);
}
