// Ownership in the open: attributes that release a local when its scope ends, and hand-over.
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))
#define CHECKED __attribute__((warn_unused_result))
#define PRINTF(string, first) __attribute__((format(printf, string, first)))

// Defines NAME(TYPE **), for CLEANUP(NAME), which releases what is not NULL by RELEASE.
// NOLINTBEGIN(bugprone-macro-parentheses): a type cannot stand in parentheses.
#define DEFINE_CLEANUP(type, name, release)                                                                            \
    static inline void name(type *owned)                                                                               \
    {                                                                                                                  \
        if (*owned)                                                                                                    \
            release(*owned);                                                                                           \
    }
// NOLINTEND(bugprone-macro-parentheses)

static inline void cleanup_free(void *owned)
{
    free(*(void **)owned);
}

// Closes a descriptor that is not negative; a local descriptor starts as -1.
static inline void cleanup_close(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

DEFINE_CLEANUP(FILE *, cleanup_file, (void)fclose)
DEFINE_CLEANUP(DIR *, cleanup_directory, (void)closedir)

// Hands a descriptor over: returns it and leaves -1 behind.
static inline int steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

static inline void *steal_pointer_from(void *pointer)
{
    void **place = pointer;
    void *taken = *place;
    *place = NULL;
    return taken;
}

// Hands a pointer over: returns it and leaves NULL behind.
#define steal_pointer(place) ((__typeof__(*(place)))steal_pointer_from(place))
