// The first scan of the machine that the test runs on, where one device, whichever it is, can never be read.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <systemd/sd-event.h>

#include "host/host.h"
#include "host/reader.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_device_that_cannot_be_read_does_not_hold_up_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
