// What a person can do about a device_add that QEMU refused: the ends of such an attach.
#pragma once

#include "vmm/qemu_session.h"

// Whether they say that QEMU has no right to the device.
bool qemu_words_denied(const char *words) CHECKED;

// Each ends the ATTACH that is running, with qemu->add_error. NODE is the file that QEMU opens.
void qemu_finish_denied(struct qemu *qemu, const char *node);
// It is HOW ("grabbed") by another program, which is searched for.
void qemu_finish_taken(struct qemu *qemu, const char *node, const char *how);
// In QEMU's own words.
void qemu_finish_refused(struct qemu *qemu);
// In ours; takes TEXT.
void qemu_finish_explained(struct qemu *qemu, enum result_kind kind, char *text);
