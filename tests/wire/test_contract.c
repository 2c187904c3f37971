// What holds for every back end, whatever the VMM behind the socket is: the same tests with a scripted
// QEMU and with the fake crosvm.
#include "bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crosvm_peer.h"
#include "fake_qemu.h"
#include "util/text.h"

struct contract {
    struct bench *bench;
    bool is_crosvm;
    struct fake_qemu qemus[2];
    struct crosvm_peer crosvms[2];
};

static const char *const names[] = {"vm1", "vm2"};

static int set_up(void **state, bool is_crosvm)
{
    struct contract *contract = memory_new(1, sizeof *contract);
    void *bench = NULL;
    int status = bench_setup(&bench);
    contract->bench = bench;
    contract->is_crosvm = is_crosvm;
    *state = contract;
    return status;
}

static int set_up_qemu(void **state)
{
    return set_up(state, false);
}

static int set_up_crosvm(void **state)
{
    return set_up(state, true);
}

static int tear_down(void **state)
{
    struct contract *contract = *state;
    void *bench = contract->bench;
    free(contract);
    return bench_teardown(&bench);
}

// ---- the VMM, whichever it is

static void start(struct contract *contract, unsigned vm, bool silent)
{
    struct bench *bench = contract->bench;
    if (contract->is_crosvm) {
        crosvm_peer_start(&contract->crosvms[vm], bench->directory, names[vm], silent ? "--halt" : NULL);
    } else {
        contract->qemus[vm] = (struct fake_qemu){.mute = silent};
        fake_qemu_start(&contract->qemus[vm], bench->loop, bench->directory, names[vm]);
    }
}

static void stop(struct contract *contract, unsigned vm)
{
    if (contract->is_crosvm)
        crosvm_peer_stop(&contract->crosvms[vm]);
    else
        fake_qemu_stop(&contract->qemus[vm]);
}

static void begin(struct contract *contract, unsigned vm, bool silent)
{
    start(contract, vm, silent);
    if (contract->is_crosvm)
        crosvm_bench_add_vm(contract->bench, names[vm]);
    else
        bench_add_vm(contract->bench, names[vm], names[vm]);
    bench_expect(contract->bench, "up", names[vm]);
}

static void end_silence(struct contract *contract, unsigned vm)
{
    if (contract->is_crosvm)
        crosvm_peer_order(&contract->crosvms[vm], "run");
    else
        fake_qemu_greet(&contract->qemus[vm]);
}

// The next answer, once: the connection ends instead, or it is none.
static void break_next(struct contract *contract, bool junk)
{
    struct fake_qemu *fake = &contract->qemus[0];
    if (contract->is_crosvm) {
        crosvm_peer_order(&contract->crosvms[0], junk ? "fault any 1 junk" : "fault any 1 eof");
    } else if (junk) {
        fake->garbage = "{]\xff";
        fake->garbage_length = strlen(fake->garbage);
        fake->garbage_at = fake->commands + 1;
    } else {
        fake->cut = fake->sent + 300; // behind the greeting
    }
}

static size_t attempts(struct contract *contract)
{
    return contract->is_crosvm ? (size_t)crosvm_peer_count(&contract->crosvms[0], "attach")
                               : fake_qemu_asked(&contract->qemus[0], "device_add");
}

// ---- operations

static const struct result *expect_done(struct contract *contract, unsigned vm, enum result_kind kind)
{
    const struct result *result = &bench_expect(contract->bench, "done", names[vm])->result;
    assert_int_equal(result->serial, contract->bench->serial);
    if (result->kind != kind)
        fail_msg("result %d, not %d: %s", result->kind, kind, result->text ? result->text : "");
    return result;
}

static void start_attach(struct contract *contract, unsigned vm, const char *node, unsigned address)
{
    struct device *device = bench_device(1, address, SPEED_HIGH);
    device->vendor_id = strcmp(node, "/dev/full") == 0 ? 0x0781 : 0x046d;
    device->product_id = strcmp(node, "/dev/full") == 0 ? 0x5567 : 0xc077;
    bench_attach(contract->bench, names[vm], device, open(node, O_RDWR | O_CLOEXEC));
    device_release(device);
}

static const struct result *attach(struct contract *contract, const char *node, unsigned address)
{
    start_attach(contract, 0, node, address);
    return expect_done(contract, 0, RESULT_DONE);
}

static const struct result *list(struct contract *contract)
{
    bench_list(contract->bench, names[0]);
    return expect_done(contract, 0, RESULT_DONE);
}

// The object of a device of ours; NULL: it is not listed.
static const char *object_of(const struct result *result, unsigned address)
{
    assert_true(result->listed);
    for (size_t i = 0; i < result->attachment_count; i++)
        if (result->attachments[i].ours && result->attachments[i].instance == 1000 + address)
            return result->attachments[i].object;
    return NULL;
}

// ---- the contract

static void test_attach_and_detach(void **state)
{
    struct contract *contract = *state;
    begin(contract, 0, false);
    const struct result *result = list(contract);
    assert_true(result->listed && result->attachment_count == 0);
    assert_non_null(object_of(attach(contract, "/dev/null", 2), 2));
    result = attach(contract, "/dev/full", 3);
    assert_int_equal(result->attachment_count, 2);
    assert_true(object_of(result, 2) && object_of(result, 3));
    char object[OBJECT_NAME_MAX];
    (void)snprintf(object, sizeof object, "%s", object_of(result, 2));
    assert_string_not_equal(object, object_of(result, 3));
    for (int i = 0; i < 2; i++) { // the second time it has gone, which is what was wanted
        bench_detach(contract->bench, names[0], object);
        result = expect_done(contract, 0, RESULT_DONE);
        assert_true(result->attachment_count == 1 && object_of(result, 3));
    }
    assert_int_equal(attempts(contract), 2);
    stop(contract, 0);
}

static void test_f03_equal_devices_stay_apart(void **state)
{
    struct contract *contract = *state;
    begin(contract, 0, false);
    attach(contract, "/dev/null", 2);
    const struct result *result = attach(contract, "/dev/zero", 3);
    assert_true(object_of(result, 2) && object_of(result, 3));
    bench_detach(contract->bench, names[0], object_of(result, 3));
    result = expect_done(contract, 0, RESULT_DONE);
    assert_true(result->attachment_count == 1 && object_of(result, 2));
    stop(contract, 0);
}

// Each answer of an attach in turn is replaced, and the next try has it right.
static void break_an_attach(struct contract *contract, bool junk)
{
    begin(contract, 0, false);
    attach(contract, "/dev/null", 2);
    bench_expect_nothing(contract->bench);
    size_t before = attempts(contract);
    break_next(contract, junk);
    start_attach(contract, 0, "/dev/full", 3);
    const struct result *result = &bench_expect(contract->bench, "done", names[0])->result;
    assert_true(result->kind == RESULT_LOST || result->kind == RESULT_RETRY);
    assert_true(result->text && *result->text);
    assert_true(attempts(contract) <= before + 1);
    result = list(contract);
    assert_non_null(object_of(result, 2));
    if (!object_of(result, 3))
        result = attach(contract, "/dev/full", 3);
    assert_int_equal(result->attachment_count, 2);
    assert_non_null(object_of(result, 3));
    bench_expect_nothing(contract->bench);
    stop(contract, 0);
}

static void test_connection_that_ends(void **state)
{
    break_an_attach(*state, false);
}

static void test_junk(void **state)
{
    break_an_attach(*state, true);
}

static void test_f24_silent_peer(void **state)
{
    struct contract *contract = *state;
    struct bench *bench = contract->bench;
    begin(contract, 0, true);
    begin(contract, 1, false);
    bench->told_silent = true;
    start_attach(contract, 0, "/dev/null", 2);
    start_attach(contract, 1, "/dev/full", 3);
    assert_non_null(object_of(expect_done(contract, 1, RESULT_DONE), 3));
    const struct told *told = bench_expect(bench, "silent", names[0]);
    assert_true(told->why && *told->why);
    assert_int_equal(attempts(contract), 0);
    end_silence(contract, 0);
    contract->bench->serial -= 1; // the first of the two
    assert_non_null(object_of(expect_done(contract, 0, RESULT_DONE), 2));
    stop(contract, 1);
    stop(contract, 0);
}

static void test_f31_vm_that_ends_and_comes_back(void **state)
{
    struct contract *contract = *state;
    struct bench *bench = contract->bench;
    begin(contract, 0, false);
    attach(contract, "/dev/null", 2);
    bench_expect_nothing(bench);
    stop(contract, 0);
    bench_expect(bench, "down", names[0]);
    start_attach(contract, 0, "/dev/null", 2);
    expect_done(contract, 0, RESULT_RETRY);
    start(contract, 0, false);
    bench_expect_up(bench, names[0]);
    assert_int_equal(list(contract)->attachment_count, 0);
    assert_non_null(object_of(attach(contract, "/dev/null", 2), 2));
    stop(contract, 0);
}

#define TEST(function)                                                                                                 \
    {#function " with QEMU", function, set_up_qemu, tear_down, NULL},                                                  \
    {                                                                                                                  \
#function " with crosvm", function, set_up_crosvm, tear_down, NULL                                             \
    }

// With an argument: only the tests whose names match it.
int main(int count, char **arguments)
{
    (void)signal(SIGPIPE, SIG_IGN);
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        TEST(test_attach_and_detach),    TEST(test_f03_equal_devices_stay_apart),
        TEST(test_connection_that_ends), TEST(test_junk),
        TEST(test_f24_silent_peer),      TEST(test_f31_vm_that_ends_and_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
