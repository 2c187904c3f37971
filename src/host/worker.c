// Work that may block, in a few threads: opening device nodes, reading attributes of devices.
#include "host/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "util/text.h"

enum { END_WAIT_SECONDS = 2 };

struct jobs {
    struct job *first, **end;
};

// Shared by the loop and the threads, and freed by the last of them.
struct worker {
    pthread_mutex_t lock; // guards the members up to the event descriptor
    pthread_cond_t work;  // for the thread that stays: there is a job, or the end
    pthread_cond_t idle;  // no thread is left
    unsigned references, threads, limit;
    unsigned busy;   // threads that have a job
    unsigned queued; // jobs that wait
    bool staying;    // a thread waits for work
    bool closed;
    bool abandoned;  // nobody waits for the threads any more
    bool has_ended;  // a thread, which is to be joined
    pthread_t ended; // the last to have ended, after joining the one before
    struct jobs queue, finished;
    int event_fd;            // readable: something has finished
    sd_event_source *source; // the loop's alone
};

static void jobs_init(struct jobs *jobs)
{
    jobs->first = NULL;
    jobs->end = &jobs->first;
}

static void jobs_push(struct jobs *jobs, struct job *job)
{
    job->next = NULL;
    *jobs->end = job;
    jobs->end = &job->next;
}

static struct job *jobs_pop(struct jobs *jobs)
{
    struct job *job = jobs->first;

    if (job == NULL)
        return NULL;
    jobs->first = job->next;
    if (jobs->first == NULL)
        jobs->end = &jobs->first;
    return job;
}

// Leaves with the lock released; frees when nobody is left.
static void unlock_and_release(struct worker *worker)
{
    bool last = --worker->references == 0;

    pthread_mutex_unlock(&worker->lock);
    if (!last)
        return;
    pthread_cond_destroy(&worker->idle);
    pthread_cond_destroy(&worker->work);
    pthread_mutex_destroy(&worker->lock);
    close(worker->event_fd);
    free(worker);
}

// With the lock held, which it lets go of to tell the loop: that would only run into it.
static void finish(struct worker *worker, struct job *job)
{
    uint64_t one = 1;

    jobs_push(&worker->finished, job);
    pthread_mutex_unlock(&worker->lock);
    // The counter cannot be full; and the descriptor stays open as long as the worker.
    (void)!write(worker->event_fd, &one, sizeof(one));
    pthread_mutex_lock(&worker->lock);
}

// With the lock held. One thread stays for the next job, which is not to wait for a thread to be made; NULL: end.
static struct job *take_job(struct worker *worker)
{
    if (worker->queued == 0 && !worker->staying) {
        worker->staying = true;
        while (!worker->closed && worker->queued == 0)
            pthread_cond_wait(&worker->work, &worker->lock);
        worker->staying = false;
    }
    if (worker->queued == 0)
        return NULL;
    worker->queued--;
    worker->busy++;
    return jobs_pop(&worker->queue);
}

// With the lock held, but not meanwhile: nobody else is to wait for that thread.
static void join_thread(struct worker *worker, pthread_t thread)
{
    pthread_mutex_unlock(&worker->lock);
    pthread_join(thread, NULL);
    pthread_mutex_lock(&worker->lock);
}

// With the lock held. Each joins the one before it, so that who joins the last has joined them all.
static void end_thread(struct worker *worker)
{
    bool joins = worker->has_ended;
    pthread_t before = worker->ended;

    worker->has_ended = !worker->abandoned;
    worker->ended = pthread_self();
    if (worker->abandoned)
        pthread_detach(pthread_self());
    if (--worker->threads == 0)
        pthread_cond_signal(&worker->idle);
    if (joins)
        join_thread(worker, before);
}

static void *thread_main(void *user)
{
    struct worker *worker = user;
    struct job *job;

    pthread_mutex_lock(&worker->lock);
    while ((job = take_job(worker)) != NULL) {
        pthread_mutex_unlock(&worker->lock);
        job->run(job);
        pthread_mutex_lock(&worker->lock);
        worker->busy--;
        if (!worker->closed) {
            finish(worker, job);
            continue;
        }
        pthread_mutex_unlock(&worker->lock);
        job->release(job);
        pthread_mutex_lock(&worker->lock);
    }
    end_thread(worker);
    unlock_and_release(worker);
    return NULL;
}

// With the lock held. All signals belong to the loop's thread.
static int start_thread(struct worker *worker)
{
    sigset_t all, before;
    pthread_t thread; // to be joined by the next that ends, or by worker_free
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, NULL, thread_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        return -error;
    worker->threads++;
    worker->references++;
    return 0;
}

void worker_submit(struct worker *worker, struct job *job)
{
    pthread_mutex_lock(&worker->lock);
    jobs_push(&worker->queue, job);
    worker->queued++;
    if (worker->queued <= worker->threads - worker->busy) {
        pthread_cond_signal(&worker->work); // whoever is not busy looks into the queue before it ends
    } else if (worker->threads < worker->limit && start_thread(worker) < 0 && worker->threads == 0) {
        // No thread can be had: late is better than never.
        while ((job = jobs_pop(&worker->queue)) != NULL) {
            worker->queued--;
            pthread_mutex_unlock(&worker->lock);
            job->run(job);
            pthread_mutex_lock(&worker->lock);
            finish(worker, job);
        }
    }
    pthread_mutex_unlock(&worker->lock);
}

// The list of what has finished, by `next`.
static struct job *take_finished(struct worker *worker)
{
    struct job *first;
    uint64_t count;

    pthread_mutex_lock(&worker->lock);
    if (read(worker->event_fd, &count, sizeof(count)) < 0)
        count = 0; // nothing is new; the list says it all
    first = worker->finished.first;
    jobs_init(&worker->finished);
    pthread_mutex_unlock(&worker->lock);
    return first;
}

static int handle_finished(sd_event_source *source, int fd, uint32_t events, void *user)
{
    struct job *job = take_finished(user);

    (void)source, (void)fd, (void)events;
    while (job != NULL) {
        struct job *next = job->next;
        job->done(job);
        job->release(job);
        job = next;
    }
    return 0;
}

static int init_locks(struct worker *worker)
{
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);

    if (error != 0)
        return -error;
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    error = pthread_cond_init(&worker->idle, &attributes);
    pthread_condattr_destroy(&attributes);
    if (error == 0)
        error = pthread_cond_init(&worker->work, NULL);
    return error != 0 ? -error : -pthread_mutex_init(&worker->lock, NULL);
}

int worker_new(struct worker **worker, sd_event *loop, unsigned limit)
{
    CLEANUP(cleanup_close) int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CLEANUP(cleanup_worker) struct worker *new = NULL;
    int error;

    if (event_fd < 0)
        return -errno;
    new = memory_new(1, sizeof(*new));
    error = init_locks(new);
    if (error < 0) {
        free(steal_pointer(&new));
        return error;
    }
    new->references = 1;
    new->limit = limit;
    new->event_fd = steal_fd(&event_fd);
    jobs_init(&new->queue);
    jobs_init(&new->finished);
    error = sd_event_add_io(loop, &new->source, new->event_fd, EPOLLIN, handle_finished, new);
    if (error < 0)
        return error;
    *worker = steal_pointer(&new);
    return 0;
}

static void release_all(struct jobs *jobs)
{
    for (struct job *job = jobs_pop(jobs); job != NULL; job = jobs_pop(jobs))
        job->release(job);
}

// With the lock held.
static void wait_for_threads(struct worker *worker)
{
    struct timespec end;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += END_WAIT_SECONDS;
    while (worker->threads > 0 && !worker->abandoned)
        worker->abandoned = pthread_cond_timedwait(&worker->idle, &worker->lock, &end) != 0;
    if (!worker->has_ended)
        return;
    worker->has_ended = false;
    join_thread(worker, worker->ended);
}

void worker_free(struct worker *worker)
{
    if (worker == NULL)
        return;
    sd_event_source_disable_unref(worker->source);
    worker->source = NULL;
    pthread_mutex_lock(&worker->lock);
    worker->closed = true;
    release_all(&worker->queue);
    worker->queued = 0;
    release_all(&worker->finished);
    pthread_cond_signal(&worker->work);
    wait_for_threads(worker);
    unlock_and_release(worker);
}
