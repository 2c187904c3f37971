// Tables and trees of what the daemon lists, for people: fit for a terminal 80 wide, colours only on one.
#pragma once

#include <json-c/json.h>

#include "util/cleanup.h"

// Each takes a list of objects as the API gives it, prints it to standard output, and returns the exit
// status. An empty list says so.
int table_devices(struct json_object *devices) CHECKED;
// The same devices under their buses and hubs.
int table_tree(struct json_object *devices) CHECKED;
int table_vms(struct json_object *vms) CHECKED;
