// Devices as values, their names for people, and the names of objects in VMs.
#include <stdlib.h>
#include <string.h>

#include "core/device.h"
#include "core/operation.h"
#include "unit.h"
#include "util/text.h"

static struct device *mouse(void)
{
    struct device *device = device_new(DEVICE_USB);
    device->key = string_copy("usb:1-3");
    device->instance = 0xabc;
    device->port_path = string_copy("1-3");
    device->product_reported = string_copy("  QEMU USB Mouse ");
    device->vendor_id = 0x627;
    device->product_id = 1;
    device->bus = 1;
    device->address = 4;
    return device;
}

static void check_title(struct device *device, const char *expected)
{
    CLEANUP(cleanup_free) char *title = device_title(device);
    assert_string_equal(title, expected);
}

static void test_title(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *device = mouse();
    check_title(device, "QEMU USB Mouse (0627:0001, 1-3)");
    free(steal_pointer(&device->product_reported));
    check_title(device, "unnamed device (0627:0001, 1-3)");
    device->vendor_database = string_copy("Adomax");
    check_title(device, "Adomax device (0627:0001, 1-3)");
    device->product_database = string_copy("Mouse");
    check_title(device, "Mouse (0627:0001, 1-3)");
}

static void test_hostile_title(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *device = mouse();
    free(device->product_reported);
    device->product_reported = string_copy("Evil\n\033[2Jerror root\xff");
    check_title(device, "Evil\\x0a\\x1b[2Jerror root\\xff (0627:0001, 1-3)");
    free(device->product_reported);
    device->product_reported = memory_new(4097, 1);
    memset(device->product_reported, 'A', 4096);
    CLEANUP(cleanup_free) char *title = device_title(device);
    assert_true(strlen(title) < 200);
}

static void test_equal(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *a = mouse();
    CLEANUP(cleanup_device) struct device *b = mouse();
    assert_true(device_equal(a, b));
    b->host_use = string_copy("/ is mounted from it");
    assert_false(device_equal(a, b));
    free(steal_pointer(&b->host_use));
    b->interfaces = memory_new(1, sizeof *b->interfaces);
    b->interface_count = 1;
    assert_false(device_equal(a, b));
    a->interfaces = memory_new(1, sizeof *a->interfaces);
    a->interface_count = 1;
    assert_true(device_equal(a, b));
    a->interfaces[0].protocol = 2;
    assert_false(device_equal(a, b));
    a->interfaces[0].protocol = 0;
    b->instance++;
    assert_false(device_equal(a, b));
}

// A change that is not seen is one that policy is not asked about.
static void test_each_text_and_number_counts(void **state)
{
    (void)state;
    static const size_t texts[] = {
        offsetof(struct device, syspath),          offsetof(struct device, node),
        offsetof(struct device, vendor_database),  offsetof(struct device, vendor_reported),
        offsetof(struct device, product_database), offsetof(struct device, serial),
        offsetof(struct device, id_path),          offsetof(struct device, path_tag),
    };
    static const size_t numbers[] = {
        offsetof(struct device, number),    offsetof(struct device, vendor_id), offsetof(struct device, product_id),
        offsetof(struct device, bus),       offsetof(struct device, address),   offsetof(struct device, root_port),
        offsetof(struct device, speed),     offsetof(struct device, class),     offsetof(struct device, subclass),
        offsetof(struct device, removable), offsetof(struct device, protocol),  offsetof(struct device, kind),
    };
    CLEANUP(cleanup_device) struct device *a = mouse();
    CLEANUP(cleanup_device) struct device *b = mouse();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char **member = (void *)((char *)b + texts[i]);
        *member = string_copy("another");
        assert_false(device_equal(a, b));
        free(steal_pointer(member));
        assert_true(device_equal(a, b));
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        unsigned char *member = (unsigned char *)b + numbers[i];
        *member ^= 1;
        assert_false(device_equal(a, b));
        *member ^= 1;
        assert_true(device_equal(a, b));
    }
}

static void set_driver(struct device *device, const char *driver)
{
    for (size_t i = 0; i < device->driver_count; i++)
        free(device->drivers[i]);
    device->drivers = memory_resize(device->drivers, 1, sizeof *device->drivers);
    device->drivers[0] = string_copy(driver);
    device->driver_count = 1;
}

static void test_each_element_of_a_list_counts(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *a = mouse();
    CLEANUP(cleanup_device) struct device *b = mouse();
    set_driver(a, "usbhid.ko");
    assert_false(device_equal(a, b));
    set_driver(b, "usbmouse.ko");
    assert_false(device_equal(a, b));
    set_driver(b, "usbhid.ko");
    assert_true(device_equal(a, b));
    a->interfaces = memory_new(1, sizeof *a->interfaces);
    b->interfaces = memory_new(1, sizeof *b->interfaces);
    a->interface_count = b->interface_count = 1;
    b->interfaces[0].class = 3;
    assert_false(device_equal(a, b));
    a->interfaces[0].class = 3;
    a->interfaces[0].subclass = 1;
    assert_false(device_equal(a, b));
}

static struct device *function(void)
{
    struct device *device = device_new(DEVICE_PCI);
    device->key = string_copy("pci:0000:01:00.0");
    device->node = string_copy("/dev/vfio/12");
    device->vendor_id = 0x8086;
    device->product_id = 0x10d3;
    device->product_database = string_copy("82574L");
    return device;
}

// What holds of a function hangs on its IOMMU group; which driver has it just now is no news.
static void test_equal_functions(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *a = function();
    CLEANUP(cleanup_device) struct device *b = function();
    b->driver = string_copy("vfio-pci");
    assert_true(device_equal(a, b));
    b->iommu_group = 3;
    assert_false(device_equal(a, b));
    a->iommu_group = 3;
    b->subsystem_id = 1;
    assert_false(device_equal(a, b));
    a->subsystem_id = b->subsystem_vendor_id = 1;
    assert_false(device_equal(a, b));
    a->subsystem_vendor_id = 1;
    assert_true(device_equal(a, b));
    b->header = HEADER_BUS_BRIDGE;
    assert_false(device_equal(a, b));
    a->header = HEADER_BUS_BRIDGE;
    assert_true(device_equal(a, b));
    a->header = b->header = HEADER_UNKNOWN;
    a->peers = memory_new(1, sizeof(struct device *));
    b->peers = memory_new(1, sizeof(struct device *));
    a->peers[a->peer_count++] = function();
    assert_false(device_equal(a, b));
    b->peers[b->peer_count++] = function();
    assert_true(device_equal(a, b));
    b->peers[0]->host_use = string_copy("/ is mounted from it");
    assert_false(device_equal(a, b));
    check_title(a, "82574L (8086:10d3, 0000:01:00.0)");
    assert_false(device_is_bridge(a));
}

// The kernel goes by the header; where that is not known, the class tells.
static void test_bridges(void **state)
{
    static const struct {
        uint8_t class, subclass;
        enum pci_header header;
        bool bridge, bus_bridge;
    } cases[] = {
        {2, 4, HEADER_UNKNOWN, false, false},   {6, 0, HEADER_UNKNOWN, true, false},
        {6, 1, HEADER_UNKNOWN, true, false},    {6, 4, HEADER_UNKNOWN, true, true},
        {6, 7, HEADER_UNKNOWN, true, true},     {6, 9, HEADER_UNKNOWN, true, true},
        {6, 0x80, HEADER_UNKNOWN, true, false}, {6, 0x80, HEADER_BUS_BRIDGE, true, true},
        {6, 7, HEADER_ORDINARY, true, false},   {2, 0, HEADER_BUS_BRIDGE, true, true},
    };
    (void)state;
    CLEANUP(cleanup_device) struct device *device = function();
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        device->class = cases[i].class;
        device->subclass = cases[i].subclass;
        device->header = cases[i].header;
        assert_int_equal(device_is_bridge(device), cases[i].bridge);
        assert_int_equal(device_is_bus_bridge(device), cases[i].bus_bridge);
    }
    device->kind = DEVICE_USB;
    assert_false(device_is_bridge(device) || device_is_bus_bridge(device));
}

static void test_pci_addresses(void **state)
{
    static const char *const cases[][2] = {
        {"00:14.3", "0000:00:14.3"},
        {"0000:00:1F.7", "0000:00:1f.7"},
        {"1:2:3.4", "0001:02:03.4"},
        {"10000:e1:00.0", "10000:e1:00.0"},
        {"FFFFFFFF:00:1f.7", "ffffffff:00:1f.7"},
        {"00010000:e1:00.0", "10000:e1:00.0"},
        {"0:0.8", NULL},
        {"0000:00:20.0", NULL},
        {"", NULL},
        {"0000:00:14", NULL},
        {"0000:00:14.3 ", NULL},
        {" 00:14.3", NULL},
        {"-1:00:14.3", NULL},
        {"0x1:00:14.3", NULL},
        {"100000000:00:14.3", NULL},
        {"0000:00:14.3/..", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        CLEANUP(cleanup_free) char *address = device_parse_pci_address(cases[i][0]);
        assert_true(string_equal(address, cases[i][1]));
    }
}

static void test_hubs(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *device = mouse();
    assert_false(device_is_hub(device));
    device->class = 9;
    assert_true(device_is_hub(device));
    device->class = 0;
    device->interfaces = memory_new(1, sizeof *device->interfaces);
    device->interface_count = 1;
    device->interfaces[0].class = 9;
    assert_true(device_is_hub(device));
    device->kind = DEVICE_INPUT;
    assert_false(device_is_hub(device));
}

static void test_only_hubs(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    device->class = 9;
    assert_false(device_is_only_hub(device)); // it says nothing of what it has
    device->interfaces = memory_new(2, sizeof *device->interfaces);
    device->interface_count = 1;
    device->interfaces[0].class = 9;
    assert_true(device_is_only_hub(device));
    device->class = 0;
    assert_false(device_is_only_hub(device));
    device->class = 9;
    device->interface_count = 2;
    device->interfaces[1].class = 3;
    assert_false(device_is_only_hub(device));
    assert_true(device_is_hub(device));
    device->interfaces[1].class = 9;
    assert_true(device_is_only_hub(device));
    device->kind = DEVICE_INPUT;
    assert_false(device_is_only_hub(device));
}

// Bus 1 address 12 and bus 11 address 2 must not get one name, nor two attaches of one device.
static void test_f02_object_names_are_unique(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *a = mouse();
    CLEANUP(cleanup_device) struct device *b = mouse();
    a->bus = 1, a->address = 12;
    b->bus = 11, b->address = 2;
    char x[OBJECT_NAME_MAX], y[OBJECT_NAME_MAX];
    object_name(x, a, 1);
    object_name(y, b, 1);
    assert_string_equal(x, "vhotplug-usb-1-12-abc-1");
    assert_string_not_equal(x, y);
    object_name(y, a, 2);
    assert_string_not_equal(x, y);
}

static void test_object_names_are_read_back(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *device = mouse();
    device->instance = UINT64_MAX;
    char name[OBJECT_NAME_MAX];
    uint64_t instance = 0;
    const enum device_kind kinds[] = {DEVICE_USB, DEVICE_INPUT, DEVICE_PCI};
    for (size_t i = 0; i < 3; i++) {
        device->kind = kinds[i];
        object_name(name, device, UINT64_MAX);
        assert_true(object_parse(name, &instance));
        assert_true(instance == UINT64_MAX);
    }
}

static void test_f40_foreign_and_malformed_object_names(void **state)
{
    (void)state;
    uint64_t instance = 1;
    const char *foreign[] = {"", "usb112", "vhotplug", "vhotplug_usb-1-4-a-1", "xvhotplug-usb-1-4-a-1"};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        assert_false(object_parse(foreign[i], &instance));
    const char *malformed[] = {"vhotplug-",
                               "vhotplug-usb",
                               "vhotplug-usb-1-4-a",
                               "vhotplug-usb-1-4-a-1-2",
                               "vhotplug-usb-1-4-xyz-1",
                               "vhotplug-disk-1-4-a-1",
                               "vhotplug-usb-1-4-11111111111111111-1",
                               "vhotplug-usb-x-4-a-1"};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        assert_true(object_parse(malformed[i], &instance));
        assert_int_equal(instance, 0);
    }
    char longer[OBJECT_NAME_MAX + 20] = "vhotplug-usb-1-4-a-";
    memset(longer + strlen(longer), '1', OBJECT_NAME_MAX);
    assert_true(object_parse(longer, &instance));
    assert_int_equal(instance, 0);
}

static void test_operations_hold_their_device(void **state)
{
    (void)state;
    struct operation first = {.serial = 1, .kind = OPERATION_ATTACH, .device = mouse()}, second;
    operation_copy(&second, &first);
    operation_clear(&first);
    assert_int_equal(second.device->instance, 0xabc);
    operation_clear(&second);
    struct result result = {.text = string_copy("x"), .attachments = memory_new(1, sizeof(struct attachment))};
    result_clear(&result);
    assert_null(result.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_title),
        cmocka_unit_test(test_hostile_title),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_each_text_and_number_counts),
        cmocka_unit_test(test_each_element_of_a_list_counts),
        cmocka_unit_test(test_equal_functions),
        cmocka_unit_test(test_bridges),
        cmocka_unit_test(test_pci_addresses),
        cmocka_unit_test(test_hubs),
        cmocka_unit_test(test_only_hubs),
        cmocka_unit_test(test_f02_object_names_are_unique),
        cmocka_unit_test(test_object_names_are_read_back),
        cmocka_unit_test(test_f40_foreign_and_malformed_object_names),
        cmocka_unit_test(test_operations_hold_their_device),
    };
    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
