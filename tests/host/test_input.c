// An input device read from sysfs: which ones are devices of their own, what they are, and vanishing.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "host/input.h"
#include "tree.h"
#include "util/text.h"

#define PLACE "devices/platform/i8042/serio0/input/input5"

struct place {
    char *root;
    struct source *source;
};

static void write_attribute(const struct place *place, const char *name, const char *text)
{
    CLEANUP(cleanup_free) char *path = string_printf(PLACE "/%s", name);

    tree_write(place->root, path, text);
}

static int set_up(void **state)
{
    struct place *place = memory_new(1, sizeof(*place));
    CLEANUP(cleanup_free) char *syspath = NULL;

    place->root = tree_new();
    write_attribute(place, "name", "AT Translated Set 2 keyboard\n");
    write_attribute(place, "id/bustype", "0011\n");
    write_attribute(place, "id/vendor", "0001\n");
    write_attribute(place, "id/product", "ab41\n");
    write_attribute(place, "event3/dev", "13:67\n");
    syspath = string_printf("%s/%s", place->root, PLACE);
    place->source = source_new(DEVICE_INPUT, syspath, true);
    place->source->event = string_copy("event3");
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;

    source_free(place->source);
    tree_free(place->root);
    free(place);
    return 0;
}

static void test_what_udev_knows_is_taken_over(void **state)
{
    struct place *place = *state;
    struct reading reading;

    place->source->knows = true;
    place->source->path_tag = string_copy("platform-i8042-serio-0");
    source_add_property(place->source, "ID_INPUT_KEYBOARD", "1");
    source_add_property(place->source, "ID_INPUT", "1");
    source_sort_properties(place->source);
    assert_int_equal(input_read(place->source, &reading), 0);
    const struct device *device = reading.device;
    assert_int_equal(device->kind, DEVICE_INPUT);
    assert_string_equal(device->key, "input:input5");
    assert_string_equal(device->node, "/dev/input/event3");
    assert_true(device->number == makedev(13, 67));
    assert_string_equal(device->product_reported, "AT Translated Set 2 keyboard");
    assert_int_equal(device->vendor_id, 1);
    assert_int_equal(device->product_id, 0xab41);
    assert_string_equal(device->path_tag, "platform-i8042-serio-0");
    assert_int_equal(device->property_count, 2);
    assert_string_equal(device->properties[0], "ID_INPUT=1");
    assert_string_equal(device->properties[1], "ID_INPUT_KEYBOARD=1");
    assert_true(device->instance != 0 && device->instance == input_instance(place->source->syspath));
    reading_clear(&reading);
}

static void test_properties_are_bounded(void **state)
{
    struct place *place = *state;
    char long_value[SOURCE_PROPERTY_LENGTH_MAX + 1];

    memset(long_value, 'x', sizeof(long_value) - 1);
    long_value[sizeof(long_value) - 1] = '\0';
    source_add_property(place->source, "LONG", long_value);
    assert_int_equal(place->source->property_count, 0);
    long_value[SOURCE_PROPERTY_LENGTH_MAX - 5] = '\0';
    for (int i = 0; i < SOURCE_PROPERTIES_MAX + 5; i++)
        source_add_property(place->source, "LONG", long_value);
    assert_int_equal(place->source->property_count, SOURCE_PROPERTIES_MAX);
}

// What a device without udev is, by its capabilities, as one word: the last part of the property.
static void expect_type(const struct place *place, const char *keys, const char *relative, const char *absolute,
                        const char *properties, const char *type)
{
    struct reading reading;
    size_t types = 0;
    bool found = false;

    write_attribute(place, "capabilities/key", keys);
    write_attribute(place, "capabilities/rel", relative);
    write_attribute(place, "capabilities/abs", absolute);
    write_attribute(place, "properties", properties);
    assert_int_equal(input_read(place->source, &reading), 0);
    for (size_t i = 0; i < reading.device->property_count; i++) {
        CLEANUP(cleanup_free) char *wanted = string_printf("ID_INPUT_%s=1", type);
        const char *property = reading.device->properties[i];
        types += strncmp(property, "ID_INPUT_", 9) == 0;
        found = found || strcmp(property, wanted) == 0;
    }
    reading_clear(&reading);
    assert_int_equal(found, *type != '\0');
    assert_int_equal(types, found);
}

static void test_f17_without_udev_its_capabilities_tell_what_it_is(void **state)
{
    struct place *place = *state;

    if (sizeof(long) != 8)
        skip(); // the words below are those of such a kernel
    // Lines of real devices.
    expect_type(place, "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n", "0\n", "0\n", "0\n",
                "KEYBOARD");
    expect_type(place, "10000000000000 0\n", "0\n", "0\n", "0\n", ""); // a power button
    expect_type(place, "70000 0 0 0 0\n", "3\n", "0\n", "0\n", "MOUSE");
    expect_type(place, "e520 10000 0 0 0 0\n", "0\n", "2608000 3\n", "5\n", "TOUCHPAD");
    expect_type(place, "400 0 0 0 0 0\n", "0\n", "260800000000003\n", "2\n", "TOUCHSCREEN");
    expect_type(place, "1c03 0 0 0 0 0\n", "0\n", "1000003\n", "0\n", "TABLET");
    expect_type(place, "70000 0 0 0 0\n", "0\n", "3\n", "0\n", "MOUSE"); // a pointer with places
    expect_type(place, "\n", "\n", "\n", "\n", "");
    expect_type(place, "evil 1\n", "zz\n", "-1\n", " \n", "");
    expect_type(place, "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n", "3\n", "0\n", "0\n", "");
}

static void test_another_one_in_its_place_is_another_instance(void **state)
{
    struct place *place = *state;
    uint64_t before = input_instance(place->source->syspath);

    // It is moved, not removed: sysfs gives no inode number again, as the file system of this test may.
    CLEANUP(cleanup_free) char *away = string_printf("%s/away", place->root);
    assert_int_equal(rename(place->source->syspath, away), 0);
    assert_int_equal(input_instance(place->source->syspath), 0);
    write_attribute(place, "name", "other\n");
    assert_int_not_equal(input_instance(place->source->syspath), before);
}

static void test_f07_vanishing_is_an_error(void **state)
{
    struct place *place = *state;
    struct reading reading;

    tree_remove(place->root, PLACE "/event3");
    assert_true(input_read(place->source, &reading) < 0);
    assert_null(reading.device);
    tree_remove(place->root, PLACE);
    assert_true(input_read(place->source, &reading) < 0);
    assert_null(reading.device);
}

static void test_only_event_nodes_are_devices(void **state)
{
    (void)state;
    CLEANUP(cleanup_free) char *input = input_of_event("/sys/devices/virtual/input/input5/event3");
    assert_string_equal(input, "/sys/devices/virtual/input/input5");
    static const char *const others[] = {
        "/sys/devices/virtual/input/input5",
        "/sys/devices/virtual/input/input5/mouse0",
        "/sys/devices/virtual/input/input5/event",
        "/sys/devices/virtual/input/input5/event3x",
        "/sys/devices/virtual/input/mice",
        "/sys/devices/virtual/other5/event3",
        "/sys/devices/virtual/input/input5/event-",
        "event3",
        "/event3",
        "",
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        assert_null(input_of_event(others[i]));
}

static void test_f49_usb_and_what_only_speaks_through_it(void **state)
{
    (void)state;
    assert_true(
        input_is_usb("/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/0003:0627:0001.0001/input/input5/event3"));
    assert_true(input_is_usb("/sys/devices/platform/dummy_hcd.0/usb11/11-1/11-1:1.0/input/input7/event9"));
    assert_false(input_is_usb("/sys/devices/pci0000:00/0000:00:14.0/usb1/1-7/1-7:1.0/bluetooth/hci0/hci0:256/"
                              "0005:046D:B016.0007/input/input20/event11"));
    assert_false(input_is_usb("/sys/devices/virtual/misc/uhid/0005:046D:B016.0007/input/input20/event11"));
    assert_false(input_is_usb("/sys/devices/platform/i8042/serio0/input/input5/event3"));
    assert_false(input_is_usb("/sys/devices/usbish/usb/usbx1/input/input5/event3"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_udev_knows_is_taken_over),
        TEST(test_properties_are_bounded),
        TEST(test_f17_without_udev_its_capabilities_tell_what_it_is),
        TEST(test_another_one_in_its_place_is_another_instance),
        TEST(test_f07_vanishing_is_an_error),
        TEST(test_only_event_nodes_are_devices),
        TEST(test_f49_usb_and_what_only_speaks_through_it),
    };

    return cmocka_run_group_tests_name("input", tests, NULL, NULL);
}
