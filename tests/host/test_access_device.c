// Which node a VM's user is given access to, when, and until when.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <acl/libacl.h>
#include <string.h>
#include <sys/acl.h>
#include <sys/stat.h>
#include <systemd/sd-event.h>

#include "host/access_device.h"
#include "host/handover.h"
#include "host/input.h"
#include "host/pci.h"
#include "host/worker.h"
#include "tree.h"
#include "util/log.h"
#include "util/text.h"

#define KEYBOARD "sys/devices/platform/input/input5"
#define CARD "sys/devices/pci0000:00/0000:01:00.0"

struct bench {
    char *root, *node, *group_node;
    char *sys, *dev, *records;
    struct access_paths paths;
    struct bind_paths bind_paths;
    struct device *keyboard, *card;
    struct host_receiver receiver;
    struct log *log;
    sd_event *loop;
    struct worker *worker;
    struct handover *handover;
    unsigned answers;
    enum host_open_kind kind;
};

static void handle_answer(void *user, struct handover_answer *answer)
{
    struct bench *bench = user;

    bench->answers++;
    bench->kind = answer->kind;
}

static void make_devices(struct bench *bench)
{
    tree_write(bench->root, KEYBOARD "/name", "keys\n");
    tree_write(bench->root, "dev/event3", "");
    bench->node = string_printf("%s/dev/event3", bench->root);
    bench->keyboard = device_new(DEVICE_INPUT);
    bench->keyboard->key = string_copy("input:input5");
    bench->keyboard->syspath = string_printf("%s/" KEYBOARD, bench->root);
    bench->keyboard->node = string_copy(bench->node);
    bench->keyboard->instance = input_instance(bench->keyboard->syspath);
    tree_card(bench->root, CARD);
    bench->group_node = string_printf("%s/dev/vfio/12", bench->root);
    CLEANUP(cleanup_free) char *card = string_printf("%s/" CARD, bench->root);
    assert_int_equal(pci_read_at(card, &bench->card), 0);
    assert_int_equal(chmod(bench->node, 0600), 0);
    assert_int_equal(chmod(bench->group_node, 0600), 0);
}

static int set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof(*bench));

    bench->root = tree_new();
    bench->sys = string_printf("%s/sys", bench->root);
    bench->dev = string_printf("%s/dev", bench->root);
    bench->records = string_printf("%s/records", bench->root);
    bench->paths = (struct access_paths){bench->sys, bench->dev, bench->records};
    bench->bind_paths = (struct bind_paths){.run = "/run", .records = bench->records};
    bench->receiver = (struct host_receiver){.known = true, .user = 65534};
    make_devices(bench);
    bench->log = log_new(LOG_LEVEL_ERROR);
    assert_int_equal(sd_event_new(&bench->loop), 0);
    assert_int_equal(worker_new(&bench->worker, bench->loop, 4), 0);
    bench->handover = handover_new(bench->worker, bench->loop, bench->log, &bench->bind_paths, handle_answer, bench);
    handover_access(bench->handover, &bench->paths, true);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    worker_free(bench->worker);
    handover_free(bench->handover);
    sd_event_unref(bench->loop);
    log_free(bench->log);
    device_release(bench->keyboard);
    device_release(bench->card);
    free(bench->sys);
    free(bench->dev);
    free(bench->records);
    free(bench->node);
    free(bench->group_node);
    tree_free(bench->root);
    free(bench);
    return 0;
}

static bool is_given(const char *node)
{
    acl_t acl = acl_get_file(node, ACL_TYPE_ACCESS);
    int entries;

    assert_non_null(acl);
    entries = acl_entries(acl);
    acl_free(acl);
    return entries > 3; // owner, group and others are always there
}

static enum host_open_kind open_it(struct bench *bench)
{
    unsigned before = bench->answers;

    handover_open(bench->handover, bench->keyboard, 7, &bench->receiver, NULL);
    while (bench->answers == before)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    return bench->kind;
}

// What was asked of the keyboard before is done when this is answered.
static void wait_for_others(struct bench *bench)
{
    unsigned before = bench->answers;

    handover_open(bench->handover, bench->keyboard, 8, &bench->receiver, string_copy("the host lives on it"));
    while (bench->answers == before)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
}

static void test_f39_an_input_device_for_as_long_as_it_is_on_its_way_or_in_the_vm(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    assert_true(is_given(bench->node));
    handover_settle(bench->handover, bench->keyboard, false);
    wait_for_others(bench);
    assert_false(is_given(bench->node));
    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    assert_true(is_given(bench->node));
    handover_gone(bench->handover, bench->keyboard);
    wait_for_others(bench);
    assert_false(is_given(bench->node));
}

static void test_without_a_known_user_nothing_is_given(void **state)
{
    struct bench *bench = *state;

    bench->receiver.known = false;
    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    assert_false(is_given(bench->node));
}

static void test_switched_off_it_is_only_taken_back(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    handover_access(bench->handover, &bench->paths, false);
    handover_settle(bench->handover, bench->keyboard, true);
    wait_for_others(bench);
    assert_false(is_given(bench->node));
    assert_int_equal(open_it(bench), HOST_OPEN_READY);
    assert_false(is_given(bench->node));
}

static void test_f08_another_input_device_at_its_node(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_free) char *text = NULL;

    bench->keyboard->instance++;
    assert_int_equal(access_open(&bench->paths, bench->keyboard, &bench->receiver, &text), HOST_OPEN_GONE);
    assert_non_null(strstr(text, "the device has gone"));
    assert_int_equal(open_it(bench), HOST_OPEN_GONE);
    assert_false(is_given(bench->node));
}

static void expect(struct bench *bench, enum host_open_kind kind, const char *word)
{
    CLEANUP(cleanup_free) char *text = NULL;

    assert_int_equal(access_open(&bench->paths, bench->card, &bench->receiver, &text), kind);
    if (word == NULL)
        assert_null(text);
    else
        assert_non_null(strstr(text, word));
}

static void test_f23_the_node_of_a_functions_group(void **state)
{
    struct bench *bench = *state;

    expect(bench, HOST_OPEN_READY, NULL);
    assert_true(is_given(bench->group_node));
    assert_false(is_given(bench->node));
}

static void test_f23_a_function_that_is_another_now_or_of_another_group(void **state)
{
    struct bench *bench = *state;

    bench->card->instance++;
    expect(bench, HOST_OPEN_GONE, "the device has gone");
    bench->card->instance--;
    tree_remove(bench->root, CARD "/iommu_group");
    tree_link(bench->root, CARD "/iommu_group", "../../../kernel/iommu_groups/13");
    expect(bench, HOST_OPEN_GONE, "the device has gone");
    assert_false(is_given(bench->group_node));
}

static void test_f23_a_group_without_its_node(void **state)
{
    struct bench *bench = *state;

    tree_write(bench->root, "sys/class/vfio/12/dev", "241:0\n");
    expect(bench, HOST_OPEN_GONE, "the device has gone"); // the node of that name is another's
    tree_remove(bench->root, "sys/class/vfio/12");
    expect(bench, HOST_OPEN_RETRY, "dev/vfio/12 is not there any more");
    assert_false(is_given(bench->group_node));
}

static void test_f39_what_cannot_be_given_is_refused_with_what_to_do(void **state)
{
    struct bench *bench = *state;

    bench->receiver.user = getuid() == 0 ? 4242 : getuid();
    if (getuid() == 0)
        assert_int_equal(chown(bench->group_node, 4242, 4242), 0);
    assert_int_equal(chmod(bench->group_node, 0400), 0);
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
