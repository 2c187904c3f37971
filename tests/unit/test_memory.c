// What must outlive a kill: printed, parsed, and refused when it is damaged.
#include <string.h>

#include "core/memory.h"
#include "unit.h"
#include "util/text.h"

static void test_f05_what_is_printed_is_parsed(void **state)
{
    (void)state;
    struct memory_device devices[] = {
        {(char *)"usb:1-2", UINT64_MAX, true, (char *)"vm \"1\"\\\né", 7, (char *)"3", 0x46d, 0xffff},
        {(char *)"usb:1-3", 1, false, NULL, 0, NULL, 0, 0}};
    struct memory memory = {devices, 2}, parsed;
    CLEANUP(cleanup_free) char *text = memory_print(&memory);
    assert_string_equal(text, "{\"version\":1,\"devices\":["
                              "{\"key\":\"usb:1-2\",\"instance\":18446744073709551615,\"managed\":true,"
                              "\"vm\":\"vm \\\"1\\\"\\\\\\né\",\"vmInstance\":7,\"vendorId\":1133,\"productId\":65535,"
                              "\"object\":\"3\"},"
                              "{\"key\":\"usb:1-3\",\"instance\":1,\"managed\":false}]}");
    assert_null(memory_parse(text, strlen(text), &parsed));
    assert_int_equal(parsed.count, 2);
    assert_string_equal(parsed.devices[0].key, "usb:1-2");
    assert_true(parsed.devices[0].instance == UINT64_MAX && parsed.devices[0].managed);
    assert_string_equal(parsed.devices[0].vm, devices[0].vm);
    assert_true(parsed.devices[0].vm_instance == 7);
    assert_string_equal(parsed.devices[0].object, "3");
    assert_true(parsed.devices[0].vendor_id == 0x46d && parsed.devices[0].product_id == 0xffff);
    assert_null(parsed.devices[1].vm);
    memory_clear(&parsed);
    assert_int_equal(parsed.count, 0);
}

static void test_an_empty_memory(void **state)
{
    (void)state;
    struct memory memory = {0};
    CLEANUP(cleanup_free) char *text = memory_print(&memory);
    assert_null(memory_parse(text, strlen(text), &memory));
    assert_int_equal(memory.count, 0);
}

#define DEVICES(text) "{\"version\":1,\"devices\":[" text "]}"
#define GOOD "{\"key\":\"k\",\"instance\":1,\"managed\":true}"

static void test_damaged_memories_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", NULL},
        {"[]", "not a memory of a version that is known"},
        {"{\"version\":2,\"devices\":[]}", "not a memory of a version that is known"},
        {"{\"version\":1}", "no list of devices"},
        {"{\"version\":1,\"devices\":{}}", "no list of devices"},
        {DEVICES("7"), "devices[0]: no valid key"},
        {DEVICES("{\"key\":\"\"}"), "devices[0]: no valid key"},
        {DEVICES(GOOD ",{\"key\":\"k\"}"), "devices[1]: no valid instance"},
        {DEVICES("{\"key\":\"k\",\"instance\":0,\"managed\":true}"), "devices[0]: no valid instance"},
        {DEVICES("{\"key\":\"k\",\"instance\":1,\"managed\":1}"), "devices[0]: no valid managed"},
        {DEVICES("{\"key\":\"k\",\"instance\":1,\"managed\":true,\"vm\":7}"), "devices[0]: no valid vm or vmInstance"},
        {DEVICES("{\"key\":\"k\",\"instance\":1,\"managed\":true,\"vm\":\"v\"}"),
         "devices[0]: no valid vm or vmInstance"},
        {DEVICES("{\"key\":\"k\",\"instance\":1,\"managed\":true,\"vm\":\"v\",\"vmInstance\":1}"),
         "devices[0]: no valid vendorId or productId"},
        {DEVICES("{\"key\":\"k\",\"instance\":1,\"managed\":true,\"vm\":\"v\",\"vmInstance\":1,"
                 "\"vendorId\":65536,\"productId\":0}"),
         "devices[0]: no valid vendorId or productId"},
        {DEVICES("{\"key\":\"k\",\"instance\":1,\"managed\":true,\"vm\":\"v\",\"vmInstance\":1,"
                 "\"vendorId\":1,\"productId\":0,\"object\":\"\"}"),
         "devices[0]: no valid object"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct memory memory;
        CLEANUP(cleanup_free) char *error = memory_parse(cases[i].text, strlen(cases[i].text), &memory);
        assert_non_null(error);
        if (cases[i].error)
            assert_string_equal(error, cases[i].error);
        assert_true(memory.count == 0 && !memory.devices);
    }
}

static void test_the_limit_of_devices(void **state)
{
    (void)state;
    for (int more = 0; more < 2; more++) {
        struct text text = {0};
        struct memory memory;
        text_add(&text, "{\"version\":1,\"devices\":[" GOOD);
        for (int i = 1; i < MEMORY_DEVICES_MAX + more; i++)
            text_add(&text, "," GOOD);
        text_add(&text, "]}");
        CLEANUP(cleanup_free) char *error = memory_parse(text.string, text.length, &memory);
        assert_int_equal(memory.count, more ? 0 : MEMORY_DEVICES_MAX);
        assert_true((error != NULL) == more);
        memory_clear(&memory);
        text_clear(&text);
    }
}

static void test_names_that_are_too_long(void **state)
{
    (void)state;
    char name[300];
    memset(name, 'k', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    CLEANUP(cleanup_free) char *text = string_printf(DEVICES("{\"key\":\"%s\"}"), name);
    struct memory memory;
    CLEANUP(cleanup_free) char *error = memory_parse(text, strlen(text), &memory);
    assert_string_equal(error, "devices[0]: no valid key");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f05_what_is_printed_is_parsed), cmocka_unit_test(test_an_empty_memory),
        cmocka_unit_test(test_damaged_memories_are_refused),  cmocka_unit_test(test_the_limit_of_devices),
        cmocka_unit_test(test_names_that_are_too_long),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
