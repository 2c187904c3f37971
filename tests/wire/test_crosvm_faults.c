// A fake crosvm that is late, behind, silent or wrong: what comes of each operation, and that it heals.
#include "crosvm_bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

static void test_the_two_second_rule(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    vm1_list(bench, RESULT_DONE);
    // Attach and list, so that the replies are one, then two behind.
    crosvm_peer_order(&peer, "slow attach");
    assert_int_equal(owner_of(vm1_attach(bench, MOUSE, 11, RESULT_DONE), "1"), 11);
    assert_int_equal(owner_of(vm1_attach(bench, TWIN, 12, RESULT_DONE), "2"), 12);
    crosvm_peer_order(&peer, "slow list");
    const struct result *result = vm1_list(bench, RESULT_DONE);
    assert_true(owner_of(result, "1") == 11 && owner_of(result, "2") == 12);
    result = vm1_detach(bench, "1", RESULT_DONE);
    assert_true(result->attachment_count == 1 && owner_of(result, "2") == 12);
    crosvm_peer_expect(&peer, "ports", "{\"2\": \"046d:c077\"}");
    crosvm_peer_stop(&peer);
}

static void test_replies_behind(void **state)
{
    struct bench *bench = *state;
    for (int lag = 1; lag <= 3; lag++) {
        struct crosvm_peer peer;
        char name[8], *order = string_printf("lag %d", lag);
        (void)snprintf(name, sizeof name, "lag%d", lag);
        crosvm_peer_start(&peer, bench->directory, name, NULL);
        crosvm_bench_add_vm(bench, name);
        bench_expect(bench, "up", name);
        crosvm_peer_order(&peer, order);
        free(order);
        bench_start_attach(bench, name, MOUSE, 11);
        assert_int_equal(owner_of(bench_expect_result(bench, name, RESULT_DONE), "1"), 11);
        bench_start_attach(bench, name, STICK, 12);
        assert_int_equal(owner_of(bench_expect_result(bench, name, RESULT_DONE), "2"), 12);
        bench_detach(bench, name, "1");
        const struct result *result = bench_expect_result(bench, name, RESULT_DONE);
        assert_true(result->attachment_count == 1 && owner_of(result, "2") == 12);
        crosvm_peer_expect(&peer, "ports", "{\"2\": \"0781:5567\"}");
        crosvm_peer_stop(&peer);
        bench_expect(bench, "down", name);
    }
}

static void test_f22_usb_that_is_lost(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, "--early");
    vm1_list(bench, RESULT_DONE);
    crosvm_peer_order(&peer, "foreign 1234 5678"); // somebody else is less careful
    crosvm_peer_order(&peer, "guest-init");
    vm1_list(bench, RESULT_DONE); // the last answer
    expect_text(vm1_list(bench, RESULT_REFUSED), "restart the VM");
    int before = crosvm_peer_count(&peer, "list");
    expect_text(vm1_attach(bench, MOUSE, 11, RESULT_REFUSED), "restart the VM");
    assert_int_equal(crosvm_peer_count(&peer, "list"), before); // not stalled once more
    crosvm_peer_stop(&peer);
    bench_expect(bench, "down", "vm1");
    crosvm_peer_start(&peer, bench->directory, "vm1", NULL);
    bench_expect_up(bench, "vm1");
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    crosvm_peer_stop(&peer);
}

static void test_f30_no_reply(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer, other;
    vm1_begin(bench, &peer, NULL);
    crosvm_peer_start(&other, bench->directory, "vm2", NULL);
    crosvm_bench_add_vm(bench, "vm2");
    bench_expect(bench, "up", "vm2");
    bench->told_silent = true;
    crosvm_peer_order(&peer, "fault attach 1 silent");
    bench_start_attach(bench, "vm1", MOUSE, 11);
    bench_expect(bench, "silent", "vm1");
    bench_start_attach(bench, "vm2", TWIN, 12); // the other VM does not wait
    bench_expect_result(bench, "vm2", RESULT_DONE);
    expect_text(bench_expect_result(bench, "vm1", RESULT_LOST), "in time");
    assert_int_equal(owner_of(vm1_list(bench, RESULT_DONE), "1"), 11);
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    assert_int_equal(crosvm_peer_count(&peer, "attach"), 1);
    crosvm_peer_stop(&other);
    crosvm_peer_stop(&peer);
}

static const struct fault {
    const char *order;
    enum result_kind kind;
    bool executed;
} attach_faults[] = {
    {"fault attach 1 eof", RESULT_LOST, false},
    {"fault attach 1 reset", RESULT_LOST, false},
    {"fault attach 1 truncated", RESULT_LOST, true},
    {"fault attach 1 junk", RESULT_LOST, true},
    {"fault attach 1 long", RESULT_LOST, true},
    {"fault attach 1 unknown", RESULT_LOST, true},
    {"fault attach 1 wrong", RESULT_DONE, true},
    {"fault attach 1 fd", RESULT_DONE, true},
    {"fault attach 1 delay 300", RESULT_DONE, true},
    {"fault attach 1 NoSuchPort", RESULT_GONE, false},
    {"fault attach 1 NoSuchDevice", RESULT_GONE, false},
    {"fault attach 1 FailedToInitHostDevice", RESULT_GONE, false},
    {"fault attach 1 FailedToOpenDevice", RESULT_REFUSED, false},
    {"fault attach 1 NoAvailablePort", RESULT_RETRY, false},
    {"fault attach 1 err 5", RESULT_LOST, true},
    {"fault attach 1 err 19", RESULT_LOST, true},
    {"fault attach 1 err 22", RESULT_LOST, true},
    {"fault list 1 eof", RESULT_LOST, false},
    {"fault list 1 reset", RESULT_LOST, false},
    {"fault list 1 truncated", RESULT_RETRY, false},
    {"fault list 1 junk", RESULT_RETRY, false},
    {"fault list 1 long", RESULT_RETRY, false},
    {"fault list 1 unknown", RESULT_RETRY, false},
    {"fault list 1 fd", RESULT_DONE, true},
    {"fault list 1 NoSuchPort", RESULT_RETRY, false},
    {"fault list 1 err 5", RESULT_REFUSED, false},
    {"fault list 1 err 22", RESULT_RETRY, false},
};

static void test_faults_of_an_attach(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    for (size_t i = 0; i < sizeof attach_faults / sizeof *attach_faults; i++) {
        const struct fault *fault = &attach_faults[i];
        int before = crosvm_peer_count(&peer, "attach");
        crosvm_peer_order(&peer, fault->order);
        bench_start_attach(bench, "vm1", MOUSE, 100 + i);
        const struct result *result = &bench_expect(bench, "done", "vm1")->result;
        if (result->kind != fault->kind)
            fail_msg("%s: result %d, not %d: %s", fault->order, result->kind, fault->kind, result->text);
        assert_true(crosvm_peer_count(&peer, "attach") <= before + 1); // one attempt only
        crosvm_peer_expect(&peer, "ports", fault->executed ? "{\"1\": \"046d:c077\"}" : "{}");
        result = vm1_list(bench, RESULT_DONE);
        assert_int_equal(result->attachment_count, fault->executed ? 1 : 0);
        // It heals at the next try, without a second attach where the first has been done.
        before = crosvm_peer_count(&peer, "attach");
        assert_int_equal(owner_of(vm1_attach(bench, MOUSE, 100 + i, RESULT_DONE), "1"), 100 + i);
        assert_int_equal(crosvm_peer_count(&peer, "attach"), before + !fault->executed);
        assert_int_equal(vm1_detach(bench, "1", RESULT_DONE)->attachment_count, 0);
        bench_expect_nothing(bench);
    }
    crosvm_peer_stop(&peer);
}

static const struct fault detach_faults[] = {
    {"fault detach 1 eof", RESULT_LOST, false},
    {"fault detach 1 reset", RESULT_LOST, false},
    {"fault detach 1 junk", RESULT_LOST, true},
    {"fault detach 1 wrong", RESULT_DONE, true},
    {"fault detach 1 fd", RESULT_DONE, true},
    {"fault detach 1 unknown", RESULT_LOST, true},
    {"fault detach 1 err 5", RESULT_LOST, true},
    {"fault detach 1 NoSuchDevice", RESULT_RETRY, false},
    {"fault detach 1 NoSuchPort", RESULT_RETRY, false},
    {"fault detach 1 NoAvailablePort", RESULT_RETRY, false},
    {"fault list 2 eof", RESULT_LOST, true},
    {"fault list 2 junk", RESULT_RETRY, true},
};

static void test_faults_of_a_detach(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    vm1_attach(bench, STICK, 99, RESULT_DONE);
    for (size_t i = 0; i < sizeof detach_faults / sizeof *detach_faults; i++) {
        const struct fault *fault = &detach_faults[i];
        assert_int_equal(owner_of(vm1_attach(bench, MOUSE, 100 + i, RESULT_DONE), "2"), 100 + i);
        crosvm_peer_order(&peer, fault->order);
        bench_detach(bench, "vm1", "2");
        const struct result *result = &bench_expect(bench, "done", "vm1")->result;
        if (result->kind != fault->kind)
            fail_msg("%s: result %d, not %d: %s", fault->order, result->kind, fault->kind, result->text);
        crosvm_peer_expect(&peer, "ports",
                           fault->executed ? "{\"1\": \"0781:5567\"}" : "{\"1\": \"0781:5567\", \"2\": \"046d:c077\"}");
        vm1_detach(bench, "2", RESULT_DONE);
        result = vm1_list(bench, RESULT_DONE);
        assert_true(result->attachment_count == 1 && owner_of(result, "1") == 99);
        bench_expect_nothing(bench);
    }
    crosvm_peer_stop(&peer);
}

static void test_replies_that_never_fit(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    for (int i = 0; i < 20; i++)
        crosvm_peer_order(&peer, "fault list 1 wrong");
    vm1_list(bench, RESULT_RETRY); // it does not go on asking
    for (int i = 0; i < 20; i++) {
        bench_list(bench, "vm1");
        if (bench_expect(bench, "done", "vm1")->result.kind == RESULT_DONE)
            break;
    }
    assert_int_equal(owner_of(vm1_list(bench, RESULT_DONE), "1"), 11);
    crosvm_peer_stop(&peer);
}

static void test_reply_that_nobody_asked_for(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    crosvm_peer_order(&peer, "fault list 1 twice");
    vm1_list(bench, RESULT_DONE);
    bench_expect_nothing(bench);
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    assert_int_equal(owner_of(vm1_list(bench, RESULT_DONE), "1"), 11);
    crosvm_peer_stop(&peer);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

// With an argument: only the tests whose names match it.
int main(int count, char **arguments)
{
    (void)signal(SIGPIPE, SIG_IGN);
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        TEST(test_the_two_second_rule),    TEST(test_replies_behind),
        TEST(test_f22_usb_that_is_lost),   TEST(test_f30_no_reply),
        TEST(test_faults_of_an_attach),    TEST(test_faults_of_a_detach),
        TEST(test_replies_that_never_fit), TEST(test_reply_that_nobody_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
