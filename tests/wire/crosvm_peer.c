// The fake crosvm as a child process of a test.
#include "crosvm_peer.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/text.h"

static void run(const char *path, const char *mode)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl(PYTHON, PYTHON, FAKE_CROSVM, path, "--device=1:3=046d:c077", "--device=1:5=046d:c077",
          "--device=1:7=0781:5567", "--device=1:8=1d6b:0003:usb3", mode, (char *)NULL);
    _exit(127);
}

static void read_reply(struct crosvm_peer *peer)
{
    assert_true(getline(&peer->line, &peer->room, peer->replies) > 0);
    peer->line[strcspn(peer->line, "\n")] = '\0';
}

void crosvm_peer_start(struct crosvm_peer *peer, const char *directory, const char *name, const char *mode)
{
    int to[2], from[2];
    *peer = (struct crosvm_peer){.path = string_printf("%s/%s", directory, name)};
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    peer->pid = fork();
    assert_true(peer->pid >= 0);
    if (peer->pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        run(peer->path, mode);
    }
    close(to[0]);
    close(from[1]);
    peer->orders = fdopen(to[1], "w");
    peer->replies = fdopen(from[0], "r");
    read_reply(peer);
    assert_string_equal(peer->line, "\"up\"");
}

static void end(struct crosvm_peer *peer)
{
    (void)fclose(peer->orders);
    (void)fclose(peer->replies);
    assert_int_equal(waitpid(peer->pid, NULL, 0), peer->pid);
    free(peer->line);
    free(peer->path);
    *peer = (struct crosvm_peer){0};
}

void crosvm_peer_stop(struct crosvm_peer *peer)
{
    crosvm_peer_expect(peer, "check", "[]");
    (void)fputs("quit\n", peer->orders);
    (void)fflush(peer->orders);
    end(peer);
}

void crosvm_peer_kill(struct crosvm_peer *peer)
{
    assert_int_equal(kill(peer->pid, SIGKILL), 0);
    end(peer);
}

const char *crosvm_peer_order(struct crosvm_peer *peer, const char *order)
{
    (void)fprintf(peer->orders, "%s\n", order);
    (void)fflush(peer->orders);
    read_reply(peer);
    return peer->line;
}

void crosvm_peer_expect(struct crosvm_peer *peer, const char *order, const char *reply)
{
    assert_string_equal(crosvm_peer_order(peer, order), reply);
}

int crosvm_peer_count(struct crosvm_peer *peer, const char *kind)
{
    char *wanted = string_printf("{\"kind\": \"%s\"", kind);
    int count = 0;
    for (const char *place = crosvm_peer_order(peer, "log"); (place = strstr(place, wanted)); place++)
        count++;
    free(wanted);
    return count;
}

void crosvm_bench_add_vm(struct bench *bench, const char *name)
{
    bench->vms[bench->config.vm_count] = (struct vm_config){
        .name = string_copy(name), .type = VM_CROSVM, .socket = string_printf("%s/%s", bench->directory, name)};
    bench_configure(bench, bench->config.vm_count + 1);
}
