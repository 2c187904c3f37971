// The memory of the process is one for all threads, and what is free goes back to the system.
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "unit.h"
#include "util/heap.h"
#include "util/text.h"

#define THREADS 8
#define BLOCKS 4096
#define BLOCK_SIZE 4000

static pthread_barrier_t together;

// All have memory at the same time.
static void *use_memory(void *user)
{
    void *memory = memory_new(BLOCK_SIZE, 1);
    (void)user;
    pthread_barrier_wait(&together);
    pthread_barrier_wait(&together);
    free(memory);
    return NULL;
}

static size_t count_heaps(void)
{
    size_t count = 0, length;
    CLEANUP(cleanup_free) char *text = NULL;
    FILE *file = open_memstream(&text, &length);
    assert_non_null(file);
    assert_int_equal(malloc_info(0, file), 0);
    assert_int_equal(fclose(file), 0);
    for (const char *at = text; (at = strstr(at, "<heap nr=")); at++)
        count++;
    return count;
}

static void test_threads_share_one_heap(void **state)
{
    pthread_t threads[THREADS];
    (void)state;
    assert_int_equal(pthread_barrier_init(&together, NULL, THREADS + 1), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_memory, NULL), 0);
    pthread_barrier_wait(&together);
    size_t heaps = count_heaps();
    pthread_barrier_wait(&together);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    pthread_barrier_destroy(&together);
    assert_int_equal(heaps, 1);
}

// Bytes of memory that the process really has.
static size_t resident(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*u %lu", &pages), 1);
    assert_int_equal(fclose(file), 0);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void test_what_is_free_is_given_back(void **state)
{
    static char *blocks[BLOCKS];
    (void)state;
    for (size_t i = 0; i < BLOCKS; i++)
        blocks[i] = memset(memory_new(BLOCK_SIZE, 1), 1, BLOCK_SIZE);
    char *last = memory_new(BLOCK_SIZE, 1); // all before it stays where it is
    for (size_t i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    size_t before = resident();
    heap_trim();
    assert_true(resident() + (size_t)BLOCKS * BLOCK_SIZE / 2 < before);
    free(last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_share_one_heap),
        cmocka_unit_test(test_what_is_free_is_given_back),
    };
    heap_share();
    return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
