// Strict JSON with limits, and members read with their types checked.
#include <stdlib.h>
#include <string.h>

#include "unit.h"
#include "util/json.h"
#include "util/text.h"

static const struct json_limits limits = {4096, 16};

static struct json_object *parse(const char *text)
{
    CLEANUP(cleanup_free) char *error = NULL;
    struct json_object *value = json_parse(text, strlen(text), &limits, &error);
    if (value)
        assert_null(error);
    else
        assert_non_null(error);
    return value;
}

static void test_whole_values(void **state)
{
    (void)state;
    const char *good[] = {"{}", "[]", " {\"a\": [1, 2.5, true, null, \"x\"]} \r\n", "17", "\"s\"", "true"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CLEANUP(cleanup_json) struct json_object *value = parse(good[i]);
        assert_non_null(value);
    }
}

static void test_wrong_texts(void **state)
{
    (void)state;
    const char *bad[] = {"",     " ",          "{",        "{} x",  "{}{}",    "nope",   "null",
                         "[1,]", "{\"a\":1,}", "\"\xff\"", "[1 2]", "{\"a\"}", "\"open", "/* c */ {}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_null(parse(bad[i]));
    CLEANUP(cleanup_free) char *error = NULL;
    assert_null(json_parse("{}\0{}", 5, &limits, &error));
}

static void test_limits(void **state)
{
    (void)state;
    char deep[64] = "";
    for (int i = 0; i < 20; i++)
        strcat(deep, "[");
    for (int i = 0; i < 20; i++)
        strcat(deep, "]");
    assert_null(parse(deep));
    char *longer = memory_new(5000, 1);
    memset(longer, ' ', 4999);
    longer[0] = '1';
    assert_null(parse(longer));
    free(longer);
}

static void test_every_truncation_is_an_error(void **state)
{
    (void)state;
    const char *text =
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22}}, \"capabilities\": [\"oob\", -1.5e3, null]}}";
    for (size_t length = 0; length < strlen(text); length++) {
        CLEANUP(cleanup_free) char *error = NULL;
        assert_null(json_parse(text, length, &limits, &error));
        assert_non_null(error);
    }
}

static void test_members(void **state)
{
    (void)state;
    CLEANUP(cleanup_json)
    struct json_object *object = parse(
        "{\"s\": \"x\", \"n\": 18446744073709551615, \"m\": -1, \"b\": true, \"z\": \"a\\u0000b\", \"nil\": null}");
    uint64_t number = 0;
    bool value = false;
    assert_string_equal(json_member_string(object, "s"), "x");
    assert_null(json_member_string(object, "n"));
    assert_null(json_member_string(object, "z"));
    assert_null(json_member_string(object, "absent"));
    assert_null(json_member_string(object, "nil"));
    assert_true(json_member_uint64(object, "n", &number));
    assert_true(number == UINT64_MAX);
    assert_false(json_member_uint64(object, "m", &number));
    assert_false(json_member_uint64(object, "s", &number));
    assert_true(json_member_bool(object, "b", &value));
    assert_true(value);
    assert_false(json_member_bool(object, "s", &value));
    assert_null(json_member(NULL, "s"));
    CLEANUP(cleanup_free) char *text = json_print(json_member(object, "s"));
    assert_string_equal(text, "\"x\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_values), cmocka_unit_test(test_wrong_texts),
        cmocka_unit_test(test_limits),       cmocka_unit_test(test_every_truncation_is_an_error),
        cmocka_unit_test(test_members),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
