// The whole wing on the machine that the test runs on, whatever it has.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <glob.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "host/drivers.h"
#include "host/host.h"
#include "tree.h"
#include "util/text.h"

struct seen {
    unsigned present, scanned, opened;
    enum host_open_kind kind;
};

static void present(void *user, struct device *device, bool plugged)
{
    struct seen *seen = user;

    assert_int_equal(seen->scanned, 0);
    assert_false(plugged);
    assert_non_null(device->key);
    assert_int_not_equal(device->instance, 0);
    seen->present++;
}

static void gone(void *user, const char *key, uint64_t instance)
{
    (void)user, (void)key, (void)instance;
}

static void scanned(void *user)
{
    ((struct seen *)user)->scanned++;
}

static void opened(void *user, uint64_t serial, enum host_open_kind kind, int fd, const char *text)
{
    struct seen *seen = user;

    assert_int_equal(serial, 3);
    assert_int_equal(fd, -1);
    assert_non_null(text);
    seen->kind = kind;
    seen->opened++;
}

static const struct host_callbacks callbacks = {present, gone, scanned, opened};

static void test_the_first_scan_completes(void **state)
{
    CLEANUP(cleanup_log) struct log *log = log_new(LOG_LEVEL_WARNING);
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    struct host *host = NULL;
    sd_event *loop = NULL;
    struct seen seen = {0};

    (void)state;
    assert_int_equal(sd_event_new(&loop), 0);
    assert_int_equal(host_new(&host, loop, log, &callbacks, &seen), 0);
    assert_true(host_start(host) >= 0);
    assert_int_equal(seen.scanned, 0);
    while (seen.scanned == 0)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    device->node = string_copy("/nonexistent/node");
    device->syspath = string_copy("/sys/devices/nonexistent");
    device->instance = 1;
    host_open(host, device, 3, &(struct host_receiver){0});
    assert_int_equal(seen.opened, 0);
    while (seen.opened == 0)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    assert_int_equal(seen.kind, HOST_OPEN_GONE);
    assert_int_equal(seen.scanned, 1);
    host_open(host, device, 3, &(struct host_receiver){0}); // and it ends in the midst of it
    host_free(host);
    sd_event_unref(loop);
}

static void test_ended_before_it_has_begun(void **state)
{
    CLEANUP(cleanup_log) struct log *log = log_new(LOG_LEVEL_WARNING);
    struct host *host = NULL;
    sd_event *loop = NULL;
    struct seen seen = {0};

    (void)state;
    assert_int_equal(sd_event_new(&loop), 0);
    assert_int_equal(host_new(&host, loop, log, &callbacks, &seen), 0);
    assert_true(host_start(host) >= 0);
    host_free(host);
    sd_event_unref(loop);
    host_free(NULL);
    assert_int_equal(seen.scanned, 0);
}

static void test_drivers_are_unique_and_bounded(void **state)
{
    CLEANUP(cleanup_drivers) struct drivers *drivers = drivers_new(NULL);
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    char alias[] = "usb:v0403p6001d0600dc00dsc00dp00icFFiscFFipFFin00";
    char *same[] = {alias, alias};

    (void)state;
    drivers_find(drivers, same, 2, device); // none, where the machine has no modules
    for (size_t i = 0; i < device->driver_count; i++) {
        assert_non_null(strchr(device->drivers[i], '/'));
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(device->drivers[i], device->drivers[j]);
    }
    for (unsigned i = 0; i < 1200; i++) {
        CLEANUP(cleanup_free) char *made_up = string_printf("usb:v%04Xp0000d0000dc00dsc00dp00icFFiscFFipFFin00", i);
        drivers_find(drivers, &made_up, 1, device);
    }
    assert_true(device->driver_count <= DEVICE_DRIVERS_MAX);
}

// On a machine that has the modules of any kernel.
static void test_a_serial_adapter_has_its_driver(void **state)
{
    static char alias[] = "usb:v0403p6001d0600dc00dsc00dp00icFFiscFFipFFin00";
    char *const aliases[] = {alias, alias};
    glob_t found;

    (void)state;
    if (glob("/lib/modules/*/kernel/drivers/usb/serial/ftdi_sio.ko*", 0, NULL, &found) != 0)
        skip();
    CLEANUP(cleanup_free) char *directory = string_copy(found.gl_pathv[0]);
    *strstr(directory, "/kernel/") = '\0';
    CLEANUP(cleanup_drivers) struct drivers *drivers = drivers_new(directory);
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    drivers_find(drivers, aliases, 2, device);
    assert_int_equal(device->driver_count, 1);
    assert_string_equal(device->drivers[0], found.gl_pathv[0]);
    globfree(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_scan_completes),
        cmocka_unit_test(test_ended_before_it_has_begun),
        cmocka_unit_test(test_drivers_are_unique_and_bounded),
        cmocka_unit_test(test_a_serial_adapter_has_its_driver),
    };

    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
