// PCI functions of the host: builds the value that policy sees from sysfs and what udev knows.
#pragma once

#include <stdint.h>

#include "core/device.h"
#include "host/source.h"
#include "util/cleanup.h"

#define PCI_GROUP_MAX 256 // functions of an IOMMU group that are looked at

// Reads a function with the others of its IOMMU group. Bridges are read too; whoever asks leaves them out. Negative
// errno: it cannot be reported now.
int pci_read(const struct source *source, struct reading *reading) CHECKED;

// The same from its directory alone, by its real path; no names.
int pci_read_at(const char *syspath, struct device **device) CHECKED;

// Whether DEVICE is still that very function, in the same IOMMU group.
bool pci_is_current(const struct device *device) CHECKED;

// Whether DEVICE has that very plug of OTHER among its peers.
bool pci_lists(const struct device *device, const struct device *other) CHECKED;
