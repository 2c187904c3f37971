// Policy without a daemon or a device.
#include "ctl/offline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/device_json.h"
#include "core/explain.h"
#include "ctl/explanation.h"
#include "ctl/say.h"
#include "util/file.h"
#include "util/json.h"
#include "util/text.h"

#define DEPTH_MAX 32
#define LINE_LENGTH_MAX 8192 // as in the daemon's log

// One line on standard error.
static void complain(const char *level, const char *line)
{
    struct text safe = {0};
    text_add_safe(&safe, line, LINE_LENGTH_MAX);
    (void)fprintf(stderr, "%s%s\n", level, safe.string ? safe.string : "");
    text_clear(&safe);
}

static void complain_all(const char *level, const struct config_messages *messages)
{
    for (size_t i = 0; i < messages->count; i++)
        complain(level, messages->lines[i]);
}

static void complain_of(const char *file, const char *what)
{
    CLEANUP(cleanup_free) char *line = string_printf("%s: %s", file, what);
    complain("", line);
}

// The configuration of the file, or NULL with the daemon's own words on standard error.
static struct config *load_config(const char *file, struct config_report *report)
{
    CLEANUP(cleanup_free) char *error = NULL;
    size_t length = 0;
    CLEANUP(cleanup_free) char *text = file_read(file, &length, &error);
    if (!text) {
        complain_of(file, error);
        return NULL;
    }
    struct config *config = config_parse(file, text, length, report);
    complain_all("", &report->errors);
    return config;
}

int offline_check(const char *config_file)
{
    CLEANUP(config_report_clear) struct config_report report = {0};
    CLEANUP(cleanup_config) struct config *config = load_config(config_file, &report);
    complain_all("warning: ", &report.warnings);
    complain_all("note: ", &report.notes);
    if (!config)
        return EXIT_FAILURE;
    CLEANUP(cleanup_free) char *summary = config_summary(config);
    CLEANUP(cleanup_free) char *name = say_safe(config_file);
    (void)printf("%s: %s\n", name, summary);
    return say_done();
}

static bool is_standard_input(const char *file)
{
    return strcmp(file, "-") == 0;
}

static const char *shown_name(const char *file)
{
    return is_standard_input(file) ? "standard input" : file;
}

// What the file holds, or NULL after having said what is wrong.
static struct json_object *load_json(const char *file)
{
    CLEANUP(cleanup_free) char *error = NULL;
    size_t length = 0;
    CLEANUP(cleanup_free)
    char *text =
        is_standard_input(file) ? file_read_from(STDIN_FILENO, &length, &error) : file_read(file, &length, &error);
    if (!text) {
        complain_of(shown_name(file), error);
        return NULL;
    }
    static const struct json_limits limits = {FILE_SIZE_MAX, DEPTH_MAX};
    struct json_object *value = json_parse(text, length, &limits, &error);
    if (!value) {
        CLEANUP(cleanup_free) char *what = string_printf("is not JSON: %s", error);
        complain_of(shown_name(file), what);
    }
    return value;
}

// Devices with the JSON that they stand in, and what policy says of them.
struct policy_test {
    const char *file;
    const struct config *config;
    struct json_object *verdicts; // NULL: text is wanted
    bool show;                    // false: only see whether all are devices
    size_t shown;
};

static void show(struct policy_test *test, const struct device *device)
{
    if (test->verdicts) {
        json_object_array_add(test->verdicts, explain_verdict(test->config, device));
        return;
    }
    CLEANUP(cleanup_json) struct json_object *explanation = explain_device(test->config, device);
    CLEANUP(cleanup_free) char *title = device_title(device);
    (void)printf("%s%s\n", test->shown++ > 0 ? "\n" : "", title);
    explanation_print(explanation, stdout);
}

// PLACE is "" or "[2]". Returns whether it is a device.
static bool try_device(struct policy_test *test, struct json_object *value, const char *place)
{
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_device) struct device *device = device_from_json(value, &error);
    if (device) {
        if (test->show)
            show(test, device);
        return true;
    }
    CLEANUP(cleanup_free) char *what = string_printf("%s%s%s", place, *place ? ": " : "", error);
    complain_of(test->file, what);
    return false;
}

// The list of devices in VALUE, which may be a whole reply of the API; NULL: it is one device.
static struct json_object *list_in(struct json_object *value)
{
    static const char *const names[] = {"devices", "usb_devices", "pci_devices"};
    if (json_object_is_type(value, json_type_array))
        return value;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct json_object *list = json_member(value, names[i]);
        if (json_object_is_type(list, json_type_array))
            return list;
    }
    return NULL;
}

static bool try_each(struct policy_test *test, struct json_object *value)
{
    struct json_object *list = list_in(value);
    if (!list)
        return try_device(test, value, "");
    bool good = true;
    size_t count = json_object_array_length(list);
    for (size_t i = 0; i < count; i++) {
        CLEANUP(cleanup_free) char *place = string_printf("[%zu]", i);
        good = try_device(test, json_object_array_get_idx(list, i), place) && good;
    }
    return good;
}

int offline_explain(const char *config_file, const char *device_file, bool json)
{
    CLEANUP(config_report_clear) struct config_report report = {0};
    CLEANUP(cleanup_config) struct config *config = load_config(config_file, &report);
    if (!config)
        return EXIT_FAILURE;
    CLEANUP(cleanup_json) struct json_object *value = load_json(device_file);
    if (!value)
        return EXIT_FAILURE;
    CLEANUP(cleanup_json) struct json_object *verdicts = json ? json_object_new_array() : NULL;
    struct policy_test test = {.file = shown_name(device_file), .config = config, .verdicts = verdicts};
    if (!try_each(&test, value))
        return EXIT_FAILURE;
    test.show = true;
    (void)try_each(&test, value);
    if (json)
        say_json(stdout, verdicts, true);
    return say_done();
}
