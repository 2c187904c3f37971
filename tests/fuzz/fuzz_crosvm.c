// Fuzzes a crosvm: one packet that is to be a reply.
#include <string.h>

#include "fuzz.h"
#include "vmm/crosvm_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct crosvm_reply reply;
    crosvm_parse_reply((const char *)bytes, length, &reply);
    if (reply.kind == CROSVM_PORT && (reply.port == 0 || reply.port > CROSVM_PORTS))
        abort();
    if ((reply.kind == CROSVM_FAILED || reply.kind == CROSVM_OTHER) && strpbrk(reply.text, "\x1b\n\r"))
        abort(); // raw in a log
    return 0;
}
