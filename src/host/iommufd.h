// Opens a PCI function that is bound to vfio-pci by a node of its own, which kernels from 6.6 on may have beside that
// of its IOMMU group: what a VMM is handed then needs no right on any node.
#pragma once

#include "core/device.h"
#include "util/cleanup.h"

// A descriptor of the function's node in DEV ("/dev"), and of no other function's; owned. Negative errno: -EOPNOTSUPP
// where the kernel has no such nodes, else WHY says it for people, for free(). May block.
int iommufd_open(const char *dev, const struct device *device, char **why) CHECKED;
