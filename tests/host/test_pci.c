// PCI functions read from a tree of files, with their IOMMU groups, disks behind them and routes through them.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>

#include "host/disk.h"
#include "host/network.h"
#include "host/network_watch.h"
#include "host/pci.h"
#include "tree.h"
#include "util/text.h"

#define PORT "sys/devices/pci0000:00/0000:00:1c.0"
#define CARD PORT "/0000:01:00.0"
#define SOUND PORT "/0000:01:00.1"

static int set_up(void **state)
{
    *state = tree_new();
    return 0;
}

static int tear_down(void **state)
{
    tree_free(*state);
    return 0;
}

static void add_file(const char *root, const char *place, const char *name, const char *text)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", place, name);

    tree_write(root, path, text);
}

static void add_function(const char *root, const char *place, const char *class)
{
    add_file(root, place, "vendor", "0x8086\n");
    add_file(root, place, "device", "0x10d3\n");
    add_file(root, place, "class", class);
}

static void join_group(const char *root, const char *place, const char *group)
{
    CLEANUP(cleanup_free) char *link = string_printf("%s/iommu_group", place);
    CLEANUP(cleanup_free) char *directory = string_printf("%s/sys/kernel/iommu_groups/%s", root, group);
    CLEANUP(cleanup_free)
    char *member = string_printf("sys/kernel/iommu_groups/%s/devices/%s", group, strrchr(place, '/') + 1);
    CLEANUP(cleanup_free) char *full = string_printf("%s/%s", root, place);

    tree_link(root, link, directory);
    tree_link(root, member, full);
}

static int read_at(const char *root, const char *place, struct device **device)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/%s", root, place);

    *device = NULL;
    return pci_read_at(path, device);
}

static void test_a_function_without_an_iommu(void **state)
{
    CLEANUP(cleanup_device) struct device *device = NULL;

    add_function(*state, CARD, "0x020080\n");
    assert_int_equal(read_at(*state, CARD, &device), 0);
    assert_int_equal(device->kind, DEVICE_PCI);
    assert_string_equal(device->key, "pci:0000:01:00.0");
    assert_string_equal(device_pci_address(device), "0000:01:00.0");
    assert_int_equal(device->vendor_id, 0x8086);
    assert_int_equal(device->product_id, 0x10d3);
    assert_int_equal(device->class, 2);
    assert_int_equal(device->subclass, 0);
    assert_int_equal(device->protocol, 0x80);
    assert_int_equal(device->iommu_group, -1);
    assert_int_equal(device->peer_count, 0);
    assert_int_not_equal(device->instance, 0);
    assert_false(device_is_bridge(device));
}

static void test_its_board_and_its_driver_of_now(void **state)
{
    CLEANUP(cleanup_device) struct device *free_device = NULL, *bound = NULL;
    CLEANUP(cleanup_free) char *driver = string_printf("%s/sys/bus/pci/drivers/e1000e", (char *)*state);

    add_function(*state, CARD, "0x020000\n");
    add_file(*state, CARD, "subsystem_vendor", "0x17aa\n");
    add_file(*state, CARD, "subsystem_device", "0x2247\n");
    assert_int_equal(read_at(*state, CARD, &free_device), 0);
    tree_link(*state, CARD "/driver", driver);
    assert_int_equal(read_at(*state, CARD, &bound), 0);
    assert_int_equal(bound->subsystem_vendor_id, 0x17aa);
    assert_int_equal(bound->subsystem_id, 0x2247);
    assert_null(free_device->driver);
    assert_string_equal(bound->driver, "e1000e");
    assert_true(device_equal(free_device, bound));
}

static void test_what_udev_says_of_it(void **state)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/" CARD, (char *)*state);
    CLEANUP(cleanup_source) struct source *source = source_new(DEVICE_PCI, path, true);
    struct reading reading;

    add_function(*state, CARD, "0x020000\n");
    source->vendor_database = string_copy("Intel Corporation");
    source->product_database = string_copy("82574L Gigabit Network Connection");
    source->id_path = string_copy("pci-0000:01:00.0");
    assert_int_equal(pci_read(source, &reading), 0);
    assert_string_equal(reading.device->vendor_database, "Intel Corporation");
    assert_string_equal(reading.device->product_database, "82574L Gigabit Network Connection");
    assert_string_equal(reading.device->id_path, "pci-0000:01:00.0");
    reading_clear(&reading);
}

static void test_f34_the_others_of_its_group(void **state)
{
    CLEANUP(cleanup_device) struct device *card = NULL;
    CLEANUP(cleanup_device) struct device *sound = NULL;

    add_function(*state, PORT, "0x060400\n");
    add_function(*state, CARD, "0x030000\n");
    add_function(*state, SOUND, "0x040300\n");
    join_group(*state, SOUND, "12");
    join_group(*state, CARD, "12");
    join_group(*state, PORT, "12");
    tree_link(*state, "sys/kernel/iommu_groups/12/devices/0000:01:00.7", "/nowhere"); // on its way out
    assert_int_equal(read_at(*state, CARD, &card), 0);
    assert_int_equal(card->iommu_group, 12);
    assert_int_equal(card->peer_count, 2);
    assert_string_equal(card->peers[0]->key, "pci:0000:00:1c.0"); // by address
    assert_true(device_is_bridge(card->peers[0]));
    assert_string_equal(card->peers[1]->key, "pci:0000:01:00.1");
    assert_int_equal(card->peers[1]->class, 4);
    assert_int_equal(card->peers[1]->iommu_group, 12);
    assert_int_equal(card->peers[1]->peer_count, 0);
    assert_int_equal(read_at(*state, SOUND, &sound), 0);
    assert_int_equal(card->peers[1]->instance, sound->instance);
    assert_true(pci_lists(card, sound));
    assert_true(pci_lists(sound, card));
    assert_false(pci_lists(card, card));
    sound->instance++; // another one in the same place
    assert_false(pci_lists(card, sound));
}

static void test_f34_a_group_that_cannot_all_be_read(void **state)
{
    CLEANUP(cleanup_device) struct device *card = NULL;
    int error;

    add_function(*state, CARD, "0x030000\n");
    add_function(*state, SOUND, "0x040300\n");
    join_group(*state, SOUND, "12");
    join_group(*state, CARD, "12");
    for (int free = 0; free < 3; free++) {
        tree_limit_descriptors(free);
        error = read_at(*state, CARD, &card);
        tree_limit_descriptors(-1);
        assert_int_equal(error, -EMFILE);
        assert_null(card);
    }
    assert_int_equal(read_at(*state, CARD, &card), 0);
    assert_int_equal(card->peer_count, 1);
}

// The header of a bridge tells whether another bus is behind it, which its class may hide.
static void test_f34_which_bridges_lead_to_a_bus(void **state)
{
    static const struct {
        const char *class, *config; // after the first 14 bytes; NULL: there is no such file
        enum pci_header header;
        bool bus_bridge;
    } cases[] = {
        {"0x060400\n", NULL, HEADER_BUS_BRIDGE, true},   {"0x060100\n", NULL, HEADER_UNKNOWN, false},
        {"0x060100\n", "\x80", HEADER_ORDINARY, false},  {"0x068000\n", "\x81", HEADER_BUS_BRIDGE, true},
        {"0x060700\n", "\x02", HEADER_BUS_BRIDGE, true}, {"0x060700\n", "\x80", HEADER_ORDINARY, false},
        {"0x060900\n", "\xff", HEADER_UNKNOWN, true},    {"0x060900\n", "", HEADER_UNKNOWN, true},
        {"0x020000\n", "\x01", HEADER_UNKNOWN, false}, // a card is not woken to be asked
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CLEANUP(cleanup_device) struct device *device = NULL;
        CLEANUP(cleanup_free) char *place = string_printf("sys/devices/pci0000:00/0000:00:%02zx.0", i);
        CLEANUP(cleanup_free) char *config = string_printf("abcdefghijklmn%s", cases[i].config ? cases[i].config : "");
        add_function(*state, place, cases[i].class);
        if (cases[i].config != NULL)
            add_file(*state, place, "config", config);
        assert_int_equal(read_at(*state, place, &device), 0);
        assert_int_equal(device->header, cases[i].header);
        assert_int_equal(device_is_bus_bridge(device), cases[i].bus_bridge);
    }
}

static void test_f28_each_plug_is_another_instance(void **state)
{
    CLEANUP(cleanup_device) struct device *first = NULL;
    CLEANUP(cleanup_device) struct device *second = NULL;
    CLEANUP(cleanup_device) struct device *third = NULL;

    add_function(*state, CARD, "0x020000\n");
    assert_int_equal(read_at(*state, CARD, &first), 0);
    assert_int_equal(read_at(*state, CARD, &second), 0);
    assert_true(first->instance == second->instance);
    tree_directory(*state, "keeps-the-inode-busy");
    CLEANUP(cleanup_free) char *from = string_printf("%s/" CARD, (char *)*state);
    CLEANUP(cleanup_free) char *to = string_printf("%s/old", (char *)*state);
    assert_int_equal(rename(from, to), 0);
    add_function(*state, CARD, "0x020000\n");
    assert_int_equal(read_at(*state, CARD, &third), 0);
    assert_true(first->instance != third->instance);
}

static void test_f10_attributes_that_are_missing_or_make_no_sense(void **state)
{
    CLEANUP(cleanup_device) struct device *device = NULL;
    static const char *const names[] = {"vendor", "device", "class"};

    assert_int_equal(read_at(*state, CARD, &device), -ENOENT);
    for (size_t i = 0; i < 3; i++) {
        CLEANUP(cleanup_free) char *path = string_printf(CARD "/%s", names[i]);
        add_function(*state, CARD, "0x020000\n");
        tree_remove(*state, path);
        assert_int_equal(read_at(*state, CARD, &device), -ENOENT);
        tree_write(*state, path, "8086\n");
        assert_int_equal(read_at(*state, CARD, &device), -EINVAL);
        tree_write(*state, path, "0x1000000\n");
        assert_int_equal(read_at(*state, CARD, &device), -EINVAL);
    }
    add_function(*state, "sys/devices/no-address", "0x020000\n");
    assert_int_equal(read_at(*state, "sys/devices/no-address", &device), -EINVAL);
    add_function(*state, "sys/devices/10000:e1:00.0", "0x010802\n"); // behind VMD
    assert_int_equal(read_at(*state, "sys/devices/10000:e1:00.0", &device), 0);
    assert_string_equal(device->key, "pci:10000:e1:00.0");
}

// ---- disks

static void test_f35_a_disk_with_several_ways_to_it(void **state)
{
    const char *root = *state;
    CLEANUP(cleanup_free)
    char *disk = string_printf("%s/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p1", root);
    CLEANUP(cleanup_free) char *card = string_printf("%s/" CARD, root);
    CLEANUP(cleanup_free) char *other = string_printf("%s/" SOUND, root);
    CLEANUP(cleanup_free) char *controller = string_printf("%s/" CARD "/nvme/nvme0", root);
    CLEANUP(cleanup_free) char *plain = string_printf("%s/block/sda", card);
    int error = 0;

    tree_directory(root, CARD "/nvme/nvme0");
    tree_directory(root, SOUND);
    tree_directory(root, "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p1");
    tree_link(root, "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0", controller);
    assert_true(disk_is_on(disk, card, &error));
    assert_false(disk_is_on(disk, other, &error));
    assert_true(disk_is_on(plain, card, &error));
    assert_false(disk_is_on(plain, other, &error));
    assert_int_equal(error, 0);
    tree_limit_descriptors(0);
    (void)!disk_is_on(plain, card, &error); // its path says it
    assert_int_equal(error, 0);
    (void)!disk_is_on(disk, card, &error);
    tree_limit_descriptors(-1);
    assert_int_equal(error, -EMFILE);
}

// ---- routes

static void add_interface(const char *root, const char *name, const char *place)
{
    CLEANUP(cleanup_free) char *directory = string_printf("sys/%s/%s", place, name);
    CLEANUP(cleanup_free) char *link = string_printf("sys/class/net/%s", name);
    CLEANUP(cleanup_free) char *target = string_printf("../../%s/%s", place, name);

    tree_directory(root, directory);
    tree_link(root, link, target);
}

static void add_lower(const char *root, const char *upper, const char *lower)
{
    CLEANUP(cleanup_free) char *link = string_printf("sys/devices/virtual/net/%s/lower_%s", upper, lower);

    tree_link(root, link, "wherever");
}

#define HEADING "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
#define DEFAULT4(name) name "\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
#define LOCAL4(name) name "\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
#define ZERO6 "00000000000000000000000000000000"
#define DEFAULT6(name)                                                                                                 \
    ZERO6 " 00 " ZERO6 " 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     " name "\n"
#define LOCAL6(name) "fd" ZERO6 " 40 " ZERO6 " 00 " ZERO6 " 00000400 00000002 00000000 00000003     " name "\n"

// What is lost with CARD, and with both functions; NULL: nothing.
static void expect_network(const char *root, const char *routes4, const char *routes6, const char *card_use,
                           const char *both_use)
{
    CLEANUP(cleanup_free) char *sys = string_printf("%s/sys", root);
    CLEANUP(cleanup_free) char *file4 = string_printf("%s/route", root);
    CLEANUP(cleanup_free) char *file6 = string_printf("%s/ipv6_route", root);
    CLEANUP(cleanup_free) char *card = string_printf("%s/" CARD, root);
    CLEANUP(cleanup_free) char *sound = string_printf("%s/" SOUND, root);
    char *places[] = {card, sound};
    const struct network_paths paths = {sys, file4, file6};
    CLEANUP(cleanup_network) struct network *network = network_new(&paths);
    CLEANUP(cleanup_free) char *use = NULL;
    CLEANUP(cleanup_free) char *both = NULL;

    tree_write(root, "route", routes4);
    tree_write(root, "ipv6_route", routes6);
    use = network_of(network, places, 1);
    both = network_of(network, places, 2);
    if (!string_equal(use, card_use) || !string_equal(both, both_use))
        fail_msg("%s, %s", use != NULL ? use : "-", both != NULL ? both : "-");
}

static void test_f35_the_only_default_route(void **state)
{
    static const char eth0[] = "the host's only IPv4 default route goes through eth0";
    static const char eth0_6[] = "the host's only IPv6 default route goes through eth0";

    add_interface(*state, "lo", "devices/virtual/net");
    add_interface(*state, "eth0", "devices/pci0000:00/0000:00:1c.0/0000:01:00.0/virtio1/net");
    add_interface(*state, "eth1", "devices/pci0000:00/0000:00:1c.0/0000:01:00.1/net");
    add_interface(*state, "wlan0", "devices/pci0000:00/0000:00:14.3/net");
    add_interface(*state, "tun0", "devices/virtual/net");
    expect_network(*state, "", "", NULL, NULL);
    expect_network(*state, HEADING LOCAL4("eth0"), LOCAL6("eth0") DEFAULT6("lo"), NULL, NULL);
    expect_network(*state, HEADING DEFAULT4("eth0") LOCAL4("eth0"), "", eth0, eth0);
    expect_network(*state, HEADING DEFAULT4("eth0") DEFAULT4("wlan0"), "", NULL, NULL);
    expect_network(*state, HEADING DEFAULT4("wlan0") DEFAULT4("eth0"), "", NULL, NULL);
    expect_network(*state, HEADING DEFAULT4("tun0") DEFAULT4("eth0"), "", eth0, eth0);
    expect_network(*state, HEADING DEFAULT4("eth0") DEFAULT4("wlan0"), DEFAULT6("eth0"), eth0_6, eth0_6);
    expect_network(*state, HEADING DEFAULT4("wlan0"), DEFAULT6("wlan0"), NULL, NULL);
    expect_network(*state, HEADING DEFAULT4("eth1") DEFAULT4("eth0"), "", NULL, eth0);
    expect_network(*state, HEADING DEFAULT4("gone0") "rubbish\n\n", "0 0\n", NULL, NULL);
}

static void test_f35_a_route_through_a_bridge_a_bond_or_a_vlan(void **state)
{
    static const char br0[] = "the host's only IPv4 default route goes through br0";

    add_interface(*state, "eth0", "devices/pci0000:00/0000:00:1c.0/0000:01:00.0/net");
    add_interface(*state, "eth1", "devices/pci0000:00/0000:00:1c.0/0000:01:00.1/net");
    add_interface(*state, "br0", "devices/virtual/net");
    add_interface(*state, "vlan5", "devices/virtual/net");
    add_interface(*state, "tap0", "devices/virtual/net");
    add_lower(*state, "br0", "vlan5");
    add_lower(*state, "br0", "tap0");
    add_lower(*state, "br0", "br0"); // in circles
    add_lower(*state, "vlan5", "eth0");
    expect_network(*state, HEADING DEFAULT4("br0"), "", br0, br0);
    add_lower(*state, "vlan5", "eth1"); // a second way: the bond stays up
    expect_network(*state, HEADING DEFAULT4("br0"), "", NULL, br0);
}

static void test_routes_are_read_again_only_when_asked_to(void **state)
{
    const char *root = *state;
    CLEANUP(cleanup_free) char *sys = string_printf("%s/sys", root);
    CLEANUP(cleanup_free) char *file = string_printf("%s/route", root);
    CLEANUP(cleanup_free) char *card = string_printf("%s/" CARD, root);
    const struct network_paths paths = {sys, file, "/nonexistent"};
    CLEANUP(cleanup_network) struct network *network = network_new(&paths);
    CLEANUP(cleanup_free) char *use = NULL;

    add_interface(root, "eth0", "devices/pci0000:00/0000:00:1c.0/0000:01:00.0/net");
    tree_write(root, "route", HEADING);
    assert_null(network_of(network, &card, 1));
    tree_write(root, "route", HEADING DEFAULT4("eth0"));
    assert_null(network_of(network, &card, 1));
    network_invalidate(network);
    use = network_of(network, &card, 1);
    assert_non_null(use);
}

static void add_attribute(const char *root, const char *interface, const char *name, const char *value)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/sys/class/net/%s/%s", root, interface, name);

    tree_write(root, path + strlen(root) + 1, value);
}

static void test_f35_what_a_tunnel_may_go_through(void **state)
{
    static const char ppp0[] =
        "the host's only IPv4 default route is the tunnel ppp0, which may go through eth0, as that is up";
    static const char wg0[] =
        "the host's only IPv6 default route is the tunnel wg0, which may go through eth0, as that is up";

    add_interface(*state, "lo", "devices/virtual/net");
    add_interface(*state, "eth0", "devices/pci0000:00/0000:00:1c.0/0000:01:00.0/net");
    add_interface(*state, "eth1", "devices/pci0000:00/0000:00:1c.0/0000:01:00.1/net");
    add_interface(*state, "wlan0", "devices/pci0000:00/0000:00:14.3/net");
    add_interface(*state, "ppp0", "devices/virtual/net");
    add_interface(*state, "wg0", "devices/virtual/net");
    add_interface(*state, "br0", "devices/virtual/net");
    add_attribute(*state, "lo", "type", "772\n");
    add_attribute(*state, "lo", "operstate", "unknown\n");
    add_attribute(*state, "ppp0", "type", "512\n");
    add_attribute(*state, "wg0", "type", "65534\n");
    add_attribute(*state, "br0", "type", "1\n");
    add_attribute(*state, "eth0", "operstate", "down\n");
    add_attribute(*state, "eth1", "operstate", "down\n");
    add_attribute(*state, "wlan0", "operstate", "up\n");
    expect_network(*state, HEADING DEFAULT4("ppp0"), DEFAULT6("wg0"), NULL, NULL);
    add_attribute(*state, "eth0", "operstate", "up\n");
    expect_network(*state, HEADING DEFAULT4("ppp0"), "", ppp0, ppp0);
    expect_network(*state, HEADING DEFAULT4("br0"), DEFAULT6("wg0") DEFAULT6("lo"), wg0, wg0);
    // It goes through what is left.
    expect_network(*state, HEADING DEFAULT4("ppp0") DEFAULT4("wlan0"), "", NULL, NULL);
    // A bridge to a VM that is the host's way out, and what is unreachable.
    expect_network(*state, HEADING DEFAULT4("br0"), DEFAULT6("lo"), NULL, NULL);
    add_attribute(*state, "eth0", "operstate", "unknown\n");
    expect_network(*state, HEADING DEFAULT4("ppp0"), "", ppp0, ppp0);
}

static void test_f35_routes_that_cannot_be_read(void **state)
{
    const char *root = *state;
    CLEANUP(cleanup_free) char *sys = string_printf("%s/sys", root);
    CLEANUP(cleanup_free) char *file = string_printf("%s/route", root);
    CLEANUP(cleanup_free) char *not_a_file = string_printf("%s/sys", root);
    CLEANUP(cleanup_free) char *card = string_printf("%s/" CARD, root);
    CLEANUP(cleanup_free) char *sound = string_printf("%s/" SOUND, root);
    const struct network_paths paths[] = {
        {sys, "/nonexistent", "/nonexistent"}, {sys, not_a_file, "/nonexistent"}, {sys, file, not_a_file}};

    add_interface(root, "eth0", "devices/pci0000:00/0000:00:1c.0/0000:01:00.0/net");
    tree_write(root, "route", HEADING);
    for (size_t i = 0; i < 3; i++) {
        CLEANUP(cleanup_network) struct network *network = network_new(&paths[i]);
        CLEANUP(cleanup_free) char *use = network_of(network, &card, 1);
        assert_non_null(use);
        assert_non_null(strstr(use, "cannot be told: "));
        assert_null(network_of(network, &sound, 1)); // it has no interface
    }
}

// With room for so many descriptors more, a way through the device is found, or it is said that this is not known.
static void expect_network_or_unknown(const char *root, struct network *network, int free, const char *reason)
{
    CLEANUP(cleanup_free) char *card = string_printf("%s/" CARD, root);
    CLEANUP(cleanup_free) char *use = NULL;
    CLEANUP(cleanup_free) char *later = NULL;

    network_invalidate(network);
    tree_limit_descriptors(free);
    use = network_of(network, &card, 1);
    tree_limit_descriptors(-1);
    assert_non_null(use);
    if (strstr(use, "cannot be told: Too many open files") != NULL)
        assert_int_equal(network_error(network), -EMFILE);
    else
        assert_string_equal(use, reason);
    later = network_of(network, &card, 1);
    assert_non_null(later);
    assert_string_equal(later, reason);
    assert_int_equal(network_error(network), 0);
}

static void test_f35_want_of_descriptors_is_no_news_of_the_network(void **state)
{
    const char *root = *state;
    CLEANUP(cleanup_free) char *sys = string_printf("%s/sys", root);
    CLEANUP(cleanup_free) char *file = string_printf("%s/route", root);
    const struct network_paths paths = {sys, file, "/nonexistent"};
    CLEANUP(cleanup_network) struct network *network = network_new(&paths);

    add_interface(root, "eth0", "devices/pci0000:00/0000:00:1c.0/0000:01:00.0/net");
    add_attribute(root, "eth0", "operstate", "up\n");
    add_interface(root, "br0", "devices/virtual/net");
    add_attribute(root, "br0", "type", "1\n");
    tree_directory(root, "sys/devices/virtual/net/br0/lower_bond0");
    add_interface(root, "bond0", "devices/virtual/net");
    tree_directory(root, "sys/devices/virtual/net/bond0/lower_bond1");
    add_interface(root, "bond1", "devices/virtual/net");
    tree_directory(root, "sys/devices/virtual/net/bond1/lower_eth0");
    add_interface(root, "ppp0", "devices/virtual/net");
    add_attribute(root, "ppp0", "type", "512\n");
    tree_write(root, "route", HEADING DEFAULT4("br0"));
    for (int free = 0; free < 6; free++)
        expect_network_or_unknown(root, network, free, "the host's only IPv4 default route goes through br0");
    tree_write(root, "route", HEADING DEFAULT4("ppp0"));
    for (int free = 0; free < 6; free++)
        expect_network_or_unknown(root, network, free,
                                  "the host's only IPv4 default route is the tunnel ppp0, which may go through eth0, "
                                  "as that is up");
}

static void handle_change(void *user)
{
    ++*(unsigned *)user;
}

static void set_lo(bool up)
{
    CLEANUP(cleanup_close) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = up ? IFF_UP : 0};

    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
}

// Told by the kernel as a change of the interface, though not of its flags.
static void set_lo_size(int size)
{
    CLEANUP(cleanup_close) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_mtu = size};

    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, SIOCSIFMTU, &request), 0);
}

// In a network of its own, which begins with a lo that is down. Last, as this process stays there.
static void test_an_interface_that_comes_up_is_news(void **state)
{
    struct network_watch *watch = NULL;
    sd_event *loop = NULL;
    unsigned changes = 0;

    (void)state;
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
        printf("test_an_interface_that_comes_up_is_news: skip: no network of its own: %s\n", strerror(errno));
        skip();
    }
    assert_int_equal(sd_event_new(&loop), 0);
    assert_int_equal(network_watch_new(&watch, loop, handle_change, &changes), 0);
    assert_int_equal(sd_event_run(loop, 0), 0);
    set_lo(true);
    while (changes == 0)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    while (sd_event_run(loop, 0) > 0)
        ;
    changes = 0;
    set_lo_size(1400);
    assert_true(sd_event_run(loop, 0) > 0);
    assert_int_equal(changes, 0);
    set_lo(false);
    while (changes == 0)
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    while (sd_event_run(loop, 0) > 0)
        ;
    changes = 0;
    while (changes == 0) // once more when the routes through it have gone, of which nothing tells
        assert_true(sd_event_run(loop, UINT64_MAX) >= 0);
    network_watch_free(watch);
    network_watch_free(NULL);
    sd_event_unref(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_function_without_an_iommu, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_its_board_and_its_driver_of_now, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_udev_says_of_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_the_others_of_its_group, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_group_that_cannot_all_be_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_which_bridges_lead_to_a_bus, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f28_each_plug_is_another_instance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f10_attributes_that_are_missing_or_make_no_sense, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_a_disk_with_several_ways_to_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_the_only_default_route, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_a_route_through_a_bridge_a_bond_or_a_vlan, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_routes_are_read_again_only_when_asked_to, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_what_a_tunnel_may_go_through, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_routes_that_cannot_be_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_want_of_descriptors_is_no_news_of_the_network, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_interface_that_comes_up_is_news, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
