// The reconciler while devices and VMs come and go; the rows F.. are those of the catalogue of failures.
#include <stdio.h>

#include "bench.h"
#include "unit.h"

#define RULE1 "allowed by usbPassthrough[0].allow[0]"
#define SECOND 1000000u

static void test_f30_attached_is_said_when_the_vm_lists_it(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_idle(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", NULL); // no list: it is asked for
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "usb:1-1 attached vm1: " RULE1 "\n");
    bench_plug(&bench, 1, 5, 1, true); // seen again
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f30_done_but_not_listed_is_no_attachment(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=6");
    bench_expect(&bench, "usb:1-1 waits vm1: the VM took it, but does not list it as its own\n"
                         "DETACH vm1 b\n"
                         "note vm1: it still has b of a device that is not there any more; it is taken out\n");
    bench_clear(&bench);
}

static void test_f20_a_stopped_vm_costs_nothing(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, "usb:1-1 waits vm1: it is not known yet whether vm1 runs\nMEMORY\n");
    bench_down(&bench, "vm1");
    bench_expect(&bench, "vm1 down\nusb:1-1 waits vm1: vm1 is not running\n");
    bench_idle(&bench);
    bench_up(&bench, "vm1", 11);
    bench_expect(&bench, "vm1 starting\nusb:1-1 waits vm1: vm1 is starting\nMEMORY\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_RETRY, "no greeting", NULL);
    bench_expect(&bench, "vm1 silent: no greeting\nusb:1-1 waits vm1: vm1 does not answer: no greeting\n");
    for (unsigned i = 0; i < 20; i++) { // said once
        bench_at_deadline(&bench);
        bench_expect(&bench, "LIST vm1\n");
        bench_answer(&bench, "vm1", RESULT_RETRY, "still no greeting", NULL);
        bench_expect(&bench, "");
    }
    assert_true(reconcile_deadline(bench.reconcile) - bench.now <= 30 * SECOND);
    assert_true(reconcile_deadline(bench.reconcile) - bench.now >= 15 * SECOND);
    bench_at_deadline(&bench);
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\nusb:1-1 attaching vm1: " RULE1 "\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_f20_one_lost_list_is_not_silence(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, false);
    bench_up(&bench, "vm1", 11);
    bench_expect(&bench, "vm1 starting\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_LOST, "the connection ended", NULL);
    bench_expect(&bench, "");
    bench_at_deadline(&bench);
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_LOST, NULL, NULL);
    bench_expect(&bench, "vm1 silent\n");
    bench_clear(&bench);
}

static void test_f11_removal_needs_only_the_place(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_unplug(&bench, 2, 0);
    bench_unplug(&bench, 1, 4); // an old one
    bench_idle(&bench);
    bench_unplug(&bench, 1, 0);
    bench_expect(&bench, "usb:1-1 unplugged\nMEMORY\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "MEMORY\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f07_f08_re_enumeration_goes_back_in_after_the_old_one(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    for (uint64_t i = 6; i < 16; i++) {
        char list[8], said[256];
        bench_plug(&bench, 1, i, 1, true); // no removal was seen
        bench_expect(&bench, "usb:1-1 unplugged\n"
                             "usb:1-1 waits vm1: vm1 has not let go yet of the device that was there before\n"
                             "MEMORY\nDETACH vm1 a\n");
        bench_answer(&bench, "vm1", RESULT_DONE, "", "");
        snprintf(said, sizeof(said), "usb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 %d\n", (int)i);
        bench_expect(&bench, said);
        snprintf(list, sizeof(list), "a=%d", (int)i);
        bench_answer(&bench, "vm1", RESULT_DONE, "", list);
        bench_expect(&bench, "usb:1-1 attached vm1: " RULE1 "\n");
    }
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f28_replug_during_the_attach(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_unplug(&bench, 1, 5);
    bench_plug(&bench, 1, 6, 1, true);
    bench_expect(&bench, "usb:1-1 unplugged\nusb:1-1 attaching vm1: " RULE1 "\nMEMORY\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "usb:1-1 waits vm1: vm1 has not let go yet of the device that was there before\n"
                         "MEMORY\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 6\n");
    bench_clear(&bench);
}

static void test_f28_eight_at_once_one_after_the_other(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    for (unsigned i = 1; i <= 3; i++)
        bench_plug(&bench, i, i, 1, true);
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\nusb:1-2 attaching vm1: " RULE1
                         "\nusb:1-3 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=1");
    bench_expect(&bench, "usb:1-1 attached vm1: " RULE1 "\nATTACH vm1 usb:1-2 2\n");
    bench_answer(&bench, "vm1", RESULT_RETRY, "not ready", "a=1"); // stops no other
    bench_expect(&bench, "usb:1-2 waits vm1: not ready\nATTACH vm1 usb:1-3 3\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=1 c=3");
    bench_expect(&bench, "usb:1-3 attached vm1: " RULE1 "\n");
    bench_at_deadline(&bench);
    bench_expect(&bench, "ATTACH vm1 usb:1-2 2\n");
    bench_clear(&bench);
}

static void test_f02_f05_twins_are_told_apart(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 112, 1, true);
    bench_plug(&bench, 2, 211, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=112");
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=112 b=211");
    bench_skip(&bench);
    bench_unplug(&bench, 1, 112);
    bench_expect(&bench, "usb:1-1 unplugged\nMEMORY\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=211");
    bench_expect(&bench, "MEMORY\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f01_equal_devices_only_the_one_of_the_rule(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    CLEANUP(cleanup_device) struct device *disk = bench_device(2, 6, 1);
    disk->host_use = string_copy("/ is mounted from it");
    reconcile_device(bench.reconcile, disk, true, bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "usb:1-1 attached vm1: " RULE1 "\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f26_all_that_belonged_to_a_vm_comes_back(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_up(&bench, "vm1", 12); // without down
    bench_expect(&bench, "vm1 starting\nusb:1-1 waits vm1: vm1 is starting\nMEMORY\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\nusb:1-1 attaching vm1: " RULE1 "\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_f26_restart_of_a_process_that_cannot_be_told(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_up(&bench, "vm1", 0);
    bench_expect(&bench, "vm1 starting\nMEMORY\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\nusb:1-1 attaching vm1: " RULE1 "\nATTACH vm1 usb:1-1 5\n");
    bench_up(&bench, "vm1", 0); // in the middle: the result tells nothing of the new process
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "vm1 starting\nusb:1-1 waits vm1: vm1 is starting\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "vm1 answers\nusb:1-1 attached vm1: " RULE1 "\n");
    bench_clear(&bench);
}

static void test_f26_same_process_told_again_is_news(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_up(&bench, "vm1", 11);
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f31_what_a_dead_vm_had_is_free(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_down(&bench, "vm1");
    bench_expect(&bench, "vm1 down\nusb:1-1 waits vm1: vm1 is not running\nMEMORY\n");
    bench_configure(&bench, "{\"targetVm\":\"vm2\",\"allow\":[{\"vendorId\":\"0001\"}]}", true);
    bench_expect(&bench, "usb:1-1 attaching vm2: " RULE1 "\nMEMORY\nATTACH vm2 usb:1-1 5\n");
    bench_down(&bench, "vm2");
    bench_answer(&bench, "vm2", RESULT_LOST, "", NULL); // late, and of no interest
    bench_answer(&bench, "vm2", RESULT_LOST, "", NULL); // twice
    bench_expect(&bench, "vm2 down\nusb:1-1 waits vm2: vm2 is not running\nMEMORY\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f29_a_move_waits_until_the_old_vm_lets_go(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_configure(&bench, "{\"targetVm\":\"vm2\",\"allow\":[{\"vendorId\":\"0001\"}]}", true);
    bench_expect(&bench, "usb:1-1 detaching vm1: it is taken out of vm1, for it now belongs in vm2\nMEMORY\n"
                         "DETACH vm1 a\n");
    assert_int_equal(bench.leaving, 5); // the host keeps its drivers from it first
    bench_answer(&bench, "vm1", RESULT_PENDING, "", "a=5~");
    bench_expect(&bench, "usb:1-1 detaching vm1: vm1 has been asked to let go of it and has not done so yet\n");
    bench_at_deadline(&bench);
    bench_expect(&bench, "LIST vm1\n"); // it is asked, not told again
    bench_answer(&bench, "vm1", RESULT_RETRY, "no greeting", NULL);
    bench_expect(&bench, "vm1 silent: no greeting\nusb:1-1 detaching vm1: vm1 does not answer: no greeting\n");
    bench_at_deadline(&bench);
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5"); // the guest did not want to
    bench_expect(&bench, "vm1 answers\nusb:1-1 detaching vm1: it is taken out of vm1, for it now belongs in vm2\n"
                         "DETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", NULL);
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-1 attaching vm2: " RULE1 "\nMEMORY\nATTACH vm2 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_f29_a_removal_that_fails_is_said_once_and_repeated(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_configure(&bench, "", true);
    bench_expect(&bench, "usb:1-1 detaching vm1: no rule allows it\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_REFUSED, "busy", "a=5");
    bench_expect(&bench, "usb:1-1 detaching vm1: vm1 does not let go of it: busy\n");
    bench_at_deadline(&bench);
    bench_expect(&bench, "DETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_LOST, "lost", NULL);
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "");
    bench_at_deadline(&bench);
    bench_expect(&bench, "DETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "note vm1: it has let go of a\nusb:1-1 host: no rule allows it\nMEMORY\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f29_a_stale_object_that_stays_is_noted_once(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_unplug(&bench, 1, 5);
    bench_skip(&bench);
    for (unsigned i = 0; i < 3; i++) {
        bench_answer(&bench, "vm1", RESULT_RETRY, "", "a=5");
        bench_expect(&bench, i ? "" : "note vm1: it does not let go of a, whose device has gone\n");
        bench_at_deadline(&bench);
        bench_expect(&bench, "DETACH vm1 a\n");
    }
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "note vm1: it has let go of a\nMEMORY\n");
    bench_clear(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f30_attached_is_said_when_the_vm_lists_it),
        cmocka_unit_test(test_f30_done_but_not_listed_is_no_attachment),
        cmocka_unit_test(test_f20_a_stopped_vm_costs_nothing),
        cmocka_unit_test(test_f20_one_lost_list_is_not_silence),
        cmocka_unit_test(test_f11_removal_needs_only_the_place),
        cmocka_unit_test(test_f07_f08_re_enumeration_goes_back_in_after_the_old_one),
        cmocka_unit_test(test_f28_replug_during_the_attach),
        cmocka_unit_test(test_f28_eight_at_once_one_after_the_other),
        cmocka_unit_test(test_f02_f05_twins_are_told_apart),
        cmocka_unit_test(test_f01_equal_devices_only_the_one_of_the_rule),
        cmocka_unit_test(test_f26_all_that_belonged_to_a_vm_comes_back),
        cmocka_unit_test(test_f26_restart_of_a_process_that_cannot_be_told),
        cmocka_unit_test(test_f26_same_process_told_again_is_news),
        cmocka_unit_test(test_f31_what_a_dead_vm_had_is_free),
        cmocka_unit_test(test_f29_a_move_waits_until_the_old_vm_lets_go),
        cmocka_unit_test(test_f29_a_removal_that_fails_is_said_once_and_repeated),
        cmocka_unit_test(test_f29_a_stale_object_that_stays_is_noted_once),
    };
    return cmocka_run_group_tests_name("reconcile", tests, NULL, NULL);
}
