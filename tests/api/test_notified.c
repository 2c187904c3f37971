// Who is told of events: a caller that has gone is not.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/messages.h"
#include "util/text.h"

#define CALLERS 4

struct listener {
    struct caller caller; // the first, so that one is the other
    unsigned lines;
};

static void on_say(struct caller *caller, const char *line, size_t length)
{
    (void)line, (void)length;
    ((struct listener *)caller)->lines++;
}

static char *reload(void *user)
{
    (void)user;
    return NULL;
}

static void begin_all(struct messages *messages, struct listener *listeners)
{
    static const char line[] = "{\"action\":\"enable_notifications\"}";
    for (size_t i = 0; i < CALLERS; i++) {
        listeners[i] = (struct listener){.caller = {.permissions = API_NOTIFY, .say = on_say}};
        messages_request(messages, &listeners[i].caller, line, strlen(line));
        assert_int_equal(listeners[i].lines, 1);
    }
}

// One of them goes; each of the others is told of one thing.
static void expect_told(struct messages *messages, struct listener *listeners, size_t gone, bool up)
{
    const struct output output = {
        .kind = OUTPUT_VM, .vm = "vm1", .vm_state = up ? VM_STATE_ANSWERS : VM_STATE_DOWN, .reason = ""};
    begin_all(messages, listeners);
    messages_forget(messages, &listeners[gone].caller);
    messages_output(messages, &output);
    for (size_t i = 0; i < CALLERS; i++)
        assert_int_equal(listeners[i].lines, i == gone ? 1 : 2);
    for (size_t i = 0; i < CALLERS; i++)
        messages_forget(messages, &listeners[i].caller);
    const struct output nobody = {.kind = OUTPUT_VM, .vm = "vm1", .vm_state = VM_STATE_SILENT, .reason = ""};
    messages_output(messages, &nobody);
}

static void test_who_has_gone_is_told_nothing(void **state)
{
    (void)state;
    static const char text[] = "{\"vms\":[]}";
    static const struct api_callbacks callbacks = {.reload = reload};
    struct listener listeners[CALLERS];
    struct config_report report = {0};
    sd_event *loop = NULL;
    struct messages *messages = NULL;
    struct log *log = log_new(LOG_LEVEL_ERROR);
    struct reconcile *reconcile = reconcile_new(1, false);
    struct config *config = config_parse("test", text, sizeof text - 1, &report);
    assert_non_null(config);
    reconcile_configure(reconcile, config, 0);
    assert_true(sd_event_new(&loop) >= 0);
    assert_true(messages_new(&messages, loop, log, reconcile, &callbacks, NULL) >= 0);
    messages_configure(messages, config);
    for (size_t gone = 0; gone < CALLERS; gone++)
        expect_told(messages, listeners, gone, gone % 2 == 0);
    messages_free(messages);
    sd_event_unref(loop);
    reconcile_free(reconcile);
    config_free(config);
    config_report_clear(&report);
    log_free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_has_gone_is_told_nothing),
    };
    return cmocka_run_group_tests_name("api_notified", tests, NULL, NULL);
}
