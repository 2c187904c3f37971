// The memory of the process, kept small: the daemon runs for months and has little to keep.
#pragma once

// Before the first thread: threads that live for one device shall not each keep a part of the memory for themselves.
void heap_share(void);
// Gives what is free back to the system; after much was freed at once, as it looks at all of it.
void heap_trim(void);
