// USB authorization of one device, and runs that are killed in the midst of it.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <poll.h>
#include <string.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "authorize_bench.h"
#include "host/handover.h"
#include "host/sysfs.h"
#include "host/worker.h"
#include "tree.h"
#include "util/text.h"

// ---- one device

static void test_f38_no_driver_is_bound_to_a_device_of_a_vm(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    bench_watch_device(bench);
    bench_open_for_vm(bench, device);
    // The interfaces are unauthorized when they appear, and authorized when that is over.
    bench_expect_writes(bench, "1213");
    bench_expect(bench, "devices/usb1/interface_authorized_default", "1");
    bench_expect_device(bench, "1-2", "1", "1");
}

static void test_an_interface_default_that_is_0_already_stays_so(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    tree_write(bench->root, "sys/devices/usb1/interface_authorized_default", "0\n");
    bench_start(bench, "{\"enable\": true}");
    bench_watch_device(bench);
    bench_open_for_vm(bench, device);
    bench_expect_writes(bench, "23");
    bench_start(bench, "{\"enable\": true}");
    bench_expect(bench, "devices/usb1/interface_authorized_default", "0");
}

static void test_f48_authorized_is_written_once_for_each_need(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    bench_watch(bench, "devices/usb1/1-2/authorized");
    bench_open_for_vm(bench, device);
    bench_expect_writes(bench, "1");
    bench_open_for_vm(bench, device); // it is tried again, or it is put in once more
    bench_expect_writes(bench, "");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, false)));
    bench_expect_writes(bench, "1");
    bench_expect(bench, "devices/usb1/1-2/authorized", "0");
    (void)bench_run(bench, authorize_settle(bench->authorize, device, false));
    (void)bench_run(bench, authorize_settle(bench->authorize, device, true));
    bench_configure(bench, "{\"enable\": true}");
    bench_start(bench, "{\"enable\": true}");
    (void)bench_run(bench, authorize_settle(bench->authorize, device, true));
    bench_expect_writes(bench, "");
}

// QEMU hands the interfaces to the host's drivers as it lets go, who are not to get them.
static void test_f38_what_leaves_a_vm_is_withheld_from_the_drivers_first(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    assert_null(authorize_withhold(bench->authorize, device)); // no VM has it
    bench_open_for_vm(bench, device);
    assert_true(bench_run(bench, authorize_withhold(bench->authorize, device)));
    bench_expect_device(bench, "1-2", "1", "0");
    bench_open_for_vm(bench, device); // it moves on to another VM
    bench_expect_device(bench, "1-2", "1", "1");
    bench_start(bench, "{\"enable\": true}"); // killed and started again, it knows still
    assert_true(bench_run(bench, authorize_withhold(bench->authorize, device)));
    bench_expect_device(bench, "1-2", "1", "0");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, false)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "0");
    assert_null(authorize_withhold(bench->authorize, device));
}

static void test_what_was_withheld_and_is_the_hosts_gets_its_drivers(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true, \"hostAllow\": [{\"vendorId\": \"0627\"}]}");
    bench_open_for_vm(bench, device);
    assert_true(bench_run(bench, authorize_withhold(bench->authorize, device)));
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, true)));
    bench_expect_device(bench, "1-2", "1", "1");
    bench_expect(bench, "bus/usb/drivers_probe", "1-2:1.0");
    bench_start(bench, "{}");
    assert_null(authorize_withhold(bench->authorize, device)); // off, it goes back by itself
}

static void test_a_device_that_comes_back_while_it_is_deauthorized(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);
    CLEANUP(cleanup_authorize_plan) struct authorize_plan *settle = NULL;
    CLEANUP(cleanup_authorize_plan) struct authorize_plan *again = NULL;

    bench_start(bench, "{\"enable\": true}");
    bench_open_for_vm(bench, device);
    settle = authorize_settle(bench->authorize, device, false);
    again = authorize_open(bench->authorize, device);
    authorize_run(settle);
    authorize_done(bench->authorize, settle); // of an earlier opening: the device is lent still
    authorize_run(again);
    authorize_done(bench->authorize, again);
    bench_expect_device(bench, "1-2", "1", "1");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, false)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "0");
}

static void test_off_by_default_nothing_is_done(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"hostAllow\": [{\"vendorId\": \"0627\"}]}");
    assert_null(authorize_open(bench->authorize, device));
    assert_null(authorize_settle(bench->authorize, device, true));
    authorize_sweep(bench->authorize, &device, 1);
    bench_expect(bench, "devices/usb1/authorized_default", "1");
    bench_expect(bench, "module/usbcore/parameters/authorized_default", "-1");
    assert_int_equal(access(bench->record, F_OK), -1);
}

static void test_f37_hubs_and_what_the_host_may_have_are_authorized(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *hub = bench_add_device(bench, "1-1", "3\n", false);
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);
    CLEANUP(cleanup_device) struct device *other = bench_add_device(bench, "1-3", "5\n", false);

    bench_make_hub(hub);
    hub->product_id = 3;
    other->product_id = 2;
    bench_start(bench, "{\"enable\": true, \"hostAllow\": [{\"vendorId\": \"0627\", \"productId\": \"0001\"}]}");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, hub, true)));
    bench_expect(bench, "devices/usb1/1-1/authorized", "1");
    // What a VM is to have is not the host's before it rests there.
    assert_null(authorize_settle(bench->authorize, device, false));
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, true)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "1");
    assert_null(authorize_settle(bench->authorize, other, true));
    bench_expect(bench, "devices/usb1/1-3/authorized", "0");
    // A reload that names it is enough.
    bench_configure(bench, "{\"enable\": true, \"hostAllow\": [{\"productId\": \"0002\", \"vendorId\": \"0627\"}]}");
    for (size_t i = 0; i < bench->settled_count; i++)
        (void)bench_run(bench, authorize_settle(bench->authorize, bench->settled[i], true));
    bench_expect(bench, "devices/usb1/1-3/authorized", "1");
    bench_expect(bench, "devices/usb1/1-2/authorized", "1"); // the host has it
}

static void test_what_says_that_it_is_a_hub_and_something_else_is_none(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-3", "5\n", false);

    device->product_id = 2;
    bench_set_interfaces(device, (const unsigned char[][3]){{3, 1, 1}, {9, 0, 0}}, 2);
    bench_start(bench, "{\"enable\": true}");
    assert_null(authorize_settle(bench->authorize, device, true));
    device->class = 9;
    assert_null(authorize_settle(bench->authorize, device, true));
    bench_expect_device(bench, "1-3", "0", "0");
}

// A clock that goes on while one waits for udev, which has something to say of other devices all the time.
static struct {
    bool runs;
    int waits;
    int64_t ahead; // ms
} udev;

int __real_poll(struct pollfd *descriptors, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *descriptors, nfds_t count, int timeout);
int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

int __wrap_poll(struct pollfd *descriptors, nfds_t count, int timeout)
{
    if (!udev.runs)
        return __real_poll(descriptors, count, timeout);
    udev.ahead += 1000;
    return ++udev.waits < 1000;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = __real_clock_gettime(clock, now);

    now->tv_sec += (time_t)(udev.ahead / 1000);
    return result;
}

static void test_others_do_not_hold_up_what_waits_for_udev(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    tree_write(bench->root, "run/udev/control", "");
    bench_start(bench, "{\"enable\": true}");
    udev.runs = true;
    bench_open_for_vm(bench, device);
    udev.runs = false;
    udev.ahead = 0;
    if (udev.waits == 0) {
        print_message("test_others_do_not_hold_up_what_waits_for_udev: skip: udev's events cannot be heard here\n");
        skip();
    }
    assert_true(udev.waits <= 5);
    bench_expect_device(bench, "1-2", "1", "1");
}

static void test_what_the_host_may_have_comes_back_to_its_drivers(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true, \"hostAllow\": [{\"vendorId\": \"0627\"}]}");
    bench_watch_device(bench);
    bench_open_for_vm(bench, device);
    bench_expect_writes(bench, "1213");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, true)));
    bench_expect_writes(bench, "4"); // not by turning it off and on
    bench_expect(bench, "bus/usb/drivers_probe", "1-2:1.0");
    // And is the host's from then on, also for the next start.
    assert_null(authorize_settle(bench->authorize, device, false));
    bench_start(bench, "{\"enable\": true}");
    assert_null(authorize_settle(bench->authorize, device, true));
}

static void test_what_a_program_has_claimed_is_left_unless_no_vm_has_it(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    bench_open_for_vm(bench, device);
    tree_link(bench->root, "sys/devices/usb1/1-2/1-2:1.0/driver", "../../../../bus/usb/drivers/usbfs");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, false)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "1");
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, true))); // it is known to be in none
    bench_expect(bench, "devices/usb1/1-2/authorized", "0");
}

static void test_what_the_host_lives_on_is_left(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", true);

    bench_start(bench, "{\"enable\": true}");
    bench_open_for_vm(bench, device);
    device->host_use = string_copy("/ is mounted from sda1");
    assert_null(authorize_settle(bench->authorize, device, true));
    bench_expect(bench, "devices/usb1/1-2/authorized", "1");
}

static void fails(struct bench *bench, struct device *device, enum host_open_kind wanted, const char *words)
{
    CLEANUP(cleanup_authorize_plan) struct authorize_plan *plan = authorize_open(bench->authorize, device);
    enum host_open_kind kind = HOST_OPENED;
    CLEANUP(cleanup_free) char *text = NULL;

    authorize_run(plan);
    assert_true(authorize_failed(plan, &kind, &text));
    assert_int_equal(kind, wanted);
    assert_non_null(strstr(text, words));
    authorize_done(bench->authorize, plan);
}

static void test_another_device_in_its_place_is_not_touched(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    bench_set(bench, "1-2", "devnum", "5\n");
    fails(bench, device, HOST_OPEN_GONE, "the device has gone");
    bench_expect_device(bench, "1-2", "0", "0");
}

static void test_what_was_done_to_one_device_is_not_of_the_next_in_its_place(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);
    CLEANUP(cleanup_device) struct device *next = NULL;

    bench_start(bench, "{\"enable\": true}");
    bench_open_for_vm(bench, device);
    tree_remove(bench->root, "sys/bus/usb/devices/1-2");
    next = bench_add_device(bench, "1-2", "5\n", true);
    assert_null(authorize_settle(bench->authorize, next, false));
    authorize_forget(bench->authorize, next->syspath);
    authorize_forget(bench->authorize, next->syspath);
}

static void test_a_switch_that_cannot_be_set_is_said_and_nothing_is_authorized(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    tree_write(bench->root, "sys/devices/usb1/interface_authorized_default", "?\n");
    fails(bench, device, HOST_OPEN_RETRY, "1-2/authorized cannot be written: ");
    bench_expect_device(bench, "1-2", "0", "0");
}

// ---- runs that are killed

static void test_f36_killed_while_a_vm_has_it_and_the_vm_has_gone(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    bench_open_for_vm(bench, device);
    bench_start(bench, "{\"enable\": true}");
    bench_expect_device(bench, "1-2", "1", "1"); // a VM may have it
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, false)));
    bench_expect(bench, "devices/usb1/1-2/authorized", "0");
}

static void test_f36_killed_before_anything_was_written(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    authorize_plan_free(authorize_open(bench->authorize, device));
    bench_start(bench, "{\"enable\": true}");
    bench_watch_device(bench);
    assert_true(bench_run(bench, authorize_settle(bench->authorize, device, false)));
    assert_null(authorize_settle(bench->authorize, device, false)); // it is over and done with
    bench_expect_writes(bench, "");
}

static void test_f36_killed_with_the_interfaces_held(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);

    bench_start(bench, "{\"enable\": true}");
    authorize_plan_free(authorize_open(bench->authorize, device)); // as far as the first two writes, say
    tree_write(bench->root, "sys/devices/usb1/interface_authorized_default", "0\n");
    bench_set(bench, "1-2", "authorized", "1\n");
    bench_start(bench, "{\"enable\": true}");
    bench_expect(bench, "devices/usb1/interface_authorized_default", "1");
    bench_watch_device(bench);
    bench_open_for_vm(bench, device);
    bench_expect_writes(bench, "3"); // only what is missing
    bench_expect_device(bench, "1-2", "1", "1");
}

static void test_f36_what_was_authorized_before_is_left_by_a_start(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", true);

    for (int i = 0; i < 3; i++) {
        bench_start(bench, "{\"enable\": true}");
        assert_null(authorize_settle(bench->authorize, device, true));
        assert_null(authorize_settle(bench->authorize, device, false));
    }
    bench_expect_device(bench, "1-2", "1", "1");
}

static void test_a_damaged_record_is_set_aside_and_nothing_is_swept_by_it(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", true);
    static const char *const damaged[] = {
        "{",
        "[]",
        "{\"version\": 2}",
        "{\"version\": 1, \"swept\": 1, \"buses\": [], \"devices\": []}",
        "{\"version\": 1, \"swept\": false, \"buses\": [{}], \"devices\": []}",
        "{\"version\": 1, \"swept\": false, \"newBuses\": \"x\", \"buses\": [], \"devices\": []}",
        "{\"version\": 1, \"swept\": false, \"buses\": [], \"devices\": [{\"syspath\": \"/a\", \"instance\": 1}]}",
        ("{\"version\": 1, \"swept\": false, \"buses\": [{\"name\": \"usb1\", \"instance\": 1, "
         "\"authorizedDefault\": 3, \"held\": false}], \"devices\": []}"),
    };

    device->product_id = 2;
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        CLEANUP(cleanup_free) char *aside = string_printf("%s.damaged", bench->record);
        tree_write(bench->root, "run/authorization.json", damaged[i]);
        bench_start(bench, "{\"enable\": true, \"deauthorizeUnmatched\": true}");
        authorize_sweep(bench->authorize, &device, 1);
        assert_int_equal(bench->settled_count, 0);
        assert_int_equal(unlink(aside), 0);
    }
}

// ---- where devices are handed over

static void handle_answer(void *user, struct handover_answer *answer)
{
    enum host_open_kind *kind = user;

    *kind = answer->kind;
}

// -1 while it is being written.
static int authorized_now(struct bench *bench)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(bench->sys);
    unsigned long authorized;

    return sysfs_number(directory, "devices/usb1/1-2/authorized", 10, 1, &authorized) < 0 ? -1 : (int)authorized;
}

// Whether something is left to be done for its rest.
static bool has_plan(struct bench *bench, struct device *device)
{
    CLEANUP(cleanup_authorize_plan) struct authorize_plan *plan = authorize_settle(bench->authorize, device, false);

    return plan != NULL;
}

static void test_it_is_authorized_before_it_is_opened_and_deauthorized_when_it_rests(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = bench_add_device(bench, "1-2", "4\n", false);
    struct bind_paths paths = {0};
    struct host_receiver receiver = {0};
    enum host_open_kind kind = HOST_OPEN_REFUSED;
    sd_event *loop = NULL;
    struct worker *worker = NULL;

    assert_int_equal(sd_event_new(&loop), 0);
    assert_int_equal(worker_new(&worker, loop, 2), 0);
    struct handover *handover = handover_new(worker, loop, bench->log, &paths, handle_answer, &kind);
    bench_start(bench, "{\"enable\": true}");
    handover_authorize(handover, bench->authorize);
    device->node = string_printf("%s/node", bench->root);
    handover_open(handover, device, 1, &receiver, string_copy("/ is mounted from it"));
    while (kind == HOST_OPEN_REFUSED)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    assert_int_equal(kind, HOST_OPEN_IN_USE);
    assert_int_equal(authorized_now(bench), 0);
    kind = HOST_OPEN_REFUSED;
    handover_open(handover, device, 2, &receiver, NULL);
    while (kind == HOST_OPEN_REFUSED)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    assert_int_equal(authorized_now(bench), 1);
    kind = HOST_OPEN_REFUSED;
    assert_true(handover_withhold(handover, device, 3));
    while (kind == HOST_OPEN_REFUSED)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    assert_int_equal(kind, HOST_OPEN_READY);
    bench_expect_device(bench, "1-2", "1", "0");
    handover_settle(handover, device, false);
    while (has_plan(bench, device))
        assert_true(sd_event_run(loop, 1000) >= 0);
    assert_int_equal(authorized_now(bench), 0);
    assert_false(handover_withhold(handover, device, 4));
    worker_free(worker);
    handover_free(handover);
    sd_event_unref(loop);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up, bench_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_f38_no_driver_is_bound_to_a_device_of_a_vm),
        TEST(test_an_interface_default_that_is_0_already_stays_so),
        TEST(test_f48_authorized_is_written_once_for_each_need),
        TEST(test_f38_what_leaves_a_vm_is_withheld_from_the_drivers_first),
        TEST(test_what_was_withheld_and_is_the_hosts_gets_its_drivers),
        TEST(test_a_device_that_comes_back_while_it_is_deauthorized),
        TEST(test_off_by_default_nothing_is_done),
        TEST(test_f37_hubs_and_what_the_host_may_have_are_authorized),
        TEST(test_what_says_that_it_is_a_hub_and_something_else_is_none),
        TEST(test_others_do_not_hold_up_what_waits_for_udev),
        TEST(test_what_the_host_may_have_comes_back_to_its_drivers),
        TEST(test_what_a_program_has_claimed_is_left_unless_no_vm_has_it),
        TEST(test_what_the_host_lives_on_is_left),
        TEST(test_another_device_in_its_place_is_not_touched),
        TEST(test_what_was_done_to_one_device_is_not_of_the_next_in_its_place),
        TEST(test_a_switch_that_cannot_be_set_is_said_and_nothing_is_authorized),
        TEST(test_f36_killed_while_a_vm_has_it_and_the_vm_has_gone),
        TEST(test_f36_killed_before_anything_was_written),
        TEST(test_f36_killed_with_the_interfaces_held),
        TEST(test_f36_what_was_authorized_before_is_left_by_a_start),
        TEST(test_a_damaged_record_is_set_aside_and_nothing_is_swept_by_it),
        TEST(test_it_is_authorized_before_it_is_opened_and_deauthorized_when_it_rests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
