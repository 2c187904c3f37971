// Which node a VM's user is given access to, when, and until when.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <string.h>
#include <sys/stat.h>

#include "handover_bench.h"
#include "host/access_device.h"
#include "host/input.h"
#include "tree.h"
#include "util/text.h"

#define KEYBOARD "sys/devices/platform/input/input5"

struct bench {
    struct handover_bench base;
    char *node;
    struct device *keyboard;
    struct host_receiver receiver;
    enum host_open_kind kind;
};

static void handle_answer(void *user, struct handover_answer *answer)
{
    struct bench *bench = user;

    bench->base.answers++;
    bench->kind = answer->kind;
}

static void make_keyboard(struct bench *bench)
{
    tree_write(bench->base.root, KEYBOARD "/name", "keys\n");
    tree_write(bench->base.root, "dev/event3", "");
    bench->node = string_printf("%s/dev/event3", bench->base.root);
    bench->keyboard = device_new(DEVICE_INPUT);
    bench->keyboard->key = string_copy("input:input5");
    bench->keyboard->syspath = string_printf("%s/" KEYBOARD, bench->base.root);
    bench->keyboard->node = string_copy(bench->node);
    bench->keyboard->instance = input_instance(bench->keyboard->syspath);
    assert_int_equal(chmod(bench->node, 0600), 0);
}

static int set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof(*bench));

    handover_bench_init(&bench->base, LOG_LEVEL_ERROR, handle_answer, bench);
    handover_bench_add_card(&bench->base);
    make_keyboard(bench);
    bench->receiver = (struct host_receiver){.known = true, .user = 65534};
    handover_access(bench->base.handover, &bench->base.paths, true);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    handover_bench_clear(&bench->base);
    device_release(bench->keyboard);
    free(bench->node);
    free(bench);
    return 0;
}

static enum host_open_kind open_it(struct bench *bench)
{
    handover_open(bench->base.handover, bench->keyboard, 7, &bench->receiver, NULL);
    handover_bench_wait(&bench->base, bench->base.answers + 1);
    return bench->kind;
}

// What was asked of the keyboard before is done when this is answered.
static void wait_for_others(struct bench *bench)
{
    handover_open(bench->base.handover, bench->keyboard, 8, &bench->receiver, string_copy("the host lives on it"));
    handover_bench_wait(&bench->base, bench->base.answers + 1);
}

static void test_f39_an_input_device_for_as_long_as_it_is_on_its_way_or_in_the_vm(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    assert_true(handover_bench_is_given(bench->node));
    handover_settle(bench->base.handover, bench->keyboard, false);
    wait_for_others(bench);
    assert_false(handover_bench_is_given(bench->node));
    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    assert_true(handover_bench_is_given(bench->node));
    handover_gone(bench->base.handover, bench->keyboard);
    wait_for_others(bench);
    assert_false(handover_bench_is_given(bench->node));
}

static void test_without_a_known_user_nothing_is_given(void **state)
{
    struct bench *bench = *state;

    bench->receiver.known = false;
    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    assert_false(handover_bench_is_given(bench->node));
}

static void test_switched_off_it_is_only_taken_back(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    handover_access(bench->base.handover, &bench->base.paths, false);
    handover_settle(bench->base.handover, bench->keyboard, true);
    wait_for_others(bench);
    assert_false(handover_bench_is_given(bench->node));
    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    assert_false(handover_bench_is_given(bench->node));
}

static void test_f08_another_input_device_at_its_node(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_free) char *text = NULL;

    bench->keyboard->instance++;
    assert_int_equal(access_open(&bench->base.paths, bench->keyboard, &bench->receiver, &text), HOST_OPEN_GONE);
    assert_non_null(strstr(text, "the device has gone"));
    assert_int_equal(open_it(bench), HOST_OPEN_GONE);
    assert_false(handover_bench_is_given(bench->node));
}

static void expect(struct bench *bench, enum host_open_kind kind, const char *word)
{
    CLEANUP(cleanup_free) char *text = NULL;

    assert_int_equal(access_open(&bench->base.paths, bench->base.card, &bench->receiver, &text), kind);
    if (word == NULL)
        assert_null(text);
    else
        assert_non_null(strstr(text, word));
}

static void test_f23_the_node_of_a_functions_group(void **state)
{
    struct bench *bench = *state;

    expect(bench, HOST_OPEN_READY, NULL);
    assert_true(handover_bench_is_given(bench->base.group_node));
    assert_false(handover_bench_is_given(bench->node));
}

static void test_f23_a_function_that_is_another_now_or_of_another_group(void **state)
{
    struct bench *bench = *state;

    bench->base.card->instance++;
    expect(bench, HOST_OPEN_GONE, "the device has gone");
    bench->base.card->instance--;
    tree_remove(bench->base.root, CARD "/iommu_group");
    tree_link(bench->base.root, CARD "/iommu_group", "../../../kernel/iommu_groups/13");
    expect(bench, HOST_OPEN_GONE, "the device has gone");
    assert_false(handover_bench_is_given(bench->base.group_node));
}

static void test_f23_a_group_without_its_node(void **state)
{
    struct bench *bench = *state;

    tree_write(bench->base.root, "sys/class/vfio/12/dev", "241:0\n");
    expect(bench, HOST_OPEN_GONE, "the device has gone"); // the node of that name is another's
    tree_remove(bench->base.root, "sys/class/vfio/12");
    expect(bench, HOST_OPEN_RETRY, "dev/vfio/12 is not there any more");
    assert_false(handover_bench_is_given(bench->base.group_node));
}

static void test_f39_what_cannot_be_given_is_refused_with_what_to_do(void **state)
{
    struct bench *bench = *state;

    bench->receiver.user = getuid() == 0 ? 4242 : getuid();
    if (getuid() == 0)
        assert_int_equal(chown(bench->base.group_node, 4242, 4242), 0);
    assert_int_equal(chmod(bench->base.group_node, 0400), 0);
    expect(bench, HOST_OPEN_REFUSED, "by other means, or set grantAccess to false");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_f39_an_input_device_for_as_long_as_it_is_on_its_way_or_in_the_vm, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_without_a_known_user_nothing_is_given, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_switched_off_it_is_only_taken_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f08_another_input_device_at_its_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f23_the_node_of_a_functions_group, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f23_a_function_that_is_another_now_or_of_another_group, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f23_a_group_without_its_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f39_what_cannot_be_given_is_refused_with_what_to_do, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("access-device", tests, NULL, NULL);
}
