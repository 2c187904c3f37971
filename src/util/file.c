// Files read as a whole, within a limit.
#include "util/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "util/text.h"

char *file_read(const char *file, size_t *length, char **error)
{
    CLEANUP(cleanup_close) int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0) {
        *error = string_printf("cannot be read: %s", strerror(errno));
        return NULL;
    }
    if (!S_ISREG(status.st_mode)) {
        *error = string_copy("is not a file");
        return NULL;
    }
    return file_read_from(fd, length, error);
}

char *file_read_from(int fd, size_t *length, char **error)
{
    CLEANUP(cleanup_free) char *text = memory_new(FILE_SIZE_MAX + 1, 1);
    *length = 0;
    for (;;) {
        ssize_t got = read(fd, text + *length, FILE_SIZE_MAX + 1 - *length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            *error = string_printf("cannot be read: %s", strerror(errno));
            return NULL;
        }
        *length += (size_t)got;
        if (got == 0)
            return steal_pointer(&text);
        if (*length > FILE_SIZE_MAX) {
            *error = string_printf("is longer than %u bytes", FILE_SIZE_MAX);
            return NULL;
        }
    }
}
