// What a caller may see.
#include "api/scope.h"

#include <ctype.h>
#include <string.h>

#include "util/text.h"

#define TEXT_MAX 4096

bool scope_is_bound(const struct caller *caller)
{
    return caller->vm_count > 0;
}

bool scope_has_vm(const struct caller *caller, const char *vm)
{
    if (!scope_is_bound(caller) || !vm)
        return true;
    for (size_t i = 0; i < caller->vm_count; i++)
        if (strcmp(caller->vms[i], vm) == 0)
            return true;
    return false;
}

bool scope_has_group(const struct caller *caller, const struct group *group)
{
    for (size_t i = 0; group && i < group->vm_count; i++)
        if (scope_has_vm(caller, group->vms[i]))
            return true;
    return false;
}

bool scope_has_device(const struct caller *caller, const struct device_status *status)
{
    if (!scope_is_bound(caller) || (status->vm && scope_has_vm(caller, status->vm)))
        return true;
    return status->verdict->kind == VERDICT_ALLOWED && scope_has_group(caller, status->verdict->group);
}

static bool is_of_others(const void *user, const char *vm)
{
    return !scope_has_vm(user, vm);
}

bool scope_may_move(const struct caller *caller, const struct reconcile *reconcile, const struct device_status *status)
{
    if (!scope_is_bound(caller))
        return true;
    bool held = status->state == STATE_ATTACHED || status->state == STATE_ATTACHING || status->state == STATE_DETACHING;
    return scope_has_device(caller, status) && (!held || scope_has_vm(caller, status->vm)) &&
           !reconcile_device_is_of(reconcile, status->device->instance, is_of_others, caller);
}

const char *scope_vm(const struct caller *caller, const char *vm)
{
    return scope_has_vm(caller, vm) ? vm : NULL;
}

static bool is_of_a_name(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-';
}

// Whether NAME stands in TEXT as a word.
static bool has_word(const char *text, const char *name)
{
    size_t length = strlen(name);
    for (const char *place = length ? strstr(text, name) : NULL; place; place = strstr(place + 1, name))
        if ((place == text || !is_of_a_name(place[-1])) && !is_of_a_name(place[length]))
            return true;
    return false;
}

static char *safe_text(const char *string)
{
    struct text text = {0};
    text_add_safe(&text, string, TEXT_MAX);
    return text_take(&text);
}

static bool names_others(const struct caller *caller, const struct reconcile *reconcile, const char *text)
{
    for (size_t i = 0; i < reconcile_vm_count(reconcile); i++) {
        struct vm_status vm;
        reconcile_vm_status(reconcile, i, &vm);
        CLEANUP(cleanup_free) char *name = safe_text(vm.name);
        if (!scope_has_vm(caller, vm.name) && has_word(text, name))
            return true;
    }
    return false;
}

char *scope_text(const struct caller *caller, const struct reconcile *reconcile, const char *text)
{
    char *safe = safe_text(text ? text : "");
    if (!scope_is_bound(caller) || !names_others(caller, reconcile, safe))
        return safe;
    free(safe);
    return string_copy("it concerns another VM");
}
