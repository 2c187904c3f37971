// What people decided about devices: which entry holds, and what is read back; the rows F.. are those of
// the catalogue of failures.
#include <stdio.h>
#include <string.h>

#include "core/choice.h"
#include "unit.h"
#include "util/text.h"

static struct device *usb(const char *place, const char *serial)
{
    struct device *device = device_new(DEVICE_USB);
    device->key = string_copy("usb:1-2");
    device->vendor_id = 0x046d;
    device->product_id = 0xc52b;
    device->id_path = string_copy(place);
    device->serial = string_copy(serial);
    return device;
}

// The one that holds for such a device: "VM", "VM out", "- out" or "none".
static void expect_held(const struct choices *choices, const char *place, const char *serial, const char *expected)
{
    CLEANUP(cleanup_device) struct device *device = usb(place, serial);
    const struct choice *choice = choices_find(choices, device, NULL, NULL);
    char held[64] = "none";
    if (choice)
        snprintf(held, sizeof(held), "%s%s", choice->vm ? choice->vm : "-", choice->detached ? " out" : "");
    assert_string_equal(held, expected);
}

static bool decide(struct choices *choices, const char *place, const char *serial, const char *vm, bool detached)
{
    CLEANUP(cleanup_device) struct device *device = usb(place, serial);
    return choices_set(choices, device, vm, detached, NULL, NULL) == CHOICE_SET;
}

static void parse(struct choices *choices, const char *text)
{
    CLEANUP(cleanup_free) char *error = choices_parse(text, strlen(text), choices);
    assert_null(error);
}

static void test_names_of_devices(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *plain = usb("pci-0-usb-0:2", "0A\n\xff");
    CLEANUP(cleanup_free) char *id = choice_id(plain), *path = choice_path(plain);
    assert_string_equal(id, "usb-046d:c52b:0A\\x0a\\xff");
    assert_string_equal(path, "pci-0-usb-0:2");
    CLEANUP(cleanup_device) struct device *bare = usb(NULL, "");
    CLEANUP(cleanup_free) char *bare_id = choice_id(bare), *bare_path = choice_path(bare);
    assert_string_equal(bare_id, "usb-046d:c52b:None");
    assert_string_equal(bare_path, "usb:1-2");
    CLEANUP(cleanup_device) struct device *pci = device_new(DEVICE_PCI);
    pci->key = string_copy("pci:0000:00:14.3");
    CLEANUP(cleanup_free) char *pci_id = choice_id(pci);
    assert_string_equal(pci_id, "pci-0000:00:14.3");
}

static void test_names_of_input_devices_outlive_a_restart(void **state)
{
    (void)state;
    CLEANUP(cleanup_device) struct device *input = device_new(DEVICE_INPUT);
    input->key = string_copy("input:input5");
    CLEANUP(cleanup_free) char *none = choice_id(input), *key = choice_path(input);
    assert_string_equal(none, "input-None");
    assert_string_equal(key, "input:input5");
    input->product_database = string_copy("Database");
    input->path_tag = string_copy("platform-i8042-serio-0");
    CLEANUP(cleanup_free) char *database = choice_id(input), *tag = choice_path(input);
    assert_string_equal(database, "input-Database");
    assert_string_equal(tag, "platform-i8042-serio-0");
    input->product_reported = string_copy("AT Keyboard");
    CLEANUP(cleanup_free) char *reported = choice_id(input);
    assert_string_equal(reported, "input-AT Keyboard");
}

static void test_f05_twins_without_a_serial_number_are_told_apart_by_their_place(void **state)
{
    (void)state;
    struct choices choices = {0};
    expect_held(&choices, "a", NULL, "none");
    assert_true(decide(&choices, "a", NULL, NULL, true));
    expect_held(&choices, "a", NULL, "- out");
    expect_held(&choices, "b", NULL, "none");
    choices_clear(&choices);
}

static void test_a_serial_number_is_known_in_another_place(void **state)
{
    (void)state;
    struct choices choices = {0};
    assert_true(decide(&choices, "a", "S", "vm1", false));
    assert_true(decide(&choices, "b", "S", "vm2", true));
    expect_held(&choices, "c", "S", "vm2 out"); // the newest
    expect_held(&choices, "a", "S", "vm1");
    expect_held(&choices, "c", "T", "none");
    assert_true(decide(&choices, "a", "S", "vm1", false)); // now this one is the newest
    expect_held(&choices, "c", "S", "vm1");
    assert_false(decide(&choices, "a", "S", "vm1", false));
    choices_clear(&choices);
}

static void test_f32_an_entry_for_wherever_holds_until_a_person_acts(void **state)
{
    (void)state;
    struct choices choices;
    parse(&choices, "{\"disconnected_devices\":[\"usb-046d:c52b:None\",\"usb-046d:c52b:S\"]}");
    expect_held(&choices, "a", NULL, "- out");
    expect_held(&choices, "b", NULL, "- out");
    assert_true(decide(&choices, "a", NULL, NULL, false));
    expect_held(&choices, "a", NULL, "-");
    expect_held(&choices, "b", NULL, "- out");
    assert_true(decide(&choices, "a", "S", "vm1", false));
    expect_held(&choices, "b", "S", "- out"); // wherever comes before another place
    choices_clear(&choices);
}

static void test_setting_says_whether_anything_changed(void **state)
{
    (void)state;
    struct choices choices = {0};
    assert_false(decide(&choices, "a", NULL, NULL, false)); // nothing to say
    assert_int_equal(choices.count, 0);
    assert_true(decide(&choices, "a", NULL, "vm1", false));
    assert_false(decide(&choices, "a", NULL, NULL, false)); // the VM stays as it was
    assert_true(decide(&choices, "a", NULL, NULL, true));
    expect_held(&choices, "a", NULL, "vm1 out");
    assert_false(decide(&choices, "a", NULL, NULL, true));
    assert_true(decide(&choices, "a", NULL, "vm2", true));
    expect_held(&choices, "a", NULL, "vm2 out");
    assert_int_equal(choices.count, 1);
    choices_clear(&choices);
}

static void test_what_is_not_detached_makes_room_first(void **state)
{
    (void)state;
    struct choices choices = {0};
    char place[16];
    for (unsigned i = 0; i < CHOICES_MAX; i++) {
        snprintf(place, sizeof(place), "%u", i);
        assert_true(decide(&choices, place, NULL, "vm1", i != 7));
    }
    assert_true(decide(&choices, "new", NULL, "vm2", true));
    assert_int_equal(choices.count, CHOICES_MAX);
    expect_held(&choices, "0", NULL, "vm1 out");
    expect_held(&choices, "7", NULL, "none");
    choices_clear(&choices);
}

// CHOICES_MAX devices, all detached, those with a serial number at places of their own.
static void fill(struct choices *choices, const char *serial)
{
    char place[16];
    for (unsigned i = 0; i < CHOICES_MAX; i++) {
        snprintf(place, sizeof(place), "%u", i);
        assert_true(decide(choices, place, i ? NULL : serial, "vm1", true));
    }
    assert_int_equal(choices_detached(choices), CHOICES_MAX);
}

static void test_what_keeps_something_out_never_makes_room(void **state)
{
    (void)state;
    struct choices choices = {0};
    CLEANUP(cleanup_device) struct device *device = usb("new", NULL);
    fill(&choices, NULL);
    CLEANUP(cleanup_free) char *before = choices_print(&choices);
    assert_int_equal(choices_set(&choices, device, NULL, true, NULL, NULL), CHOICE_NO_ROOM);
    assert_int_equal(choices_set(&choices, device, "vm1", false, NULL, NULL), CHOICE_NO_ROOM);
    assert_int_equal(choices_set(&choices, device, NULL, false, NULL, NULL), CHOICE_SAME);
    CLEANUP(cleanup_free) char *after = choices_print(&choices);
    assert_string_equal(after, before);
    assert_true(decide(&choices, "7", NULL, NULL, false)); // one that is there may come back
    assert_int_equal(choices_detached(&choices), CHOICES_MAX - 1);
    assert_int_equal(choices_set(&choices, device, NULL, true, NULL, NULL), CHOICE_SET); // and now there is room
    expect_held(&choices, "7", NULL, "none");
    expect_held(&choices, "0", NULL, "vm1 out");
    choices_clear(&choices);
}

static void test_a_device_that_has_moved_needs_no_room_of_its_own(void **state)
{
    (void)state;
    struct choices choices = {0};
    fill(&choices, "S");
    assert_true(decide(&choices, "moved", "S", NULL, false));
    assert_int_equal(choices.count, CHOICES_MAX);
    expect_held(&choices, "moved", "S", "vm1");
    choices_clear(&choices);
}

// ---- two that are joined

static void expect_joined(const char *now, const char *earlier, const char *expected)
{
    struct choices choices, before;
    parse(&choices, now);
    parse(&before, earlier);
    assert_int_equal(choices_join(&choices, &before), 0);
    CLEANUP(cleanup_free) char *text = choices_print(&choices);
    assert_string_equal(text, expected);
    choices_clear(&choices);
    choices_clear(&before);
}

#define LIST(entries) "{\"version\":1,\"devices\":[" entries "]}"
#define ENTRY(serial, path, vm, detached)                                                                              \
    "{\"id\":\"usb-046d:c52b:" serial "\",\"path\":\"" path "\",\"vm\":\"" vm "\",\"detached\":" detached "}"
#define BARE(serial, path, detached)                                                                                   \
    "{\"id\":\"usb-046d:c52b:" serial "\",\"path\":\"" path "\",\"detached\":" detached "}"
#define WHEREVER(serial, vm, detached)                                                                                 \
    "{\"id\":\"usb-046d:c52b:" serial "\",\"vm\":\"" vm "\",\"detached\":" detached "}"

static void test_what_is_detached_in_either_stays_detached(void **state)
{
    (void)state;
    expect_joined(LIST(ENTRY("None", "a", "vm1", "false") "," ENTRY("None", "b", "vm1", "true")),
                  LIST(ENTRY("None", "a", "vm2", "true") "," ENTRY("None", "b", "vm2", "false")),
                  LIST(ENTRY("None", "a", "vm1", "true") "," ENTRY("None", "b", "vm1", "true")));
    // Older ones are kept, as older ones; a VM that nobody named since is kept too.
    expect_joined(LIST(BARE("None", "a", "true")),
                  LIST(ENTRY("None", "c", "vm2", "true") "," ENTRY("None", "a", "vm2", "false")),
                  LIST(ENTRY("None", "c", "vm2", "true") "," ENTRY("None", "a", "vm2", "true")));
    expect_joined(LIST(""), LIST(ENTRY("None", "c", "vm2", "true")), LIST(ENTRY("None", "c", "vm2", "true")));
    expect_joined(LIST(ENTRY("None", "c", "vm2", "false")), LIST(""), LIST(ENTRY("None", "c", "vm2", "false")));
}

static void test_twins_are_not_joined(void **state)
{
    (void)state;
    expect_joined(LIST(ENTRY("None", "a", "vm1", "true")), LIST(ENTRY("None", "b", "vm2", "false")),
                  LIST(ENTRY("None", "b", "vm2", "false") "," ENTRY("None", "a", "vm1", "true")));
    expect_joined(LIST(ENTRY("None", "a", "vm1", "false")), LIST(ENTRY("None", "b", "vm2", "true")),
                  LIST(ENTRY("None", "b", "vm2", "true") "," ENTRY("None", "a", "vm1", "false")));
}

static void test_a_serial_number_is_joined_in_whichever_place(void **state)
{
    (void)state;
    expect_joined(LIST(ENTRY("S", "a", "vm1", "true")), LIST(ENTRY("S", "b", "vm2", "false")),
                  LIST(ENTRY("S", "b", "vm1", "true") "," ENTRY("S", "a", "vm1", "true")));
    expect_joined(LIST(ENTRY("S", "a", "vm1", "false")), LIST(ENTRY("S", "b", "vm2", "true")),
                  LIST(ENTRY("S", "b", "vm1", "true") "," ENTRY("S", "a", "vm1", "true")));
    expect_joined(LIST(ENTRY("None", "a", "vm1", "false")), LIST(WHEREVER("None", "vm2", "true")),
                  LIST(WHEREVER("None", "vm2", "true") "," ENTRY("None", "a", "vm1", "true")));
}

static void test_what_does_not_fit_any_more_is_counted(void **state)
{
    (void)state;
    struct choices choices = {0}, before;
    fill(&choices, NULL);
    parse(&before, LIST(ENTRY("None", "x", "vm1", "true") "," ENTRY("None", "y", "vm1",
                                                                    "false") "," ENTRY("None", "z", "vm1", "true")));
    assert_int_equal(choices_join(&choices, &before), 2);
    assert_int_equal(choices.count, CHOICES_MAX);
    expect_held(&choices, "0", NULL, "vm1 out"); // what people decided since is all there
    assert_int_equal(choices_detached(&choices), CHOICES_MAX);
    // One that keeps nothing out gives way to all that do.
    assert_true(decide(&choices, "7", NULL, NULL, false));
    choices_clear(&before);
    parse(&before, LIST(ENTRY("None", "x", "vm1", "true")));
    assert_int_equal(choices_join(&choices, &before), 0);
    expect_held(&choices, "x", NULL, "vm1 out");
    expect_held(&choices, "7", NULL, "none");
    choices_clear(&choices);
    choices_clear(&before);
}

static void test_f33_what_is_printed_is_parsed(void **state)
{
    (void)state;
    struct choices choices = {0}, parsed, copy = {0};
    assert_true(decide(&choices, "a", "S\"\x1b\xfe/\\", "vm \"1\"", false));
    assert_true(decide(&choices, "b", NULL, NULL, true));
    CLEANUP(cleanup_free) char *text = choices_print(&choices);
    assert_null(strchr(text, '\n'));
    parse(&parsed, text);
    choices_copy(&copy, &parsed);
    choices_clear(&parsed);
    assert_int_equal(copy.count, 2);
    expect_held(&copy, "a", "S\"\x1b\xfe/\\", "vm \"1\"");
    expect_held(&copy, "b", NULL, "- out");
    CLEANUP(cleanup_free) char *again = choices_print(&copy);
    assert_string_equal(again, text);
    choices_clear(&choices);
    choices_clear(&copy);
    assert_null(copy.items);
    CLEANUP(cleanup_free) char *empty = choices_print(&copy);
    parse(&copy, empty);
    assert_int_equal(copy.count, 0);
}

// The longest that we can come to hold.
static void test_f33_the_longest_choices_are_read_back(void **state)
{
    (void)state;
    char serial[500], place[600];
    memset(serial, '\x01', sizeof(serial) - 1);
    serial[sizeof(serial) - 1] = '\0';
    struct choices choices = {0}, parsed;
    char vm[256];
    memset(vm, '\x02', sizeof(vm) - 1);
    vm[sizeof(vm) - 1] = '\0';
    for (unsigned i = 0; i < CHOICES_MAX; i++) {
        snprintf(place, sizeof(place), "%u%s", i, serial);
        assert_true(decide(&choices, place, serial, vm, true));
    }
    CLEANUP(cleanup_free) char *text = choices_print(&choices);
    parse(&parsed, text);
    assert_int_equal(parsed.count, CHOICES_MAX);
    choices_clear(&choices);
    choices_clear(&parsed);
}

static void test_the_form_of_the_python_program(void **state)
{
    (void)state;
    struct choices choices;
    parse(&choices, "{\"selected_vms\": {\"usb-046d:c52b:S\": \"vm1\", \"usb-046d:c52b:None\": \"vm2\"},"
                    " \"disconnected_devices\": [\"usb-046d:c52b:S\", \"pci-x\", \"pci-x\"], \"more\": 7}");
    assert_int_equal(choices.count, 3);
    expect_held(&choices, "a", "S", "vm1 out");
    expect_held(&choices, "a", NULL, "vm2");
    assert_string_equal(choices.items[2].id, "pci-x");
    assert_true(choices.items[2].detached && !choices.items[2].vm && !choices.items[2].path);
    CLEANUP(cleanup_free) char *text = choices_print(&choices); // from now on in our own form
    struct choices again;
    parse(&again, text);
    assert_int_equal(again.count, 3);
    expect_held(&again, "a", "S", "vm1 out");
    choices_clear(&choices);
    choices_clear(&again);
    parse(&choices, "{\"selected_vms\": {}}");
    assert_int_equal(choices.count, 0);
}

#define DEVICES(text) "{\"version\":1,\"devices\":[" text "]}"
#define GOOD "{\"id\":\"i\",\"path\":\"p\",\"vm\":\"v\",\"detached\":true}"

static void test_f33_damaged_choices_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", NULL},
        {"\xff", NULL},
        {"{\"version\":1,\"devices\":[" GOOD, "it ends too early"},
        {DEVICES("{\"id\":\"\xff\",\"detached\":true}"), NULL},
        {DEVICES("[[[[1]]]]"), NULL},
        {"[]", "not choices of a version that is known"},
        {"{}", "not choices of a version that is known"},
        {"{\"version\":2,\"devices\":[]}", "not choices of a version that is known"},
        {"{\"version\":\"1\",\"devices\":[]}", "not choices of a version that is known"},
        {"{\"version\":2,\"selected_vms\":{}}", "not choices of a version that is known"},
        {"{\"version\":1}", "no list of devices"},
        {"{\"version\":1,\"devices\":{}}", "no list of devices"},
        {DEVICES("7"), "devices[0]: no valid id"},
        {DEVICES(GOOD ",{\"id\":\"\"}"), "devices[1]: no valid id"},
        {DEVICES("{\"id\":\"a\\u0000b\",\"detached\":true}"), "devices[0]: no valid id"},
        {DEVICES("{\"id\":\"i\",\"path\":7,\"detached\":true}"), "devices[0]: no valid path"},
        {DEVICES("{\"id\":\"i\",\"path\":\"\",\"detached\":true}"), "devices[0]: no valid path"},
        {DEVICES("{\"id\":\"i\",\"vm\":[],\"detached\":true}"), "devices[0]: no valid vm"},
        {DEVICES("{\"id\":\"i\"}"), "devices[0]: no valid detached"},
        {DEVICES("{\"id\":\"i\",\"detached\":1}"), "devices[0]: no valid detached"},
        {DEVICES(GOOD ",{\"id\":\"j\",\"detached\":true}," GOOD),
         "devices[0] and devices[2] are of the same device in the same place"},
        {DEVICES("{\"id\":\"i\",\"detached\":true},{\"id\":\"i\",\"path\":null,\"detached\":false}"),
         "devices[0] and devices[1] are of the same device in the same place"},
        {"{\"selected_vms\":[]}", "selected_vms is no object"},
        {"{\"selected_vms\":{\"a\":7}}", "selected_vms names a VM that is no text"},
        {"{\"selected_vms\":{\"a\":\"\"}}", "no valid name of a VM"},
        {"{\"selected_vms\":{\"a\":\"b\\u0000\"}}", "selected_vms names a VM that is no text"},
        {"{\"selected_vms\":{\"\":\"vm1\"}}", "no valid name of a device"},
        {"{\"disconnected_devices\":{}}", "disconnected_devices is no list"},
        {"{\"disconnected_devices\":[\"a\",7]}", "disconnected_devices[1] is no text"},
        {"{\"disconnected_devices\":[\"\"]}", "no valid name of a device"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct choices choices;
        CLEANUP(cleanup_free) char *error = choices_parse(cases[i].text, strlen(cases[i].text), &choices);
        if (!error)
            fail_msg("accepted: %s", cases[i].text);
        if (cases[i].error)
            assert_string_equal(error, cases[i].error);
        assert_true(choices.count == 0 && !choices.items);
    }
}

static void test_null_is_the_same_as_absent(void **state)
{
    (void)state;
    struct choices choices;
    parse(&choices, DEVICES("{\"id\":\"i\",\"path\":null,\"vm\":null,\"detached\":true,\"later\":{}}"));
    assert_true(choices.count == 1 && !choices.items[0].path && !choices.items[0].vm && choices.items[0].detached);
    choices_clear(&choices);
}

// TEXTs in a list of COUNT, between BEFORE and AFTER; %d in it is the number.
static void expect_count(const char *before, const char *item, const char *after, int count, bool good)
{
    struct text text = {0};
    text_add(&text, before);
    for (int i = 0; i < count; i++) {
        text_printf(&text, "%s", i ? "," : "");
        const char *number = strchr(item, '#');
        text_add_bytes(&text, item, (size_t)(number - item));
        text_printf(&text, "%d%s", i, number + 1);
    }
    text_add(&text, after);
    struct choices choices;
    CLEANUP(cleanup_free) char *error = choices_parse(text.string, text.length, &choices);
    if (good)
        assert_null(error);
    else
        assert_string_equal(error, "more than 4096 devices");
    assert_int_equal(choices.count, good ? count : 0);
    choices_clear(&choices);
    text_clear(&text);
}

static void test_the_limit_of_choices(void **state)
{
    (void)state;
    for (int more = 0; more < 2; more++) {
        int count = CHOICES_MAX + more;
        expect_count("{\"version\":1,\"devices\":[", "{\"id\":\"#\",\"detached\":true}", "]}", count, !more);
        expect_count("{\"disconnected_devices\":[", "\"#\"", "]}", count, !more);
        expect_count("{\"selected_vms\":{", "\"#\":\"v\"", "}}", count, !more);
    }
}

static void test_names_that_are_too_long(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        int length;
        const char *error;
    } cases[] = {
        {DEVICES("{\"id\":\"%s\",\"detached\":true}"), 2000, "devices[0]: no valid id"},
        {DEVICES("{\"id\":\"i\",\"path\":\"%s\",\"detached\":true}"), 2000, "devices[0]: no valid path"},
        {DEVICES("{\"id\":\"i\",\"vm\":\"%s\",\"detached\":true}"), 256, "devices[0]: no valid vm"},
        {"{\"selected_vms\":{\"a\":\"%s\"}}", 256, "no valid name of a VM"},
        {"{\"disconnected_devices\":[\"%s\"]}", 2000, "no valid name of a device"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char name[2001];
        memset(name, 'n', sizeof(name));
        name[cases[i].length] = '\0';
        struct text text = {0};
        const char *place = strchr(cases[i].format, '%');
        text_add_bytes(&text, cases[i].format, (size_t)(place - cases[i].format));
        text_add(&text, name);
        text_add(&text, place + 2);
        struct choices choices;
        CLEANUP(cleanup_free) char *error = choices_parse(text.string, text.length, &choices);
        assert_string_equal(error, cases[i].error);
        text_clear(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_of_devices),
        cmocka_unit_test(test_names_of_input_devices_outlive_a_restart),
        cmocka_unit_test(test_f05_twins_without_a_serial_number_are_told_apart_by_their_place),
        cmocka_unit_test(test_a_serial_number_is_known_in_another_place),
        cmocka_unit_test(test_f32_an_entry_for_wherever_holds_until_a_person_acts),
        cmocka_unit_test(test_setting_says_whether_anything_changed),
        cmocka_unit_test(test_what_is_not_detached_makes_room_first),
        cmocka_unit_test(test_what_keeps_something_out_never_makes_room),
        cmocka_unit_test(test_a_device_that_has_moved_needs_no_room_of_its_own),
        cmocka_unit_test(test_what_is_detached_in_either_stays_detached),
        cmocka_unit_test(test_twins_are_not_joined),
        cmocka_unit_test(test_a_serial_number_is_joined_in_whichever_place),
        cmocka_unit_test(test_what_does_not_fit_any_more_is_counted),
        cmocka_unit_test(test_f33_what_is_printed_is_parsed),
        cmocka_unit_test(test_f33_the_longest_choices_are_read_back),
        cmocka_unit_test(test_the_form_of_the_python_program),
        cmocka_unit_test(test_f33_damaged_choices_are_refused),
        cmocka_unit_test(test_null_is_the_same_as_absent),
        cmocka_unit_test(test_the_limit_of_choices),
        cmocka_unit_test(test_names_that_are_too_long),
    };
    return cmocka_run_group_tests_name("choice", tests, NULL, NULL);
}
