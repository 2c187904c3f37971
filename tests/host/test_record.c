// The memory in its file: kept, replaced as a whole, and set aside when damaged.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <string.h>
#include <sys/stat.h>

#include "host/host.h"
#include "tree.h"
#include "util/text.h"

struct shelf {
    char *root, *path, *damaged;
    struct log *log;
    struct memory memory;
};

static int set_up(void **state)
{
    struct shelf *shelf = memory_new(1, sizeof(*shelf));

    shelf->root = tree_new();
    shelf->path = string_printf("%s/run/vhotplug/memory.json", shelf->root);
    shelf->damaged = string_printf("%s.damaged", shelf->path);
    shelf->log = log_new(LOG_LEVEL_ERROR);
    *state = shelf;
    return 0;
}

static int tear_down(void **state)
{
    struct shelf *shelf = *state;

    memory_clear(&shelf->memory);
    log_free(shelf->log);
    tree_free(shelf->root);
    free(shelf->path);
    free(shelf->damaged);
    free(shelf);
    return 0;
}

static bool is_there(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

static int save_one(const struct shelf *shelf, uint64_t instance)
{
    char key[] = "usb:1-2";
    char vm[] = "vm1";
    struct memory_device device = {.key = key, .instance = instance, .managed = true, .vm = vm, .vm_instance = 5};
    const struct memory memory = {&device, 1};

    return host_save_memory(shelf->path, &memory);
}

static void test_what_is_saved_comes_back(void **state)
{
    struct shelf *shelf = *state;
    CLEANUP(cleanup_free) char *new = string_printf("%s.new", shelf->path);
    struct stat status;

    assert_int_equal(save_one(shelf, 1), 0);
    assert_int_equal(save_one(shelf, UINT64_MAX), 0);
    assert_int_equal(stat(shelf->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_false(is_there(new));
    host_load_memory(shelf->log, shelf->path, &shelf->memory);
    assert_int_equal(shelf->memory.count, 1);
    assert_string_equal(shelf->memory.devices[0].key, "usb:1-2");
    assert_true(shelf->memory.devices[0].instance == UINT64_MAX);
    assert_string_equal(shelf->memory.devices[0].vm, "vm1");
}

static void test_no_file_is_an_empty_memory(void **state)
{
    struct shelf *shelf = *state;

    host_load_memory(shelf->log, shelf->path, &shelf->memory);
    assert_int_equal(shelf->memory.count, 0);
    assert_false(is_there(shelf->damaged));
}

static void test_damaged_files_are_set_aside(void **state)
{
    struct shelf *shelf = *state;
    static const char *const texts[] = {"", "{", "[]", "\033[31m", "{\"devices\": 7}"};
    struct stat status;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        tree_write(shelf->root, "run/vhotplug/memory.json", texts[i]);
        host_load_memory(shelf->log, shelf->path, &shelf->memory);
        assert_int_equal(shelf->memory.count, 0);
        assert_false(is_there(shelf->path));
        assert_int_equal(stat(shelf->damaged, &status), 0);
        assert_int_equal(status.st_size, strlen(texts[i]));
    }
    assert_int_equal(save_one(shelf, 3), 0);
}

static void test_a_file_that_is_too_long_is_set_aside(void **state)
{
    struct shelf *shelf = *state;
    size_t length = 1024 * 1024 + 1;
    CLEANUP(cleanup_free) char *blanks = memory_new(length + 1, 1);

    memset(blanks, ' ', length);
    tree_write(shelf->root, "run/vhotplug/memory.json", blanks);
    host_load_memory(shelf->log, shelf->path, &shelf->memory);
    assert_int_equal(shelf->memory.count, 0);
    assert_true(is_there(shelf->damaged));
}

static void test_cut_off_at_each_byte(void **state)
{
    struct shelf *shelf = *state;
    struct stat status;

    assert_int_equal(save_one(shelf, 3), 0);
    assert_int_equal(stat(shelf->path, &status), 0);
    for (off_t length = 0; length < status.st_size; length++) {
        assert_int_equal(save_one(shelf, 3), 0);
        assert_int_equal(truncate(shelf->path, length), 0);
        host_load_memory(shelf->log, shelf->path, &shelf->memory);
        memory_clear(&shelf->memory);
    }
}

static void test_what_a_killed_run_left_does_no_harm(void **state)
{
    struct shelf *shelf = *state;

    assert_int_equal(save_one(shelf, 1), 0);
    tree_link(shelf->root, "run/vhotplug/memory.json.new", "../../victim");
    tree_write(shelf->root, "victim", "precious");
    assert_int_equal(save_one(shelf, 2), 0);
    host_load_memory(shelf->log, shelf->path, &shelf->memory);
    assert_int_equal(shelf->memory.devices[0].instance, 2);
}

static void test_a_failed_save_keeps_the_old_one(void **state)
{
    struct shelf *shelf = *state;

    assert_int_equal(save_one(shelf, 1), 0);
    tree_directory(shelf->root, "run/vhotplug/memory.json.new");
    assert_true(save_one(shelf, 2) < 0);
    host_load_memory(shelf->log, shelf->path, &shelf->memory);
    assert_int_equal(shelf->memory.devices[0].instance, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_saved_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_file_is_an_empty_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged_files_are_set_aside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_that_is_too_long_is_set_aside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cut_off_at_each_byte, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_killed_run_left_does_no_harm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_failed_save_keeps_the_old_one, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
