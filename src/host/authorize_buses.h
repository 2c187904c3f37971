// The kernel's switches for USB devices that are not there yet: of each bus, and of buses to come. None of it blocks.
#pragma once

#include <stdbool.h>

#include "host/authorize_act.h"
#include "host/authorize_record.h"
#include "util/text.h"

// Puts on record what the switches are, as far as they are not there: before anything is closed. True: there is
// something to close.
bool authorize_buses_note(const struct authorize_paths *paths, struct authorize_record *record) CHECKED;
// Closes them: new devices stay unauthorized. CLOSED gets the names of what was open, WRONG what could not be done.
void authorize_buses_close(const struct authorize_paths *paths, const struct authorize_record *record,
                           struct text *closed, struct text *wrong);
// Puts them back as they were, and marks the devices that are unauthorized on our account. OPENED and WRONG likewise.
void authorize_buses_open(const struct authorize_paths *paths, struct authorize_record *record, struct text *opened,
                          struct text *wrong);
// Puts back what a run that was killed meant to change for a moment only. True: the record has changed.
bool authorize_buses_repair(const struct authorize_paths *paths, struct authorize_record *record) CHECKED;
