// Operations on a fake crosvm: attach and detach, who is on which port, its boot and its end.
#include "crosvm_bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

static void test_attach_and_detach(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    assert_int_equal(vm1_list(bench, RESULT_DONE)->attachment_count, 0);
    const struct result *result = vm1_attach(bench, MOUSE, 71, RESULT_DONE);
    assert_true(owner_of(result, "1") == 71 && result->attachments[0].vendor_id == 0x046d);
    result = vm1_attach(bench, DISK, 72, RESULT_DONE);
    assert_true(result->attachment_count == 2 && owner_of(result, "9") == 72);
    // It is there already: no second command.
    vm1_attach(bench, MOUSE, 71, RESULT_DONE);
    assert_int_equal(crosvm_peer_count(&peer, "attach"), 2);
    result = vm1_detach(bench, "1", RESULT_DONE);
    assert_true(result->attachment_count == 1 && owner_of(result, "9") == 72);
    vm1_detach(bench, "1", RESULT_DONE);
    vm1_detach(bench, "nonsense", RESULT_DONE);
    assert_int_equal(crosvm_peer_count(&peer, "detach"), 1);
    crosvm_peer_expect(&peer, "ports", "{\"9\": \"1d6b:0003\"}");
    crosvm_peer_stop(&peer);
}

static void test_only_usb_devices_go_in_as_it_runs(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    CLEANUP(cleanup_device) struct device *device = bench_pci(1, 7);
    bench_attach_pci(bench, "vm1", device, false);
    const struct result *result = bench_expect_result(bench, "vm1", RESULT_REFUSED);
    assert_string_equal(result->text, "vm1 takes other than USB devices only at its start");
    assert_int_equal(crosvm_peer_count(&peer, "attach"), 0);
    crosvm_peer_stop(&peer);
}

static void test_f28_replug(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    for (uint64_t plug = 1; plug <= 5; plug++) {
        assert_int_equal(owner_of(vm1_attach(bench, MOUSE, plug, RESULT_DONE), "1"), plug);
        // An old crosvm keeps the port until it is asked, a new one frees it by itself.
        crosvm_peer_expect(&peer, plug % 2 ? "unplug 1 3 old" : "unplug 1 3 new", "\"ok\"");
        assert_int_equal(vm1_detach(bench, "1", RESULT_DONE)->attachment_count, 0);
    }
    crosvm_peer_expect(&peer, "ports", "{}");
    crosvm_peer_stop(&peer);
}

static void test_f03_two_equal_devices(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer, other;
    vm1_begin(bench, &peer, NULL);
    crosvm_peer_start(&other, bench->directory, "vm2", NULL);
    crosvm_bench_add_vm(bench, "vm2");
    bench_expect(bench, "up", "vm2");
    bench_start_attach(bench, "vm2", TWIN, 12);
    assert_int_equal(owner_of(bench_expect_result(bench, "vm2", RESULT_DONE), "1"), 12);
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    bench_detach(bench, "vm2", "1");
    assert_int_equal(bench_expect_result(bench, "vm2", RESULT_DONE)->attachment_count, 0);
    const struct result *result = vm1_attach(bench, TWIN, 12, RESULT_DONE);
    assert_true(owner_of(result, "1") == 11 && owner_of(result, "2") == 12);
    result = vm1_detach(bench, "1", RESULT_DONE);
    assert_true(result->attachment_count == 1 && owner_of(result, "2") == 12);
    result = vm1_attach(bench, MOUSE, 13, RESULT_DONE);
    assert_true(owner_of(result, "1") == 13 && owner_of(result, "2") == 12);
    crosvm_peer_stop(&other);
    crosvm_peer_stop(&peer);
}

// What a restart of the daemon leaves of vm1: the memory only.
static void restart(struct bench *bench, const struct memory_device *devices, size_t count)
{
    struct memory memory = {.devices = (struct memory_device *)devices, .count = count};
    bench_configure(bench, 0);
    vmms_remember(bench->vmms, &memory);
    bench_configure(bench, 1);
    bench_expect(bench, "up", "vm1");
}

static struct memory_device remembered(uint64_t instance, uint64_t vm_instance, const char *object)
{
    return (struct memory_device){.key = (char *)"usb:1-2",
                                  .instance = instance,
                                  .vm = (char *)"vm1",
                                  .vm_instance = vm_instance,
                                  .object = (char *)object,
                                  .vendor_id = 0x046d,
                                  .product_id = 0xc077};
}

static void test_f03_equal_devices_after_a_daemon_restart(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    uint64_t vm = bench->told[0].instance;
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    vm1_attach(bench, TWIN, 12, RESULT_DONE);
    const struct memory_device known[] = {remembered(12, vm, "2"), remembered(11, vm, "1")};
    restart(bench, known, 2);
    const struct result *result = vm1_list(bench, RESULT_DONE);
    assert_true(owner_of(result, "1") == 11 && owner_of(result, "2") == 12);
    // Killed before the port of the second was written down: the one that is left.
    const struct memory_device late[] = {remembered(11, vm, "1"), remembered(12, vm, NULL)};
    restart(bench, late, 2);
    result = vm1_list(bench, RESULT_DONE);
    assert_true(owner_of(result, "1") == 11 && owner_of(result, "2") == 12);
    // Another process, a port that holds something else, and no such port.
    const struct memory_device wrong[] = {remembered(11, vm + 1, "1"), remembered(12, vm, "3"),
                                          remembered(13, vm, "17")};
    restart(bench, wrong, 3);
    result = vm1_list(bench, RESULT_DONE);
    assert_true(owner_of(result, "1") == 0 && owner_of(result, "2") == 0);
    crosvm_peer_stop(&peer);
}

static void test_f03_nobody_can_tell(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    uint64_t vm = bench->told[0].instance;
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    const struct memory_device both[] = {remembered(11, vm, NULL), remembered(12, vm, NULL)};
    restart(bench, both, 2);
    assert_int_equal(owner_of(vm1_list(bench, RESULT_DONE), "1"), 0);
    expect_text(vm1_attach(bench, TWIN, 12, RESULT_REFUSED), "cannot tell whether it is this device");
    assert_int_equal(crosvm_peer_count(&peer, "attach"), 1);
    // Somebody takes it out, as the message says.
    crosvm_peer_order(&peer, "unplug 1 3 new");
    assert_int_equal(owner_of(vm1_attach(bench, TWIN, 12, RESULT_DONE), "1"), 12);
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    crosvm_peer_stop(&peer);
}

static void test_f26_f31_vm_restart(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    uint64_t first = bench->told[0].instance;
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    crosvm_peer_stop(&peer);
    bench_expect(bench, "down", "vm1");
    bench_list(bench, "vm1");
    expect_text(bench_expect_result(bench, "vm1", RESULT_RETRY), "down");
    crosvm_peer_start(&peer, bench->directory, "vm1", NULL);
    assert_true(bench_expect_up(bench, "vm1")->instance != first);
    assert_int_equal(vm1_list(bench, RESULT_DONE)->attachment_count, 0);
    assert_int_equal(owner_of(vm1_attach(bench, MOUSE, 11, RESULT_DONE), "1"), 11);
    // Killed with a request in flight and the socket's file left behind.
    crosvm_peer_order(&peer, "fault list 1 silent");
    bench_list(bench, "vm1");
    crosvm_peer_await(bench, &peer, "list", 4);
    crosvm_peer_kill(&peer);
    bench_expect_result(bench, "vm1", RESULT_LOST);
    bench_expect(bench, "down", "vm1");
    crosvm_peer_start(&peer, bench->directory, "vm1", NULL);
    bench_expect_up(bench, "vm1");
    assert_int_equal(owner_of(vm1_attach(bench, MOUSE, 11, RESULT_DONE), "1"), 11);
    crosvm_peer_stop(&peer);
}

static void test_f30_socket_that_is_away_for_a_while(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    uint64_t instance = bench->told[0].instance;
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    char *away = string_printf("%s.away", peer.path);
    assert_int_equal(rename(peer.path, away), 0);
    bench_expect(bench, "down", "vm1");
    assert_int_equal(rename(away, peer.path), 0);
    free(away);
    assert_int_equal(bench_expect_up(bench, "vm1")->instance, instance);
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    assert_int_equal(owner_of(vm1_list(bench, RESULT_DONE), "1"), 11);
    assert_int_equal(crosvm_peer_count(&peer, "attach"), 1);
    crosvm_peer_stop(&peer);
}

static void test_killed_while_it_settles(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    bench_start_attach(bench, "vm1", MOUSE, 11);
    crosvm_peer_await(bench, &peer, "list", 1);
    crosvm_peer_kill(&peer);
    bench_expect_result(bench, "vm1", RESULT_LOST);
    bench_expect(bench, "down", "vm1");
    crosvm_peer_start(&peer, bench->directory, "vm1", NULL);
    bench_expect_up(bench, "vm1");
    vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    bench_start_attach(bench, "vm1", TWIN, 12); // ends with the daemon
    bench_turn(bench);
    crosvm_peer_stop(&peer);
}

static void test_f22_early_boot(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, "--early");
    for (int i = 0; i < 3; i++) {
        const struct result *result = vm1_attach(bench, MOUSE, 11, RESULT_RETRY);
        expect_text(result, "not ready");
        assert_true(result->listed && result->attachment_count == 0);
        crosvm_peer_expect(&peer, "ports", "{}");
    }
    // The connection ends between the leak and its undoing: the next operation does that first.
    crosvm_peer_order(&peer, "fault list 2 eof");
    vm1_attach(bench, MOUSE, 11, RESULT_LOST);
    crosvm_peer_expect(&peer, "ports", "{\"1\": \"046d:c077\"}");
    assert_int_equal(vm1_list(bench, RESULT_DONE)->attachment_count, 0);
    crosvm_peer_expect(&peer, "ports", "{}");
    crosvm_peer_order(&peer, "guest-init");
    assert_int_equal(owner_of(vm1_attach(bench, MOUSE, 11, RESULT_DONE), "1"), 11);
    vm1_list(bench, RESULT_DONE);
    crosvm_peer_stop(&peer);
}

static void test_f20_f22_no_attach_before_the_first_answer(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    bench->told_silent = true;
    vm1_begin(bench, &peer, "--halt");
    bench_start_attach(bench, "vm1", MOUSE, 11);
    assert_non_null(strstr(bench_expect(bench, "silent", "vm1")->why, "starting"));
    assert_int_equal(crosvm_peer_count(&peer, "attach"), 0);
    crosvm_peer_order(&peer, "run");
    assert_int_equal(owner_of(bench_expect_result(bench, "vm1", RESULT_DONE), "1"), 11);
    crosvm_peer_stop(&peer);
}

static void test_full(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    vm1_attach(bench, STICK, 10, RESULT_DONE);
    for (int i = 0; i < 7; i++)
        crosvm_peer_order(&peer, "foreign 046d c077"); // just like ours
    const struct result *result = vm1_attach(bench, MOUSE, 11, RESULT_REFUSED);
    expect_text(result, "all 8 USB 2 ports of vm1 are in use");
    assert_true(result->listed && result->attachment_count == 8 && owner_of(result, "2") == 0);
    vm1_attach(bench, DISK, 12, RESULT_DONE); // USB 3 has ports of its own
    vm1_detach(bench, "1", RESULT_DONE);
    assert_int_equal(owner_of(vm1_attach(bench, MOUSE, 11, RESULT_DONE), "1"), 11);
    crosvm_peer_stop(&peer);
}

static void test_foreign_devices_stay(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    crosvm_peer_order(&peer, "foreign 046d c077");
    assert_int_equal(owner_of(vm1_list(bench, RESULT_DONE), "1"), 0);
    vm1_detach(bench, "1", RESULT_DONE);
    // An attach that was not done is not mistaken for it.
    crosvm_peer_order(&peer, "fault attach 1 eof");
    vm1_attach(bench, MOUSE, 11, RESULT_LOST);
    assert_int_equal(owner_of(vm1_list(bench, RESULT_DONE), "1"), 0);
    const struct result *result = vm1_attach(bench, MOUSE, 11, RESULT_DONE);
    assert_true(owner_of(result, "1") == 0 && owner_of(result, "2") == 11);
    assert_int_equal(crosvm_peer_count(&peer, "detach"), 0);
    crosvm_peer_stop(&peer);
}

static void test_no_usb(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    crosvm_peer_order(&peer, "usb off");
    expect_text(vm1_list(bench, RESULT_REFUSED), "--no-usb");
    expect_text(vm1_attach(bench, MOUSE, 11, RESULT_REFUSED), "no USB");
    crosvm_peer_order(&peer, "usb unbuilt");
    expect_text(vm1_list(bench, RESULT_REFUSED), "built without USB");
    assert_int_equal(crosvm_peer_count(&peer, "attach"), 0);
    crosvm_peer_stop(&peer);
}

static void test_loose_replies(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    crosvm_peer_order(&peer, "loose");
    assert_int_equal(owner_of(vm1_attach(bench, DISK, 11, RESULT_DONE), "9"), 11);
    assert_int_equal(vm1_detach(bench, "9", RESULT_DONE)->attachment_count, 0);
    crosvm_peer_stop(&peer);
}

static void test_descriptors_that_are_never_sent(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    struct device *device = bench_device(1, 2, SPEED_HIGH);
    bench_attach(bench, "vm1", device, -1);
    expect_text(bench_expect_result(bench, "vm1", RESULT_RETRY), "the test has none");
    bench_attach(bench, "vm1", device, open(MOUSE, O_RDONLY | O_CLOEXEC));
    expect_text(bench_expect_result(bench, "vm1", RESULT_RETRY), "reading only");
    device_release(device);
    assert_int_equal(crosvm_peer_count(&peer, "attach"), 0);
    crosvm_peer_stop(&peer);
}

static void test_vm_that_is_removed_in_the_middle(void **state)
{
    struct bench *bench = *state;
    struct crosvm_peer peer;
    vm1_begin(bench, &peer, NULL);
    bench_start_attach(bench, "vm1", MOUSE, 11);
    for (int i = 0; i < 20; i++)
        bench_turn(bench);
    bench_configure(bench, 0);
    bench_expect_result(bench, "vm1", RESULT_LOST);
    bench_expect_nothing(bench);
    crosvm_peer_expect(&peer, "ports", "{}");
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
        TEST(test_attach_and_detach),
        TEST(test_only_usb_devices_go_in_as_it_runs),
        TEST(test_f28_replug),
        TEST(test_f03_two_equal_devices),
        TEST(test_f03_equal_devices_after_a_daemon_restart),
        TEST(test_f03_nobody_can_tell),
        TEST(test_f26_f31_vm_restart),
        TEST(test_f30_socket_that_is_away_for_a_while),
        TEST(test_killed_while_it_settles),
        TEST(test_f22_early_boot),
        TEST(test_f20_f22_no_attach_before_the_first_answer),
        TEST(test_full),
        TEST(test_foreign_devices_stay),
        TEST(test_no_usb),
        TEST(test_loose_replies),
        TEST(test_descriptors_that_are_never_sent),
        TEST(test_vm_that_is_removed_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
