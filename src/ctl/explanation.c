// An explanation of policy as text.
#include "ctl/explanation.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/say.h"
#include "util/json.h"
#include "util/text.h"

// "vm1, vm2"
static char *join(struct json_object *list)
{
    struct text text = {0};
    size_t count = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
    for (size_t i = 0; i < count; i++) {
        CLEANUP(cleanup_free) char *name = say_safe(json_object_get_string(json_object_array_get_idx(list, i)));
        text_printf(&text, "%s%s", i ? ", " : "", name);
    }
    return text_take(&text);
}

// What the verdict means to a person.
static char *verdict_text(struct json_object *explanation)
{
    CLEANUP(cleanup_free) char *verdict = say_member(explanation, "verdict");
    CLEANUP(cleanup_free) char *vm = say_member(explanation, "vm");
    CLEANUP(cleanup_free) char *vms = join(json_member(explanation, "allowed_vms"));
    if (strcmp(verdict, "attach") == 0)
        return string_printf("belongs in %s", vm);
    if (strcmp(verdict, "choose") == 0)
        return string_printf("may go into one of %s", vms);
    if (strcmp(verdict, "deny") == 0)
        return string_copy("denied, stays on the host");
    static const char *const known[] = {"none", "hub", "bridge", "shared", "host"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(verdict, known[i]) == 0)
            return string_copy("stays on the host");
    return steal_pointer(&verdict);
}

// " \"DESCRIPTION\"" or "".
static char *quoted_description(struct json_object *object)
{
    CLEANUP(cleanup_free) char *description = say_member(object, "description");
    return *description ? string_printf(" \"%s\"", description) : string_copy("");
}

// The rule's own part of its path: "allow[2]".
static const char *short_path(const char *path)
{
    const char *dot = strchr(path, '.');
    return dot ? dot + 1 : path;
}

static void print_rule(struct json_object *rule, FILE *file)
{
    CLEANUP(cleanup_free) char *path = say_member(rule, "path");
    CLEANUP(cleanup_free) char *description = quoted_description(rule);
    (void)fprintf(file, "    %s%s: ", short_path(path), description);
    if (say_flag(rule, "matches")) {
        (void)fputs("matches\n", file);
        return;
    }
    CLEANUP(cleanup_free) char *field = say_member(rule, "field");
    CLEANUP(cleanup_free) char *wanted = say_member(rule, "wanted");
    CLEANUP(cleanup_free) char *found = say_member(rule, "found");
    if (!*field)
        (void)fputs("does not match\n", file);
    else if (!*found)
        (void)fprintf(file, "no, %s is to be %s, and the device has none\n", field, wanted);
    else
        (void)fprintf(file, "no, %s is to be %s, and is %s\n", field, wanted, found);
}

static const char *result_text(const char *result)
{
    static const char *const texts[][2] = {
        {"takes", "takes it"}, {"denies", "denies it"}, {"no match", "does not take it"}, {"disabled", "is disabled"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(result, texts[i][0]) == 0)
            return texts[i][1];
    return result;
}

// TAKEN: an earlier group takes it already.
static void print_group(struct json_object *group, bool taken, FILE *file)
{
    CLEANUP(cleanup_free) char *path = say_member(group, "path");
    CLEANUP(cleanup_free) char *description = quoted_description(group);
    CLEANUP(cleanup_free) char *result = say_member(group, "result");
    struct json_object *rules = json_member(group, "rules");
    bool late = taken && strcmp(result, "takes") == 0;
    (void)fprintf(file, "  %s%s %s\n", path, description,
                  late ? "would take it, but comes later" : result_text(result));
    size_t count = json_object_is_type(rules, json_type_array) ? json_object_array_length(rules) : 0;
    for (size_t i = 0; i < count; i++)
        print_rule(json_object_array_get_idx(rules, i), file);
}

// What a rule wants of another function of an IOMMU group.
static char *peer_text(struct json_object *peer)
{
    CLEANUP(cleanup_free) char *use = say_member(peer, "host_use");
    CLEANUP(cleanup_free) char *vms = say_member(peer, "vms");
    CLEANUP(cleanup_free) char *path = say_member(peer, "path");
    if (say_flag(peer, "bridge") && !say_flag(peer, "bound"))
        return string_copy("a bridge, which stays with the host");
    if (*use)
        return string_printf("the host lives on it: %s", use);
    if (!*vms)
        return string_printf("%s%s", say_flag(peer, "bridge") ? "a bridge, which no VM gets" : "no rule takes it",
                             say_flag(peer, "bound") ? "; its driver of the host loses it all the same" : "");
    return string_printf("for %s by %s%s", vms, path, say_flag(peer, "added") ? " (pciIommuAddAll)" : "");
}

// The IOMMU group of a PCI function.
static void print_peers(struct json_object *explanation, FILE *file)
{
    struct json_object *peers = json_member(explanation, "peers");
    if (!json_object_is_type(peers, json_type_array))
        return;
    CLEANUP(cleanup_free) char *number = say_member(explanation, "iommu_group");
    size_t count = json_object_array_length(peers);
    if (!*number)
        (void)fputs("IOMMU group: none, so no VM can have it\n", file);
    else
        (void)fprintf(file, "IOMMU group %s: it is %s\n", number, count ? "shared with" : "alone in it");
    for (size_t i = 0; i < count; i++) {
        struct json_object *peer = json_object_array_get_idx(peers, i);
        CLEANUP(cleanup_free) char *title = say_member(peer, "title");
        CLEANUP(cleanup_free) char *text = peer_text(peer);
        (void)fprintf(file, "  %s: %s\n", title, text);
    }
}

// What USB authorization makes of the device.
static void print_host(struct json_object *explanation, FILE *file)
{
    struct json_object *host = json_member(explanation, "host");
    CLEANUP(cleanup_free) char *reason = say_member(host, "reason");
    if (!host)
        return;
    (void)fprintf(file, "host: %s: %s\n", say_flag(host, "authorized") ? "may use it" : "may not use it", reason);
    struct json_object *rules = json_member(host, "rules");
    size_t count = json_object_is_type(rules, json_type_array) ? json_object_array_length(rules) : 0;
    for (size_t i = 0; i < count; i++)
        print_rule(json_object_array_get_idx(rules, i), file);
}

void explanation_print(struct json_object *explanation, FILE *file)
{
    CLEANUP(cleanup_free) char *verdict = verdict_text(explanation);
    CLEANUP(cleanup_free) char *reason = say_member(explanation, "reason");
    struct json_object *groups = json_member(explanation, "groups");
    size_t count = json_object_is_type(groups, json_type_array) ? json_object_array_length(groups) : 0;
    (void)fprintf(file, "policy: %s%s%s\n", verdict, *reason ? ": " : "", reason);
    bool taken = false;
    for (size_t i = 0; i < count; i++) {
        struct json_object *group = json_object_array_get_idx(groups, i);
        print_group(group, taken, file);
        taken |= string_equal(json_member_string(group, "result"), "takes");
    }
    print_peers(explanation, file);
    print_host(explanation, file);
}
