// The reconciler when VMs refuse, hang, lie and forget; the rows F.. are those of the catalogue of failures.
#include "bench.h"
#include "unit.h"

#define RULE1 "allowed by usbPassthrough[0].allow[0]"
#define RULE2 "allowed by usbPassthrough[1].allow[0]"
#define SECOND 1000000u

static void test_f40_foreign_objects_are_left_alone(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    reconcile_vm_news(bench.reconcile, "vm2", bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "f@5");
    bench_expect(&bench, "note vm2: another tool has put a host device into it, which is left alone: f\n");
    bench_plug(&bench, 1, 5, 1, true);
    bench_expect(&bench, "usb:1-1 waits vm2: another tool has put it into vm2 as f; take it out there\n"
                         "MEMORY\n");
    bench_at_deadline(&bench);
    bench_expect(&bench, "LIST vm2\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "f@5");
    bench_expect(&bench, "");
    bench_at_deadline(&bench);
    bench_expect(&bench, "LIST vm2\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "g@9");
    bench_expect(&bench, "note vm2: another tool has put a host device into it, which is left alone: g\n"
                         "usb:1-1 attaching vm1: " RULE1 "\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

// The next word about a device.
static struct output say(struct bench *bench)
{
    struct output output = {0};
    while (reconcile_next(bench->reconcile, bench->now, &output) && output.kind != OUTPUT_DEVICE)
        operation_clear(&output.operation);
    assert_int_equal(output.kind, OUTPUT_DEVICE);
    return output;
}

static void test_what_rests_is_in_no_vm_and_comes_into_none_by_itself(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_RETRY, "no greeting", "");
    struct output output = say(&bench);
    assert_int_equal(output.state, STATE_WAITS);
    assert_false(output.rests); // it is tried again
    bench_at_deadline(&bench);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_REFUSED, "no USB controller", "");
    output = say(&bench);
    assert_int_equal(output.state, STATE_REFUSED);
    assert_true(output.rests);
    bench_down(&bench, "vm1");
    output = say(&bench);
    assert_int_equal(output.state, STATE_WAITS);
    assert_true(output.rests);
    bench_up(&bench, "vm1", 2);
    output = say(&bench);
    assert_false(output.rests); // the VM may have it
    bench_clear(&bench);
}

static void test_f41_a_full_controller_and_a_free_port(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_plug(&bench, 2, 6, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_REFUSED, "no free port; add -device qemu-xhci", "a=5");
    bench_expect(&bench, "usb:1-2 refused vm1: no free port; add -device qemu-xhci\n");
    bench_idle(&bench);
    bench_unplug(&bench, 1, 5);
    bench_expect(&bench, "usb:1-1 unplugged\nMEMORY\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "MEMORY\nATTACH vm1 usb:1-2 6\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=6");
    bench_expect(&bench, "usb:1-2 attached vm1: " RULE1 "\n");
    bench_clear(&bench);
}

static void test_f41_a_refusal_is_tried_again_on_news_only(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_REFUSED, "no USB controller", "");
    bench_expect(&bench, "usb:1-1 refused vm1: no USB controller\n");
    bench_idle(&bench);
    CLEANUP(cleanup_device) struct device *changed = bench_device(1, 5, 1);
    changed->serial = string_copy("x");
    reconcile_device(bench.reconcile, changed, false, bench.now);
    bench_expect(&bench, "ATTACH vm1 usb:1-1 5\n");
    bench_answer(&bench, "vm1", RESULT_REFUSED, "no USB controller", "");
    bench_idle(&bench); // the same again is not said again
    reconcile_vm_news(bench.reconcile, "vm1", bench.now);
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "ATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_f44_a_failure_that_repeats_is_said_once(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_LOST, NULL, NULL);
    bench_expect(&bench, "usb:1-1 waits vm1: it did not say why\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    uint64_t first = 0;
    for (unsigned i = 0; i < 12; i++) {
        bench_expect(&bench, "");
        first = first ? first : reconcile_deadline(bench.reconcile) - bench.now;
        bench_at_deadline(&bench);
        bench_expect(&bench, "ATTACH vm1 usb:1-1 5\n");
        bench_answer(&bench, "vm1", i % 2 ? RESULT_GONE : RESULT_PENDING, "", "");
    }
    assert_true(first >= SECOND / 10 && first <= SECOND / 5);
    bench_expect(&bench, "");
    assert_true(reconcile_deadline(bench.reconcile) - bench.now > 15 * SECOND);
    reconcile_vm_news(bench.reconcile, "vm1", bench.now); // news cancels the waiting
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "ATTACH vm1 usb:1-1 5\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "usb:1-1 attached vm1: " RULE1 "\n");
    bench.now += 3600u * SECOND;
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_silence_in_the_middle_of_an_attach(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    reconcile_vm_silent(bench.reconcile, "vm1", "nothing is in flight", bench.now);
    bench_idle(&bench);
    bench_plug(&bench, 1, 5, 1, true);
    bench_plug(&bench, 2, 6, 2, true);
    bench_skip(&bench);
    reconcile_vm_silent(bench.reconcile, "vm1", "no answer for 2 s", bench.now);
    reconcile_vm_silent(bench.reconcile, "vm1", "no answer for 4 s", bench.now);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "b=6"); // goes on
    bench_expect(&bench, "vm1 silent: no answer for 2 s\nusb:1-1 waits vm1: vm1 does not answer: no answer for 2 s\n"
                         "usb:1-2 attached vm2: " RULE2 "\n");
    bench_configure(&bench, "{\"targetVm\":\"vm2\",\"allow\":[{\"vendorId\":\"0001\"},{\"vendorId\":\"0002\"}]}", true);
    bench_expect(&bench, "usb:1-1 detaching vm1: vm1 does not answer: no answer for 2 s\n"
                         "usb:1-2 attached vm2: allowed by usbPassthrough[0].allow[1]\nMEMORY\n");
    bench_answer(&bench, "vm1", RESULT_LOST, "", NULL); // it may have it: it is not attached elsewhere
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\nusb:1-1 attaching vm2: " RULE1 "\nMEMORY\nATTACH vm2 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_f44_a_vm_that_hangs_at_every_attach_is_said_once(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    reconcile_vm_silent(bench.reconcile, "vm1", "no answer", bench.now);
    bench_expect(&bench, "vm1 silent: no answer\nusb:1-1 waits vm1: vm1 does not answer: no answer\n");
    for (unsigned i = 0; i < 5; i++) {
        bench_answer(&bench, "vm1", RESULT_LOST, "the connection ended", NULL);
        bench_expect(&bench, "LIST vm1\n");
        bench_answer(&bench, "vm1", RESULT_DONE, "", "");
        bench_expect(&bench, "");
        bench_at_deadline(&bench);
        bench_expect(&bench, "ATTACH vm1 usb:1-1 5\n");
        reconcile_vm_silent(bench.reconcile, "vm1", "no answer again", bench.now);
        bench_expect(&bench, "");
    }
    bench_answer(&bench, "vm1", RESULT_LOST, "the connection ended", NULL);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_unplug(&bench, 1, 5); // nothing is left that it does not do
    bench_expect(&bench, "usb:1-1 unplugged\nvm1 answers\nMEMORY\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_a_lost_attach_counts_as_held_until_the_list(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_LOST, "the connection ended", NULL);
    bench_configure(&bench, "{\"targetVm\":\"vm2\",\"allow\":[{\"vendorId\":\"0001\"}]}", true);
    bench_expect(&bench,
                 "usb:1-1 detaching vm1: it is taken out of vm1, for it now belongs in vm2\nMEMORY\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "DETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-1 attaching vm2: " RULE1 "\nMEMORY\nATTACH vm2 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_eject_waits_for_news(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    reconcile_vm_news(bench.reconcile, "vm1", bench.now);
    bench_expect(&bench, "LIST vm1\n");
    reconcile_vm_news(bench.reconcile, "vm1", bench.now); // while it is asked
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench,
                 "usb:1-1 ejected vm1: the guest of vm1 took it out; plug it again, restart the VM or reload the "
                 "configuration to put it back\nMEMORY\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_idle(&bench);
    bench_down(&bench, "vm1");
    bench_up(&bench, "vm1", 12);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\nusb:1-1 attaching vm1: " RULE1 "\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

// An attach that was lost and that no list shows is no eject, though the same object was listed and ejected before:
// crosvm uses a port anew at once.
static void test_an_object_that_no_list_has_shown_is_not_ejected(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    reconcile_vm_news(bench.reconcile, "vm1", bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_skip(&bench);
    bench_configure(&bench, "{\"targetVm\":\"vm1\",\"allow\":[{\"vendorId\":\"0001\"}]}", false);
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\nMEMORY\nATTACH vm1 usb:1-1 5\n"); // comes and goes
    bench_answer(&bench, "vm1", RESULT_LOST, "the connection ended", NULL);
    bench_expect(&bench, "usb:1-1 waits vm1: the connection ended\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "");
    bench_at_deadline(&bench);
    bench_expect(&bench, "ATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_a_dead_object_is_replaced(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    reconcile_vm_news(bench.reconcile, "vm1", bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5!");
    bench_expect(&bench, "usb:1-1 detaching vm1: vm1 has lost hold of it; it is taken out and put in again\n"
                         "DETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-1 attaching vm1: " RULE1 "\n"); // not at once: it may die again
    bench_at_deadline(&bench);
    bench_expect(&bench, "ATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_a_device_twice_in_a_vm_loses_one(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    reconcile_vm_news(bench.reconcile, "vm1", bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=5 b=5");
    bench_expect(&bench, "DETACH vm1 b\nnote vm1: it has a device twice; b is taken out\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_host_use_of_an_attached_device_changes_nothing(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    CLEANUP(cleanup_device) struct device *used = bench_device(1, 5, 1);
    used->host_use = string_copy("/home is mounted from it");
    reconcile_device(bench.reconcile, used, false, bench.now);
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_adopts_and_ignores_without_a(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, false);
    bench_plug(&bench, 1, 5, 1, false);
    bench_plug(&bench, 2, 6, 1, false);
    bench_plug(&bench, 3, 7, 9, false);
    bench_expect(&bench, "usb:1-3 host: no rule allows it\n"); // the lists will tell of the others
    bench_up(&bench, "vm1", 11);
    bench_down(&bench, "vm2");
    bench_expect(&bench, "vm1 starting\nvm2 down\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 old=99");
    bench_expect(&bench, "vm1 answers\nusb:1-1 attached vm1: " RULE1 "\n"
                         "usb:1-2 ignored: it was there before vhotplug started, and -a was not given\nMEMORY\n");
    reconcile_scanned(bench.reconcile, bench.now);
    bench_expect(&bench, "DETACH vm1 old\n"
                         "note vm1: it still has old of a device that is not there any more; it is taken out\n");
    bench_clear(&bench);
}

static void test_f05_memory_keeps_what_is_managed_and_where(void **state)
{
    (void)state;
    struct bench bench;
    struct memory_device entries[] = {
        {.key = (char *)"usb:1-1", .instance = 5, .managed = true, .vm = (char *)"vm2", .vm_instance = 22},
        {.key = (char *)"usb:1-2", .instance = 6, .managed = true, .vm = NULL, .vm_instance = 0},
        {.key = (char *)"usb:1-3", .instance = 7, .managed = false, .vm = (char *)"vm1", .vm_instance = 10},
        {.key = (char *)"usb:1-4", .instance = 8, .managed = true, .vm = NULL, .vm_instance = 0},
        {.key = (char *)"usb:1-5", .instance = 9, .managed = true, .vm = (char *)"vm9", .vm_instance = 0}};
    struct memory memory = {entries, 5};
    bench_init(&bench, false);
    reconcile_remember(bench.reconcile, &memory);
    bench_plug(&bench, 1, 5, 1, false);
    bench_plug(&bench, 2, 6, 1, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_up(&bench, "vm1", 11);
    bench_up(&bench, "vm2", 22);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\n");
    reconcile_vm_silent(bench.reconcile, "vm2", "no greeting", bench.now); // the one must wait, the other not
    bench_expect(&bench, "vm2 silent: no greeting\n"
                         "usb:1-1 waits: vm2 may still have it and has not said so yet\n"
                         "usb:1-2 attaching vm1: " RULE1 "\nATTACH vm1 usb:1-2 6\n");
    bench_down(&bench, "vm2");
    bench_expect(&bench, "vm2 down\nusb:1-1 attaching vm1: " RULE1 "\nMEMORY\n");
    struct memory kept;
    reconcile_memory(bench.reconcile, &kept);
    assert_int_equal(kept.count, 2);
    assert_string_equal(kept.devices[0].vm, "vm1");
    assert_true(kept.devices[0].managed && kept.devices[0].vm_instance == 11);
    memory_clear(&kept);
    bench_clear(&bench);
}

// An attach that an earlier run began is seen in the VM's list, and the VM starts anew before the device is found.
static void test_f26_what_a_vm_had_before_the_scan_found_it_is_attached_again(void **state)
{
    (void)state;
    struct bench bench;
    struct memory_device entry = {.key = (char *)"usb:1-1", .instance = 5, .vm = (char *)"vm1", .vm_instance = 10};
    bench_init(&bench, false);
    reconcile_remember(bench.reconcile, &(struct memory){&entry, 1});
    bench_down(&bench, "vm2");
    bench_up(&bench, "vm1", 10);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_skip(&bench);
    bench_up(&bench, "vm1", 11);
    bench_plug(&bench, 1, 5, 1, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\nusb:1-1 attaching vm1: " RULE1 "\nATTACH vm1 usb:1-1 5\n");
    bench_clear(&bench);
}

static void test_a_vm_that_left_the_configuration_is_served_until_empty(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_plug(&bench, 2, 6, 2, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "b=6");
    bench_skip(&bench);
    assert_false(reconcile_needs_vm(bench.reconcile, "vm2"));
    bench_configure(&bench, "{\"targetVm\":\"vm1\",\"allow\":[{\"vendorId\":\"0001\"}]}", false);
    assert_true(reconcile_needs_vm(bench.reconcile, "vm2"));
    assert_false(reconcile_needs_vm(bench.reconcile, "nobody"));
    bench_expect(&bench, "usb:1-2 detaching vm2: no rule allows it\nDETACH vm2 b\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-2 host: no rule allows it\nMEMORY\n");
    assert_false(reconcile_needs_vm(bench.reconcile, "vm2"));
    reconcile_vm_news(bench.reconcile, "vm2", bench.now);
    reconcile_vm_down(bench.reconcile, "nobody", bench.now);
    reconcile_vm_up(bench.reconcile, "nobody", 1, bench.now);
    reconcile_vm_silent(bench.reconcile, "nobody", "", bench.now);
    bench_answer(&bench, "vm4", RESULT_DONE, "", "");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_a_vm_that_is_not_served_yet(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_plug(&bench, 3, 7, 3, true);
    bench_expect(&bench, "usb:1-3 waits vm3: vm3 is a cloud-hypervisor VM, which is not served yet\nMEMORY\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static struct device *input_mouse(void)
{
    struct device *mouse = device_new(DEVICE_INPUT);
    mouse->key = string_copy("input:input5");
    mouse->instance = 9;
    mouse->properties = memory_new(1, sizeof(char *));
    mouse->properties[0] = string_copy("ID_INPUT_MOUSE=1");
    mouse->property_count = 1;
    return mouse;
}

static void test_an_input_device_waits_for_the_start_of_a_vm_that_takes_it_only_then(void **state)
{
    static const char *const types[] = {"crosvm", "cloud-hypervisor"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bench bench;
        CLEANUP(cleanup_device) struct device *mouse = input_mouse();
        bench_ready(&bench, false);
        CLEANUP(cleanup_free)
        char *text = string_printf("{\"evdevPassthrough\":{\"targetVm\":\"vm4\"},"
                                   "\"vms\":[{\"name\":\"vm4\",\"type\":\"%s\",\"socket\":\"/4\"}]}",
                                   types[i]);
        bench_configure_text(&bench, text);
        bench_skip(&bench);
        reconcile_device(bench.reconcile, mouse, true, bench.now);
        bench_expect(&bench, "input:input5 waits vm4: vm4 takes input devices only at its start\nMEMORY\n");
        bench_idle(&bench);
        bench_up(&bench, "vm4", 7);
        bench_skip(&bench);
        bench_answer(&bench, "vm4", RESULT_DONE, "", "");
        bench_skip(&bench); // nothing is attached
        bench_idle(&bench);
        reconcile_device_gone(bench.reconcile, "input:input5", 9, bench.now);
        bench_expect(&bench, "input:input5 unplugged\nMEMORY\n");
        bench_clear(&bench);
    }
}

// The node of a device that has gone makes QEMU spin until it is taken out.
static void test_f49_an_input_device_that_has_gone_is_taken_out_at_once_and_its_port_serves_the_next(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    CLEANUP(cleanup_device) struct device *mouse = input_mouse();
    CLEANUP(cleanup_device) struct device *next = input_mouse();
    reconcile_device(bench.reconcile, mouse, true, bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=9");
    free(next->key);
    next->key = string_copy("input:input6");
    next->instance = 10;
    bench_skip(&bench);
    reconcile_device(bench.reconcile, next, true, bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_REFUSED, "no port", NULL);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=9");
    bench_skip(&bench);
    reconcile_device_gone(bench.reconcile, "input:input5", 9, bench.now);
    bench_expect(&bench, "input:input5 unplugged\nMEMORY\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "MEMORY\nATTACH vm1 input:input6 10 on ep\n");
    bench_clear(&bench);
}

static void test_an_input_device_goes_on_the_ports_of_its_group(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    CLEANUP(cleanup_device) struct device *mouse = input_mouse();
    reconcile_device(bench.reconcile, mouse, true, bench.now);
    bench_expect(&bench, "input:input5 attaching vm1: allowed by evdevPassthrough\nMEMORY\n"
                         "ATTACH vm1 input:input5 9 on ep\n");
    bench_clear(&bench);
}

// A bench with a crosvm VM vm4, up and empty, to which devices of vendor 1 go.
static void crosvm_ready(struct bench *bench)
{
    bench_init(bench, false);
    bench_configure_text(bench, "{\"usbPassthrough\":[{\"targetVm\":\"vm4\",\"allow\":[{\"vendorId\":\"0001\"}]}],"
                                "\"vms\":[{\"name\":\"vm4\",\"type\":\"crosvm\",\"socket\":\"/4\"}]}");
    reconcile_scanned(bench->reconcile, bench->now);
    bench_up(bench, "vm4", 44);
    bench_skip(bench);
    bench_answer(bench, "vm4", RESULT_DONE, "", "");
    bench_skip(bench);
}

static void test_a_port_that_is_used_anew_at_once_holds_another_object(void **state)
{
    (void)state;
    struct bench bench;
    crosvm_ready(&bench);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm4", RESULT_DONE, "", "1=5");
    bench_plug(&bench, 2, 6, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm4", RESULT_DONE, "", "1=6");
    bench_expect(&bench, "usb:1-1 ejected vm4: the guest of vm4 took it out; plug it again, restart the VM or reload "
                         "the configuration to put it back\n"
                         "usb:1-2 attached vm4: allowed by usbPassthrough[0].allow[0]\nMEMORY\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

// What the memory says of devices in vm4: "INSTANCE=OBJECT", one after the other.
static void expect_remembered(const struct bench *bench, const char *expected)
{
    struct memory memory;
    struct text text = {0};
    reconcile_memory(bench->reconcile, &memory);
    for (size_t i = 0; i < memory.count; i++)
        if (memory.devices[i].vm)
            text_printf(&text, " %d=%s", (int)memory.devices[i].instance,
                        memory.devices[i].object ? memory.devices[i].object : "?");
    memory_clear(&memory);
    CLEANUP(cleanup_free) char *words = text_take(&text);
    assert_string_equal(words ? words : "", expected);
}

// crosvm lists numbers only: of several devices that might be there, nobody could tell which one is.
static void test_f05_memory_of_a_crosvm_keeps_ports_and_what_is_on_its_way(void **state)
{
    (void)state;
    struct bench bench;
    crosvm_ready(&bench);
    bench_plug(&bench, 1, 5, 1, true);
    bench_plug(&bench, 2, 6, 1, true);
    bench_skip(&bench);
    expect_remembered(&bench, " 5=?");
    bench_answer(&bench, "vm4", RESULT_DONE, "", "3=5");
    bench_skip(&bench);
    expect_remembered(&bench, " 5=3 6=?");
    bench_unplug(&bench, 2, 6); // it may be there all the same
    bench_skip(&bench);
    expect_remembered(&bench, " 5=3 6=?");
    bench_answer(&bench, "vm4", RESULT_LOST, "it closed the connection", NULL);
    bench_skip(&bench);
    expect_remembered(&bench, " 5=3 6=?");
    bench_answer(&bench, "vm4", RESULT_DONE, "", "3=5 4=6");
    bench_skip(&bench);
    expect_remembered(&bench, " 5=3 6=4");
    bench_answer(&bench, "vm4", RESULT_DONE, "", "3=5");
    bench_skip(&bench);
    expect_remembered(&bench, " 5=3");
    bench_clear(&bench);
}

static void test_f05_memory_of_ports_outlives_a_configuration_without_their_vm(void **state)
{
    (void)state;
    struct bench bench;
    struct memory_device entries[] = {
        {.key = (char *)"usb:1-1", .instance = 5, .vm = (char *)"vm9", .vm_instance = 9, .object = (char *)"3"},
        {.key = (char *)"usb:1-2", .instance = 6, .vm = (char *)"vm9", .vm_instance = 9}};
    bench_init(&bench, false);
    reconcile_remember(bench.reconcile, &(struct memory){entries, 2});
    reconcile_scanned(bench.reconcile, bench.now);
    bench_skip(&bench);
    expect_remembered(&bench, " 5=3");
    bench_clear(&bench);
}

static void test_words_of_no_consequence(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    bench_down(&bench, "vm2");
    bench_expect(&bench, "vm2 down\n");
    reconcile_vm_news(bench.reconcile, "vm2", bench.now);
    reconcile_vm_silent(bench.reconcile, "vm2", "is down", bench.now);
    bench_idle(&bench);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    struct result other = {.serial = 1, .kind = RESULT_REFUSED};
    reconcile_result(bench.reconcile, "vm1", &other, bench.now); // of an operation that is not in flight
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_foreign_objects_do_not_keep_a_vm_served(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    reconcile_vm_news(bench.reconcile, "vm2", bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "f@7");
    bench_skip(&bench);
    bench_configure(&bench, "", false);
    assert_false(reconcile_needs_vm(bench.reconcile, "vm2"));
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_f28_a_hundred_at_once(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, false);
    for (unsigned i = 1; i <= 100; i++)
        bench_plug(&bench, i, i, 9, true);
    bench_skip(&bench);
    for (unsigned i = 1; i <= 100; i++)
        bench_unplug(&bench, i, i);
    struct output output;
    for (unsigned i = 1; i <= 100; i++) {
        assert_true(reconcile_next(bench.reconcile, bench.now, &output));
        assert_true(output.kind == OUTPUT_DEVICE && output.gone && output.device->instance == i);
    }
    bench_plug(&bench, 1, 101, 9, true); // what is still on its way is not lost, nor leaked
    bench_clear(&bench);
}

static void test_nothing_happens_without_a_configuration(void **state)
{
    (void)state;
    struct reconcile *reconcile = reconcile_new(1, true);
    struct device *device = bench_device(1, 5, 1);
    struct output output;
    reconcile_device(reconcile, device, true, 1);
    assert_false(reconcile_next(reconcile, 1, &output));
    device_release(device);
    reconcile_free(reconcile);
    reconcile_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f40_foreign_objects_are_left_alone),
        cmocka_unit_test(test_what_rests_is_in_no_vm_and_comes_into_none_by_itself),
        cmocka_unit_test(test_f41_a_full_controller_and_a_free_port),
        cmocka_unit_test(test_f41_a_refusal_is_tried_again_on_news_only),
        cmocka_unit_test(test_f44_a_failure_that_repeats_is_said_once),
        cmocka_unit_test(test_silence_in_the_middle_of_an_attach),
        cmocka_unit_test(test_f44_a_vm_that_hangs_at_every_attach_is_said_once),
        cmocka_unit_test(test_a_lost_attach_counts_as_held_until_the_list),
        cmocka_unit_test(test_eject_waits_for_news),
        cmocka_unit_test(test_an_object_that_no_list_has_shown_is_not_ejected),
        cmocka_unit_test(test_a_dead_object_is_replaced),
        cmocka_unit_test(test_a_device_twice_in_a_vm_loses_one),
        cmocka_unit_test(test_host_use_of_an_attached_device_changes_nothing),
        cmocka_unit_test(test_adopts_and_ignores_without_a),
        cmocka_unit_test(test_f05_memory_keeps_what_is_managed_and_where),
        cmocka_unit_test(test_f26_what_a_vm_had_before_the_scan_found_it_is_attached_again),
        cmocka_unit_test(test_a_vm_that_left_the_configuration_is_served_until_empty),
        cmocka_unit_test(test_a_vm_that_is_not_served_yet),
        cmocka_unit_test(test_an_input_device_goes_on_the_ports_of_its_group),
        cmocka_unit_test(test_an_input_device_waits_for_the_start_of_a_vm_that_takes_it_only_then),
        cmocka_unit_test(test_f49_an_input_device_that_has_gone_is_taken_out_at_once_and_its_port_serves_the_next),
        cmocka_unit_test(test_a_port_that_is_used_anew_at_once_holds_another_object),
        cmocka_unit_test(test_f05_memory_of_a_crosvm_keeps_ports_and_what_is_on_its_way),
        cmocka_unit_test(test_f05_memory_of_ports_outlives_a_configuration_without_their_vm),
        cmocka_unit_test(test_words_of_no_consequence),
        cmocka_unit_test(test_foreign_objects_do_not_keep_a_vm_served),
        cmocka_unit_test(test_f28_a_hundred_at_once),
        cmocka_unit_test(test_nothing_happens_without_a_configuration),
    };
    return cmocka_run_group_tests_name("reconcile_trouble", tests, NULL, NULL);
}
