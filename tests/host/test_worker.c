// The threads for what may block: one stays for the next job, and none waits behind one that hangs.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <unistd.h>

#include "host/worker.h"
#include "util/text.h"

enum { LIMIT = 3 };

// What all jobs of a test share.
struct bench {
    sd_event *loop;
    struct worker *worker;
    pthread_mutex_t lock; // guards what threads touch
    pthread_cond_t changed;
    bool closed;            // a job that waits goes on waiting
    unsigned running, ran;  // jobs that wait; jobs whose work was done
    unsigned done, release; // told in the loop; given back
};

struct work {
    struct job job; // first
    struct bench *bench;
    bool waits;
    pid_t *thread; // that did it
};

// Of the threads' own values, which are destroyed when a thread ends.
static pthread_key_t own_value;
static atomic_uint ended;

static void count_end(void *value)
{
    (void)value;
    usleep(20000); // as long as any other is to wait for it
    ended++;
}

static void run(struct job *job)
{
    struct work *work = (struct work *)job;
    struct bench *bench = work->bench;

    *work->thread = gettid();
    pthread_setspecific(own_value, work->thread);
    pthread_mutex_lock(&bench->lock);
    bench->running++;
    pthread_cond_broadcast(&bench->changed);
    while (work->waits && bench->closed)
        pthread_cond_wait(&bench->changed, &bench->lock);
    bench->running--;
    bench->ran++;
    pthread_mutex_unlock(&bench->lock);
}

static void done(struct job *job)
{
    ((struct work *)job)->bench->done++;
}

static void release(struct job *job)
{
    struct bench *bench = ((struct work *)job)->bench;

    pthread_mutex_lock(&bench->lock);
    bench->release++;
    pthread_mutex_unlock(&bench->lock);
    free(job);
}

static void submit(struct bench *bench, bool waits, pid_t *thread)
{
    struct work *work = memory_new(1, sizeof(*work));

    *work = (struct work){{.run = run, .done = done, .release = release}, bench, waits, thread};
    worker_submit(bench->worker, &work->job);
}

static void wait_done(struct bench *bench, unsigned count)
{
    while (bench->done < count)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
}

static void wait_running(struct bench *bench, unsigned count)
{
    pthread_mutex_lock(&bench->lock);
    while (bench->running < count)
        pthread_cond_wait(&bench->changed, &bench->lock);
    pthread_mutex_unlock(&bench->lock);
}

static void set_closed(struct bench *bench, bool closed)
{
    pthread_mutex_lock(&bench->lock);
    bench->closed = closed;
    pthread_cond_broadcast(&bench->changed);
    pthread_mutex_unlock(&bench->lock);
}

static unsigned count_threads(void)
{
    DIR *directory = opendir("/proc/self/task");
    unsigned count = 0;

    assert_non_null(directory);
    for (const struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

// Before the first test.
static unsigned threads_of_our_own;

// A thread that has done its last job is gone a moment later.
static void wait_threads(unsigned count)
{
    while (count_threads() != count)
        usleep(1000);
}

static int set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof(*bench));

    wait_threads(threads_of_our_own); // of the test before
    ended = 0;
    *bench = (struct bench){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    assert_int_equal(sd_event_new(&bench->loop), 0);
    assert_int_equal(worker_new(&bench->worker, bench->loop, LIMIT), 0);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    worker_free(bench->worker);
    sd_event_unref(bench->loop);
    free(bench);
    return 0;
}

static void test_one_thread_stays_and_does_one_job_after_the_other(void **state)
{
    struct bench *bench = *state;
    pid_t threads[20] = {0};

    for (unsigned i = 0; i < 20; i++) {
        submit(bench, false, &threads[i]);
        wait_done(bench, i + 1);
        assert_int_equal(threads[i], threads[0]);
    }
    assert_int_equal(count_threads(), threads_of_our_own + 1);
    assert_int_not_equal(threads[0], gettid());
}

static void test_a_job_that_hangs_holds_up_no_other(void **state)
{
    struct bench *bench = *state;
    pid_t threads[4] = {0};

    submit(bench, false, &threads[0]);
    wait_done(bench, 1);
    set_closed(bench, true);
    submit(bench, true, &threads[1]); // on the thread that stayed
    wait_running(bench, 1);
    assert_int_equal(threads[1], threads[0]);
    for (unsigned i = 2; i < 4; i++) {
        submit(bench, false, &threads[i]);
        wait_done(bench, i);
        assert_int_not_equal(threads[i], threads[1]);
    }
    set_closed(bench, false);
    wait_done(bench, 4);
    wait_threads(threads_of_our_own + 1); // however many there were, one stays
}

static void test_at_most_so_many_threads(void **state)
{
    struct bench *bench = *state;
    pid_t threads[10] = {0};

    set_closed(bench, true);
    for (unsigned i = 0; i < 10; i++)
        submit(bench, true, &threads[i]);
    wait_running(bench, LIMIT);
    assert_int_equal(count_threads(), threads_of_our_own + LIMIT);
    set_closed(bench, false);
    wait_done(bench, 10);
    assert_int_equal(bench->ran, 10);
    wait_threads(threads_of_our_own + 1);
}

static void test_the_thread_that_stays_ends_with_the_worker(void **state)
{
    struct bench *bench = *state;
    pid_t threads[2] = {0};

    submit(bench, false, &threads[0]);
    wait_done(bench, 1);
    worker_free(steal_pointer(&bench->worker));
    assert_int_equal(ended, 1); // to its very end: else its memory is not given back when the process ends
    assert_int_equal(bench->release, 1);
}

static void test_a_thread_that_hangs_is_left_to_end_by_itself(void **state)
{
    struct bench *bench = *state;
    pid_t threads[3] = {0};

    set_closed(bench, true);
    submit(bench, true, &threads[0]);
    wait_running(bench, 1);
    for (unsigned i = 1; i < 3; i++) {
        submit(bench, false, &threads[i]);
        wait_done(bench, i);
    }
    worker_free(steal_pointer(&bench->worker));
    assert_int_equal(ended, 1); // the one that stayed
    assert_int_equal(bench->release, 2);
    set_closed(bench, false);
    while (ended < 2)
        usleep(1000);
    assert_int_equal(bench->release, 3);
    assert_int_equal(bench->done, 2);
}

static void test_what_nobody_has_begun_is_given_back_at_the_end(void **state)
{
    struct bench *bench = *state;
    pid_t threads[LIMIT + 2] = {0};

    set_closed(bench, true);
    for (unsigned i = 0; i < LIMIT + 2; i++)
        submit(bench, true, &threads[i]);
    wait_running(bench, LIMIT);
    set_closed(bench, false);
    worker_free(steal_pointer(&bench->worker));
    assert_int_equal(ended, LIMIT);
    assert_int_equal(bench->done, 0);
    assert_int_equal(bench->release, LIMIT + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_thread_stays_and_does_one_job_after_the_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_job_that_hangs_holds_up_no_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_at_most_so_many_threads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_thread_that_stays_ends_with_the_worker, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_thread_that_hangs_is_left_to_end_by_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_nobody_has_begun_is_given_back_at_the_end, set_up, tear_down),
    };

    assert_int_equal(pthread_key_create(&own_value, count_end), 0);
    threads_of_our_own = count_threads();
    return cmocka_run_group_tests_name("host-worker", tests, NULL, NULL);
}
