// Text that grows, and hostile text that is made safe.
#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "unit.h"
#include "util/text.h"

static void check_safe(const char *raw, size_t limit, const char *expected)
{
    struct text text = {0};
    text_add_safe(&text, raw, limit);
    CLEANUP(cleanup_free) char *safe = text_take(&text);
    assert_string_equal(safe, expected);
}

static void test_plain_text_stays(void **state)
{
    (void)state;
    check_safe("QEMU USB Mouse", 100, "QEMU USB Mouse");
    check_safe("Gerät – ячейка 鼠标 🖱", 100, "Gerät – ячейка 鼠标 🖱");
    check_safe("", 100, "");
}

static void test_control_characters_are_escaped(void **state)
{
    (void)state;
    check_safe("a\nb\tc\033[31m", 100, "a\\x0ab\\x09c\\x1b[31m");
    check_safe("\177", 100, "\\x7f");
    check_safe("\302\233", 100, "\\xc2\\x9b");              // C1: CSI
    check_safe("a\342\200\256b", 100, "a\\xe2\\x80\\xaeb"); // right-to-left override
    check_safe("a\342\201\246b", 100, "a\\xe2\\x81\\xa6b"); // isolate
    check_safe("\357\273\277x", 100, "\\xef\\xbb\\xbfx");
    check_safe("\342\200\213", 100, "\\xe2\\x80\\x8b");
    check_safe("a\330\234b", 100, "a\\xd8\\x9cb"); // Arabic letter mark
}

static void test_invisible_characters_are_escaped(void **state)
{
    (void)state;
    check_safe("\342\201\237", 100, "\342\201\237");        // a mathematical blank is seen
    for (unsigned char last = 0xa0; last <= 0xa9; last++) { // U+2060 to U+2069
        const char raw[] = {'\342', '\201', (char)last, '\0'};
        CLEANUP(cleanup_free) char *expected = string_printf("\\xe2\\x81\\x%02x", last);
        check_safe(raw, 100, expected);
    }
    check_safe("\342\201\252", 100, "\342\201\252"); // U+206A
}

static void test_invalid_utf8_is_escaped(void **state)
{
    (void)state;
    check_safe("\377", 100, "\\xff");
    check_safe("\300\200", 100, "\\xc0\\x80");                   // overlong
    check_safe("\340\200\200", 100, "\\xe0\\x80\\x80");          // overlong
    check_safe("\355\240\200", 100, "\\xed\\xa0\\x80");          // surrogate
    check_safe("\364\220\200\200", 100, "\\xf4\\x90\\x80\\x80"); // above the last code point
    check_safe("\303", 100, "\\xc3");                            // cut off
    check_safe("\342\202", 100, "\\xe2\\x82");
    check_safe("\360\237\226", 100, "\\xf0\\x9f\\x96");
}

static void test_long_text_is_cut(void **state)
{
    (void)state;
    check_safe("abcdef", 6, "abcdef");
    check_safe("abcdefg", 6, "abcdef…");
    check_safe("abcde鼠", 6, "abcde…"); // not in the middle of a character
}

static void test_text_grows(void **state)
{
    (void)state;
    struct text text = {0};
    for (int i = 0; i < 1000; i++)
        text_printf(&text, "%d,", i % 10);
    assert_int_equal(text.length, 2000);
    assert_int_equal(strlen(text.string), 2000);
    text_clear(&text);
    assert_null(text.string);
    CLEANUP(cleanup_free) char *empty = text_take(&text);
    assert_string_equal(empty, "");
}

// Whatever the length, all of it is there, and nothing twice.
static void test_printed_text_is_whole(void **state)
{
    (void)state;
    for (int length = 0; length < 600; length++) {
        CLEANUP(text_clear) struct text text = {0};
        text_add(&text, "<");
        text_printf(&text, "%0*d%s%d", length, 0, "abc", 7);
        text_add(&text, ">");
        size_t zeros = length > 0 ? (size_t)length : 1;
        assert_int_equal(text.length, zeros + 6);
        assert_int_equal(strspn(text.string + 1, "0"), zeros);
        assert_string_equal(text.string + 1 + zeros, "abc7>");
    }
}

static void test_numbers_fill_their_string(void **state)
{
    (void)state;
    unsigned long number = 7;
    assert_true(string_to_number("0", 10, 10, &number));
    assert_int_equal(number, 0);
    assert_true(string_to_number("ffff", 16, 0xffff, &number));
    assert_int_equal(number, 0xffff);
    uint64_t wide = 7;
    assert_true(string_to_uint64("18446744073709551615", 10, UINT64_MAX, &wide));
    assert_true(wide == UINT64_MAX);
    assert_false(string_to_uint64("18446744073709551616", 10, UINT64_MAX, &wide));
    assert_int_equal(string_to_number("4294967296", 10, ULONG_MAX, &number), ULONG_MAX > UINT32_MAX);
    const char *wrong[] = {"", " 1", "+1", "-1", "1 ", "1x", "11", "18446744073709551616"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(string_to_number(wrong[i], 10, 10, &number));
    assert_false(string_to_number("0x1f", 16, 0xffff, &number));
    assert_false(string_to_number("10000", 16, 0xffff, &number));
}

static void test_equal_strings(void **state)
{
    (void)state;
    assert_true(string_equal(NULL, NULL));
    assert_false(string_equal("a", NULL));
    assert_false(string_equal(NULL, "a"));
    assert_true(string_equal("a", "a"));
    assert_false(string_equal("a", "b"));
    assert_null(string_copy(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_text_stays),
        cmocka_unit_test(test_control_characters_are_escaped),
        cmocka_unit_test(test_invisible_characters_are_escaped),
        cmocka_unit_test(test_invalid_utf8_is_escaped),
        cmocka_unit_test(test_long_text_is_cut),
        cmocka_unit_test(test_text_grows),
        cmocka_unit_test(test_printed_text_is_whole),
        cmocka_unit_test(test_numbers_fill_their_string),
        cmocka_unit_test(test_equal_strings),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
