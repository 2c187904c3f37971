// The choices of people in their file: nothing that happens to it makes the daemon forget, wait or stop.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "faults.h"
#include "host/host.h"
#include "host/store.h"
#include "tree.h"
#include "util/text.h"

#define FILE_NAME "lib/vhotplug/state"

struct shelf {
    char *root, *path, *previous, *damaged, *said_file;
    struct log *log;
    struct choices choices;
    int failing; // call of a load that fails; -1: none
    bool failed;
};

static int set_up(void **state)
{
    struct shelf *shelf = memory_new(1, sizeof(*shelf));

    faults_off();
    shelf->root = tree_new();
    shelf->path = string_printf("%s/" FILE_NAME, shelf->root);
    shelf->previous = string_printf("%s.previous", shelf->path);
    shelf->damaged = string_printf("%s.damaged", shelf->path);
    shelf->said_file = string_printf("%s/said", shelf->root);
    shelf->log = log_new(LOG_LEVEL_DEBUG);
    shelf->failing = -1;
    *state = shelf;
    return 0;
}

static int tear_down(void **state)
{
    struct shelf *shelf = *state;

    choices_clear(&shelf->choices);
    log_free(shelf->log);
    tree_free(shelf->root);
    free(shelf->path);
    free(shelf->previous);
    free(shelf->damaged);
    free(shelf->said_file);
    free(shelf);
    return 0;
}

static bool is_there(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

static char *content(const char *path)
{
    char *text = NULL;
    size_t length;
    CLEANUP(cleanup_free) char *why = store_read(path, CHOICES_TEXT_MAX, &text, &length);

    assert_null(why);
    assert_non_null(text);
    return text;
}

// One device that a person took out, and one that is in VM.
static int save(const struct shelf *shelf, const char *vm)
{
    struct choice items[] = {{.id = (char[]){"usb-046d:c52b:None"}, .path = (char[]){"1-2"}, .detached = true},
                             {.id = (char[]){"usb-1234:5678:S"}, .vm = (char *)vm}};

    return host_save_choices(shelf->path, &(struct choices){items, 2});
}

// Loads, and gives what the log says.
static char *load(struct shelf *shelf)
{
    int saved = dup(STDERR_FILENO);
    int file = open(shelf->said_file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    choices_clear(&shelf->choices);
    assert_true(saved >= 0 && file >= 0);
    assert_true(dup2(file, STDERR_FILENO) >= 0);
    if (shelf->failing >= 0)
        faults_fail((unsigned)shelf->failing);
    host_load_choices(shelf->log, shelf->path, &shelf->choices);
    shelf->failed = (int)faults_calls() > shelf->failing;
    faults_off();
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    close(file);
    return content(shelf->said_file);
}

static void load_says(struct shelf *shelf, const char *expected)
{
    CLEANUP(cleanup_free) char *said = load(shelf);

    assert_string_equal(said, expected);
}

// Loads; the one device is still out, and the other is in one of the two VMs.
static void check_holds(struct shelf *shelf, const char *vm, const char *or_vm)
{
    CLEANUP(cleanup_free) char *said = load(shelf);

    if (shelf->choices.count != 2)
        fail_msg("%zu choices; %s", shelf->choices.count, said);
    assert_true(shelf->choices.items[0].detached);
    assert_string_equal(shelf->choices.items[0].path, "1-2");
    assert_false(shelf->choices.items[1].detached);
    if (strcmp(shelf->choices.items[1].vm, vm) != 0)
        assert_string_equal(shelf->choices.items[1].vm, or_vm);
}

static void test_what_is_saved_comes_back(void **state)
{
    struct shelf *shelf = *state;
    CLEANUP(cleanup_free) char *directory = string_printf("%s/lib/vhotplug", shelf->root);
    CLEANUP(cleanup_free) char *new = string_printf("%s.new", shelf->path);
    struct stat status;
    mode_t mask = umask(0);

    assert_int_equal(save(shelf, "vm1"), 0);
    assert_int_equal(save(shelf, "vm2"), 0);
    umask(mask);
    check_holds(shelf, "vm2", "vm2");
    load_says(shelf, "");
    assert_int_equal(stat(shelf->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(stat(shelf->previous, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(stat(directory, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0755);
    assert_false(is_there(new));
}

static void test_no_file_is_no_choices(void **state)
{
    struct shelf *shelf = *state;

    load_says(shelf, "");
    assert_int_equal(shelf->choices.count, 0);
    assert_false(is_there(shelf->damaged));
    assert_false(is_there(shelf->path));
}

static void test_f32_the_file_of_the_python_daemon_is_read(void **state)
{
    struct shelf *shelf = *state;

    tree_write(shelf->root, FILE_NAME,
               "{\n  \"selected_vms\": {\n    \"usb-046d:c52b:ABC\": \"vm1\"\n  },\n"
               "  \"disconnected_devices\": [\n    \"usb-1234:5678:None\"\n  ]\n}");
    load_says(shelf, "");
    assert_int_equal(shelf->choices.count, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct choice *choice = &shelf->choices.items[i];
        assert_string_equal(choice->id, choice->detached ? "usb-1234:5678:None" : "usb-046d:c52b:ABC");
        assert_null(choice->path);
    }
    assert_true(shelf->choices.items[0].detached != shelf->choices.items[1].detached);
    assert_int_equal(host_save_choices(shelf->path, &shelf->choices), 0);
    load_says(shelf, "");
    assert_int_equal(shelf->choices.count, 2);
}

// Runs a save of "vm2" in a process that dies in call number CALL; false when it came to its end.
static bool save_and_die(const struct shelf *shelf, unsigned call)
{
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        faults_die(call);
        _exit(save(shelf, "vm2") == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == FAULTS_STATUS);
    return WEXITSTATUS(status) == FAULTS_STATUS;
}

static void test_f33_killed_at_any_write_leaves_old_or_new(void **state)
{
    struct shelf *shelf = *state;
    unsigned call = 0;

    for (;; call++) {
        assert_int_equal(save(shelf, "vm1"), 0);
        bool died = save_and_die(shelf, call);
        check_holds(shelf, "vm2", died ? "vm1" : "vm2");
        assert_false(is_there(shelf->damaged));
        if (!died)
            break;
    }
    assert_true(call > 10);
}

static void remove_all(const struct shelf *shelf)
{
    static const char *const names[] = {"/vhotplug/state",
                                        "/vhotplug/state.new",
                                        "/vhotplug/state.previous",
                                        "/vhotplug/state.previous.new",
                                        "/vhotplug",
                                        ""};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        CLEANUP(cleanup_free) char *path = string_printf("%s/lib%s", shelf->root, names[i]);
        assert_true(remove(path) == 0 || errno == ENOENT);
    }
}

static void test_f33_killed_in_the_first_save_leaves_nothing_or_all(void **state)
{
    struct shelf *shelf = *state;
    bool died = true;

    for (unsigned call = 0; died; call++) {
        died = save_and_die(shelf, call);
        if (is_there(shelf->path))
            check_holds(shelf, "vm2", "vm2");
        else
            load_says(shelf, "");
        remove_all(shelf);
    }
}

// Also while it sets a damaged file aside and makes it anew.
static void test_f33_killed_while_it_mends_forgets_nothing(void **state)
{
    struct shelf *shelf = *state;
    bool died = true;

    for (unsigned call = 0; died; call++) {
        int status = 0;
        assert_int_equal(save(shelf, "vm1"), 0);
        tree_write(shelf->root, FILE_NAME, "{\"version\": 1, \"dev");
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            CLEANUP(cleanup_close) int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
            (void)dup2(quiet, STDERR_FILENO);
            faults_die(call);
            host_load_choices(shelf->log, shelf->path, &shelf->choices);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        died = WEXITSTATUS(status) == FAULTS_STATUS;
        check_holds(shelf, "vm1", "vm1");
    }
}

static void test_f33_any_call_that_fails_leaves_old_or_new(void **state)
{
    struct shelf *shelf = *state;

    for (unsigned call = 0;; call++) {
        assert_int_equal(save(shelf, "vm1"), 0);
        faults_fail(call);
        int error = save(shelf, "vm2");
        unsigned calls = faults_calls();
        faults_off();
        check_holds(shelf, "vm2", error == 0 ? "vm2" : "vm1");
        assert_true(error == 0 || error == -ENOSPC);
        assert_int_equal(save(shelf, "vm3"), 0);
        check_holds(shelf, "vm3", "vm3");
        if (calls <= call)
            break;
    }
}

static void test_f33_a_full_disk_keeps_the_old_choices(void **state)
{
    struct shelf *shelf = *state;
    CLEANUP(cleanup_free) char *new = string_printf("%s.new", shelf->path);

    assert_int_equal(save(shelf, "vm1"), 0);
    faults_full(0);
    assert_int_equal(save(shelf, "vm2"), -ENOSPC);
    faults_off();
    assert_false(is_there(new));
    check_holds(shelf, "vm1", "vm1");
    load_says(shelf, "");
}

// Not by a wrapper but by the kernel, which refuses the bytes beyond the limit.
static void test_f33_a_file_that_may_not_grow(void **state)
{
    struct shelf *shelf = *state;
    int status = 0;

    assert_int_equal(save(shelf, "vm1"), 0);
    for (rlim_t limit = 0; limit < 64; limit += 7) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)signal(SIGXFSZ, SIG_IGN);
            (void)setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
            _exit(save(shelf, "vm2") == -EFBIG ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        check_holds(shelf, "vm1", "vm1");
        load_says(shelf, "");
    }
}

static void test_f33_torn_at_any_byte_the_copy_serves(void **state)
{
    struct shelf *shelf = *state;
    struct stat status;

    assert_int_equal(save(shelf, "vm1"), 0);
    assert_int_equal(stat(shelf->path, &status), 0);
    for (off_t length = 0; length < status.st_size; length++) {
        assert_int_equal(save(shelf, "vm1"), 0);
        assert_int_equal(truncate(shelf->path, length), 0);
        check_holds(shelf, "vm1", "vm1");
        load_says(shelf, ""); // it is mended
    }
}

static void test_f33_a_damaged_file_is_kept_and_told(void **state)
{
    struct shelf *shelf = *state;
    CLEANUP(cleanup_free)
    char *expected = string_printf("error %s: it ends too early; it is kept as %s\n"
                                   "warning %s: it was damaged, and is made anew from its copy %s: look whether each "
                                   "device is where you want it\n",
                                   shelf->path, shelf->damaged, shelf->path, shelf->previous);

    assert_int_equal(save(shelf, "vm1"), 0);
    tree_write(shelf->root, FILE_NAME, "{\"torn");
    load_says(shelf, expected);
    assert_int_equal(shelf->choices.count, 2);
    CLEANUP(cleanup_free) char *kept = content(shelf->damaged);
    assert_string_equal(kept, "{\"torn");
    load_says(shelf, "");
    check_holds(shelf, "vm1", "vm1");
}

static void test_f33_no_damaged_file_replaces_another(void **state)
{
    struct shelf *shelf = *state;

    for (unsigned i = 0; i < 12; i++) {
        CLEANUP(cleanup_free) char *text = string_printf("damaged %u", i);
        tree_write(shelf->root, FILE_NAME, text);
        free(load(shelf));
        assert_false(is_there(shelf->path));
    }
    for (unsigned i = 0; i < 10; i++) {
        CLEANUP(cleanup_free)
        char *path = i == 0 ? string_copy(shelf->damaged) : string_printf("%s.%u", shelf->damaged, i);
        CLEANUP(cleanup_free) char *kept = content(path);
        CLEANUP(cleanup_free)
        char *expected = string_printf("damaged %u", i < 9 ? i : 11); // bounded: the last gives way
        assert_string_equal(kept, expected);
    }
    CLEANUP(cleanup_free) char *beyond = string_printf("%s.10", shelf->damaged);
    assert_false(is_there(beyond));
}

static void test_f33_when_both_are_damaged_it_says_so(void **state)
{
    struct shelf *shelf = *state;
    CLEANUP(cleanup_free)
    char *expected = string_printf("error %s: it ends too early; it is kept as %s\n"
                                   "error %s: it ends too early; it is kept as %s.damaged\n"
                                   "error %s: what people chose and detached is lost; detach again what is to stay "
                                   "out of VMs\n",
                                   shelf->path, shelf->damaged, shelf->previous, shelf->previous, shelf->path);

    tree_write(shelf->root, FILE_NAME, "");
    tree_write(shelf->root, FILE_NAME ".previous", "{");
    load_says(shelf, expected);
    assert_int_equal(shelf->choices.count, 0);
    load_says(shelf, "");
    assert_int_equal(save(shelf, "vm1"), 0);
    check_holds(shelf, "vm1", "vm1");
}

static void test_f33_damaged_without_a_copy_is_told(void **state)
{
    struct shelf *shelf = *state;

    tree_write(shelf->root, FILE_NAME, "[]");
    CLEANUP(cleanup_free) char *said = load(shelf);
    assert_non_null(strstr(said, "what people chose and detached is lost"));
    assert_int_equal(shelf->choices.count, 0);
    assert_true(is_there(shelf->damaged));
}

static void test_f33_a_damaged_copy_of_nothing_is_told(void **state)
{
    struct shelf *shelf = *state;

    tree_write(shelf->root, FILE_NAME ".previous", "{");
    CLEANUP(cleanup_free) char *said = load(shelf);
    assert_non_null(strstr(said, "what people chose and detached is lost"));
    assert_int_equal(shelf->choices.count, 0);
}

static void test_f33_a_missing_file_is_made_anew(void **state)
{
    struct shelf *shelf = *state;
    CLEANUP(cleanup_free)
    char *expected = string_printf("warning %s: it is missing, and is made anew from its copy %s: look whether each "
                                   "device is where you want it\n",
                                   shelf->path, shelf->previous);

    assert_int_equal(save(shelf, "vm1"), 0);
    assert_int_equal(unlink(shelf->path), 0);
    load_says(shelf, expected);
    assert_int_equal(shelf->choices.count, 2);
    load_says(shelf, "");
    check_holds(shelf, "vm1", "vm1");
}

// What cannot be set aside or made anew is said, and the copy serves all the same.
static void test_f33_a_place_that_cannot_be_changed(void **state)
{
    struct shelf *shelf = *state;

    do {
        assert_int_equal(save(shelf, "vm1"), 0);
        tree_write(shelf->root, FILE_NAME, "torn");
        shelf->failing++;
        CLEANUP(cleanup_free) char *said = load(shelf);
        assert_non_null(strstr(said, shelf->path));
        // Only what cannot even be read is lost.
        if (shelf->choices.count != 2)
            assert_non_null(strstr(said, ".previous: cannot be read: No space left on device"));
    } while (shelf->failed);
    assert_true(shelf->failing > 10);
}

enum { DIRECTORY, FIFO, LOOP, DANGLING, DEVICE, SOCKET, HUGE, HOSTILE };

static void make_hostile(const struct shelf *shelf, int kind)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    switch (kind) {
    case DIRECTORY:
        assert_int_equal(mkdir(shelf->path, 0700), 0);
        break;
    case FIFO:
        assert_int_equal(mkfifo(shelf->path, 0600), 0);
        break;
    case LOOP:
        assert_int_equal(symlink("state", shelf->path), 0);
        break;
    case DANGLING:
        assert_int_equal(symlink("nowhere", shelf->path), 0);
        break;
    case DEVICE:
        assert_int_equal(symlink("/dev/zero", shelf->path), 0);
        break;
    case SOCKET: {
        CLEANUP(cleanup_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(strlen(shelf->path) < sizeof(address.sun_path));
        strcpy(address.sun_path, shelf->path);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        break;
    }
    default:
        tree_write(shelf->root, FILE_NAME, "{");
        assert_int_equal(truncate(shelf->path, (off_t)1 << 40), 0);
        break;
    }
}

static void test_f33_hostile_files_neither_stop_nor_delay(void **state)
{
    struct shelf *shelf = *state;
    static const char *const texts[HOSTILE] = {"is no file",
                                               "is no file",
                                               "cannot be read: Too many levels of symbolic links",
                                               "is a link to nothing",
                                               "is no file",
                                               "is no file",
                                               "is too long to be ours"};

    for (int kind = 0; kind < HOSTILE; kind++) {
        CLEANUP(cleanup_free)
        char *line = string_printf("error %s: %s; it is kept as %s", shelf->path, texts[kind], shelf->damaged);
        assert_int_equal(save(shelf, "vm1"), 0);
        assert_int_equal(unlink(shelf->path), 0);
        make_hostile(shelf, kind);
        CLEANUP(cleanup_free) char *said = load(shelf);
        if (strncmp(said, line, strlen(line)) != 0)
            assert_string_equal(said, line);
        assert_int_equal(shelf->choices.count, 2);
        check_holds(shelf, "vm1", "vm1");
    }
}

static void test_a_link_is_read_and_not_written_through(void **state)
{
    struct shelf *shelf = *state;
    struct stat status;

    assert_int_equal(save(shelf, "vm1"), 0);
    CLEANUP(cleanup_free) char *kept = content(shelf->path);
    tree_write(shelf->root, "kept", kept);
    assert_int_equal(unlink(shelf->path), 0);
    tree_link(shelf->root, FILE_NAME, "../../kept");
    check_holds(shelf, "vm1", "vm1");
    assert_int_equal(save(shelf, "vm2"), 0);
    assert_int_equal(lstat(shelf->path, &status), 0);
    assert_true(S_ISREG(status.st_mode));
    CLEANUP(cleanup_free) char *target = string_printf("%s/kept", shelf->root);
    CLEANUP(cleanup_free) char *still = content(target);
    assert_string_equal(still, kept);
}

// A mkdir for each directory that PATH is in; the last NEW ones are made, and entered in the one above.
static void add_directories(struct text *text, const char *path, size_t new)
{
    CLEANUP(cleanup_free) char *parts = string_copy(path);
    char *above = NULL, *rest = NULL, *names[64];
    size_t count = 0;

    for (char *name = strtok_r(parts, "/", &rest); name && count < 64; name = strtok_r(NULL, "/", &rest))
        names[count++] = name;
    for (size_t i = 0; i + 1 < count; i++) { // the last is the file
        text_printf(text, "mkdir:%s ", names[i]);
        if (i + 1 + new >= count)
            text_printf(text, "open:%s fsync ", above);
        above = names[i];
    }
}

// Bytes are on disk before the name is theirs, and the name is before the save is over.
static void test_f33_what_the_power_cannot_undo(void **state)
{
    struct shelf *shelf = *state;
    struct text expected = {0};

    add_directories(&expected, shelf->path, 2);
    text_add(&expected, "unlink:state.new open:state.new write fsync rename:state open:vhotplug fsync ");
    add_directories(&expected, shelf->path, 0);
    text_add(&expected, "unlink:state.previous.new open:state.previous.new write fsync rename:state.previous "
                        "open:vhotplug fsync");
    faults_off();
    assert_int_equal(save(shelf, "vm1"), 0);
    assert_string_equal(faults_history(), expected.string);
    text_clear(&expected);
}

static void test_a_place_that_is_none(void **state)
{
    struct shelf *shelf = *state;
    const struct choices none = {0};

    (void)shelf;
    assert_true(host_save_choices("/proc/vhotplug/state", &none) < 0);
    assert_true(host_save_choices("/dev/null/state", &none) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_saved_comes_back),
        TEST(test_no_file_is_no_choices),
        TEST(test_f32_the_file_of_the_python_daemon_is_read),
        TEST(test_f33_killed_at_any_write_leaves_old_or_new),
        TEST(test_f33_killed_in_the_first_save_leaves_nothing_or_all),
        TEST(test_f33_killed_while_it_mends_forgets_nothing),
        TEST(test_f33_any_call_that_fails_leaves_old_or_new),
        TEST(test_f33_a_full_disk_keeps_the_old_choices),
        TEST(test_f33_a_file_that_may_not_grow),
        TEST(test_f33_torn_at_any_byte_the_copy_serves),
        TEST(test_f33_a_damaged_file_is_kept_and_told),
        TEST(test_f33_no_damaged_file_replaces_another),
        TEST(test_f33_when_both_are_damaged_it_says_so),
        TEST(test_f33_damaged_without_a_copy_is_told),
        TEST(test_f33_a_damaged_copy_of_nothing_is_told),
        TEST(test_f33_a_missing_file_is_made_anew),
        TEST(test_f33_a_place_that_cannot_be_changed),
        TEST(test_f33_hostile_files_neither_stop_nor_delay),
        TEST(test_a_link_is_read_and_not_written_through),
        TEST(test_f33_what_the_power_cannot_undo),
        TEST(test_a_place_that_is_none),
    };

    return cmocka_run_group_tests_name("choices", tests, NULL, NULL);
}
