// Reading back what host devices a QEMU has.
#pragma once

#include <stdbool.h>

#include "vmm/qemu_session.h"

// Reads what the VM has into attachments, then goes to NEXT; list_error says when it did not work.
// FRESH: asks again about those that were listed before, as another tool uses its names anew.
void qemu_list(struct qemu *qemu, bool fresh, qemu_step next);

// The attachment of that name, or NULL.
const struct attachment *qemu_list_find(const struct qemu *qemu, const char *object) CHECKED;

// Whether OBJECT was there when the VM was listed last.
bool qemu_list_knew(const struct qemu *qemu, const char *object) CHECKED;
