// Reading of the general settings.
#include "core/config_general.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

#include "util/text.h"

#define API_PATH "/var/lib/vhotplug/vhotplug.sock"
#define STATE_PATH "/var/lib/vhotplug/vhotplug.state"
#define API_MODE 0600
#define API_PORT 2000
#define SELECT_SECONDS 15
#define SELECT_SECONDS_MAX 31536000 // a year

#define SOCKET_LENGTH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)
#define STATE_LENGTH_MAX 4000 // room for the names of its copies
#define FIRMWARE_LENGTH_MAX 4095
#define ACCOUNT_LENGTH_MAX 255
#define NUMBER_MAX (UINT32_MAX - 1) // the last one means "any" for ports and CIDs of vsock, and "none" for accounts
#define CIDS_MAX 1024
#define TCP_PORT_MAX 65535
#define MODE_MAX 0777U
#define MODE_OTHERS_WRITE 02U

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))
#define BIT(number) (UINT64_C(1) << (number))

// general.api and one of its allowedCids while they are read.
struct api_draft {
    struct api_config api;
    const struct config_names *vms;
};
struct cid_draft {
    struct api_cid cid;
    const struct config_names *vms;
};

static void read_transport(const struct reader *item, struct api_config *api)
{
    static const char *const words[] = {"unix", "tcp", "vsock"};
    bool *const flags[] = {&api->unix_socket, &api->tcp, &api->vsock};
    size_t i;
    if (reader_word(item, words, LENGTH(words), &i))
        *flags[i] = true;
}

static void read_transports(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct api_config *api = &((struct api_draft *)place)->api;
    size_t count = reader_count(value);
    api->unix_socket = false;
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        read_transport(&item, api);
    }
}

static void text_set(char **place, const char *text)
{
    free(*place);
    *place = string_copy(text);
}

// Kept as a number: localhost is one.
static void read_host(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    const char *host = reader_string(value);
    struct in6_addr address;
    if (!host)
        return;
    if (strcmp(host, "localhost") == 0)
        text_set(place, "127.0.0.1");
    else if (inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1)
        text_set(place, host);
    else
        reader_error(value, "must be an IP address such as \"127.0.0.1\" or \"::1\", or \"localhost\"");
}

static bool is_loopback(const char *host)
{
    struct in_addr four;
    struct in6_addr six;
    if (inet_pton(AF_INET, host, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, host, &six) != 1)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
}

// A file's path; a directory cannot be meant.
static void read_file_path(const struct reader *value, const struct reader_key *key, void *place)
{
    const char *text = json_object_is_type(value->value, json_type_string) ? json_object_get_string(value->value) : "";
    size_t length = strlen(text);
    if (length > 0 && *text == '/' && text[length - 1] == '/')
        reader_error(value, "must name a file: it ends in /");
    else
        reader_path_name(value, key, place);
}

// A user or group: a name, or its number.
static void read_account(const struct reader *value, const struct reader_key *key, void *place)
{
    if (!json_object_is_type(value->value, json_type_int)) {
        reader_text(value, key, place);
        return;
    }
    int64_t number = json_object_get_int64(value->value);
    if (number < 0 || number > NUMBER_MAX)
        reader_error(value, "must be a name, or a number from 0 to %u", NUMBER_MAX);
    else
        text_set(place, json_object_get_string(value->value));
}

// JSON has no octal numbers. A number is what its digits mean in octal, 660, or else what a program prints
// for such permissions, 432: where the owner may read and write, no number means two things.
static bool mode_of_number(int64_t number, unsigned *mode)
{
    CLEANUP(cleanup_free) char *digits = string_printf("%lld", (long long)number);
    unsigned long octal;
    if (string_to_number(digits, 8, MODE_MAX, &octal) && (octal & 0600) == 0600)
        *mode = (unsigned)octal;
    else if (number > 0 && number <= MODE_MAX && (number & 0600) == 0600)
        *mode = (unsigned)number;
    else
        return false;
    return true;
}

static bool mode_of_text(const char *text, unsigned *mode)
{
    unsigned long octal;
    if (strncmp(text, "0o", 2) == 0)
        text += 2;
    if (text[strspn(text, "01234567")] || !string_to_number(text, 8, MODE_MAX, &octal))
        return false;
    *mode = (unsigned)octal;
    return true;
}

static void read_mode(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    unsigned *mode = place;
    bool known = false;
    if (json_object_is_type(value->value, json_type_string))
        known = mode_of_text(json_object_get_string(value->value), mode);
    else if (json_object_is_type(value->value, json_type_int))
        known = mode_of_number(json_object_get_int64(value->value), mode);
    if (!known)
        reader_error(value, "must be permissions in octal, such as \"0660\"");
}

static void read_permission(const struct reader *item, unsigned *permissions)
{
    static const char *const words[] = {"list", "notify", "control"};
    static const unsigned bits[] = {API_LIST, API_NOTIFY, API_CONTROL};
    size_t i;
    if (reader_word(item, words, LENGTH(words), &i))
        *permissions |= bits[i];
}

static void read_permissions(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    unsigned *permissions = place;
    size_t count = reader_count(value);
    if (count == 0 && json_object_is_type(value->value, json_type_array))
        reader_error(value, "is empty: it would permit nothing; leave the number out of allowedCids if that is meant");
    *permissions = 0;
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        read_permission(&item, permissions);
    }
}

static bool holds_known(const struct reader *value, size_t count, const struct config_names *vms)
{
    for (size_t i = 0; i < count; i++) {
        struct json_object *item = json_object_array_get_idx(value->value, i);
        if (json_object_is_type(item, json_type_string) && config_names_hold(vms, json_object_get_string(item)))
            return true;
    }
    return false;
}

static bool cid_has(const struct api_cid *cid, const char *name)
{
    for (size_t i = 0; i < cid->vm_count; i++)
        if (strcmp(cid->vms[i], name) == 0)
            return true;
    return false;
}

static void read_cid_vm(const struct reader *item, struct cid_draft *draft, bool refuse)
{
    struct api_cid *cid = &draft->cid;
    const char *name = reader_string(item);
    if (!name || cid_has(cid, name))
        return;
    if (config_names_hold(draft->vms, name)) {
        cid->vms = memory_resize(cid->vms, cid->vm_count + 1, sizeof(*cid->vms));
        cid->vms[cid->vm_count++] = string_copy(name);
        return;
    }
    CLEANUP(cleanup_free) char *what = config_names_unknown(draft->vms, name);
    if (refuse)
        reader_error(item, "%s", what);
    else
        reader_warning(item, "%s; left out", what);
}

// As in allowedVms, an unknown name is no error while another one is known. A list without a known one
// would mean all VMs, and is refused.
static void read_cid_vms(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct cid_draft *draft = place;
    size_t count = reader_count(value);
    bool refuse = !holds_known(value, count, draft->vms);
    if (count == 0 && json_object_is_type(value->value, json_type_array))
        reader_error(value, "is empty: it must name at least one VM; without the key, all are meant");
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        read_cid_vm(&item, draft, refuse);
    }
}

static void cid_clear(struct api_cid *cid)
{
    for (size_t i = 0; i < cid->vm_count; i++)
        free(cid->vms[i]);
    free(cid->vms);
}

// A number, or an object that says also what for. A misspelt key of that would permit more: it is an error.
static bool read_cid(const struct reader *item, struct cid_draft *draft)
{
    static const struct reader_key keys[] = {
        {"cid", reader_number, offsetof(struct cid_draft, cid.cid), 0, NUMBER_MAX},
        {"permissions", read_permissions, offsetof(struct cid_draft, cid.permissions), 0, 0},
        {"vms", read_cid_vms, 0, 0, 0},
    };
    size_t errors_before = item->report->errors.count;
    if (json_object_is_type(item->value, json_type_object)) {
        uint64_t present = reader_object(item, keys, LENGTH(keys), READER_REFUSE, draft);
        if (!(present & BIT(0)))
            reader_error(item, "cid is missing: the number of the guest");
    } else {
        reader_number(item, &keys[0], &draft->cid.cid);
    }
    return item->report->errors.count == errors_before;
}

static bool cid_listed(const struct api_config *api, unsigned cid)
{
    for (size_t i = 0; i < api->cid_count; i++)
        if (api->cids[i].cid == cid)
            return true;
    return false;
}

static void read_cids(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct api_draft *draft = place;
    struct api_config *api = &draft->api;
    size_t count = reader_count(value);
    if (count > CIDS_MAX) {
        reader_error(value, "has more than %d entries", CIDS_MAX);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct reader item = reader_item(value, i);
        struct cid_draft entry = {.cid.permissions = API_LIST | API_NOTIFY | API_CONTROL, .vms = draft->vms};
        bool good = read_cid(&item, &entry);
        if (good && cid_listed(api, entry.cid.cid))
            reader_error(&item, "CID %u is in the list twice", entry.cid.cid);
        api->cids = memory_resize(api->cids, api->cid_count + 1, sizeof(*api->cids));
        api->cids[api->cid_count++] = entry.cid;
    }
}

static void read_timeout(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    uint64_t *timeout = place;
    enum json_type type = json_object_get_type(value->value);
    double seconds = type == json_type_int || type == json_type_double ? json_object_get_double(value->value) : -1;
    if (type == json_type_string && strcmp(json_object_get_string(value->value), "ask") == 0)
        *timeout = UINT64_MAX;
    else if (seconds >= 0 && seconds <= SELECT_SECONDS_MAX)
        *timeout = (uint64_t)(seconds * 1e6);
    else
        reader_error(value, "must be a number of seconds from 0 to %d, or \"ask\" to wait for ever",
                     SELECT_SECONDS_MAX);
}

#define PLACE(member) offsetof(struct api_draft, api.member)
static const struct reader_key api_keys[] = {
    {"enable", reader_flag, PLACE(enabled), 0, 0}, // reader_disabled has the last word on both
    {"disable", reader_flag, PLACE(enabled), 0, 0},
    {"transports", read_transports, 0, 0, 0},
    {"host", read_host, PLACE(host), 0, 0},
    {"allowRemote", reader_flag, PLACE(allow_remote), 0, 0},
    {"port", reader_number, PLACE(port), 1, NUMBER_MAX}, // vsock's ports have 32 bits
    {"unixSocket", read_file_path, PLACE(path), 0, SOCKET_LENGTH_MAX},
    {"unixSocketUser", read_account, PLACE(user), 0, ACCOUNT_LENGTH_MAX},
    {"unixSocketGroup", read_account, PLACE(group), 0, ACCOUNT_LENGTH_MAX},
    {"unixSocketMode", read_mode, PLACE(mode), 0, 0},
    {"allowedCids", read_cids, 0, 0, 0},
    {"selectTimeout", read_timeout, PLACE(select_timeout), 0, 0},
};

// A member of an object that is there already, to say something of it.
static struct reader member(const struct reader *object, const char *key)
{
    return (struct reader){.file = object->file, .report = object->report, .parent = object, .key = key};
}

static void check_tcp(const struct reader *reader, struct api_config *api)
{
    struct reader host = member(reader, "host"), port = member(reader, "port");
    if (api->port > TCP_PORT_MAX)
        reader_error(&port, "must be from 1 to %d for tcp", TCP_PORT_MAX);
    if (is_loopback(api->host))
        return;
    if (api->allow_remote) {
        reader_warning(&host, "%s is no loopback address: whoever reaches port %u there may move devices", api->host,
                       api->port);
        return;
    }
    const char *loopback = strchr(api->host, ':') ? "::1" : "127.0.0.1";
    reader_warning(&host, "%s is no loopback address: %s is listened on instead, unless allowRemote is true", api->host,
                   loopback);
    text_set(&api->host, loopback);
}

static void check_api(const struct reader *reader, struct api_config *api)
{
    struct reader transports = member(reader, "transports"), mode = member(reader, "unixSocketMode");
    struct reader cids = member(reader, "allowedCids");
    if (!api->unix_socket && !api->tcp && !api->vsock)
        reader_warning(&transports, "is empty: nobody can connect");
    if (api->unix_socket && (api->mode & MODE_OTHERS_WRITE))
        reader_warning(&mode, "%04o lets every user of this host move devices", api->mode);
    if (api->tcp)
        check_tcp(reader, api);
    if (api->vsock && api->cid_count == 0)
        reader_warning(&cids, "names nobody: no guest may connect over vsock");
}

static void read_api(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    struct api_draft *draft = place;
    size_t errors_before = value->report->errors.count;
    (void)reader_object(value, api_keys, LENGTH(api_keys), READER_WARN, draft);
    if (!json_object_is_type(value->value, json_type_object))
        return;
    draft->api.enabled = !reader_disabled(value);
    if (draft->api.enabled && value->report->errors.count == errors_before)
        check_api(value, &draft->api);
}

// Paths of tools that are not needed.
static void read_unused(const struct reader *value, const struct reader_key *key, void *place)
{
    (void)key;
    (void)place;
    if (reader_string(value))
        reader_note(value, "accepted, but not used");
}

// "general" while it is read.
struct general_draft {
    struct api_draft api;
    bool persistent, grant_access;
    char *state_path, *ovmf_code, *ovmf_vars;
};

static const struct reader_key general_keys[] = {
    {"api", read_api, offsetof(struct general_draft, api), 0, 0},
    {"persistency", reader_flag, offsetof(struct general_draft, persistent), 0, 0},
    {"statePath", read_file_path, offsetof(struct general_draft, state_path), 0, STATE_LENGTH_MAX},
    {"modprobe", read_unused, 0, 0, 0},
    {"modinfo", read_unused, 0, 0, 0},
    {"crosvm", read_unused, 0, 0, 0},
    {"grantAccess", reader_flag, offsetof(struct general_draft, grant_access), 0, 0},
    {"ovmfCode", read_file_path, offsetof(struct general_draft, ovmf_code), 0, FIRMWARE_LENGTH_MAX},
    {"ovmfVars", read_file_path, offsetof(struct general_draft, ovmf_vars), 0, FIRMWARE_LENGTH_MAX},
};

void config_general_read(const struct reader *value, const struct config_names *vms, struct config *config)
{
    struct general_draft draft = {.api = {config->api, vms},
                                  .persistent = config->persistent,
                                  .grant_access = config->grant_access,
                                  .state_path = config->state_path};
    (void)reader_object(value, general_keys, LENGTH(general_keys), READER_WARN, &draft);
    config->api = draft.api.api;
    config->persistent = draft.persistent;
    config->grant_access = draft.grant_access;
    config->state_path = draft.state_path;
    config->ovmf_code = draft.ovmf_code;
    config->ovmf_vars = draft.ovmf_vars;
}

void config_general_defaults(struct config *config)
{
    config->api = (struct api_config){.enabled = true,
                                      .unix_socket = true,
                                      .path = string_copy(API_PATH),
                                      .mode = API_MODE,
                                      .host = string_copy("127.0.0.1"),
                                      .port = API_PORT,
                                      .select_timeout = SELECT_SECONDS * UINT64_C(1000000)};
    config->persistent = true;
    config->grant_access = true;
    config->state_path = string_copy(STATE_PATH);
}

// The API's socket and the state file are replaced by others of their names: never a VM's socket.
void config_general_check(const struct reader *top, const struct config *config)
{
    struct reader general = member(top, "general"), api = member(&general, "api");
    struct reader path = member(&api, "unixSocket"), state = member(&general, "statePath");
    for (size_t i = 0; i < config->vm_count; i++) {
        if (string_equal(config->vms[i].socket, config->api.path))
            reader_error(&path, "is the socket of vms[%zu]", i);
        if (string_equal(config->vms[i].socket, config->state_path))
            reader_error(&state, "is the socket of vms[%zu]", i);
    }
    if (strcmp(config->api.path, config->state_path) == 0)
        reader_error(&state, "is the same as unixSocket of the API");
}

void config_general_clear(struct config *config)
{
    struct api_config *api = &config->api;
    for (size_t i = 0; i < api->cid_count; i++)
        cid_clear(&api->cids[i]);
    char *const texts[] = {api->path,          api->user,         api->group,       api->host,
                           config->state_path, config->ovmf_code, config->ovmf_vars};
    for (size_t i = 0; i < LENGTH(texts); i++)
        free(texts[i]);
    free(api->cids);
}
