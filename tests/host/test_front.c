// The wing's front, with devices, reads and openings of our own: what it hands on to its parts.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "core/reconcile.h"
#include "host/authorize.h"
#include "host/handover.h"
#include "host/host.h"
#include "host/monitor.h"
#include "host/network.h"
#include "host/opener.h"
#include "host/usb.h"
#include "util/text.h"

// More than there may be threads.
#define OPENINGS 200

static const char place[] = "/sys/devices/nonexistent/1-2";

// ---- what there is

static struct {
    pthread_mutex_t lock; // guards all that threads touch
    pthread_cond_t changed;
    bool closed;   // nothing is opened while that is so
    unsigned read; // devices
    uint64_t instance;
    bool there;                     // a scan finds the device
    bool network;                   // all of the host's network goes through it
    bool routes_read, network_then; // as it was when they were read
    int network_error;
    bool misses; // a scan does not see all that there is
    int scan_error, read_error;
    bool unready;                  // for udevd
    sd_event_time_handler_t again; // what was put off; NULL: nothing
    void *again_user;
    sd_event_time_handler_t limit; // of the first scan; NULL: there is none
    sd_event_source *limit_source;
    void *limit_user;
    const struct monitor_callbacks *callbacks;
    void *user;
    struct text told; // "present 1, gone handover 1, …"
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int __real_monitor_new(struct monitor **monitor, sd_event *loop, struct log *log,
                       const struct monitor_callbacks *callbacks, void *user);
int __wrap_monitor_new(struct monitor **monitor, sd_event *loop, struct log *log,
                       const struct monitor_callbacks *callbacks, void *user);
int __wrap_monitor_scan(struct monitor *monitor);
void __wrap_monitor_look(struct monitor *monitor, const char *syspath);
int __wrap_again_later(sd_event_source **timer, sd_event *loop, sd_event_time_handler_t handler, void *user);
int __wrap_usb_read(const struct source *source, struct reading *reading);
void __wrap_opener_open(const struct device *device, struct opener_result *result);
char *__wrap_network_of(struct network *network, char *const *places, size_t count);
int __wrap_network_error(const struct network *network);
void __wrap_network_invalidate(struct network *network);
int __real_sd_event_add_time_relative(sd_event *loop, sd_event_source **source, clockid_t clock, uint64_t time,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *user);
int __wrap_sd_event_add_time_relative(sd_event *loop, sd_event_source **source, clockid_t clock, uint64_t time,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *user);
void __wrap_handover_gone(struct handover *handover, const struct device *device);
void __wrap_authorize_forget(struct authorize *authorize, const char *syspath);

int __wrap_monitor_new(struct monitor **monitor, sd_event *loop, struct log *log,
                       const struct monitor_callbacks *callbacks, void *user)
{
    world.callbacks = callbacks;
    world.user = user;
    return __real_monitor_new(monitor, loop, log, callbacks, user);
}

static void look(const char *syspath)
{
    world.callbacks->look(world.user, source_new(DEVICE_USB, syspath, !world.unready));
}

int __wrap_monitor_scan(struct monitor *monitor)
{
    (void)monitor;
    if (world.there)
        look(place);
    if (world.misses)
        world.callbacks->missed(world.user);
    return world.scan_error;
}

void __wrap_monitor_look(struct monitor *monitor, const char *syspath)
{
    (void)monitor;
    look(syspath);
}

int __wrap_again_later(sd_event_source **timer, sd_event *loop, sd_event_time_handler_t handler, void *user)
{
    (void)timer, (void)loop;
    world.again = handler;
    world.again_user = user;
    return 0;
}

int __wrap_usb_read(const struct source *source, struct reading *reading)
{
    struct device *device = device_new(DEVICE_USB);
    int error;

    device->key = string_printf("usb:%s", strrchr(source->syspath, '/') + 1);
    device->syspath = string_copy(source->syspath);
    device->node = string_copy("/nonexistent/node");
    pthread_mutex_lock(&world.lock);
    device->instance = world.instance;
    world.read++;
    error = world.read_error;
    pthread_mutex_unlock(&world.lock);
    reading->device = device;
    if (error < 0)
        reading_clear(reading);
    return error;
}

void __wrap_opener_open(const struct device *device, struct opener_result *result)
{
    (void)device;
    pthread_mutex_lock(&world.lock);
    while (world.closed)
        pthread_cond_wait(&world.changed, &world.lock);
    pthread_mutex_unlock(&world.lock);
    *result = (struct opener_result){HOST_OPEN_GONE, -1, NULL};
}

char *__wrap_network_of(struct network *network, char *const *places, size_t count)
{
    (void)network, (void)places, (void)count;
    if (!world.routes_read)
        world.network_then = world.network;
    world.routes_read = true;
    return world.network_then ? string_copy("the only one") : NULL;
}

int __wrap_network_error(const struct network *network)
{
    (void)network;
    return world.network_error;
}

void __wrap_network_invalidate(struct network *network)
{
    (void)network;
    world.routes_read = false;
}

// The limit of the first scan is kept for the tests.
int __wrap_sd_event_add_time_relative(sd_event *loop, sd_event_source **source, clockid_t clock, uint64_t time,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *user)
{
    int error = __real_sd_event_add_time_relative(loop, source, clock, time, accuracy, handler, user);

    if (time == RECONCILE_SCAN_SECONDS * UINT64_C(1000000)) {
        world.limit = handler;
        world.limit_source = *source;
        world.limit_user = user;
    }
    return error;
}

void __wrap_handover_gone(struct handover *handover, const struct device *device)
{
    (void)handover;
    text_printf(&world.told, "handover %d, ", (int)device->instance);
}

void __wrap_authorize_forget(struct authorize *authorize, const char *syspath)
{
    (void)authorize;
    text_printf(&world.told, "forget %s, ", strrchr(syspath, '/') + 1);
}

// ---- the bench

struct bench {
    struct log *log;
    sd_event *loop;
    struct host *host;
    unsigned scanned, opened;
    enum host_open_kind kind; // of the last one
};

static void present(void *user, struct device *device, bool plugged)
{
    (void)user, (void)plugged;
    text_printf(&world.told, "present %d%s, ", (int)device->instance, device->host_use != NULL ? " used" : "");
}

static void gone(void *user, const char *key, uint64_t instance)
{
    (void)user, (void)key;
    text_printf(&world.told, "gone %d, ", (int)instance);
}

static void scanned(void *user)
{
    ((struct bench *)user)->scanned++;
}

static void opened(void *user, uint64_t serial, enum host_open_kind kind, int fd, const char *text)
{
    struct bench *bench = user;

    (void)serial, (void)fd, (void)text;
    bench->kind = kind;
    bench->opened++;
}

static int set_up(void **state)
{
    static const struct host_callbacks callbacks = {present, gone, scanned, opened};
    struct bench *bench = memory_new(1, sizeof(*bench));

    world.instance = 1;
    world.read = 0;
    world.there = true;
    world.network = world.routes_read = world.misses = world.unready = false;
    world.limit = NULL;
    world.scan_error = world.read_error = world.network_error = 0;
    world.again = NULL;
    *bench = (struct bench){.log = log_new(LOG_LEVEL_ERROR)};
    assert_int_equal(sd_event_new(&bench->loop), 0);
    assert_int_equal(host_new(&bench->host, bench->loop, bench->log, &callbacks, bench), 0);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    host_free(bench->host);
    sd_event_unref(bench->loop);
    log_free(bench->log);
    free(bench);
    text_clear(&world.told);
    return 0;
}

static void scan_first(struct bench *bench)
{
    assert_true(host_start(bench->host) >= 0);
    while (bench->scanned == 0)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
}

static const char *last_of(const char *expected)
{
    const char *last = expected;

    for (const char *comma = strstr(expected, ", "); comma[2] != '\0'; comma = strstr(last, ", "))
        last = comma + 2;
    return last;
}

// Runs the loop until the last of that has been told.
static void expect_told(struct bench *bench, const char *expected)
{
    while (world.told.string == NULL || strstr(world.told.string, last_of(expected)) == NULL)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    assert_string_equal(world.told.string, expected);
    text_clear(&world.told);
}

// ---- the tests

static void set_closed(bool closed)
{
    pthread_mutex_lock(&world.lock);
    world.closed = closed;
    pthread_cond_broadcast(&world.changed);
    pthread_mutex_unlock(&world.lock);
}

static void test_f14_devices_that_hang_in_their_opening_leave_others_known(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);

    device->syspath = string_copy("/sys/devices/nonexistent/1-3");
    device->node = string_copy("/nonexistent/node");
    set_closed(true);
    for (unsigned i = 0; i < OPENINGS; i++) {
        free(device->key);
        device->key = string_printf("usb:1-3.%u", i);
        host_open(bench->host, device, i, &(struct host_receiver){0});
    }
    scan_first(bench);
    expect_told(bench, "present 1, ");
    assert_int_equal(bench->opened, 0);
    set_closed(false);
    while (bench->opened < OPENINGS)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
}

static void test_what_has_gone_is_forgotten_however_that_is_found_out(void **state)
{
    struct bench *bench = *state;

    scan_first(bench);
    expect_told(bench, "present 1, ");
    world.there = false;
    world.callbacks->overflow(world.user); // the event that it went was lost
    expect_told(bench, "handover 1, forget 1-2, gone 1, ");
    look(place);
    expect_told(bench, "present 1, ");
    pthread_mutex_lock(&world.lock);
    world.instance = 2;
    pthread_mutex_unlock(&world.lock);
    look(place); // another one in its place
    expect_told(bench, "handover 1, forget 1-2, gone 1, present 2, ");
    look("/sys/devices/nonexistent/1-4"); // in its new place before its event
    expect_told(bench, "handover 2, forget 1-2, gone 2, present 2, ");
    world.callbacks->removed(world.user, "/sys/devices/nonexistent/1-4");
    expect_told(bench, "forget 1-4, handover 2, forget 1-4, gone 2, ");
}

static void test_f35_a_usb_device_with_the_only_network(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);

    world.network = true;
    scan_first(bench);
    expect_told(bench, "present 1 used, ");
    device->key = string_copy("usb:1-2");
    device->syspath = string_copy(place);
    device->node = string_copy("/nonexistent/node");
    host_open(bench->host, device, 1, &(struct host_receiver){0});
    while (bench->opened == 0)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    assert_int_equal(bench->kind, HOST_OPEN_IN_USE);
    world.network = false; // of which there was no news
    host_open(bench->host, device, 2, &(struct host_receiver){0});
    while (bench->opened == 1)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    assert_int_not_equal(bench->kind, HOST_OPEN_IN_USE);
}

// ---- what could not be looked at

static void set_read_error(int error)
{
    pthread_mutex_lock(&world.lock);
    world.read_error = error;
    pthread_mutex_unlock(&world.lock);
}

static unsigned reads(void)
{
    pthread_mutex_lock(&world.lock);
    unsigned count = world.read;
    pthread_mutex_unlock(&world.lock);
    return count;
}

static void wait_for_reads(struct bench *bench, unsigned count)
{
    while (reads() < count)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
}

static void wait_until_put_off(struct bench *bench)
{
    while (world.again == NULL)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
}

static void let_time_pass(void)
{
    sd_event_time_handler_t handler = world.again;

    world.again = NULL;
    assert_int_equal(handler(NULL, 0, world.again_user), 0);
}

// The first scan fails, and is to be made again.
static void scan_in_vain(struct bench *bench)
{
    world.there = false;
    world.scan_error = -EMFILE;
    assert_true(host_start(bench->host) >= 0);
    wait_until_put_off(bench);
    assert_int_equal(bench->scanned, 0);
}

static void scan_again(struct bench *bench)
{
    world.there = true;
    world.scan_error = 0;
    let_time_pass();
    expect_told(bench, "present 1, ");
    assert_int_equal(bench->scanned, 1);
}

static void test_a_first_scan_that_fails_is_made_again(void **state)
{
    scan_in_vain(*state);
    scan_again(*state);
}

// All that is in a VM would be taken for what has gone.
static void test_a_list_that_cannot_be_had_is_waited_for(void **state)
{
    struct bench *bench = *state;

    scan_in_vain(bench);
    assert_int_equal(world.limit(world.limit_source, 0, world.limit_user), 0);
    assert_int_equal(bench->scanned, 0);
    assert_true(sd_event_source_get_enabled(world.limit_source, NULL) > 0);
    scan_again(bench);
}

static void test_a_device_that_fails_is_looked_at_once_more(void **state)
{
    struct bench *bench = *state;

    set_read_error(-EIO);
    assert_true(host_start(bench->host) >= 0);
    wait_until_put_off(bench);
    assert_int_equal(bench->scanned, 0);
    let_time_pass();
    while (bench->scanned == 0)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    assert_int_equal(reads(), 2);
    assert_null(world.again);
}

static void test_f35_what_there_was_no_room_to_ask_is_asked_again(void **state)
{
    struct bench *bench = *state;

    world.network = true; // as it may be, for all that is known
    world.network_error = -EMFILE;
    scan_first(bench);
    expect_told(bench, "present 1 used, ");
    assert_non_null(world.again);
    world.network = false;
    let_time_pass();
    expect_told(bench, "present 1, ");
    assert_non_null(world.again); // it may be known of this one, and not of another
    world.network_error = 0;
    let_time_pass();
    assert_null(world.again);
}

static void test_f35_what_can_never_be_told_is_not_asked_again_and_again(void **state)
{
    struct bench *bench = *state;

    world.network = true;
    world.network_error = -EACCES;
    scan_first(bench);
    expect_told(bench, "present 1 used, ");
    assert_null(world.again);
}

static void test_a_device_without_room_to_read_it_is_looked_at_again(void **state)
{
    struct bench *bench = *state;

    set_read_error(-EMFILE);
    assert_true(host_start(bench->host) >= 0);
    wait_until_put_off(bench);
    assert_int_equal(bench->scanned, 0);
    set_read_error(0);
    let_time_pass();
    expect_told(bench, "present 1, ");
    assert_int_equal(bench->scanned, 1);
}

static void test_what_makes_no_sense_or_has_gone_is_not_looked_at_again(void **state)
{
    struct bench *bench = *state;

    set_read_error(-EINVAL);
    scan_first(bench);
    set_read_error(-ENODEV);
    look(place);
    wait_for_reads(bench, 2);
    set_read_error(0);
    look(place);
    expect_told(bench, "present 1, ");
    assert_null(world.again);
}

static void test_what_is_not_ready_is_looked_at_once_more(void **state)
{
    struct bench *bench = *state;

    world.unready = true;
    scan_first(bench);
    wait_until_put_off(bench);
    let_time_pass();
    wait_for_reads(bench, 2);
    world.unready = false;
    look(place);
    expect_told(bench, "present 1, ");
    assert_null(world.again);
}

static void test_what_a_scan_has_missed_has_not_gone(void **state)
{
    struct bench *bench = *state;

    scan_first(bench);
    expect_told(bench, "present 1, ");
    world.there = false;
    world.misses = true;
    world.callbacks->overflow(world.user);
    wait_until_put_off(bench);
    assert_null(world.told.string);
    world.misses = false;
    let_time_pass();
    expect_told(bench, "handover 1, forget 1-2, gone 1, ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_f14_devices_that_hang_in_their_opening_leave_others_known, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_what_has_gone_is_forgotten_however_that_is_found_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_a_usb_device_with_the_only_network, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_first_scan_that_fails_is_made_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_list_that_cannot_be_had_is_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_device_that_fails_is_looked_at_once_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_what_there_was_no_room_to_ask_is_asked_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_what_can_never_be_told_is_not_asked_again_and_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_device_without_room_to_read_it_is_looked_at_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_makes_no_sense_or_has_gone_is_not_looked_at_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_ready_is_looked_at_once_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_scan_has_missed_has_not_gone, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("front", tests, NULL, NULL);
}
