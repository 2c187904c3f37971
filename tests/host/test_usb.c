// A USB device read from sysfs: whole, with attributes missing, and vanishing while it is read.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "host/idpath.h"
#include "host/sysfs.h"
#include "host/usb.h"
#include "tree.h"
#include "util/text.h"

#define PLACE "devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2.3"

static const char *const optional[] = {"bDeviceClass", "bDeviceSubClass", "bDeviceProtocol", "speed",
                                       "serial",       "removable",       "manufacturer",    "product"};
static const char *const needed[] = {"busnum", "devnum", "idVendor", "idProduct", "dev", "descriptors"};

struct place {
    char *root;
    struct source *source;
};

static int set_up(void **state)
{
    struct place *place = memory_new(1, sizeof(*place));
    CLEANUP(cleanup_free) char *syspath = NULL;

    place->root = tree_new();
    tree_usb(place->root, PLACE, "1\n", "4\n");
    syspath = string_printf("%s/%s", place->root, PLACE);
    place->source = source_new(DEVICE_USB, syspath, true);
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

static void test_all_attributes(void **state)
{
    struct place *place = *state;
    struct reading reading;
    struct device *device;

    place->source->vendor_database = string_copy("Adomax");
    assert_int_equal(usb_read(place->source, &reading), 0);
    device = reading.device;
    assert_string_equal(device->key, "usb:1-2.3");
    assert_string_equal(device->port_path, "1-2.3");
    assert_int_equal(device->root_port, 2);
    assert_string_equal(device->id_path, "pci-0000:00:14.0-usb-0:2.3");
    assert_string_equal(device->node, "/dev/bus/usb/001/004");
    assert_int_equal(device->number, makedev(189, 3));
    assert_int_equal(device->vendor_id, 0x0627);
    assert_string_equal(device->vendor_database, "Adomax");
    assert_null(device->product_database);
    assert_string_equal(device->product_reported, "QEMU USB Mouse");
    assert_string_equal(device->serial, "42");
    assert_int_equal(device->speed, SPEED_HIGH);
    assert_int_equal(device->removable, REMOVABLE_REMOVABLE);
    assert_int_equal(device->interface_count, 1);
    assert_int_equal(reading.modalias_count, 0);
    assert_int_equal(device->instance, usb_instance(place->source->syspath));
    assert_int_not_equal(device->instance, 0);
    reading_clear(&reading);
}

static void test_the_instance_is_kept_and_not_reused(void **state)
{
    struct place *place = *state;
    uint64_t instance = usb_instance(place->source->syspath);

    assert_int_equal(usb_instance(place->source->syspath), instance);
    tree_write(place->root, PLACE "/devnum", "5\n");
    assert_int_not_equal(usb_instance(place->source->syspath), instance);
    tree_remove(place->root, PLACE);
    assert_int_equal(usb_instance(place->source->syspath), 0);
}

static void test_f10_optional_attributes_may_be_missing(void **state)
{
    struct place *place = *state;

    for (size_t i = 0; i < sizeof(optional) / sizeof(optional[0]); i++) {
        CLEANUP(cleanup_free) char *file = string_printf("%s/%s", PLACE, optional[i]);
        struct reading reading;
        tree_remove(place->root, file);
        assert_int_equal(usb_read(place->source, &reading), 0);
        reading_clear(&reading);
    }
}

static void test_f10_without_an_identity_it_is_not_reported(void **state)
{
    struct place *place = *state;

    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        CLEANUP(cleanup_free) char *file = string_printf("%s/%s", PLACE, needed[i]);
        struct reading reading;
        tree_remove(place->root, file);
        assert_true(usb_read(place->source, &reading) < 0);
        assert_null(reading.device);
        tree_usb(place->root, PLACE, "1\n", "4\n");
        assert_int_equal(usb_read(place->source, &reading), 0);
        reading_clear(&reading);
    }
}

// A process that takes the files away, one after the other, and puts them back, while this one
// reads; the order differs from round to round.
static void take_away_and_restore(const char *root)
{
    for (unsigned round = 0; round < 60; round++)
        for (size_t i = 0; i < 6; i++) {
            CLEANUP(cleanup_free) char *file = string_printf("%s/%s", PLACE, needed[(i * 5 + round) % 6]);
            CLEANUP(cleanup_free) char *other = string_printf("%s/%s", PLACE, optional[(i + round) % 8]);
            tree_remove(root, file);
            tree_remove(root, other);
            tree_usb(root, PLACE, "1\n", "4\n");
        }
}

static void test_f10_files_vanish_while_it_is_read(void **state)
{
    struct place *place = *state;
    int ends[2];
    pid_t child;
    int status;
    char byte;

    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        take_away_and_restore(place->root);
        _exit(0);
    }
    close(ends[1]);
    // Until the child has gone: whatever is found is whole, or nothing.
    while (read(ends[0], &byte, 1) < 0) {
        struct reading reading;
        if (usb_read(place->source, &reading) < 0) {
            assert_null(reading.device);
            continue;
        }
        assert_int_equal(reading.device->vendor_id, 0x0627);
        assert_int_equal(reading.device->interface_count, 1);
        reading_clear(&reading);
    }
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_hostile_strings_are_bounded_and_kept_raw(void **state)
{
    struct place *place = *state;
    char *name = memory_new(10000, 1);
    struct reading reading;

    memset(name, 'A', 9999);
    memcpy(name, "\033[31m\n\xff", 7);
    tree_write(place->root, PLACE "/product", name);
    tree_write(place->root, PLACE "/serial", "\n");
    tree_write(place->root, PLACE "/speed", "999999999999999999999999\n");
    tree_write(place->root, PLACE "/bDeviceClass", "ff\n");
    assert_int_equal(usb_read(place->source, &reading), 0);
    assert_int_equal(strlen(reading.device->product_reported), SYSFS_STRING_MAX);
    assert_memory_equal(reading.device->product_reported, name, 100);
    assert_null(reading.device->serial);
    assert_int_equal(reading.device->speed, SPEED_UNKNOWN);
    assert_int_equal(reading.device->class, 255);
    reading_clear(&reading);
    free(name);
}

static void test_numbers_that_are_none(void **state)
{
    struct place *place = *state;
    const char *const bad[][2] = {
        {"busnum", "x"}, {"devnum", "99999999999"}, {"idVendor", "10000"}, {"idProduct", "-1"}, {"dev", "189"},
        {"dev", "a:b"},  {"bDeviceClass", "100"}};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CLEANUP(cleanup_free) char *file = string_printf("%s/%s", PLACE, bad[i][0]);
        struct reading reading;
        tree_write(place->root, file, bad[i][1]);
        assert_true(usb_read(place->source, &reading) < 0);
        tree_usb(place->root, PLACE, "1\n", "4\n");
    }
}

static void test_vendor_classes_ask_for_drivers(void **state)
{
    struct place *place = *state;
    unsigned char bytes[64];
    struct reading reading;

    memcpy(bytes, tree_mouse, tree_mouse_length);
    bytes[18 + 9 + 5] = 255;
    tree_write_bytes(place->root, PLACE "/descriptors", bytes, tree_mouse_length);
    assert_int_equal(usb_read(place->source, &reading), 0);
    assert_int_equal(reading.modalias_count, 1);
    assert_string_equal(reading.modaliases[0], "usb:v0627p0001d0000dc00dsc00dp00icFFisc01ip02in00");
    reading_clear(&reading);
}

static void test_id_paths(void **state)
{
    static const char *const cases[][2] = {
        {"/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2", "pci-0000:00:14.0-usb-0:2"},
        {"/sys/devices/pci0000:00/0000:00:1c.0/0000:03:00.0/usb12/12-2/12-2.1", "pci-0000:03:00.0-usb-0:2.1"},
        {"/sys/devices/platform/dummy_hcd.0/usb3/3-1", "platform-dummy_hcd.0-usb-0:1"},
        {"/sys/devices/platform/scb/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0/usb1/1-1/1-1.4",
         "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.4"},
        {"/sys/devices/pci0000:00/0000:00:14.0/usb1", NULL},
        {"usb1/1-2", NULL},
        {"/usb/1-2", NULL},
        {"", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CLEANUP(cleanup_free) char *made = idpath_of_usb(cases[i][0]);
        if (cases[i][1] == NULL)
            assert_null(made);
        else
            assert_string_equal(made, cases[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_attributes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_instance_is_kept_and_not_reused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f10_optional_attributes_may_be_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f10_without_an_identity_it_is_not_reported, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f10_files_vanish_while_it_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hostile_strings_are_bounded_and_kept_raw, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_numbers_that_are_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_vendor_classes_ask_for_drivers, set_up, tear_down),
        cmocka_unit_test(test_id_paths),
    };

    return cmocka_run_group_tests_name("usb", tests, NULL, NULL);
}
