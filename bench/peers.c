// Scripted QEMUs of the benchmarks: many of them in one process, each with a QMP socket. They answer as a QEMU does
// that has nothing but xHCI controllers of 15 ports, at once and without any fault.
#include "peers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "util/json.h"
#include "util/text.h"

#define PERIPHERAL "/machine/peripheral"
#define PORTS 15
#define CLIENTS_WAITING 8

static const char greeting[] = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, "
                               "\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n";

struct guest_device {
    char *id, *bus, *port;
};

struct peer {
    struct peers *peers;
    int listening, client; // -1: none
    struct text input, output;
    struct guest_device *devices;
    size_t device_count;
};

struct peers {
    int epoll;
    size_t count, controllers;
    struct peer *list;
    struct peers_counts counts;
};

static void listen_for(struct peer *peer, bool more)
{
    struct epoll_event event = {.events = more ? EPOLLIN : 0, .data.ptr = peer};
    if (epoll_ctl(peer->peers->epoll, EPOLL_CTL_MOD, peer->listening, &event) < 0)
        fail("epoll");
}

// One client at a time, as QEMU has it.
static void drop_client(struct peer *peer)
{
    close(peer->client);
    peer->client = -1;
    peer->peers->counts.connected--;
    text_clear(&peer->input);
    text_clear(&peer->output);
    listen_for(peer, true);
}

static void flush(struct peer *peer)
{
    size_t length = peer->output.length;
    bool sent = length == 0 || send(peer->client, peer->output.string, length, MSG_NOSIGNAL) == (ssize_t)length;
    text_clear(&peer->output);
    if (!sent)
        drop_client(peer);
}

static void accept_client(struct peer *peer)
{
    peer->client = accept4(peer->listening, NULL, NULL, SOCK_CLOEXEC);
    if (peer->client < 0)
        fail("accepting");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    if (epoll_ctl(peer->peers->epoll, EPOLL_CTL_ADD, peer->client, &event) < 0)
        fail("epoll");
    listen_for(peer, false);
    peer->peers->counts.connections++;
    peer->peers->counts.connected++;
    text_add(&peer->output, greeting);
    flush(peer);
}

static void answer(struct peer *peer, struct json_object *id, const char *member, struct json_object *value)
{
    CLEANUP(cleanup_json) struct json_object *reply = json_object_new_object();
    json_object_object_add(reply, member, value);
    if (id)
        json_object_object_add(reply, "id", json_object_get(id));
    CLEANUP(cleanup_free) char *line = json_print(reply);
    text_printf(&peer->output, "%s\r\n", line);
}

static void refuse(struct peer *peer, struct json_object *id, const char *class, const char *words)
{
    struct json_object *error = json_object_new_object();
    json_object_object_add(error, "class", json_object_new_string(class));
    json_object_object_add(error, "desc", json_object_new_string(words));
    answer(peer, id, "error", error);
}

static struct guest_device *find(struct peer *peer, const char *id)
{
    for (size_t i = 0; i < peer->device_count; i++)
        if (string_equal(peer->devices[i].id, id))
            return &peer->devices[i];
    return NULL;
}

static void drop_device(struct peer *peer, struct guest_device *device)
{
    free(device->id);
    free(device->bus);
    free(device->port);
    *device = peer->devices[--peer->device_count];
    peer->peers->counts.devices--;
}

static void add_entry(struct json_object *list, const char *name, const char *type)
{
    struct json_object *entry = json_object_new_object();
    json_object_object_add(entry, "name", json_object_new_string(name));
    json_object_object_add(entry, "type", json_object_new_string(type));
    json_object_array_add(list, entry);
}

static struct json_object *qom_list(const struct peer *peer, const char *path)
{
    struct json_object *list = json_object_new_array();
    bool controller = path && strncmp(path, PERIPHERAL "/xhci", sizeof PERIPHERAL + 4) == 0;
    if (controller) {
        CLEANUP(cleanup_free) char *name = string_printf("%s.0", path + sizeof PERIPHERAL);
        add_entry(list, name, "child<usb-bus>");
    } else if (string_equal(path, PERIPHERAL)) {
        for (size_t i = 0; i < peer->peers->controllers; i++) {
            CLEANUP(cleanup_free) char *name = string_printf("xhci%zu", i);
            add_entry(list, name, "child<qemu-xhci>");
        }
        for (size_t i = 0; i < peer->device_count; i++)
            add_entry(list, peer->devices[i].id, "child<usb-host>");
    }
    return list;
}

static void qom_get(struct peer *peer, struct json_object *id, const char *path, const char *property)
{
    const char *name = path ? strrchr(path, '/') : NULL;
    if (string_equal(property, "p2") || string_equal(property, "p3"))
        answer(peer, id, "return", json_object_new_int(PORTS));
    else if (!name || !find(peer, name + 1))
        refuse(peer, id, "DeviceNotFound", "no such object");
    else if (string_equal(property, "attached"))
        answer(peer, id, "return", json_object_new_boolean(true));
    else
        refuse(peer, id, "GenericError", "Property not found");
}

static void device_add(struct peer *peer, struct json_object *id, struct json_object *arguments)
{
    const char *name = json_member_string(arguments, "id"), *bus = json_member_string(arguments, "bus");
    const char *port = json_member_string(arguments, "port");
    if (!name || !bus || !port || find(peer, name)) {
        refuse(peer, id, "GenericError", "Duplicate ID, or no ID, bus or port");
        return;
    }
    for (size_t i = 0; i < peer->device_count; i++) {
        if (string_equal(peer->devices[i].bus, bus) && string_equal(peer->devices[i].port, port)) {
            refuse(peer, id, "GenericError", "usb port not found (in use?)");
            return;
        }
    }
    peer->devices = memory_resize(peer->devices, peer->device_count + 1, sizeof *peer->devices);
    peer->devices[peer->device_count++] = (struct guest_device){string_copy(name), string_copy(bus), string_copy(port)};
    peer->peers->counts.devices++;
    answer(peer, id, "return", json_object_new_object());
}

static void device_del(struct peer *peer, struct json_object *id, const char *name)
{
    struct guest_device *device = find(peer, name);
    if (!device) {
        refuse(peer, id, "DeviceNotFound", "Device not found");
        return;
    }
    answer(peer, id, "return", json_object_new_object());
    text_printf(&peer->output,
                "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"%s\", \"path\": \"" PERIPHERAL "/%s\"}}\r\n",
                name, name);
    drop_device(peer, device);
}

static void handle_command(struct peer *peer, const char *line, uint64_t came)
{
    CLEANUP(cleanup_json) struct json_object *message = json_tokener_parse(line);
    struct json_object *arguments = json_member(message, "arguments"), *id = json_member(message, "id");
    const char *name = json_member_string(message, "execute"), *path = json_member_string(arguments, "path");
    peer->peers->counts.commands++;
    if (string_equal(name, "qom-list")) {
        answer(peer, id, "return", qom_list(peer, path));
    } else if (string_equal(name, "qom-get")) {
        qom_get(peer, id, path, json_member_string(arguments, "property"));
    } else if (string_equal(name, "device_add")) {
        peer->peers->counts.added = came;
        device_add(peer, id, arguments);
    } else if (string_equal(name, "device_del")) {
        device_del(peer, id, json_member_string(arguments, "id"));
    } else {
        answer(peer, id, "return", json_object_new_object());
    }
}

static void handle_lines(struct peer *peer, uint64_t came)
{
    char *line = peer->input.string;
    for (char *end = strchr(line, '\n'); end; end = strchr(line, '\n')) {
        *end = '\0';
        handle_command(peer, line, came);
        line = end + 1;
    }
    peer->input.length -= (size_t)(line - peer->input.string);
    memmove(peer->input.string, line, peer->input.length + 1);
}

static void read_client(struct peer *peer)
{
    char bytes[65536];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(peer->client, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    uint64_t came = now_ns();
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop_client(peer);
        return;
    }
    close_descriptors(&message);
    text_add_bytes(&peer->input, bytes, (size_t)got);
    handle_lines(peer, came);
    flush(peer);
}

static void start_peer(struct peer *peer, const char *directory, size_t number, bool hangs)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/vm%04zu.qmp", directory, number);
    peer->client = -1;
    peer->listening = listen_at(path, CLIENTS_WAITING);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    if (!hangs && epoll_ctl(peer->peers->epoll, EPOLL_CTL_ADD, peer->listening, &event) < 0)
        fail(path);
}

struct peers *peers_new(int epoll, const char *directory, size_t count, size_t hanging, size_t controllers)
{
    struct peers *peers = memory_new(1, sizeof *peers);
    *peers = (struct peers){.epoll = epoll, .count = count, .controllers = controllers};
    peers->list = memory_new(count, sizeof *peers->list);
    for (size_t i = 0; i < count; i++) {
        peers->list[i] = (struct peer){.peers = peers};
        start_peer(&peers->list[i], directory, i, i + hanging >= count);
    }
    return peers;
}

bool peers_handle(struct peers *peers, void *pointer)
{
    struct peer *peer = pointer;
    if (peer < peers->list || peer >= peers->list + peers->count)
        return false;
    if (peer->client >= 0)
        read_client(peer);
    else
        accept_client(peer);
    return true;
}

struct peers_counts peers_counts(const struct peers *peers)
{
    return peers->counts;
}

void peers_forget(struct peers *peers)
{
    for (size_t i = 0; i < peers->count; i++)
        while (peers->list[i].device_count > 0)
            drop_device(&peers->list[i], peers->list[i].devices);
}
