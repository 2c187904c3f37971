// Descriptors as devices send them, and as they should not.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <stdlib.h>
#include <string.h>

#include "host/descriptors.h"
#include "tree.h"

static void test_a_mouse_is_read(void **state)
{
    struct descriptors *read = malloc(sizeof(*read));

    (void)state;
    assert_true(descriptors_parse(tree_mouse, tree_mouse_length, read));
    assert_int_equal(read->vendor_id, 0x0627);
    assert_int_equal(read->product_id, 0x0001);
    assert_int_equal(read->count, 1);
    assert_int_equal(read->interfaces[0].is.class, 3);
    assert_int_equal(read->interfaces[0].is.subclass, 1);
    assert_int_equal(read->interfaces[0].is.protocol, 2);
    assert_true(descriptors_tell_class(read));
    free(read);
}

// Puts interfaces of consecutive subclasses after a device descriptor.
static size_t make(uint8_t *bytes, size_t interfaces, uint8_t class)
{
    size_t length = 18;

    memcpy(bytes, tree_mouse, 18);
    for (size_t i = 0; i < interfaces; i++, length += 9) {
        const uint8_t one[9] = {9, 4, (uint8_t)(i >> 8), 0, 0, class, (uint8_t)i, 7, 0};
        memcpy(bytes + length, one, 9);
    }
    return length;
}

static void test_alternates_and_later_configurations_count(void **state)
{
    const uint8_t more[] = {
        9, 2, 9, 0, 1, 2, 0, 0x80, 50, // a configuration whose length leaves its interfaces out
        9, 4, 1, 0, 0, 8, 6, 0x50, 0,  // storage
        9, 4, 1, 1, 0, 8, 6, 0x62, 0,  // its alternate
        9, 4, 1, 1, 0, 8, 6, 0x62, 0,  // once more the same
    };
    struct descriptors *read = malloc(sizeof(*read));
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    uint8_t bytes[256];

    (void)state;
    memcpy(bytes, tree_mouse, tree_mouse_length);
    memcpy(bytes + tree_mouse_length, more, sizeof(more));
    assert_true(descriptors_parse(bytes, tree_mouse_length + sizeof(more), read));
    assert_int_equal(read->count, 3);
    descriptors_to_device(read, device);
    assert_int_equal(device->interface_count, 3);
    assert_int_equal(device->interfaces[2].protocol, 0x62);
    free(read);
}

static void test_equal_triples_of_two_interfaces_are_one(void **state)
{
    const uint8_t two[] = {9, 4, 0, 0, 0, 255, 0, 0, 0, 9, 4, 1, 0, 0, 255, 0, 0, 0};
    struct descriptors *read = malloc(sizeof(*read));
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    CLEANUP(cleanup_free) char *modalias = NULL;
    uint8_t bytes[64];

    (void)state;
    memcpy(bytes, tree_mouse, 18);
    memcpy(bytes + 18, two, sizeof(two));
    assert_true(descriptors_parse(bytes, 18 + sizeof(two), read));
    assert_int_equal(read->count, 2);
    assert_false(descriptors_tell_class(read));
    descriptors_to_device(read, device);
    assert_int_equal(device->interface_count, 1);
    modalias = descriptors_modalias(read, 1);
    assert_string_equal(modalias, "usb:v0627p0001d0000dc00dsc00dp00icFFisc00ip00in01");
    free(read);
}

static void test_cut_off_at_each_byte(void **state)
{
    struct descriptors *read = malloc(sizeof(*read));

    (void)state;
    for (size_t length = 0; length <= tree_mouse_length; length++) {
        uint8_t *bytes = malloc(length > 0 ? length : 1); // so that a sanitizer sees each byte beyond
        memcpy(bytes, tree_mouse, length);
        assert_int_equal(descriptors_parse(bytes, length, read), length >= 18);
        assert_int_equal(read->count, length >= 36 ? 1 : 0);
        free(bytes);
    }
    free(read);
}

static void test_each_byte_with_each_value(void **state)
{
    struct descriptors *read = malloc(sizeof(*read));
    uint8_t *bytes = malloc(tree_mouse_length);

    (void)state;
    for (size_t at = 0; at < tree_mouse_length; at++)
        for (unsigned value = 0; value < 256; value++) {
            memcpy(bytes, tree_mouse, tree_mouse_length);
            bytes[at] = (uint8_t)value;
            // Only length and type of the device descriptor make it none.
            assert_int_equal(descriptors_parse(bytes, tree_mouse_length, read), at > 1 || value == tree_mouse[at]);
            assert_true(read->count <= 2); // another descriptor may have become one
        }
    free(bytes);
    free(read);
}

static void test_lengths_that_lie_end_the_walk(void **state)
{
    const uint8_t lies[] = {0, 1, 200};
    struct descriptors *read = malloc(sizeof(*read));
    uint8_t bytes[128];

    (void)state;
    for (size_t i = 0; i < sizeof(lies); i++) {
        size_t length = make(bytes, 3, 8);
        bytes[18 + 9] = lies[i];
        assert_true(descriptors_parse(bytes, length, read));
        assert_int_equal(read->count, 1);
    }
    free(read);
}

static void test_a_crowd_of_interfaces_is_refused(void **state)
{
    struct descriptors *read = malloc(sizeof(*read));
    uint8_t *bytes = malloc(18 + 9 * 257);

    (void)state;
    assert_true(descriptors_parse(bytes, make(bytes, 256, 255), read));
    assert_int_equal(read->count, 256);
    assert_false(descriptors_parse(bytes, make(bytes, 257, 255), read));
    free(bytes);
    free(read);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_mouse_is_read),
        cmocka_unit_test(test_alternates_and_later_configurations_count),
        cmocka_unit_test(test_equal_triples_of_two_interfaces_are_one),
        cmocka_unit_test(test_cut_off_at_each_byte),
        cmocka_unit_test(test_each_byte_with_each_value),
        cmocka_unit_test(test_lengths_that_lie_end_the_walk),
        cmocka_unit_test(test_a_crowd_of_interfaces_is_refused),
    };

    return cmocka_run_group_tests_name("descriptors", tests, NULL, NULL);
}
