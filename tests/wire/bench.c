// What the tests of the VMM wing share: a loop, the wing under test, and a record of what it told.
#include "bench.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "util/text.h"

static struct told *record(struct bench *bench, const char *word, const char *vm)
{
    assert_true(bench->told_count < sizeof bench->told / sizeof *bench->told);
    struct told *told = &bench->told[bench->told_count++];
    *told = (struct told){0};
    (void)snprintf(told->word, sizeof told->word, "%s", word);
    (void)snprintf(told->vm, sizeof told->vm, "%s", vm);
    return told;
}

static void on_up(void *user, const char *vm, uint64_t instance)
{
    record(user, "up", vm)->instance = instance;
}

static void on_down(void *user, const char *vm)
{
    record(user, "down", vm);
}

static void on_silent(void *user, const char *vm, const char *why)
{
    struct bench *bench = user;
    if (bench->told_silent)
        record(bench, "silent", vm)->why = string_copy(why);
}

static void on_news(void *user, const char *vm)
{
    record(user, "news", vm);
}

static void on_done(void *user, const char *vm, const struct result *result)
{
    struct told *told = record(user, "done", vm);
    told->result = *result;
    told->result.text = string_copy(result->text);
    told->result.attachments = memory_new(result->attachment_count + 1, sizeof *result->attachments);
    if (result->attachment_count > 0)
        memcpy(told->result.attachments, result->attachments, result->attachment_count * sizeof *result->attachments);
}

int count_descriptors(void)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    (void)closedir(directory);
    return count;
}

int bench_setup(void **state)
{
    static const struct vmms_callbacks callbacks = {
        .up = on_up, .down = on_down, .silent = on_silent, .news = on_news, .done = on_done};
    struct bench *bench = memory_new(1, sizeof *bench);
    (void)snprintf(bench->directory, sizeof bench->directory, "/tmp/wire-XXXXXX");
    assert_non_null(mkdtemp(bench->directory));
    bench->descriptors = count_descriptors();
    bench->log = log_new(LOG_LEVEL_ERROR);
    assert_true(sd_event_new(&bench->loop) >= 0);
    assert_true(vmms_new(&bench->vmms, bench->loop, bench->log, &callbacks, bench) >= 0);
    bench->config.vms = bench->vms;
    *state = bench;
    return 0;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

int bench_teardown(void **state)
{
    struct bench *bench = *state;
    vmms_free(bench->vmms);
    log_free(bench->log);
    sd_event_unref(bench->loop);
    int left = count_descriptors() - bench->descriptors;
    (void)nftw(bench->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    for (size_t i = 0; i < bench->told_count; i++) {
        free(bench->told[i].why);
        result_clear(&bench->told[i].result);
    }
    for (size_t i = 0; i < sizeof bench->vms / sizeof *bench->vms; i++) {
        free(bench->vms[i].name);
        free(bench->vms[i].socket);
    }
    free(bench);
    if (left != 0)
        print_error("%d descriptors left\n", left);
    return left == 0 ? 0 : -1;
}

void bench_add_vm(struct bench *bench, const char *name, const char *socket)
{
    struct vm_config *vm = &bench->vms[bench->config.vm_count];
    *vm = (struct vm_config){
        .name = string_copy(name), .type = VM_QEMU, .socket = string_printf("%s/%s", bench->directory, socket)};
    bench_configure(bench, bench->config.vm_count + 1);
}

void bench_configure(struct bench *bench, size_t vm_count)
{
    bench->config.vm_count = vm_count;
    vmms_configure(bench->vmms, &bench->config, NULL);
}

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

struct told *bench_expect(struct bench *bench, const char *word, const char *vm)
{
    uint64_t end = now_us() + WAIT_US;
    while (bench->read == bench->told_count) {
        if (now_us() > end)
            fail_msg("waited for '%s' of %s, nothing came", word, vm);
        assert_true(sd_event_run(bench->loop, 1000 * 1000) >= 0);
    }
    struct told *told = &bench->told[bench->read++];
    if (strcmp(told->word, word) != 0 || strcmp(told->vm, vm) != 0)
        fail_msg("expected '%s' of %s, got '%s' of %s (%s)", word, vm, told->word, told->vm,
                 told->result.text ? told->result.text : "");
    return told;
}

struct told *bench_expect_up(struct bench *bench, const char *vm)
{
    for (;;) {
        uint64_t end = now_us() + WAIT_US;
        while (bench->read == bench->told_count && now_us() < end)
            assert_true(sd_event_run(bench->loop, 1000 * 1000) >= 0);
        if (bench->read < bench->told_count && strcmp(bench->told[bench->read].word, "down") == 0)
            bench->read++;
        else
            return bench_expect(bench, "up", vm);
    }
}

void bench_turn(struct bench *bench)
{
    assert_true(sd_event_run(bench->loop, 1000) >= 0);
}

void bench_expect_nothing(struct bench *bench)
{
    for (int i = 0; i < 20; i++)
        bench_turn(bench);
    if (bench->read != bench->told_count)
        fail_msg("'%s' was told", bench->told[bench->read].word);
}

static struct operation operation_for(struct bench *bench, const char *vm, enum operation_kind kind)
{
    struct operation operation = {.serial = ++bench->serial, .kind = kind};
    (void)snprintf(operation.vm, sizeof operation.vm, "%s", vm);
    return operation;
}

void bench_list(struct bench *bench, const char *vm)
{
    struct operation operation = operation_for(bench, vm, OPERATION_LIST);
    vmms_start(bench->vmms, &operation, -1, NULL);
}

void bench_attach(struct bench *bench, const char *vm, struct device *device, int fd)
{
    struct operation operation = operation_for(bench, vm, OPERATION_ATTACH);
    operation.device = device_reference(device);
    vmms_start(bench->vmms, &operation, fd, fd < 0 ? "the test has none" : NULL);
}

void bench_attach_input(struct bench *bench, const char *vm, struct device *device, const char *prefix)
{
    struct operation operation = operation_for(bench, vm, OPERATION_ATTACH);
    operation.device = device_reference(device);
    (void)snprintf(operation.bus_prefix, sizeof operation.bus_prefix, "%s", prefix);
    vmms_start(bench->vmms, &operation, -1, NULL);
}

void bench_attach_pci(struct bench *bench, const char *vm, struct device *device, bool root_bus)
{
    struct operation operation = operation_for(bench, vm, OPERATION_ATTACH);
    operation.device = device_reference(device);
    operation.root_bus = root_bus;
    vmms_start(bench->vmms, &operation, -1, NULL);
}

void bench_attach_pci_sparing(struct bench *bench, const char *vm, struct device *device, const char *prefix)
{
    struct operation operation = operation_for(bench, vm, OPERATION_ATTACH);
    operation.device = device_reference(device);
    (void)snprintf(operation.spared, sizeof operation.spared, "%s", prefix);
    vmms_start(bench->vmms, &operation, -1, NULL);
}

void bench_detach(struct bench *bench, const char *vm, const char *object)
{
    struct operation operation = operation_for(bench, vm, OPERATION_DETACH);
    (void)snprintf(operation.object, sizeof operation.object, "%s", object);
    vmms_start(bench->vmms, &operation, -1, NULL);
}

struct device *bench_input(unsigned number)
{
    struct device *device = device_new(DEVICE_INPUT);
    device->key = string_printf("input:input%u", number);
    device->instance = number + 1;
    device->node = string_copy("/dev/null"); // a node that is always there
    return device;
}

struct device *bench_pci(unsigned bus, int group)
{
    struct device *device = device_new(DEVICE_PCI);
    device->key = string_printf("pci:0000:%02x:00.0", bus);
    device->instance = (uint64_t)0xc000 + bus;
    device->iommu_group = group;
    return device;
}

struct device *bench_device(unsigned bus, unsigned address, enum usb_speed speed)
{
    struct device *device = device_new(DEVICE_USB);
    device->key = string_printf("usb:%u-%u", bus, address);
    device->instance = (uint64_t)bus * 1000 + address;
    device->node = string_copy("/dev/null"); // a node that is always there
    device->bus = bus;
    device->address = address;
    device->speed = speed;
    return device;
}
