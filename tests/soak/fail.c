// Goes before all libraries of the daemon (LD_PRELOAD): writes down which places make system calls, or fails one once.
//
// SOAK_CONTROL names a file that the test maps too: which phase of a scenario it is, whether a call was failed, and how
// much memory is in use each time that the daemon waits. SOAK_SITES names a file that gets a line "PHASE FUNCTION
// PLACE" for each call that is the first of its place in its phase. SOAK_FAIL is such a line: that call fails, once. A
// place is where the function was called, and if that is in a library, where the program called the library.
#undef _FILE_OFFSET_BITS // both forms of open and the like are defined here
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FRAMES 40
#define SEEN 8192

struct control {
    _Atomic uint32_t phase;  // 0: nothing is written down or failed
    _Atomic uint32_t failed; // how many calls were
    _Atomic uint64_t heap;   // bytes in use
};

static struct control none, *control = &none;
static const char *target;
static int sites = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t seen[SEEN];
static uintptr_t program, self;
static __thread bool inside, by_library;

static void *next_of(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

// The library or program that an address is in: where it begins, and its name.
static uintptr_t module_of(const void *address, const char **name)
{
    Dl_info info;
    if (!dladdr(address, &info))
        return 0;
    const char *slash = strrchr(info.dli_fname, '/');
    *name = slash ? slash + 1 : info.dli_fname;
    return (uintptr_t)info.dli_fbase;
}

__attribute__((constructor)) static void start(void)
{
    void *frames[2];
    const char *name, *file = getenv("SOAK_CONTROL");
    int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    (void)backtrace(frames, 2); // it loads a library the first time
    self = module_of((void *)(uintptr_t)start, &name);
    program = module_of((void *)(uintptr_t)getauxval(AT_ENTRY), &name);
    target = getenv("SOAK_FAIL");
    file = getenv("SOAK_SITES");
    sites = file ? open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (map != MAP_FAILED)
        control = map;
}

static void place(char *text, size_t size)
{
    void *frames[FRAMES];
    int count = backtrace(frames, FRAMES);
    bool entered = false, called = false; // a sanitizer's own frames come first
    size_t length = 0;
    for (int i = 0; i < count && length < size; i++) {
        const char *name = "";
        uintptr_t base = module_of(frames[i], &name), offset = (uintptr_t)frames[i] - base - 1;
        entered |= base == self;
        if (!entered || base == self || (called && base != program))
            continue;
        length += (size_t)snprintf(text + length, size - length, "%s%s+%lx", called ? "<" : "", name, offset);
        by_library = called ? by_library : base != program;
        called = true;
        if (base == program)
            return;
    }
}

static bool is_new(const char *line)
{
    uint64_t hash = 14695981039346656037U;
    for (; *line; line++)
        hash = (hash ^ (unsigned char)*line) * 1099511628211U;
    size_t i = hash % SEEN;
    for (; seen[i]; i = (i + 1) % SEEN)
        if (seen[i] == hash)
            return false;
    seen[i] = hash;
    return true;
}

static bool look(const char *function, uint32_t phase)
{
    char line[512];
    int length = snprintf(line, sizeof line, "%u %s ", phase, function);
    line[length] = '\0';
    place(line + length, sizeof line - (size_t)length);
    pthread_mutex_lock(&lock);
    bool strike = target && strcmp(line, target) == 0 && control->failed == 0;
    if (strike)
        control->failed = 1;
    if (sites >= 0 && is_new(line)) {
        size_t end = strlen(line);
        line[end] = '\n';
        syscall(SYS_write, sites, line, end + 1);
    }
    pthread_mutex_unlock(&lock);
    return strike;
}

// Whether this call is to fail.
static bool strikes(const char *function)
{
    uint32_t phase = control->phase;
    if (phase == 0 || inside || (sites < 0 && !target))
        return false;
    int before = errno;
    inside = true;
    bool strike = look(function, phase);
    inside = false;
    errno = before;
    return strike;
}

// What ferror() tells is written down by glibc itself, which has no function to set it.
static void note_error(FILE *file)
{
    file->_flags |= 0x20;
}

// clang-format off
#define FAILING(type, name, parameters, arguments, failure, number) \
    type name parameters                                            \
    {                                                               \
        static type(*real) parameters;                              \
        if (!real)                                                  \
            *(void **)&real = next_of(#name);                       \
        if (strikes(#name)) {                                       \
            errno = number;                                         \
            return failure;                                         \
        }                                                           \
        return real arguments;                                      \
    }
#define OPENING(name, parameters, arguments)                        \
    int name parameters                                             \
    {                                                               \
        static int(*real) parameters;                               \
        va_list rest;                                               \
        va_start(rest, flags);                                      \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                               \
        if (!real)                                                  \
            *(void **)&real = next_of(#name);                       \
        if (strikes(#name)) {                                       \
            errno = EMFILE;                                         \
            return -1;                                              \
        }                                                           \
        return real arguments;                                      \
    }

int __open64_2(const char *path, int flags);
int __openat64_2(int directory, const char *path, int flags);

OPENING(open, (const char *path, int flags, ...), (path, flags, mode))
OPENING(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENING(openat, (int directory, const char *path, int flags, ...), (directory, path, flags, mode))
OPENING(openat64, (int directory, const char *path, int flags, ...), (directory, path, flags, mode))
FAILING(int, __open64_2, (const char *path, int flags), (path, flags), -1, EMFILE)
FAILING(int, __openat64_2, (int directory, const char *path, int flags), (directory, path, flags), -1, EMFILE)
FAILING(FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL, EMFILE)
FAILING(FILE *, fopen64, (const char *path, const char *mode), (path, mode), NULL, EMFILE)
FAILING(FILE *, fdopen, (int fd, const char *mode), (fd, mode), NULL, ENOMEM)
FAILING(DIR *, opendir, (const char *path), (path), NULL, EMFILE)
FAILING(DIR *, fdopendir, (int fd), (fd), NULL, ENOMEM)
FAILING(struct dirent64 *, readdir64, (DIR *directory), (directory), NULL, EIO)
FAILING(char *, fgets, (char *text, int size, FILE *file), (text, size, file), (note_error(file), NULL), EIO)
FAILING(ssize_t, __getdelim, (char **text, size_t *size, int end, FILE *file), (text, size, end, file), (note_error(file), -1), EIO)
FAILING(size_t, fread, (void *bytes, size_t size, size_t count, FILE *file), (bytes, size, count, file), (note_error(file), 0U), EIO)
FAILING(int, fflush, (FILE *file), (file), EOF, ENOSPC)
// A library's descriptors, of timers and signals, know no trouble but being interrupted.
FAILING(ssize_t, read, (int fd, void *bytes, size_t size), (fd, bytes, size), -1, by_library ? EINTR : EIO)
FAILING(ssize_t, pread64, (int fd, void *bytes, size_t size, off64_t at), (fd, bytes, size, at), -1, EIO)
FAILING(ssize_t, write, (int fd, const void *bytes, size_t size), (fd, bytes, size), -1, ENOSPC)
FAILING(ssize_t, recv, (int fd, void *bytes, size_t size, int flags), (fd, bytes, size, flags), -1, ENOMEM)
FAILING(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags), -1, ENOMEM)
FAILING(ssize_t, send, (int fd, const void *bytes, size_t size, int flags), (fd, bytes, size, flags), -1, ENOBUFS)
FAILING(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), -1, ENOBUFS)
FAILING(int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1, EMFILE)
FAILING(int, bind, (int fd, __CONST_SOCKADDR_ARG address, socklen_t size), (fd, address, size), -1, ENOMEM)
FAILING(int, listen, (int fd, int length), (fd, length), -1, EADDRINUSE)
FAILING(int, connect, (int fd, __CONST_SOCKADDR_ARG address, socklen_t size), (fd, address, size), -1, ENOMEM)
FAILING(int, accept4, (int fd, __SOCKADDR_ARG address, socklen_t *size, int flags), (fd, address, size, flags), -1, EMFILE)
FAILING(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *size), (fd, level, name, value, size), -1, ENOBUFS)
FAILING(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t size), (fd, level, name, value, size), -1, ENOBUFS)
FAILING(int, getsockname, (int fd, __SOCKADDR_ARG address, socklen_t *size), (fd, address, size), -1, ENOBUFS)
FAILING(int, shutdown, (int fd, int how), (fd, how), -1, ENOTCONN)
FAILING(int, poll, (struct pollfd *fds, nfds_t count, int time), (fds, count, time), -1, ENOMEM)
FAILING(int, ppoll, (struct pollfd *fds, nfds_t count, const struct timespec *time, const sigset_t *signals), (fds, count, time, signals), -1, ENOMEM)
FAILING(int, epoll_create1, (int flags), (flags), -1, EMFILE)
FAILING(int, epoll_ctl, (int loop, int what, int fd, struct epoll_event *event), (loop, what, fd, event), -1, ENOMEM)
FAILING(int, timerfd_create, (clockid_t clock, int flags), (clock, flags), -1, EMFILE)
FAILING(int, timerfd_settime, (int fd, int flags, const struct itimerspec *new, struct itimerspec *old), (fd, flags, new, old), -1, ENOMEM)
FAILING(int, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags), -1, EMFILE)
FAILING(int, eventfd, (unsigned value, int flags), (value, flags), -1, EMFILE)
FAILING(int, inotify_init1, (int flags), (flags), -1, EMFILE)
FAILING(int, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, path, mask), -1, ENOSPC)
FAILING(int, fstat64, (int fd, struct stat64 *status), (fd, status), -1, EIO)
FAILING(int, stat64, (const char *path, struct stat64 *status), (path, status), -1, EIO)
FAILING(int, lstat64, (const char *path, struct stat64 *status), (path, status), -1, EIO)
FAILING(int, fstatat64, (int fd, const char *path, struct stat64 *status, int flags), (fd, path, status, flags), -1, EIO)
FAILING(ssize_t, getxattr, (const char *path, const char *name, void *value, size_t size), (path, name, value, size), -1, EIO)
FAILING(int, setxattr, (const char *path, const char *name, const void *value, size_t size, int flags), (path, name, value, size, flags), -1, ENOSPC)
FAILING(int, removexattr, (const char *path, const char *name), (path, name), -1, EIO)
FAILING(int, faccessat, (int fd, const char *path, int mode, int flags), (fd, path, mode, flags), -1, EIO)
FAILING(int, access, (const char *path, int mode), (path, mode), -1, EIO)
FAILING(ssize_t, readlink, (const char *path, char *text, size_t size), (path, text, size), -1, EIO)
FAILING(ssize_t, readlinkat, (int fd, const char *path, char *text, size_t size), (fd, path, text, size), -1, EIO)
FAILING(char *, realpath, (const char *path, char *text), (path, text), NULL, EIO)
FAILING(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, ENOSPC)
FAILING(int, unlink, (const char *path), (path), -1, EIO)
FAILING(int, rename, (const char *from, const char *to), (from, to), -1, ENOSPC)
FAILING(int, fsync, (int fd), (fd), -1, EIO)
FAILING(int, chmod, (const char *path, mode_t mode), (path, mode), -1, EIO)
FAILING(int, fchmod, (int fd, mode_t mode), (fd, mode), -1, EIO)
FAILING(int, fchownat, (int fd, const char *path, uid_t user, gid_t group, int flags), (fd, path, user, group, flags), -1, EIO)
FAILING(ssize_t, getrandom, (void *bytes, size_t size, unsigned flags), (bytes, size, flags), -1, EAGAIN)
FAILING(int, getrlimit64, (__rlimit_resource_t what, struct rlimit64 *limit), (what, limit), -1, EPERM)
FAILING(int, setrlimit64, (__rlimit_resource_t what, const struct rlimit64 *limit), (what, limit), -1, EPERM)
FAILING(int, pthread_create, (pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *user), (thread, attributes, run, user), EAGAIN, EAGAIN)
// clang-format on

int epoll_wait(int loop, struct epoll_event *events, int count, int time)
{
    static int (*real)(int, struct epoll_event *, int, int);
    if (!real)
        *(void **)&real = next_of("epoll_wait");
    control->heap = mallinfo2().uordblks;
    if (strikes("epoll_wait")) {
        errno = EINTR;
        return -1;
    }
    return real(loop, events, count, time);
}

// A second descriptor of the same; what else it does cannot fail here.
int fcntl64(int fd, int command, ...)
{
    static int (*real)(int, int, ...);
    va_list rest;
    va_start(rest, command);
    void *value = va_arg(rest, void *);
    va_end(rest);
    if (!real)
        *(void **)&real = next_of("fcntl64");
    if (command == F_DUPFD_CLOEXEC && strikes("fcntl64")) {
        errno = EMFILE;
        return -1;
    }
    return real(fd, command, value);
}

// pidfd_open: what libraries ask for by number goes on.
long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long values[6];
    va_list rest;
    va_start(rest, number);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = va_arg(rest, long);
    va_end(rest);
    if (!real)
        *(void **)&real = next_of("syscall");
    if (number == SYS_pidfd_open && strikes("pidfd_open")) {
        errno = EMFILE;
        return -1;
    }
    return real(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}
