// The VMM wing on a real QEMU, stopped before its first instruction (-S). Left out where there is none.
#include "bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/text.h"

#define PROGRAM "qemu-system-x86_64"

// Starts a QEMU with more arguments (a NULL-terminated list) on DIRECTORY/vm1.
static pid_t start(struct bench *bench, const char *const *more)
{
    CLEANUP(cleanup_free) char *socket = string_printf("unix:%s/vm1,server=on,wait=off", bench->directory);
    const char *arguments[32] = {PROGRAM,       "-M",       "q35",  "-m",   "64",  "-S",
                                 "-nodefaults", "-display", "none", "-qmp", socket};
    for (size_t count = 11; *more; count++)
        arguments[count] = *more++;
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(PROGRAM, (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    bench_add_vm(bench, "vm1", "vm1");
    assert_true(bench_expect_up(bench, "vm1")->instance != 0);
    return pid;
}

static void end(pid_t pid, int signal)
{
    (void)kill(pid, signal);
    (void)waitpid(pid, NULL, 0);
}

static bool is_missing(void)
{
    pid_t pid = fork();
    int status = 0;
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        (void)dup2(null, 1);
        execlp(PROGRAM, PROGRAM, "-version", (char *)NULL);
        _exit(127);
    }
    (void)waitpid(pid, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

// An attach of something that is no USB device: QEMU must refuse it at the end of the whole way.
static const struct result *attach(struct bench *bench, enum usb_speed speed, enum result_kind kind)
{
    struct device *device = bench_device(1, 2, speed);
    bench_attach(bench, "vm1", device, open("/dev/null", O_RDWR | O_CLOEXEC));
    device_release(device);
    const struct result *result = &bench_expect(bench, "done", "vm1")->result;
    if (result->kind != kind)
        fail_msg("result %d, not %d: %s", result->kind, kind, result->text ? result->text : "");
    return result;
}

static const struct result *list(struct bench *bench)
{
    bench_list(bench, "vm1");
    const struct result *result = &bench_expect(bench, "done", "vm1")->result;
    assert_int_equal(result->kind, RESULT_DONE);
    assert_true(result->listed);
    return result;
}

static void test_f40_list(void **state)
{
    static const char *const more[] = {"-device", "qemu-xhci,id=xhci", "-device", "usb-tablet,id=tablet", NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    assert_int_equal(list(bench)->attachment_count, 0);
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

static void test_f41_no_controller(void **state)
{
    static const char *const more[] = {NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    assert_non_null(strstr(attach(bench, SPEED_HIGH, RESULT_REFUSED)->text, "vm1 has no USB controller"));
    end(pid, SIGKILL);
    bench_expect(bench, "down", "vm1");
}

static void test_refusal_by_descriptor(void **state)
{
    static const char *const more[] = {"-device", "qemu-xhci,id=xhci", NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    const struct result *result = attach(bench, SPEED_HIGH, RESULT_RETRY);
    assert_non_null(strstr(result->text, "/dev/fdset/"));
    assert_int_equal(result->attachment_count, 0);
    attach(bench, SPEED_HIGH, RESULT_RETRY); // what is known already makes no difference
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

static void test_f41_ports_that_are_taken(void **state)
{
    // Ports that were asked for, one that QEMU chose, none left.
    static const char *const more[] = {"-device", "qemu-xhci,id=xhci,p2=3,p3=3",
                                       "-device", "usb-tablet",
                                       "-device", "usb-mouse,port=3",
                                       "-device", "usb-kbd,port=2",
                                       NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    const struct result *result = attach(bench, SPEED_HIGH, RESULT_REFUSED);
    assert_non_null(strstr(result->text, "all 3 USB ports of vm1"));
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

static void test_f41_port_that_is_free(void **state)
{
    static const char *const more[] = {"-device", "qemu-xhci,p2=3,p3=3", "-device", "usb-mouse,port=3",
                                       "-device", "usb-kbd,port=1",      NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    // A controller without an id; port 2 is free and so the refusal is about the device, not about ports.
    assert_non_null(strstr(attach(bench, SPEED_HIGH, RESULT_RETRY)->text, "/dev/fdset/"));
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

static void test_f41_controllers_of_the_board(void **state)
{
    static const char *const more[] = {"-M", "q35,usb=on", NULL}; // EHCI with companions
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    assert_non_null(strstr(attach(bench, SPEED_FULL, RESULT_RETRY)->text, "/dev/fdset/"));
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

static void test_f41_ehci_alone(void **state)
{
    static const char *const more[] = {"-device", "usb-ehci,id=ehci", NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    assert_non_null(strstr(attach(bench, SPEED_FULL, RESULT_REFUSED)->text, "EHCI"));
    attach(bench, SPEED_HIGH, RESULT_RETRY);
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

static void test_f29_detach_of_what_is_not_there(void **state)
{
    static const char *const more[] = {"-device", "qemu-xhci,id=xhci", "-device", "usb-tablet,id=vhotplug-usb-1-2-3-4",
                                       NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    assert_int_equal(list(bench)->attachment_count, 1);
    for (int round = 0; round < 2; round++) {
        bench_detach(bench, "vm1", "vhotplug-usb-1-2-3-4");
        const struct result *result = &bench_expect(bench, "done", "vm1")->result;
        assert_int_equal(result->kind, RESULT_DONE);
        assert_int_equal(result->attachment_count, 0);
    }
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

static void test_f24_stopped_then_continued(void **state)
{
    static const char *const more[] = {"-device", "qemu-xhci,id=xhci", NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    bench_expect_nothing(bench);
    (void)kill(pid, SIGSTOP);
    assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid); // it is sent; this is when it has come
    bench->told_silent = true;
    bench_list(bench, "vm1");
    assert_non_null(strstr(bench_expect(bench, "silent", "vm1")->why, "stopped"));
    (void)kill(pid, SIGCONT);
    assert_int_equal(bench_expect(bench, "done", "vm1")->result.kind, RESULT_DONE);
    bench->told_silent = false;
    assert_int_equal(list(bench)->attachment_count, 0);
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

// QEMU refuses /dev/null at the end of the whole way: it is no input device.
static const struct result *attach_input(struct bench *bench, const char *prefix, enum result_kind kind)
{
    CLEANUP(cleanup_device) struct device *device = bench_input(1);
    bench_attach_input(bench, "vm1", device, prefix);
    const struct result *result = &bench_expect(bench, "done", "vm1")->result;
    if (result->kind != kind)
        fail_msg("result %d, not %d: %s", result->kind, kind, result->text ? result->text : "");
    return result;
}

static void test_f49_pcie_ports(void **state)
{
    static const char *const more[] = {
        "-device", "pcie-root-port,id=ep1,chassis=1", "-device", "pcie-root-port,id=ep2,chassis=2,hotplug=off",
        "-device", "pcie-root-port,id=in1,chassis=3", "-device", "virtio-tablet-pci,bus=ep1",
        NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    assert_string_equal(attach_input(bench, "ep", RESULT_REFUSED)->text,
                        "the only PCIe root port of vm1, ep1, is in use: start QEMU with "
                        "-device pcie-root-port,id=ep3,chassis=4");
    assert_non_null(strstr(attach_input(bench, "", RESULT_RETRY)->text, "is not an evdev device"));
    assert_non_null(strstr(attach_input(bench, "in", RESULT_RETRY)->text, "is not an evdev device"));
    assert_non_null(strstr(attach_input(bench, "rp", RESULT_REFUSED)->text, "id=rp1,chassis=4"));
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

static void test_f49_ports_of_a_switch(void **state)
{
    static const char *const more[] = {"-device", "pcie-root-port,id=rp1,chassis=1",
                                       "-device", "x3130-upstream,id=up,bus=rp1",
                                       "-device", "xio3130-downstream,id=ep1,bus=up,chassis=2",
                                       "-device", "xio3130-downstream,id=ep2,bus=up,chassis=3",
                                       "-device", "virtio-tablet-pci,bus=ep1",
                                       NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    assert_non_null(strstr(attach_input(bench, "ep", RESULT_RETRY)->text, "is not an evdev device"));
    assert_non_null(strstr(attach_input(bench, "rp", RESULT_REFUSED)->text, "rp1, is in use"));
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

static void test_f49_board_without_pcie(void **state)
{
    static const char *const more[] = {"-M", "pc", NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    assert_non_null(strstr(attach_input(bench, "ep", RESULT_RETRY)->text, "is not an evdev device"));
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

// QEMU's own words of a function that the host has not: the whole way but for the device.
static void test_f34_function_that_is_not_there(void **state)
{
    static const char *const more[] = {"-device", "pcie-root-port,id=rp1,chassis=1", NULL};
    struct bench *bench = *state;
    pid_t pid = start(bench, more);
    CLEANUP(cleanup_device) struct device *device = bench_pci(0xfe, 1);
    bench_attach_pci(bench, "vm1", device, false);
    const struct result *result = &bench_expect(bench, "done", "vm1")->result;
    assert_string_equal(result->text, "0000:fe:00.0 has gone from the host");
    assert_int_equal(result->kind, RESULT_GONE);
    assert_true(result->listed && result->attachment_count == 0);
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

// Whether the process has PATH open.
static bool holds(pid_t pid, const char *path)
{
    bool found = false;
    CLEANUP(cleanup_free) char *directory = string_printf("/proc/%d/fd", (int)pid);
    CLEANUP(cleanup_directory) DIR *listing = opendir(directory);
    assert_non_null(listing);
    for (const struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        char target[64] = "";
        found =
            (readlinkat(dirfd(listing), entry->d_name, target, sizeof target - 1) > 0 && strcmp(target, path) == 0) ||
            found;
    }
    return found;
}

// A QEMU that takes functions by descriptor gets two that are none; an older one is not asked to.
static void test_f34_descriptors_that_are_none(void **state)
{
    static const char *const more[] = {"-device", "pcie-root-port,id=rp1,chassis=1", NULL};
    struct bench *bench = *state;
    vmms_offer_iommu(bench->vmms, "/dev/zero");
    pid_t pid = start(bench, more);
    CLEANUP(cleanup_device) struct device *device = bench_pci(0xfe, 1);
    list(bench);
    if (vmms_takes_functions(bench->vmms, "vm1")) {
        bench_attach(bench, "vm1", device, open("/dev/full", O_RDWR | O_CLOEXEC));
        const struct result *result = &bench_expect(bench, "done", "vm1")->result;
        assert_int_equal(result->kind, RESULT_RETRY);
        assert_non_null(strstr(result->text, "vm1: it was not passed by descriptor: vfio "));
        assert_non_null(strstr(result->text, ": error bind device fd="));
        assert_true(holds(pid, "/dev/zero"));
        assert_false(holds(pid, "/dev/full")); // or vfio-pci could never let go of the function
        assert_false(vmms_takes_functions(bench->vmms, "vm1"));
    }
    bench_attach_pci(bench, "vm1", device, false);
    assert_int_equal(bench_expect(bench, "done", "vm1")->result.kind, RESULT_GONE);
    end(pid, SIGTERM);
    bench_expect(bench, "down", "vm1");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

// With an argument: only the tests whose names match it.
int main(int count, char **arguments)
{
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        TEST(test_f40_list),
        TEST(test_f41_no_controller),
        TEST(test_refusal_by_descriptor),
        TEST(test_f41_ports_that_are_taken),
        TEST(test_f41_port_that_is_free),
        TEST(test_f41_controllers_of_the_board),
        TEST(test_f41_ehci_alone),
        TEST(test_f29_detach_of_what_is_not_there),
        TEST(test_f24_stopped_then_continued),
        TEST(test_f49_pcie_ports),
        TEST(test_f49_ports_of_a_switch),
        TEST(test_f49_board_without_pcie),
        TEST(test_f34_function_that_is_not_there),
        TEST(test_f34_descriptors_that_are_none),
    };
    if (is_missing())
        return 77; // skipped
    return cmocka_run_group_tests(tests, NULL, NULL);
}
