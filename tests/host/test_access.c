// Access to device nodes by ACL entries, on files that stand for nodes.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <acl/libacl.h>
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/acl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "faults.h"
#include "host/access.h"
#include "tree.h"
#include "util/text.h"

enum { NOBODY = 65534, OTHER = 4242 };

struct bench {
    char *root, *node, *records;
    bool current;
    struct access_grant grant;
};

static bool is_current(const void *subject)
{
    return ((const struct bench *)subject)->current;
}

static int set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof(*bench));

    bench->root = tree_new();
    bench->node = string_printf("%s/node", bench->root);
    bench->records = string_printf("%s/records", bench->root);
    bench->current = true;
    tree_write(bench->root, "node", "");
    assert_int_equal(chmod(bench->node, 0600), 0);
    // No process has the number 0: nothing is known of its groups.
    bench->grant = (struct access_grant){bench->node, 0, "input:input5", NOBODY, 0, is_current, bench};
    faults_off();
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    faults_off();
    tree_free(bench->root);
    free(bench->node);
    free(bench->records);
    free(bench);
    return 0;
}

static void expect_acl(const struct bench *bench, const char *expected)
{
    acl_t acl = acl_get_file(bench->node, ACL_TYPE_ACCESS);
    char *text = acl_to_any_text(acl, NULL, '\n', TEXT_NUMERIC_IDS);
    CLEANUP(cleanup_free) char *lines = string_printf("%s\n", text);

    acl_free(text);
    acl_free(acl);
    assert_string_equal(lines, expected);
}

static void set_acl(const struct bench *bench, const char *text)
{
    acl_t acl = acl_from_text(text);

    assert_int_equal(acl_set_file(bench->node, ACL_TYPE_ACCESS, acl), 0);
    acl_free(acl);
}

static void expect_records(const struct bench *bench, const char *names)
{
    CLEANUP(cleanup_free) char *command = string_printf("ls '%s' 2>&1 | tr '\\n' ' '", bench->records);
    char found[512] = "";
    FILE *pipe = popen(command, "r"); // NOLINT: a test

    assert_non_null(pipe);
    if (fgets(found, sizeof(found), pipe) == NULL)
        found[0] = '\0';
    assert_int_equal(pclose(pipe), 0);
    if (strstr(found, "No such file") != NULL)
        found[0] = '\0';
    assert_string_equal(found, names);
}

static int try_give(const struct bench *bench, const char *word)
{
    CLEANUP(cleanup_free) char *why = NULL;
    int error = access_give(bench->records, &bench->grant, &why);

    if (word != NULL) {
        assert_non_null(why);
        assert_non_null(strstr(why, word));
    } else {
        assert_null(why);
    }
    return error;
}

static void give(const struct bench *bench)
{
    assert_int_equal(try_give(bench, NULL), 0);
}

static void take(const struct bench *bench, const char *holder)
{
    CLEANUP(cleanup_free) char *why = NULL;

    assert_int_equal(access_take(bench->records, holder, &why), 0);
    assert_null(why);
}

#define PLAIN "user::rw-\ngroup::---\nother::---\n"
#define GIVEN "user::rw-\nuser:65534:rw-\ngroup::---\nmask::rw-\nother::---\n"

static void test_f39_only_that_user_and_only_for_a_time(void **state)
{
    struct bench *bench = *state;
    struct stat status;

    give(bench);
    expect_acl(bench, GIVEN);
    expect_records(bench, "input:input5.json ");
    give(bench); // attached anew after a restart of the daemon
    expect_acl(bench, GIVEN);
    take(bench, "input:input5");
    expect_acl(bench, PLAIN);
    assert_int_equal(stat(bench->node, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    expect_records(bench, "");
    take(bench, "input:input5"); // nothing is left to take
    expect_acl(bench, PLAIN);
}

static void expect_round(struct bench *bench, const char *before, const char *between, const char *after)
{
    set_acl(bench, before);
    give(bench);
    expect_acl(bench, between);
    take(bench, "input:input5");
    expect_acl(bench, after);
}

static void test_entries_of_others_stay(void **state)
{
    const char *before = "user::rw-\nuser:4242:r--\ngroup::rw-\ngroup:4243:-w-\nmask::rw-\nother::r--\n";

    expect_round(*state, before,
                 "user::rw-\nuser:4242:r--\nuser:65534:rw-\ngroup::rw-\ngroup:4243:-w-\nmask::rw-\nother::r--\n",
                 before);
}

static void test_nobody_gains_what_the_mask_takes_away(void **state)
{
    expect_round(*state, "user::rw-\nuser:4242:rw-\ngroup::rwx\ngroup:4243:r--\nmask::r--\nother::---\n",
                 "user::rw-\nuser:4242:r--\nuser:65534:rw-\ngroup::r--\ngroup:4243:r--\nmask::rw-\nother::---\n",
                 "user::rw-\nuser:4242:r--\ngroup::r--\ngroup:4243:r--\nmask::r--\nother::---\n");
}

static void test_a_mask_made_narrow_meanwhile_does_not_come_back_wide(void **state)
{
    struct bench *bench = *state;

    set_acl(bench, "user::rw-\ngroup::rw-\nother::---\n");
    give(bench);
    assert_int_equal(chmod(bench->node, 0600), 0); // udev, with a rule for that node
    take(bench, "input:input5");
    expect_acl(bench, PLAIN);
}

static void test_the_users_own_entry_is_there_again(void **state)
{
    const char *before = "user::rw-\nuser:65534:r--\ngroup::---\nmask::r--\nother::---\n";

    expect_round(*state, before, GIVEN, before);
    before = "user::rw-\nuser:65534:---\ngroup::---\nmask::---\nother::---\n"; // shut out on purpose is not "none"
    expect_round(*state, before, GIVEN, before);
}

static void expect_nothing_done(struct bench *bench, const char *acl)
{
    set_acl(bench, acl);
    give(bench);
    expect_acl(bench, acl);
    expect_records(bench, "");
    take(bench, "input:input5");
    expect_acl(bench, acl);
}

static void test_nothing_is_done_for_who_may_already(void **state)
{
    struct bench *bench = *state;

    expect_nothing_done(bench, "user::rw-\ngroup::---\nother::rw-\n");
    expect_nothing_done(bench, "user::rw-\nuser:65534:rw-\ngroup::---\nmask::rw-\nother::---\n");
    bench->grant.process = getpid();
    expect_nothing_done(bench, "user::rw-\ngroup::rw-\nother::---\n"); // the file is of our group
    bench->grant.user = getuid();
    expect_nothing_done(bench, PLAIN); // its owner
    bench->grant.user = 0;
    expect_nothing_done(bench, "user::---\ngroup::---\nother::---\n");
}

// The group of the node gives the rights, and a process has it by CHANGE.
static void expect_member_needs_nothing(struct bench *bench, int (*change)(void))
{
    int ready[2];
    char byte;

    assert_int_equal(pipe(ready), 0);
    bench->grant.process = fork();
    assert_true(bench->grant.process >= 0);
    if (bench->grant.process == 0) {
        if (change() == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0) // which new groups would undo
            (void)!write(ready[1], "x", 1);
        pause();
        _exit(1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    give(bench);
    expect_acl(bench, "user::rw-\ngroup::rw-\nother::---\n");
    assert_int_equal(kill(bench->grant.process, SIGKILL), 0);
    assert_int_equal(waitpid(bench->grant.process, NULL, 0), bench->grant.process);
}

static int join_group(void)
{
    static const gid_t groups[] = {7, OTHER, 9};

    return setgroups(3, groups);
}

static int become_group(void)
{
    return setgroups(0, NULL) < 0 ? -1 : setegid(OTHER);
}

static void test_groups_of_the_process_count(void **state)
{
    struct bench *bench = *state;

    if (getuid() != 0) {
        print_message("only root has processes of other groups\n");
        skip();
    }
    assert_int_equal(chown(bench->node, 0, OTHER), 0);
    assert_int_equal(chmod(bench->node, 0660), 0);
    expect_member_needs_nothing(bench, join_group);
    expect_member_needs_nothing(bench, become_group);
    bench->grant.process = getpid(); // is not in it
    give(bench);
    expect_records(bench, "input:input5.json ");
}

static void test_rights_are_judged_as_the_kernel_does(void **state)
{
    struct bench *bench = *state;

    // A member of a group without rights does not have those of others.
    bench->grant.process = getpid();
    set_acl(bench, "user::rw-\ngroup::r--\nother::rw-\n");
    give(bench);
    expect_acl(bench, "user::rw-\nuser:65534:rw-\ngroup::r--\nmask::rw-\nother::rw-\n");
    take(bench, "input:input5");
    // Nor does a user with an entry, or one whose group the mask has shut out.
    bench->grant.process = 0;
    expect_round(bench, "user::rw-\nuser:65534:r--\ngroup::---\nmask::rw-\nother::rw-\n",
                 "user::rw-\nuser:65534:rw-\ngroup::---\nmask::rw-\nother::rw-\n",
                 "user::rw-\nuser:65534:r--\ngroup::---\nmask::r--\nother::rw-\n");
    bench->grant.process = getpid();
    expect_round(bench, "user::rw-\nuser:4242:rw-\ngroup::rw-\nmask::r--\nother::---\n",
                 "user::rw-\nuser:4242:r--\nuser:65534:rw-\ngroup::r--\nmask::rw-\nother::---\n",
                 "user::rw-\nuser:4242:r--\ngroup::r--\nmask::r--\nother::---\n");
}

static void test_an_owner_who_has_no_rights_is_told(void **state)
{
    struct bench *bench = *state;

    if (getuid() == 0) {
        bench->grant.user = OTHER;
        assert_int_equal(chown(bench->node, OTHER, OTHER), 0);
    }
    bench->grant.user = bench->grant.user == OTHER ? OTHER : getuid();
    set_acl(bench, "user::r--\ngroup::---\nother::---\n");
    assert_int_equal(try_give(bench, "belongs to that user"), -EPERM);
    expect_acl(bench, "user::r--\ngroup::---\nother::---\n");
    expect_records(bench, "");
}

static void test_f08_another_device_at_the_same_place_gets_nothing(void **state)
{
    struct bench *bench = *state;

    bench->current = false;
    assert_int_equal(try_give(bench, "the device has gone"), -ENODEV);
    bench->current = true;
    bench->grant.number = 5;
    assert_int_equal(try_give(bench, "the device has gone"), -ENODEV);
    bench->grant.number = 0;
    expect_acl(bench, PLAIN);
    expect_records(bench, "");
    // A link is not followed, wherever it leads.
    tree_link(bench->root, "link", bench->node);
    bench->grant.node = string_printf("%s/link", bench->root);
    assert_true(try_give(bench, "cannot be looked at") < 0);
    free((char *)bench->grant.node);
    bench->grant.node = bench->node;
    expect_acl(bench, PLAIN);
    tree_remove(bench->root, "node");
    assert_int_equal(try_give(bench, "the device has gone"), -ENODEV);
}

// The node's name, and perhaps its number, are taken by the next device.
static void replace_node(struct bench *bench)
{
    tree_write(bench->root, "new", "");
    assert_int_equal(chmod(bench->node, 0600), 0);
    CLEANUP(cleanup_free) char *new = string_printf("%s/new", bench->root);
    assert_int_equal(chmod(new, 0600), 0);
    assert_int_equal(rename(new, bench->node), 0);
}

static void test_the_node_that_comes_next_is_not_touched(void **state)
{
    struct bench *bench = *state;

    give(bench);
    replace_node(bench);
    set_acl(bench, GIVEN); // somebody else's doing
    take(bench, "input:input5");
    expect_acl(bench, GIVEN);
    expect_records(bench, "");
    give(bench);
    expect_records(bench, ""); // it may already
    set_acl(bench, PLAIN);
    give(bench);
    tree_remove(bench->root, "node");
    take(bench, "input:input5");
    expect_records(bench, "");
}

static void test_f39_a_node_made_anew_is_given_anew(void **state)
{
    struct bench *bench = *state;

    give(bench);
    replace_node(bench);
    give(bench);
    expect_acl(bench, GIVEN);
    take(bench, "input:input5");
    expect_acl(bench, PLAIN);
}

static void test_another_user_takes_the_place_of_the_first(void **state)
{
    struct bench *bench = *state;

    give(bench);
    bench->grant.user = OTHER;
    give(bench);
    expect_acl(bench, "user::rw-\nuser:4242:rw-\ngroup::---\nmask::rw-\nother::---\n");
    take(bench, "input:input5");
    expect_acl(bench, PLAIN);
}

static void test_f23_the_last_function_of_a_group_ends_it(void **state)
{
    struct bench *bench = *state;
    const char *before = "user::rw-\nuser:65534:r--\ngroup::---\nmask::r--\nother::---\n";

    set_acl(bench, before);
    bench->grant.holder = "pci:0000:03:01.0";
    give(bench);
    bench->grant.holder = "pci:0000:03:02.0";
    give(bench);
    expect_records(bench, "pci:0000:03:01.0.json pci:0000:03:02.0.json ");
    take(bench, "pci:0000:03:01.0");
    expect_acl(bench, GIVEN);
    take(bench, "pci:0000:03:02.0");
    expect_acl(bench, before);
    expect_records(bench, "");
}

static void test_what_others_were_given_does_not_count(void **state)
{
    struct bench *bench = *state;
    const char *before = "user::rw-\nuser:65534:r--\ngroup::---\nmask::r--\nother::---\n";

    // Of a node that has gone, to another device.
    set_acl(bench, before);
    give(bench);
    replace_node(bench);
    bench->grant.holder = "input:input6";
    give(bench);
    take(bench, "input:input6");
    expect_acl(bench, PLAIN);
    // To another user.
    set_acl(bench, before);
    bench->grant.holder = "pci:0000:03:01.0";
    give(bench);
    bench->grant.holder = "pci:0000:03:02.0";
    bench->grant.user = OTHER;
    give(bench);
    take(bench, "pci:0000:03:01.0");
    expect_acl(bench, "user::rw-\nuser:4242:rw-\nuser:65534:r--\ngroup::---\nmask::rw-\nother::---\n");
    take(bench, "pci:0000:03:02.0");
    expect_acl(bench, before);
}

static bool is_fifth(void *user, const char *holder)
{
    (void)user;
    return strcmp(holder, "input:input5") == 0;
}

static void test_what_was_given_for_devices_that_have_gone_is_taken_back(void **state)
{
    struct bench *bench = *state;

    access_sweep(bench->records, is_fifth, NULL); // no directory yet
    give(bench);
    access_sweep(bench->records, is_fifth, NULL);
    expect_acl(bench, GIVEN);
    bench->grant.holder = "pci:0000:03:01.0"; // its group, and the node, are still there
    give(bench);
    take(bench, "input:input5");
    tree_write(bench->root, "records/input:input9.json.new", "half of");
    tree_write(bench->root, "records/input:input8.json", "{}");
    access_sweep(bench->records, is_fifth, NULL);
    expect_acl(bench, PLAIN);
    expect_records(bench, "input:input8.json input:input9.json.new ");
}

static void test_a_damaged_record_is_said_once(void **state)
{
    struct bench *bench = *state;
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"node\":\"relative\",\"major\":0,\"minor\":0,\"inode\":1,\"user\":1,\"before\":8}",
        "{\"node\":\"/dev/null\",\"major\":0,\"minor\":0,\"inode\":1,\"user\":1,\"before\":9}",
        "{\"node\":\"/dev/null\",\"major\":0,\"minor\":0,\"inode\":1,\"user\":4294967296,\"before\":8}"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        CLEANUP(cleanup_free) char *why = NULL;
        tree_write(bench->root, "records/input:input5.json", texts[i]);
        assert_int_equal(access_take(bench->records, "input:input5", &why), -EINVAL);
        assert_non_null(strstr(why, "input:input5.json"));
        take(bench, "input:input5");
        tree_write(bench->root, "records/input:input5.json", texts[i]);
        give(bench); // is not kept from it
        take(bench, "input:input5");
        expect_acl(bench, PLAIN);
    }
}

static void expect_kept(const struct bench *bench, int free)
{
    CLEANUP(cleanup_free) char *why = NULL;

    tree_limit_descriptors(free);
    assert_int_equal(access_take(bench->records, "input:input5", &why), -EMFILE);
    tree_limit_descriptors(-1);
    assert_non_null(strstr(why, "Too many open files"));
    expect_acl(bench, GIVEN);
}

static void test_f39_what_cannot_be_read_now_is_kept(void **state)
{
    struct bench *bench = *state;

    give(bench);
    expect_kept(bench, 0); // its own record
    expect_records(bench, "input:input5.json ");
    bench->grant.holder = "pci:0000:03:01.0";
    give(bench);
    expect_kept(bench, 1); // those of others on the same node
    expect_records(bench, "input:input5.json pci:0000:03:01.0.json ");
    tree_limit_descriptors(1);
    assert_int_equal(try_give(bench, "Too many open files"), -EMFILE);
    tree_limit_descriptors(-1);
    expect_records(bench, "input:input5.json pci:0000:03:01.0.json ");
    take(bench, "input:input5");
    expect_acl(bench, GIVEN);
    take(bench, "pci:0000:03:01.0");
    expect_acl(bench, PLAIN);
}

static void test_a_key_that_is_no_file_name(void **state)
{
    struct bench *bench = *state;
    static const char *const keys[] = {"", "../x", "a/b", ".hidden"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        bench->grant.holder = keys[i];
        assert_int_equal(try_give(bench, "cannot be written down"), -EINVAL);
        take(bench, keys[i]);
    }
    expect_acl(bench, PLAIN);
}

// Runs STEP in a process that dies in call CALL; false: it got to the end.
static bool die_in(struct bench *bench, unsigned call, void (*step)(const struct bench *bench))
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        faults_die(call);
        step(bench);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == FAULTS_STATUS));
    return WEXITSTATUS(status) == FAULTS_STATUS;
}

static void take_it(const struct bench *bench)
{
    take(bench, "input:input5");
}

static void test_f39_killed_at_any_step_it_is_taken_back(void **state)
{
    struct bench *bench = *state;
    unsigned call;

    for (call = 0; die_in(bench, call, give); call++) {
        take(bench, "input:input5"); // the next run
        expect_acl(bench, PLAIN);
    }
    assert_true(call > 3);
    expect_acl(bench, GIVEN);
    for (call = 0; die_in(bench, call, take_it); call++) {
        take(bench, "input:input5");
        expect_acl(bench, PLAIN);
        give(bench);
    }
    assert_true(call > 0);
    expect_acl(bench, PLAIN);
}

static void test_what_cannot_be_written_down_is_not_given(void **state)
{
    struct bench *bench = *state;
    unsigned calls, failed = 0;

    faults_off();
    give(bench);
    calls = faults_calls();
    take(bench, "input:input5");
    for (unsigned call = 0; call < calls; call++) {
        CLEANUP(cleanup_free) char *why = NULL;
        faults_full(call);
        if (access_give(bench->records, &bench->grant, &why) < 0) {
            failed++;
            expect_acl(bench, PLAIN);
            assert_non_null(why);
        }
        faults_off();
        take(bench, "input:input5");
        expect_acl(bench, PLAIN);
    }
    assert_true(failed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_f39_only_that_user_and_only_for_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_entries_of_others_stay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_gains_what_the_mask_takes_away, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_mask_made_narrow_meanwhile_does_not_come_back_wide, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_users_own_entry_is_there_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_is_done_for_who_may_already, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_groups_of_the_process_count, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rights_are_judged_as_the_kernel_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_owner_who_has_no_rights_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f08_another_device_at_the_same_place_gets_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_node_that_comes_next_is_not_touched, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f39_a_node_made_anew_is_given_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_user_takes_the_place_of_the_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f23_the_last_function_of_a_group_ends_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_others_were_given_does_not_count, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_given_for_devices_that_have_gone_is_taken_back, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_damaged_record_is_said_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f39_what_cannot_be_read_now_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_key_that_is_no_file_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f39_killed_at_any_step_it_is_taken_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_written_down_is_not_given, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
