// Which kernel modules would drive a device: libkmod's answers, kept per modalias.
#include "host/drivers.h"

#include <libkmod.h>
#include <stdarg.h>
#include <string.h>

#include "util/text.h"

// A hostile device can make up aliases without end; when so many are known, all are forgotten.
enum { ANSWERS_MAX = 512 };

struct answer {
    char *modalias;
    char **paths;
    size_t count;
};

struct drivers {
    const char *directory;
    struct kmod_ctx *kmod; // NULL until first needed
    struct answer *answers;
    size_t count;
};

struct drivers *drivers_new(const char *directory)
{
    struct drivers *drivers = memory_new(1, sizeof(*drivers));

    drivers->directory = directory;
    return drivers;
}

static void forget(struct drivers *drivers)
{
    for (size_t i = 0; i < drivers->count; i++) {
        struct answer *answer = &drivers->answers[i];
        for (size_t j = 0; j < answer->count; j++)
            free(answer->paths[j]);
        free(answer->paths);
        free(answer->modalias);
    }
    drivers->count = 0;
}

static void close_kmod(struct drivers *drivers)
{
    if (drivers->kmod != NULL)
        kmod_unref(drivers->kmod);
    drivers->kmod = NULL;
}

void drivers_free(struct drivers *drivers)
{
    if (drivers == NULL)
        return;
    forget(drivers);
    close_kmod(drivers);
    free(drivers->answers);
    free(drivers);
}

// libkmod writes to stderr by itself; a missing index is no news here.
static void ignore_log(void *user, int priority, const char *file, int line, const char *function, const char *format,
                       va_list arguments)
{
    (void)user, (void)priority, (void)file, (void)line, (void)function, (void)format, (void)arguments;
}

// Opens the module index, and anew when depmod has written another.
static bool open_kmod(struct drivers *drivers)
{
    if (drivers->kmod != NULL && kmod_validate_resources(drivers->kmod) != KMOD_RESOURCES_OK) {
        close_kmod(drivers);
        forget(drivers);
    }
    if (drivers->kmod != NULL)
        return true;
    drivers->kmod = kmod_new(drivers->directory, NULL);
    if (drivers->kmod == NULL)
        return false;
    kmod_set_log_fn(drivers->kmod, ignore_log, NULL);
    if (kmod_load_resources(drivers->kmod) >= 0)
        return true;
    close_kmod(drivers);
    return false;
}

static void ask(struct drivers *drivers, struct answer *answer)
{
    struct kmod_list *list = NULL;
    struct kmod_list *item;

    if (kmod_module_new_from_lookup(drivers->kmod, answer->modalias, &list) < 0)
        return;
    kmod_list_foreach(item, list)
    {
        struct kmod_module *module = kmod_module_get_module(item);
        const char *path = kmod_module_get_path(module); // NULL of a built-in one
        if (path != NULL && answer->count < DEVICE_DRIVERS_MAX) {
            answer->paths = memory_resize(answer->paths, answer->count + 1, sizeof(*answer->paths));
            answer->paths[answer->count++] = string_copy(path);
        }
        kmod_module_unref(module);
    }
    kmod_module_unref_list(list);
}

static const struct answer *find(struct drivers *drivers, const char *modalias)
{
    struct answer *answer;

    for (size_t i = 0; i < drivers->count; i++)
        if (strcmp(drivers->answers[i].modalias, modalias) == 0)
            return &drivers->answers[i];
    if (drivers->count == ANSWERS_MAX)
        forget(drivers);
    drivers->answers = memory_resize(drivers->answers, drivers->count + 1, sizeof(*drivers->answers));
    answer = &drivers->answers[drivers->count++];
    *answer = (struct answer){.modalias = string_copy(modalias)};
    ask(drivers, answer);
    return answer;
}

static void add_path(struct device *device, const char *path)
{
    for (size_t i = 0; i < device->driver_count; i++)
        if (strcmp(device->drivers[i], path) == 0)
            return;
    if (device->driver_count == DEVICE_DRIVERS_MAX)
        return;
    device->drivers = memory_resize(device->drivers, device->driver_count + 1, sizeof(*device->drivers));
    device->drivers[device->driver_count++] = string_copy(path);
}

void drivers_find(struct drivers *drivers, char *const *modaliases, size_t count, struct device *device)
{
    if (count == 0 || !open_kmod(drivers))
        return;
    for (size_t i = 0; i < count; i++) {
        const struct answer *answer = find(drivers, modaliases[i]);
        for (size_t j = 0; j < answer->count; j++)
            add_path(device, answer->paths[j]);
    }
}
