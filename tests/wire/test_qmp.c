// Lines and QMP over a socket pair: framing, limits, hostile peers, descriptors.
#include "bench.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/text.h"
#include "vmm/qmp.h"
#include "vmm/wire.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"

struct talk {
    struct bench *bench;
    struct qmp *qmp;
    int peer;
    int greeted, events, ended;
    bool broken;
    unsigned commands; // sent as soon as it has greeted
    char *why;
    char answers[256]; // the tags in the order of the answers
};

static void on_event(void *user, const char *name, struct json_object *data)
{
    (void)name;
    (void)data;
    ((struct talk *)user)->events++;
}

static void on_ended(void *user, const char *why, bool broken)
{
    struct talk *talk = user;
    talk->ended++;
    talk->broken = broken;
    talk->why = string_copy(why);
    qmp_free(talk->qmp); // as the session does
    talk->qmp = NULL;
}

static void on_answer(void *user, unsigned tag, const struct qmp_reply *reply)
{
    struct talk *talk = user;
    size_t length = strlen(talk->answers);
    assert_true(length < sizeof talk->answers - 2);
    talk->answers[length] = (char)(reply->value ? 'a' + (int)tag : 'A' + (int)tag);
}

static void on_greeted(void *user)
{
    struct talk *talk = user;
    talk->greeted++;
    for (unsigned i = 0; i < talk->commands; i++)
        qmp_send(talk->qmp, "query-name", NULL, -1, on_answer, i);
}

static struct talk talk_over(struct bench *bench, int type)
{
    struct talk talk = {.bench = bench};
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    talk.peer = pair[1];
    talk.greeted = pair[0]; // until talk_start
    return talk;
}

static struct talk talk_new(struct bench *bench)
{
    return talk_over(bench, SOCK_STREAM);
}

static void talk_start(struct talk *talk)
{
    static const struct qmp_callbacks callbacks = {.greeted = on_greeted, .event = on_event, .ended = on_ended};
    int fd = talk->greeted;
    talk->greeted = 0;
    assert_true(qmp_new(&talk->qmp, talk->bench->loop, fd, &callbacks, talk) >= 0);
}

static void talk_end(struct talk *talk)
{
    qmp_free(talk->qmp);
    if (talk->peer >= 0)
        close(talk->peer);
    free(talk->why);
}

static void say(struct talk *talk, const char *text)
{
    size_t length = strlen(text);
    for (size_t done = 0; done < length && !talk->ended;) {
        ssize_t sent = send(talk->peer, text + done, length - done, MSG_NOSIGNAL);
        if (sent > 0)
            done += (size_t)sent;
        bench_turn(talk->bench);
    }
    for (int i = 0; i < 4; i++)
        bench_turn(talk->bench);
}

static void greet(struct talk *talk)
{
    talk_start(talk);
    say(talk, GREETING);
    assert_int_equal(talk->greeted, 1);
}

static void test_answers_out_of_order_with_events_between(void **state)
{
    struct talk talk = talk_new(*state);
    greet(&talk);
    for (unsigned i = 0; i < 3; i++)
        qmp_send(talk.qmp, "query-name", NULL, -1, on_answer, i);
    say(&talk, "{\"id\": 4, \"return\": {}}\r\n{\"event\": \"STOP\"}\r\n{\"return\": {}, \"id\": 2}\r\n");
    say(&talk, "{\"id\": 3, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n{\"event\": \"RESUME\", "
               "\"data\": {}}\r\n");
    assert_string_equal(talk.answers, "caB");
    assert_int_equal(talk.events, 2);
    assert_int_equal(talk.ended, 0);
    talk_end(&talk);
}

static void test_half_lines(void **state)
{
    struct talk talk = talk_new(*state);
    talk_start(&talk);
    const char *text = GREETING "{\"id\": 1, \"return\": {}}\r\n";
    for (size_t i = 0; i < strlen(text); i++) {
        assert_int_equal(send(talk.peer, text + i, 1, MSG_NOSIGNAL), 1);
        bench_turn(talk.bench);
    }
    assert_int_equal(talk.greeted, 1);
    assert_int_equal(talk.ended, 0);
    talk_end(&talk);
}

static void test_garbage_ends_it(void **state)
{
    static const char *const garbage[] = {
        "hello\r\n",      "[]\r\n", "{}\r\n", "\r\n", "{\"QMP\": 3}\n", "null\n", "{\"return\": {}, \"id\": 1}\n",
        "\x1b[31m\xff\n",
    };
    static const char *const later[] = {
        "hello\r\n",
        "{}\r\n",
        "{\"return\": {}}\n",
        "{\"return\": {}, \"id\": 99}\n",
        "{\"return\": {}, \"id\": \"1\"}\n",
        "{\"return\": {}, \"id\": -1}\n",
        "{\"return\": {}, \"error\": {}, \"id\": 1}\n",
        "{\"error\": 3, \"id\": 1}\n",
        "{\"event\": 3}\n",
        "{\"return\": {}, \"id\": 1}\n{\"return\": {}, \"id\": 1}\n",
    };
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage + sizeof later / sizeof *later; i++) {
        struct talk talk = talk_new(*state);
        bool early = i < sizeof garbage / sizeof *garbage;
        if (early)
            talk_start(&talk);
        else
            greet(&talk);
        say(&talk, early ? garbage[i] : later[i - sizeof garbage / sizeof *garbage]);
        assert_int_equal(talk.ended, 1);
        assert_true(talk.broken);
        assert_null(strchr(talk.why, '\x1b'));
        talk_end(&talk);
    }
}

static void test_too_long_a_line(void **state)
{
    struct talk talk = talk_new(*state);
    greet(&talk);
    char *line = memory_new(10 * 1024 * 1024 + 1, 1);
    memset(line, 'x', 10 * 1024 * 1024);
    say(&talk, line);
    assert_int_equal(talk.ended, 1);
    assert_true(talk.broken);
    free(line);
    talk_end(&talk);
}

static void test_longest_line(void **state)
{
    struct talk talk = talk_new(*state);
    greet(&talk);
    struct text line = {0};
    text_add(&line, "{\"event\": \"");
    while (line.length < WIRE_LINE_MAX - 2)
        text_add_bytes(&line, "xxxxxxxxxxxxxxxx",
                       WIRE_LINE_MAX - 2 - line.length < 16 ? WIRE_LINE_MAX - 2 - line.length : 16);
    text_add(&line, "\"}\n");
    say(&talk, line.string);
    assert_int_equal(talk.events, 1);
    text_clear(&line);
    talk_end(&talk);
}

static void test_deep_nesting(void **state)
{
    struct talk talk = talk_new(*state);
    greet(&talk);
    struct text line = {0};
    text_add(&line, "{\"event\": ");
    for (int i = 0; i < 100000; i++)
        text_add(&line, "[");
    text_add(&line, "\n");
    say(&talk, line.string);
    assert_int_equal(talk.ended, 1);
    assert_true(talk.broken);
    text_clear(&line);
    talk_end(&talk);
}

static void test_peer_that_does_not_read(void **state)
{
    struct talk talk = talk_new(*state);
    greet(&talk);
    for (unsigned i = 0; i < 100000 && !talk.ended; i++) {
        qmp_send(talk.qmp, "query-name-that-is-long-so-that-the-buffers-fill", NULL, -1, on_answer, 0);
        if (i % 1000 == 0)
            bench_turn(talk.bench);
    }
    for (int i = 0; i < 4; i++)
        bench_turn(talk.bench);
    assert_int_equal(talk.ended, 1);
    assert_false(talk.broken);
    talk_end(&talk);
}

static void test_hang_up(void **state)
{
    struct talk talk = talk_new(*state);
    greet(&talk);
    close(talk.peer);
    talk.peer = -1;
    qmp_send(talk.qmp, "query-name", NULL, -1, on_answer, 0);
    for (int i = 0; i < 4; i++)
        bench_turn(talk.bench);
    assert_int_equal(talk.ended, 1);
    assert_false(talk.broken);
    talk_end(&talk);
}

static int receive(int socket, char *bytes, size_t room)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {.iov_base = bytes, .iov_len = room - 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd = -1;
    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    assert_true(got > 0);
    bytes[got] = '\0';
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header)
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

// The peer is woken once, not for each command.
static void test_what_is_said_to_one_line_goes_out_at_once(void **state)
{
    struct talk talk = talk_over(*state, SOCK_SEQPACKET);
    talk.commands = 3;
    greet(&talk);
    char bytes[4096];
    assert_int_equal(receive(talk.peer, bytes, sizeof bytes), -1);
    assert_non_null(strstr(bytes, "qmp_capabilities"));
    assert_non_null(strstr(bytes, "\"id\":4"));
    assert_true(recv(talk.peer, bytes, sizeof bytes, 0) < 0);
    talk_end(&talk);
}

static void test_descriptors_travel_with_their_command(void **state)
{
    struct talk talk = talk_new(*state);
    greet(&talk);
    char bytes[4096];
    assert_int_equal(receive(talk.peer, bytes, sizeof bytes), -1);
    assert_non_null(strstr(bytes, "qmp_capabilities"));
    int sent = open("/dev/zero", O_RDWR | O_CLOEXEC);
    qmp_send(talk.qmp, "add-fd", NULL, sent, on_answer, 0);
    struct stat a, b;
    int fd = receive(talk.peer, bytes, sizeof bytes);
    assert_true(fd >= 0);
    assert_non_null(strstr(bytes, "add-fd"));
    assert_int_equal(fstat(fd, &a), 0);
    assert_int_equal(stat("/dev/zero", &b), 0);
    assert_int_equal(a.st_rdev, b.st_rdev);
    close(fd);
    assert_true(fcntl(sent, F_GETFD) < 0); // ours is closed
    talk_end(&talk);
}

static void test_descriptors_wait_in_a_full_pipe(void **state)
{
    struct talk talk = talk_new(*state);
    greet(&talk);
    for (unsigned i = 0; i < 2000; i++)
        qmp_send(talk.qmp, "query-something-with-a-name-that-takes-room-in-the-socket", NULL, -1, on_answer, 0);
    for (int i = 0; i < 3; i++)
        qmp_send(talk.qmp, "add-fd", NULL, open("/dev/null", O_RDWR | O_CLOEXEC), on_answer, 0);
    int received = 0;
    char bytes[65536];
    for (int i = 0; i < 1000 && received < 3; i++) {
        int fd = receive(talk.peer, bytes, sizeof bytes);
        if (fd >= 0) {
            received++;
            close(fd);
        }
        bench_turn(talk.bench);
    }
    assert_int_equal(received, 3);
    talk_end(&talk);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

// With an argument: only the tests whose names match it.
int main(int count, char **arguments)
{
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        TEST(test_answers_out_of_order_with_events_between),
        TEST(test_half_lines),
        TEST(test_garbage_ends_it),
        TEST(test_too_long_a_line),
        TEST(test_longest_line),
        TEST(test_deep_nesting),
        TEST(test_peer_that_does_not_read),
        TEST(test_hang_up),
        TEST(test_what_is_said_to_one_line_goes_out_at_once),
        TEST(test_descriptors_travel_with_their_command),
        TEST(test_descriptors_wait_in_a_full_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
