// A bench for the reconciler: short words in, the outputs as text out.
#pragma once

#include "core/reconcile.h"
#include "util/text.h"

#define BENCH_VMS 4

struct bench {
    struct reconcile *reconcile;
    struct config *config;
    uint64_t now;
    struct text log;
    char vms[BENCH_VMS][8];
    uint64_t serials[BENCH_VMS]; // of the operation last sent to each
    uint64_t leaving;            // instance of the device that the last DETACH named; 0: none
};

// A bench with vm1 and vm2 (qemu) and vm3 (crosvm), to which devices of vendor 1, 2 and 3 go.
void bench_init(struct bench *bench, bool attach_connected);
void bench_clear(struct bench *bench);
// Another configuration: its groups, as JSON text, and whether vm2 is named.
void bench_configure(struct bench *bench, const char *groups, bool vm2);

// Another configuration altogether.
void bench_configure_text(struct bench *bench, const char *text);

// vm1 and vm2 up and empty, the scan complete.
void bench_ready(struct bench *bench, bool attach_connected);
// As above, with device 5 of port 1 in vm1 as object a.
void bench_attached(struct bench *bench);

// A device of VENDOR at "usb:1-PORT", whose address is its instance.
struct device *bench_device(unsigned port, uint64_t instance, unsigned vendor);
void bench_plug(struct bench *bench, unsigned port, uint64_t instance, unsigned vendor, bool plugged);
void bench_unplug(struct bench *bench, unsigned port, uint64_t instance);
void bench_up(struct bench *bench, const char *vm, uint64_t instance);
void bench_down(struct bench *bench, const char *vm);

// Answers the operation last sent to VM. LIST is NULL for none, or words: "a=5" is our object a of
// instance 5, with "!" dead, with "~" leaving; "f@4" is a foreign object f of the device at 1/4, "f@0000:01:00.0"
// of that PCI function.
void bench_answer(struct bench *bench, const char *vm, enum result_kind kind, const char *text, const char *list);

// Everything put out since the last call must be this, one line each.
#define bench_expect(bench, expected) bench_expect_at(bench, expected, __FILE__, __LINE__)
void bench_expect_at(struct bench *bench, const char *expected, const char *file, int line);
// Throws away what was put out.
void bench_skip(struct bench *bench);
// Goes on to the deadline, which must be there.
void bench_at_deadline(struct bench *bench);
// Nothing is put out, and nothing is to be done later.
void bench_idle(struct bench *bench);
