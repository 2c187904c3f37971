// The memory of the process, kept small: the daemon runs for months and has little to keep.
#include "util/heap.h"

#include <malloc.h>

// Other C libraries than glibc have one heap anyway, and give back what they can by themselves.
void heap_share(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_ARENA_MAX, 1);
#endif
}

void heap_trim(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}
