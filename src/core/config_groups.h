// The groups of the configuration: usbPassthrough and its like.
#pragma once

#include "core/config.h"
#include "core/reader.h"
#include "core/rule.h"

// The names that vms gives, borrowed: known before any group is read, wherever vms stands in the file.
struct config_names {
    const char **names;
    size_t count;
};
bool config_names_hold(const struct config_names *vms, const char *name) CHECKED;
// What is wrong with a NAME that they do not hold, with the nearest that they do; free with free().
char *config_names_unknown(const struct config_names *vms, const char *name) CHECKED;

// Reads a list of groups, or for evdev also the older single object, into LIST.
void config_groups_read(const struct reader *reader, const struct config_names *vms, enum rule_kind kind,
                        struct group_list *list);
void config_groups_clear(struct group_list *list);
// Reads a list of rules and adds those that are not disabled to RULES, which the caller owns.
void config_groups_read_rules(const struct reader *value, enum rule_kind kind, struct rule ***rules,
                              size_t *rule_count);
