// What a caller may see: those who are bound to some VMs see and name no other.
#pragma once

#include "api/caller.h"
#include "core/reconcile.h"

// Whether they are bound to some VMs.
bool scope_is_bound(const struct caller *caller) CHECKED;
// NULL is no VM in particular: everybody's.
bool scope_has_vm(const struct caller *caller, const char *vm) CHECKED;
// Whether some VM of a group is theirs. No group has none.
bool scope_has_group(const struct caller *caller, const struct group *group) CHECKED;
// A device that may go into a VM of theirs, or is in one.
bool scope_has_device(const struct caller *caller, const struct device_status *status) CHECKED;
// Nobody else's VM has the device or may have it, and no person wants it there: they may move it.
bool scope_may_move(const struct caller *caller, const struct reconcile *reconcile,
                    const struct device_status *status) CHECKED;
// The name of a VM if it is theirs, else NULL.
const char *scope_vm(const struct caller *caller, const char *vm) CHECKED;
// A text safe for people, or a general one when it names a VM that is not theirs. Free with free().
char *scope_text(const struct caller *caller, const struct reconcile *reconcile, const char *text) CHECKED;
