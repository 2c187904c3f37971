// Devices made ready for VMs and taken back, in threads: the order, the answers, and the end in the midst of it.
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
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "handover_bench.h"
#include "host/access_record.h"
#include "host/again.h"
#include "host/input.h"
#include "tree.h"
#include "util/text.h"

#define ANSWERS_MAX 256

// ---- stands in for host/bind.c

static struct {
    pthread_mutex_t lock; // guards the rest
    enum host_open_kind kind;
    unsigned running, most, given_back; // most at once
    unsigned first_given_back;          // of these, of pci:0000:01:00.0
    bool busy, patient;
    bool held;    // binding does not end
    bool besides; // others are bound with it
    char *others; // of the last that was given back: "pci:0000:01:00.1 taken"
} binder = {.lock = PTHREAD_MUTEX_INITIALIZER};

enum host_open_kind __wrap_bind_take(const struct bind_paths *paths, const struct device *device, char **text);
char *__wrap_bind_give_back(const struct bind_paths *paths, const struct device *device,
                            const struct bind_others *others, bool patient, bool *busy);

static void begin_binding(void)
{
    pthread_mutex_lock(&binder.lock);
    if (++binder.running > binder.most)
        binder.most = binder.running;
    do { // so that another one would be met
        pthread_mutex_unlock(&binder.lock);
        usleep(1000);
        pthread_mutex_lock(&binder.lock);
    } while (binder.held);
}

static void end_binding(void)
{
    binder.running--;
    pthread_mutex_unlock(&binder.lock);
}

enum host_open_kind __wrap_bind_take(const struct bind_paths *paths, const struct device *device, char **text)
{
    enum host_open_kind kind;

    (void)paths;
    begin_binding();
    kind = binder.kind;
    *text = kind != HOST_OPEN_READY ? string_copy(device->key) : binder.besides ? string_copy("others too") : NULL;
    end_binding();
    return kind;
}

char *__wrap_bind_give_back(const struct bind_paths *paths, const struct device *device,
                            const struct bind_others *others, bool patient, bool *busy)
{
    struct text text = {0};

    (void)paths;
    begin_binding();
    for (size_t i = 0; i < others->count; i++)
        text_printf(&text, "%s%s", i > 0 ? " " : "", others->keys[i]);
    text_add(&text, others->taken ? " taken" : "");
    free(binder.others);
    binder.others = text_take(&text);
    binder.given_back++;
    binder.first_given_back += string_equal(device->key, "pci:0000:01:00.0");
    binder.patient = patient;
    *busy = binder.busy && !others->taken;
    end_binding();
    return NULL;
}

static unsigned count_given_back(const unsigned *count)
{
    unsigned now;

    pthread_mutex_lock(&binder.lock);
    now = *count;
    pthread_mutex_unlock(&binder.lock);
    return now;
}

static void expect_others(const char *others)
{
    CLEANUP(cleanup_free) char *now = NULL;

    pthread_mutex_lock(&binder.lock);
    now = string_copy(binder.others);
    pthread_mutex_unlock(&binder.lock);
    assert_string_equal(now, others);
}

static void set_busy(bool busy)
{
    pthread_mutex_lock(&binder.lock);
    binder.busy = busy;
    pthread_mutex_unlock(&binder.lock);
}

static void set_held(bool held)
{
    pthread_mutex_lock(&binder.lock);
    binder.held = held;
    pthread_mutex_unlock(&binder.lock);
}

static bool is_patient(void)
{
    bool patient;

    pthread_mutex_lock(&binder.lock);
    patient = binder.patient;
    pthread_mutex_unlock(&binder.lock);
    return patient;
}

// ---- the log

static struct text said;

void __wrap_log_line(struct log *log, enum log_level level, const struct log_subject *subject, const char *format, ...)
    PRINTF(4, 5);

void __wrap_log_line(struct log *log, enum log_level level, const struct log_subject *subject, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[1000];
    va_list arguments;

    (void)log, (void)subject;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    text_printf(&said, "%s: %s\n", names[level], line);
}

static void expect_said(const char *lines)
{
    assert_string_equal(said.string != NULL ? said.string : "", lines);
    text_clear(&said);
}

// ---- time passes at once, but for the one in which a driver is to have answered

static bool drivers_are_slow;

static uint64_t shorten(uint64_t time)
{
    bool of_driver = time > 10 * UINT64_C(1000000);

    return of_driver && !drivers_are_slow ? time : 1;
}

int __real_sd_event_add_time_relative(sd_event *loop, sd_event_source **source, clockid_t clock, uint64_t time,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *user);
int __wrap_sd_event_add_time_relative(sd_event *loop, sd_event_source **source, clockid_t clock, uint64_t time,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *user);
int __real_sd_event_source_set_time_relative(sd_event_source *source, uint64_t time);
int __wrap_sd_event_source_set_time_relative(sd_event_source *source, uint64_t time);

int __wrap_sd_event_add_time_relative(sd_event *loop, sd_event_source **source, clockid_t clock, uint64_t time,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *user)
{
    return __real_sd_event_add_time_relative(loop, source, clock, shorten(time), accuracy > 0 ? 1 : 0, handler, user);
}

int __wrap_sd_event_source_set_time_relative(sd_event_source *source, uint64_t time)
{
    return __real_sd_event_source_set_time_relative(source, shorten(time));
}

// ---- the bench

struct bench {
    struct handover_bench base;
    struct device *device;         // USB
    uint64_t serials[ANSWERS_MAX]; // in the order of the answers
    enum host_open_kind kind;      // of the last
    bool had_fd, keeps;
    int kept; // the descriptor of the last, where it is kept
    char *text;
    void (*on_answer)(struct bench *bench);
};

static void handle_answer(void *user, struct handover_answer *answer)
{
    struct bench *bench = user;

    assert_true(bench->base.answers < ANSWERS_MAX);
    bench->serials[bench->base.answers++] = answer->serial;
    bench->kind = answer->kind;
    bench->had_fd = answer->fd >= 0;
    if (bench->keeps)
        bench->kept = steal_fd(&answer->fd);
    free(bench->text);
    bench->text = string_copy(answer->text);
    if (bench->on_answer != NULL)
        bench->on_answer(bench);
}

static int set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof(*bench));

    handover_bench_init(&bench->base, LOG_LEVEL_WARNING, handle_answer, bench);
    bench->device = tree_mouse_device(bench->base.root);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;

    handover_bench_clear(&bench->base);
    device_release(bench->device);
    free(bench->text);
    free(bench);
    free(steal_pointer(&binder.others));
    text_clear(&said);
    set_busy(false);
    return 0;
}

static void ask(struct bench *bench, struct device *device, uint64_t serial)
{
    handover_open(bench->base.handover, device, serial, &(struct host_receiver){0}, NULL);
}

static void expect(struct bench *bench, struct device *device, enum host_open_kind kind, const char *text)
{
    unsigned before = bench->base.answers;

    ask(bench, device, 7);
    assert_int_equal(bench->base.answers, before); // never from inside
    handover_bench_wait(&bench->base, before + 1);
    assert_int_equal(bench->serials[before], 7);
    assert_int_equal(bench->kind, kind);
    assert_int_equal(bench->had_fd, kind == HOST_OPENED);
    if (text == NULL)
        assert_null(bench->text);
    else
        assert_non_null(strstr(bench->text, text));
}

static void test_a_usb_device_is_opened(void **state)
{
    struct bench *bench = *state;

    expect(bench, bench->device, HOST_OPENED, NULL);
    bench->device->product_id = 2;
    expect(bench, bench->device, HOST_OPEN_GONE, "another device has taken its place");
}

static void test_the_receiver_may_keep_the_descriptor(void **state)
{
    struct bench *bench = *state;

    bench->keeps = true;
    ask(bench, bench->device, 9);
    handover_bench_wait(&bench->base, 1);
    assert_int_equal(bench->serials[0], 9);
    assert_int_equal(close(bench->kept), 0);
}

static void test_f35_what_the_host_uses_is_not_opened(void **state)
{
    struct bench *bench = *state;

    handover_open(bench->base.handover, bench->device, 7, &(struct host_receiver){0},
                  string_copy("/ is mounted from sda1"));
    handover_bench_wait(&bench->base, 1);
    assert_int_equal(bench->kind, HOST_OPEN_IN_USE);
    assert_false(bench->had_fd);
    assert_string_equal(bench->text, "/ is mounted from sda1");
}

// An input device of the tree; its instance is that of its directory.
static struct device *add_input(const struct bench *bench)
{
    struct device *device = device_new(DEVICE_INPUT);

    tree_directory(bench->base.root, "input/input5");
    device->key = string_copy("input:input5");
    device->syspath = string_printf("%s/input/input5", bench->base.root);
    device->node = string_copy("/dev/input/event5");
    device->instance = input_instance(device->syspath);
    assert_int_not_equal(device->instance, 0);
    return device;
}

static void test_an_input_device_is_ready_while_it_is_the_same(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = add_input(bench);

    expect(bench, device, HOST_OPEN_READY, NULL);
    device->instance++;
    expect(bench, device, HOST_OPEN_GONE, "the device has gone");
    device->instance--;
    tree_remove(bench->base.root, "input/input5");
    expect(bench, device, HOST_OPEN_GONE, "the device has gone");
}

// What a thread has found ready may go before the loop hears of that.
static void test_an_input_device_that_went_before_the_answer(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *device = add_input(bench);

    ask(bench, device, 1);
    if (sd_event_prepare(bench->base.loop) == 0)
        assert_true(sd_event_wait(bench->base.loop, UINT64_MAX) > 0); // the thread has ended
    tree_remove(bench->base.root, "input/input5");
    assert_true(sd_event_dispatch(bench->base.loop) >= 0);
    assert_int_equal(bench->base.answers, 1);
    assert_int_equal(bench->kind, HOST_OPEN_GONE);
    assert_string_equal(bench->text, "the device has gone");
}

static void test_many_at_once_are_each_answered_once_in_order(void **state)
{
    struct bench *bench = *state;

    for (unsigned i = 0; i < 200; i++) {
        ask(bench, bench->device, i);
        if (i % 3 == 0)
            handover_settle(bench->base.handover, bench->device, i % 2 == 0);
    }
    handover_bench_wait(&bench->base, 200);
    assert_int_equal(sd_event_run(bench->base.loop, 0), 0);
    assert_int_equal(bench->base.answers, 200);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(bench->serials[i], i);
}

static void ask_again(struct bench *bench)
{
    bench->on_answer = NULL;
    ask(bench, bench->device, 2);
}

// A function of an IOMMU group.
static struct device *new_function(const char *key, int group)
{
    struct device *device = device_new(DEVICE_PCI);

    device->key = string_copy(key);
    device->syspath = string_printf("/sys/%s", key);
    device->instance = 1;
    device->iommu_group = group;
    return device;
}

static void expect_given_back(struct bench *bench, struct device *device, const char *others)
{
    unsigned before = count_given_back(&binder.given_back);

    handover_settle(bench->base.handover, device, true);
    while (count_given_back(&binder.given_back) == before)
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    expect_others(others);
}

static void test_f34_a_group_is_bound_one_at_a_time(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_device) struct device *second = new_function("pci:0000:01:00.1", 11);

    binder.kind = HOST_OPEN_READY;
    binder.most = 0;
    for (unsigned i = 0; i < 40; i++) {
        ask(bench, i % 2 == 0 ? first : second, i);
        handover_settle(bench->base.handover, i % 2 == 0 ? second : first, true);
    }
    handover_bench_wait(&bench->base, 40);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(bench->serials[i], i);
    assert_int_equal(binder.most, 1);
}

static void test_f34_what_is_in_a_vm_is_known_when_its_group_goes_back(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_device) struct device *second = new_function("pci:0000:01:00.1", 11);
    CLEANUP(cleanup_device) struct device *stranger = new_function("pci:0000:02:00.0", 12);

    binder.kind = HOST_OPEN_READY;
    expect(bench, first, HOST_OPEN_READY, NULL);
    expect_given_back(bench, second, "pci:0000:01:00.0 taken");
    expect_given_back(bench, stranger, "");
    handover_settle(bench->base.handover, first, false); // its VM has ended
    expect_given_back(bench, second, "pci:0000:01:00.0");
    expect_given_back(bench, first, "");
    expect_given_back(bench, second, "");
    expect(bench, first, HOST_OPEN_READY, NULL);
    handover_gone(bench->base.handover, first); // pulled
    expect_given_back(bench, second, "");
    binder.kind = HOST_OPEN_RETRY;
    expect(bench, first, HOST_OPEN_RETRY, "pci:0000:01:00.0");
    expect_given_back(bench, second, "pci:0000:01:00.0");
}

static void test_f34_what_is_made_ready_for_a_vm_to_come_is_kept_for_it(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_device) struct device *second = new_function("pci:0000:01:00.1", 11);

    binder.kind = HOST_OPEN_READY;
    handover_open(bench->base.handover, first, 1, &(struct host_receiver){.awaited = true}, NULL);
    handover_bench_wait(&bench->base, 1);
    expect_given_back(bench, second, "pci:0000:01:00.0"); // the VM may never come
    expect_said("");
    expect(bench, first, HOST_OPEN_READY, NULL);
    expect_given_back(bench, second, "pci:0000:01:00.0 taken");
}

static void test_f34_what_keeps_a_group_from_going_back_is_said_once(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_device) struct device *second = new_function("pci:0000:01:00.1", 11);

    binder.kind = HOST_OPEN_READY;
    for (int round = 0; round < 2; round++) {
        expect(bench, first, HOST_OPEN_READY, NULL);
        expect_given_back(bench, second, "pci:0000:01:00.0 taken");
        expect_said("info: 0000:01:00.1 stays on vfio-pci, as all of its IOMMU group 11, until 0000:01:00.0 has left "
                    "its VM\n");
        expect_given_back(bench, second, "pci:0000:01:00.0 taken");
        handover_settle(bench->base.handover, first, false); // its VM has ended
        expect_given_back(bench, second, "pci:0000:01:00.0");
        expect_said("");
    }
}

// What comes next in the lane is told at once who has what.
static void test_f34_what_was_not_made_ready_keeps_nothing(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_device) struct device *second = new_function("pci:0000:01:00.1", 11);

    binder.kind = HOST_OPEN_RETRY;
    ask(bench, first, 1);
    expect_given_back(bench, second, "pci:0000:01:00.0");
    ask(bench, first, 2);
    handover_settle(bench->base.handover, second, true);
    ask(bench, first, 3); // which is still to be tried
    handover_bench_wait(&bench->base, 3);
    expect_others("pci:0000:01:00.0 taken");
    ask(bench, first, 4);
    handover_gone(bench->base.handover, first);
    expect_given_back(bench, second, ""); // its late answer does not make it a member again
    assert_int_equal(bench->base.answers, 4);
    expect_given_back(bench, second, "");
}

static void test_what_was_bound_besides_is_said(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);

    binder.kind = HOST_OPEN_READY;
    binder.besides = true;
    ask(bench, first, 1);
    handover_bench_wait(&bench->base, 1);
    binder.besides = false;
    assert_int_equal(bench->kind, HOST_OPEN_READY);
    expect_said("info: others too\n");
}

static void test_a_driver_that_does_not_answer_is_said_once(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);

    binder.kind = HOST_OPEN_READY;
    set_held(true);
    drivers_are_slow = true;
    ask(bench, first, 1);
    while (said.length == 0)
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    assert_int_equal(sd_event_run(bench->base.loop, 0), 0);
    drivers_are_slow = false;
    set_held(false);
    handover_bench_wait(&bench->base, 1);
    assert_int_equal(bench->kind, HOST_OPEN_READY);
    expect_said("warning: 0000:01:00.0 has not been made ready for 12 s: a driver of its IOMMU group does not answer "
                "(0000:01:00.0: none); the kernel's log may say why, and the group waits until it does\n");
    expect_given_back(bench, first, "");
    expect_said("");
}

// ---- access

static void write_record(const char *directory, const struct device *device)
{
    const struct access_record record = {.node = (char *)"/nonexistent/node", .user = 1000};

    assert_int_equal(access_record_write(directory, device->key, &record), 0);
}

// Whether something is still given; what is gone with its node counts as taken back.
static bool has_record(const char *directory, const struct device *device)
{
    CLEANUP(access_record_clear) struct access_record record = {0};
    CLEANUP(cleanup_free) char *why = NULL;

    return access_record_read(directory, device->key, &record, &why) != 0;
}

static void test_what_another_vm_s_user_may_is_taken_back_where_nothing_is_given(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *input = add_input(bench);
    CLEANUP(cleanup_device) struct device *function = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_free) char *records = string_printf("%s/access", bench->base.root);
    const struct access_paths paths = {.sys = bench->base.root, .dev = bench->base.root, .records = records};
    struct device *const devices[] = {input, function};

    binder.kind = HOST_OPEN_READY;
    for (size_t i = 0; i < 2; i++) {
        handover_access(bench->base.handover, &paths, true);
        write_record(records, devices[i]);
        expect(bench, devices[i], HOST_OPEN_READY, NULL); // nobody knows for whom
        assert_false(has_record(records, devices[i]));
        write_record(records, devices[i]);
        handover_access(bench->base.handover, &paths, false); // a reload
        handover_open(bench->base.handover, devices[i], 1, &(struct host_receiver){.known = true, .user = 1001}, NULL);
        handover_bench_wait(&bench->base, bench->base.answers + 1);
        assert_int_equal(bench->kind, HOST_OPEN_READY);
        assert_false(has_record(records, devices[i]));
    }
    tree_write(bench->base.root, "access/input:input5.json", "rubbish");
    expect(bench, input, HOST_OPEN_RETRY, "access/input:input5.json");
    expect(bench, input, HOST_OPEN_READY, NULL);
}

static int ignore_time(sd_event_source *source, uint64_t time, void *user)
{
    (void)source, (void)time, (void)user;
    return 0;
}

static void take_back_later(struct bench *bench, struct device *device, bool to_host)
{
    CLEANUP(cleanup_free) char *records = string_printf("%s/access", bench->base.root);
    const struct access_paths paths = {.sys = bench->base.root, .dev = bench->base.root, .records = records};

    // The loop's own descriptor for timers is there, as in a daemon that runs.
    assert_true(sd_event_add_time(bench->base.loop, NULL, CLOCK_MONOTONIC, UINT64_MAX, 0, ignore_time, NULL) >= 0);
    assert_true(sd_event_run(bench->base.loop, 0) >= 0);
    handover_access(bench->base.handover, &paths, true);
    write_record(records, device);
    tree_limit_descriptors(0);
    handover_settle(bench->base.handover, device, to_host);
    while (said.length == 0)
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    CLEANUP(cleanup_free)
    char *expected = string_printf("access/%s.json: cannot be read: Too many open files\n", device->key);
    assert_non_null(strstr(said.string, expected));
    text_clear(&said);
    for (int i = 0; i < 8; i++) // the timer and the end of a try by turns
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    tree_limit_descriptors(-1);
    while (has_record(records, device))
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    expect_said(""); // the first time was enough
}

static void test_f39_access_that_cannot_be_taken_back_now_is_taken_back_later(void **state)
{
    CLEANUP(cleanup_device) struct device *input = add_input(*state);

    take_back_later(*state, input, true);
}

static void test_who_asks_again_puts_nothing_off(void **state)
{
    struct bench *bench = *state;
    sd_event_source *timer = NULL;
    uint64_t time = 0;

    assert_int_equal(again_later(&timer, bench->base.loop, ignore_time, NULL), 0);
    assert_true(sd_event_source_set_time(timer, 1) >= 0);
    assert_int_equal(again_later(&timer, bench->base.loop, ignore_time, NULL), 0);
    assert_true(sd_event_source_get_time(timer, &time) >= 0);
    assert_true(time == 1);
    assert_true(sd_event_source_set_enabled(timer, SD_EVENT_OFF) >= 0);
    assert_int_equal(again_later(&timer, bench->base.loop, ignore_time, NULL), 0);
    assert_true(sd_event_source_get_time(timer, &time) >= 0);
    assert_true(time > 1);
    sd_event_source_disable_unref(timer);
}

static void test_f39_access_of_a_vm_that_has_ended_is_taken_back_later(void **state)
{
    CLEANUP(cleanup_device) struct device *function = new_function("pci:0000:01:00.0", 11);

    take_back_later(*state, function, false); // it is kept for the VM
}

static void test_f34_a_group_that_a_vm_is_slow_to_let_go(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_device) struct device *second = new_function("pci:0000:01:00.1", 11);
    unsigned tries;

    binder.kind = HOST_OPEN_READY;
    set_busy(true);
    expect_given_back(bench, first, "");
    assert_true(is_patient());
    tries = count_given_back(&binder.given_back);
    handover_settle(bench->base.handover, second, false); // which has nothing to do with it
    while (count_given_back(&binder.given_back) == tries)
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    assert_false(is_patient()); // so that nothing else waits for it
    set_busy(false);
    tries = count_given_back(&binder.given_back);
    while (count_given_back(&binder.given_back) == tries)
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    expect_others("pci:0000:01:00.1");
}

static void test_f34_what_is_in_a_vm_again_is_not_given_back_late(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_device) struct device *other = new_function("pci:0000:02:00.0", 12);
    unsigned tries, before = count_given_back(&binder.first_given_back);

    binder.kind = HOST_OPEN_READY;
    set_busy(true);
    handover_settle(bench->base.handover, first, true);
    ask(bench, first, 1); // while that is under way
    handover_bench_wait(&bench->base, 1);
    expect_given_back(bench, other, "");
    tries = count_given_back(&binder.given_back);
    while (count_given_back(&binder.given_back) < tries + 3) // the other one is tried again and again
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    assert_int_equal(count_given_back(&binder.first_given_back), before + 1);
}

static void test_f39_what_is_given_to_the_next_vm_is_not_taken_back_late(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_device) struct device *other = new_function("pci:0000:02:00.0", 12);
    CLEANUP(cleanup_free) char *records = string_printf("%s/access", bench->base.root);
    const struct access_paths paths = {.sys = bench->base.root, .dev = bench->base.root, .records = records};
    unsigned tries;

    binder.kind = HOST_OPEN_READY;
    handover_access(bench->base.handover, &paths, true);
    write_record(records, first); // of the VM that had it
    assert_true(sd_event_add_time(bench->base.loop, NULL, CLOCK_MONOTONIC, UINT64_MAX, 0, ignore_time, NULL) >= 0);
    assert_true(sd_event_run(bench->base.loop, 0) >= 0);
    tree_limit_descriptors(0);
    handover_settle(bench->base.handover, first, false);
    ask(bench, first, 1); // while that is under way
    handover_bench_wait(&bench->base, 1);
    tree_limit_descriptors(-1);
    text_clear(&said);
    write_record(records, first); // of the next one
    set_busy(true);
    expect_given_back(bench, other, "");
    tries = count_given_back(&binder.given_back);
    while (count_given_back(&binder.given_back) < tries + 3) // the other one is tried again and again
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    assert_true(has_record(records, first));
}

// One that a VM has had since before our start is told of when that VM lists it.
static void test_f34_a_group_that_a_vm_has_is_not_asked_for_again_and_again(void **state)
{
    struct bench *bench = *state;
    CLEANUP(cleanup_device) struct device *first = new_function("pci:0000:01:00.0", 11);
    CLEANUP(cleanup_device) struct device *held = new_function("pci:0000:01:00.1", 11);
    CLEANUP(cleanup_device) struct device *other = new_function("pci:0000:02:00.0", 12);
    unsigned tries, before;

    set_busy(true);
    expect_given_back(bench, first, "");
    handover_held(bench->base.handover, held);
    before = count_given_back(&binder.first_given_back);
    tries = count_given_back(&binder.given_back);
    handover_settle(bench->base.handover, other, true);
    while (count_given_back(&binder.given_back) < tries + 6) // the other one is tried again and again
        assert_true(sd_event_run(bench->base.loop, UINT64_MAX) >= 0);
    assert_true(count_given_back(&binder.first_given_back) <= before + 1);
}

static void test_asked_from_inside_an_answer(void **state)
{
    struct bench *bench = *state;

    bench->on_answer = ask_again;
    ask(bench, bench->device, 1);
    handover_bench_wait(&bench->base, 2);
    assert_int_equal(bench->serials[1], 2);
}

// The lowest free descriptor number tells whether some descriptor is left open.
static int lowest_free(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    close(fd);
    return fd;
}

static void test_the_end_while_work_is_under_way(void **state)
{
    struct bench *bench = *state;
    int free_before;

    worker_free(bench->base.worker);
    handover_free(bench->base.handover);
    bench->base.worker = NULL;
    bench->base.handover = NULL;
    free_before = lowest_free();
    for (int round = 0; round < 50; round++) {
        struct worker *worker = NULL;
        struct handover *handover;
        assert_int_equal(worker_new(&worker, bench->base.loop, 3), 0);
        handover =
            handover_new(worker, bench->base.loop, bench->base.log, &bench->base.bind_paths, handle_answer, bench);
        for (int i = 0; i < round; i++)
            handover_open(handover, bench->device, 7, &(struct host_receiver){0}, NULL);
        worker_free(worker);
        handover_free(handover);
    }
    assert_int_equal(sd_event_run(bench->base.loop, 0), 0);
    assert_int_equal(bench->base.answers, 0);
    assert_int_equal(lowest_free(), free_before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_usb_device_is_opened, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_receiver_may_keep_the_descriptor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_what_the_host_uses_is_not_opened, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_input_device_is_ready_while_it_is_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_input_device_that_went_before_the_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_at_once_are_each_answered_once_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_group_is_bound_one_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_what_is_in_a_vm_is_known_when_its_group_goes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_what_is_made_ready_for_a_vm_to_come_is_kept_for_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_what_keeps_a_group_from_going_back_is_said_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_what_was_not_made_ready_keeps_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_bound_besides_is_said, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_driver_that_does_not_answer_is_said_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_another_vm_s_user_may_is_taken_back_where_nothing_is_given, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_f39_access_that_cannot_be_taken_back_now_is_taken_back_later, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_who_asks_again_puts_nothing_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f39_access_of_a_vm_that_has_ended_is_taken_back_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_group_that_a_vm_is_slow_to_let_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f34_what_is_in_a_vm_again_is_not_given_back_late, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f39_what_is_given_to_the_next_vm_is_not_taken_back_late, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_f34_a_group_that_a_vm_has_is_not_asked_for_again_and_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_asked_from_inside_an_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_end_while_work_is_under_way, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("handover", tests, NULL, NULL);
}
