// A bench for the hand-over of devices: a tree of files in place of the host, a loop, and the threads that do the work.
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "host/handover.h"
#include "host/worker.h"
#include "util/log.h"

// The PCI function of handover_bench_add_card.
#define CARD "sys/devices/pci0000:00/0000:01:00.0"

struct handover_bench {
    char *root, *sys, *dev, *records;
    struct access_paths paths;
    struct bind_paths bind_paths;
    struct log *log;
    sd_event *loop;
    struct worker *worker;
    struct handover *handover;
    unsigned answers;    // so many have come; counted by the test's own callback
    struct device *card; // NULL until it is added
    char *group_node;    // of the card's IOMMU group
};

// ANSWERED with USER takes the answers.
void handover_bench_init(struct handover_bench *bench, enum log_level level,
                         void (*answered)(void *user, struct handover_answer *answer), void *user);
// Ends the threads first.
void handover_bench_clear(struct handover_bench *bench);

// A network card, and the node of its group, which belongs to root alone.
void handover_bench_add_card(struct handover_bench *bench);
// Runs the loop until that many answers have come in all.
void handover_bench_wait(struct handover_bench *bench, unsigned answers);

// Whether more than its owner, its group and all others have a right on the node.
bool handover_bench_is_given(const char *node);
