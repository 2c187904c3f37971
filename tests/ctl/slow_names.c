// A name service that hangs: VHOTPLUG_TEST_NAMES names a pipe. Who asks leaves a byte in the file of that name with
// ".asked", and is answered when a byte of the pipe was read.
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/text.h"

// The linker puts this around the real one.
int __real_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found);
int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found);

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    const char *gate = getenv("VHOTPLUG_TEST_NAMES");
    CLEANUP(cleanup_free) char *asked = string_printf("%s.asked", gate ? gate : "");
    CLEANUP(cleanup_close) int mark = open(asked, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CLEANUP(cleanup_close) int fd = gate ? open(gate, O_RDONLY | O_CLOEXEC) : -1;
    char byte = 'x';
    if (write(mark, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
        return EAI_FAIL;
    return __real_getaddrinfo(host, service, hints, found);
}
