// The log on standard error: one safe line a thing, by level.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "unit.h"
#include "util/log.h"
#include "util/text.h"

// Runs the logging with standard error in a pipe and gives what was written.
static char *capture(void (*run)(struct log *log), enum log_level level)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    int saved = dup(STDERR_FILENO);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    CLEANUP(cleanup_log) struct log *log = log_new(level);
    run(log);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    struct text text = {0};
    char buffer[4096];
    ssize_t got;
    while ((got = read(ends[0], buffer, sizeof buffer)) > 0)
        text_add_bytes(&text, buffer, (size_t)got);
    close(ends[0]);
    return text_take(&text);
}

static void all_levels(struct log *log)
{
    log_error(log, "an %s", "error");
    log_warning(log, "a warning");
    log_info(log, "%d devices", 3);
    log_debug(log, "details");
}

static void hostile(struct log *log)
{
    errno = ENODEV;
    const struct log_subject subject = {.device = "x\ny", .vm = "vm1", .verdict = "allowed"};
    log_line(log, LOG_LEVEL_INFO, &subject, "%s", "Evil\nerror root\033[2J\377");
    assert_int_equal(errno, ENODEV);
}

static void quiet_then_loud(struct log *log)
{
    assert_false(log_is_debug(log));
    log_debug(log, "one");
    log_set_level(log, LOG_LEVEL_DEBUG);
    assert_true(log_is_debug(log));
    log_debug(log, "two");
}

static void test_levels(void **state)
{
    (void)state;
    CLEANUP(cleanup_free) char *debug = capture(all_levels, LOG_LEVEL_DEBUG);
    assert_string_equal(debug, "error an error\nwarning a warning\ninfo 3 devices\ndebug details\n");
    CLEANUP(cleanup_free) char *info = capture(all_levels, LOG_LEVEL_INFO);
    assert_string_equal(info, "error an error\nwarning a warning\ninfo 3 devices\n");
    CLEANUP(cleanup_free) char *later = capture(quiet_then_loud, LOG_LEVEL_INFO);
    assert_string_equal(later, "debug two\n");
}

static void test_hostile_text_stays_on_its_line(void **state)
{
    (void)state;
    CLEANUP(cleanup_free) char *line = capture(hostile, LOG_LEVEL_INFO);
    assert_string_equal(line, "info Evil\\x0aerror root\\x1b[2J\\xff\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_hostile_text_stays_on_its_line),
    };
    (void)unsetenv("JOURNAL_STREAM");
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
