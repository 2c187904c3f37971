// PCI functions opened for a VM by a node of their own: that it is the right one, and what is given where there is
// none. cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handover_bench.h"
#include "host/iommufd.h"
#include "tree.h"
#include "util/text.h"

#define OWN "dev/vfio/devices/vfio3"

struct bench {
    struct handover_bench base;
    char *own_node;
    struct host_receiver receiver;
    enum host_open_kind kind;
    int fd;
    char *why;
};

static struct text said; // in the log

enum host_open_kind __wrap_bind_take(const struct bind_paths *paths, const struct device *device, char **text);
void __wrap_log_line(struct log *log, enum log_level level, const struct log_subject *subject, const char *format, ...)
    PRINTF(4, 5);

enum host_open_kind __wrap_bind_take(const struct bind_paths *paths, const struct device *device, char **text)
{
    (void)paths, (void)device, (void)text;
    return HOST_OPEN_READY;
}

void __wrap_log_line(struct log *log, enum log_level level, const struct log_subject *subject, const char *format, ...)
{
    char line[1000];
    va_list arguments;

    (void)log, (void)level, (void)subject;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    text_printf(&said, "%s\n", line);
}

static void handle_answer(void *user, struct handover_answer *answer)
{
    struct bench *bench = user;

    bench->base.answers++;
    bench->kind = answer->kind;
    bench->fd = steal_fd(&answer->fd);
}

static int set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof(*bench));

    handover_bench_init(&bench->base, LOG_LEVEL_INFO, handle_answer, bench);
    handover_bench_add_card(&bench->base);
    tree_write(bench->base.root, CARD "/vfio-dev/vfio3/dev", "0:0\n");
    tree_write(bench->base.root, OWN, "own");
    bench->own_node = string_printf("%s/" OWN, bench->base.root);
    assert_int_equal(chmod(bench->own_node, 0600), 0);
    bench->fd = -1;
    bench->receiver = (struct host_receiver){.known = true, .user = 65534, .takes_functions = true};
    handover_access(bench->base.handover, &bench->base.paths, true);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    handover_bench_clear(&bench->base);
    cleanup_close(&bench->fd);
    free(bench->why);
    free(bench->own_node);
    free(bench);
    text_clear(&said);
    return 0;
}

// What it is opened for in the end must be ready by one way, and only by one.
static void open_it(struct bench *bench, bool by_descriptor)
{
    cleanup_close(&bench->fd);
    bench->fd = -1;
    handover_open(bench->base.handover, bench->base.card, 7, &bench->receiver, NULL);
    handover_bench_wait(&bench->base, bench->base.answers + 1);
    assert_int_equal(bench->kind, HOST_OPEN_READY);
    assert_int_equal(bench->fd >= 0, by_descriptor);
    assert_int_equal(handover_bench_is_given(bench->base.group_node), !by_descriptor);
    assert_false(access(bench->own_node, F_OK) == 0 && handover_bench_is_given(bench->own_node));
}

static void expect_error(struct bench *bench, int error, const char *words)
{
    assert_int_equal(iommufd_open(bench->base.dev, bench->base.card, &bench->why), error);
    if (words == NULL)
        assert_null(bench->why);
    else
        assert_non_null(strstr(bench->why, words));
    free(bench->why);
    bench->why = NULL;
}

// ---- the node

static void test_the_function_that_policy_saw(void **state)
{
    struct bench *bench = *state;
    char bytes[4] = "";

    bench->fd = iommufd_open(bench->base.dev, bench->base.card, &bench->why);
    assert_true(bench->fd >= 0);
    assert_null(bench->why);
    assert_int_equal(fcntl(bench->fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(bench->fd, F_GETFL) & O_ACCMODE, O_RDWR);
    assert_int_equal(read(bench->fd, bytes, 3), 3);
    assert_string_equal(bytes, "own");
}

static void test_a_kernel_without_such_nodes(void **state)
{
    struct bench *bench = *state;

    tree_remove(bench->base.root, CARD "/vfio-dev");
    expect_error(bench, -EOPNOTSUPP, NULL);
    tree_directory(bench->base.root, CARD "/vfio-dev");
    expect_error(bench, -EOPNOTSUPP, NULL);
}

static void test_a_node_of_another_number(void **state)
{
    struct bench *bench = *state;

    tree_write(bench->base.root, CARD "/vfio-dev/vfio3/dev", "241:0\n");
    expect_error(bench, -ESTALE, OWN ", its own, belongs to another device");
}

static void test_f08_another_function_at_its_address(void **state)
{
    struct bench *bench = *state;

    bench->base.card->instance++;
    expect_error(bench, -ESTALE, "belongs to another device");
}

static void test_a_node_that_cannot_be_opened(void **state)
{
    struct bench *bench = *state;

    tree_remove(bench->base.root, OWN);
    expect_error(bench, -ENOENT, "0000:01:00.0 is passed by the node of its IOMMU group, as ");
    expect_error(bench, -ENOENT, OWN ", its own, cannot be opened: No such file or directory");
    tree_link(bench->base.root, OWN, "../12");
    expect_error(bench, -ELOOP, "cannot be opened: Too many levels of symbolic links");
}

static void test_a_number_that_cannot_be_read(void **state)
{
    struct bench *bench = *state;

    tree_write(bench->base.root, CARD "/vfio-dev/vfio3/dev", "none\n");
    expect_error(bench, -ENOENT, "cannot be opened: No such file or directory");
}

// ---- for a VM

static void test_f39_handed_over_the_vms_user_has_no_right_on_any_node(void **state)
{
    struct bench *bench = *state;

    open_it(bench, true);
    assert_null(said.string);
    bench->receiver.takes_functions = false;
    open_it(bench, false);
    bench->receiver.takes_functions = true;
    open_it(bench, true); // what was given for the group before is taken back
    handover_access(bench->base.handover, NULL, false);
    open_it(bench, true);
}

static void test_f39_without_its_own_node_the_groups_is_given(void **state)
{
    struct bench *bench = *state;

    tree_remove(bench->base.root, OWN);
    open_it(bench, false);
    assert_non_null(strstr(said.string, "0000:01:00.0 is passed by the node of its IOMMU group"));
    text_clear(&said);
    tree_remove(bench->base.root, CARD "/vfio-dev");
    open_it(bench, false);
    assert_null(said.string); // as nothing is wrong with that
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_function_that_policy_saw, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_kernel_without_such_nodes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_node_of_another_number, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f08_another_function_at_its_address, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_node_that_cannot_be_opened, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_number_that_cannot_be_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f39_handed_over_the_vms_user_has_no_right_on_any_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f39_without_its_own_node_the_groups_is_given, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("iommufd", tests, NULL, NULL);
}
