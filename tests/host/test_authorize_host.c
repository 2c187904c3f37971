// USB authorization of the whole host: the switches for new devices, and what nothing names.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <string.h>
#include <unistd.h>

#include "authorize_bench.h"
#include "host/store.h"
#include "tree.h"
#include "util/text.h"

#define KEYBOARD ((const unsigned char *)"\x03\x01\x01")

static void set_class(struct device *device, const unsigned char *interface)
{
    bench_set_interfaces(device, (const unsigned char(*)[3])interface, 1);
}

// ---- the switches for new devices

static void test_f36_new_devices_stay_unauthorized_and_a_stop_leaves_it_so(void **state)
{
    struct bench *bench = *state;

    bench_start(bench, "{\"enable\": true}");
    bench_expect(bench, "devices/usb1/authorized_default", "0");
    bench_expect(bench, "module/usbcore/parameters/authorized_default", "0");
    authorize_free(steal_pointer(&bench->authorize));
    bench_expect(bench, "devices/usb1/authorized_default", "0");
    bench_expect(bench, "module/usbcore/parameters/authorized_default", "0");
}

static void test_a_bus_that_comes_later_is_closed_too(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *hub = device_new(DEVICE_USB);

    bench_start(bench, "{\"enable\": true}");
    bench_add_bus(bench, "usb2", "2\n", "1\n"); // of a kernel that goes by no parameter
    bench_add_bus(bench, "usb3", "3\n", "0\n");
    hub->port_path = string_copy("usb2");
    bench_make_hub(hub);
    assert_null(authorize_settle(bench->authorize, hub, true));
    bench_expect(bench, "devices/usb2/authorized_default", "0");
    bench_configure(bench, "{}");
    bench_expect(bench, "devices/usb2/authorized_default", "1");
    bench_expect(bench, "devices/usb3/authorized_default", "1"); // it was 0 on our account
}

static void test_a_reload_that_turns_it_off_puts_all_back(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *foreign = bench_add_device(bench, "1-1", "3\n", false);

    bench_add_bus(bench, "usb2", "2\n", "2\n");
    bench_start(bench, "{\"enable\": true}");
    CLEANUP(cleanup_device) struct device *late = bench_add_device(bench, "1-2", "4\n", false);
    assert_null(authorize_settle(bench->authorize, foreign, true));
    assert_null(authorize_settle(bench->authorize, late, false));
    bench_configure(bench, "{}");
    bench_expect(bench, "devices/usb1/authorized_default", "1");
    bench_expect(bench, "devices/usb2/authorized_default", "2");
    bench_expect(bench, "module/usbcore/parameters/authorized_default", "-1");
    assert_int_equal(bench->settled_count, 1);
    assert_ptr_equal(bench->settled[0], late);
    assert_true(bench_run(bench, authorize_settle(bench->authorize, late, true)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "1");
    bench_expect(bench, "devices/usb1/1-1/authorized", "0"); // it was so before us
    assert_null(authorize_settle(bench->authorize, late, true));
}

static void test_a_start_that_finds_it_turned_off_puts_all_back(void **state)
{
    struct bench *bench = *state;

    bench_start(bench, "{\"enable\": true}");
    CLEANUP(cleanup_device) struct device *late = bench_add_device(bench, "1-2", "4\n", false);
    CLEANUP(cleanup_device) struct device *other = bench_add_device(bench, "1-3", "5\n", false);
    bench_start(bench, "{}"); // and another that is killed before it has done it all
    bench_start(bench, "{}");
    bench_expect(bench, "devices/usb1/authorized_default", "1");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, late, false)));
    assert_true(bench_run(bench, authorize_open(bench->authorize, other)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "1");
    bench_expect(bench, "devices/usb1/1-3/authorized", "1");
}

static void test_another_bus_of_the_same_number_is_not_touched(void **state)
{
    struct bench *bench = *state;

    bench_start(bench, "{\"enable\": true}");
    tree_write(bench->root, "sys/devices/usb1/devnum", "2\n");
    bench_configure(bench, "{}");
    bench_expect(bench, "devices/usb1/authorized_default", "0");
}

static void test_buses_that_have_gone_are_forgotten(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_free) char *text = NULL;
    size_t length = 0;

    for (const char *const *number = (const char *const[]){"2\n", "3\n", "4\n", NULL}; *number != NULL; number++) {
        tree_write(bench->root, "sys/devices/usb1/devnum", *number);
        tree_write(bench->root, "sys/devices/usb1/authorized_default", "1\n");
        bench_start(bench, "{\"enable\": true}");
    }
    assert_null(store_read(bench->record, 65536, &text, &length));
    assert_non_null(strstr(text, "usb1"));
    assert_null(strstr(strstr(text, "usb1") + 1, "usb1"));
}

static void test_turned_off_what_a_vm_had_goes_back_to_its_drivers(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    bench_open_for_vm(bench, device);
    bench_configure(bench, "{}");
    assert_null(authorize_settle(bench->authorize, device, false));
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, true)));
    bench_expect(bench, "bus/usb/drivers_probe", "1-2:1.0");
    bench_expect_device(bench, "1-2", "1", "1");
}

// ---- what nothing names

static void sweep(struct bench *bench, struct device *const *devices, size_t count)
{
    bench->settled_count = 0;
    authorize_sweep(bench->authorize, devices, count);
    for (size_t i = 0; i < bench->settled_count; i++)
        assert_true(bench_run(bench, authorize_settle(bench->authorize, bench->settled[i], true)));
}

static struct device *add_unnamed(struct bench *bench, const char *name, const char *address)
{
    struct device *device = bench_add_device(bench, name, address, true);

    device->product_id = 2;
    return device;
}

static void test_f36_what_nothing_names_is_deauthorized_once_until_the_next_reboot(void **state)
{
    struct bench *bench = *state;
    struct device *devices[6];
    static const char *const kept[] = {"1-1", "1-2", "1-3", "1-4", "1-5"};

    devices[0] = add_unnamed(bench, "1-1", "3\n"); // a hub
    bench_make_hub(devices[0]);
    devices[1] = bench_add_device(bench, "1-2", "4\n", true); // a VM's
    devices[2] = add_unnamed(bench, "1-3", "5\n");            // the host lives on it
    devices[2]->host_use = string_copy("/ is mounted from sda1");
    devices[3] = add_unnamed(bench, "1-4", "6\n"); // hostAllow
    devices[3]->product_id = 4;
    devices[4] = add_unnamed(bench, "1-5", "7\n"); // in a VM that is to let go of it
    tree_link(bench->root, "sys/devices/usb1/1-5/1-5:1.0/driver", "../../../../bus/usb/drivers/usbfs");
    devices[5] = add_unnamed(bench, "1-6", "8\n");
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true, "
                       "\"hostAllow\": [{\"productId\": \"0004\", \"vendorId\": \"0627\"}]}");
    sweep(bench, devices, 6);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        bench_expect_device(bench, kept[i], "1", "1");
    bench_expect(bench, "devices/usb1/1-6/authorized", "0");
    // What a person has authorized since is left by a restart.
    bench_set(bench, "1-6", "authorized", "1\n");
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
    sweep(bench, devices, 6);
    bench_expect(bench, "devices/usb1/1-6/authorized", "1");
    for (size_t i = 0; i < 6; i++)
        device_release(devices[i]);
}

static void test_f36_killed_in_the_midst_of_a_sweep(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = add_unnamed(bench, "1-2", "4\n");

    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
    authorize_sweep(bench->authorize, &device, 1);
    assert_int_equal(bench->settled_count, 1);
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
    sweep(bench, &device, 1);
    assert_int_equal(bench->settled_count, 0);
}

static void test_without_deauthorize_unmatched_nothing_is_swept(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = add_unnamed(bench, "1-2", "4\n");

    bench_start(bench, "{\"enable\": true}");
    sweep(bench, &device, 1);
    bench_expect(bench, "devices/usb1/1-2/authorized", "1");
    // The first start that is told to does it.
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
    sweep(bench, &device, 1);
    bench_expect(bench, "devices/usb1/1-2/authorized", "0");
}

static struct device *add_keys(struct bench *bench, const char *directory)
{
    struct device *device = device_new(DEVICE_INPUT);

    device->key = string_copy("input:input1");
    device->syspath = string_printf("%s/devices/%s", bench->sys, directory);
    device->properties = memory_new(1, sizeof(*device->properties));
    device->properties[0] = string_copy("ID_INPUT_KEYBOARD=1");
    device->property_count = 1;
    return device;
}

static void test_f37_the_last_keyboard_is_not_deauthorized(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *keyboard = add_unnamed(bench, "1-3", "5\n");
    CLEANUP(cleanup_device) struct device *of_vm = bench_add_device(bench, "1-2", "4\n", true);
    CLEANUP(cleanup_device) struct device *made = add_keys(bench, "virtual/input/input1");
    struct device *devices[] = {keyboard, of_vm, made};

    set_class(keyboard, KEYBOARD);
    set_class(of_vm, KEYBOARD);
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
    sweep(bench, devices, 3);
    bench_expect(bench, "devices/usb1/1-3/authorized", "1");
}

static void test_f37_a_keyboard_that_is_not_the_last_is(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *keyboard = add_unnamed(bench, "1-3", "5\n");
    CLEANUP(cleanup_device) struct device *built_in = add_keys(bench, "platform/i8042/input/input1");
    struct device *devices[] = {keyboard, built_in};

    set_class(keyboard, KEYBOARD);
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
    sweep(bench, devices, 2);
    bench_expect(bench, "devices/usb1/1-3/authorized", "0");
}

static void test_f37_a_keyboard_that_the_host_may_have_counts(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *keyboard = add_unnamed(bench, "1-3", "5\n");
    CLEANUP(cleanup_device) struct device *allowed = add_unnamed(bench, "1-4", "6\n");
    struct device *devices[] = {keyboard, allowed};

    set_class(keyboard, KEYBOARD);
    set_class(allowed, KEYBOARD);
    allowed->product_id = 4;
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true, "
                       "\"hostAllow\": [{\"productId\": \"0004\", \"vendorId\": \"0627\"}]}");
    sweep(bench, devices, 2);
    bench_expect(bench, "devices/usb1/1-3/authorized", "0");
    bench_expect(bench, "devices/usb1/1-4/authorized", "1");
}

static void test_f37_a_keyboard_over_an_adapter_that_is_swept_does_not_count(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *keyboard = add_unnamed(bench, "1-3", "5\n");
    CLEANUP(cleanup_device) struct device *adapter = add_unnamed(bench, "1-4", "6\n");
    CLEANUP(cleanup_device) struct device *unsaid = add_unnamed(bench, "1-5", "7\n");
    CLEANUP(cleanup_device) struct device *mouse = add_unnamed(bench, "1-6", "8\n");
    CLEANUP(cleanup_device)
    struct device *keys = add_keys(bench, "usb1/1-4/1-4:1.0/bluetooth/hci0/hci0:1/input/input1");
    struct device *devices[] = {keyboard, adapter, unsaid, mouse, keys};

    set_class(keyboard, KEYBOARD);
    set_class(adapter, (const unsigned char *)"\xe0\x01\x01");
    set_class(unsaid, (const unsigned char *)"\x03\x00\x00");
    set_class(mouse, (const unsigned char *)"\x03\x01\x02");
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
    sweep(bench, devices, 5);
    bench_expect(bench, "devices/usb1/1-3/authorized", "1");
    bench_expect(bench, "devices/usb1/1-4/authorized", "1");
    bench_expect(bench, "devices/usb1/1-5/authorized", "1");
    bench_expect(bench, "devices/usb1/1-6/authorized", "0");
}

static void test_f37_a_keyboard_over_an_adapter_that_stays_counts(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *keyboard = add_unnamed(bench, "1-3", "5\n");
    CLEANUP(cleanup_device) struct device *adapter = add_unnamed(bench, "1-4", "6\n");
    CLEANUP(cleanup_device)
    struct device *keys = add_keys(bench, "usb1/1-4/1-4:1.0/bluetooth/hci0/hci0:1/input/input1");
    struct device *devices[] = {keyboard, adapter, keys};

    set_class(keyboard, KEYBOARD);
    adapter->product_id = 4;
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true, "
                       "\"hostAllow\": [{\"productId\": \"0004\", \"vendorId\": \"0627\"}]}");
    sweep(bench, devices, 3);
    bench_expect(bench, "devices/usb1/1-3/authorized", "0");
    bench_expect(bench, "devices/usb1/1-4/authorized", "1");
}

static const unsigned char false_hub[][3] = {{3, 1, 1}, {9, 0, 0}};

static void test_f37_a_keyboard_that_says_it_is_a_hub_does_not_count(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *keyboard = add_unnamed(bench, "1-3", "5\n");
    CLEANUP(cleanup_device) struct device *other = add_unnamed(bench, "1-4", "6\n");
    CLEANUP(cleanup_device) struct device *allowed = add_unnamed(bench, "1-5", "7\n");
    struct device *devices[] = {keyboard, other, allowed};

    set_class(keyboard, KEYBOARD);
    bench_set_interfaces(other, false_hub, 2);
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
    sweep(bench, devices, 2);
    bench_expect(bench, "devices/usb1/1-3/authorized", "1"); // it is the last one
    // Where another one is left it goes as all others.
    assert_int_equal(unlink(bench->record), 0);
    set_class(allowed, KEYBOARD);
    allowed->product_id = 4;
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true, "
                       "\"hostAllow\": [{\"productId\": \"0004\", \"vendorId\": \"0627\"}]}");
    sweep(bench, devices, 3);
    bench_expect(bench, "devices/usb1/1-3/authorized", "0");
    bench_expect(bench, "devices/usb1/1-4/authorized", "0");
    bench_expect(bench, "devices/usb1/1-5/authorized", "1");
}

static void test_a_reload_does_not_give_the_host_what_it_gives_to_a_vm(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    assert_null(authorize_settle(bench->authorize, device, true));
    bench_configure(bench, "{\"enable\": true, \"hostAllow\": [{\"vendorId\": \"0627\"}]}");
    assert_int_equal(bench->settled_count, 0);
}

// ---- what the host would not let go of

static void run_until_settled(struct bench *bench, size_t count)
{
    while (bench->settled_count < count)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
}

#define ROUTE "Iface\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"

static void add_adapter(struct bench *bench)
{
    tree_directory(bench->root, "sys/devices/usb1/1-2/1-2:1.0/net/eth0");
    tree_link(bench->root, "sys/class/net/eth0", "../../devices/usb1/1-2/1-2:1.0/net/eth0");
    tree_write(bench->root, "route", ROUTE);
}

static void test_f35_the_only_network_is_left_and_asked_for_again(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    add_adapter(bench);
    bench_start(bench, "{\"enable\": true}");
    bench_open_for_vm(bench, device);
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, false)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "1");
    run_until_settled(bench, 1);
    assert_false(bench->settled_on_host);
    tree_write(bench->root, "route", "");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, false)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "0");
}

static void test_f35_a_sweep_that_finds_the_only_network_sweeps_it_later(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = add_unnamed(bench, "1-2", "4\n");

    add_adapter(bench);
    bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
    sweep(bench, &device, 1);
    bench_expect(bench, "devices/usb1/1-2/authorized", "1");
    run_until_settled(bench, 2);
    assert_true(bench->settled_on_host);
    tree_write(bench->root, "route", "");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, true)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "0");
}

static void test_what_a_vm_has_again_is_not_asked_for_later(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    add_adapter(bench);
    bench_start(bench, "{\"enable\": true}");
    bench_open_for_vm(bench, device);
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, false)));
    bench_open_for_vm(bench, device);
    assert_true(sd_event_run(bench->loop, UINT64_MAX) > 0); // the time is over
    assert_int_equal(bench->settled_count, 0);
}

// Time passes at once.
int __real_sd_event_add_time_relative(sd_event *loop, sd_event_source **source, clockid_t clock, uint64_t time,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *user);
int __wrap_sd_event_add_time_relative(sd_event *loop, sd_event_source **source, clockid_t clock, uint64_t time,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *user);

int __wrap_sd_event_add_time_relative(sd_event *loop, sd_event_source **source, clockid_t clock, uint64_t time,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *user)
{
    return __real_sd_event_add_time_relative(loop, source, clock, time > 0 ? 1 : 0, accuracy > 0 ? 1 : 0, handler,
                                             user);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up, bench_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_f36_new_devices_stay_unauthorized_and_a_stop_leaves_it_so),
        TEST(test_a_bus_that_comes_later_is_closed_too),
        TEST(test_a_reload_that_turns_it_off_puts_all_back),
        TEST(test_a_start_that_finds_it_turned_off_puts_all_back),
        TEST(test_another_bus_of_the_same_number_is_not_touched),
        TEST(test_buses_that_have_gone_are_forgotten),
        TEST(test_turned_off_what_a_vm_had_goes_back_to_its_drivers),
        TEST(test_f36_what_nothing_names_is_deauthorized_once_until_the_next_reboot),
        TEST(test_f36_killed_in_the_midst_of_a_sweep),
        TEST(test_without_deauthorize_unmatched_nothing_is_swept),
        TEST(test_f37_the_last_keyboard_is_not_deauthorized),
        TEST(test_f37_a_keyboard_that_is_not_the_last_is),
        TEST(test_f37_a_keyboard_that_the_host_may_have_counts),
        TEST(test_f37_a_keyboard_over_an_adapter_that_is_swept_does_not_count),
        TEST(test_f37_a_keyboard_over_an_adapter_that_stays_counts),
        TEST(test_f37_a_keyboard_that_says_it_is_a_hub_does_not_count),
        TEST(test_a_reload_does_not_give_the_host_what_it_gives_to_a_vm),
        TEST(test_f35_the_only_network_is_left_and_asked_for_again),
        TEST(test_f35_a_sweep_that_finds_the_only_network_sweeps_it_later),
        TEST(test_what_a_vm_has_again_is_not_asked_for_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
