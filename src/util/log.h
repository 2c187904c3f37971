// The log: one line a thing that happened, to the journal with fields under systemd, else stderr.
#pragma once

#include <stdbool.h>

#include "util/cleanup.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

// What a line is about, for the journal's fields DEVICE, VM and VERDICT; each may be NULL.
struct log_subject {
    const char *device;
    const char *vm;
    const char *verdict;
};

// Where lines go; owned by main. LEVEL is the highest level written.
struct log;
struct log *log_new(enum log_level level) CHECKED;
void log_free(struct log *log);
DEFINE_CLEANUP(struct log *, cleanup_log, log_free)

void log_set_level(struct log *log, enum log_level level);
bool log_is_debug(const struct log *log);

// Writes one line. Control, escape and invalid bytes of the finished text are escaped here once
// more, so that nothing raw reaches a terminal; errno is kept.
void log_line(struct log *log, enum log_level level, const struct log_subject *subject, const char *format, ...)
    PRINTF(4, 5);

#define log_error(log, ...) log_line(log, LOG_LEVEL_ERROR, NULL, __VA_ARGS__)
#define log_warning(log, ...) log_line(log, LOG_LEVEL_WARNING, NULL, __VA_ARGS__)
#define log_info(log, ...) log_line(log, LOG_LEVEL_INFO, NULL, __VA_ARGS__)
#define log_debug(log, ...) log_line(log, LOG_LEVEL_DEBUG, NULL, __VA_ARGS__)
