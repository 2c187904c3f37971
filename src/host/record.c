// What outlives the daemon, in files: its own memory, and the choices of people.
#include <errno.h>
#include <string.h>

#include "host/host.h"
#include "host/store.h"
#include "util/text.h"

enum { MEMORY_LENGTH_MAX = 1024 * 1024, DAMAGED_SPARE_MAX = 9 };

char *host_runtime_path(const char *name)
{
    const char *directory = getenv("RUNTIME_DIRECTORY");

    if (directory == NULL || directory[0] != '/')
        directory = "/run/vhotplug";
    // systemd gives several, parted by colons; the first is ours.
    return string_printf("%.*s/%s", (int)strcspn(directory, ":"), directory, name);
}

void host_load_memory(struct log *log, const char *path, struct memory *memory)
{
    CLEANUP(cleanup_free) char *text = NULL, *aside = NULL;
    size_t length = 0;
    CLEANUP(cleanup_free) char *why = store_read(path, MEMORY_LENGTH_MAX, &text, &length);

    *memory = (struct memory){0};
    if (why == NULL && text != NULL)
        why = memory_parse(text, length, memory);
    if (why == NULL)
        return;
    aside = store_set_aside(path, 0);
    if (aside == NULL)
        log_warning(log, "%s: %s; it is ignored, and cannot be renamed: %s", path, why, strerror(errno));
    else
        log_warning(log, "%s: %s; it is kept as %s, and what VMs hold is learnt from them", path, why, aside);
}

int host_save_memory(const char *path, const struct memory *memory)
{
    CLEANUP(cleanup_free) char *text = memory_print(memory);

    return store_replace(path, text);
}

enum copy { COPY_GOOD, COPY_ABSENT, COPY_DAMAGED };

// Reads one copy of the choices; a damaged one is kept under another name, for somebody to look at.
static enum copy load_copy(struct log *log, const char *path, struct choices *choices)
{
    CLEANUP(cleanup_free) char *text = NULL, *aside = NULL;
    size_t length = 0;
    CLEANUP(cleanup_free) char *why = store_read(path, CHOICES_TEXT_MAX, &text, &length);

    *choices = (struct choices){0};
    if (why == NULL && text == NULL)
        return COPY_ABSENT;
    if (why == NULL)
        why = choices_parse(text, length, choices);
    if (why == NULL)
        return COPY_GOOD;
    aside = store_set_aside(path, DAMAGED_SPARE_MAX);
    if (aside == NULL)
        log_error(log, "%s: %s; it is ignored, and cannot be renamed: %s", path, why, strerror(errno));
    else
        log_error(log, "%s: %s; it is kept as %s", path, why, aside);
    return COPY_DAMAGED;
}

int host_save_choices(const char *path, const struct choices *choices)
{
    CLEANUP(cleanup_free) char *text = choices_print(choices);
    CLEANUP(cleanup_free) char *previous = string_printf("%s.previous", path);
    int error = store_replace(path, text);

    // The copy is for the time when the file gets damaged, which may be at once: so it does not hold the
    // choices before these, but these. Until it is made, it holds those.
    return error < 0 ? error : store_replace(previous, text);
}

// Makes the file anew from its copy, so that there are two again.
static void restore(struct log *log, const char *path, const struct choices *choices)
{
    int error = host_save_choices(path, choices);

    if (error < 0)
        log_warning(log, "%s cannot be written: %s", path, strerror(-error));
}

void host_load_choices(struct log *log, const char *path, struct choices *choices)
{
    CLEANUP(cleanup_free) char *previous = string_printf("%s.previous", path);
    enum copy first = load_copy(log, path, choices), second;

    if (first == COPY_GOOD)
        return;
    second = load_copy(log, previous, choices);
    if (second == COPY_GOOD) {
        log_warning(log, "%s: %s, and is made anew from its copy %s: look whether each device is where you want it",
                    path, first == COPY_ABSENT ? "it is missing" : "it was damaged", previous);
        restore(log, path, choices);
    } else if (first == COPY_DAMAGED || second == COPY_DAMAGED) {
        log_error(log, "%s: what people chose and detached is lost; detach again what is to stay out of VMs", path);
    }
}
