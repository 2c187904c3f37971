// What vhotplugctl does for each verb that asks a running daemon.
#pragma once

#include <stdbool.h>

#include "ctl/channel.h"

struct verbs_settings {
    struct channel_address address;
    unsigned seconds; // the time limit of a command
    bool json;        // print what the daemon said as JSON
    bool tree;        // of list
    bool pci;         // of list, suspend and resume: PCI functions
};

// Each takes what stands after the verb, of a count that the command line has checked, and returns the exit
// status, after having said what went wrong.
int verbs_status(const struct verbs_settings *settings, char **arguments) CHECKED;
int verbs_list(const struct verbs_settings *settings, char **arguments) CHECKED;
int verbs_vms(const struct verbs_settings *settings, char **arguments) CHECKED;
int verbs_attach(const struct verbs_settings *settings, char **arguments) CHECKED;
int verbs_detach(const struct verbs_settings *settings, char **arguments) CHECKED;
int verbs_suspend(const struct verbs_settings *settings, char **arguments) CHECKED;
int verbs_resume(const struct verbs_settings *settings, char **arguments) CHECKED;
int verbs_reload(const struct verbs_settings *settings, char **arguments) CHECKED;
int verbs_explain(const struct verbs_settings *settings, char **arguments) CHECKED;
