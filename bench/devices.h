// USB devices of the benchmarks' own making: their directories in sysfs, their nodes, and what udevd says of them.
#pragma once
#include <stddef.h>

enum { DEVICES_A_BUS = 127 };

// Makes device number INDEX, counted from 0, whose serial number is SERIAL: sysfs, node, and udevd's database.
void device_make(size_t index, const char *serial);
void device_remove(size_t index);

// What udevd tells its listeners: "add" or "remove". FD is from uevent_socket().
void uevent_send(int fd, const char *action, size_t index);
int uevent_socket(void);
