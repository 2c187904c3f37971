// The reconciler and PCI functions: their order, their IOMMU groups, their suspend.
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "core/choice.h"
#include "unit.h"

#define FIXED                                                                                                          \
    "{\"targetVm\":\"vm1\",\"tag\":\"net\",\"allow\":[{\"vendorId\":\"0001\"},{\"vendorId\":\"0004\"}]},"              \
    "{\"targetVm\":\"vm2\",\"qemuUseRootBus\":true,\"allow\":[{\"vendorId\":\"0002\"}]},"                              \
    "{\"targetVm\":\"vm3\",\"allow\":[{\"vendorId\":\"0003\"}]}"
#define CHOICE "{\"allowedVms\":[\"vm1\",\"vm2\"],\"allow\":[{\"vendorId\":\"0001\"}]}"
#define RULE(group, rule) "allowed by pciPassthrough[" #group "].allow[" #rule "]"
#define HELD(vm, function)                                                                                             \
    vm " has or is getting 0000:" function " of the same IOMMU group, and a group can be in one VM only"

static void configure(struct bench *bench, const char *groups, const char *vm3)
{
    CLEANUP(cleanup_free)
    char *text = string_printf("{\"pciPassthrough\":[%s],\"usbPassthrough\":[{\"targetVm\":\"vm1\",\"allow\":["
                               "{\"vendorId\":\"0001\"}]}],\"general\":{\"api\":{\"enable\":true}},"
                               "\"vms\":[{\"name\":\"vm1\",\"type\":\"qemu\",\"socket\":\"/1\"},"
                               "{\"name\":\"vm2\",\"type\":\"qemu\",\"socket\":\"/2\"},"
                               "{\"name\":\"vm3\",\"type\":\"%s\",\"socket\":\"/3\"}]}",
                               groups, vm3);
    bench_configure_text(bench, text);
}

// The bench with these groups; vm1 and vm2 are up and empty and the scan is complete if READY.
static void start(struct bench *bench, const char *groups, bool ready)
{
    bench_init(bench, true);
    configure(bench, groups, "cloud-hypervisor");
    if (!ready)
        return;
    reconcile_scanned(bench->reconcile, bench->now);
    bench_up(bench, "vm1", 11);
    bench_up(bench, "vm2", 22);
    bench_skip(bench);
    bench_answer(bench, "vm1", RESULT_DONE, "", "");
    bench_answer(bench, "vm2", RESULT_DONE, "", "");
    bench_skip(bench);
}

// The function of "0000:PLACE", of an IOMMU group (-1: none).
static void function(struct bench *bench, const char *place, uint64_t instance, unsigned vendor, int group,
                     bool plugged)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_PCI);
    device->key = string_printf("pci:0000:%s", place);
    device->instance = instance;
    device->vendor_id = (uint16_t)vendor;
    device->iommu_group = group;
    reconcile_device(bench->reconcile, device, plugged, bench->now);
}

static void no_error(char *error)
{
    if (error)
        fail_msg("%s", error);
}

static void test_another_driver_is_shown_and_changes_nothing(void **state)
{
    (void)state;
    struct bench bench;
    struct device_status status;
    struct output output;
    start(&bench, FIXED, true);
    for (int i = 0; i < 2; i++) {
        CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_PCI);
        device->key = string_copy("pci:0000:01:00.0");
        device->instance = 3;
        device->driver = string_copy(i ? "vfio-pci" : "e1000e");
        reconcile_device(bench.reconcile, device, true, bench.now);
        if (i)
            assert_false(reconcile_next(bench.reconcile, bench.now, &output));
        bench_skip(&bench);
        reconcile_device_status(bench.reconcile, 0, &status);
        assert_string_equal(status.device->driver, i ? "vfio-pci" : "e1000e");
        device_status_clear(&status);
    }
    bench_clear(&bench);
}

static void test_f34_the_order_of_the_rules_then_of_addresses(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, false);
    bench_up(&bench, "vm1", 11);
    bench_up(&bench, "vm2", 22);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_skip(&bench);
    function(&bench, "00:05.0", 1, 4, 5, false);
    function(&bench, "02:00.0", 2, 1, 6, false);
    function(&bench, "01:00.0", 3, 1, 7, false);
    bench_expect(&bench, "MEMORY\n"); // those that are to go before them may be found yet
    function(&bench, "01:00.1", 4, 1, 7, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_expect(&bench, "pci:0000:00:05.0 attaching vm1: " RULE(
                             0, 1) "\n"
                                   "pci:0000:02:00.0 attaching vm1: " RULE(
                                       0, 0) "\n"
                                             "pci:0000:01:00.0 attaching vm1: " RULE(
                                                 0, 0) "\n"
                                                       "pci:0000:01:00.1 attaching vm1: " RULE(
                                                           0, 0) "\n"
                                                                 "MEMORY\nATTACH vm1 pci:0000:01:00.0 3\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=3");
    bench_expect(&bench, "pci:0000:01:00.0 attached vm1: " RULE(0, 0) "\nMEMORY\nATTACH vm1 pci:0000:01:00.1 4\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=3 b=4");
    bench_expect(&bench, "pci:0000:01:00.1 attached vm1: " RULE(0, 0) "\nMEMORY\nATTACH vm1 pci:0000:02:00.0 2\n");
    bench_answer(&bench, "vm1", RESULT_RETRY, "no", "a=3 b=4"); // the next one need not wait for it
    bench_expect(&bench, "pci:0000:02:00.0 waits vm1: no\nATTACH vm1 pci:0000:00:05.0 1\n");
    bench_clear(&bench);
}

static void test_f34_usb_devices_keep_the_order_of_arrival(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    bench_plug(&bench, 2, 5, 1, true);
    function(&bench, "02:00.0", 6, 1, 6, true);
    function(&bench, "01:00.0", 7, 1, 7, true);
    bench_plug(&bench, 1, 8, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench,
                 "usb:1-2 attached vm1: allowed by usbPassthrough[0].allow[0]\nATTACH vm1 pci:0000:01:00.0 7\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=7");
    bench_expect(&bench, "pci:0000:01:00.0 attached vm1: " RULE(0, 0) "\nATTACH vm1 pci:0000:02:00.0 6\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=7 c=6");
    bench_expect(&bench, "pci:0000:02:00.0 attached vm1: " RULE(0, 0) "\nATTACH vm1 usb:1-1 8\n");
    bench_clear(&bench);
}

static void test_f04_two_equal_functions_go_where_their_rules_say(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, true);
    configure(&bench,
              "{\"targetVm\":\"vm1\",\"allow\":[{\"address\":\"0000:01:00.0\"}]},"
              "{\"targetVm\":\"vm2\",\"allow\":[{\"address\":\"0000:02:00.0\"}]}",
              "cloud-hypervisor");
    reconcile_scanned(bench.reconcile, bench.now);
    bench_up(&bench, "vm1", 11);
    bench_up(&bench, "vm2", 22);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_skip(&bench);
    function(&bench, "02:00.0", 5, 1, 6, true);
    function(&bench, "01:00.0", 6, 1, 7, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=6");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "b=5");
    bench_expect(&bench,
                 "pci:0000:02:00.0 attached vm2: " RULE(1, 0) "\n"
                                                              "pci:0000:01:00.0 attached vm1: " RULE(0, 0) "\n");
    no_error(reconcile_detach(bench.reconcile, 5, bench.now));
    bench_expect(&bench, "CHOICES\npci:0000:02:00.0 detaching vm2: a person takes it out of vm2\nDETACH vm2 b\n");
    assert_string_equal(reconcile_choices(bench.reconcile)->items[0].id, "pci-0000:02:00.0");
    bench_clear(&bench);
}

static void test_f34_the_order_of_the_groups(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench,
          "{\"targetVm\":\"vm1\",\"allow\":[{\"vendorId\":\"0002\"},{\"vendorId\":\"0001\"}]},"
          "{\"targetVm\":\"vm1\",\"allow\":[{\"vendorId\":\"0003\"}]}",
          true);
    function(&bench, "01:00.0", 5, 3, 7, true);
    function(&bench, "02:00.0", 6, 1, 8, true);
    bench_expect(&bench,
                 "pci:0000:01:00.0 attaching vm1: " RULE(1, 0) "\n"
                                                               "pci:0000:02:00.0 attaching vm1: " RULE(
                                                                   0, 1) "\n"
                                                                         "MEMORY\nATTACH vm1 pci:0000:02:00.0 6\n");
    bench_clear(&bench);
}

static void test_functions_without_an_iommu_group_share_none(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    function(&bench, "01:00.0", 5, 1, -1, true);
    function(&bench, "02:00.0", 6, 2, -1, true);
    bench_expect(
        &bench,
        "pci:0000:01:00.0 attaching vm1: " RULE(
            0, 0) "\n"
                  "pci:0000:02:00.0 attaching vm2: " RULE(
                      1, 0) "\n"
                            "MEMORY\nATTACH vm1 pci:0000:01:00.0 5\nATTACH vm2 pci:0000:02:00.0 6 on the root bus\n");
    bench_clear(&bench);
}

static void test_a_vm_that_ends_lets_go_of_the_group(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    function(&bench, "01:00.0", 5, 1, 7, true);
    bench_skip(&bench);
    function(&bench, "01:00.1", 6, 2, 7, true);
    bench_down(&bench, "vm1"); // its answer may come yet, and tells nothing
    bench_expect(&bench, "vm1 down\n"
                         "pci:0000:01:00.0 waits vm1: vm1 is not running\n"
                         "pci:0000:01:00.1 attaching vm2: " RULE(
                             1, 0) "\n"
                                   "MEMORY\nATTACH vm2 pci:0000:01:00.1 6 on the root bus\n");
    bench_clear(&bench);
}

static void test_the_root_bus_is_asked_for(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    function(&bench, "01:00.0", 5, 2, 7, true);
    bench_expect(&bench, "pci:0000:01:00.0 attaching vm2: " RULE(
                             1, 0) "\n"
                                   "MEMORY\nATTACH vm2 pci:0000:01:00.0 5 on the root bus\n");
    bench_clear(&bench);
}

static void test_f49_ports_that_input_devices_are_told_to_use_are_spared(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, true);
    bench_configure_text(&bench, "{\"pciPassthrough\":[{\"targetVm\":\"vm1\",\"allow\":[{\"vendorId\":\"0001\"}]}],"
                                 "\"evdevPassthrough\":[{\"targetVm\":\"vm2\",\"pcieBusPrefix\":\"rp\",\"allow\":[]},"
                                 "{\"targetVm\":\"vm1\",\"pcieBusPrefix\":\"ep\",\"allow\":[]}],"
                                 "\"vms\":[{\"name\":\"vm1\",\"type\":\"qemu\",\"socket\":\"/1\"},"
                                 "{\"name\":\"vm2\",\"type\":\"qemu\",\"socket\":\"/2\"}]}");
    reconcile_scanned(bench.reconcile, bench.now);
    bench_up(&bench, "vm1", 11);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_skip(&bench);
    function(&bench, "01:00.0", 5, 1, 7, true);
    bench_expect(&bench,
                 "pci:0000:01:00.0 attaching vm1: " RULE(0, 0) "\nMEMORY\nATTACH vm1 pci:0000:01:00.0 5 sparing ep\n");
    bench_clear(&bench);
}

static void test_a_group_is_never_on_its_way_into_two_vms(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    function(&bench, "01:00.0", 5, 1, 7, true);
    function(&bench, "01:00.1", 6, 2, 7, true); // both at once
    function(&bench, "02:00.0", 7, 2, 8, true);
    function(&bench, "03:00.0", 8, 2, -1, true);
    bench_expect(&bench,
                 "pci:0000:01:00.0 attaching vm1: " RULE(
                     0, 0) "\n"
                           "pci:0000:01:00.1 waits vm1: " HELD(
                               "vm1", "01:00.0") "\n"
                                                 "pci:0000:02:00.0 attaching vm2: " RULE(
                                                     1, 0) "\n"
                                                           "pci:0000:03:00.0 attaching vm2: " RULE(
                                                               1, 0) "\n"
                                                                     "MEMORY\nATTACH vm1 pci:0000:01:00.0 5\nATTACH "
                                                                     "vm2 pci:0000:02:00.0 7 on the root bus\n");
    bench_answer(&bench, "vm1", RESULT_LOST, "the connection ended", NULL); // it may have it
    bench_expect(&bench, "pci:0000:01:00.0 waits vm1: the connection ended\nLIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "pci:0000:01:00.0 attached vm1: " RULE(0, 0) "\n");
    no_error(reconcile_detach(bench.reconcile, 5, bench.now));
    bench_expect(&bench, "CHOICES\npci:0000:01:00.0 detaching vm1: a person takes it out of vm1\nDETACH vm1 a\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "b=7");
    bench_expect(&bench,
                 "pci:0000:02:00.0 attached vm2: " RULE(1, 0) "\n"
                                                              "ATTACH vm2 pci:0000:03:00.0 8 on the root bus\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "b=7 c=8");
    bench_expect(&bench, "pci:0000:03:00.0 attached vm2: " RULE(1, 0) "\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "pci:0000:01:00.0 host: a person took it out; attach it to put it back\n"
                         "pci:0000:01:00.1 attaching vm2: " RULE(
                             1, 0) "\n"
                                   "MEMORY\nATTACH vm2 pci:0000:01:00.1 6 on the root bus\n");
    no_error(reconcile_attach(bench.reconcile, 5, NULL, bench.now));
    bench_expect(&bench, "CHOICES\npci:0000:01:00.0 waits vm2: " HELD("vm2", "01:00.1") "\nMEMORY\n");
    bench_clear(&bench);
}

// The attach of a function was sent, and it was unplugged before the VM said more.
static void test_a_function_that_went_on_its_way_counts(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    function(&bench, "01:00.0", 5, 1, 7, true);
    bench_skip(&bench);
    reconcile_device_gone(bench.reconcile, "pci:0000:01:00.0", 5, bench.now);
    function(&bench, "01:00.1", 6, 2, 7, true);
    bench_expect(&bench, "pci:0000:01:00.0 unplugged\n"
                         "pci:0000:01:00.1 waits vm1: " HELD("vm1", "01:00.0") "\nMEMORY\n");
    bench_answer(&bench, "vm1", RESULT_LOST, NULL, NULL);
    bench_expect(&bench, "LIST vm1\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench,
                 "pci:0000:01:00.1 attaching vm2: " RULE(1, 0) "\n"
                                                               "ATTACH vm2 pci:0000:01:00.1 6 on the root bus\n");
    bench_clear(&bench);
}

static void test_a_choice_moves_the_whole_group(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, CHOICE, true);
    function(&bench, "01:00.0", 5, 1, 7, true);
    function(&bench, "01:00.1", 6, 1, 7, true);
    function(&bench, "02:00.0", 7, 1, 8, true); // of another group
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=6");
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=6 c=7");
    bench_skip(&bench);
    no_error(reconcile_attach(bench.reconcile, 6, "vm2", bench.now));
    bench_expect(&bench, "CHOICES\n"
                         "pci:0000:01:00.0 detaching vm1: it is taken out of vm1, for it now belongs in vm2\n"
                         "pci:0000:01:00.1 detaching vm1: it is taken out of vm1, for it now belongs in vm2\n"
                         "MEMORY\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "b=6 c=7");
    bench_expect(&bench, "pci:0000:01:00.0 waits vm1: " HELD("vm1", "01:00.1") "\nMEMORY\nDETACH vm1 b\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "c=7");
    bench_expect(&bench,
                 "pci:0000:01:00.0 attaching vm2: " RULE(0, 0) "\n"
                                                               "pci:0000:01:00.1 attaching vm2: " RULE(
                                                                   0, 0) "\n"
                                                                         "MEMORY\nATTACH vm2 pci:0000:01:00.0 5\n");
    assert_int_equal(reconcile_choices(bench.reconcile)->count, 2);
    for (size_t i = 0; i < 2; i++)
        assert_string_equal(reconcile_choices(bench.reconcile)->items[i].vm, "vm2");
    bench_clear(&bench);
}

static void test_what_people_took_out_stays_out_when_its_group_moves(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, CHOICE, true);
    function(&bench, "01:00.0", 5, 1, 7, true);
    function(&bench, "01:00.1", 6, 1, 7, true);
    no_error(reconcile_detach(bench.reconcile, 5, bench.now));
    no_error(reconcile_attach(bench.reconcile, 6, "vm2", bench.now));
    bench_expect(&bench,
                 "CHOICES\npci:0000:01:00.0 host: a person took it out; attach it to put it back\n"
                 "pci:0000:01:00.1 attaching vm1: " RULE(0, 0) "\n"
                                                               "pci:0000:01:00.1 attaching vm2: " RULE(
                                                                   0, 0) "\n"
                                                                         "MEMORY\nATTACH vm2 pci:0000:01:00.1 6\n");
    no_error(reconcile_attach(bench.reconcile, 5, NULL, bench.now));
    bench_expect(&bench, "CHOICES\npci:0000:01:00.0 attaching vm2: " RULE(0, 0) "\nMEMORY\n");
    bench_clear(&bench);
}

// What one function was chosen for long ago does not part it from its group.
static void test_a_new_function_goes_where_its_group_is(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, CHOICE, true);
    const struct choices choices = {.items = &(struct choice){.id = (char *)"pci-0000:01:00.1", .vm = (char *)"vm2"},
                                    .count = 1};
    reconcile_choices_load(bench.reconcile, &choices);
    function(&bench, "01:00.0", 5, 1, 7, true);
    function(&bench, "01:00.1", 6, 1, 7, true);
    function(&bench, "02:00.0", 7, 1, 8, true);
    bench_expect(&bench, "pci:0000:01:00.0 attaching vm1: " RULE(
                             0, 0) "\n"
                                   "pci:0000:01:00.1 attaching vm1: " RULE(
                                       0, 0) "\n"
                                             "pci:0000:02:00.0 attaching vm1: " RULE(
                                                 0, 0) "\n"
                                                       "MEMORY\nATTACH vm1 pci:0000:01:00.0 5\n");
    bench_clear(&bench);
}

static void test_what_an_earlier_run_gave_away_keeps_the_group_back(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, true);
    struct memory_device device = {
        .key = (char *)"pci:0000:01:00.0", .instance = 5, .managed = true, .vm = (char *)"vm1", .vm_instance = 11};
    reconcile_remember(bench.reconcile, &(struct memory){.devices = &device, .count = 1});
    configure(&bench, FIXED, "cloud-hypervisor");
    function(&bench, "01:00.0", 5, 1, 7, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_up(&bench, "vm1", 11);
    bench_up(&bench, "vm2", 22);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    function(&bench, "01:00.1", 6, 2, 7, true);
    bench_expect(&bench, "vm2 answers\npci:0000:01:00.1 waits: vm1 may still have another function of its IOMMU group "
                         "and has not said so yet\nMEMORY\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5"); // adopted
    bench_expect(&bench, "vm1 answers\npci:0000:01:00.0 attached vm1: " RULE(0, 0) "\n"
                                                                                   "pci:0000:01:00.1 waits vm1: " HELD(
                                                                                       "vm1", "01:00.0") "\nMEMORY\n");
    bench_clear(&bench);
}

static void test_f40_functions_that_another_tool_gave_away(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    reconcile_vm_news(bench.reconcile, "vm2", bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "f@0000:01:00.0");
    function(&bench, "01:00.0", 5, 1, 7, true);
    function(&bench, "01:00.1", 6, 1, 7, true);
    function(&bench, "01:00.2", 7, 2, 7, true); // where the other tool has put it
    bench_expect(
        &bench,
        "note vm2: another tool has put a host device into it, which is left alone: f\n"
        "pci:0000:01:00.0 waits vm2: another tool has put it into vm2 as f; take it out there\n"
        "pci:0000:01:00.1 waits vm2: another tool has put another function of its IOMMU group into vm2 as f; "
        "take it out there\n"
        "pci:0000:01:00.2 attaching vm2: " RULE(1, 0) "\n"
                                                      "MEMORY\nATTACH vm2 pci:0000:01:00.2 7 on the root bus\n");
    bench_answer(&bench, "vm2", RESULT_REFUSED, "no", "f@0000:01:00.0");
    bench_expect(&bench, "pci:0000:01:00.2 refused vm2: no\n");
    bench_at_deadline(&bench); // nobody tells when it leaves
    bench_expect(&bench, "LIST vm2\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "pci:0000:01:00.0 attached vm1: " RULE(0, 0) "\nATTACH vm1 pci:0000:01:00.1 6\n");
    bench_clear(&bench);
}

static void test_f40_a_group_of_which_another_tool_has_a_part_is_looked_at(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    reconcile_vm_news(bench.reconcile, "vm2", bench.now);
    bench_skip(&bench);
    bench_answer(&bench, "vm2", RESULT_DONE, "", "f@0000:01:00.0");
    function(&bench, "01:00.0", 5, 9, 7, true);
    function(&bench, "01:00.1", 6, 1, 7, true);
    bench_skip(&bench);
    bench_at_deadline(&bench); // nobody tells when it leaves
    bench_expect(&bench, "LIST vm2\n");
    bench_answer(&bench, "vm2", RESULT_DONE, "", "");
    bench_expect(&bench, "pci:0000:01:00.1 attaching vm1: " RULE(0, 0) "\nATTACH vm1 pci:0000:01:00.1 6\n");
    bench_clear(&bench);
}

static bool is_vm2(const void *user, const char *vm)
{
    (void)user;
    return strcmp(vm, "vm2") == 0;
}

// Functions that other rules take stay where they are; but where one is, the others cannot be moved from.
static void test_other_rules_of_a_group_are_not_a_choice(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, CHOICE ",{\"allowedVms\":[\"vm1\",\"vm2\"],\"allow\":[{\"vendorId\":\"0002\"}]}", true);
    function(&bench, "01:00.0", 5, 1, 7, true);
    function(&bench, "01:00.1", 6, 2, 7, true);
    bench_skip(&bench);
    assert_false(reconcile_device_is_of(bench.reconcile, 6, is_vm2, NULL));
    no_error(reconcile_attach(bench.reconcile, 5, "vm2", bench.now));
    bench_expect(&bench, "CHOICES\npci:0000:01:00.0 detaching vm1: it is taken out of vm1, for it now belongs in vm2\n"
                         "MEMORY\n");
    assert_true(reconcile_device_is_of(bench.reconcile, 6, is_vm2, NULL));
    bench_answer(&bench, "vm1", RESULT_RETRY, "no", "");
    bench_expect(&bench, "pci:0000:01:00.0 attaching vm2: " RULE(
                             0, 0) "\n"
                                   "pci:0000:01:00.1 waits vm2: " HELD(
                                       "vm2", "01:00.0") "\n"
                                                         "MEMORY\nATTACH vm2 pci:0000:01:00.0 5\n");
    bench_clear(&bench);
}

static void test_pci_iommu_add_all_brings_the_group_along(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, false);
    configure(&bench, "{\"targetVm\":\"vm1\",\"pciIommuAddAll\":true,\"allow\":[{\"vendorId\":\"0001\"}]}",
              "cloud-hypervisor");
    bench_up(&bench, "vm1", 11);
    bench_down(&bench, "vm2");
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    function(&bench, "01:00.0", 5, 1, 7, false);
    function(&bench, "01:00.1", 6, 1, 7, false);
    reconcile_scanned(bench.reconcile, bench.now);
    bench_skip(&bench);
    no_error(reconcile_attach(bench.reconcile, 6, NULL, bench.now));
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "pci:0000:01:00.0 attached vm1: " RULE(0, 0) "\nATTACH vm1 pci:0000:01:00.1 6\n");
    bench_clear(&bench);
}

#define ADDS                                                                                                           \
    "{\"targetVm\":\"vm1\",\"pciIommuAddAll\":true,\"allow\":[{\"vendorId\":\"0001\"},{\"vendorId\":\"0002\"}]}"
#define ADDED "allowed with 0000:01:00.0 of its IOMMU group by pciPassthrough[0] (pciIommuAddAll)"

// A function of the IOMMU group whose functions 01:00.0 … have the vendors COUNT of VENDORS.
static void function_of(struct bench *bench, size_t number, const unsigned *vendors, size_t count)
{
    CLEANUP(cleanup_device) struct device *device = NULL;
    for (size_t i = 0; i <= count; i++) {
        size_t at = i == 0 ? number : i - 1; // the device itself, then all the others
        if (i > 0 && at == number)
            continue;
        struct device *one = device_new(DEVICE_PCI);
        one->key = string_printf("pci:0000:01:00.%zu", at);
        one->instance = 5 + at;
        one->vendor_id = (uint16_t)vendors[at];
        one->iommu_group = 7;
        if (!device) {
            device = one;
            continue;
        }
        device->peers = memory_resize(device->peers, device->peer_count + 1, sizeof(one));
        device->peers[device->peer_count++] = one;
    }
    reconcile_device(bench->reconcile, device, true, bench->now);
}

// vm1 has a (named by a rule), b (added to it) and c (named by another rule).
static void start_added(struct bench *bench)
{
    static const unsigned vendors[] = {1, 9, 2};
    start(bench, ADDS, true);
    for (size_t i = 0; i < 3; i++)
        function_of(bench, i, vendors, 3);
    bench_skip(bench);
    bench_answer(bench, "vm1", RESULT_DONE, "", "a=5");
    bench_skip(bench);
    bench_answer(bench, "vm1", RESULT_DONE, "", "a=5 b=6");
    bench_skip(bench);
    bench_answer(bench, "vm1", RESULT_DONE, "", "a=5 b=6 c=7");
    bench_skip(bench);
}

static void expect_detached(const struct bench *bench, bool a, bool b, bool c)
{
    const bool expected[] = {a, b, c};
    for (size_t i = 0; i < 3; i++) {
        struct device_status status;
        reconcile_device_status(bench->reconcile, i, &status);
        assert_int_equal(status.detached, expected[i]);
        device_status_clear(&status);
    }
}

static void test_f34_what_was_added_goes_and_comes_with_its_function(void **state)
{
    (void)state;
    struct bench bench;
    start_added(&bench);
    no_error(reconcile_detach(bench.reconcile, 5, bench.now));
    expect_detached(&bench, true, true, false); // the last one has a rule of its own
    bench_expect(&bench, "CHOICES\npci:0000:01:00.0 detaching vm1: a person takes it out of vm1\n"
                         "pci:0000:01:00.1 detaching vm1: a person takes it out of vm1\nDETACH vm1 a\n");
    assert_int_equal(choices_detached(reconcile_choices(bench.reconcile)), 2);
    no_error(reconcile_attach(bench.reconcile, 5, NULL, bench.now));
    expect_detached(&bench, false, false, false);
    assert_int_equal(choices_detached(reconcile_choices(bench.reconcile)), 0);
    no_error(reconcile_detach(bench.reconcile, 6, bench.now)); // it came with the first
    expect_detached(&bench, true, true, false);
    no_error(reconcile_attach(bench.reconcile, 6, NULL, bench.now));
    expect_detached(&bench, false, false, false);
    no_error(reconcile_detach(bench.reconcile, 7, bench.now)); // nothing came with it
    expect_detached(&bench, false, false, true);
    no_error(reconcile_attach(bench.reconcile, 5, NULL, bench.now)); // what was taken out by itself stays out
    expect_detached(&bench, false, false, true);
    bench_clear(&bench);
}

static void test_a_group_is_not_taken_out_in_part_for_want_of_room(void **state)
{
    (void)state;
    struct bench bench;
    start_added(&bench);
    struct choices choices = {.count = CHOICES_MAX - 1};
    choices.items = memory_new(choices.count, sizeof(*choices.items));
    for (size_t i = 0; i < choices.count; i++)
        choices.items[i] = (struct choice){string_printf("pci-0001:%02zx:00.0", i), NULL, NULL, true};
    reconcile_choices_load(bench.reconcile, &choices);
    choices_clear(&choices);
    CLEANUP(cleanup_free) char *error = reconcile_detach(bench.reconcile, 6, bench.now);
    assert_non_null(strstr(error, "no more can be remembered"));
    expect_detached(&bench, false, false, false);
    assert_int_equal(choices_detached(reconcile_choices(bench.reconcile)), CHOICES_MAX - 1);
    no_error(reconcile_detach(bench.reconcile, 7, bench.now)); // alone there is room for it
    bench_clear(&bench);
}

static void test_a_function_that_is_fixed_is_asked_for_again_with_news_only(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    function(&bench, "01:00.0", 5, 1, 7, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_skip(&bench);
    no_error(reconcile_detach(bench.reconcile, 5, bench.now));
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_FIXED, "it is fixed", "a=5");
    bench_expect(&bench, "pci:0000:01:00.0 detaching vm1: vm1 does not let go of it: it is fixed\n");
    bench_idle(&bench);
    no_error(reconcile_detach(bench.reconcile, 5, bench.now)); // a person insists
    bench_expect(&bench, "DETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_FIXED, "it is fixed", "a=5");
    bench_expect(&bench, "");
    bench_idle(&bench);
    configure(&bench, FIXED, "cloud-hypervisor");
    bench_expect(&bench, "DETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_FIXED, "it is fixed", "a=5");
    bench_up(&bench, "vm1", 12); // the VM was started anew
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "vm1 answers\n");
    bench_idle(&bench);
    bench_clear(&bench);
}

static void test_only_qemu_takes_functions_while_it_runs(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    function(&bench, "01:00.0", 5, 3, 7, true);
    bench_expect(&bench, "pci:0000:01:00.0 waits vm3: vm3 takes PCI functions only at its start\nMEMORY\n");
    configure(&bench, FIXED, "crosvm");
    bench_up(&bench, "vm3", 33);
    bench_expect(&bench, "vm3 starting\nLIST vm3\n");
    bench_answer(&bench, "vm3", RESULT_DONE, "", "");
    bench_expect(&bench, "vm3 answers\n");
    bench_clear(&bench);
}

static void test_f32_suspend_is_for_one_kind_of_device(void **state)
{
    (void)state;
    struct bench bench;
    start(&bench, FIXED, true);
    bench_plug(&bench, 1, 5, 1, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    function(&bench, "01:00.0", 6, 1, 7, true);
    bench_skip(&bench);
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5 b=6");
    bench_skip(&bench);
    no_error(reconcile_suspend(bench.reconcile, DEVICE_PCI, "vm1", bench.now));
    bench_expect(&bench,
                 "pci:0000:01:00.0 detaching vm1: it is taken out of vm1, for vm1 is suspended\nDETACH vm1 b\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(&bench, "pci:0000:01:00.0 waits vm1: vm1 is suspended\nMEMORY\n");
    no_error(reconcile_suspend(bench.reconcile, DEVICE_USB, NULL, bench.now));
    bench_expect(&bench, "usb:1-1 detaching vm1: it is taken out of vm1, for vm1 is suspended\nDETACH vm1 a\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "");
    bench_expect(&bench, "usb:1-1 waits vm1: vm1 is suspended\nMEMORY\n");
    no_error(reconcile_resume(bench.reconcile, DEVICE_USB, NULL, bench.now));
    bench_expect(&bench,
                 "usb:1-1 attaching vm1: allowed by usbPassthrough[0].allow[0]\nMEMORY\nATTACH vm1 usb:1-1 5\n");
    bench_answer(&bench, "vm1", RESULT_DONE, "", "c=5");
    bench_expect(&bench, "usb:1-1 attached vm1: allowed by usbPassthrough[0].allow[0]\n");
    struct vm_status status;
    reconcile_vm_status(bench.reconcile, 0, &status);
    assert_true(status.suspended && status.waiting == 1);
    no_error(reconcile_resume(bench.reconcile, DEVICE_PCI, "vm1", bench.now));
    bench_expect(&bench, "pci:0000:01:00.0 attaching vm1: " RULE(0, 0) "\nMEMORY\nATTACH vm1 pci:0000:01:00.0 6\n");
    bench_clear(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_driver_is_shown_and_changes_nothing),
        cmocka_unit_test(test_f34_the_order_of_the_rules_then_of_addresses),
        cmocka_unit_test(test_f34_usb_devices_keep_the_order_of_arrival),
        cmocka_unit_test(test_f04_two_equal_functions_go_where_their_rules_say),
        cmocka_unit_test(test_f34_the_order_of_the_groups),
        cmocka_unit_test(test_functions_without_an_iommu_group_share_none),
        cmocka_unit_test(test_a_vm_that_ends_lets_go_of_the_group),
        cmocka_unit_test(test_the_root_bus_is_asked_for),
        cmocka_unit_test(test_f49_ports_that_input_devices_are_told_to_use_are_spared),
        cmocka_unit_test(test_a_group_is_never_on_its_way_into_two_vms),
        cmocka_unit_test(test_a_function_that_went_on_its_way_counts),
        cmocka_unit_test(test_a_choice_moves_the_whole_group),
        cmocka_unit_test(test_what_people_took_out_stays_out_when_its_group_moves),
        cmocka_unit_test(test_a_new_function_goes_where_its_group_is),
        cmocka_unit_test(test_what_an_earlier_run_gave_away_keeps_the_group_back),
        cmocka_unit_test(test_f40_functions_that_another_tool_gave_away),
        cmocka_unit_test(test_f40_a_group_of_which_another_tool_has_a_part_is_looked_at),
        cmocka_unit_test(test_other_rules_of_a_group_are_not_a_choice),
        cmocka_unit_test(test_pci_iommu_add_all_brings_the_group_along),
        cmocka_unit_test(test_f34_what_was_added_goes_and_comes_with_its_function),
        cmocka_unit_test(test_a_group_is_not_taken_out_in_part_for_want_of_room),
        cmocka_unit_test(test_a_function_that_is_fixed_is_asked_for_again_with_news_only),
        cmocka_unit_test(test_only_qemu_takes_functions_while_it_runs),
        cmocka_unit_test(test_f32_suspend_is_for_one_kind_of_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
