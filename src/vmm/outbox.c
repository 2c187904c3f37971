// What the VMM wing has to tell, kept in order and told from the loop, one thing a turn: so nobody is
// called from inside a call of his own.
#include "vmm/outbox.h"

#include <string.h>

#include "util/text.h"

struct letter {
    enum letter_kind kind;
    char *vm;
    uint64_t instance;
    char *why;
    struct result result;
    struct letter *next;
};

struct outbox {
    sd_event_source *source;
    struct vmms_callbacks callbacks;
    void *user;
    void (*tidy)(void *wing, const char *vm);
    void *wing;
    struct letter *first, *last;
};

static void letter_free(struct letter *letter)
{
    free(letter->vm);
    free(letter->why);
    result_clear(&letter->result);
    free(letter);
}
DEFINE_CLEANUP(struct letter *, cleanup_letter, letter_free)

// Hands over the oldest letter. The receiver may free the outbox, so it is not touched afterwards.
static int handle_turn(sd_event_source *source, void *user)
{
    struct outbox *outbox = user;
    CLEANUP(cleanup_letter) struct letter *letter = outbox->first;
    if (!letter)
        return 0;
    outbox->first = letter->next;
    if (!outbox->first)
        outbox->last = NULL;
    else
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    const struct vmms_callbacks *callbacks = &outbox->callbacks;
    switch (letter->kind) {
    case LETTER_UP:
        callbacks->up(outbox->user, letter->vm, letter->instance);
        break;
    case LETTER_DOWN:
        callbacks->down(outbox->user, letter->vm);
        break;
    case LETTER_SILENT:
        callbacks->silent(outbox->user, letter->vm, letter->why);
        break;
    case LETTER_NEWS:
        callbacks->news(outbox->user, letter->vm);
        break;
    case LETTER_DONE:
        callbacks->done(outbox->user, letter->vm, &letter->result);
        break;
    case LETTER_TIDY:
        outbox->tidy(outbox->wing, letter->vm);
        break;
    }
    return 0;
}

int outbox_new(struct outbox **outbox, sd_event *loop, const struct vmms_callbacks *callbacks, void *user,
               void (*tidy)(void *wing, const char *vm), void *wing)
{
    CLEANUP(cleanup_outbox) struct outbox *new = memory_new(1, sizeof *new);
    *new = (struct outbox){.callbacks = *callbacks, .user = user, .tidy = tidy, .wing = wing};
    int r = sd_event_add_defer(loop, &new->source, handle_turn, new);
    if (r < 0)
        return r;
    r = sd_event_source_set_enabled(new->source, SD_EVENT_OFF);
    if (r < 0)
        return r;
    *outbox = steal_pointer(&new);
    return 0;
}

void outbox_free(struct outbox *outbox)
{
    if (!outbox)
        return;
    sd_event_source_disable_unref(outbox->source);
    while (outbox->first) {
        struct letter *letter = outbox->first;
        outbox->first = letter->next;
        letter_free(letter);
    }
    free(outbox);
}

static struct letter *post(struct outbox *outbox, enum letter_kind kind, const char *vm)
{
    struct letter *letter = memory_new(1, sizeof *letter);
    letter->kind = kind;
    letter->vm = string_copy(vm);
    if (outbox->last)
        outbox->last->next = letter;
    else
        outbox->first = letter;
    outbox->last = letter;
    (void)sd_event_source_set_enabled(outbox->source, SD_EVENT_ONESHOT);
    return letter;
}

void outbox_up(struct outbox *outbox, const char *vm, uint64_t instance)
{
    post(outbox, LETTER_UP, vm)->instance = instance;
}

void outbox_add(struct outbox *outbox, enum letter_kind kind, const char *vm)
{
    // A VM that floods us with news fills no memory: one that nobody has read yet is enough.
    for (const struct letter *letter = outbox->first; kind == LETTER_NEWS && letter; letter = letter->next)
        if (letter->kind == kind && strcmp(letter->vm, vm) == 0)
            return;
    post(outbox, kind, vm);
}

void outbox_silent(struct outbox *outbox, const char *vm, const char *why)
{
    post(outbox, LETTER_SILENT, vm)->why = string_copy(why);
}

void outbox_done(struct outbox *outbox, const char *vm, struct result *result)
{
    post(outbox, LETTER_DONE, vm)->result = *result;
    *result = (struct result){0};
}

void outbox_forget(struct outbox *outbox, const char *vm)
{
    struct letter **place = &outbox->first;
    outbox->last = NULL;
    while (*place) {
        struct letter *letter = *place;
        if (letter->kind != LETTER_DONE && strcmp(letter->vm, vm) == 0) {
            *place = letter->next;
            letter_free(letter);
            continue;
        }
        outbox->last = letter;
        place = &letter->next;
    }
}
