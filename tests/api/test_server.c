// The API's ways in, when no descriptor is left for who comes.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/server.h"
#include "util/text.h"

#define CALLERS 40
// More turns of the loop than any number of callers takes that is waited for here.
#define TURNS_MAX 1000

// ---- messages of our own: each line comes back

void messages_request(struct messages *messages, struct caller *caller, const char *line, size_t length)
{
    (void)messages;
    caller->say(caller, line, length);
}

void messages_too_long(struct caller *caller)
{
    (void)caller;
}

void messages_forget(struct messages *messages, struct caller *caller)
{
    (void)messages, (void)caller;
}

// ---- what each test has

struct bench {
    sd_event *loop;
    struct log *log;
    struct clients *clients;
    struct server *server;
    struct api_config config;
    char directory[32], path[64];
    struct rlimit limit;
};

static int set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof *bench);
    strcpy(bench->directory, "/tmp/vhs-XXXXXX");
    assert_non_null(mkdtemp(bench->directory));
    snprintf(bench->path, sizeof bench->path, "%s/socket", bench->directory);
    bench->log = log_new(LOG_LEVEL_ERROR);
    assert_return_code(getrlimit(RLIMIT_NOFILE, &bench->limit), errno);
    assert_return_code(sd_event_new(&bench->loop), 0);
    assert_return_code(clients_new(&bench->clients, bench->loop, bench->log, NULL), 0);
    assert_return_code(server_new(&bench->server, bench->loop, bench->log, bench->clients), 0);
    bench->config = (struct api_config){.enabled = true, .unix_socket = true, .path = bench->path};
    clients_configure(bench->clients, &bench->config);
    server_configure(bench->server, &bench->config);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    (void)setrlimit(RLIMIT_NOFILE, &bench->limit);
    server_free(bench->server);
    clients_free(bench->clients);
    sd_event_unref(bench->loop);
    log_free(bench->log);
    (void)rmdir(bench->directory);
    free(bench);
    return 0;
}

// Nothing that is open is closed, and nothing more can be opened.
static void use_up_descriptors(const struct bench *bench)
{
    struct rlimit none = {.rlim_cur = 0, .rlim_max = bench->limit.rlim_max};
    assert_return_code(setrlimit(RLIMIT_NOFILE, &none), errno);
}

static void give_descriptors_back(const struct bench *bench)
{
    assert_return_code(setrlimit(RLIMIT_NOFILE, &bench->limit), errno);
}

static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_return_code(fd, errno);
    return fd;
}

static void come(const struct bench *bench, int fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, bench->path, strlen(bench->path));
    assert_return_code(connect(fd, (const struct sockaddr *)&address, sizeof address), errno);
    assert_int_equal(send(fd, "line\n", 5, MSG_NOSIGNAL), 5);
}

// Turns of the loop until there is nothing to do but wait.
static void settle(const struct bench *bench)
{
    unsigned turns = 0;
    while (sd_event_run(bench->loop, 0) > 0)
        if (++turns > TURNS_MAX)
            fail_msg("it spins");
}

static void expect_answer(const struct bench *bench, int fd)
{
    char answer[8] = "";
    while (recv(fd, answer, sizeof answer - 1, 0) < 0) {
        assert_int_equal(errno, EAGAIN);
        assert_return_code(sd_event_run(bench->loop, UINT64_MAX), 0);
    }
    assert_string_equal(answer, "line\n");
    close(fd);
}

static void test_without_any_descriptor_it_waits_and_serves_later(void **state)
{
    const struct bench *bench = *state;
    int callers[CALLERS];
    for (size_t i = 0; i < CALLERS; i++)
        callers[i] = new_socket();
    use_up_descriptors(bench);
    for (size_t i = 0; i < CALLERS; i++)
        come(bench, callers[i]);
    // The pause ends again and again, and nothing has changed.
    for (unsigned pauses = 0; pauses < 3; pauses++) {
        settle(bench);
        assert_return_code(sd_event_run(bench->loop, UINT64_MAX), 0);
    }
    settle(bench);
    give_descriptors_back(bench);
    for (size_t i = 0; i < CALLERS; i++)
        expect_answer(bench, callers[i]);
}

static void test_a_way_in_that_is_closed_in_a_pause_opens_again(void **state)
{
    struct bench *bench = *state;
    int lost = new_socket(), later = new_socket();
    use_up_descriptors(bench);
    come(bench, lost);
    settle(bench);
    give_descriptors_back(bench);
    bench->config.unix_socket = false;
    server_configure(bench->server, &bench->config);
    settle(bench);
    bench->config.unix_socket = true;
    server_configure(bench->server, &bench->config);
    come(bench, later);
    expect_answer(bench, later);
    close(lost);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_without_any_descriptor_it_waits_and_serves_later),
        TEST(test_a_way_in_that_is_closed_in_a_pause_opens_again),
    };
    return cmocka_run_group_tests_name("api_server", tests, NULL, NULL);
}
