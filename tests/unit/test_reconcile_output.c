// What the reconciler puts out about a device: the verdict and the group that takes it.
#include <string.h>

#include "bench.h"
#include "unit.h"

// The next output about a device; its reference is borrowed until the next call.
static struct output next_about_device(struct bench *bench)
{
    struct output output;
    do {
        assert_true(reconcile_next(bench->reconcile, bench->now, &output));
        operation_clear(&output.operation);
    } while (output.kind != OUTPUT_DEVICE);
    return output;
}

static void test_an_output_names_the_group(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, true);
    bench_plug(&bench, 1, 5, 2, true);
    struct output output = next_about_device(&bench);
    assert_ptr_equal(output.group, &bench.config->usb.groups[1]);
    bench_skip(&bench);
    bench_unplug(&bench, 1, 5);
    output = next_about_device(&bench);
    assert_true(output.gone);
    assert_ptr_equal(output.group, &bench.config->usb.groups[1]);
    bench_clear(&bench);
}

static void test_no_group_takes_it(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, true);
    bench_plug(&bench, 1, 5, 9, true);
    struct output output = next_about_device(&bench);
    assert_int_equal(output.verdict, VERDICT_NO_RULE);
    assert_null(output.group);
    bench_configure(&bench, "{\"targetVm\":\"vm1\",\"allow\":[{\"bus\":1}],\"deny\":[{\"vendorId\":\"0009\"}]}", true);
    output = next_about_device(&bench);
    assert_int_equal(output.verdict, VERDICT_DENIED);
    assert_null(output.group);
    bench_clear(&bench);
}

// What a VM has, the host cannot have begun to live on; until a VM has it, the host comes first.
static void test_the_host_comes_first(void **state)
{
    (void)state;
    struct bench bench;
    bench_ready(&bench, true);
    struct device *device = bench_device(1, 5, 1);
    device->host_use = string_copy("/ is mounted from it");
    reconcile_device(bench.reconcile, device, true, bench.now);
    struct output output = next_about_device(&bench);
    assert_int_equal(output.verdict, VERDICT_HOST);
    assert_null(output.group);
    device_release(device);
    bench_clear(&bench);
}

static void test_a_vm_has_what_the_host_seems_to_live_on(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    struct device *device = bench_device(1, 5, 1);
    device->host_use = string_copy("/ is mounted from it");
    reconcile_device(bench.reconcile, device, true, bench.now);
    bench_configure(&bench, "{\"targetVm\":\"vm2\",\"allow\":[{\"vendorId\":\"0001\"}]}", true);
    struct output output = next_about_device(&bench);
    assert_int_equal(output.verdict, VERDICT_ALLOWED);
    assert_ptr_equal(output.group, &bench.config->usb.groups[0]);
    device_release(device);
    bench_clear(&bench);
}

// The old configuration is no more when the news of the device is taken out.
static void test_what_waits_names_groups_of_the_new_configuration(void **state)
{
    (void)state;
    struct bench bench;
    bench_attached(&bench);
    bench_unplug(&bench, 1, 5);
    bench_configure(&bench,
                    "{\"targetVm\":\"vm3\",\"allow\":[{\"vendorId\":\"0003\"}]},"
                    "{\"targetVm\":\"vm2\",\"allow\":[{\"vendorId\":\"0001\"}]}",
                    true);
    struct output output = next_about_device(&bench);
    assert_true(output.gone);
    assert_ptr_equal(output.group, &bench.config->usb.groups[1]);
    bench_clear(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_output_names_the_group),
        cmocka_unit_test(test_no_group_takes_it),
        cmocka_unit_test(test_the_host_comes_first),
        cmocka_unit_test(test_a_vm_has_what_the_host_seems_to_live_on),
        cmocka_unit_test(test_what_waits_names_groups_of_the_new_configuration),
    };
    return cmocka_run_group_tests_name("reconcile_output", tests, NULL, NULL);
}
