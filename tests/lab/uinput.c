// Makes an input device that is not USB and lives as long as this program: uinput mouse|keyboard NAME.
// Prints the event node, then injects one event (a move, a key press) for each line it reads.
#include <fcntl.h>
#include <glob.h>
#include <linux/uinput.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool device_create(int fd, bool mouse, const char *name)
{
    struct uinput_setup setup = {.id = {.bustype = BUS_VIRTUAL, .vendor = 0x1111, .product = 1, .version = 1}};
    snprintf(setup.name, sizeof setup.name, "%s", name);
    ioctl(fd, UI_SET_EVBIT, EV_KEY);
    for (int key = KEY_ESC; !mouse && key < KEY_F11; key++)
        ioctl(fd, UI_SET_KEYBIT, key);
    if (mouse) {
        ioctl(fd, UI_SET_KEYBIT, BTN_LEFT);
        ioctl(fd, UI_SET_EVBIT, EV_REL);
        ioctl(fd, UI_SET_RELBIT, REL_X);
        ioctl(fd, UI_SET_RELBIT, REL_Y);
    }
    return ioctl(fd, UI_DEV_SETUP, &setup) == 0 && ioctl(fd, UI_DEV_CREATE) == 0;
}

static void node_print(int fd)
{
    char name[64] = "", pattern[160];
    ioctl(fd, UI_GET_SYSNAME(sizeof name), name);
    snprintf(pattern, sizeof pattern, "/sys/devices/virtual/input/%s/event*", name);
    glob_t found = {0};
    if (glob(pattern, 0, NULL, &found) == 0)
        printf("/dev/input/%s\n", strrchr(found.gl_pathv[0], '/') + 1);
    fflush(stdout);
    globfree(&found);
}

static void inject(int fd, bool mouse)
{
    const struct input_event move[] = {{.type = EV_REL, .code = REL_X, .value = 5}, {.type = EV_SYN}};
    const struct input_event press[] = {{.type = EV_KEY, .code = KEY_A, .value = 1},
                                        {.type = EV_SYN},
                                        {.type = EV_KEY, .code = KEY_A},
                                        {.type = EV_SYN}};
    if (mouse ? write(fd, move, sizeof move) < 0 : write(fd, press, sizeof press) < 0)
        perror("uinput: write");
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    bool mouse = strcmp(argv[1], "mouse") == 0;
    int fd = open("/dev/uinput", O_RDWR | O_CLOEXEC);
    if (fd < 0 || !device_create(fd, mouse, argv[2])) {
        perror("uinput");
        return 1;
    }
    node_print(fd);
    char line[64];
    while (fgets(line, sizeof line, stdin))
        inject(fd, mouse);
    close(fd);
    return 0;
}
