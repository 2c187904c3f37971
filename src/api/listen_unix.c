// The Unix socket: it appears under its name only when its owner, group and mode are right and it listens,
// and takes the place of what a dead daemon left there, of nothing else.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "api/account.h"
#include "api/listen.h"
#include "util/text.h"

static bool set_address(struct sockaddr_un *address, const char *path)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path)
        return false;
    memcpy(address->sun_path, path, strlen(path));
    return true;
}

// Makes the directory that PATH is in, and those above it, for all to pass: who may connect is the socket's
// own business.
static bool make_parents(const char *path, char **error)
{
    CLEANUP(cleanup_free) char *part = string_copy(path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) == 0) {
            (void)chmod(part, 0755); // whatever our umask is
        } else if (errno != EEXIST) {
            *error = string_printf("the directory %s cannot be made: %s", part, strerror(errno));
            return false;
        }
        *slash = '/';
    }
    return true;
}

// Whether the name may be taken: nothing is there, or a socket on which nobody listens.
static bool is_free(const char *path, char **error)
{
    struct stat status;
    if (lstat(path, &status) < 0) {
        if (errno == ENOENT)
            return true;
        *error = string_printf("it cannot be looked at: %s", strerror(errno));
        return false;
    }
    if (!S_ISSOCK(status.st_mode)) {
        *error = string_copy("something else than a socket is there; move it away or set unixSocket to another path");
        return false;
    }
    struct sockaddr_un address;
    if (!set_address(&address, path)) {
        *error = string_copy("its path is too long");
        return false;
    }
    CLEANUP(cleanup_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0 &&
        (errno == ECONNREFUSED || errno == ENOENT))
        return true;
    *error = string_copy("another program listens there, another vhotplug perhaps");
    return false;
}

// ---- owner, group and mode

static bool find_owner(const struct api_config *config, uid_t *uid, gid_t *gid, char **error)
{
    if (config->user && !account_user(config->user, uid)) {
        *error = string_printf("there is no user %s (unixSocketUser)", config->user);
        return false;
    }
    if (config->group && !account_group(config->group, gid)) {
        *error = string_printf("there is no group %s (unixSocketGroup)", config->group);
        return false;
    }
    return true;
}

// FD is an O_PATH one: it names the very socket that was made, whatever is done to its name meanwhile.
static bool set_owner(int fd, uid_t uid, gid_t gid, unsigned mode, char **error)
{
    CLEANUP(cleanup_free) char *path = string_printf("/proc/self/fd/%d", fd);
    // Of a socket that is somebody else's already, its mode could not be set.
    (void)fchownat(fd, "", geteuid(), (gid_t)-1, AT_EMPTY_PATH);
    if (chmod(path, mode) < 0) {
        *error = string_printf("its mode cannot be set: %s", strerror(errno));
        return false;
    }
    struct stat now;
    bool done = fstat(fd, &now) == 0 && now.st_uid == uid && now.st_gid == gid;
    if (!done && fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0) {
        *error = string_printf("it cannot be given to its user and group: %s; the service unit allows that by its "
                               "socket-owner.conf",
                               strerror(errno));
        (void)chmod(path, 0600);
        return false;
    }
    return true;
}

static bool own_socket(const char *path, const struct api_config *config, struct stat *file, char **error)
{
    CLEANUP(cleanup_close) int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, file) < 0 || !S_ISSOCK(file->st_mode)) {
        *file = (struct stat){0};
        *error = string_copy("somebody has taken it away");
        return false;
    }
    uid_t uid = geteuid();
    gid_t gid = getegid();
    CLEANUP(cleanup_free) char *ignored = NULL;
    if (find_owner(config, &uid, &gid, error))
        return set_owner(fd, uid, gid, config->mode, error);
    (void)set_owner(fd, geteuid(), getegid(), 0600, &ignored);
    return false;
}

bool listen_unix_owner(const struct api_config *config, struct stat *file, char **error)
{
    return own_socket(config->path, config, file, error);
}

bool listen_unix_is(const char *path, const struct stat *file)
{
    struct stat status;
    return lstat(path, &status) == 0 && status.st_dev == file->st_dev && status.st_ino == file->st_ino;
}

// ---- the socket

int listen_unix(const struct api_config *config, char **error)
{
    CLEANUP(cleanup_free) char *new = string_printf("%s.new", config->path);
    CLEANUP(cleanup_free) char *unowned = NULL;
    struct sockaddr_un address;
    struct stat file;
    if (!set_address(&address, new)) {
        *error = string_printf("its path is longer than %zu bytes", sizeof address.sun_path - sizeof ".new");
        return -1;
    }
    if (!make_parents(config->path, error) || !is_free(config->path, error))
        return -1;
    (void)unlink(new); // what a killed daemon left
    CLEANUP(cleanup_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        *error = string_printf("it cannot be made: %s", strerror(errno));
        return -1;
    }
    // Without its owner it is for us only: better than nobody being able to ask what is wrong.
    (void)own_socket(new, config, &file, &unowned);
    if (listen(fd, SOMAXCONN) < 0 || rename(new, config->path) < 0) {
        *error = string_printf("it cannot be made: %s", strerror(errno));
        (void)unlink(new);
        return -1;
    }
    return steal_fd(&fd);
}
