// Patterns: what Python's users wrote matches as there, and no pattern or name can hang the daemon.
#include <stdlib.h>
#include <string.h>

#include "core/pattern.h"
#include "unit.h"
#include "util/text.h"

static bool matches(const char *text, const char *subject)
{
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_pattern) struct pattern *pattern = pattern_new(text, &error);
    if (!pattern)
        fail_msg("%s: %s", text, error);
    bool yes = pattern_matches(pattern, subject, false);
    assert_int_equal(yes, pattern_matches(pattern, subject, true)); // nothing was given up
    return yes;
}

static void test_anchored_at_the_start_only(void **state)
{
    (void)state;
    assert_true(matches("usb", "USB Mouse"));
    assert_false(matches("mouse", "USB Mouse"));
    assert_true(matches(".*mouse", "USB Mouse 5"));
    assert_false(matches(".*mouse$", "USB Mouse 5"));
    assert_true(matches("^usb", "USB"));
    assert_true(matches("a|b", "bus"));
    assert_false(matches("a|b", "usb"));
    assert_true(matches("", "anything"));
    assert_true(matches(".*", ""));
    assert_false(matches(".", ""));
}

static void test_python_syntax(void **state)
{
    (void)state;
    assert_true(matches("(?P<word>ab)-(?P=word)$", "ab-AB"));
    assert_true(matches("(?:logi|micro)\\w+ \\d{2,3}", "Logitech 270"));
    assert_true(matches("(?!apple).*keyboard", "Dell Keyboard"));
    assert_false(matches("(?!apple).*keyboard", "Apple Keyboard"));
    assert_true(matches(".*(?<=web)cam", "USB Webcam"));
    assert_true(matches("[\\w.]+_Corp\\.", "Chicony.Electronics_Corp."));
    assert_true(matches("\\w+$", "Gr\xc3\xb6\xc3\x9f"
                                 "e"));
    assert_true(matches("GR\xc3\x96SSE", "gr\xc3\xb6sse")); // case beyond ASCII
    assert_true(matches("^.{4}$", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z"));
    assert_false(matches("a.c", "a\nc"));
}

static void test_invalid_utf8_in_a_name(void **state)
{
    (void)state;
    assert_true(matches("abc", "abc\xff\xfe"));
    assert_false(matches("abc.*def", "abc\xff"
                                     "def"));
    assert_false(matches("x", "\xff"));
}

static void test_f12_bad_patterns_are_told(void **state)
{
    static const char *const bad[][2] = {
        {"(", "missing closing parenthesis at position 2"},
        {"a)", "unmatched closing parenthesis at position 2"},
        {"+", "quantifier does not follow a repeatable item at position 1"},
        {"\xff", "UTF-8 error: illegal byte (0xfe or 0xff) at position 1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        CLEANUP(cleanup_free) char *error = NULL;
        assert_null(pattern_new(bad[i][0], &error));
        assert_string_equal(error, bad[i][1]);
    }
    pattern_free(NULL);
}

static void test_pattern_length_limit(void **state)
{
    char text[PATTERN_LENGTH_MAX + 2];
    char *error = NULL;
    (void)state;
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    assert_null(pattern_new(text, &error));
    assert_string_equal(error, "longer than 4096 bytes");
    free(error);
    text[PATTERN_LENGTH_MAX] = 0;
    assert_true(matches(text, text));
}

// Patterns that try exponentially many ways are given up, and the caller says what that means.
static void test_f12_a_match_is_given_up_at_its_limit(void **state)
{
    static const char *const slow[] = {"(a+)+$", "(a|aa)+$", "(a*)*b", "(.*a){20}b", "(?:a?){40}a{40}b", "((a+)b?)+c"};
    char subject[512];
    (void)state;
    memset(subject, 'a', sizeof(subject) - 2);
    subject[sizeof(subject) - 2] = 'x';
    subject[sizeof(subject) - 1] = 0;
    unsigned given_up = 0;
    for (size_t i = 0; i < sizeof(slow) / sizeof(*slow); i++) {
        CLEANUP(cleanup_free) char *error = NULL;
        CLEANUP(cleanup_pattern) struct pattern *pattern = pattern_new(slow[i], &error);
        assert_non_null(pattern);
        bool denied = pattern_matches(pattern, subject, true);
        assert_false(pattern_matches(pattern, subject, false));
        given_up += denied;
    }
    assert_true(given_up >= 2);
}

// A deep recursion ends at the limit of memory, not at that of the stack.
static void test_recursion_is_bounded(void **state)
{
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_pattern) struct pattern *pattern = pattern_new("(a(?1)?b)+", &error);
    char subject[PATTERN_SUBJECT_MAX + 100];
    (void)state;
    assert_non_null(pattern);
    memset(subject, 'a', sizeof(subject) - 1);
    subject[sizeof(subject) - 1] = 0;
    assert_false(pattern_matches(pattern, subject, false));
}

static void test_long_subjects_are_cut(void **state)
{
    char *subject = memory_new(1000000, 1);
    (void)state;
    memset(subject, 'a', 999999);
    assert_true(matches("a{4096}$", subject));
    assert_false(matches("a{4097}", subject));
    free(subject);
}

// Most subjects are ruled out by a literal part of the pattern before PCRE2 sees them. Wrapped in a group
// the pattern has no such part and must say the same.
static void test_shortcut_changes_no_answer(void **state)
{
    static const char *const texts[] = {
        "usb",       "USB mouse", "usbs?",   "us*b",     "usb+",       "usb{0}",
        "usb{2,}x",  "x|usb",     ".*mouse", ".*mouse$", ".*?mouse",   ".*ouse?x",
        ".*+m",      ".*m{0,1}$", "kim",     ".*kim",    "sam",        ".*_sam",
        "a b-c/d:e", ".*",        ".*.*",    "^usb",     ".*\\.mouse", "(?i)usb",
        "us(?=b)",   "usb(?!m)",  "us\\x62", "\\Qusb",   ".*[m]ouse",  "usb mouse 2.0 with a name of many letters",
    };
    static const char *const subjects[] = {
        "",
        "usb",
        "USB",
        "us",
        "usbb",
        "usbbx",
        "USB Mouse",
        "a mouse",
        "usb\nmouse",
        "Mouse",
        "x.mouse",
        "x",
        "\xe2\x84\xaaim",
        "a \xe2\x84\xaaIM",
        "KIM",
        "\xc5\xbf"
        "am",
        "x_\xc5\xbf"
        "am",
        "SAM",
        "A B-C/D:E",
        "\xffusb",
        "usb\xff",
        "ouseouse",
        "mousmouse",
        "b",
        "usb mouse 2.0 with a name of many letters and more",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        CLEANUP(cleanup_free) char *wrapped = string_printf("(?:%s)", texts[i]);
        if (strstr(texts[i], "\\Q"))
            strcpy(wrapped, "(?:usb)");
        for (size_t j = 0; j < sizeof(subjects) / sizeof(*subjects); j++)
            assert_int_equal(matches(texts[i], subjects[j]), matches(wrapped, subjects[j]));
    }
}

static void test_globs(void **state)
{
    (void)state;
    assert_true(pattern_glob("1-2", "1-2"));
    assert_false(pattern_glob("1-2", "1-2.3"));
    assert_true(pattern_glob("1-2.*", "1-2.3.4"));
    assert_false(pattern_glob("1-2.*", "1-2"));
    assert_false(pattern_glob("1-2.*", "1-22"));
    assert_true(pattern_glob("1-[2-4]", "1-3"));
    assert_true(pattern_glob("pci-0000:00:14.0-usb-0:2*", "pci-0000:00:14.0-usb-0:2.1"));
    assert_false(pattern_glob("pci-0000:00:14.0-usb-0:2*", "pci-0000:00:1d.0-usb-0:2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_anchored_at_the_start_only), cmocka_unit_test(test_python_syntax),
        cmocka_unit_test(test_invalid_utf8_in_a_name),     cmocka_unit_test(test_f12_bad_patterns_are_told),
        cmocka_unit_test(test_pattern_length_limit),       cmocka_unit_test(test_f12_a_match_is_given_up_at_its_limit),
        cmocka_unit_test(test_recursion_is_bounded),       cmocka_unit_test(test_long_subjects_are_cut),
        cmocka_unit_test(test_shortcut_changes_no_answer), cmocka_unit_test(test_globs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
