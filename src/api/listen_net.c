// The sockets that have a port: TCP and vsock.
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>

#include "api/listen.h"
#include "util/text.h"

// Takes FD over in any case.
static int listen_at(int fd, const struct sockaddr *address, socklen_t length, char **error)
{
    CLEANUP(cleanup_close) int owned = fd;
    if (bind(owned, address, length) == 0 && listen(owned, SOMAXCONN) == 0)
        return steal_fd(&owned);
    *error = string_copy(strerror(errno));
    return -1;
}

int listen_tcp(const struct api_config *config, char **error)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)config->port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)config->port)};
    bool is_four = inet_pton(AF_INET, config->host, &four.sin_addr) == 1;
    if (!is_four && inet_pton(AF_INET6, config->host, &six.sin6_addr) != 1) {
        *error = string_copy("this is not an IP address");
        return -1;
    }
    CLEANUP(cleanup_close) int fd = socket(is_four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        *error = string_printf("there is no such protocol here: %s; the service unit allows it by its tcp.conf",
                               strerror(errno));
        return -1;
    }
    int on = 1;
    // A daemon that starts again need not wait for the last one's connections to be forgotten.
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (is_four)
        return listen_at(steal_fd(&fd), (struct sockaddr *)&four, sizeof four, error);
    int six_only = !IN6_IS_ADDR_V4MAPPED(&six.sin6_addr);
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &six_only, sizeof six_only);
    return listen_at(steal_fd(&fd), (struct sockaddr *)&six, sizeof six, error);
}

int listen_vsock(const struct api_config *config, char **error)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = config->port};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        *error = errno == EAFNOSUPPORT ? string_copy("there is no vsock here: load the module vhost_vsock; the service "
                                                     "unit allows it by its vsock.conf")
                                       : string_copy(strerror(errno));
        return -1;
    }
    return listen_at(fd, (struct sockaddr *)&address, sizeof address, error);
}
