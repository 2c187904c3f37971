// The log: journal with fields under systemd, else "LEVEL message" on standard error.
#include "util/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <syslog.h>
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "util/text.h"

#define LINE_MAX_LENGTH 8192

struct log {
    enum log_level level;
    bool journal;
};

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const int level_priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

// systemd names the journal's socket by device and inode in JOURNAL_STREAM when stderr is it.
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long device, inode;
    struct stat status;
    return stream && sscanf(stream, "%lu:%lu", &device, &inode) == 2 && fstat(STDERR_FILENO, &status) == 0 &&
           status.st_dev == device && status.st_ino == inode;
}

struct log *log_new(enum log_level level)
{
    struct log *log = memory_new(1, sizeof *log);
    *log = (struct log){.level = level, .journal = stderr_is_journal()};
    return log;
}

void log_free(struct log *log)
{
    free(log);
}

void log_set_level(struct log *log, enum log_level level)
{
    log->level = level;
}

bool log_is_debug(const struct log *log)
{
    return log->level >= LOG_LEVEL_DEBUG;
}

static void add_field(char **fields, struct iovec *parts, int *count, const char *name, const char *value)
{
    if (!value)
        return;
    struct text text = {0};
    text_printf(&text, "%s=", name);
    text_add_safe(&text, value, LINE_MAX_LENGTH);
    parts[*count] = (struct iovec){text.string, text.length};
    fields[(*count)++] = text.string;
}

static void write_journal(enum log_level level, const struct log_subject *subject, const char *line)
{
    char *fields[5];
    struct iovec parts[5];
    int count = 0;
    char priority[2] = {(char)('0' + level_priorities[level]), '\0'};
    add_field(fields, parts, &count, "MESSAGE", line);
    add_field(fields, parts, &count, "PRIORITY", priority);
    if (subject) {
        add_field(fields, parts, &count, "DEVICE", subject->device);
        add_field(fields, parts, &count, "VM", subject->vm);
        add_field(fields, parts, &count, "VERDICT", subject->verdict);
    }
    (void)sd_journal_sendv(parts, count);
    for (int i = 0; i < count; i++)
        free(fields[i]);
}

void log_line(struct log *log, enum log_level level, const struct log_subject *subject, const char *format, ...)
{
    if (level > log->level)
        return;
    int saved = errno;
    CLEANUP(cleanup_free) char *raw = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&raw, format, arguments);
    va_end(arguments);
    if (length >= 0) {
        struct text line = {0};
        if (!log->journal)
            text_printf(&line, "%s ", level_names[level]);
        text_add_safe(&line, raw, LINE_MAX_LENGTH);
        if (log->journal) {
            write_journal(level, subject, line.string ? line.string : "");
        } else {
            text_add(&line, "\n");
            // One write a line, so that lines of several programs on one terminal stay whole.
            if (write(STDERR_FILENO, line.string, line.length) < 0)
                errno = saved;
        }
        text_clear(&line);
    }
    errno = saved;
}
