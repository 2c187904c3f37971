// The addresses of a host by its name, within a time limit.
#pragma once

#include <sys/socket.h>

#include "util/cleanup.h"

#define NAMES_MAX 16

struct name_address {
    int family;
    socklen_t length;
    struct sockaddr_storage address;
};

// Fills at most NAMES_MAX ADDRESSES for TCP and returns how many; 0 and WHY (static) when there are none, also
// when that takes longer than LIMIT, in ms.
unsigned names_find(const char *host, unsigned port, int limit, struct name_address *addresses,
                    const char **why) CHECKED;
