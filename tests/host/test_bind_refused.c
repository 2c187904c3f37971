// PCI functions that are not bound to vfio-pci, and are as they were then: what stands in the way, and that it is said.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <string.h>

#include "bind_machine.h"
#include "tree.h"
#include "util/text.h"

static void test_what_vfio_does_not_take_is_as_before(void **state)
{
    struct machine *machine = *state;

    kernel.refuses = true;
    bind_machine_take(machine, HOST_OPEN_REFUSED, "vfio-pci does not take " FIRST_ADDRESS ": Invalid argument");
    bind_machine_expect_free(machine);
}

static void test_what_cannot_be_given_back_then_is_said_too(void **state)
{
    struct machine *machine = *state;

    kernel.refuses_second = true;
    kernel.keeps = true;
    bind_machine_take(
        machine, HOST_OPEN_REFUSED,
        "vfio-pci does not take " SECOND_ADDRESS ": Invalid argument; the kernel's log says more; " FIRST_ADDRESS
        " cannot be taken from vfio-pci: Device or resource busy; it stays there until it is detached again");
    bind_machine_expect(machine, FIRST, "vfio-pci", "(null)", true);
    bind_machine_expect(machine, SECOND, "e1000", "(null)", false);
}

static void test_a_driver_that_does_not_let_go(void **state)
{
    struct machine *machine = *state;

    kernel.busy = true;
    bind_machine_take(machine, HOST_OPEN_RETRY, "vfio-pci does not take " FIRST_ADDRESS ": Device or resource busy");
    bind_machine_expect_free(machine);
    kernel.stuck = true;
    bind_machine_take(machine, HOST_OPEN_RETRY,
                      FIRST_ADDRESS " cannot be taken from its driver e1000: Device or resource busy");
    bind_machine_expect_free(machine);
}

static void test_without_records_nothing_is_done(void **state)
{
    struct machine *machine = *state;

    tree_write(machine->root, "records", "a file where a directory should be");
    bind_machine_take(machine, HOST_OPEN_RETRY, "what driver " FIRST_ADDRESS " has cannot be written down in ");
    tree_remove(machine->root, "records");
    bind_machine_expect_free(machine);
}

static void test_f23_the_node_is_waited_for(void **state)
{
    struct machine *machine = *state;

    kernel.without_node = true;
    bind_machine_take(machine, HOST_OPEN_RETRY, "/dev/vfio/12, the node of its IOMMU group, has not come within 5 s");
    bind_machine_expect_taken(machine);
    kernel.without_node = false;
    tree_write(machine->root, "dev/vfio/12", "");
    tree_write(machine->root, "run/udev/control", "");
    bind_machine_take(machine, HOST_OPEN_RETRY,
                      "/dev/vfio/12, the node of its IOMMU group, has not been dealt with by udevd within");
    kernel.udev_after = kernel.sleeps + 3;
    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    assert_int_equal(kernel.sleeps, kernel.udev_after);
}

static void test_without_an_iommu(void **state)
{
    struct machine *machine = *state;

    tree_remove(machine->root, FIRST "/iommu_group");
    bind_machine_take(machine, HOST_OPEN_REFUSED, FIRST_ADDRESS " is in no IOMMU group: switch the IOMMU on");
    assert_non_null(strstr(machine->text, "intel_iommu=on"));
    bind_machine_expect_free(machine);
}

static void test_without_vfio(void **state)
{
    struct machine *machine = *state;

    tree_remove(machine->root, "sys/bus/pci/drivers/vfio-pci");
    bind_machine_take(machine, HOST_OPEN_REFUSED, "the kernel module vfio-pci cannot be loaded: ");
    bind_machine_expect_free(machine);
}

static void test_it_has_gone_or_another_is_there(void **state)
{
    struct machine *machine = *state;

    machine->device->instance++;
    bind_machine_take(machine, HOST_OPEN_GONE, "the function has gone");
    machine->device->instance--;
    tree_remove(machine->root, FIRST);
    bind_machine_take(machine, HOST_OPEN_GONE, "the function has gone");
    bind_machine_give_back(machine, NULL);
}

static void test_f34_a_function_that_policy_has_not_seen(void **state)
{
    struct machine *machine = *state;

    bind_machine_add(machine, BRIDGE "/0000:03:03.0", "0x020000\n");
    bind_machine_take(machine, HOST_OPEN_RETRY, "0000:03:03.0 has come into its IOMMU group");
    bind_machine_expect_free(machine);
}

// A disk of this function, with this number.
static void add_disk(const struct machine *machine, const char *function)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/nvme/nvme0/nvme0n1", function);
    CLEANUP(cleanup_free) char *target = string_printf("../../%s", path + strlen("sys/"));

    tree_directory(machine->root, path);
    tree_link(machine->root, "sys/class/block/nvme0n1", target);
    tree_link(machine->root, "sys/dev/block/259:0", target);
}

static void test_f35_a_disk_that_the_host_lives_on(void **state)
{
    struct machine *machine = *state;

    add_disk(machine, FIRST);
    bind_machine_take(machine, HOST_OPEN_READY, NULL);
    bind_machine_give_back(machine, NULL);
    tree_write(machine->root, "mountinfo", "21 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    bind_machine_take(machine, HOST_OPEN_IN_USE, "/ is mounted from nvme0n1");
    bind_machine_expect_free(machine);
    device_release(machine->device);
    machine->device = bind_machine_read(machine, SECOND);
    bind_machine_take(machine, HOST_OPEN_IN_USE, FIRST_ADDRESS " of its IOMMU group: / is mounted from nvme0n1");
    bind_machine_expect_free(machine);
}

static void add_interface(const struct machine *machine, const char *path, const char *target)
{
    CLEANUP(cleanup_free) char *full = string_printf("sys/%s", target);

    tree_directory(machine->root, full);
    CLEANUP(cleanup_free) char *up = string_printf("../../%s", target);
    tree_link(machine->root, path, up);
}

// One of two ways out may go, but not both, and it is the group that goes.
static void test_f35_the_only_network_of_the_host(void **state)
{
    struct machine *machine = *state;

    add_interface(machine, "sys/class/net/eth0", "devices/pci0000:00/0000:00:1c.0/0000:03:01.0/net/eth0");
    add_interface(machine, "sys/class/net/eth1", "devices/pci0000:00/0000:00:1c.0/0000:03:02.0/net/eth1");
    tree_write(machine->root, "routes4",
               "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
               "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
               "eth1\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
    bind_machine_take(machine, HOST_OPEN_IN_USE, "the host's only IPv4 default route goes through eth1");
    bind_machine_expect_free(machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_vfio_does_not_take_is_as_before, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_given_back_then_is_said_too, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_a_driver_that_does_not_let_go, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_without_records_nothing_is_done, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_f23_the_node_is_waited_for, bind_machine_set_up, bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_without_an_iommu, bind_machine_set_up, bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_without_vfio, bind_machine_set_up, bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_it_has_gone_or_another_is_there, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_function_that_policy_has_not_seen, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_f35_a_disk_that_the_host_lives_on, bind_machine_set_up,
                                        bind_machine_tear_down),
        cmocka_unit_test_setup_teardown(test_f35_the_only_network_of_the_host, bind_machine_set_up,
                                        bind_machine_tear_down),
    };

    return cmocka_run_group_tests_name("bind-refused", tests, NULL, NULL);
}
