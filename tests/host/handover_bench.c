// A bench for the hand-over of devices: a tree of files in place of the host, a loop, and the threads that do the work.
#include "handover_bench.h"

// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <acl/libacl.h>
#include <stdlib.h>
#include <sys/acl.h>
#include <sys/stat.h>

#include "host/pci.h"
#include "tree.h"
#include "util/text.h"

void handover_bench_init(struct handover_bench *bench, enum log_level level,
                         void (*answered)(void *user, struct handover_answer *answer), void *user)
{
    *bench = (struct handover_bench){.root = tree_new(), .log = log_new(level)};
    bench->sys = string_printf("%s/sys", bench->root);
    bench->dev = string_printf("%s/dev", bench->root);
    bench->records = string_printf("%s/records", bench->root);
    bench->paths = (struct access_paths){bench->sys, bench->dev, bench->records};
    bench->bind_paths = (struct bind_paths){.run = "/run", .records = bench->records};
    bench->bind_paths.usage = (struct usage_paths){.sys = bench->sys, .dev = bench->dev};
    assert_int_equal(sd_event_new(&bench->loop), 0);
    assert_int_equal(worker_new(&bench->worker, bench->loop, 4), 0);
    bench->handover = handover_new(bench->worker, bench->loop, bench->log, &bench->bind_paths, answered, user);
}

void handover_bench_clear(struct handover_bench *bench)
{
    worker_free(bench->worker);
    handover_free(bench->handover);
    sd_event_unref(bench->loop);
    log_free(bench->log);
    device_release(bench->card);
    free(bench->group_node);
    free(bench->sys);
    free(bench->dev);
    free(bench->records);
    tree_free(bench->root);
}

void handover_bench_add_card(struct handover_bench *bench)
{
    CLEANUP(cleanup_free) char *card = string_printf("%s/" CARD, bench->root);

    tree_card(bench->root, CARD);
    bench->group_node = string_printf("%s/dev/vfio/12", bench->root);
    assert_int_equal(chmod(bench->group_node, 0600), 0);
    assert_int_equal(pci_read_at(card, &bench->card), 0);
}

void handover_bench_wait(struct handover_bench *bench, unsigned answers)
{
    while (bench->answers < answers)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    assert_int_equal(bench->answers, answers);
}

bool handover_bench_is_given(const char *node)
{
    acl_t acl = acl_get_file(node, ACL_TYPE_ACCESS);
    int entries;

    assert_non_null(acl);
    entries = acl_entries(acl);
    acl_free(acl);
    return entries > 3; // owner, group and others are always there
}
