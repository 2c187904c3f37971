// The first scan of the machine that the test runs on, where one device, whichever it is, can never be read.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <systemd/sd-event.h>

#include "host/host.h"
#include "host/monitor.h"
#include "host/reader.h"
#include "tree.h"
#include "util/text.h"

static unsigned looks;

void __real_reader_submit(struct worker *worker, struct source *source, uint64_t serial,
                          void (*done)(void *user, const struct reader_result *result), void *user);
void __wrap_reader_submit(struct worker *worker, struct source *source, uint64_t serial,
                          void (*done)(void *user, const struct reader_result *result), void *user);

void __wrap_reader_submit(struct worker *worker, struct source *source, uint64_t serial,
                          void (*done)(void *user, const struct reader_result *result), void *user)
{
    if (looks++ > 0)
        __real_reader_submit(worker, source, serial, done, user);
    else
        source_free(source); // its read never ends
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

static void present(void *user, struct device *device, bool plugged)
{
    (void)user, (void)device, (void)plugged;
}

static void gone(void *user, const char *key, uint64_t instance)
{
    (void)user, (void)key, (void)instance;
}

static void scanned(void *user)
{
    ++*(unsigned *)user;
}

static void opened(void *user, uint64_t serial, enum host_open_kind kind, int fd, const char *text)
{
    (void)user, (void)serial, (void)kind, (void)fd, (void)text;
    fail();
}

static const struct host_callbacks callbacks = {present, gone, scanned, opened};

static void test_one_device_that_cannot_be_read_does_not_hold_up_the_others(void **state)
{
    CLEANUP(cleanup_log) struct log *log = log_new(LOG_LEVEL_ERROR);
    struct host *host = NULL;
    sd_event *loop = NULL;
    unsigned scans = 0;

    (void)state;
    assert_int_equal(sd_event_new(&loop), 0);
    assert_int_equal(host_new(&host, loop, log, &callbacks, &scans), 0);
    assert_true(host_start(host) >= 0);
    while (scans == 0)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    assert_int_equal(scans, 1);
    host_free(host);
    sd_event_unref(loop);
    if (looks == 0)
        skip(); // a machine without any device
}

// What the monitor told of a device.
struct told {
    unsigned looks, missed;
};

static void look(void *user, struct source *source)
{
    ((struct told *)user)->looks++;
    source_free(source);
}

static void removed(void *user, const char *syspath)
{
    (void)user, (void)syspath;
    fail();
}

static void overflow(void *user)
{
    (void)user;
    fail();
}

static void missed(void *user)
{
    ((struct told *)user)->missed++;
}

static char *any_function(void)
{
    CLEANUP(cleanup_directory) DIR *listing = opendir("/sys/bus/pci/devices");
    const struct dirent *entry;

    while (listing != NULL && (entry = readdir(listing)) != NULL) {
        CLEANUP(cleanup_free) char *link = string_printf("/sys/bus/pci/devices/%s", entry->d_name);
        if (entry->d_name[0] != '.')
            return realpath(link, NULL);
    }
    return NULL;
}

static void test_a_device_that_there_is_no_room_to_look_at_is_missed(void **state)
{
    static const struct monitor_callbacks news = {look, removed, overflow, missed};
    CLEANUP(cleanup_log) struct log *log = log_new(LOG_LEVEL_ERROR);
    CLEANUP(cleanup_free) char *function = any_function();
    struct monitor *monitor = NULL;
    struct told told = {0};
    sd_event *loop = NULL;

    (void)state;
    if (function == NULL) {
        printf("test_a_device_that_there_is_no_room_to_look_at_is_missed: skip: this machine has no PCI function\n");
        skip();
    }
    assert_int_equal(sd_event_new(&loop), 0);
    assert_int_equal(monitor_new(&monitor, loop, log, &news, &told), 0);
    tree_limit_descriptors(0);
    monitor_look(monitor, function);
    tree_limit_descriptors(-1);
    assert_int_equal(told.looks, 0);
    assert_true(told.missed > 0);
    told = (struct told){0};
    monitor_look(monitor, function);
    assert_int_equal(told.looks, 1);
    assert_int_equal(told.missed, 0);
    monitor_free(monitor);
    sd_event_unref(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_device_that_cannot_be_read_does_not_hold_up_the_others),
        cmocka_unit_test(test_a_device_that_there_is_no_room_to_look_at_is_missed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
