// The name of a port that survives renumbered buses, as udev makes it, where no udev makes it.
#pragma once

#include "util/cleanup.h"

// "pci-0000:00:14.0-usb-0:2.3" of a syspath; NULL if the path is of another form. Free with free().
char *idpath_of_usb(const char *syspath) CHECKED;
