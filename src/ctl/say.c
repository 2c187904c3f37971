// What vhotplugctl writes, safe for a terminal.
#include "ctl/say.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "util/json.h"
#include "util/text.h"

static const char *prefix = "vhotplugctl: ";

void say_errors_as(const char *start)
{
    prefix = start;
}

char *say_safe(const char *string)
{
    struct text text = {0};
    if (string)
        text_add_safe(&text, string, SAY_MAX);
    return text_take(&text);
}

char *say_member(struct json_object *object, const char *name)
{
    struct json_object *member = json_member(object, name);
    bool plain = json_object_is_type(member, json_type_string) || json_object_is_type(member, json_type_int) ||
                 json_object_is_type(member, json_type_double) || json_object_is_type(member, json_type_boolean);
    return say_safe(plain ? json_object_get_string(member) : NULL);
}

void say_member_else(char **text, struct json_object *object, const char *name)
{
    if (**text)
        return;
    free(*text);
    *text = say_member(object, name);
}

bool say_flag(struct json_object *object, const char *name)
{
    bool value = false;
    return json_member_bool(object, name, &value) && value;
}

// The code point of the well-formed UTF-8 sequence at *S, which is moved past it.
static uint32_t next_point(const unsigned char **s)
{
    const unsigned char *at = *s;
    size_t length = at[0] < 0x80 ? 1 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    uint32_t point = length == 1 ? at[0] : at[0] & (0xffU >> (length + 1));
    for (size_t i = 1; i < length && at[i]; i++)
        point = point << 6 | (at[i] & 0x3fU);
    *s = at + length;
    return point;
}

void say_json(FILE *file, struct json_object *value, bool pretty)
{
    int flags = JSON_C_TO_STRING_NOSLASHESCAPE | (pretty ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED : 0);
    const unsigned char *at = (const unsigned char *)json_object_to_json_string_ext(value, flags);
    struct text text = {0};
    while (*at) {
        const unsigned char *start = at;
        uint32_t point = next_point(&at);
        // Outside of strings, JSON has only ASCII; inside, it has no character below the blank.
        if (point >= ' ' && text_is_harmful(point))
            text_printf(&text, "\\u%04" PRIx32, point);
        else
            text_add_bytes(&text, (const char *)start, (size_t)(at - start));
    }
    (void)fprintf(file, "%s\n", text.string ? text.string : "");
    text_clear(&text);
}

static bool begins_with(const char *string, const char *start)
{
    return strncmp(string, start, strlen(start)) == 0;
}

char *say_name(struct json_object *device)
{
    CLEANUP(cleanup_free) char *vendor = say_member(device, "vendor_name");
    CLEANUP(cleanup_free) char *product = say_member(device, "product_name");
    say_member_else(&product, device, "name");
    say_member_else(&product, device, "device_name");
    // Many a product name begins with the vendor's.
    if (!*vendor || begins_with(product, vendor))
        return *product ? steal_pointer(&product) : string_copy("unnamed");
    return *product ? string_printf("%s %s", vendor, product) : steal_pointer(&vendor);
}

char *say_place(struct json_object *device)
{
    static const char *const members[] = {"port_path", "sys_name", "address", "device_node"};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        CLEANUP(cleanup_free) char *place = say_member(device, members[i]);
        const char *input = "/dev/input/";
        if (*place)
            return string_copy(begins_with(place, input) ? place + strlen(input) : place);
    }
    return string_copy("?");
}

char *say_ids(struct json_object *device)
{
    CLEANUP(cleanup_free) char *vid = say_member(device, "vid");
    CLEANUP(cleanup_free) char *pid = say_member(device, "pid");
    CLEANUP(cleanup_free) char *did = say_member(device, "did");
    const char *other = *pid ? pid : did;
    char *ids = *vid && *other ? string_printf("%s:%s", vid, other) : string_copy("");
    for (char *digit = ids; *digit; digit++) // udev has capitals for those of PCI functions
        *digit = (char)tolower((unsigned char)*digit);
    return ids;
}

char *say_title(struct json_object *device)
{
    CLEANUP(cleanup_free) char *name = say_name(device);
    CLEANUP(cleanup_free) char *ids = say_ids(device);
    CLEANUP(cleanup_free) char *place = say_place(device);
    return *ids ? string_printf("%s (%s, %s)", name, ids, place) : string_printf("%s (%s)", name, place);
}

// "2026-11-22T12:03:04Z"
static bool parse_time(const char *string, time_t *seconds)
{
    struct tm parts = {0};
    const char *end = string ? strptime(string, "%Y-%m-%dT%H:%M:%SZ", &parts) : NULL;
    if (!end || *end)
        return false;
    *seconds = timegm(&parts);
    return true;
}

char *say_since(struct json_object *object, const char *name)
{
    time_t then, now = time(NULL);
    struct tm then_parts, now_parts;
    char string[64];
    if (!parse_time(json_member_string(object, name), &then) || !localtime_r(&then, &then_parts) ||
        !localtime_r(&now, &now_parts))
        return string_copy("");
    bool today = then_parts.tm_year == now_parts.tm_year && then_parts.tm_yday == now_parts.tm_yday;
    if (strftime(string, sizeof string, today ? "%H:%M" : "%Y-%m-%d %H:%M", &then_parts) == 0)
        return string_copy("");
    return string_copy(string);
}

// Of one answer to a detach.
static char *why_not_out(struct json_object *answer)
{
    CLEANUP(cleanup_free) char *state = say_member(answer, "state");
    CLEANUP(cleanup_free) char *vm = say_member(answer, "vm");
    CLEANUP(cleanup_free) char *reason = say_member(answer, "reason");
    const char *colon = *reason ? ": " : "";
    if (!*state || strcmp(state, "host") == 0 || strcmp(state, "gone") == 0)
        return NULL;
    if (*vm && (strcmp(state, "detaching") == 0 || strcmp(state, "attached") == 0))
        return string_printf("still in %s%s%s", vm, colon, reason);
    return string_printf("not out, but %s%s%s", state, colon, reason);
}

char *say_not_out(struct json_object *reply)
{
    struct json_object *devices = json_member(reply, "devices");
    if (!json_object_is_type(devices, json_type_array))
        return why_not_out(reply);
    struct text text = {0};
    for (size_t i = 0; i < json_object_array_length(devices); i++) {
        struct json_object *device = json_object_array_get_idx(devices, i);
        CLEANUP(cleanup_free) char *why = why_not_out(device);
        CLEANUP(cleanup_free) char *title = say_title(device);
        if (why)
            text_printf(&text, "%s%s: %s", text.length ? "; " : "", title, why);
    }
    return text.length ? text_take(&text) : NULL;
}

int say_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs(prefix, stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    return EXIT_FAILURE;
}

int say_done(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_SUCCESS;
    return say_error("not all could be written: %s", errno ? strerror(errno) : "standard output failed");
}
