// PCI functions into scripted QEMUs: where they go, what stands in their way in words that help, and how they leave.
#include "bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "util/text.h"

#define NOBODY 65534
#define GROUP 7654 // that no host has

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

// In whichever order; a turn of the loop takes at most a millisecond.
static void expect_news_and_done(struct bench *bench)
{
    for (bool news = false, done = false; !news || !done;) {
        for (unsigned turns = 0; bench->read == bench->told_count; turns++) {
            assert_true(turns < WAIT_US / 1000);
            bench_turn(bench);
        }
        const char *word = bench->told[bench->read++].word;
        news = news || strcmp(word, "news") == 0;
        done = done || strcmp(word, "done") == 0;
    }
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

static const struct result *attach(struct bench *bench, unsigned bus, bool root_bus, enum result_kind kind)
{
    CLEANUP(cleanup_device) struct device *device = bench_pci(bus, GROUP);
    bench_attach_pci(bench, "vm1", device, root_bus);
    return expect_done(bench, kind);
}

static void test_f34_a_function_goes_on_a_free_port_by_its_address(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    fake_qemu_add(&fake, "rp2", "pcie-root-port");
    fake_qemu_add(&fake, "rp3", "pcie-root-port");
    fake.devices[0].no_hotplug = true;
    begin(bench, &fake);
    attach(bench, 1, false, RESULT_DONE);
    const struct result *result = attach(bench, 2, false, RESULT_DONE);
    assert_int_equal(result->attachment_count, 2);
    const struct fake_device *first = fake_qemu_on(&fake, "rp2"), *second = fake_qemu_on(&fake, "rp3");
    assert_string_equal(first->type, "vfio-pci");
    assert_string_equal(first->host, "0000:01:00.0");
    assert_string_equal(second->host, "0000:02:00.0");
    const struct attachment *attachment = find(result, first->id);
    assert_true(attachment->ours && !attachment->dead && attachment->instance == 0xc001);
    assert_string_equal(attach(bench, 3, false, RESULT_REFUSED)->text,
                        "all 2 PCIe root ports rp2… of vm1 are in use: start QEMU with "
                        "-device pcie-root-port,id=ep1,chassis=4");
    char object[OBJECT_NAME_MAX];
    (void)snprintf(object, sizeof object, "%s", first->id);
    bench_detach(bench, "vm1", object);
    expect_done(bench, RESULT_DONE);
    attach(bench, 3, false, RESULT_DONE);
    assert_string_equal(fake_qemu_on(&fake, "rp2")->host, "0000:03:00.0");
    assert_int_equal(fake_qemu_asked(&fake, "stop"), 0);
    fake_qemu_stop(&fake);
}

static void test_f49_ports_that_input_devices_are_told_to_use_come_last(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "ep1", "pcie-root-port");
    fake_qemu_add(&fake, "net1", "pcie-root-port");
    fake_qemu_add(&fake, "epx", "pcie-root-port");
    begin(bench, &fake);
    static const char *const order[] = {"epx", "net1", "ep1"};
    for (unsigned i = 0; i < 3; i++) {
        CLEANUP(cleanup_device) struct device *device = bench_pci(i + 1, GROUP);
        bench_attach_pci_sparing(bench, "vm1", device, "ep");
        expect_done(bench, RESULT_DONE);
        char address[16];
        (void)snprintf(address, sizeof address, "0000:%02x:00.0", i + 1);
        assert_string_equal(fake_qemu_on(&fake, order[i])->host, address);
    }
    fake_qemu_stop(&fake);
}

static void test_f34_the_root_bus_of_the_machine(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    begin(bench, &fake);
    assert_string_equal(attach(bench, 1, true, RESULT_REFUSED)->text,
                        "the root bus of vm1 takes nothing while the VM runs: leave out qemuUseRootBus to use a PCIe "
                        "root port, or start QEMU with the device, as vmm_args says");
    assert_int_equal(fake_qemu_asked(&fake, "device_add"), 0);
    fake.pc = true;
    attach(bench, 1, true, RESULT_DONE);
    assert_string_equal(fake_qemu_on(&fake, "pci.0")->host, "0000:01:00.0");
    attach(bench, 2, false, RESULT_DONE);
    assert_string_equal(fake_qemu_on(&fake, "rp1")->host, "0000:02:00.0");
    fake.answer_error = "PCI: no slot/function available for vfio-pci, all in use or reserved";
    assert_string_equal(attach(bench, 3, true, RESULT_REFUSED)->text, "all slots of the PCI bus of vm1 are in use");
    fake_qemu_stop(&fake);
}

// ---- what stands in the way

// QEMU's words of both versions and what they mean for a person.
static const struct {
    const char *words;
    enum result_kind kind;
    const char *text;
} refusals[] = {
    {"vfio 0000:01:00.0: failed to open /dev/vfio/7654: No such file or directory", RESULT_RETRY,
     "0000:01:00.0 is not bound to vfio-pci: there is no /dev/vfio/7654"},
    {"vfio 0000:01:00.0: Could not open '/dev/vfio/7654': No such file or directory", RESULT_RETRY,
     "0000:01:00.0 is not bound to vfio-pci: there is no /dev/vfio/7654"},
    {"vfio 0000:01:00.0: failed to setup container for group 7654: failed to open /dev/vfio/vfio: No such file or "
     "directory",
     RESULT_RETRY, "0000:01:00.0 is not bound to vfio-pci: there is no /dev/vfio/vfio"},
    {"vfio /sys/bus/pci/devices/0000:01:00.0: no such host device: No such file or directory", RESULT_GONE,
     "0000:01:00.0 has gone from the host"},
    {"vfio 0000:01:00.0: group 7654 is not viable", RESULT_RETRY,
     "a driver of the host holds another function of IOMMU group 7654 (0000:08:00.0, 0000:0a:00.0): all of them have "
     "to be bound to vfio-pci"},
    {"vfio 0000:01:00.0: failed to open /dev/vfio/7654: Device or resource busy", RESULT_RETRY,
     "/dev/vfio/7654 is in use by another program, which has to let go of it (as root, fuser -v /dev/vfio/7654 tells "
     "its name)"},
    {"vfio 0000:01:00.0: Could not open '/dev/vfio/7654': Device or resource busy", RESULT_RETRY,
     "/dev/vfio/7654 is in use by another program, which has to let go of it (as root, fuser -v /dev/vfio/7654 tells "
     "its name)"},
    {"vfio 0000:01:00.0: device is already attached", RESULT_RETRY,
     "vm1 has 0000:01:00.0 already, and not from vhotplug"},
    {"vfio 0000:01:00.0: failed to setup container for group 7654: Failed to set iommu for container: Operation not "
     "permitted",
     RESULT_RETRY,
     "the kernel passes no PCI functions, as this host does not remap interrupts: turn interrupt remapping on in its "
     "firmware, or, if vm1 may be trusted with the whole host, load vfio_iommu_type1 with allow_unsafe_interrupts=1"},
    {"PCI: slot 0 function 0 already occupied by vfio-pci, new \033func", RESULT_RETRY,
     "vm1: QEMU did not take it: PCI: slot 0 function 0 already occupied by vfio-pci, new \\x1bfunc"},
};

static struct device *function_with_peers(void)
{
    struct device *device = bench_pci(1, GROUP);
    device->peers = memory_new(3, sizeof *device->peers);
    for (unsigned i = 0; i < 3; i++)
        device->peers[device->peer_count++] = bench_pci(8 + i, GROUP);
    device->peers[1]->class = device->peers[2]->class = 0x06;
    device->peers[1]->subclass = 0x04; // one to another bus has no driver that counts
    device->peers[2]->subclass = 0x01; // that to the ISA bus has
    return device;
}

static void test_f34_refusals_that_a_person_can_mend(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    begin(bench, &fake);
    CLEANUP(cleanup_device) struct device *device = function_with_peers();
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        fake.answer_error = refusals[i].words;
        bench_attach_pci(bench, "vm1", device, false);
        const struct result *result = expect_done(bench, refusals[i].kind);
        assert_string_equal(result->text, refusals[i].text);
        assert_true(result->listed && result->attachment_count == 0);
    }
    while (device->peer_count > 0)
        device_release(device->peers[--device->peer_count]);
    fake.answer_error = "vfio 0000:01:00.0: group 7654 is not viable";
    bench_attach_pci(bench, "vm1", device, false);
    assert_string_equal(expect_done(bench, RESULT_RETRY)->text,
                        "a driver of the host holds another function of IOMMU group 7654: all of them have to be bound "
                        "to vfio-pci");
    fake_qemu_stop(&fake);
}

// Another process, of an ordinary user where we may make one, that may lock so much memory and is the one which
// listens on the VM's socket.
static pid_t listen_as(struct fake_qemu *fake, uid_t user, rlim_t locked)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        const struct rlimit limit = {locked, locked};
        if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || listen(fake->listener, 1) < 0)
            _exit(1);
        if (getuid() == 0 && setuid(user) < 0)
            _exit(1);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (write(ready[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

#define NO_MEMORY                                                                                                      \
    "vfio 0000:01:00.0: failed to setup container for group 7654: memory listener initialization failed: Region "      \
    "pc.ram: vfio_dma_map(0x5600, 0x0, 0xa0000, 0x7f00) = -12 (Cannot allocate memory)"

static void attach_by(struct bench *bench, uid_t user, rlim_t locked, const char *may)
{
    struct fake_qemu fake = {.answer_error = NO_MEMORY};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    fake_qemu_start(&fake, bench->loop, bench->directory, "vm1");
    pid_t pid = listen_as(&fake, user, locked);
    bench_add_vm(bench, "vm1", "vm1");
    bench_expect_up(bench, "vm1");
    const struct result *result = attach(bench, 1, false, RESULT_RETRY);
    CLEANUP(cleanup_free)
    char *text = may ? string_printf("QEMU of vm1 may lock only %s of memory, and for a PCI function all memory of "
                                     "the VM is locked: set LimitMEMLOCK=infinity in the unit that starts it (as it "
                                     "runs: prlimit --pid %d --memlock=unlimited:unlimited)",
                                     may, (int)pid)
                     : string_copy("the host has too little memory to lock all of that of vm1, which a PCI function "
                                   "needs");
    assert_string_equal(result->text, text);
    bench_configure(bench, 0);
    free(bench->vms[0].name);
    free(bench->vms[0].socket);
    bench->vms[0] = (struct vm_config){0};
    end(pid);
    fake_qemu_stop(&fake);
}

static void test_the_limit_of_locked_memory_is_named(void **state)
{
    struct bench *bench = *state;
    attach_by(bench, NOBODY, (rlim_t)64 << 10, "64 KiB");
    attach_by(bench, NOBODY, (rlim_t)1 << 20, "1 MiB");
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    if (limit.rlim_max == RLIM_INFINITY)
        attach_by(bench, NOBODY, RLIM_INFINITY, NULL);
    if (getuid() == 0)
        attach_by(bench, 0, (rlim_t)64 << 10, NULL);
}

static void test_f39_the_right_that_is_missing_is_named(void **state)
{
    static const char *const words[] = {"vfio 0000:01:00.0: failed to open /dev/vfio/7654: Permission denied",
                                        "vfio 0000:01:00.0: Could not open '/dev/vfio/7654': Permission denied"};
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    fake_qemu_start(&fake, bench->loop, bench->directory, "vm1");
    pid_t pid = listen_as(&fake, NOBODY, (rlim_t)1 << 20);
    bench_add_vm(bench, "vm1", "vm1");
    bench_expect_up(bench, "vm1");
    for (size_t i = 0; i < 2; i++) {
        fake.answer_error = words[i];
        const struct result *result = attach(bench, 1, false, RESULT_RETRY);
        if (getuid() == 0)
            assert_string_equal(result->text, "QEMU of vm1 runs as user nobody and may not open /dev/vfio/7654: give "
                                              "that user read and write access");
        assert_non_null(strstr(result->text, " may not open /dev/vfio/7654: "));
    }
    end(pid);
    fake_qemu_stop(&fake);
}

static void test_f39_who_is_to_get_a_device_is_known_as_soon_as_the_vm_is_up(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    pid_t process = 0;
    uid_t user = 0;
    assert_false(vmms_process(bench->vmms, "vm1", &process, &user));
    fake_qemu_start(&fake, bench->loop, bench->directory, "vm1");
    pid_t pid = listen_as(&fake, NOBODY, (rlim_t)1 << 20);
    bench_add_vm(bench, "vm1", "vm1");
    bench_expect_up(bench, "vm1");
    assert_true(vmms_process(bench->vmms, "vm1", &process, &user));
    assert_int_equal(process, pid);
    assert_int_equal(user, getuid() == 0 ? NOBODY : getuid()); // and not who it was as it made the socket
    assert_false(vmms_process(bench->vmms, "vm2", &process, &user));
    end(pid); // its number may be given to another from now on, before the loop has heard of its end
    assert_false(vmms_process(bench->vmms, "vm1", &process, &user));
    bench_expect_nothing(bench); // the socket is still served
    fake_qemu_stop(&fake);
    bench_expect(bench, "down", "vm1");
    assert_false(vmms_process(bench->vmms, "vm1", &process, &user));
}

// ---- what is in the VM

static void test_what_is_added_in_spite_of_an_error_counts(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.answer_error = "something else went wrong", .adds_all_the_same = true};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    begin(bench, &fake);
    assert_int_equal(attach(bench, 1, false, RESULT_DONE)->attachment_count, 1);
    fake_qemu_stop(&fake);
}

// A function that another tool has put into the VM is known by its address.
static void test_f40_a_foreign_function_is_known_by_its_address(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "gpu", "vfio-pci");
    (void)snprintf(fake.devices[0].host, sizeof fake.devices[0].host, "0000:65:00.1");
    fake_qemu_add(&fake, "nic", "vfio-pci");
    (void)snprintf(fake.devices[1].host, sizeof fake.devices[1].host, "ffff:ff:ff.f"); // QEMU's word for none
    (void)snprintf(fake.devices[1].sysfsdev, sizeof fake.devices[1].sysfsdev, "/sys/bus/pci/devices/fffe0000:66:00.0");
    fake_qemu_add(&fake, "odd", "vfio-pci");
    (void)snprintf(fake.devices[2].host, sizeof fake.devices[2].host, "0000:65:00.1; rm -rf /");
    fake_qemu_add(&fake, "part", "vfio-pci-nohotplug");
    (void)snprintf(fake.devices[3].sysfsdev, sizeof fake.devices[3].sysfsdev, "/sys/bus/mdev/devices/83b8f4f2-509f");
    fake_qemu_add(&fake, "vhotplug-pci-0-0-c001-7", "vfio-pci");
    begin(bench, &fake);
    bench_list(bench, "vm1");
    const struct result *result = expect_done(bench, RESULT_DONE);
    assert_int_equal(result->attachment_count, 5);
    assert_string_equal(find(result, "gpu")->pci, "0000:65:00.1");
    assert_string_equal(find(result, "nic")->pci, "fffe0000:66:00.0");
    assert_string_equal(find(result, "odd")->pci, "");
    assert_string_equal(find(result, "part")->pci, "");
    const struct attachment *ours = find(result, "vhotplug-pci-0-0-c001-7");
    assert_true(ours->ours && ours->instance == 0xc001);
    // Its tool may use the name anew; in a list after an operation it is known still.
    (void)snprintf(fake.devices[0].host, sizeof fake.devices[0].host, "0000:67:00.0");
    bench_list(bench, "vm1");
    assert_string_equal(find(expect_done(bench, RESULT_DONE), "gpu")->pci, "0000:67:00.0");
    bench_detach(bench, "vm1", "vhotplug-pci-0-0-c001-7");
    assert_string_equal(find(expect_done(bench, RESULT_DONE), "gpu")->pci, "0000:67:00.0");
    bench_detach(bench, "vm1", "gpu");
    expect_done(bench, RESULT_REFUSED);
    fake_qemu_stop(&fake);
}

// ---- how it leaves

static void test_f29_a_guest_that_refuses_keeps_it_until_it_is_asked_again(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    begin(bench, &fake);
    attach(bench, 1, false, RESULT_DONE);
    char object[OBJECT_NAME_MAX];
    (void)snprintf(object, sizeof object, "%s", fake_qemu_on(&fake, "rp1")->id);
    for (fake.guest = GUEST_REFUSES_FIRST; fake.guest <= GUEST_REFUSES_LAST; fake.guest++) {
        bench_detach(bench, "vm1", object);
        const struct result *result = expect_done(bench, RESULT_RETRY);
        assert_string_equal(result->text, "the guest of vm1 refused to let go of it");
        assert_true(result->listed && !find(result, object)->leaving); // so that it will be asked again
        attach(bench, 2, false, RESULT_REFUSED);                       // its port is not free
    }
    bench_list(bench, "vm1");
    assert_false(find(expect_done(bench, RESULT_DONE), object)->leaving);
    fake.guest = GUEST_AGREES;
    fake.holds_device_del = true; // this time it says nothing
    bench_detach(bench, "vm1", object);
    assert_true(find(expect_done(bench, RESULT_PENDING), object)->leaving);
    fake.holds_device_del = false;
    bench_detach(bench, "vm1", object);
    assert_int_equal(expect_done(bench, RESULT_DONE)->attachment_count, 0);
    assert_int_equal(fake_qemu_asked(&fake, "device_del"), 4);
    fake_qemu_stop(&fake);
}

// One that QEMU was started with on a bus without hot-plug.
static void test_a_function_that_is_fixed_says_so(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    begin(bench, &fake);
    attach(bench, 1, false, RESULT_DONE);
    char object[OBJECT_NAME_MAX];
    (void)snprintf(object, sizeof object, "%s", fake_qemu_on(&fake, "rp1")->id);
    fake.delete_error = "Bus 'pcie.0' does not support hotplugging";
    bench_detach(bench, "vm1", object);
    assert_string_equal(expect_done(bench, RESULT_FIXED)->text,
                        "vm1: it was there when the VM was started, on a bus that lets nothing go while the VM runs: "
                        "shut the VM down to take it out");
    fake_qemu_stop(&fake);
}

// The guest thinks about it for long and then refuses.
static void test_f29_a_late_refusal_is_news(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.holds_device_del = true};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    begin(bench, &fake);
    attach(bench, 1, false, RESULT_DONE);
    char object[OBJECT_NAME_MAX];
    (void)snprintf(object, sizeof object, "%s", fake_qemu_on(&fake, "rp1")->id);
    bench_detach(bench, "vm1", object);
    assert_true(find(expect_done(bench, RESULT_PENDING), object)->leaving);
    fake.guest = GUEST_REFUSES_LAST;
    bench_list(bench, "vm1"); // asks it again
    expect_news_and_done(bench);
    bench_list(bench, "vm1");
    assert_false(find(expect_done(bench, RESULT_DONE), object)->leaving);
    bench_expect_nothing(bench);
    fake_qemu_stop(&fake);
}

// The host has taken the function away, and QEMU has unplugged it by itself.
static void test_a_function_that_leaves_by_itself_is_news(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    begin(bench, &fake);
    attach(bench, 1, false, RESULT_DONE);
    char event[256];
    (void)snprintf(event, sizeof event, "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"%s\"}}\r\n",
                   fake_qemu_on(&fake, "rp1")->id);
    bench_list(bench, "vm1");
    while (fake.client < 0 || fake_qemu_asked(&fake, "qom-list") < 4)
        bench_turn(bench);
    fake.device_count = 1;
    fake_qemu_send(&fake, event);
    expect_news_and_done(bench);
    bench_list(bench, "vm1");
    assert_int_equal(expect_done(bench, RESULT_DONE)->attachment_count, 0);
    fake_qemu_stop(&fake);
}

// All of a guest's memory may have to be pinned first.
static void test_a_slow_attach_is_not_said_to_be_silence(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.add_delay = (uint64_t)6500 * 1000};
    fake_qemu_add(&fake, "rp1", "pcie-root-port");
    bench->told_silent = true;
    begin(bench, &fake);
    attach(bench, 1, false, RESULT_DONE);
    fake_qemu_stop(&fake);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

// With an argument: only the tests whose names match it.
int main(int count, char **arguments)
{
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        TEST(test_f34_a_function_goes_on_a_free_port_by_its_address),
        TEST(test_f49_ports_that_input_devices_are_told_to_use_come_last),
        TEST(test_f34_the_root_bus_of_the_machine),
        TEST(test_f34_refusals_that_a_person_can_mend),
        TEST(test_the_limit_of_locked_memory_is_named),
        TEST(test_f39_the_right_that_is_missing_is_named),
        TEST(test_f39_who_is_to_get_a_device_is_known_as_soon_as_the_vm_is_up),
        TEST(test_what_is_added_in_spite_of_an_error_counts),
        TEST(test_f40_a_foreign_function_is_known_by_its_address),
        TEST(test_f29_a_guest_that_refuses_keeps_it_until_it_is_asked_again),
        TEST(test_a_function_that_is_fixed_says_so),
        TEST(test_f29_a_late_refusal_is_news),
        TEST(test_a_function_that_leaves_by_itself_is_news),
        TEST(test_a_slow_attach_is_not_said_to_be_silence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
