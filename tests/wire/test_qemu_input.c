// Input devices into scripted QEMUs: which port is chosen, which refusals a person can mend.
#include "bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "util/text.h"
#include "vmm/grabber.h"

static void begin(struct bench *bench, struct fake_qemu *fake)
{
    fake_qemu_start(fake, bench->loop, bench->directory, "vm1");
    bench_add_vm(bench, "vm1", "vm1");
    assert_true(bench_expect(bench, "up", "vm1")->instance != 0);
}

static const struct result *expect_done(struct bench *bench, enum result_kind kind)
{
    const struct result *result = &bench_expect(bench, "done", "vm1")->result;
    if (result->kind != kind)
        fail_msg("result %d, not %d: %s", result->kind, kind, result->text ? result->text : "");
    assert_int_equal(result->serial, bench->serial);
    return result;
}

static const struct attachment *find(const struct result *result, const char *object)
{
    for (size_t i = 0; i < result->attachment_count; i++)
        if (strcmp(result->attachments[i].object, object) == 0)
            return &result->attachments[i];
    static const struct attachment none;
    fail_msg("%s is not listed", object);
    return &none;
}

static const struct result *attach_input(struct bench *bench, unsigned number, const char *prefix,
                                         enum result_kind kind)
{
    CLEANUP(cleanup_device) struct device *device = bench_input(number);
    bench_attach_input(bench, "vm1", device, prefix);
    return expect_done(bench, kind);
}

static void end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

static void add_ports(struct fake_qemu *fake, const char *const *names)
{
    for (; *names; names++)
        fake_qemu_add(fake, *names, "pcie-root-port");
}

static void test_f49_ports_of_the_prefix_in_the_order_of_their_numbers(void **state)
{
    static const char *const names[] = {"ep10", "rp1", "ep2", "ep", "epx", "ep1", "net1", NULL};
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    add_ports(&fake, names);
    fake_qemu_add(&fake, "ep3", "xio3130-downstream");
    fake_qemu_add(&fake, "ep4", "virtio-net-pci"); // no port at all
    begin(bench, &fake);
    static const char *const expected[] = {"ep1", "ep2", "ep3", "ep10"};
    for (unsigned i = 0; i < 4; i++) {
        const struct result *result = attach_input(bench, i, "ep", RESULT_DONE);
        assert_int_equal(result->attachment_count, i + 1);
        const struct fake_device *device = fake_qemu_on(&fake, expected[i]);
        const struct attachment *attachment = find(result, device->id);
        assert_true(attachment->ours && !attachment->dead && attachment->instance == i + 1);
    }
    const struct result *result = attach_input(bench, 9, "ep", RESULT_REFUSED);
    assert_string_equal(result->text, "all 4 PCIe root ports ep1… of vm1 are in use: start QEMU with "
                                      "-device pcie-root-port,id=ep11,chassis=11");
    assert_int_equal(fake_qemu_asked(&fake, "device_add"), 4);
    assert_int_equal(fake_qemu_asked(&fake, "add-fd"), 0);
    fake_qemu_stop(&fake);
}

static void test_f49_an_occupied_port_is_never_used(void **state)
{
    static const char *const names[] = {"ep1", "ep2", "ep3", NULL};
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    add_ports(&fake, names);
    fake.devices[1].no_hotplug = true;
    fake_qemu_add(&fake, "net0", "virtio-net-pci");
    (void)snprintf(fake.devices[3].on, sizeof fake.devices[3].on, "ep1");
    begin(bench, &fake);
    attach_input(bench, 1, "", RESULT_DONE);
    char object[OBJECT_NAME_MAX];
    (void)snprintf(object, sizeof object, "%s", fake_qemu_on(&fake, "ep3")->id);
    assert_non_null(strstr(attach_input(bench, 2, "ep", RESULT_REFUSED)->text, "all 2 PCIe root ports ep1… of vm1"));
    fake.holds_device_del = true; // the guest has not let go: the port is not free
    bench_detach(bench, "vm1", object);
    expect_done(bench, RESULT_PENDING);
    attach_input(bench, 2, "ep", RESULT_REFUSED);
    fake.holds_device_del = false;
    bench_detach(bench, "vm1", object);
    expect_done(bench, RESULT_DONE);
    attach_input(bench, 2, "ep", RESULT_DONE);
    (void)fake_qemu_on(&fake, "ep3");
    fake_qemu_stop(&fake);
}

static void test_f29_a_guest_that_was_not_up_is_asked_again(void **state)
{
    static const char *const names[] = {"ep1", NULL};
    struct bench *bench = *state;
    struct fake_qemu fake = {.holds_device_del = true};
    add_ports(&fake, names);
    begin(bench, &fake);
    attach_input(bench, 1, "", RESULT_DONE);
    bench_detach(bench, "vm1", fake_qemu_on(&fake, "ep1")->id);
    expect_done(bench, RESULT_PENDING);
    assert_int_equal(fake_qemu_asked(&fake, "device_del"), 1);
    bench_list(bench, "vm1");
    assert_true(expect_done(bench, RESULT_DONE)->attachments[0].leaving);
    assert_int_equal(fake_qemu_asked(&fake, "device_del"), 2);
    fake.holds_device_del = false;
    bench_list(bench, "vm1");
    for (bool told = false, done = false; !told || !done;) { // its event comes before or after the list
        while (bench->read == bench->told_count)
            bench_turn(bench);
        const char *word = bench->told[bench->read++].word;
        told = told || strcmp(word, "news") == 0;
        done = done || strcmp(word, "done") == 0;
    }
    bench_list(bench, "vm1");
    assert_int_equal(expect_done(bench, RESULT_DONE)->attachment_count, 0);
    fake_qemu_stop(&fake);
}

static void test_f29_already_asked_is_no_refusal(void **state)
{
    static const char *const names[] = {"ep1", NULL};
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    add_ports(&fake, names);
    begin(bench, &fake);
    attach_input(bench, 1, "", RESULT_DONE);
    fake.delete_error = "Device e1 is already in the process of unplug";
    bench_detach(bench, "vm1", fake_qemu_on(&fake, "ep1")->id);
    const struct result *result = expect_done(bench, RESULT_PENDING);
    assert_true(result->attachments[0].leaving);
    fake_qemu_stop(&fake);
}

static void test_f49_no_port_at_all(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    assert_string_equal(attach_input(bench, 1, "ep", RESULT_REFUSED)->text,
                        "vm1 has no PCIe root port ep1, ep2, … that takes devices while it runs: start QEMU with "
                        "-device pcie-root-port,id=ep1,chassis=1");
    assert_string_equal(attach_input(bench, 1, "", RESULT_REFUSED)->text,
                        "vm1 has no PCIe root port that takes devices while it runs: start QEMU with "
                        "-device pcie-root-port,id=ep1,chassis=1");
    fake_qemu_add(&fake, "in7", "pcie-root-port");
    (void)snprintf(fake.devices[0].on, sizeof fake.devices[0].on, "in7"); // whatever that is
    assert_string_equal(attach_input(bench, 1, "in", RESULT_REFUSED)->text,
                        "the only PCIe root port of vm1, in7, is in use: start QEMU with "
                        "-device pcie-root-port,id=in8,chassis=8");
    assert_int_equal(fake_qemu_asked(&fake, "device_add"), 0);
    fake_qemu_stop(&fake);
}

static void test_f49_a_machine_without_pcie(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.pc = true};
    begin(bench, &fake);
    attach_input(bench, 1, "ep", RESULT_DONE);
    (void)fake_qemu_on(&fake, "pci.0");
    fake.answer_error = "PCI: no slot/function available for virtio-input-host-pci, all in use or reserved";
    assert_string_equal(attach_input(bench, 2, "", RESULT_REFUSED)->text, "all slots of the PCI bus of vm1 are in use");
    fake_qemu_stop(&fake);
}

static void test_f49_refusals_that_a_person_can_mend(void **state)
{
    static const char *const names[] = {"ep1", NULL};
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    add_ports(&fake, names);
    begin(bench, &fake);
    fake.answer_error = "Could not open '/dev/null': Permission denied";
    const struct result *result = attach_input(bench, 1, "", RESULT_RETRY);
    assert_non_null(strstr(result->text, "QEMU of vm1 runs as ")); // the fake is this very process
    assert_non_null(strstr(result->text, "may not open /dev/null: "));
    fake.answer_error = "no \033luck";
    assert_string_equal(attach_input(bench, 1, "", RESULT_RETRY)->text, "vm1: QEMU did not take it: no \\x1bluck");
    fake.answer_error = NULL;
    CLEANUP(cleanup_device) struct device *device = bench_input(2);
    free(device->node);
    device->node = string_copy("/nonexistent/event5");
    bench_attach_input(bench, "vm1", device, "");
    expect_done(bench, RESULT_GONE);
    attach_input(bench, 3, "", RESULT_DONE);
    fake_qemu_stop(&fake);
}

// A program that has the file open, under a name that is not fit for a terminal.
static pid_t hold(const char *file)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)prctl(PR_SET_NAME, "gr\033ab");
        if (open(file, O_RDONLY) < 0 || write(ready[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static struct device *new_grabbed(const struct bench *bench)
{
    struct device *device = bench_input(1);
    free(device->node);
    device->node = string_printf("%s/event5", bench->directory);
    close(open(device->node, O_CREAT | O_RDONLY | O_CLOEXEC, 0600));
    return device;
}

static void expect_grabbed(struct bench *bench, struct device *device, const char *by)
{
    bench_attach_input(bench, "vm1", device, "");
    const struct result *result = expect_done(bench, RESULT_RETRY);
    if (!strstr(result->text, " is grabbed by another program, which has to let go of it") ||
        strncmp(result->text, device->node, strlen(device->node)) != 0 || !strstr(result->text, by))
        fail_msg("not said: %s, but: %s", by, result->text);
}

static void test_f49_who_may_have_grabbed_it_is_named(void **state)
{
    static const char *const names[] = {"ep1", NULL};
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    add_ports(&fake, names);
    begin(bench, &fake);
    CLEANUP(cleanup_device) struct device *device = new_grabbed(bench);
    fake.answer_error = "x: failed to get exclusive access: Device or resource busy";
    expect_grabbed(bench, device, "(as root, fuser -v ");
    pid_t first = hold(device->node), second = hold(device->node);
    expect_grabbed(bench, device, "(as root, fuser -v "); // the same trouble is said in the same words
    device->instance = 100;
    CLEANUP(cleanup_free)
    char *two = string_printf(": gr\\x1bab (process %d), gr\\x1bab (process %d) have it open", (int)first, (int)second);
    expect_grabbed(bench, device, two);
    end(first);
    expect_grabbed(bench, device, two);
    for (uint64_t instance = 101; instance < 120; instance++) { // more of them than are remembered
        CLEANUP(cleanup_free) char *one = string_printf(": gr\\x1bab (process %d) has it open", (int)second);
        device->instance = instance;
        expect_grabbed(bench, device, one);
    }
    end(second);
    fake.answer_error = NULL;
    bench_attach_input(bench, "vm1", device, "");
    expect_done(bench, RESULT_DONE);
    fake_qemu_stop(&fake);
}

static bool is_searching(void)
{
    for (int fd = 0; fd < 256; fd++) {
        char path[32], target[16] = "";
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof target - 1) > 0 && strcmp(target, "/proc") == 0)
            return true;
    }
    return false;
}

// The VM ends, or is served no more, while it is found out who has it.
static void test_the_search_for_who_grabbed_it_is_cut_off(void **state)
{
    static const char *const names[] = {"ep1", NULL};
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = new_grabbed(bench);
    for (int i = 0; i < 2; i++) {
        struct fake_qemu fake = {.answer_error = "x: failed to get exclusive access: Device or resource busy"};
        add_ports(&fake, names);
        fake_qemu_start(&fake, bench->loop, bench->directory, "vm1");
        if (i == 0)
            bench_add_vm(bench, "vm1", "vm1");
        bench_expect_up(bench, "vm1");
        device->instance = 10 + (uint64_t)i;
        bench_attach_input(bench, "vm1", device, "");
        while (!is_searching())
            bench_turn(bench);
        if (i == 0)
            fake_qemu_stop(&fake);
        else
            bench_configure(bench, 0);
        expect_done(bench, RESULT_LOST);
        if (i == 1)
            fake_qemu_stop(&fake);
    }
}

static void end_slow_search(void *user, const char *names)
{
    bool *over = user;
    (void)names;
    *over = true;
}

// The loop turns slowly, and /proc has many more entries than turns in which they may be looked at.
static void test_the_search_for_who_grabbed_it_has_an_end(void **state)
{
    struct bench *bench = *state;
    int turns = 0;
    bool over = false;
    CLEANUP(cleanup_grabber)
    struct grabber *grabber = grabber_search(bench->loop, "/none", end_slow_search, &over);
    assert_non_null(grabber);
    for (; !over && turns < 20; turns++) {
        usleep(200000);
        bench_turn(bench);
    }
    assert_true(over);
}

static void test_f49_faults_while_ports_are_asked(void **state)
{
    static const char *const names[] = {"ep1", "ep2", NULL};
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    add_ports(&fake, names);
    begin(bench, &fake);
    attach_input(bench, 1, "ep", RESULT_DONE);
    size_t commands = fake.commands;
    bench_detach(bench, "vm1", fake_qemu_on(&fake, "ep1")->id);
    expect_done(bench, RESULT_DONE);
    for (size_t i = 1; i <= commands; i++) {
        fake.fail_command = fake.commands + i;
        CLEANUP(cleanup_device) struct device *device = bench_input(1);
        bench_attach_input(bench, "vm1", device, "ep");
        const struct told *told = bench_expect(bench, "done", "vm1");
        assert_true(told->result.kind == RESULT_DONE || (told->result.text && *told->result.text));
        fake.fail_command = 0;
        bench_list(bench, "vm1");
        const struct result *result = expect_done(bench, RESULT_DONE);
        assert_true(result->attachment_count <= 1); // whatever went wrong, it is in there once at most
        if (result->attachment_count == 0)
            continue;
        bench_detach(bench, "vm1", result->attachments[0].object);
        expect_done(bench, RESULT_DONE);
    }
    fake_qemu_stop(&fake);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

// With an argument: only the tests whose names match it.
int main(int count, char **arguments)
{
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        TEST(test_f49_ports_of_the_prefix_in_the_order_of_their_numbers),
        TEST(test_f49_an_occupied_port_is_never_used),
        TEST(test_f29_a_guest_that_was_not_up_is_asked_again),
        TEST(test_f29_already_asked_is_no_refusal),
        TEST(test_f49_no_port_at_all),
        TEST(test_f49_a_machine_without_pcie),
        TEST(test_f49_refusals_that_a_person_can_mend),
        TEST(test_f49_who_may_have_grabbed_it_is_named),
        TEST(test_the_search_for_who_grabbed_it_is_cut_off),
        TEST(test_the_search_for_who_grabbed_it_has_an_end),
        TEST(test_f49_faults_while_ports_are_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
