// Opening of device nodes, on files that stand for nodes.
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

#include "host/opener.h"
#include "tree.h"
#include "util/text.h"

struct bench {
    char *root;
    struct device *device;
};

static int set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof(*bench));

    bench->root = tree_new();
    bench->device = tree_mouse_device(bench->root);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    device_release(bench->device);
    tree_free(bench->root);
    free(bench);
    return 0;
}

static void open_and_expect(struct bench *bench, enum host_open_kind kind, const char *text)
{
    struct opener_result result;

    opener_open(bench->device, &result);
    CLEANUP(cleanup_close) int fd = result.fd;
    CLEANUP(cleanup_free) char *said = result.text;
    assert_int_equal(result.kind, kind);
    assert_int_equal(fd >= 0, kind == HOST_OPENED);
    if (text == NULL)
        assert_null(said);
    else
        assert_non_null(strstr(said, text));
}

static void test_the_device_that_policy_saw(void **state)
{
    open_and_expect(*state, HOST_OPENED, NULL);
}

static void test_the_descriptor_can_be_written_and_is_closed_on_exec(void **state)
{
    struct bench *bench = *state;
    struct opener_result result;

    opener_open(bench->device, &result);
    assert_int_equal(fcntl(result.fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(result.fd, F_GETFL) & O_ACCMODE, O_RDWR);
    assert_int_equal(close(result.fd), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_device_that_policy_saw, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_descriptor_can_be_written_and_is_closed_on_exec, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_ids_behind_the_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f08_another_instance_at_the_same_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_node_of_another_number, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_node_that_says_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_node_that_cannot_be_opened, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("opener", tests, NULL, NULL);
}
