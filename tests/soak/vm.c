// A scripted QEMU that is a process of its own, so that it can be killed and started anew: vm DIRECTORY SOCKET [USER],
// and is that user, by its number, if one is named.
// It has four USB ports and two PCIe ports. An empty line on standard input asks for what it holds: a line of ids
// comes.
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../wire/bench.h"
#include "../wire/fake_qemu.h"

static void print(const struct fake_qemu *fake)
{
    for (size_t i = 0; i < fake->device_count; i++)
        if (strncmp(fake->devices[i].id, "vhotplug-", 9) == 0)
            (void)printf("%s ", fake->devices[i].id);
    (void)puts("");
    (void)fflush(stdout);
}

static int handle_order(sd_event_source *source, int fd, uint32_t events, void *user)
{
    char byte;
    (void)events;
    if (read(fd, &byte, 1) != 1)
        return sd_event_exit(sd_event_source_get_event(source), 0);
    print(user);
    return 0;
}

// Its record of what was asked has an end; here nobody reads it.
static int forget(sd_event_source *source, void *user)
{
    struct fake_qemu *fake = user;
    (void)source;
    while (fake->asked_count > 0)
        free(fake->asked[--fake->asked_count]);
    return 0;
}

static bool become(const char *user)
{
    unsigned long number;
    return string_to_number(user, 10, UINT32_MAX, &number) && syscall(SYS_setgroups, 0, NULL) == 0 &&
           setgid((gid_t)number) == 0 && setuid((uid_t)number) == 0;
}

int main(int argc, char *argv[])
{
    struct fake_qemu fake = {0};
    sd_event *loop = NULL;
    if (argc < 3 || sd_event_new(&loop) < 0 || (argc > 3 && !become(argv[3])))
        return EXIT_FAILURE;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", argv[1], argv[2]);
    (void)unlink(path); // that of one which was killed
    fake_qemu_start(&fake, loop, argv[1], argv[2]);
    fake_qemu_add(&fake, "ep1", "pcie-root-port");
    fake_qemu_add(&fake, "ep2", "pcie-root-port");
    if (sd_event_add_io(loop, NULL, STDIN_FILENO, EPOLLIN, handle_order, &fake) < 0 ||
        sd_event_add_post(loop, NULL, forget, &fake) < 0)
        return EXIT_FAILURE;
    print(&fake); // it is up
    int status = sd_event_loop(loop);
    (void)forget(NULL, &fake);
    fake_qemu_stop(&fake);
    sd_event_unref(loop);
    return status < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
