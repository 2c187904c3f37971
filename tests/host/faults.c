// The wrappers: each asks whether it is its turn, then does the real thing.
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum { OFF, DIE, FAIL, FULL } plan;
static unsigned turn, calls;
static char history[4096];

static void set(int what, unsigned call)
{
    plan = what;
    turn = call;
    calls = 0;
    history[0] = '\0';
}

void faults_off(void)
{
    set(OFF, 0);
}

void faults_die(unsigned call)
{
    set(DIE, call);
}

void faults_fail(unsigned call)
{
    set(FAIL, call);
}

void faults_full(unsigned call)
{
    set(FULL, call);
}

unsigned faults_calls(void)
{
    return calls;
}

const char *faults_history(void)
{
    return history;
}

static void note(const char *name, const char *path)
{
    size_t length = strlen(history);
    const char *slash = path ? strrchr(path, '/') : NULL;
    (void)snprintf(history + length, sizeof history - length, "%s%s%s%s", length ? " " : "", name, path ? ":" : "",
                   slash  ? slash + 1
                   : path ? path
                          : "");
}

// Whether this call is to fail; does not return when the process is to die in it.
static bool strikes(const char *name, const char *path)
{
    unsigned number = calls++;
    note(name, path);
    if (plan == DIE && number == turn)
        _exit(FAULTS_STATUS);
    errno = ENOSPC;
    return plan == FAIL && number == turn;
}

int __real_open(const char *path, int flags, ...);
int __real_open64(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *bytes, size_t length);
ssize_t __wrap_write(int fd, const void *bytes, size_t length);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __real_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode);

int __wrap_open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return strikes("open", path) ? -1 : __real_open64(path, flags, mode);
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return strikes("open", path) ? -1 : __real_open(path, flags, mode);
}

ssize_t __wrap_write(int fd, const void *bytes, size_t length)
{
    unsigned number = calls++;
    if (fd == STDERR_FILENO) // the log is no file of ours
        return __real_write(fd, bytes, length);
    note("write", NULL);
    if (plan == DIE && number == turn) {
        (void)!__real_write(fd, bytes, length / 2);
        _exit(FAULTS_STATUS);
    }
    if ((plan == FAIL && number == turn) || (plan == FULL && number >= turn)) {
        (void)!__real_write(fd, bytes, length / 2);
        errno = ENOSPC;
        return -1;
    }
    return __real_write(fd, bytes, length);
}

int __wrap_fsync(int fd)
{
    return strikes("fsync", NULL) ? -1 : __real_fsync(fd);
}

int __wrap_rename(const char *from, const char *to)
{
    return strikes("rename", to) ? -1 : __real_rename(from, to);
}

int __wrap_unlink(const char *path)
{
    return strikes("unlink", path) ? -1 : __real_unlink(path);
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    return strikes("mkdir", path) ? -1 : __real_mkdir(path, mode);
}
