// Opening of device nodes in threads, on files that stand for nodes.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-event.h>

#include "host/opener.h"
#include "host/usb.h"
#include "host/worker.h"
#include "tree.h"
#include "util/text.h"

struct bench {
    char *root;
    sd_event *loop;
    struct worker *worker;
    struct device *device;
    unsigned answers;
    enum host_open_kind kind;
    bool had_fd;
    char *text;
};

static int set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof(*bench));
    struct device *device = device_new(DEVICE_USB);

    bench->root = tree_new();
    bench->device = device;
    tree_usb(bench->root, "1-2", "1\n", "4\n");
    tree_write_bytes(bench->root, "node", tree_mouse, tree_mouse_length);
    device->syspath = string_printf("%s/1-2", bench->root);
    device->node = string_printf("%s/node", bench->root);
    device->vendor_id = 0x0627;
    device->product_id = 0x0001;
    device->instance = usb_instance(device->syspath);
    assert_int_equal(sd_event_new(&bench->loop), 0);
    assert_int_equal(worker_new(&bench->worker, bench->loop, 4), 0);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    worker_free(bench->worker);
    sd_event_unref(bench->loop);
    device_release(bench->device);
    tree_free(bench->root);
    free(bench->text);
    free(bench);
    return 0;
}

static void handle_opened(void *user, struct opener_result *result)
{
    struct bench *bench = user;

    bench->answers++;
    bench->kind = result->kind;
    bench->had_fd = result->fd >= 0;
    free(bench->text);
    bench->text = string_copy(result->text);
}

static void open_and_expect(struct bench *bench, enum host_open_kind kind, const char *text)
{
    unsigned before = bench->answers;

    opener_submit(bench->worker, bench->device, 7, NULL, handle_opened, bench);
    assert_int_equal(bench->answers, before); // never from inside
    while (bench->answers == before)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    assert_int_equal(bench->answers, before + 1);
    assert_int_equal(bench->kind, kind);
    assert_int_equal(bench->had_fd, kind == HOST_OPENED);
    if (text == NULL)
        assert_null(bench->text);
    else
        assert_non_null(strstr(bench->text, text));
}

static void test_the_device_that_policy_saw(void **state)
{
    open_and_expect(*state, HOST_OPENED, NULL);
}

static void keep(void *user, struct opener_result *result)
{
    struct bench *bench = user;

    assert_int_equal(result->serial, 9);
    assert_int_equal(fcntl(result->fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(result->fd, F_GETFL) & O_ACCMODE, O_RDWR);
    bench->answers = (unsigned)steal_fd(&result->fd);
}

static void test_the_receiver_may_keep_the_descriptor(void **state)
{
    struct bench *bench = *state;

    opener_submit(bench->worker, bench->device, 9, NULL, keep, bench);
    while (bench->answers == 0)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    assert_int_equal(close((int)bench->answers), 0);
}

static void test_other_ids_behind_the_node(void **state)
{
    struct bench *bench = *state;

    bench->device->product_id = 2;
    open_and_expect(bench, HOST_OPEN_GONE, "another device has taken its place");
}

static void test_f08_another_instance_at_the_same_place(void **state)
{
    struct bench *bench = *state;

    tree_write(bench->root, "1-2/devnum", "5\n");
    open_and_expect(bench, HOST_OPEN_GONE, "another device has taken its place");
    tree_remove(bench->root, "1-2");
    open_and_expect(bench, HOST_OPEN_GONE, "another device has taken its place");
    tree_remove(bench->root, "node");
    open_and_expect(bench, HOST_OPEN_GONE, "the device has gone");
}

static void test_a_node_of_another_number(void **state)
{
    struct bench *bench = *state;

    bench->device->number = 5;
    open_and_expect(bench, HOST_OPEN_GONE, "the node belongs to another device");
}

static void test_a_node_that_says_nothing(void **state)
{
    struct bench *bench = *state;

    tree_write(bench->root, "node", "short");
    open_and_expect(bench, HOST_OPEN_GONE, "the device has gone");
}

static void test_a_node_that_cannot_be_opened(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_free) char *text = NULL;

    tree_remove(bench->root, "node");
    text = string_printf("opening %s: No such file or directory", bench->device->node);
    open_and_expect(bench, HOST_OPEN_NO_FD, text);
    tree_link(bench->root, "node", "1-2/product");
    open_and_expect(bench, HOST_OPEN_NO_FD, "Too many levels of symbolic links");
    tree_remove(bench->root, "node");
    tree_directory(bench->root, "node");
    open_and_expect(bench, HOST_OPEN_NO_FD, "Is a directory");
}

static void test_f35_what_the_host_uses_is_not_opened(void **state)
{
    struct bench *bench = *state;

    opener_submit(bench->worker, bench->device, 7, string_copy("/ is mounted from sda1"), handle_opened, bench);
    while (bench->answers == 0)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    assert_int_equal(bench->kind, HOST_OPEN_IN_USE);
    assert_false(bench->had_fd);
    assert_string_equal(bench->text, "/ is mounted from sda1");
}

static void test_many_at_once_are_each_answered_once(void **state)
{
    struct bench *bench = *state;

    for (int i = 0; i < 200; i++)
        opener_submit(bench->worker, bench->device, 7, NULL, handle_opened, bench);
    while (bench->answers < 200)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    assert_int_equal(sd_event_run(bench->loop, 0), 0);
    assert_int_equal(bench->answers, 200);
}

// The lowest free descriptor number tells whether some descriptor is left open.
static int lowest_free(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    close(fd);
    return fd;
}

static void test_the_end_while_work_is_under_way(void **state)
{
    struct bench *bench = *state;

    worker_free(bench->worker);
    bench->worker = NULL;
    int free_before = lowest_free();
    for (int round = 0; round < 50; round++) {
        struct worker *worker = NULL;
        assert_int_equal(worker_new(&worker, bench->loop, 3), 0);
        for (int i = 0; i < round; i++)
            opener_submit(worker, bench->device, 7, NULL, handle_opened, bench);
        worker_free(worker);
    }
    assert_int_equal(sd_event_run(bench->loop, 0), 0);
    assert_int_equal(bench->answers, 0);
    assert_int_equal(lowest_free(), free_before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_device_that_policy_saw, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_receiver_may_keep_the_descriptor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_ids_behind_the_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f08_another_instance_at_the_same_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_node_of_another_number, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_node_that_says_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_node_that_cannot_be_opened, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_what_the_host_uses_is_not_opened, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_at_once_are_each_answered_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_end_while_work_is_under_way, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("opener", tests, NULL, NULL);
}
