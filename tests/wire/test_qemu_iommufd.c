// PCI functions into scripted QEMUs by descriptor: what is handed over, what is left behind, and what happens where
// that does not work. The words are those of QEMU 10.0.2.
#include "bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "util/text.h"

#define CONTEXT "/dev/zero"  // stands for /dev/iommu
#define FUNCTION "/dev/full" // stands for /dev/vfio/devices/vfio0
#define GROUP 7654

static ino_t inode_of(const char *path)
{
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return status.st_ino;
}

static const struct result *expect_done(struct bench *bench, enum result_kind kind)
{
    const struct result *result = &bench_expect(bench, "done", "vm1")->result;
    if (result->kind != kind)
        fail_msg("result %d, not %d: %s", result->kind, kind, result->text ? result->text : "");
    return result;
}

static void list(struct bench *bench)
{
    bench_list(bench, "vm1");
    expect_done(bench, RESULT_DONE);
}

static void begin(struct bench *bench, struct fake_qemu *fake, const char *context)
{
    fake_qemu_add(fake, "rp1", "pcie-root-port");
    fake_qemu_add(fake, "rp2", "pcie-root-port");
    fake_qemu_start(fake, bench->loop, bench->directory, "vm1");
    vmms_offer_iommu(bench->vmms, context);
    bench_add_vm(bench, "vm1", "vm1");
    bench_expect(bench, "up", "vm1");
    assert_false(vmms_takes_functions(bench->vmms, "vm1"));
    list(bench);
}

static const struct result *attach(struct bench *bench, unsigned bus, enum result_kind kind)
{
    CLEANUP(cleanup_device) struct device *device = bench_pci(bus, GROUP);
    int fd = open(FUNCTION, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    bench_attach(bench, "vm1", device, fd);
    return expect_done(bench, kind);
}

static void expect_nothing_left(const struct fake_qemu *fake)
{
    for (size_t i = 0; i < sizeof fake->named / sizeof *fake->named; i++)
        assert_string_equal(fake->named[i].name, "");
}

static void test_both_descriptors_are_handed_over_and_the_context_is_shared(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true};
    begin(bench, &fake, CONTEXT);
    assert_true(vmms_takes_functions(bench->vmms, "vm1"));
    assert_false(vmms_takes_functions(bench->vmms, "vm2"));
    const struct result *result = attach(bench, 1, RESULT_DONE);
    assert_true(result->attachment_count == 1 && result->attachments[0].ours);
    const struct fake_device *first = fake_qemu_on(&fake, "rp1");
    assert_string_equal(first->host, "0000:01:00.0");
    assert_int_equal(first->function, inode_of(FUNCTION));
    assert_int_equal(fake.context, inode_of(CONTEXT));
    attach(bench, 2, RESULT_DONE);
    assert_int_equal(fake_qemu_on(&fake, "rp2")->function, inode_of(FUNCTION));
    assert_int_equal(fake_qemu_asked(&fake, "object-add"), 1);
    assert_int_equal(fake_qemu_asked(&fake, "device-list-properties"), 1);
    expect_nothing_left(&fake);
    list(bench);
    assert_int_equal(fake_qemu_asked(&fake, "device-list-properties"), 1); // it is known
    fake_qemu_stop(&fake);
}

static void test_the_context_outlives_its_functions(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true};
    char object[OBJECT_NAME_MAX];
    begin(bench, &fake, CONTEXT);
    (void)snprintf(object, sizeof object, "%s", attach(bench, 1, RESULT_DONE)->attachments[0].object);
    bench_detach(bench, "vm1", object);
    expect_done(bench, RESULT_DONE);
    assert_int_equal(fake_qemu_asked(&fake, "object-del"), 0); // QEMU would lose its descriptor
    attach(bench, 1, RESULT_DONE);
    assert_int_equal(fake_qemu_asked(&fake, "object-add"), 1);
    fake_qemu_stop(&fake);
}

static void test_what_a_run_that_was_killed_left_is_found(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true, .context = 42};
    fake.named[0] = (struct fake_named){"vhotplug-function", 43};
    fake.named[1] = (struct fake_named){"vhotplug-iommu", 44};
    fake.named[2] = (struct fake_named){"anothers", 45};
    begin(bench, &fake, CONTEXT);
    // vfio-pci could not let go of a function that is open somewhere.
    assert_string_equal(fake.named[0].name, "");
    assert_string_equal(fake.named[1].name, "");
    assert_string_equal(fake.named[2].name, "anothers");
    attach(bench, 1, RESULT_DONE);
    assert_int_equal(fake.context, 42);
    assert_int_equal(fake_qemu_asked(&fake, "object-add"), 0);
    fake_qemu_stop(&fake);
}

// Not asked where the host has none, nor handed over to a QEMU that does not know them.
static void test_where_one_of_both_has_none(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true};
    begin(bench, &fake, "/dev/there-is-none");
    assert_false(vmms_takes_functions(bench->vmms, "vm1"));
    assert_int_equal(fake_qemu_asked(&fake, "device-list-properties"), 0);
    CLEANUP(cleanup_device) struct device *device = bench_pci(1, GROUP);
    bench_attach(bench, "vm1", device, -1);
    expect_done(bench, RESULT_DONE);
    assert_int_equal(fake.fds, 0);
    assert_int_equal(fake_qemu_asked(&fake, "qom-list /objects"), 0);
    fake_qemu_stop(&fake);
}

static void test_an_old_qemu_takes_none(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake, CONTEXT);
    assert_false(vmms_takes_functions(bench->vmms, "vm1"));
    assert_int_equal(fake_qemu_asked(&fake, "device-list-properties"), 1);
    assert_int_equal(fake_qemu_asked(&fake, "closefd"), 0);
    fake_qemu_stop(&fake);
}

// ---- falling back

static void expect_fallback(struct bench *bench, struct fake_qemu *fake, const char *why)
{
    char *text =
        string_printf("vm1: it was not passed by descriptor: %s; it is tried by the node of its IOMMU group", why);
    assert_string_equal(attach(bench, 1, RESULT_RETRY)->text, text);
    free(text);
    assert_false(vmms_takes_functions(bench->vmms, "vm1"));
    expect_nothing_left(fake);
    CLEANUP(cleanup_device) struct device *device = bench_pci(1, GROUP);
    bench_attach(bench, "vm1", device, -1);
    expect_done(bench, RESULT_DONE);
    assert_int_equal(fake_qemu_on(fake, "rp1")->function, 0);
    list(bench);
    assert_int_equal(fake_qemu_asked(fake, "device-list-properties"), 1); // not asked again
    assert_false(vmms_takes_functions(bench->vmms, "vm1"));
    fake_qemu_stop(fake);
}

static void test_a_function_that_is_refused(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true};
    fake.function_error = "vfio VFIO_FD13: error bind device fd=13 to iommufd=8: Inappropriate ioctl for device";
    begin(bench, &fake, CONTEXT);
    expect_fallback(bench, &fake, fake.function_error);
}

static void test_a_context_that_is_refused(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true};
    fake.object_error =
        "Could not parse remote object fd vhotplug-iommu:File descriptor named 'vhotplug-iommu' has not "
        "been found";
    begin(bench, &fake, CONTEXT);
    expect_fallback(bench, &fake, fake.object_error);
}

static void test_a_context_that_cannot_be_opened(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true};
    begin(bench, &fake, "/dev");
    expect_fallback(bench, &fake, "/dev cannot be opened: Is a directory");
}

static void test_a_context_that_is_no_device(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true};
    CLEANUP(cleanup_free) char *file = string_printf("%s/iommu", bench->directory);
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    CLEANUP(cleanup_free) char *why = string_printf("%s is no device", file);
    begin(bench, &fake, file);
    expect_fallback(bench, &fake, why);
    unlink(file);
}

// The group's node cannot be opened beside it, and no other program is to blame.
static void test_what_has_to_go_by_the_group_beside_one_that_went_by_descriptor(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true};
    begin(bench, &fake, CONTEXT);
    attach(bench, 1, RESULT_DONE);
    CLEANUP(cleanup_device) struct device *device = bench_pci(2, GROUP);
    device->peers = memory_new(2, sizeof(struct device *));
    device->peers[device->peer_count++] = bench_pci(3, GROUP); // is in no VM
    device->peers[device->peer_count++] = bench_pci(1, GROUP);
    fake.answer_error = "vfio 0000:02:00.0: Could not open '/dev/vfio/7654': Device or resource busy";
    static const char text[] = "vm1 has 0000:01:00.0 of the same IOMMU group by descriptor, beside which the kernel "
                               "does not open /dev/vfio/7654: detach 0000:01:00.0 and attach it again, then all of the "
                               "group goes by that node";
    bench_attach(bench, "vm1", device, -1);
    assert_string_equal(expect_done(bench, RESULT_RETRY)->text, text);
    struct fake_device *first = &fake.devices[2];            // after both ports
    (void)snprintf(first->id, sizeof first->id, "anothers"); // QEMU was started with it
    bench_attach(bench, "vm1", device, -1);
    assert_string_equal(expect_done(bench, RESULT_RETRY)->text, text);
    (void)snprintf(first->host, sizeof first->host, "0000:04:00.0"); // of some other group
    (void)snprintf(first->id, sizeof first->id, "one_more");
    bench_attach(bench, "vm1", device, -1);
    assert_string_equal(expect_done(bench, RESULT_RETRY)->text,
                        "/dev/vfio/7654 is in use by another program, which has to let go of it (as root, fuser -v "
                        "/dev/vfio/7654 tells its name)");
    fake_qemu_stop(&fake);
}

// It says nothing of the descriptor.
static void test_a_port_that_is_taken_is_no_reason_to_fall_back(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.takes_functions = true};
    begin(bench, &fake, CONTEXT);
    fake.answer_error = "PCI: slot 0 function 0 already occupied by vfio-pci, new func";
    assert_string_equal(attach(bench, 1, RESULT_RETRY)->text,
                        "vm1: QEMU did not take it: PCI: slot 0 function 0 already occupied by vfio-pci, new func");
    assert_true(vmms_takes_functions(bench->vmms, "vm1"));
    expect_nothing_left(&fake); // it was not used, and is taken back
    fake.answer_error = NULL;
    attach(bench, 1, RESULT_DONE);
    fake_qemu_stop(&fake);
}

// What the first one refused may be taken by the next.
static void test_another_process_is_asked_again(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0}, next = {.takes_functions = true};
    begin(bench, &fake, CONTEXT);
    assert_false(vmms_takes_functions(bench->vmms, "vm1"));
    fake_qemu_stop(&fake);
    bench_expect(bench, "down", "vm1");
    fake_qemu_start(&next, bench->loop, bench->directory, "vm1");
    bench_expect_up(bench, "vm1");
    list(bench);
    assert_true(vmms_takes_functions(bench->vmms, "vm1"));
    fake_qemu_stop(&next);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_both_descriptors_are_handed_over_and_the_context_is_shared),
        TEST(test_the_context_outlives_its_functions),
        TEST(test_what_a_run_that_was_killed_left_is_found),
        TEST(test_where_one_of_both_has_none),
        TEST(test_an_old_qemu_takes_none),
        TEST(test_a_function_that_is_refused),
        TEST(test_a_context_that_is_refused),
        TEST(test_a_context_that_cannot_be_opened),
        TEST(test_a_context_that_is_no_device),
        TEST(test_what_has_to_go_by_the_group_beside_one_that_went_by_descriptor),
        TEST(test_a_port_that_is_taken_is_no_reason_to_fall_back),
        TEST(test_another_process_is_asked_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
