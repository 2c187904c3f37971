// A bench for the reconciler: short words in, the outputs as text out.
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/report.h"
#include "unit.h"

static const char groups_plain[] = "{\"targetVm\":\"vm1\",\"allow\":[{\"vendorId\":\"0001\"}]},"
                                   "{\"targetVm\":\"vm2\",\"allow\":[{\"vendorId\":\"0002\"}]},"
                                   "{\"targetVm\":\"vm3\",\"allow\":[{\"vendorId\":\"0003\"}]}";

void bench_configure(struct bench *bench, const char *groups, bool vm2)
{
    CLEANUP(cleanup_free)
    char *text = string_printf("{\"usbPassthrough\":[%s],"
                               "\"evdevPassthrough\":{\"pcieBusPrefix\":\"ep\",\"targetVm\":\"vm1\"},"
                               "\"vms\":[{\"name\":\"vm1\",\"type\":\"qemu\",\"socket\":\"/1\"},%s"
                               "{\"name\":\"vm3\",\"type\":\"cloud-hypervisor\",\"socket\":\"/3\"}]}",
                               groups, vm2 ? "{\"name\":\"vm2\",\"type\":\"qemu\",\"socket\":\"/2\"}," : "");
    bench_configure_text(bench, text);
}

void bench_configure_text(struct bench *bench, const char *text)
{
    struct config_report report;
    struct config *before = bench->config;
    bench->config = config_parse("test.json", text, strlen(text), &report);
    config_report_clear(&report);
    assert_non_null(bench->config);
    reconcile_configure(bench->reconcile, bench->config, bench->now);
    config_free(before);
}

void bench_init(struct bench *bench, bool attach_connected)
{
    *bench = (struct bench){.now = 1000000, .vms = {"vm1", "vm2", "vm3", "vm4"}};
    bench->reconcile = reconcile_new(1, attach_connected);
    bench_configure(bench, groups_plain, true);
}

void bench_clear(struct bench *bench)
{
    reconcile_free(bench->reconcile);
    config_free(bench->config);
    text_clear(&bench->log);
}

struct device *bench_device(unsigned port, uint64_t instance, unsigned vendor)
{
    struct device *device = device_new(DEVICE_USB);
    device->key = string_printf("usb:1-%u", port);
    device->instance = instance;
    device->vendor_id = (uint16_t)vendor;
    device->bus = 1;
    device->address = (unsigned)instance;
    return device;
}

void bench_plug(struct bench *bench, unsigned port, uint64_t instance, unsigned vendor, bool plugged)
{
    CLEANUP(cleanup_device) struct device *device = bench_device(port, instance, vendor);
    reconcile_device(bench->reconcile, device, plugged, bench->now);
}

void bench_unplug(struct bench *bench, unsigned port, uint64_t instance)
{
    char key[16];
    snprintf(key, sizeof(key), "usb:1-%u", port);
    reconcile_device_gone(bench->reconcile, key, instance, bench->now);
}

void bench_up(struct bench *bench, const char *vm, uint64_t instance)
{
    reconcile_vm_up(bench->reconcile, vm, instance, bench->now);
}

void bench_down(struct bench *bench, const char *vm)
{
    reconcile_vm_down(bench->reconcile, vm, bench->now);
}

static uint64_t *serial_of(struct bench *bench, const char *vm)
{
    unsigned i = 0;
    while (i < BENCH_VMS - 1 && strcmp(bench->vms[i], vm) != 0)
        i++;
    return &bench->serials[i];
}

static void parse_attachment(struct attachment *attachment, const char *word)
{
    const char *end = word + strcspn(word, "=@");
    memcpy(attachment->object, word, (size_t)(end - word));
    attachment->ours = *end == '=';
    attachment->dead = strchr(end, '!') != NULL;
    attachment->leaving = strchr(end, '~') != NULL;
    if (attachment->ours) {
        attachment->instance = strtoull(end + 1, NULL, 10);
    } else if (strchr(end, ':')) {
        (void)snprintf(attachment->pci, sizeof(attachment->pci), "%s", end + 1);
    } else {
        attachment->bus = 1;
        attachment->address = (unsigned)strtoul(end + 1, NULL, 10);
    }
}

void bench_answer(struct bench *bench, const char *vm, enum result_kind kind, const char *text, const char *list)
{
    struct attachment attachments[8] = {0};
    CLEANUP(cleanup_free) char *why = string_copy(text);
    struct result result = {.serial = *serial_of(bench, vm), .kind = kind, .text = why, .attachments = attachments};
    CLEANUP(cleanup_free) char *words = string_copy(list);
    result.listed = list != NULL;
    char *place = NULL;
    for (char *word = words ? strtok_r(words, " ", &place) : NULL; word; word = strtok_r(NULL, " ", &place))
        parse_attachment(&attachments[result.attachment_count++], word);
    reconcile_result(bench->reconcile, vm, &result, bench->now);
}

static void add_operation(struct bench *bench, const struct operation *operation)
{
    *serial_of(bench, operation->vm) = operation->serial;
    if (operation->kind == OPERATION_LIST)
        text_printf(&bench->log, "LIST %s\n", operation->vm);
    else if (operation->kind == OPERATION_ATTACH)
        text_printf(&bench->log, "ATTACH %s %s %llu%s%s%s%s%s\n", operation->vm, operation->device->key,
                    (unsigned long long)operation->device->instance, *operation->bus_prefix ? " on " : "",
                    operation->bus_prefix, operation->root_bus ? " on the root bus" : "",
                    *operation->spared ? " sparing " : "", operation->spared);
    else
        text_printf(&bench->log, "DETACH %s %s\n", operation->vm, operation->object);
    if (operation->kind == OPERATION_DETACH)
        bench->leaving = operation->device ? operation->device->instance : 0;
}

static void add_output(struct bench *bench, const struct output *output)
{
    static const char *const states[] = {"down", "starting", "answers", "silent"};
    const char *blank = *output->reason ? ": " : "";
    if (output->kind == OUTPUT_DEVICE)
        text_printf(&bench->log, "%s %s%s%s%s%s\n", output->device->key,
                    output->gone ? "unplugged" : report_state(output->state), output->vm ? " " : "",
                    output->vm ? output->vm : "", output->gone ? "" : ": ", output->gone ? "" : output->reason);
    else if (output->kind == OUTPUT_VM)
        text_printf(&bench->log, "%s %s%s%s\n", output->vm, states[output->vm_state], blank, output->reason);
    else if (output->kind == OUTPUT_SELECT)
        text_printf(&bench->log, "SELECT %s%s%s\n", output->device->key, blank, output->reason);
    else
        text_printf(&bench->log, "note %s%s%s\n", output->vm, blank, output->reason);
}

static void drain(struct bench *bench)
{
    struct output output;
    for (unsigned i = 0; reconcile_next(bench->reconcile, bench->now, &output); i++) {
        assert_true(i < 1000);
        if (output.kind == OUTPUT_MEMORY)
            text_add(&bench->log, "MEMORY\n");
        else if (output.kind == OUTPUT_CHOICES)
            text_add(&bench->log, "CHOICES\n");
        else if (output.kind == OUTPUT_OPERATION)
            add_operation(bench, &output.operation);
        else
            add_output(bench, &output);
        operation_clear(&output.operation);
    }
}

void bench_expect_at(struct bench *bench, const char *expected, const char *file, int line)
{
    drain(bench);
    CLEANUP(cleanup_free) char *log = text_take(&bench->log);
    if (strcmp(log, expected) != 0) {
        print_error("put out:\n%sexpected:\n%s", log, expected);
        _fail(file, line);
    }
}

void bench_skip(struct bench *bench)
{
    drain(bench);
    text_clear(&bench->log);
}

void bench_ready(struct bench *bench, bool attach_connected)
{
    bench_init(bench, attach_connected);
    reconcile_scanned(bench->reconcile, bench->now);
    bench_up(bench, "vm1", 11);
    bench_up(bench, "vm2", 22);
    bench_expect(bench, "vm1 starting\nvm2 starting\nLIST vm1\nLIST vm2\n");
    bench_answer(bench, "vm1", RESULT_DONE, "", "");
    bench_answer(bench, "vm2", RESULT_DONE, "", "");
    bench_expect(bench, "vm1 answers\nvm2 answers\n");
}

void bench_attached(struct bench *bench)
{
    bench_ready(bench, false);
    bench_plug(bench, 1, 5, 1, true);
    bench_skip(bench);
    bench_answer(bench, "vm1", RESULT_DONE, "", "a=5");
    bench_expect(bench, "usb:1-1 attached vm1: "
                        "allowed by usbPassthrough[0].allow[0]"
                        "\n");
}

void bench_at_deadline(struct bench *bench)
{
    uint64_t deadline = reconcile_deadline(bench->reconcile);
    assert_true(deadline > bench->now && deadline != UINT64_MAX);
    bench->now = deadline;
}

void bench_idle(struct bench *bench)
{
    bench_expect(bench, "");
    assert_true(reconcile_deadline(bench->reconcile) == UINT64_MAX);
}
