// Does the host's network hang on a device: does its only default route go through it? From each interface that has a
// default route the way goes down: to the ports of a bridge, the members of a bond, what a VLAN is on. Those that are
// devices, and not made by software, are what counts. What a tunnel goes by cannot be told: where nothing but tunnels
// is left, each device that is up may be it.
#include "host/network.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "host/again.h"
#include "host/sysfs.h"
#include "util/text.h"

enum { DEPTH_MAX = 8, ROUTES_MAX = 64, LEAVES_MAX = 256, CARDS_MAX = 1024 };

// ARPHRD_ETHER, ARPHRD_LOOPBACK: what tunnels are not, as PPP, WireGuard and tun are none of these.
enum { TYPE_ETHERNET = 1, TYPE_LOOPBACK = 772 };

const struct network_paths network_paths = {"/sys", "/proc/self/net/route", "/proc/self/net/ipv6_route"};

// An interface that has a default route, and the devices below it, by their paths in sysfs.
struct route {
    char *name;
    char *leaves[LEAVES_MAX];
    size_t leaf_count;
    bool tunnel;
};

// An interface that is a device.
struct card {
    char *name, *path;
    bool up; // with its cable in, or its wireless network found
};

struct family {
    struct route *routes;
    size_t count;
};

struct network {
    struct network_paths paths;
    bool valid;
    int error;      // the routes cannot be read, or what is below their interfaces
    int card_error; // the interfaces cannot be listed
    struct family families[2];
    struct card *cards;
    size_t card_count;
};

static const char *const family_names[] = {"IPv4", "IPv6"};

static void forget(struct network *network)
{
    for (size_t f = 0; f < 2; f++) {
        struct family *family = &network->families[f];
        for (size_t i = 0; i < family->count; i++) {
            for (size_t j = 0; j < family->routes[i].leaf_count; j++)
                free(family->routes[i].leaves[j]);
            free(family->routes[i].name);
        }
        free(family->routes);
        *family = (struct family){0};
    }
    for (size_t i = 0; i < network->card_count; i++) {
        free(network->cards[i].name);
        free(network->cards[i].path);
    }
    free(network->cards);
    network->cards = NULL;
    network->card_count = 0;
}

struct network *network_new(const struct network_paths *paths)
{
    struct network *network = memory_new(1, sizeof(*network));

    *network = (struct network){.paths = *paths};
    return network;
}

void network_free(struct network *network)
{
    if (network == NULL)
        return;
    forget(network);
    free(network);
}

void network_invalidate(struct network *network)
{
    network->valid = false;
    network->error = network->card_error = 0;
}

static bool is_made(const char *path)
{
    return strstr(path, "/devices/virtual/") != NULL;
}

static void add_leaves(struct network *network, struct route *route, const char *name, int depth)
{
    CLEANUP(cleanup_free) char *path = sysfs_link(network->paths.sys, "class/net", name);
    CLEANUP(cleanup_directory) DIR *listing = path != NULL ? sysfs_list(path, &network->error) : NULL;
    const struct dirent *entry;

    if (path == NULL || depth > DEPTH_MAX)
        return;
    while (listing != NULL && (entry = readdir(listing)) != NULL)
        if (strncmp(entry->d_name, "lower_", 6) == 0)
            add_leaves(network, route, entry->d_name + 6, depth + 1);
    if (!is_made(path) && route->leaf_count < LEAVES_MAX)
        route->leaves[route->leaf_count++] = steal_pointer(&path);
}

// A bridge without ports, and one for VMs alone, are Ethernet: the way out is in a VM.
static bool is_tunnel(struct network *network, const char *name)
{
    CLEANUP(cleanup_free) char *path = sysfs_link(network->paths.sys, "class/net", name);
    CLEANUP(cleanup_close) int directory = path != NULL ? sysfs_open(path) : -ENOENT;
    unsigned long type = 0;

    again_note(directory < 0 ? directory : sysfs_number(directory, "type", 10, UINT16_MAX, &type), &network->error);
    return directory >= 0 && type != TYPE_ETHERNET && type != TYPE_LOOPBACK;
}

static void add_route(struct network *network, struct family *family, const char *name)
{
    struct route *route;

    for (size_t i = 0; i < family->count; i++)
        if (string_equal(family->routes[i].name, name))
            return;
    if (family->count == ROUTES_MAX)
        return;
    family->routes = memory_resize(family->routes, family->count + 1, sizeof(*family->routes));
    family->routes[family->count] = (struct route){.name = string_copy(name)};
    route = &family->routes[family->count++];
    add_leaves(network, route, name, 0);
    route->tunnel = route->leaf_count == 0 && is_tunnel(network, name);
}

// The interface of a line that is a default route, else NULL: "eth0 00000000 gateway flags … mask …", the mask at 7.
static const char *default_of_line4(char *line)
{
    char *rest = NULL, *words[8];

    for (size_t i = 0; i < 8; i++)
        if ((words[i] = strtok_r(i == 0 ? line : NULL, " \t\n", &rest)) == NULL)
            return NULL;
    return string_equal(words[1], "00000000") && string_equal(words[7], "00000000") ? words[0] : NULL;
}

// "destination 00 source length gateway … eth0", the interface last. One on lo leads nowhere, and lo is no device.
static const char *default_of_line6(char *line)
{
    char *rest = NULL, *words[10];

    for (size_t i = 0; i < 10; i++)
        if ((words[i] = strtok_r(i == 0 ? line : NULL, " \t\n", &rest)) == NULL)
            return NULL;
    return string_equal(words[1], "00") && strspn(words[0], "0") == strlen(words[0]) ? words[9] : NULL;
}

// Negative errno.
static int read_routes(struct network *network, const char *path, const char *(*default_of)(char *line),
                       struct family *family)
{
    CLEANUP(cleanup_file) FILE *file = fopen(path, "re");
    CLEANUP(cleanup_free) char *line = NULL;
    size_t room = 0;

    if (file == NULL)
        return -errno;
    while (getline(&line, &room, file) >= 0) {
        const char *name = default_of(line);
        if (name != NULL)
            add_route(network, family, name);
    }
    return ferror(file) ? -EIO : 0;
}

// Interfaces of which the kernel does not know whether they are connected count as up.
static bool is_up(struct network *network, const char *path)
{
    CLEANUP(cleanup_close) int directory = sysfs_open(path);
    CLEANUP(cleanup_free) char *state = NULL;

    again_note(directory < 0 ? directory : sysfs_string(directory, "operstate", &state), &network->error);
    return string_equal(state, "up") || string_equal(state, "unknown");
}

static void find_cards(struct network *network)
{
    CLEANUP(cleanup_free) char *path = string_printf("%s/class/net", network->paths.sys);
    CLEANUP(cleanup_directory) DIR *listing = sysfs_list(path, &network->card_error);
    const struct dirent *entry;

    while (listing != NULL && (entry = readdir(listing)) != NULL && network->card_count < CARDS_MAX) {
        CLEANUP(cleanup_free) char *card = sysfs_link(network->paths.sys, "class/net", entry->d_name);
        bool up = card != NULL && is_up(network, card);
        if (card == NULL || is_made(card))
            continue;
        network->cards = memory_resize(network->cards, network->card_count + 1, sizeof(*network->cards));
        network->cards[network->card_count++] = (struct card){string_copy(entry->d_name), steal_pointer(&card), up};
    }
}

static void look(struct network *network)
{
    int error4, error6;

    forget(network);
    network->valid = true;
    find_cards(network);
    error4 = read_routes(network, network->paths.routes4, default_of_line4, &network->families[0]);
    error6 = read_routes(network, network->paths.routes6, default_of_line6, &network->families[1]);
    if (error6 < 0 && error6 != -ENOENT) // the file of a kernel without IPv6
        network->error = error6;
    if (error4 < 0)
        network->error = error4;
}

static bool is_below_any(const char *path, char *const *places, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (sysfs_is_below(path, places[i]))
            return true;
    return false;
}

// Whether all ways that the route goes are through these places.
static bool is_through(const struct route *route, char *const *places, size_t count)
{
    for (size_t i = 0; i < route->leaf_count; i++)
        if (!is_below_any(route->leaves[i], places, count))
            return false;
    return route->leaf_count > 0;
}

// The route that would be lost where none is left; NULL: one is left, or none goes there. A route through no device, as
// of a tunnel, goes through another one of these in the end, and counts as none.
static const struct route *lost(const struct family *family, char *const *places, size_t count)
{
    const struct route *through = NULL;

    for (size_t i = 0; i < family->count; i++)
        if (is_through(&family->routes[i], places, count))
            through = &family->routes[i];
        else if (family->routes[i].leaf_count > 0)
            return NULL;
    return through;
}

// The tunnel that is the only way out, or NULL.
static const struct route *only_tunnel(const struct family *family)
{
    const struct route *tunnel = NULL;

    for (size_t i = 0; i < family->count; i++)
        if (family->routes[i].tunnel)
            tunnel = &family->routes[i];
        else if (family->routes[i].leaf_count > 0)
            return NULL;
    return tunnel;
}

// An interface at these places, or NULL.
static const struct card *find_card(const struct network *network, char *const *places, size_t count, bool up)
{
    for (size_t i = 0; i < network->card_count; i++)
        if ((network->cards[i].up || !up) && is_below_any(network->cards[i].path, places, count))
            return &network->cards[i];
    return NULL;
}

static char *tunnel_of(const struct network *network, size_t f, char *const *places, size_t count)
{
    const struct route *tunnel = only_tunnel(&network->families[f]);
    const struct card *card = tunnel != NULL ? find_card(network, places, count, true) : NULL;
    struct text text = {0};

    if (card == NULL)
        return NULL;
    text_printf(&text, "the host's only %s default route is the tunnel ", family_names[f]);
    text_add_safe(&text, tunnel->name, 64);
    text_add(&text, ", which may go through ");
    text_add_safe(&text, card->name, 64);
    text_add(&text, ", as that is up");
    return text_take(&text);
}

int network_error(const struct network *network)
{
    return network->error < 0 ? network->error : network->card_error;
}

char *network_of(struct network *network, char *const *places, size_t count)
{
    if (again_helps(-network_error(network)))
        network_invalidate(network);
    if (!network->valid)
        look(network);
    if (network->card_error < 0)
        return string_printf("it may be a network adapter, and which there are cannot be told: %s",
                             strerror(-network->card_error));
    if (network->error < 0 && find_card(network, places, count, false) != NULL)
        return string_printf("it is a network adapter, and where the host's default routes go cannot be told: %s",
                             strerror(-network->error));
    for (size_t f = 0; f < 2; f++) {
        const struct route *route = lost(&network->families[f], places, count);
        struct text text = {0};
        char *tunnel = tunnel_of(network, f, places, count);
        if (tunnel != NULL)
            return tunnel;
        if (route == NULL)
            continue;
        text_printf(&text, "the host's only %s default route goes through ", family_names[f]);
        text_add_safe(&text, route->name, 64);
        return text_take(&text);
    }
    return NULL;
}
