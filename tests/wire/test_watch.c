// The life of a VM, seen from outside: starts, stops, deaths, and what may happen to its directory.
#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/text.h"

// A process that listens on DIRECTORY/NAME, and is there when this returns. DELAY: between bind and listen.
static pid_t serve(struct bench *bench, const char *name, unsigned delay_us)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int ready[2];
    char byte = 0;
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%.40s/%.40s", bench->directory, name);
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        int failed = bind(fd, (struct sockaddr *)&address, sizeof address);
        if (delay_us == 0)
            failed = failed || listen(fd, 8);
        if (failed || write(ready[1], &byte, 1) != 1)
            _exit(1);
        if (delay_us > 0) {
            usleep(delay_us);
            (void)listen(fd, 8);
        }
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

static char *path_of(struct bench *bench, const char *name)
{
    return string_printf("%s/%s", bench->directory, name);
}

static void make(struct bench *bench, const char *name)
{
    CLEANUP(cleanup_free) char *path = path_of(bench, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void erase(struct bench *bench, const char *name)
{
    CLEANUP(cleanup_free) char *path = path_of(bench, name);
    assert_int_equal(remove(path), 0);
}

static void test_f20_started_after_us(void **state)
{
    struct bench *bench = *state;
    bench_add_vm(bench, "vm1", "s");
    bench_expect(bench, "down", "vm1");
    bench_expect_nothing(bench);
    pid_t pid = serve(bench, "s", 0);
    assert_true(bench_expect_up(bench, "vm1")->instance != 0);
    bench_expect_nothing(bench);
    erase(bench, "s"); // an orderly stop
    end(pid);
    bench_expect(bench, "down", "vm1");
    bench_expect_nothing(bench);
}

static void test_started_before_us(void **state)
{
    struct bench *bench = *state;
    pid_t pid = serve(bench, "s", 0);
    bench_add_vm(bench, "vm1", "s");
    bench_expect(bench, "up", "vm1");
    end(pid); // the file stays
    bench_expect(bench, "down", "vm1");
    bench_expect_nothing(bench);
}

static void test_f20_socket_that_listens_late(void **state)
{
    struct bench *bench = *state;
    bench_add_vm(bench, "vm1", "s");
    bench_expect(bench, "down", "vm1");
    pid_t pid = serve(bench, "s", 300 * 1000);
    bench_expect_up(bench, "vm1");
    end(pid);
    bench_expect(bench, "down", "vm1");
}

static void test_stale_file_then_restart(void **state)
{
    struct bench *bench = *state;
    end(serve(bench, "s", 0));
    bench_add_vm(bench, "vm1", "s");
    bench_expect(bench, "down", "vm1");
    bench_expect_nothing(bench);
    erase(bench, "s");
    pid_t pid = serve(bench, "s", 0);
    uint64_t first = bench_expect_up(bench, "vm1")->instance;
    end(pid);
    bench_expect(bench, "down", "vm1");
    erase(bench, "s");
    pid = serve(bench, "s", 0);
    assert_true(bench_expect_up(bench, "vm1")->instance != first);
    end(pid);
}

static void test_f21_directory_missing_then_made(void **state)
{
    struct bench *bench = *state;
    bench_add_vm(bench, "vm1", "a/b/s");
    bench_expect(bench, "down", "vm1");
    make(bench, "other");
    bench_expect_nothing(bench);
    make(bench, "a");
    make(bench, "a/b");
    pid_t pid = serve(bench, "a/b/s", 0);
    bench_expect_up(bench, "vm1");
    end(pid);
    bench_expect(bench, "down", "vm1");
}

static void test_f21_directory_deleted_and_made_again(void **state)
{
    struct bench *bench = *state;
    make(bench, "a");
    make(bench, "a/b");
    pid_t pid = serve(bench, "a/b/s", 0);
    bench_add_vm(bench, "vm1", "a/b/s");
    bench_expect(bench, "up", "vm1");
    for (int round = 0; round < 3; round++) {
        // The old process lives on, and so, unseen, does its directory.
        erase(bench, "a/b/s");
        erase(bench, "a/b");
        erase(bench, "a");
        bench_expect(bench, "down", "vm1");
        make(bench, "a");
        make(bench, "a/b");
        pid_t next = serve(bench, "a/b/s", 0);
        bench_expect_up(bench, "vm1");
        end(pid);
        bench_expect_nothing(bench);
        pid = next;
    }
    end(pid);
    bench_expect(bench, "down", "vm1");
}

static void test_f21_directory_moved_away_and_back(void **state)
{
    struct bench *bench = *state;
    make(bench, "a");
    make(bench, "a/b");
    pid_t pid = serve(bench, "a/b/s", 0);
    bench_add_vm(bench, "vm1", "a/b/s");
    bench_expect(bench, "up", "vm1");
    CLEANUP(cleanup_free) char *from = path_of(bench, "a");
    CLEANUP(cleanup_free) char *to = path_of(bench, "z");
    assert_int_equal(rename(from, to), 0);
    bench_expect(bench, "down", "vm1");
    assert_int_equal(rename(to, from), 0);
    bench_expect(bench, "up", "vm1");
    end(pid);
    bench_expect(bench, "down", "vm1");
}

static void test_f21_by_a_symbolic_link(void **state)
{
    struct bench *bench = *state;
    make(bench, "one");
    make(bench, "two");
    CLEANUP(cleanup_free) char *link = path_of(bench, "link");
    assert_int_equal(symlink("one", link), 0);
    pid_t pid = serve(bench, "one/s", 0);
    bench_add_vm(bench, "vm1", "link/s");
    bench_expect(bench, "up", "vm1");
    assert_int_equal(unlink(link), 0);
    bench_expect(bench, "down", "vm1");
    assert_int_equal(symlink("two", link), 0);
    pid_t other = serve(bench, "two/s", 0);
    bench_expect_up(bench, "vm1");
    end(pid);
    bench_expect_nothing(bench);
    end(other);
    bench_expect(bench, "down", "vm1");
}

static void test_another_process_takes_over(void **state)
{
    struct bench *bench = *state;
    pid_t pid = serve(bench, "s", 0);
    bench_add_vm(bench, "vm1", "s");
    uint64_t first = bench_expect(bench, "up", "vm1")->instance;
    erase(bench, "s");
    pid_t second = serve(bench, "s", 0);
    assert_true(bench_expect_up(bench, "vm1")->instance != first);
    end(pid); // the first one's death is no news
    bench_expect_nothing(bench);
    end(second);
    bench_expect(bench, "down", "vm1");
}

static void test_down_ends_what_is_in_flight(void **state)
{
    struct bench *bench = *state;
    pid_t pid = serve(bench, "s", 0);
    bench_add_vm(bench, "vm1", "s");
    bench_expect(bench, "up", "vm1");
    bench_list(bench, "vm1");
    end(pid);
    assert_int_not_equal(bench_expect(bench, "done", "vm1")->result.kind, RESULT_DONE);
    bench_expect(bench, "down", "vm1");
    bench_list(bench, "vm1");
    assert_int_equal(bench_expect(bench, "done", "vm1")->result.kind, RESULT_RETRY);
    bench_expect_nothing(bench);
}

static void test_f24_full_backlog(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fds[4] = {-1, -1, -1, -1};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%.40s/s", bench->directory);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    for (int i = 0; i < 4; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fds[i], (struct sockaddr *)&address, sizeof address);
    }
    bench->told_silent = true;
    bench_add_vm(bench, "vm1", "s");
    bench_expect(bench, "up", "vm1"); // busy is not down
    bench_list(bench, "vm1");
    bench_expect(bench, "silent", "vm1");
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    for (int i = 0; i < 2; i++) // those before us
        close(accept(listener, NULL, NULL));
    // Who it is shows now: what was in flight begins anew.
    assert_int_equal(bench_expect(bench, "done", "vm1")->result.kind, RESULT_RETRY);
    bench_expect(bench, "up", "vm1");
    close(listener);
    (void)unlink(address.sun_path);
    bench_expect(bench, "down", "vm1");
}

static void test_paths_that_cannot_be(void **state)
{
    struct bench *bench = *state;
    char name[200];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    bench_add_vm(bench, "vm1", name);
    bench_expect(bench, "down", "vm1");
    bench_add_vm(bench, "vm2", "");
    bench_expect(bench, "down", "vm2");
    make(bench, "directory");
    bench_add_vm(bench, "vm3", "directory");
    bench_expect(bench, "down", "vm3");
    bench_expect_nothing(bench);
}

// Only so many descriptors from now on; returns how many there were to be.
static rlim_t allow(rlim_t descriptors)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = descriptors;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return before;
}

// A start and, later, another one are noticed although at the first there was no room for more than ROOM descriptors.
static void start_without_room(struct bench *bench, rlim_t room)
{
    bench_add_vm(bench, "vm1", "s");
    bench_expect(bench, "down", "vm1");
    bench_expect_nothing(bench);
    pid_t pid = serve(bench, "s", 0);
    rlim_t before = allow(room);
    bench_expect_nothing(bench);
    (void)allow(before);
    bench_expect_up(bench, "vm1");
    erase(bench, "s");
    end(pid);
    bench_expect(bench, "down", "vm1");
    bench_expect_nothing(bench); // the looks after a death are over
    pid = serve(bench, "s", 0);
    bench_expect_up(bench, "vm1");
    end(pid);
    erase(bench, "s");
}

static void test_f20_a_start_without_room_for_a_watch(void **state)
{
    start_without_room(*state, 0);
}

static void test_f20_a_start_without_room_for_a_connection(void **state)
{
    int next = dup(STDERR_FILENO);
    assert_true(next >= 0);
    close(next);
    start_without_room(*state, (rlim_t)next + 1); // the inotify instance of the VM, which is made anew, has room
}

// That there is no room to ask who serves it is no reason to take a VM for dead.
static void test_f20_a_look_without_room_at_a_vm_that_is_up(void **state)
{
    struct bench *bench = *state;
    bench_add_vm(bench, "vm1", "s");
    bench_expect(bench, "down", "vm1");
    pid_t pid = serve(bench, "s", 0);
    bench_expect_up(bench, "vm1");
    bench_expect_nothing(bench);
    CLEANUP(cleanup_free) char *path = path_of(bench, "s");
    assert_int_equal(chmod(path, 0700), 0); // an event that it is looked at for
    rlim_t before = allow(0);
    bench_expect_nothing(bench);
    (void)allow(before);
    bench_expect_nothing(bench);
    end(pid);
    bench_expect(bench, "down", "vm1");
    erase(bench, "s");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

// With an argument: only the tests whose names match it.
int main(int count, char **arguments)
{
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        TEST(test_f20_started_after_us),
        TEST(test_f20_a_start_without_room_for_a_watch),
        TEST(test_f20_a_start_without_room_for_a_connection),
        TEST(test_f20_a_look_without_room_at_a_vm_that_is_up),
        TEST(test_started_before_us),
        TEST(test_f20_socket_that_listens_late),
        TEST(test_stale_file_then_restart),
        TEST(test_f21_directory_missing_then_made),
        TEST(test_f21_directory_deleted_and_made_again),
        TEST(test_f21_directory_moved_away_and_back),
        TEST(test_f21_by_a_symbolic_link),
        TEST(test_another_process_takes_over),
        TEST(test_down_ends_what_is_in_flight),
        TEST(test_f24_full_backlog),
        TEST(test_paths_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
