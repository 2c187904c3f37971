// A bench for USB authorization.
#include "authorize_bench.h"

// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <string.h>
#include <sys/inotify.h>

#include "host/sysfs.h"
#include "host/usb.h"
#include "tree.h"
#include "util/text.h"

static void handle_settle(void *user, struct device *device, bool to_host)
{
    struct bench *bench = user;

    assert_true(bench->settled_count < DEVICES_MAX);
    bench->settled[bench->settled_count++] = device;
    bench->settled_on_host = to_host;
}

static struct config *parse(const char *authorization)
{
    CLEANUP(config_report_clear) struct config_report report = {0};
    CLEANUP(cleanup_free)
    char *text = string_printf("{\"usbAuthorization\": %s, \"usbPassthrough\": [{\"targetVm\": \"vm1\", \"allow\": "
                               "[{\"productId\": \"0001\", \"vendorId\": \"0627\"}]}], "
                               "\"vms\": [{\"name\": \"vm1\", \"type\": \"qemu\", \"socket\": \"/run/vm1\"}]}",
                               authorization);
    struct config *config = config_parse("test.json", text, strlen(text), &report);

    assert_non_null(config);
    return config;
}

void bench_configure(struct bench *bench, const char *authorization)
{
    struct config *old = bench->config;

    bench->config = parse(authorization);
    authorize_configure(bench->authorize, bench->config);
    config_free(old);
}

// As a daemon that starts, or starts again.
void bench_start(struct bench *bench, const char *authorization)
{
    authorize_free(bench->authorize);
    bench->authorize = authorize_new(bench->loop, bench->log, &bench->paths, bench->record, handle_settle, bench);
    bench_configure(bench, authorization);
}

void bench_add_bus(struct bench *bench, const char *name, const char *number, const char *devices)
{
    CLEANUP(cleanup_free) char *directory = string_printf("sys/devices/%s", name);
    CLEANUP(cleanup_free) char *link = string_printf("sys/bus/usb/devices/%s", name);
    CLEANUP(cleanup_free) char *target = string_printf("../../../devices/%s", name);
    CLEANUP(cleanup_free) char *switch_ = string_printf("%s/authorized_default", directory);
    CLEANUP(cleanup_free) char *interfaces = string_printf("%s/interface_authorized_default", directory);
    CLEANUP(cleanup_free) char *own = string_printf("%s/authorized", directory);

    tree_usb(bench->root, directory, number, "1\n");
    tree_write(bench->root, own, "1\n");
    tree_write(bench->root, switch_, devices);
    tree_write(bench->root, interfaces, "1\n");
    tree_link(bench->root, link, target);
}

// Sets an attribute of a device of bus 1, "1-2" or "1-2:1.0".
void bench_set(struct bench *bench, const char *device, const char *attribute, const char *value)
{
    CLEANUP(cleanup_free) char *path = string_printf("sys/devices/usb1/%s/%s", device, attribute);

    tree_write(bench->root, path, value);
}

struct device *bench_add_device(struct bench *bench, const char *name, const char *address, bool authorized)
{
    CLEANUP(cleanup_free) char *directory = string_printf("sys/devices/usb1/%s", name);
    CLEANUP(cleanup_free) char *link = string_printf("sys/bus/usb/devices/%s", name);
    CLEANUP(cleanup_free) char *target = string_printf("../../../devices/usb1/%s", name);
    CLEANUP(cleanup_free) char *interface = string_printf("%s/%s:1.0", name, name);
    struct device *device = device_new(DEVICE_USB);

    tree_usb(bench->root, directory, "1\n", address);
    bench_set(bench, name, "authorized", authorized ? "1\n" : "0\n");
    bench_set(bench, interface, "authorized", authorized ? "1\n" : "0\n");
    tree_link(bench->root, link, target);
    device->key = string_printf("usb:%s", name);
    device->port_path = string_copy(name);
    device->syspath = string_printf("%s/devices/usb1/%s", bench->sys, name);
    device->bus = 1;
    device->vendor_id = 0x0627;
    device->product_id = 1;
    device->instance = usb_instance(device->syspath);
    assert_int_not_equal(device->instance, 0);
    return device;
}

void bench_set_interfaces(struct device *device, const unsigned char (*triples)[3], size_t count)
{
    free(device->interfaces);
    device->interfaces = memory_new(count, sizeof(*device->interfaces));
    for (size_t i = 0; i < count; i++)
        device->interfaces[i] = (struct usb_interface){triples[i][0], triples[i][1], triples[i][2]};
    device->interface_count = count;
}

void bench_make_hub(struct device *device)
{
    device->class = 9;
    bench_set_interfaces(device, (const unsigned char[][3]){{9, 0, 0}}, 1);
}

int bench_set_up(void **state)
{
    struct bench *bench = memory_new(1, sizeof(*bench));

    bench->root = tree_new();
    bench->sys = string_printf("%s/sys", bench->root);
    bench->dev = string_printf("%s/dev", bench->root);
    bench->run = string_printf("%s/run", bench->root);
    bench->record = string_printf("%s/run/authorization.json", bench->root);
    bench->routes = string_printf("%s/route", bench->root);
    bench->paths =
        (struct authorize_paths){bench->sys, bench->dev, bench->run, {bench->sys, bench->routes, "/nonexistent"}};
    assert_int_equal(sd_event_new(&bench->loop), 0);
    bench->log = log_new(LOG_LEVEL_ERROR);
    bench->writes = -1;
    tree_directory(bench->root, "run");
    bench_add_bus(bench, "usb1", "1\n", "1\n");
    tree_write(bench->root, "sys/module/usbcore/parameters/authorized_default", "-1\n");
    tree_write(bench->root, "sys/bus/usb/drivers_probe", "");
    *state = bench;
    return 0;
}

int bench_tear_down(void **state)
{
    struct bench *bench = *state;

    authorize_free(bench->authorize);
    config_free(bench->config);
    log_free(bench->log);
    if (bench->writes >= 0)
        close(bench->writes);
    tree_free(bench->root);
    free(bench->sys);
    free(bench->dev);
    free(bench->run);
    free(bench->record);
    free(bench->routes);
    sd_event_unref(bench->loop);
    free(bench);
    return 0;
}

void bench_expect(struct bench *bench, const char *path, const char *value)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(bench->sys);
    CLEANUP(cleanup_free) char *found = NULL;

    assert_int_equal(sysfs_string(directory, path, &found), 0);
    assert_string_equal(found != NULL ? found : "", value);
}

void bench_expect_device(struct bench *bench, const char *name, const char *authorized, const char *interface)
{
    CLEANUP(cleanup_free) char *own = string_printf("devices/usb1/%s/authorized", name);
    CLEANUP(cleanup_free) char *of_interface = string_printf("devices/usb1/%s/%s:1.0/authorized", name, name);

    bench_expect(bench, own, authorized);
    bench_expect(bench, of_interface, interface);
}

// Runs a plan; whether there was one.
bool bench_run(struct bench *bench, struct authorize_plan *made)
{
    CLEANUP(cleanup_authorize_plan) struct authorize_plan *plan = made;
    enum host_open_kind kind;
    char *text = NULL;

    if (plan == NULL)
        return false;
    authorize_run(plan);
    assert_false(authorize_failed(plan, &kind, &text));
    authorize_done(bench->authorize, plan);
    return true;
}

void bench_open_for_vm(struct bench *bench, struct device *device)
{
    assert_true(bench_run(bench, authorize_open(bench->authorize, device)));
}

// ---- what is written, in order

void bench_watch(struct bench *bench, const char *path)
{
    CLEANUP(cleanup_free) char *full = string_printf("%s/%s", bench->sys, path);

    if (bench->writes < 0)
        bench->writes = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    assert_true(inotify_add_watch(bench->writes, full, IN_MODIFY | IN_DONT_FOLLOW) > 0);
}

// The numbers of the watched files in the order in which they were written, since the last call.
static char *writes(struct bench *bench)
{
    char buffer[4096] __attribute__((aligned(8)));
    ssize_t length = read(bench->writes, buffer, sizeof(buffer));
    struct text text = {0};

    for (ssize_t at = 0; at < length;) {
        const struct inotify_event *event = (const struct inotify_event *)(void *)(buffer + at);
        text_printf(&text, "%d", event->wd);
        at += (ssize_t)(sizeof(*event) + event->len);
    }
    return text_take(&text);
}

void bench_expect_writes(struct bench *bench, const char *wanted)
{
    CLEANUP(cleanup_free) char *found = writes(bench);

    assert_string_equal(found, wanted);
}

void bench_watch_device(struct bench *bench)
{
    bench_watch(bench, "devices/usb1/interface_authorized_default"); // 1
    bench_watch(bench, "devices/usb1/1-2/authorized");               // 2
    bench_watch(bench, "devices/usb1/1-2/1-2:1.0/authorized");       // 3
    bench_watch(bench, "bus/usb/drivers_probe");                     // 4
}
