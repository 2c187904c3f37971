// crosvm's control messages: requests as bytes, replies parsed from hostile bytes. No I/O.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"

#define CROSVM_PORTS 16 // 1 to 8 are USB 2, 9 to 16 USB 3
#define CROSVM_PORTS_OF_A_KIND 8
#define CROSVM_MESSAGE_MAX 65536
#define CROSVM_ERROR_TEXT_MAX 200
#define CROSVM_DETACH_MAX 64 // bytes of a request

enum crosvm_reply_kind {
    CROSVM_DEVICES, // the list
    CROSVM_PORT,    // done, on that port
    CROSVM_NO_PORT,
    CROSVM_NO_DEVICE,
    CROSVM_FAILED, // any other failure of USB; TEXT is crosvm's word
    CROSVM_ERROR,  // NUMBER is an errno
    CROSVM_OTHER,  // not understood, or an error in crosvm's words: TEXT
};

struct crosvm_port {
    bool used;
    uint16_t vendor_id, product_id;
};

struct crosvm_reply {
    enum crosvm_reply_kind kind;
    struct crosvm_port ports[CROSVM_PORTS + 1]; // DEVICES; by port number
    unsigned port;                              // PORT
    int number;                                 // ERROR
    char text[CROSVM_ERROR_TEXT_MAX * 4 + 4];   // FAILED, OTHER: safe for logs
};

// Requests; terminated strings, to be sent without the terminator. ATTACH goes with one descriptor.
const char *crosvm_list_request(void) CHECKED;
const char *crosvm_attach_request(void) CHECKED;
void crosvm_detach_request(char request[CROSVM_DETACH_MAX], unsigned port);

// Reads a packet; anything that is no reply we know is CROSVM_OTHER.
void crosvm_parse_reply(const char *packet, size_t length, struct crosvm_reply *reply);
