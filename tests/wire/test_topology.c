// The choice of USB bus and port.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <string.h>

#include "vmm/topology.h"

static void add(struct topology *topology, const char *type, const char *name)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/machine/peripheral/%s", name);
    assert_true(topology_add(topology, type, path));
    (void)snprintf(topology->buses[topology->count - 1].name, QOM_NAME_MAX, "%s.0", name);
}

static void expect(const struct topology *topology, enum usb_speed speed, const char *bus_name, unsigned want)
{
    size_t bus = 99;
    unsigned port = 99;
    assert_int_equal(topology_choose(topology, speed, &bus, &port), TOPOLOGY_FOUND);
    assert_string_equal(topology->buses[bus].name, bus_name);
    assert_int_equal(port, want);
}

static void expect_none(const struct topology *topology, enum usb_speed speed, enum topology_verdict want)
{
    size_t bus;
    unsigned port;
    assert_int_equal(topology_choose(topology, speed, &bus, &port), want);
}

static void test_f41_no_controller(void **state)
{
    struct topology topology = {0};
    (void)state;
    expect_none(&topology, SPEED_HIGH, TOPOLOGY_NO_CONTROLLER);
    assert_false(topology_add(&topology, "virtio-net-pci", "/machine/peripheral/net"));
    assert_int_equal(topology.count, 0);
}

static void test_f41_ports_fill_from_the_top(void **state)
{
    struct topology topology = {0};
    (void)state;
    add(&topology, "qemu-xhci", "xhci");
    char object[] = "device-0";
    for (unsigned port = 4; port > 0; port--) {
        expect(&topology, SPEED_HIGH, "xhci.0", port);
        object[7]++;
        topology_occupy(&topology, "/machine/peripheral/xhci/xhci.0", port, object);
    }
    expect_none(&topology, SPEED_HIGH, TOPOLOGY_NO_PORT);
    expect_none(&topology, SPEED_SUPER, TOPOLOGY_NO_PORT);
    assert_int_equal(topology_port_count(&topology, SPEED_HIGH), 4);
    topology_vacate(&topology, "device-2");
    expect(&topology, SPEED_LOW, "xhci.0", 3);
    topology_clear(&topology);
}

static void test_f41_super_speed_ports(void **state)
{
    struct topology topology = {0};
    (void)state;
    add(&topology, "nec-usb-xhci", "n");
    topology_set_ports(&topology.buses[0], "p2", 8);
    topology_set_ports(&topology.buses[0], "p3", 2);
    expect(&topology, SPEED_SUPER, "n.0", 2);
    expect(&topology, SPEED_HIGH, "n.0", 8);
    topology_occupy(&topology, "/machine/peripheral/n/n.0", 1, "a");
    topology_occupy(&topology, "/machine/peripheral/n/n.0", 2, "b");
    expect(&topology, SPEED_SUPER, "n.0", 8); // better slower than not at all
    topology_set_ports(&topology.buses[0], "p3", 1000000);
    assert_int_equal(topology.buses[0].super_ports, TOPOLOGY_PORTS_MAX);
    topology_clear(&topology);
}

static void test_f41_controller_of_the_speed(void **state)
{
    struct topology topology = {0};
    (void)state;
    add(&topology, "usb-ehci", "ehci");
    expect_none(&topology, SPEED_FULL, TOPOLOGY_TOO_SLOW);
    expect_none(&topology, SPEED_LOW, TOPOLOGY_TOO_SLOW);
    expect(&topology, SPEED_HIGH, "ehci.0", 6);
    add(&topology, "pci-ohci", "ohci");
    expect(&topology, SPEED_FULL, "ohci.0", 3);
    expect(&topology, SPEED_HIGH, "ehci.0", 6);
    expect(&topology, SPEED_UNKNOWN, "ohci.0", 3);
    add(&topology, "qemu-xhci", "xhci");
    expect(&topology, SPEED_FULL, "xhci.0", 4);
    expect(&topology, SPEED_SUPER, "xhci.0", 4);
    topology_clear(&topology);
}

static void test_f41_companions_serve_slow_devices(void **state)
{
    struct topology topology = {0};
    (void)state;
    add(&topology, "ich9-usb-ehci1", "ehci");
    add(&topology, "ich9-usb-uhci1", "uhci");
    topology.buses[1].name[0] = '\0'; // a companion has no bus
    expect_none(&topology, SPEED_FULL, TOPOLOGY_TOO_SLOW);
    topology_set_companion(&topology, "ehci.0");
    expect(&topology, SPEED_FULL, "ehci.0", 6);
    topology_clear(&topology);
}

static void test_bounds(void **state)
{
    struct topology topology = {0};
    (void)state;
    for (int i = 0; i < TOPOLOGY_BUSES_MAX; i++)
        assert_true(topology_add(&topology, "qemu-xhci", "/x"));
    assert_false(topology_add(&topology, "qemu-xhci", "/x"));
    topology_occupy(&topology, "/x/", 1, "nameless buses take nothing");
    assert_null(topology.buses[0].occupants[1]);
    topology_occupy(&topology, "/x/", TOPOLOGY_PORTS_MAX + 1, "beyond");
    topology_clear(&topology);
}

// With an argument: only the tests whose names match it.
int main(int count, char **arguments)
{
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f41_no_controller),
        cmocka_unit_test(test_f41_ports_fill_from_the_top),
        cmocka_unit_test(test_f41_super_speed_ports),
        cmocka_unit_test(test_f41_controller_of_the_speed),
        cmocka_unit_test(test_f41_companions_serve_slow_devices),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
