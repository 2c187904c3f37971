// Makes the calls that change files die or fail, by --wrap of the linker.
#pragma once

#include <stddef.h>

// Writes, opens, renames and so on are counted from the last of these on.
void faults_off(void);            // only counted
void faults_die(unsigned call);   // the process ends in call number CALL, counted from 0; half of a write is done
void faults_fail(unsigned call);  // that one fails with ENOSPC
void faults_full(unsigned call);  // that one and all later writes fail with ENOSPC
unsigned faults_calls(void);      // how many there were
const char *faults_history(void); // "unlink open write fsync rename …"; the names of files behind the last / with it

#define FAULTS_STATUS 77 // of the exit of a process that died
