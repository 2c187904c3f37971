// What the tests with a fake crosvm share.
#include "crosvm_bench.h"

#include <fcntl.h>
#include <string.h>

void vm1_begin(struct bench *bench, struct crosvm_peer *peer, const char *mode)
{
    crosvm_peer_start(peer, bench->directory, "vm1", mode);
    crosvm_bench_add_vm(bench, "vm1");
    assert_true(bench_expect(bench, "up", "vm1")->instance != 0);
}

const struct result *bench_expect_result(struct bench *bench, const char *vm, enum result_kind kind)
{
    const struct result *result = &bench_expect(bench, "done", vm)->result;
    if (result->kind != kind)
        fail_msg("result %d, not %d: %s", result->kind, kind, result->text ? result->text : "");
    return result;
}

const struct result *vm1_list(struct bench *bench, enum result_kind kind)
{
    bench_list(bench, "vm1");
    return bench_expect_result(bench, "vm1", kind);
}

const struct result *vm1_detach(struct bench *bench, const char *object, enum result_kind kind)
{
    bench_detach(bench, "vm1", object);
    return bench_expect_result(bench, "vm1", kind);
}

void bench_start_attach(struct bench *bench, const char *vm, const char *node, uint64_t instance)
{
    struct device *device = bench_device(1, 2, strcmp(node, DISK) == 0 ? SPEED_SUPER : SPEED_HIGH);
    device->instance = instance;
    device->vendor_id = strcmp(node, STICK) == 0 ? 0x0781 : strcmp(node, DISK) == 0 ? 0x1d6b : 0x046d;
    device->product_id = strcmp(node, STICK) == 0 ? 0x5567 : strcmp(node, DISK) == 0 ? 0x0003 : 0xc077;
    bench_attach(bench, vm, device, open(node, O_RDWR | O_CLOEXEC));
    device_release(device);
}

const struct result *vm1_attach(struct bench *bench, const char *node, uint64_t instance, enum result_kind kind)
{
    bench_start_attach(bench, "vm1", node, instance);
    return bench_expect_result(bench, "vm1", kind);
}

void crosvm_peer_await(struct bench *bench, struct crosvm_peer *peer, const char *kind, int count)
{
    for (int turns = 0; crosvm_peer_count(peer, kind) < count; turns++) {
        assert_true(turns < 20000);
        bench_turn(bench);
    }
}

uint64_t owner_of(const struct result *result, const char *port)
{
    assert_true(result->listed);
    for (size_t i = 0; i < result->attachment_count; i++) {
        const struct attachment *attachment = &result->attachments[i];
        if (strcmp(attachment->object, port) == 0) {
            assert_int_equal(attachment->ours, attachment->instance != 0);
            return attachment->instance;
        }
    }
    fail_msg("port %s is not listed", port);
    return 0;
}

void expect_text(const struct result *result, const char *words)
{
    if (!result->text || !strstr(result->text, words))
        fail_msg("not said: %s, but: %s", words, result->text ? result->text : "");
}
