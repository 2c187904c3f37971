// A scripted QEMU for tests: speaks QMP on a socket, one client at a time, from the test's own loop,
// with a tree of devices, and with faults on demand.
#include "fake_qemu.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench.h"
#include "util/json.h"

#define GREETING                                                                                                       \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \"package\": \"\"}, "             \
    "\"capabilities\": [\"oob\"]}}\r\n"
#define EVENT                                                                                                          \
    "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"RESET\", \"data\": {\"guest\": false}}\r\n"

static void drop_client(struct fake_qemu *fake)
{
    fake->reading = sd_event_source_disable_unref(fake->reading);
    if (fake->client >= 0)
        close(fake->client);
    fake->client = -1;
    text_clear(&fake->input);
    free(fake->held);
    fake->held = NULL;
    if (fake->accepting)
        (void)sd_event_source_set_enabled(fake->accepting, SD_EVENT_ON);
}

static void send_bytes(struct fake_qemu *fake, const char *bytes, size_t length)
{
    for (size_t done = 0; done < length && fake->client >= 0;) {
        size_t part = length - done;
        if (fake->cut && fake->sent + part >= fake->cut)
            part = fake->cut - fake->sent;
        ssize_t sent = part ? send(fake->client, bytes + done, part, MSG_NOSIGNAL) : 0;
        if (sent < 0)
            break;
        done += (size_t)sent;
        fake->sent += (size_t)sent;
        if (fake->cut && fake->sent >= fake->cut) {
            drop_client(fake);
            fake->cut = 0; // once
        }
    }
}

void fake_qemu_send(struct fake_qemu *fake, const char *text)
{
    send_bytes(fake, text, strlen(text));
}

void fake_qemu_greet(struct fake_qemu *fake)
{
    fake->greeted++;
    fake_qemu_send(fake, GREETING);
}

static void answer(struct fake_qemu *fake, struct json_object *id, const char *member, struct json_object *value)
{
    struct json_object *reply = json_object_new_object();
    json_object_object_add(reply, member, value);
    json_object_object_add(reply, "id", json_object_get(id));
    char *line = string_printf("%s\r\n", json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PLAIN));
    json_object_put(reply);
    if (fake->chatty)
        fake_qemu_send(fake, EVENT);
    if (fake->backwards && !fake->held && fake->commands % 2 == 1) {
        fake->held = line;
        return;
    }
    fake_qemu_send(fake, line);
    free(line);
    if (fake->held) {
        char *held = fake->held;
        fake->held = NULL;
        fake_qemu_send(fake, held);
        free(held);
    }
}

static void fail_with(struct fake_qemu *fake, struct json_object *id, const char *class, const char *words)
{
    struct json_object *error = json_object_new_object();
    json_object_object_add(error, "class", json_object_new_string(class));
    json_object_object_add(error, "desc", json_object_new_string(words));
    answer(fake, id, "error", error);
}

static struct fake_device *find(struct fake_qemu *fake, const char *id)
{
    for (size_t i = 0; i < fake->device_count; i++)
        if (strcmp(fake->devices[i].id, id) == 0)
            return &fake->devices[i];
    return NULL;
}

void fake_qemu_add(struct fake_qemu *fake, const char *id, const char *type)
{
    assert_true(fake->device_count < sizeof fake->devices / sizeof *fake->devices);
    struct fake_device *device = &fake->devices[fake->device_count++];
    *device = (struct fake_device){0};
    (void)snprintf(device->id, sizeof device->id, "%s", id);
    (void)snprintf(device->type, sizeof device->type, "%s", type);
}

static void add_entry(struct json_object *list, const char *name, const char *type)
{
    struct json_object *entry = json_object_new_object();
    char text[128];
    (void)snprintf(text, sizeof text, "child<%s>", type);
    json_object_object_add(entry, "name", json_object_new_string(name));
    json_object_object_add(entry, "type", json_object_new_string(text));
    json_object_array_add(list, entry);
}

// The bus of a port, "/machine/peripheral/ep1/ep1": links to what is on it.
static void list_port(const struct fake_qemu *fake, const char *name, struct json_object *list)
{
    for (size_t i = 0; i < fake->device_count; i++) {
        if (strcmp(fake->devices[i].on, name) != 0)
            continue;
        struct json_object *entry = json_object_new_object();
        json_object_object_add(entry, "name", json_object_new_string("child[0]"));
        json_object_object_add(entry, "type", json_object_new_string("link<virtio-net-pci>"));
        json_object_array_add(list, entry);
    }
}

// NULL: there is no such object.
static struct json_object *qom_list(struct fake_qemu *fake, const char *path)
{
    if (strcmp(path, "/machine/i440fx/pci.0") == 0 && !fake->pc)
        return NULL;
    struct json_object *list = json_object_new_array();
    const char *name = strrchr(path, '/');
    if (name && find(fake, name + 1))
        list_port(fake, name + 1, list);
    if (strcmp(path, "/machine/peripheral") == 0) {
        if (!fake->no_controller)
            add_entry(list, "xhci", fake->ehci_only ? "usb-ehci" : "qemu-xhci");
        for (size_t i = 0; i < fake->device_count; i++)
            add_entry(list, fake->devices[i].id, fake->devices[i].type);
    } else if (strcmp(path, "/objects") == 0) {
        add_entry(list, "pc.ram", "memory-backend-ram");
        if (fake->context)
            add_entry(list, "vhotplug-iommufd", "iommufd");
    } else if (strcmp(path, "/machine/peripheral/xhci") == 0) {
        add_entry(list, "xhci.0", "usb-bus");
    }
    return list;
}

static struct json_object *qom_get(struct fake_qemu *fake, const char *path, const char *property)
{
    if (strcmp(property, "p2") == 0 || strcmp(property, "p3") == 0)
        return json_object_new_int(4);
    const char *name = strrchr(path, '/');
    struct fake_device *device = name ? find(fake, name + 1) : NULL;
    if (!device)
        return NULL;
    if (strcmp(property, "hotplug") == 0)
        return json_object_new_boolean(!device->no_hotplug);
    if (strcmp(property, "attached") == 0)
        return json_object_new_boolean(!device->detached);
    if (strcmp(property, "hostbus") == 0)
        return json_object_new_int((int)device->bus);
    if (strcmp(property, "hostaddr") == 0)
        return json_object_new_int((int)device->address);
    if (strcmp(property, "host") == 0)
        return *device->host ? json_object_new_string(device->host) : NULL;
    if (strcmp(property, "sysfsdev") == 0)
        return *device->sysfsdev ? json_object_new_string(device->sysfsdev) : NULL;
    if (strcmp(property, "hostdevice") == 0)
        return json_object_new_string("");
    if (strcmp(property, "parent_bus") == 0)
        return json_object_new_string("/machine/peripheral/xhci/xhci.0");
    return json_object_new_string(device->port);
}

// ---- descriptors by name

static struct fake_named *find_named(struct fake_qemu *fake, const char *name)
{
    for (size_t i = 0; i < sizeof fake->named / sizeof *fake->named; i++)
        if (strcmp(fake->named[i].name, name) == 0)
            return &fake->named[i];
    return NULL;
}

// It is used once, whatever becomes of it. 0: there is none of that name.
static ino_t use_named(struct fake_qemu *fake, const char *name)
{
    struct fake_named *named = find_named(fake, name);
    if (named)
        *named->name = '\0';
    return named ? named->inode : 0;
}

static void fail_to_use(struct fake_qemu *fake, struct json_object *id, const char *name)
{
    char *text =
        string_printf("Could not parse remote object fd %s:File descriptor named '%s' has not been found", name, name);
    fail_with(fake, id, "GenericError", text);
    free(text);
}

static void getfd(struct fake_qemu *fake, struct json_object *id, const char *name)
{
    struct fake_named *named = find_named(fake, name);
    if (!named)
        named = find_named(fake, "");
    if (!named || !name)
        abort();
    (void)snprintf(named->name, sizeof named->name, "%s", name);
    named->inode = fake->fd_inode;
    answer(fake, id, "return", json_object_new_object());
}

static void object_add(struct fake_qemu *fake, struct json_object *id, struct json_object *arguments)
{
    const char *name = json_member_string(arguments, "fd");
    assert_string_equal(json_member_string(arguments, "qom-type"), "iommufd");
    assert_string_equal(json_member_string(arguments, "id"), "vhotplug-iommufd");
    if (fake->object_error) {
        fail_with(fake, id, "GenericError", fake->object_error);
        return;
    }
    assert_int_equal(fake->context, 0); // QEMU loses the descriptor of a second one
    fake->context = use_named(fake, name);
    if (fake->context)
        answer(fake, id, "return", json_object_new_object());
    else
        fail_to_use(fake, id, name);
}

// Whether what was handed over serves; if not, it has been answered.
static bool take_function(struct fake_qemu *fake, struct json_object *id, struct json_object *arguments,
                          ino_t *function)
{
    const char *name = json_member_string(arguments, "fd");
    if (!name)
        return true;
    assert_string_equal(json_member_string(arguments, "iommufd"), "vhotplug-iommufd");
    assert_true(fake->context != 0); // QEMU loses the descriptor otherwise
    *function = use_named(fake, name);
    if (!*function)
        fail_to_use(fake, id, name);
    else if (fake->function_error)
        fail_with(fake, id, "GenericError", fake->function_error);
    return *function && !fake->function_error;
}

static void closefd(struct fake_qemu *fake, struct json_object *id, const char *name)
{
    if (use_named(fake, name)) {
        answer(fake, id, "return", json_object_new_object());
        return;
    }
    char *text = string_printf("File descriptor named '%s' not found", name);
    fail_with(fake, id, "GenericError", text);
    free(text);
}

static void list_properties(struct fake_qemu *fake, struct json_object *id)
{
    struct json_object *list = json_object_new_array();
    add_entry(list, "host", "str");
    if (fake->takes_functions) {
        add_entry(list, "fd", "string");
        add_entry(list, "iommufd", "link<iommufd>");
    }
    answer(fake, id, "return", list);
}

// As QEMU 7.2 does: a port that is in use is no reason to refuse.
static void add_on_port(struct fake_qemu *fake, struct json_object *arguments, ino_t function)
{
    const char *name = json_member_string(arguments, "id"), *host = json_member_string(arguments, "host");
    fake_qemu_add(fake, name, json_member_string(arguments, "driver"));
    struct fake_device *device = find(fake, name);
    (void)snprintf(device->on, sizeof device->on, "%s", json_member_string(arguments, "bus"));
    (void)snprintf(device->port, sizeof device->port, "none");
    (void)snprintf(device->host, sizeof device->host, "%s", host ? host : "");
    device->function = function;
}

static int answer_late(sd_event_source *source, uint64_t now, void *user)
{
    struct fake_qemu *fake = user;
    (void)source;
    (void)now;
    fake->late = sd_event_source_disable_unref(fake->late);
    fake_qemu_send(fake, fake->late_answer);
    free(fake->late_answer);
    return 0;
}

static void answer_added(struct fake_qemu *fake, struct json_object *id)
{
    if (!fake->add_delay) {
        answer(fake, id, "return", json_object_new_object());
        return;
    }
    fake->late_answer = string_printf("{\"return\": {}, \"id\": %s}\r\n", json_object_to_json_string(id));
    assert_true(sd_event_add_time_relative(sd_event_source_get_event(fake->accepting), &fake->late, CLOCK_MONOTONIC,
                                           fake->add_delay, 0, answer_late, fake) >= 0);
}

static void device_add(struct fake_qemu *fake, struct json_object *id, struct json_object *arguments)
{
    const char *name = json_member_string(arguments, "id");
    const char *port = json_member_string(arguments, "port");
    uint64_t number = 0;
    bool on_port = strcmp(json_member_string(arguments, "driver"), "usb-host") != 0;
    ino_t function = 0;
    if (!fake->answer_error && !take_function(fake, id, arguments, &function))
        return;
    if (on_port && (!fake->answer_error || fake->adds_all_the_same))
        add_on_port(fake, arguments, function);
    if (fake->answer_error) {
        fail_with(fake, id, "GenericError", fake->answer_error);
        return;
    }
    if (on_port) {
        answer_added(fake, id);
        return;
    }
    for (size_t i = 0; i < fake->device_count; i++) {
        if (strcmp(fake->devices[i].port, port) == 0) {
            fail_with(fake, id, "GenericError", "usb port 1 (bus xhci.0) not found (in use?)");
            return;
        }
    }
    fake_qemu_add(fake, name, "usb-host");
    struct fake_device *device = find(fake, name);
    (void)snprintf(device->port, sizeof device->port, "%s", port);
    if (json_member_uint64(arguments, "hostbus", &number))
        device->bus = (unsigned)number;
    if (json_member_uint64(arguments, "hostaddr", &number))
        device->address = (unsigned)number;
    answer(fake, id, "return", json_object_new_object());
}

static void device_del(struct fake_qemu *fake, struct json_object *id, const char *name)
{
    struct fake_device *device = find(fake, name);
    if (!device) {
        fail_with(fake, id, "DeviceNotFound", "Device not found");
        return;
    }
    if (fake->delete_error) {
        fail_with(fake, id, "GenericError", fake->delete_error);
        return;
    }
    bool goes = !fake->holds_device_del && fake->guest == GUEST_AGREES;
    if (goes)
        *device = fake->devices[--fake->device_count];
    char *event = string_printf("{\"event\": \"%s\", \"data\": {\"device\": \"%s\", \"path\": "
                                "\"/machine/peripheral/%s\"}}\r\n",
                                goes ? "DEVICE_DELETED" : "DEVICE_UNPLUG_GUEST_ERROR", name, name);
    if (fake->guest == GUEST_REFUSES_FIRST)
        fake_qemu_send(fake, event);
    answer(fake, id, "return", json_object_new_object());
    if (goes || fake->guest == GUEST_REFUSES_LAST)
        fake_qemu_send(fake, event);
    free(event);
}

static void run_command(struct fake_qemu *fake, struct json_object *message, const char *name)
{
    struct json_object *id = json_member(message, "id");
    struct json_object *arguments = json_member(message, "arguments");
    const char *path = json_member_string(arguments, "path");
    if (strcmp(name, "qom-list") == 0) {
        struct json_object *value = qom_list(fake, path);
        if (value)
            answer(fake, id, "return", value);
        else
            fail_with(fake, id, "DeviceNotFound", "no such object");
    } else if (strcmp(name, "qom-get") == 0) {
        struct json_object *value = qom_get(fake, path, json_member_string(arguments, "property"));
        const char *device = strrchr(path, '/');
        if (value)
            answer(fake, id, "return", value);
        else if (device && find(fake, device + 1))
            fail_with(fake, id, "GenericError", "Property not found");
        else
            fail_with(fake, id, "DeviceNotFound", "no such object");
    } else if (strcmp(name, "device_add") == 0) {
        device_add(fake, id, arguments);
    } else if (strcmp(name, "device_del") == 0) {
        device_del(fake, id, json_member_string(arguments, "id"));
    } else if (strcmp(name, "device-list-properties") == 0) {
        list_properties(fake, id);
    } else if (strcmp(name, "getfd") == 0) {
        getfd(fake, id, json_member_string(arguments, "fdname"));
    } else if (strcmp(name, "closefd") == 0) {
        closefd(fake, id, json_member_string(arguments, "fdname"));
    } else if (strcmp(name, "object-add") == 0) {
        object_add(fake, id, arguments);
    } else {
        answer(fake, id, "return", json_object_new_object());
    }
}

static void handle_command(struct fake_qemu *fake, const char *line)
{
    struct json_object *message = json_tokener_parse(line);
    const char *name = json_member_string(message, "execute");
    const char *path = json_member_string(json_member(message, "arguments"), "path");
    assert_non_null(name);
    assert_true(fake->asked_count < sizeof fake->asked / sizeof *fake->asked);
    fake->asked[fake->asked_count++] = string_printf("%s %s", name, path ? path : "");
    if (strcmp(name, "qmp_capabilities") == 0) {
        bool backwards = fake->backwards;
        fake->backwards = false;
        answer(fake, json_member(message, "id"), "return", json_object_new_object());
        fake->backwards = backwards;
    } else if (++fake->commands == fake->fail_command) {
        fail_with(fake, json_member(message, "id"), "GenericError", "no \033[31mluck\n today");
    } else if (fake->garbage && fake->commands == fake->garbage_at) {
        send_bytes(fake, fake->garbage, fake->garbage_length);
    } else {
        run_command(fake, message, name);
    }
    json_object_put(message);
}

static void take_descriptors(struct fake_qemu *fake, struct msghdr *message)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        int fd;
        struct stat status;
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
        assert_int_equal(fstat(fd, &status), 0);
        fake->fd_device = status.st_dev;
        fake->fd_inode = status.st_ino;
        fake->fds++;
        close(fd);
    }
}

static int handle_input(sd_event_source *source, int fd, uint32_t events, void *user)
{
    struct fake_qemu *fake = user;
    char bytes[4096];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))];
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    (void)source;
    (void)events;
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (got <= 0) {
        drop_client(fake);
        return 0;
    }
    take_descriptors(fake, &message);
    text_add_bytes(&fake->input, bytes, (size_t)got);
    while (fake->client >= 0 && fake->input.string) {
        char *end = strchr(fake->input.string, '\n');
        if (!end)
            break;
        char *line = string_printf("%.*s", (int)(end - fake->input.string), fake->input.string);
        size_t taken = (size_t)(end + 1 - fake->input.string);
        memmove(fake->input.string, end + 1, fake->input.length - taken + 1);
        fake->input.length -= taken;
        handle_command(fake, line);
        free(line);
    }
    return 0;
}

static int handle_accept(sd_event_source *source, int fd, uint32_t events, void *user)
{
    struct fake_qemu *fake = user;
    (void)events;
    fake->client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fake->client >= 0);
    (void)sd_event_source_set_enabled(source, SD_EVENT_OFF); // one client at a time
    assert_true(sd_event_add_io(sd_event_source_get_event(source), &fake->reading, fake->client, EPOLLIN, handle_input,
                                fake) >= 0);
    if (!fake->mute)
        fake_qemu_greet(fake);
    return 0;
}

void fake_qemu_start(struct fake_qemu *fake, sd_event *loop, const char *directory, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    fake->client = -1;
    fake->path = string_printf("%s/%s", directory, name);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", fake->path);
    fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fake->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fake->listener, 1), 0);
    assert_true(sd_event_add_io(loop, &fake->accepting, fake->listener, EPOLLIN, handle_accept, fake) >= 0);
}

void fake_qemu_stop(struct fake_qemu *fake)
{
    fake->accepting = sd_event_source_disable_unref(fake->accepting);
    drop_client(fake);
    close(fake->listener);
    unlink(fake->path);
    free(fake->path);
    for (size_t i = 0; i < fake->asked_count; i++)
        free(fake->asked[i]);
    fake->asked_count = 0;
}

size_t fake_qemu_asked(const struct fake_qemu *fake, const char *start)
{
    size_t count = 0;
    for (size_t i = 0; i < fake->asked_count; i++)
        if (strncmp(fake->asked[i], start, strlen(start)) == 0)
            count++;
    return count;
}

const struct fake_device *fake_qemu_on(const struct fake_qemu *fake, const char *on)
{
    const struct fake_device *found = NULL;
    for (size_t i = 0; i < fake->device_count; i++) {
        const struct fake_device *device = &fake->devices[i];
        bool hosts = strcmp(device->type, "virtio-input-host-pci") == 0 || strcmp(device->type, "vfio-pci") == 0;
        if (strcmp(device->on, on) != 0 || !hosts)
            continue;
        assert_null(found);
        found = device;
    }
    assert_non_null(found);
    return found;
}
