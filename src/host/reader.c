// Reads a device in a thread, as the kernel may have it locked.
#include "host/reader.h"

#include "host/input.h"
#include "host/pci.h"
#include "host/usb.h"
#include "util/text.h"

struct reader_job {
    struct job job; // first
    struct source *source;
    uint64_t serial;
    void (*done)(void *user, const struct reader_result *result);
    void *user;
    struct reading reading;
    int error;
};

static void run(struct job *job)
{
    struct reader_job *reader = (struct reader_job *)job;

    switch (reader->source->kind) {
    case DEVICE_USB:
        reader->error = usb_read(reader->source, &reader->reading);
        break;
    case DEVICE_INPUT:
        reader->error = input_read(reader->source, &reader->reading);
        break;
    case DEVICE_PCI:
        reader->error = pci_read(reader->source, &reader->reading);
        break;
    }
}

static void done(struct job *job)
{
    struct reader_job *reader = (struct reader_job *)job;
    struct reader_result result = {reader->source, reader->serial, reader->error, &reader->reading};

    reader->done(reader->user, &result);
}

static void release(struct job *job)
{
    struct reader_job *reader = (struct reader_job *)job;

    reading_clear(&reader->reading);
    source_free(reader->source);
    free(reader);
}

void reader_submit(struct worker *worker, struct source *source, uint64_t serial,
                   void (*done_call)(void *user, const struct reader_result *result), void *user)
{
    struct reader_job *reader = memory_new(1, sizeof(*reader));

    *reader = (struct reader_job){
        .job = {.run = run, .done = done, .release = release},
        .source = source,
        .serial = serial,
        .done = done_call,
        .user = user,
    };
    worker_submit(worker, &reader->job);
}
