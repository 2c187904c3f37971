// What the reconciler puts out, as lines of the log.
#include "core/report.h"

#include <stdlib.h>

#include "util/text.h"

#define FIELD_MAX 256
#define REASON_MAX 1024

struct wording {
    const char *word;   // for the journal's field
    const char *before; // the line: TITLE: BEFORE [VM] BETWEEN REASON
    const char *between;
    bool names_vm;
    enum log_level level;
};

static const struct wording wordings[] = {
    [STATE_HOST] = {"host", "stays on the host: ", "", false, LOG_LEVEL_INFO},
    [STATE_IGNORED] = {"ignored", "stays on the host: ", "", false, LOG_LEVEL_INFO},
    [STATE_WAITS] = {"waits", "waits: ", "", false, LOG_LEVEL_INFO},
    [STATE_REFUSED] = {"refused", "refused by ", ": ", true, LOG_LEVEL_WARNING},
    [STATE_EJECTED] = {"ejected", "ejected: ", "", false, LOG_LEVEL_INFO},
    [STATE_ATTACHING] = {"attaching", "is being attached to ", ", ", true, LOG_LEVEL_DEBUG},
    [STATE_ATTACHED] = {"attached", "attached to ", ", ", true, LOG_LEVEL_INFO},
    [STATE_DETACHING] = {"detaching", "is being detached from ", ": ", true, LOG_LEVEL_INFO},
};

const char *report_state(enum device_state state)
{
    return wordings[state].word;
}

static char *safe(const char *string)
{
    if (!string)
        return NULL;
    struct text text = {0};
    text_add_safe(&text, string, FIELD_MAX);
    return text_take(&text);
}

// What nobody asked for is of interest only to those who look for it.
static enum log_level device_level(const struct output *output)
{
    bool plain = output->verdict == VERDICT_NO_RULE || output->verdict == VERDICT_HUB;
    if (output->state == STATE_HOST && (plain || output->gone))
        return LOG_LEVEL_DEBUG;
    return output->gone ? LOG_LEVEL_INFO : wordings[output->state].level;
}

static void report_device(struct report *report, struct text *text, const struct output *output)
{
    const struct wording *wording = &wordings[output->state];
    CLEANUP(cleanup_free) char *title = device_title(output->device);
    report->level = device_level(output);
    report->device = safe(output->device->key);
    report->subject.verdict = output->gone ? "unplugged" : wording->word;
    text_printf(text, "%s: ", title);
    if (output->gone) {
        text_add(text, "unplugged");
        return;
    }
    text_add(text, wording->before);
    if (wording->names_vm) {
        text_add_safe(text, output->vm, FIELD_MAX);
        text_add(text, wording->between);
    }
    text_add_safe(text, output->reason, REASON_MAX);
}

static void report_selection(struct report *report, struct text *text, const struct output *output)
{
    CLEANUP(cleanup_free) char *title = device_title(output->device);
    report->level = LOG_LEVEL_DEBUG; // its state has been said already
    report->device = safe(output->device->key);
    report->subject.verdict = "asked";
    text_printf(text, "%s: people are asked: ", title);
    text_add_safe(text, output->reason, REASON_MAX);
}

static void report_vm(struct report *report, struct text *text, const struct output *output)
{
    text_add_safe(text, output->vm, FIELD_MAX);
    report->level = LOG_LEVEL_INFO;
    switch (output->vm_state) {
    case VM_STATE_DOWN:
        text_add(text, " is not running");
        break;
    case VM_STATE_STARTING:
        report->level = LOG_LEVEL_DEBUG;
        text_add(text, " is starting");
        break;
    case VM_STATE_ANSWERS:
        text_add(text, " answers");
        break;
    case VM_STATE_SILENT:
    default:
        report->level = LOG_LEVEL_WARNING;
        text_add(text, " does not answer: ");
        text_add_safe(text, output->reason, REASON_MAX);
        break;
    }
}

static void report_note(struct report *report, struct text *text, const struct output *output)
{
    report->level = LOG_LEVEL_INFO;
    if (output->vm) {
        text_add_safe(text, output->vm, FIELD_MAX);
        text_add(text, ": ");
    }
    text_add_safe(text, output->reason, REASON_MAX);
}

void report_output(struct report *report, const struct output *output)
{
    struct text text = {0};
    *report = (struct report){0};
    if (output->kind == OUTPUT_DEVICE)
        report_device(report, &text, output);
    else if (output->kind == OUTPUT_VM)
        report_vm(report, &text, output);
    else if (output->kind == OUTPUT_SELECT)
        report_selection(report, &text, output);
    else if (output->kind == OUTPUT_NOTE)
        report_note(report, &text, output);
    report->vm = safe(output->vm);
    report->subject.device = report->device;
    report->subject.vm = report->vm;
    report->text = text_take(&text);
}

void report_clear(struct report *report)
{
    free(report->text);
    free(report->device);
    free(report->vm);
    *report = (struct report){0};
}
