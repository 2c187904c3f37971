// Saves what people chose in a thread: one save at a time.
#include "host/saver.h"

#include "host/host.h"
#include "host/worker.h"
#include "util/text.h"

struct saver {
    struct worker *worker;
    void (*saved)(void *user, int status);
    void *user;
};

struct save {
    struct job job;      // the first, so that one is the other
    struct saver *saver; // for `done` only
    char *path;
    struct choices choices;
    int status;
};

static void save_run(struct job *job)
{
    struct save *save = (struct save *)job;

    save->status = host_save_choices(save->path, &save->choices);
}

static void save_done(struct job *job)
{
    const struct save *save = (const struct save *)job;

    save->saver->saved(save->saver->user, save->status);
}

static void save_release(struct job *job)
{
    struct save *save = (struct save *)job;

    choices_clear(&save->choices);
    free(save->path);
    free(save);
}

int saver_new(struct saver **saver, sd_event *loop, void (*saved)(void *user, int status), void *user)
{
    CLEANUP(cleanup_saver) struct saver *new = memory_new(1, sizeof(*new));
    int error;

    *new = (struct saver){.saved = saved, .user = user};
    error = worker_new(&new->worker, loop, 1);
    if (error < 0)
        return error;
    *saver = steal_pointer(&new);
    return 0;
}

void saver_start(struct saver *saver, const char *path, const struct choices *choices)
{
    struct save *save = memory_new(1, sizeof(*save));

    *save = (struct save){.job = {.run = save_run, .done = save_done, .release = save_release},
                          .saver = saver,
                          .path = string_copy(path)};
    choices_copy(&save->choices, choices);
    worker_submit(saver->worker, &save->job);
}

void saver_free(struct saver *saver)
{
    if (saver == NULL)
        return;
    worker_free(saver->worker);
    free(saver);
}
