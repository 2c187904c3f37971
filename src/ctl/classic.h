// vhotplugcli: the command lines and texts of the Python vhotplug's client, which scripts use and parse.
#pragma once

#include "util/cleanup.h"

int classic_main(int argc, char **argv) CHECKED;
