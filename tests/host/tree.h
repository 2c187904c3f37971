// A directory of files for a test: a sysfs, a /proc or a /dev of our own making.
#pragma once

#include <stddef.h>

#include "core/device.h"
#include "util/cleanup.h"

// A new empty directory, by its real path; free with tree_free, which removes all that is in it.
char *tree_new(void) CHECKED;
void tree_free(char *root);
DEFINE_CLEANUP(char *, cleanup_tree, tree_free)

// Makes a directory, a file or a link at ROOT/PATH, with all directories above.
void tree_directory(const char *root, const char *path);
void tree_write(const char *root, const char *path, const char *text);
void tree_write_bytes(const char *root, const char *path, const void *bytes, size_t length);
void tree_link(const char *root, const char *path, const char *target);
void tree_remove(const char *root, const char *path);

// From now on only FREE more descriptors can be opened; negative: as many as before.
void tree_limit_descriptors(int free);

// Makes a USB device as the kernel shows it: a mouse, 0627:0001, with some attributes.
void tree_usb(const char *root, const char *path, const char *bus, const char *address);

// Makes that device at ROOT/1-2 with a node, ROOT/node, and reads what opening it needs; a reference.
struct device *tree_mouse_device(const char *root) CHECKED;

// Makes a PCI function, a network card 8086:10d3 of IOMMU group 12, and the group's node, dev/vfio/12.
void tree_card(const char *root, const char *path);

// The descriptors of that mouse.
extern const unsigned char tree_mouse[];
extern const size_t tree_mouse_length;
