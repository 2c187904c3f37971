// The API's clients over real socket pairs, with messages made up here: framing, turns, queues, limits.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "api/client.h"
#include "util/text.h"

#define QUEUE_HIGH (64U * 1024)
#define QUEUE_MAX (1024U * 1024)
#define QUEUES_MAX (32U * 1024 * 1024)
#define TRUSTED_MAX 1024
#define OTHERS_MAX 1024
#define UID_MAX 512
#define TCP_MAX 256
#define CID_MAX 64

// ---- messages of our own

struct messages {
    struct caller *last;  // who asked last
    struct caller *waits; // whose answer is to come
    unsigned lines, forgotten;
    size_t length; // of the last line
};

// "wait" is answered by answer_later(), "big" by much, all else by itself;
// "nonsense" is none that they understand.
void messages_request(struct messages *messages, struct caller *caller, const char *line, size_t length)
{
    assert_false(caller->owed);
    assert_int_equal(line[length], '\0');
    messages->lines++;
    messages->last = caller;
    messages->length = length;
    if (strcmp(line, "wait") == 0) {
        caller->owed = true;
        messages->waits = caller;
    } else if (strcmp(line, "big") == 0) {
        CLEANUP(cleanup_free) char *much = memory_new(100000, 1);
        memset(much, 'x', 100000);
        caller->say(caller, much, 100000);
    } else {
        caller->confused |= strcmp(line, "nonsense") == 0;
        caller->say(caller, line, length);
    }
}

void messages_too_long(struct caller *caller)
{
    caller->say(caller, "too long", 8);
}

void messages_forget(struct messages *messages, struct caller *caller)
{
    messages->forgotten++;
    if (messages->waits == caller)
        messages->waits = NULL;
    if (messages->last == caller)
        messages->last = NULL;
}

static void answer_later(struct messages *messages)
{
    struct caller *caller = steal_pointer(&messages->waits);
    assert_non_null(caller);
    caller->say(caller, "later", 5);
    caller->owed = false;
    caller->answered(caller);
}

// ---- what each test has

struct bench {
    sd_event *loop;
    struct log *log;
    struct messages messages;
    struct clients *clients;
    struct api_config config;
};

static int set_up(void **state)
{
    struct rlimit limit;
    assert_return_code(getrlimit(RLIMIT_NOFILE, &limit), errno);
    limit.rlim_cur = limit.rlim_max < 16384 ? limit.rlim_max : 16384;
    assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
    struct bench *bench = memory_new(1, sizeof *bench);
    bench->log = log_new(LOG_LEVEL_WARNING);
    assert_return_code(sd_event_new(&bench->loop), 0);
    assert_return_code(clients_new(&bench->clients, bench->loop, bench->log, &bench->messages), 0);
    clients_configure(bench->clients, &bench->config);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    clients_free(bench->clients);
    sd_event_unref(bench->loop);
    log_free(bench->log);
    free(bench);
    return 0;
}

static int connect_peer(struct bench *bench, const struct client_peer *peer)
{
    int pair[2];
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), errno);
    assert_null(clients_add(bench->clients, pair[1], peer));
    return pair[0];
}

static int connect_one(struct bench *bench)
{
    return connect_peer(bench, &(struct client_peer){.kind = CLIENT_UNIX, .uid = 0, .pid = 1});
}

// Turns of the loop until it has nothing to do; returns how many.
static unsigned settle(struct bench *bench)
{
    unsigned turns = 0;
    while (sd_event_run(bench->loop, 0) > 0)
        turns++;
    return turns;
}

static void write_all(struct bench *bench, int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0) {
            assert_int_equal(errno, EAGAIN);
            assert_true(settle(bench) > 0);
            continue;
        }
        bytes += sent;
        length -= (size_t)sent;
    }
}

static void say(struct bench *bench, int fd, const char *text)
{
    write_all(bench, fd, text, strlen(text));
}

// All that comes; ENDED says whether it was hung up on.
static char *read_all(struct bench *bench, int fd, bool *ended)
{
    struct text all = {0};
    char bytes[65536];
    *ended = false;
    for (;;) {
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        if (got > 0) {
            text_add_bytes(&all, bytes, (size_t)got);
        } else if (got == 0 || errno == ECONNRESET) {
            *ended = true;
            break;
        } else if (settle(bench) == 0) {
            break;
        }
    }
    return text_take(&all);
}

static void expect(struct bench *bench, int fd, const char *wanted)
{
    bool ended;
    CLEANUP(cleanup_free) char *got = read_all(bench, fd, &ended);
    assert_string_equal(got, wanted);
    assert_false(ended);
}

static void expect_end(struct bench *bench, int fd, const char *wanted)
{
    bool ended;
    CLEANUP(cleanup_free) char *got = read_all(bench, fd, &ended);
    assert_string_equal(got, wanted);
    assert_true(ended);
    close(fd);
}

// ---- lines

static void test_f46_each_line_gets_one_answer_in_order(void **state)
{
    struct bench *bench = *state;
    int fd = connect_one(bench);
    say(bench, fd, "one\ntwo\nth");
    expect(bench, fd, "one\ntwo\n");
    say(bench, fd, "r");
    expect(bench, fd, "");
    say(bench, fd, "ee\n\nfive");
    expect(bench, fd, "three\n\n");
    assert_int_equal(bench->messages.lines, 4);
    close(fd);
    settle(bench);
    assert_int_equal(bench->messages.forgotten, 1);
}

static void test_the_last_line_may_lack_its_newline(void **state)
{
    struct bench *bench = *state;
    int fd = connect_one(bench);
    say(bench, fd, "one\ntwo");
    shutdown(fd, SHUT_WR);
    expect_end(bench, fd, "one\ntwo\n");
    assert_int_equal(bench->messages.lines, 2);
}

static void test_what_was_sent_before_hanging_up_is_served(void **state)
{
    struct bench *bench = *state;
    int fd = connect_one(bench);
    for (int i = 0; i < 100; i++)
        say(bench, fd, "line\n");
    close(fd);
    settle(bench);
    assert_int_equal(bench->messages.forgotten, 1);
    assert_true(bench->messages.lines > 0); // all that it could still be answered
}

static void test_f47_what_talks_nonsense_over_tcp_is_hung_up_on(void **state)
{
    struct bench *bench = *state;
    int remote = connect_peer(bench, &(struct client_peer){.kind = CLIENT_TCP, .address = "127.0.0.1:5"});
    say(bench, remote, "one\nnonsense\ntwo\n");
    expect_end(bench, remote, "one\nnonsense\n");
    assert_int_equal(bench->messages.lines, 2);
    int local = connect_one(bench);
    say(bench, local, "nonsense\ntwo\n");
    expect(bench, local, "nonsense\ntwo\n");
    close(local);
}

static void test_bytes_of_any_kind_are_a_line(void **state)
{
    struct bench *bench = *state;
    int fd = connect_one(bench);
    write_all(bench, fd, "\0\xff\x01\n", 4);
    settle(bench);
    assert_int_equal(bench->messages.lines, 1);
    assert_int_equal(bench->messages.length, 3);
    close(fd);
}

static void long_line(struct bench *bench, size_t length, bool newline, const char *before)
{
    int fd = connect_one(bench);
    CLEANUP(cleanup_free) char *much = memory_new(length, 1);
    memset(much, 'x', length);
    say(bench, fd, before);
    for (size_t sent = 0; sent < length;) {
        ssize_t more = send(fd, much + sent, length - sent, MSG_NOSIGNAL);
        if (more < 0 && errno == EPIPE)
            break; // it is told so at once
        if (more < 0)
            settle(bench);
        else
            sent += (size_t)more;
    }
    if (newline)
        (void)!send(fd, "\n", 1, MSG_NOSIGNAL);
    CLEANUP(cleanup_free) char *wanted = string_printf("%stoo long\n", before);
    expect_end(bench, fd, wanted);
}

static void test_f46_too_long_a_line_gets_one_answer_and_the_end(void **state)
{
    struct bench *bench = *state;
    long_line(bench, MESSAGE_LINE_MAX + 1, true, "");
    long_line(bench, MESSAGE_LINE_MAX + 1, false, "one\n");
    long_line(bench, 10 * MESSAGE_LINE_MAX, false, "");
    assert_int_equal(bench->messages.lines, 1);
    assert_int_equal(bench->messages.forgotten, 3);
}

static void test_a_line_of_the_greatest_length_is_served(void **state)
{
    struct bench *bench = *state;
    int fd = connect_one(bench);
    CLEANUP(cleanup_free) char *line = memory_new(MESSAGE_LINE_MAX + 2, 1);
    memset(line, 'x', MESSAGE_LINE_MAX);
    line[MESSAGE_LINE_MAX] = '\n';
    say(bench, fd, line);
    expect(bench, fd, line);
    assert_int_equal(bench->messages.length, MESSAGE_LINE_MAX);
    close(fd);
}

// ---- answers that wait

static void test_no_line_is_served_while_an_answer_waits(void **state)
{
    struct bench *bench = *state;
    int fd = connect_one(bench), other = connect_one(bench);
    say(bench, fd, "one\nwait\ntwo\n");
    expect(bench, fd, "one\n");
    say(bench, fd, "three\n");
    say(bench, other, "other\n");
    expect(bench, other, "other\n");
    expect(bench, fd, "");
    answer_later(&bench->messages);
    expect(bench, fd, "later\ntwo\nthree\n");
    close(fd);
    close(other);
}

static void test_who_goes_while_an_answer_waits_wakes_nobody(void **state)
{
    struct bench *bench = *state;
    int fd = connect_one(bench);
    say(bench, fd, "wait\n");
    settle(bench);
    close(fd);
    assert_in_range(settle(bench), 0, 2); // and not for ever
    assert_int_equal(bench->messages.forgotten, 0);
    answer_later(&bench->messages);
    settle(bench);
    assert_int_equal(bench->messages.forgotten, 1);
}

static void test_who_has_said_all_still_gets_the_answer(void **state)
{
    struct bench *bench = *state;
    static const char *const lines[] = {"wait\n", "wait"};
    for (size_t i = 0; i < 2; i++) {
        int fd = connect_one(bench);
        say(bench, fd, lines[i]);
        shutdown(fd, SHUT_WR);
        expect(bench, fd, "");
        answer_later(&bench->messages);
        expect_end(bench, fd, "later\n");
    }
}

// ---- those who do not read

// As an event for many: until the client is dropped or so much was said.
static size_t say_events(struct bench *bench, struct caller *caller, size_t bytes)
{
    static char event[1000];
    size_t said = 0;
    memset(event, 'e', sizeof event);
    for (; said < bytes && bench->messages.forgotten == 0; said += sizeof event) {
        caller->say(caller, event, sizeof event);
        settle(bench);
    }
    return said;
}

static void test_who_does_not_read_events_is_dropped_at_last(void **state)
{
    struct bench *bench = *state;
    int slow = connect_one(bench);
    say(bench, slow, "hello\n");
    settle(bench);
    struct caller *caller = bench->messages.last;
    size_t said = say_events(bench, caller, 100 * QUEUE_MAX);
    assert_int_equal(bench->messages.forgotten, 1);
    assert_in_range(said, QUEUE_MAX, 3 * QUEUE_MAX); // what the kernel takes comes on top
    close(slow);
}

static void test_who_reads_in_time_is_not_dropped(void **state)
{
    struct bench *bench = *state;
    int fd = connect_one(bench);
    say(bench, fd, "hello\n");
    settle(bench);
    for (int turn = 0; turn < 20; turn++) {
        bool ended;
        say_events(bench, bench->messages.last, QUEUE_MAX / 2);
        CLEANUP(cleanup_free) char *got = read_all(bench, fd, &ended);
        assert_true(strlen(got) >= QUEUE_MAX / 2);
        assert_false(ended);
    }
    close(fd);
}

static void test_who_does_not_read_answers_is_no_longer_served(void **state)
{
    struct bench *bench = *state;
    int fd = connect_one(bench);
    for (int i = 0; i < 100; i++)
        say(bench, fd, "big\n");
    settle(bench);
    unsigned served = bench->messages.lines;
    assert_in_range(served, 1, 50);
    assert_int_equal(bench->messages.forgotten, 0);
    bool ended;
    CLEANUP(cleanup_free) char *got = read_all(bench, fd, &ended);
    assert_int_equal(strlen(got), 100 * 100001);
    assert_false(ended);
    assert_int_equal(bench->messages.lines, 100);
    close(fd);
}

static void test_all_queues_together_are_bounded(void **state)
{
    struct bench *bench = *state;
    enum { COUNT = 100, SHARE = 800 * 1000 };
    int fds[COUNT], count = 0;
    size_t said = 0;
    for (int i = 0; i < COUNT && bench->messages.forgotten == 0; i++, count++) {
        fds[i] = connect_one(bench);
        say(bench, fds[i], "hello\n");
        settle(bench);
        said += say_events(bench, bench->messages.last, SHARE);
    }
    assert_int_equal(bench->messages.forgotten, 1);
    assert_in_range(said, QUEUES_MAX, 2 * QUEUES_MAX);
    while (count > 0)
        close(fds[--count]);
}

// ---- turns

static void test_f46_a_flood_delays_nobody(void **state)
{
    struct bench *bench = *state;
    int flood = connect_one(bench), quiet = connect_one(bench);
    char lines[16000];
    memset(lines, '\n', sizeof lines);
    assert_int_equal(send(flood, lines, sizeof lines, MSG_NOSIGNAL), sizeof lines);
    while (bench->messages.lines < 100) {
        unsigned served = bench->messages.lines;
        assert_true(sd_event_run(bench->loop, 0) > 0);
        assert_in_range(bench->messages.lines - served, 0, 16); // no turn is long
    }
    say(bench, quiet, "quiet\n");
    unsigned before = bench->messages.lines;
    char answer[16];
    while (recv(quiet, answer, sizeof answer, 0) < 0)
        assert_true(sd_event_run(bench->loop, 0) > 0);
    assert_in_range(bench->messages.lines - before, 1, 40);
    close(flood);
    close(quiet);
}

static void test_idle_clients_wake_nobody(void **state)
{
    struct bench *bench = *state;
    int fds[100];
    for (int i = 0; i < 100; i++) {
        fds[i] = connect_one(bench);
        say(bench, fds[i], "one\nhalf a line");
    }
    settle(bench);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sd_event_run(bench->loop, 1000), 0);
    for (int i = 0; i < 100; i++)
        close(fds[i]);
}

// ---- limits and permissions

// How many more of them are let in; of those let in, all stay.
static unsigned count_room(struct bench *bench, struct client_peer peer)
{
    unsigned count = 0;
    for (; count < 5000; count++) {
        int pair[2];
        assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), errno);
        const char *why = clients_add(bench->clients, pair[1], &peer);
        if (why) {
            char told[200] = "";
            assert_true(recv(pair[0], told, sizeof told - 1, 0) > 0);
            assert_non_null(strstr(told, "\"result\":\"failed\""));
            assert_int_equal(recv(pair[0], told, sizeof told, 0), 0);
            close(pair[0]);
            break;
        }
        close(pair[0]);
    }
    return count;
}

static bool has_descriptors(void)
{
    struct rlimit limit;
    assert_return_code(getrlimit(RLIMIT_NOFILE, &limit), errno);
    if (limit.rlim_cur >= 4 * OTHERS_MAX)
        return true;
    print_message("test skipped: no more than %llu files may be open here\n", (unsigned long long)limit.rlim_cur);
    return false;
}

static void test_f47_nobody_takes_all_the_room(void **state)
{
    struct bench *bench = *state;
    static struct api_cid cids[2] = {{.cid = 5, .permissions = API_LIST}, {.cid = 6, .permissions = API_LIST}};
    bench->config.cids = cids;
    bench->config.cid_count = 2;
    if (!has_descriptors())
        skip();
    uid_t somebody = geteuid() + 1000;
    assert_int_equal(count_room(bench, (struct client_peer){.kind = CLIENT_UNIX, .uid = somebody}), UID_MAX);
    assert_int_equal(count_room(bench, (struct client_peer){.kind = CLIENT_TCP, .address = "1.2.3.4:5"}), TCP_MAX);
    assert_int_equal(count_room(bench, (struct client_peer){.kind = CLIENT_VSOCK, .cid = 5}), CID_MAX);
    assert_int_equal(count_room(bench, (struct client_peer){.kind = CLIENT_VSOCK, .cid = 6}), CID_MAX);
    unsigned left = OTHERS_MAX - UID_MAX - TCP_MAX - 2 * CID_MAX;
    assert_int_equal(count_room(bench, (struct client_peer){.kind = CLIENT_UNIX, .uid = somebody + 1}), left);
    assert_int_equal(count_room(bench, (struct client_peer){.kind = CLIENT_UNIX, .uid = somebody + 2}), 0);
    // Root can look at what is going on at any time.
    assert_int_equal(count_room(bench, (struct client_peer){.kind = CLIENT_UNIX, .uid = 0}), TRUSTED_MAX);
}

static void test_room_comes_back_when_clients_go(void **state)
{
    struct bench *bench = *state;
    if (!has_descriptors())
        skip();
    assert_int_equal(count_room(bench, (struct client_peer){.kind = CLIENT_TCP, .address = "a:1"}), TCP_MAX);
    settle(bench);
    assert_int_equal(bench->messages.forgotten, TCP_MAX);
    assert_int_equal(count_room(bench, (struct client_peer){.kind = CLIENT_TCP, .address = "a:1"}), TCP_MAX);
}

static const struct caller *caller_of(struct bench *bench, int fd)
{
    say(bench, fd, "who\n");
    expect(bench, fd, "who\n");
    return bench->messages.last;
}

static void test_f47_a_guest_may_do_what_its_cid_may(void **state)
{
    struct bench *bench = *state;
    char name[] = "vm1", *names[] = {name};
    struct api_cid cids[] = {{.cid = 5, .permissions = API_LIST | API_CONTROL, .vms = names, .vm_count = 1},
                             {.cid = 6, .permissions = API_LIST | API_NOTIFY | API_CONTROL}};
    struct api_config config = {.cids = cids, .cid_count = 2};
    clients_configure(bench->clients, &config);
    int bound = connect_peer(bench, &(struct client_peer){.kind = CLIENT_VSOCK, .cid = 5});
    int whole = connect_peer(bench, &(struct client_peer){.kind = CLIENT_VSOCK, .cid = 6});
    const struct caller *caller = caller_of(bench, bound);
    assert_int_equal(caller->permissions, API_LIST | API_CONTROL);
    assert_int_equal(caller->vm_count, 1);
    assert_ptr_equal(caller->vms, names);
    assert_false(caller->may_reload);
    caller = caller_of(bench, whole);
    assert_int_equal(caller->permissions, API_LIST | API_NOTIFY | API_CONTROL);
    assert_int_equal(caller->vm_count, 0);
    assert_true(caller->may_reload);
    // One whom it does not name is not let in, and gets no word.
    int pair[2];
    char byte;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), errno);
    assert_non_null(clients_add(bench->clients, pair[1], &(struct client_peer){.kind = CLIENT_VSOCK, .cid = 7}));
    assert_int_equal(recv(pair[0], &byte, 1, 0), 0);
    close(pair[0]);
    // The file was changed: one may do less now, the other nothing.
    struct api_cid less[] = {{.cid = 6, .permissions = API_NOTIFY, .vms = names, .vm_count = 1}};
    struct api_config changed = {.cids = less, .cid_count = 1};
    clients_configure(bench->clients, &changed);
    expect_end(bench, bound, "");
    caller = caller_of(bench, whole);
    assert_int_equal(caller->permissions, API_NOTIFY);
    assert_int_equal(caller->vm_count, 1);
    assert_false(caller->may_reload);
    close(whole);
}

static void test_who_came_by_a_way_that_is_closed_is_hung_up_on(void **state)
{
    struct bench *bench = *state;
    int local = connect_one(bench);
    int remote = connect_peer(bench, &(struct client_peer){.kind = CLIENT_TCP, .address = "1.2.3.4:5"});
    clients_hang_up(bench->clients, CLIENT_TCP);
    expect_end(bench, remote, "");
    assert_int_equal(caller_of(bench, local)->permissions, API_LIST | API_NOTIFY | API_CONTROL);
    close(local);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_f46_each_line_gets_one_answer_in_order),
        TEST(test_the_last_line_may_lack_its_newline),
        TEST(test_what_was_sent_before_hanging_up_is_served),
        TEST(test_f47_what_talks_nonsense_over_tcp_is_hung_up_on),
        TEST(test_bytes_of_any_kind_are_a_line),
        TEST(test_f46_too_long_a_line_gets_one_answer_and_the_end),
        TEST(test_a_line_of_the_greatest_length_is_served),
        TEST(test_no_line_is_served_while_an_answer_waits),
        TEST(test_who_goes_while_an_answer_waits_wakes_nobody),
        TEST(test_who_has_said_all_still_gets_the_answer),
        TEST(test_who_does_not_read_events_is_dropped_at_last),
        TEST(test_who_reads_in_time_is_not_dropped),
        TEST(test_who_does_not_read_answers_is_no_longer_served),
        TEST(test_all_queues_together_are_bounded),
        TEST(test_f46_a_flood_delays_nobody),
        TEST(test_idle_clients_wake_nobody),
        TEST(test_f47_nobody_takes_all_the_room),
        TEST(test_room_comes_back_when_clients_go),
        TEST(test_f47_a_guest_may_do_what_its_cid_may),
        TEST(test_who_came_by_a_way_that_is_closed_is_hung_up_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
