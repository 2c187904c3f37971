// The life of a VM, seen from outside: starts, stops, deaths, and what may happen to its directory.
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/text.h"
#include "vmm/watch.h"

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

// The kernel has no room for a watch while this is set.
static bool no_room_for_watches;

// Goes before the C library's.
int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    if (!no_room_for_watches)
        return (int)syscall(SYS_inotify_add_watch, fd, path, mask);
    errno = ENOSPC;
    return -1;
}

// Whether a line of fdinfo is about the watch of a directory that may be removed.
static bool watches_itself(const char *line)
{
    const char *mask = strstr(line, " mask:");
    return strncmp(line, "inotify wd:", 11) == 0 && mask && (strtoul(mask + 6, NULL, 16) & IN_DELETE_SELF) != 0;
}

// One for what directories are, one for what is in them.
enum { INSTANCES = 2 };

// The inotify instances of this process, and the directories that they watch for their own sake, counted in WATCHES.
static int count_inotify(int *watches)
{
    int instances = 0;
    char line[512];
    struct dirent *entry;
    CLEANUP(cleanup_directory) DIR *directory = opendir("/proc/self/fdinfo");
    assert_non_null(directory);
    *watches = 0;
    while ((entry = readdir(directory))) {
        CLEANUP(cleanup_free) char *link = string_printf("/proc/self/fd/%s", entry->d_name);
        CLEANUP(cleanup_free) char *path = string_printf("/proc/self/fdinfo/%s", entry->d_name);
        ssize_t length = readlink(link, line, sizeof line - 1);
        line[length < 0 ? 0 : length] = '\0';
        instances += strcmp(line, "anon_inode:inotify") == 0;
        CLEANUP(cleanup_file) FILE *file = fopen(path, "re");
        while (file && fgets(line, sizeof line, file))
            *watches += watches_itself(line);
    }
    return instances;
}

static int instances(void)
{
    int watches;
    return count_inotify(&watches);
}

static int watches(void)
{
    int watches;
    (void)count_inotify(&watches);
    return watches;
}

// Runs the loop until FUNCTION tells COUNT: other programs may have all of the user's inotify instances for a while.
static void expect_count(struct bench *bench, int (*function)(void), int count)
{
    for (uint64_t turns = 0; function() != count && turns < WAIT_US / 1000; turns++)
        bench_turn(bench);
    assert_int_equal(function(), count);
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

static void test_f21_a_directory_twice_on_the_way(void **state)
{
    struct bench *bench = *state;
    make(bench, "a");
    bench_add_vm(bench, "vm1", "a/../s");
    bench_expect(bench, "down", "vm1");
    pid_t pid = serve(bench, "s", 0);
    bench_expect_up(bench, "vm1");
    erase(bench, "s");
    erase(bench, "a");
    bench_expect(bench, "down", "vm1");
    end(pid);
    pid = serve(bench, "s", 0);
    bench_expect_nothing(bench);
    make(bench, "a");
    bench_expect_up(bench, "vm1");
    end(pid);
}

static void test_f21_shared_directory_deleted_and_made_again(void **state)
{
    struct bench *bench = *state;
    make(bench, "a");
    bench_add_vm(bench, "vm1", "a/s1");
    bench_expect(bench, "down", "vm1");
    bench_add_vm(bench, "vm2", "a/s2");
    bench_expect(bench, "down", "vm2");
    for (int round = 0; round < 3; round++) {
        pid_t first = serve(bench, "a/s1", 0);
        bench_expect_up(bench, "vm1");
        pid_t second = serve(bench, "a/s2", 0);
        bench_expect_up(bench, "vm2");
        expect_count(bench, watches, 4); // "/", "/tmp", ours, and "a"
        erase(bench, "a/s1");
        erase(bench, "a/s2");
        erase(bench, "a");
        bench_expect(bench, "down", "vm1");
        bench_expect(bench, "down", "vm2");
        expect_count(bench, watches, 3);
        make(bench, "a");
        bench_expect_nothing(bench);
        end(first);
        end(second);
        bench_expect_nothing(bench);
    }
}

static void test_a_directory_is_watched_while_anyone_needs_it(void **state)
{
    struct bench *bench = *state;
    make(bench, "a");
    make(bench, "b");
    bench_add_vm(bench, "vm1", "a/s1");
    bench_expect(bench, "down", "vm1");
    bench_add_vm(bench, "vm2", "a/s2");
    bench_expect(bench, "down", "vm2");
    bench_add_vm(bench, "vm3", "b/s");
    bench_expect(bench, "down", "vm3");
    expect_count(bench, watches, 5);
    bench_configure(bench, 2); // without vm3
    expect_count(bench, watches, 4);
    bench_configure(bench, 1);
    expect_count(bench, watches, 4);
    pid_t pid = serve(bench, "a/s1", 0);
    bench_expect_up(bench, "vm1");
    end(pid);
    bench_expect(bench, "down", "vm1");
    bench_configure(bench, 0);
    expect_count(bench, watches, 0);
    expect_count(bench, instances, INSTANCES);
}

// The socket's own directory tells all while it is there.
static void test_f44_what_happens_beside_the_way_wakes_nobody(void **state)
{
    struct bench *bench = *state;
    make(bench, "a");
    pid_t pid = serve(bench, "a/s", 0);
    bench_add_vm(bench, "vm1", "a/s");
    bench_expect(bench, "up", "vm1");
    bench_expect_nothing(bench);
    make(bench, "beside");
    assert_int_equal(sd_event_run(bench->loop, 0), 0);
    end(pid);
    bench_expect(bench, "down", "vm1");
}

static void test_few_instances_for_300_vms(void **state)
{
    struct bench *bench = *state;
    enum { COUNT = sizeof bench->vms / sizeof *bench->vms };
    char name[32], socket[32];
    assert_true(COUNT >= 300);
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(name, sizeof name, "vm%d", i);
        (void)snprintf(socket, sizeof socket, "%d/s", i);
        bench_add_vm(bench, name, socket);
        bench_expect(bench, "down", name);
    }
    expect_count(bench, instances, INSTANCES);
    for (int i = 0; i < COUNT; i += COUNT / 3) {
        (void)snprintf(name, sizeof name, "%d", i);
        make(bench, name);
        (void)snprintf(socket, sizeof socket, "%d/s", i);
        pid_t pid = serve(bench, socket, 0);
        (void)snprintf(name, sizeof name, "vm%d", i);
        bench_expect_up(bench, name);
        end(pid);
        bench_expect(bench, "down", name);
    }
    expect_count(bench, instances, INSTANCES);
}

// As many events as the kernel keeps, and some more.
static void flood(struct bench *bench, const char *name)
{
    unsigned long limit = 0;
    CLEANUP(cleanup_file) FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
    assert_true(file && fscanf(file, "%lu", &limit) == 1);
    CLEANUP(cleanup_free) char *one = string_printf("%s/%s/one", bench->directory, name);
    CLEANUP(cleanup_free) char *two = string_printf("%s/%s/two", bench->directory, name);
    assert_int_equal(mkdir(one, 0700), 0);
    for (unsigned long i = 0; i <= limit; i += 4) { // each rename is two events
        assert_int_equal(rename(one, two), 0);
        assert_int_equal(rename(two, one), 0);
    }
    assert_int_equal(remove(one), 0);
}

static void test_events_that_the_kernel_drops(void **state)
{
    struct bench *bench = *state;
    make(bench, "a");
    make(bench, "b");
    bench_add_vm(bench, "vm1", "a/s");
    bench_expect(bench, "down", "vm1");
    bench_add_vm(bench, "vm2", "b/s");
    bench_expect(bench, "down", "vm2");
    flood(bench, "a");
    pid_t first = serve(bench, "a/s", 0);
    pid_t second = serve(bench, "b/s", 0);
    bench_expect_up(bench, "vm1");
    bench_expect_up(bench, "vm2");
    end(first);
    bench_expect(bench, "down", "vm1");
    end(second);
    bench_expect(bench, "down", "vm2");
}

// What comes and goes beside the way is no reason to disturb a VM.
static void test_names_beside_are_not_looked_at(void **state)
{
    struct bench *bench = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    make(bench, "a");
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%.40s/a/s", bench->directory);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 8), 0);
    bench_add_vm(bench, "vm1", "a/s");
    bench_expect(bench, "up", "vm1");
    expect_count(bench, watches, 4);
    for (int looked = 0; looked >= 0;) {
        looked = accept(listener, NULL, NULL);
        cleanup_close(&looked);
    }
    make(bench, "b");
    make(bench, "a/s2");
    erase(bench, "b");
    bench_expect_nothing(bench);
    assert_int_equal(accept(listener, NULL, NULL), -1);
    assert_int_equal(chmod(address.sun_path, 0700), 0);
    bench_expect_nothing(bench);
    int looked = accept(listener, NULL, NULL);
    assert_true(looked >= 0);
    close(looked);
    close(listener);
    bench_expect_nothing(bench);
}

static void look_at_nothing(void *user)
{
    (void)user;
}

// What watching PATH returns, as soon as there is an inotify instance for it.
static int watch_once(struct bench *bench, const char *path)
{
    struct watcher *watcher = watcher_new(bench->loop);
    struct watch *watch = NULL;
    int r = watch_new(&watch, watcher, path, look_at_nothing, NULL);
    for (uint64_t turns = 0; r == -EMFILE && turns < WAIT_US / 1000; turns++) {
        bench_turn(bench);
        watch_free(watch);
        r = watch_new(&watch, watcher, path, look_at_nothing, NULL);
    }
    assert_true((watch == NULL) == (r == -EINVAL || r == -ENAMETOOLONG));
    watch_free(watch);
    watcher_free(watcher);
    return r;
}

static void test_ways_that_end_are_watched_and_others_refused(void **state)
{
    struct bench *bench = *state;
    make(bench, "a");
    CLEANUP(cleanup_free) char *file = path_of(bench, "file");
    CLEANUP(cleanup_free) char *loop = path_of(bench, "loop");
    assert_int_equal(mknod(file, S_IFREG | 0600, 0), 0);
    assert_int_equal(symlink("loop", loop), 0);
    static const char *const ends[] = {"s", "a/s", "missing/b/s", "file/b/s", "loop/b/s"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        CLEANUP(cleanup_free) char *path = path_of(bench, ends[i]);
        assert_int_equal(watch_once(bench, path), 0);
    }
    assert_int_equal(watch_once(bench, ""), -EINVAL);
    assert_int_equal(watch_once(bench, "/"), -EINVAL);
    assert_int_equal(watch_once(bench, "run/s"), -EINVAL);
    struct text deep = {0};
    for (int i = 0; i < 64; i++)
        text_add(&deep, "/.");
    assert_int_equal(watch_once(bench, deep.string), 0);
    text_add(&deep, "/.");
    assert_int_equal(watch_once(bench, deep.string), -ENAMETOOLONG);
    text_clear(&deep);
}

// The directories behind a link are not on the way, but for the last one.
static void test_f21_moved_away_behind_a_symbolic_link(void **state)
{
    struct bench *bench = *state;
    make(bench, "a");
    make(bench, "a/b");
    CLEANUP(cleanup_free) char *link = path_of(bench, "link");
    CLEANUP(cleanup_free) char *from = path_of(bench, "a/b");
    CLEANUP(cleanup_free) char *to = path_of(bench, "a/z");
    assert_int_equal(symlink("a/b", link), 0);
    pid_t pid = serve(bench, "a/b/s", 0);
    bench_add_vm(bench, "vm1", "link/s");
    bench_expect(bench, "up", "vm1");
    expect_count(bench, watches, 4);
    assert_int_equal(rename(from, to), 0);
    bench_expect(bench, "down", "vm1");
    end(pid);
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

// A start, at which there is no room for a descriptor, and a later one are noticed.
static void start_without_room(struct bench *bench)
{
    bench_expect(bench, "down", "vm1");
    bench_expect_nothing(bench);
    pid_t pid = serve(bench, "s", 0);
    rlim_t before = allow(0);
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

static void test_f20_a_start_without_room_for_an_instance(void **state)
{
    struct bench *bench = *state;
    rlim_t before = allow(0);
    bench_add_vm(bench, "vm1", "s"); // the first one: the instance would be made now
    (void)allow(before);
    assert_int_equal(instances(), 0);
    start_without_room(bench);
    expect_count(bench, instances, INSTANCES);
}

// There is room for a connection, and none to ask who is behind it.
static void test_f31_a_vm_is_not_taken_for_another_for_want_of_room(void **state)
{
    struct bench *bench = *state;
    pid_t pid = serve(bench, "s", 0);
    bench_add_vm(bench, "vm1", "s");
    uint64_t instance = bench_expect(bench, "up", "vm1")->instance;
    bench_expect_nothing(bench);
    int next = dup(STDERR_FILENO);
    close(next);
    rlim_t before = allow((rlim_t)next + 1);
    bench_list(bench, "vm1");
    assert_int_equal(bench_expect(bench, "done", "vm1")->result.kind, RESULT_RETRY);
    CLEANUP(cleanup_free) char *path = string_printf("%s/s", bench->directory);
    assert_int_equal(chmod(path, 0600), 0); // at which it is looked at
    bench_expect_nothing(bench);
    (void)allow(before);
    bench_list(bench, "vm1"); // to one that never greets, from here on
    bench_expect_nothing(bench);
    end(pid);
    assert_int_equal(bench_expect(bench, "done", "vm1")->result.kind, RESULT_RETRY);
    bench_expect(bench, "down", "vm1");
    erase(bench, "s");
    pid = serve(bench, "s", 0);
    assert_true(bench_expect_up(bench, "vm1")->instance != instance);
    end(pid);
}

static void test_f20_a_start_without_room_for_a_watch(void **state)
{
    struct bench *bench = *state;
    bench_add_vm(bench, "vm1", "a/s");
    bench_expect(bench, "down", "vm1");
    no_room_for_watches = true;
    make(bench, "a"); // from here on it is not watched
    bench_expect_nothing(bench);
    assert_int_equal(watches(), 0);
    pid_t pid = serve(bench, "a/s", 0);
    no_room_for_watches = false;
    bench_expect_up(bench, "vm1");
    erase(bench, "a/s");
    end(pid);
    bench_expect(bench, "down", "vm1");
    bench_expect_nothing(bench);
    pid = serve(bench, "a/s", 0);
    bench_expect_up(bench, "vm1");
    end(pid);
}

static void test_f20_a_start_without_room_for_a_connection(void **state)
{
    struct bench *bench = *state;
    bench_add_vm(bench, "vm1", "s");
    start_without_room(bench);
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
        TEST(test_f20_a_start_without_room_for_an_instance),
        TEST(test_f31_a_vm_is_not_taken_for_another_for_want_of_room),
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
        TEST(test_ways_that_end_are_watched_and_others_refused),
        TEST(test_f21_moved_away_behind_a_symbolic_link),
        TEST(test_f21_a_directory_twice_on_the_way),
        TEST(test_f21_shared_directory_deleted_and_made_again),
        TEST(test_a_directory_is_watched_while_anyone_needs_it),
        TEST(test_f44_what_happens_beside_the_way_wakes_nobody),
        TEST(test_few_instances_for_300_vms),
        TEST(test_events_that_the_kernel_drops),
        TEST(test_names_beside_are_not_looked_at),
        TEST(test_another_process_takes_over),
        TEST(test_down_ends_what_is_in_flight),
        TEST(test_f24_full_backlog),
        TEST(test_paths_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
