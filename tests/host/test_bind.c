// PCI functions bound to vfio-pci and given back, also when the daemon is killed in the midst of it.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bind_machine.h"
#include "tree.h"
#include "util/text.h"

#define STEPS_MAX 100

static void test_f34_the_whole_group_goes_and_comes_back(void **state)
{
    struct machine *machine = *state;

    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    bind_machine_expect_taken(machine);
    bind_machine_take(machine, HOST_OPEN_READY, NULL); // and what is there stays
    bind_machine_expect_taken(machine);
    bind_machine_give_back(machine, NULL);
    bind_machine_expect_free(machine);
    bind_machine_give_back(machine, NULL);
    bind_machine_expect_free(machine);
}

// The bridge to the ISA bus, as 0000:00:1f.0 of most PCs, of which the kernel makes no exception.
static void test_f34_a_bridge_that_is_none_to_a_bus_goes_with_its_group(void **state)
{
    struct machine *machine = *state;

    bind_machine_add(machine, ISA, "0x060100\n");
    tree_directory(machine->root, "sys/bus/pci/drivers/lpc_ich");
    assert_int_equal(bind_machine_driver(ISA, "lpc_ich"), 0);
    device_release(machine->device);
    machine->device = bind_machine_read(machine, FIRST);
    bind_machine_take(machine, HOST_OPEN_READY,
                      "for " FIRST_ADDRESS
                      " these of its IOMMU group 12 are bound to vfio-pci too: 0000:00:1f.0 (lpc_ich), " SECOND_ADDRESS
                      " (e1000)");
    bind_machine_expect_taken(machine);
    bind_machine_expect(machine, ISA, "vfio-pci", "vfio-pci", true);
    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    assert_null(machine->text); // nothing has been lost besides
    bind_machine_give_back(machine, NULL);
    bind_machine_expect_free(machine);
    bind_machine_expect(machine, ISA, "lpc_ich", "(null)", false);
}

// The one that the processor hangs on, as 0000:00:00.0, has no driver and hinders nobody.
static void test_a_bridge_without_a_driver_is_left_alone(void **state)
{
    struct machine *machine = *state;

    bind_machine_add(machine, ISA, "0x060000\n");
    device_release(machine->device);
    machine->device = bind_machine_read(machine, FIRST);
    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    bind_machine_expect_taken(machine);
    bind_machine_expect(machine, ISA, "", "(null)", false);
    bind_machine_give_back(machine, NULL);
    bind_machine_expect_free(machine);
}

static void test_a_function_without_a_driver_ends_without_one(void **state)
{
    struct machine *machine = *state;
    CLEANUP(cleanup_free) char *drivers = NULL;

    assert_int_equal(bind_machine_unbind(SECOND), 0);
    drivers = bind_drivers(machine->device);
    assert_string_equal(drivers, FIRST_ADDRESS ": e1000, " SECOND_ADDRESS ": none");
    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    bind_machine_give_back(machine, NULL);
    bind_machine_expect(machine, FIRST, "e1000", "(null)", false);
    bind_machine_expect(machine, SECOND, "", "(null)", false);
}

static void test_what_was_on_vfio_before_us_stays_there(void **state)
{
    struct machine *machine = *state;

    assert_int_equal(bind_machine_unbind(SECOND), 0);
    tree_write(machine->root, SECOND "/driver_override", "vfio-pci\n");
    assert_int_equal(bind_machine_driver(SECOND, "vfio-pci"), 0);
    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    bind_machine_give_back(machine, NULL);
    bind_machine_expect(machine, FIRST, "e1000", "(null)", false);
    bind_machine_expect(machine, SECOND, "vfio-pci", "vfio-pci", false);
}

static void test_a_driver_that_was_chosen_by_hand_is_chosen_again(void **state)
{
    struct machine *machine = *state;

    tree_directory(machine->root, "sys/bus/pci/drivers/other");
    assert_int_equal(bind_machine_unbind(FIRST), 0);
    tree_write(machine->root, FIRST "/driver_override", "other\n");
    assert_int_equal(bind_machine_driver(FIRST, "other"), 0);
    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    bind_machine_give_back(machine, NULL);
    bind_machine_expect(machine, FIRST, "other", "other", false);
}

static void test_a_driver_that_has_gone_is_said(void **state)
{
    struct machine *machine = *state;

    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    assert_int_equal(bind_machine_unbind(BRIDGE), 0);
    tree_remove(machine->root, "sys/bus/pci/drivers/e1000");
    bind_machine_give_back(machine, FIRST_ADDRESS
                           " has no driver now, for e1000 did not take it back: Invalid argument; load that");
    assert_non_null(strstr(machine->text, "; " SECOND_ADDRESS " has no driver now"));
    bind_machine_expect(machine, FIRST, "", "(null)", false);
}

// Runs one call in a process that dies at its step DIE; true if it did.
static bool dies(struct machine *machine, unsigned die, bool takes)
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        struct bind_others others = {0};
        char *text = NULL;
        kernel.step = 0;
        kernel.die = die;
        if (takes)
            _exit(bind_take(&machine->paths, machine->device, &text) == HOST_OPEN_READY ? 0 : 1);
        text = bind_give_back(&machine->paths, machine->device, &others, true, &machine->busy);
        _exit(text == NULL ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == DIED || WEXITSTATUS(status) == 0);
    return WEXITSTATUS(status) == DIED;
}

static void test_f34_killed_at_each_step_of_binding(void **state)
{
    struct machine *machine = *state;
    unsigned die;

    for (die = 1; die < STEPS_MAX; die++) {
        bool died = dies(machine, die, true);
        bind_machine_give_back(machine, NULL); // the next run finds it the host's
        bind_machine_expect_free(machine);
        if (!died)
            break;
        assert_true(dies(machine, die, true));
        bind_machine_take(machine, HOST_OPEN_READY, NULL); // or a VM's still
        bind_machine_expect_taken(machine);
        bind_machine_give_back(machine, NULL);
        bind_machine_expect_free(machine);
    }
    assert_true(die >= 9); // record, override, unbind and probe, twice
}

static void test_f34_killed_at_each_step_of_giving_back(void **state)
{
    struct machine *machine = *state;
    unsigned die;

    for (die = 1; die < STEPS_MAX; die++) {
        bind_machine_take(machine, HOST_OPEN_READY, NULL);
        bool died = dies(machine, die, false);
        bind_machine_give_back(machine, NULL);
        bind_machine_expect_free(machine);
        if (!died)
            break;
        bind_machine_take(machine, HOST_OPEN_READY, NULL);
        assert_true(dies(machine, die, false));
        bind_machine_take(machine, HOST_OPEN_READY, NULL);
        bind_machine_expect_taken(machine);
        bind_machine_give_back(machine, NULL);
        bind_machine_expect_free(machine);
    }
    assert_true(die >= 9); // override, unbind, bind and record, twice
}

static void test_f34_a_group_in_use_is_left_alone(void **state)
{
    struct machine *machine = *state;
    struct bind_others others = {0};

    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    bind_others_add(&others, "pci:" SECOND_ADDRESS, true);
    assert_null(bind_give_back(&machine->paths, machine->device, &others, true, &machine->busy));
    assert_false(machine->busy); // its own end will be the time
    bind_others_clear(&others);
    bind_machine_expect_taken(machine);
    kernel.busy_opens = UINT32_MAX; // a VM that had it before our start
    bind_machine_give_back(machine, NULL);
    assert_true(machine->busy);
    bind_machine_expect_taken(machine);
    kernel.busy_opens = 3; // one that is about to let it go
    kernel.sleeps = 0;
    assert_null(bind_give_back(&machine->paths, machine->device, &others, false, &machine->busy));
    assert_true(machine->busy);
    assert_int_equal(kernel.sleeps, 0);
    bind_machine_expect_taken(machine);
    bind_machine_give_back(machine, NULL);
    assert_false(machine->busy);
    assert_int_equal(kernel.sleeps, 2);
    bind_machine_expect_free(machine);
}

static void test_f34_what_is_kept_for_a_vm_is_not_given_back(void **state)
{
    struct machine *machine = *state;
    struct bind_others others = {0};

    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    bind_others_add(&others, "pci:" SECOND_ADDRESS, false);
    assert_null(bind_give_back(&machine->paths, machine->device, &others, true, &machine->busy));
    bind_others_clear(&others);
    bind_machine_expect(machine, FIRST, "e1000", "(null)", false);
    bind_machine_expect(machine, SECOND, "vfio-pci", "vfio-pci", true);
}

static void test_a_group_that_cannot_be_asked_is_left_alone(void **state)
{
    struct machine *machine = *state;

    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    tree_remove(machine->root, "dev/vfio/12");
    tree_directory(machine->root, "dev/vfio/12");
    bind_machine_give_back(machine,
                           FIRST_ADDRESS " stays on vfio-pci: whether a VM uses its IOMMU group cannot be told");
    bind_machine_expect_taken(machine);
}

static void test_a_group_that_the_unit_does_not_allow_is_asked_again(void **state)
{
    struct machine *machine = *state;

    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    kernel.busy_opens = 2;
    kernel.forbidden = true;
    bind_machine_give_back(machine, "restart vhotplug");
    assert_true(machine->busy);
    assert_null(bind_give_back(&machine->paths, machine->device, &(struct bind_others){0}, false, &machine->busy));
    assert_true(machine->busy); // and has been said already
    bind_machine_give_back(machine, NULL);
    bind_machine_expect_free(machine);
}

static void test_records_of_another_plug_or_damaged_ones_are_worth_nothing(void **state)
{
    struct machine *machine = *state;
    CLEANUP(cleanup_free)
    char *other = string_printf("%llx other -\n", (unsigned long long)(machine->device->instance + 1));
    CLEANUP(cleanup_free) char *evil = string_printf("%llx ../x -\n", (unsigned long long)machine->device->instance);

    tree_write(machine->root, "records/pci/" FIRST_ADDRESS, other);
    bind_machine_give_back(machine, NULL);
    bind_machine_expect(machine, FIRST, "e1000", "(null)", true);
    tree_write(machine->root, "records/pci/" FIRST_ADDRESS, evil);
    bind_machine_give_back(machine, NULL);
    bind_machine_expect(machine, FIRST, "e1000", "(null)", true);
    tree_write(machine->root, "records/pci/" FIRST_ADDRESS, "rubbish");
    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    bind_machine_give_back(machine, NULL);
    bind_machine_expect_free(machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_f34_the_whole_group_goes_and_comes_back, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_bridge_that_is_none_to_a_bus_goes_with_its_group,
                                        bind_machine_set_up, bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_a_bridge_without_a_driver_is_left_alone, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_a_function_without_a_driver_ends_without_one, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_on_vfio_before_us_stays_there, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_a_driver_that_was_chosen_by_hand_is_chosen_again, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_a_driver_that_has_gone_is_said, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_f34_killed_at_each_step_of_binding, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_f34_killed_at_each_step_of_giving_back, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_group_in_use_is_left_alone, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_f34_what_is_kept_for_a_vm_is_not_given_back, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_a_group_that_cannot_be_asked_is_left_alone, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_a_group_that_the_unit_does_not_allow_is_asked_again, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_records_of_another_plug_or_damaged_ones_are_worth_nothing,
                                        bind_machine_set_up, bind_machine_tear_down),
    };

    return cmocka_run_group_tests_name("bind", tests, NULL, NULL);
}
