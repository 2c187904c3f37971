// The records: what is reported, when, and how often.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <string.h>

#include "host/known.h"
#include "tree.h"
#include "util/text.h"

#define PLACE "sys/devices/pci0000:00/0000:00:14.0/usb1/1-2"
#define NEW_PLACE "sys/devices/pci0000:00/0000:00:14.0/usb1/1-3"

// What was reported, as one line: "+1 " present, "*1 " present and plugged, "-1 " gone.
struct log_of {
    struct text text;
    struct known *known;
    char *root; // of a sysfs
};

static void present(void *user, struct device *device, bool plugged)
{
    struct log_of *log = user;

    text_printf(&log->text, "%c%d ", plugged ? '*' : '+', (int)device->instance);
}

static void gone(void *user, const struct device *device)
{
    struct log_of *log = user;

    assert_string_equal(device->key, device->instance == 3 ? "usb:1-3" : "usb:1-2");
    text_printf(&log->text, "-%d ", (int)device->instance);
}

static int set_up(void **state)
{
    static const struct known_callbacks callbacks = {.present = present, .gone = gone};
    struct log_of *log = memory_new(1, sizeof(*log));

    log->known = known_new(&callbacks, log);
    log->root = tree_new();
    tree_directory(log->root, PLACE);
    tree_directory(log->root, NEW_PLACE);
    *state = log;
    return 0;
}

static int tear_down(void **state)
{
    struct log_of *log = *state;

    known_free(log->known);
    tree_free(log->root);
    text_clear(&log->text);
    free(log);
    return 0;
}

static void update_at(struct log_of *log, const char *place, uint64_t instance, bool ready, const char *use,
                      bool plugged)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    CLEANUP(cleanup_free) char *syspath = string_printf("%s/%s", log->root, place);

    device->key = string_printf("usb:%s", strrchr(syspath, '/') + 1);
    device->syspath = string_copy(syspath);
    device->instance = instance;
    device->host_use = string_copy(use);
    known_update(log->known, known_touch(log->known, syspath, plugged), device, ready);
}

// A look finds INSTANCE, with the host's use of it.
static void update(struct log_of *log, uint64_t instance, bool ready, const char *use, bool plugged)
{
    update_at(log, PLACE, instance, ready, use, plugged);
}

static void expect(struct log_of *log, const char *reported)
{
    assert_string_equal(log->text.string != NULL ? log->text.string : "", reported);
    text_clear(&log->text);
}

static void test_the_same_again_is_no_news(void **state)
{
    update(*state, 1, true, NULL, false);
    update(*state, 1, true, NULL, true);
    expect(*state, "+1 ");
    update(*state, 1, true, "/ is mounted from sda1", true);
    update(*state, 1, true, "/ is mounted from sda1", true);
    expect(*state, "+1 ");
}

// It is shown to people; who decides by it knows that it is no part of the value.
static void test_another_driver_is_reported(void **state)
{
    struct log_of *log = *state;
    static const char *const drivers[] = {NULL, "e1000e", "e1000e", "vfio-pci"};

    for (size_t i = 0; i < sizeof(drivers) / sizeof(*drivers); i++) {
        CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_PCI);
        device->key = string_copy("usb:1-2");
        device->instance = 1;
        device->driver = string_copy(drivers[i]);
        known_update(log->known, known_touch(log->known, "/sys/devices/card", false), device, true);
    }
    expect(log, "+1 +1 +1 ");
}

static void test_another_instance_in_its_place(void **state)
{
    update(*state, 1, true, NULL, false);
    update(*state, 2, true, NULL, true);
    expect(*state, "+1 -1 *2 ");
}

// The event of the old place may come after that of the new one.
static void test_one_that_has_moved_is_gone_before_it_is_there(void **state)
{
    struct log_of *log = *state;

    update(log, 1, true, NULL, false);
    update_at(log, NEW_PLACE, 3, false, NULL, true);
    expect(log, "+1 ");
    tree_remove(log->root, PLACE);
    update_at(log, NEW_PLACE, 3, false, NULL, true);
    expect(log, ""); // there is nothing new to say yet
    update_at(log, NEW_PLACE, 3, true, NULL, true);
    expect(log, "-1 *3 ");
    CLEANUP(cleanup_free) char *syspath = string_printf("%s/" PLACE, log->root);
    known_remove(log->known, syspath);
    expect(log, "");
    assert_null(known_find(log->known, syspath));
}

// Of those that have gone their own events tell, where nothing new comes.
static void test_what_only_changes_has_not_moved(void **state)
{
    struct log_of *log = *state;

    update(log, 1, true, NULL, false);
    update_at(log, NEW_PLACE, 3, true, NULL, true);
    tree_remove(log->root, PLACE);
    update_at(log, NEW_PLACE, 3, true, "/ is mounted from sda1", true);
    expect(log, "+1 *3 *3 ");
}

static void test_what_has_vanished_and_comes_again_was_plugged(void **state)
{
    struct log_of *log = *state;

    update(log, 1, true, NULL, false);
    tree_remove(log->root, PLACE);
    update_at(log, NEW_PLACE, 3, true, NULL, true);
    expect(log, "+1 -1 *3 ");
    tree_directory(log->root, PLACE);
    update(log, 2, true, NULL, true); // before the event that the first one went
    expect(log, "*2 ");
}

static void test_f11_removed_by_its_syspath_alone(void **state)
{
    struct log_of *log = *state;

    update(log, 1, true, NULL, true);
    CLEANUP(cleanup_free) char *syspath = string_printf("%s/" PLACE, log->root);
    known_remove(log->known, syspath);
    known_remove(log->known, syspath);
    expect(log, "*1 -1 ");
    assert_null(known_find(log->known, syspath));
}

static void test_f11_never_reported_is_removed_silently(void **state)
{
    struct log_of *log = *state;

    known_touch(log->known, PLACE, true);
    known_remove(log->known, PLACE);
    known_remove(log->known, "/sys/devices/elsewhere");
    expect(log, "");
}

static void test_f17_not_before_udev_is_done(void **state)
{
    update(*state, 1, false, NULL, false);
    expect(*state, "");
    update(*state, 1, true, NULL, true);
    expect(*state, "+1 "); // it was there before
    update(*state, 2, false, NULL, true);
    expect(*state, "-1 ");
    update(*state, 2, true, NULL, true);
    expect(*state, "*2 ");
}

static void test_f18_a_scan_makes_up_for_lost_events(void **state)
{
    struct log_of *log = *state;

    update(log, 1, true, NULL, true);
    expect(log, "*1 ");
    known_begin_scan(log->known);
    known_end_scan(log->known);
    expect(log, "-1 ");
    known_begin_scan(log->known);
    update(log, 2, true, NULL, true);
    known_end_scan(log->known);
    expect(log, "*2 ");
    known_begin_scan(log->known);
    update(log, 2, true, NULL, true);
    known_end_scan(log->known);
    expect(log, "");
}

static void test_f19_seen_by_event_and_by_scan_is_reported_once(void **state)
{
    struct log_of *log = *state;

    update(log, 1, true, NULL, false);
    known_begin_scan(log->known);
    update(log, 1, true, NULL, false);
    known_end_scan(log->known);
    expect(log, "+1 ");
}

static void test_many_records(void **state)
{
    struct log_of *log = *state;

    for (int round = 0; round < 2; round++) {
        known_begin_scan(log->known);
        for (int i = round; i < 300; i += 2) {
            CLEANUP(cleanup_free) char *place = string_printf("/sys/devices/%d", i);
            assert_non_null(known_touch(log->known, place, true));
        }
        known_end_scan(log->known);
    }
    assert_null(known_find(log->known, "/sys/devices/0"));
    assert_non_null(known_find(log->known, "/sys/devices/299"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_same_again_is_no_news, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_driver_is_reported, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_instance_in_its_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_that_has_moved_is_gone_before_it_is_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_only_changes_has_not_moved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_has_vanished_and_comes_again_was_plugged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f11_removed_by_its_syspath_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f11_never_reported_is_removed_silently, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f17_not_before_udev_is_done, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f18_a_scan_makes_up_for_lost_events, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f19_seen_by_event_and_by_scan_is_reported_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_records, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("known", tests, NULL, NULL);
}
