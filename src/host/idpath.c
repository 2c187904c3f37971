// The name of a port that survives renumbered buses, as udev makes it, where no udev makes it.
#include "host/idpath.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "util/text.h"

// One directory of a path, not terminated.
struct part {
    const char *start;
    int length;
};

// The last directory of PATH before END, which is on a slash.
static struct part part_before(const char *path, const char *end)
{
    const char *start = end;

    while (start > path && start[-1] != '/')
        start--;
    return (struct part){start, (int)(end - start)};
}

// "/usb1/" or the like: the root hub; NULL if there is none.
static const char *find_root_hub(const char *path)
{
    for (const char *at = strstr(path, "/usb"); at != NULL; at = strstr(at + 1, "/usb")) {
        size_t digits = strspn(at + 4, "0123456789");
        if (digits > 0 && (at[4 + digits] == '/' || at[4 + digits] == '\0'))
            return at;
    }
    return NULL;
}

static bool is_pci_address(struct part part)
{
    unsigned domain, bus, slot, function;
    int length = 0;

    return sscanf(part.start, "%8x:%2x:%2x.%1o%n", &domain, &bus, &slot, &function, &length) == 4 &&
           length == part.length;
}

// A PCI bus of a platform device has that one's name in front.
static void add_platform_of_pci(struct text *text, const char *syspath)
{
    const char *bus = strstr(syspath, "/pci");
    struct part part;

    if (strstr(syspath, "/devices/platform/") == NULL || bus == NULL)
        return;
    part = part_before(syspath, bus);
    text_printf(text, "platform-%.*s-", part.length, part.start);
}

char *idpath_of_usb(const char *syspath)
{
    const char *hub = find_root_hub(syspath);
    const char *slash = strrchr(syspath, '/');
    const char *dash = slash != NULL ? strchr(slash, '-') : NULL;
    struct text text = {0};
    struct part controller;

    if (hub == NULL || dash == NULL)
        return NULL;
    controller = part_before(syspath, hub);
    if (controller.length == 0)
        return NULL;
    if (is_pci_address(controller)) {
        add_platform_of_pci(&text, syspath);
        text_add(&text, "pci-");
    } else {
        text_add(&text, "platform-");
    }
    text_printf(&text, "%.*s-usb-0:%s", controller.length, controller.start, dash + 1);
    return text_take(&text);
}
