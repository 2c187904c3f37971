// What the host lives on: every way down from a mount or a swap to a USB disk, on made-up trees.
// cmocka needs these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <string.h>

#include "host/claim.h"
#include "host/usage.h"
#include "tree.h"
#include "util/text.h"

#define STICK "devices/pci0000:00/0000:00:14.0/usb1/1-2"
#define OTHER "devices/pci0000:00/0000:00:14.0/usb1/1-20"
#define DISK STICK "/1-2:1.0/host0/target0:0:0/0:0:0:0/block/sda"
#define OTHER_DISK OTHER "/1-20:1.0/host1/target1:0:0/1:0:0:0/block/sdb"
#define VIRTUAL "devices/virtual/block/"

struct machine {
    char *root, *sys, *dev, *mountinfo, *swaps;
    struct usage *usage;
};

// A block device: its directory, its number, and the two links that lead to it.
static void add_block(const struct machine *machine, const char *path, const char *number)
{
    CLEANUP(cleanup_free) char *directory = string_printf("sys/%s", path);
    CLEANUP(cleanup_free) char *class = string_printf("sys/class/block/%s", strrchr(path, '/') + 1);
    CLEANUP(cleanup_free) char *by_number = string_printf("sys/dev/block/%s", number);
    CLEANUP(cleanup_free) char *target = string_printf("../../%s", path);

    tree_directory(machine->root, directory);
    tree_link(machine->root, class, target);
    tree_link(machine->root, by_number, target);
}

static void add_partition(const struct machine *machine, const char *path, const char *number)
{
    CLEANUP(cleanup_free) char *file = string_printf("sys/%s/partition", path);

    add_block(machine, path, number);
    tree_write(machine->root, file, "1\n");
}

// The block device UPPER is made of LOWER.
static void add_slave(const struct machine *machine, const char *upper, const char *lower)
{
    CLEANUP(cleanup_free) char *link = string_printf("sys/" VIRTUAL "%s/slaves/%s", upper, lower);

    tree_link(machine->root, link, "wherever");
}

static void add_attribute(const struct machine *machine, const char *path, const char *text)
{
    CLEANUP(cleanup_free) char *file = string_printf("sys/%s", path);

    tree_write(machine->root, file, text);
}

// A stick with two partitions, beside another one whose port begins alike.
static int set_up(void **state)
{
    struct machine *machine = memory_new(1, sizeof(*machine));
    struct usage_paths paths;

    machine->root = tree_new();
    machine->sys = string_printf("%s/sys", machine->root);
    machine->dev = string_printf("%s/dev", machine->root);
    machine->mountinfo = string_printf("%s/mountinfo", machine->root);
    machine->swaps = string_printf("%s/swaps", machine->root);
    add_block(machine, DISK, "8:0");
    add_partition(machine, DISK "/sda1", "8:1");
    add_partition(machine, DISK "/sda2", "8:2");
    add_block(machine, OTHER_DISK, "8:16");
    tree_directory(machine->root, "dev");
    tree_write(machine->root, "mountinfo", "");
    paths = (struct usage_paths){machine->sys, machine->dev, machine->mountinfo, machine->swaps};
    machine->usage = usage_new(&paths);
    *state = machine;
    return 0;
}

static int tear_down(void **state)
{
    struct machine *machine = *state;

    usage_free(machine->usage);
    tree_free(machine->root);
    free(machine->sys);
    free(machine->dev);
    free(machine->mountinfo);
    free(machine->swaps);
    free(machine);
    return 0;
}

// Asks afresh for the device at PLACE; REASON NULL: the host does not live on it.
static void expect(const struct machine *machine, const char *place, const char *reason)
{
    CLEANUP(cleanup_free) char *syspath = string_printf("%s/%s", machine->sys, place);
    CLEANUP(cleanup_free) char *use = NULL;

    usage_invalidate(machine->usage);
    use = usage_of(machine->usage, syspath);
    if (reason == NULL)
        assert_null(use);
    else if (use == NULL)
        fail_msg("free, but: %s", reason);
    else
        assert_string_equal(use, reason);
}

// The stick is used for this reason, and the other one is not.
static void expect_used(const struct machine *machine, const char *reason)
{
    expect(machine, STICK, reason);
    expect(machine, OTHER, NULL);
}

static void set_mounts(const struct machine *machine, const char *number, const char *target, const char *source)
{
    CLEANUP(cleanup_free)
    char *text = string_printf("20 1 0:21 / /proc rw - proc proc rw\n21 20 %s / %s rw,relatime shared:1 - ext4 %s rw\n",
                               number, target, source);

    tree_write(machine->root, "mountinfo", text);
}

static void set_swap(const struct machine *machine, const char *path, const char *kind)
{
    CLEANUP(cleanup_free)
    char *text =
        string_printf("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n%s        %s\t1000\t\t0\t\t-2\n", path, kind);

    tree_write(machine->root, "swaps", text);
}

static void test_nothing_is_mounted(void **state)
{
    expect(*state, STICK, NULL);
    expect(*state, "devices/nowhere", NULL);
}

static void test_f35_a_partition_and_a_whole_disk(void **state)
{
    set_mounts(*state, "8:1", "/mnt/data", "/dev/sda1");
    expect_used(*state, "/mnt/data is mounted from sda1");
    set_mounts(*state, "8:0", "/mnt/with\\040blank", "/dev/sda");
    expect_used(*state, "/mnt/with blank is mounted from sda");
    set_mounts(*state, "254:0", "/", "/dev/vda");
    expect(*state, STICK, NULL);
}

// Its directory is not that of its controller, as there may be several.
static void test_f35_an_nvme_disk_behind_its_subsystem(void **state)
{
    const struct machine *machine = *state;
    CLEANUP(cleanup_free)
    char *controller = string_printf("%s/devices/pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0", machine->sys);

    add_block(machine, "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "259:0");
    add_partition(machine, "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p2", "259:2");
    tree_directory(machine->root, "sys/devices/pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0");
    tree_link(machine->root, "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0", controller);
    expect(machine, "devices/pci0000:00/0000:00:1d.0/0000:03:00.0", NULL);
    set_mounts(machine, "259:2", "/", "/dev/nvme0n1p2");
    expect(machine, "devices/pci0000:00/0000:00:1d.0/0000:03:00.0", "/ is mounted from nvme0n1p2");
    expect(machine, "devices/pci0000:00/0000:00:1c.0", NULL);
    expect(machine, "devices/pci0000:00/0000:00:14.0", NULL);
}

static void test_f35_dm_crypt(void **state)
{
    add_block(*state, VIRTUAL "dm-0", "253:0");
    add_slave(*state, "dm-0", "sda2");
    set_mounts(*state, "253:0", "/", "/dev/mapper/root");
    expect_used(*state, "/ is mounted from dm-0");
}

static void test_f35_lvm_on_crypt_on_raid(void **state)
{
    add_block(*state, VIRTUAL "md0", "9:0");
    add_slave(*state, "md0", "sda1");
    add_slave(*state, "md0", "sdz1"); // a member that has vanished
    add_block(*state, VIRTUAL "dm-0", "253:0");
    add_slave(*state, "dm-0", "md0");
    add_block(*state, VIRTUAL "dm-1", "253:1");
    add_slave(*state, "dm-1", "dm-0");
    set_mounts(*state, "253:1", "/home", "/dev/mapper/vg-home");
    expect_used(*state, "/home is mounted from dm-1");
}

static void test_f35_a_partition_of_a_raid(void **state)
{
    add_block(*state, VIRTUAL "md0", "9:0");
    add_slave(*state, "md0", "sda");
    add_partition(*state, VIRTUAL "md0/md0p1", "259:0");
    set_mounts(*state, "259:0", "/srv", "/dev/md0p1");
    expect_used(*state, "/srv is mounted from md0p1");
}

static void test_f35_a_loop_file(void **state)
{
    add_block(*state, VIRTUAL "loop0", "7:0");
    add_attribute(*state, VIRTUAL "loop0/loop/backing_file", "/media/stick/images/root.img\n");
    tree_write(((struct machine *)*state)->root, "mountinfo",
               "21 1 254:0 / / rw - ext4 /dev/vda rw\n"
               "22 21 7:0 / /snap rw - squashfs /dev/loop0 rw\n"
               "23 21 8:1 / /media/stick rw - vfat /dev/sda1 rw\n");
    expect_used(*state, "/snap is mounted from loop0");
    // Its mount has been detached, but a loop on the disk itself is left.
    add_attribute(*state, VIRTUAL "loop0/loop/backing_file", "/dev/sda1\n");
    set_mounts(*state, "7:0", "/snap", "/dev/loop0");
    expect_used(*state, "/snap is mounted from loop0");
    add_attribute(*state, VIRTUAL "loop0/loop/backing_file", "/var/root.img\n");
    expect(*state, STICK, NULL);
}

static void test_f35_swap(void **state)
{
    set_swap(*state, "/dev/sda2", "partition");
    expect_used(*state, "swap is on sda2");
    add_block(*state, VIRTUAL "dm-3", "253:3");
    add_slave(*state, "dm-3", "sda2");
    set_swap(*state, "/dev/dm-3", "partition");
    expect_used(*state, "swap is on dm-3");
    add_attribute(*state, VIRTUAL "dm-3/dm/name", "swap one\n");
    set_swap(*state, "/dev/mapper/swap\\040one", "partition");
    expect_used(*state, "swap is on dm-3");
    tree_write(((struct machine *)*state)->root, "dev/dm-3", "");
    tree_link(((struct machine *)*state)->root, "dev/disk/by-label/swap", "../../dm-3");
    set_swap(*state, "/dev/disk/by-label/swap", "partition");
    expect_used(*state, "swap is on dm-3");
    set_swap(*state, "/dev/vda2", "partition");
    expect(*state, STICK, NULL);
}

static void test_f35_compressed_swap_with_a_backing_disk(void **state)
{
    add_block(*state, VIRTUAL "zram0", "252:0");
    add_attribute(*state, VIRTUAL "zram0/backing_dev", "none\n");
    set_swap(*state, "/dev/zram0", "partition");
    expect(*state, STICK, NULL);
    add_attribute(*state, VIRTUAL "zram0/backing_dev", "/dev/sda1\n");
    expect_used(*state, "swap is on zram0");
}

static void test_f35_a_swap_file(void **state)
{
    set_mounts(*state, "8:1", "/", "/dev/root");
    set_swap(*state, "/var/swap", "file");
    expect_used(*state, "/ is mounted from sda1");
    // Mounted over: the file is still in use, and so is what is below.
    tree_write(((struct machine *)*state)->root, "mountinfo",
               "20 1 254:0 / / rw - ext4 /dev/vda rw\n"
               "21 20 0:40 / /var rw - bcachefs /dev/vdb:/dev/sda1 rw\n");
    expect_used(*state, "/var is mounted from sda1");
}

static void test_f35_btrfs_of_several_devices(void **state)
{
    struct machine *machine = *state;

    set_mounts(machine, "0:33", "/data", "/dev/vda1");
    expect(machine, STICK, NULL);
    tree_link(machine->root, "sys/fs/btrfs/5f3e/devices/vda1", "wherever");
    tree_link(machine->root, "sys/fs/btrfs/5f3e/devices/sda1", "wherever");
    tree_directory(machine->root, "sys/fs/btrfs/features");
    expect_used(machine, "a btrfs is mounted with a part on sda1");
    tree_remove(machine->root, "sys/fs/btrfs/5f3e");
    set_mounts(machine, "0:33", "/data", "/dev/sda1");
    expect_used(machine, "/data is mounted from sda1");
}

static void test_f35_bcache(void **state)
{
    add_block(*state, VIRTUAL "bcache0", "251:0");
    add_slave(*state, "bcache0", "sda");
    set_mounts(*state, "251:0", "/cached", "/dev/bcache0");
    expect_used(*state, "/cached is mounted from bcache0");
}

static void test_circles_end(void **state)
{
    add_block(*state, VIRTUAL "loop0", "7:0");
    add_attribute(*state, VIRTUAL "loop0/loop/backing_file", "/dev/loop0\n");
    for (int i = 0; i < 60; i++) {
        CLEANUP(cleanup_free) char *name = string_printf("dm-%d", i);
        CLEANUP(cleanup_free) char *next = string_printf("dm-%d", (i + 1) % 60);
        CLEANUP(cleanup_free) char *path = string_printf(VIRTUAL "%s", name);
        CLEANUP(cleanup_free) char *number = string_printf("253:%d", i);
        add_block(*state, path, number);
        add_slave(*state, name, next);
    }
    set_mounts(*state, "253:0", "/", "/dev/dm-0");
    expect(*state, STICK, NULL);
    set_mounts(*state, "7:0", "/", "/dev/loop0");
    expect(*state, STICK, NULL);
}

static void test_virtual_functions(void **state)
{
    struct machine *machine = *state;

    tree_directory(machine->root, "sys/" STICK "/virtfn0");
    expect_used(machine, "1 virtual function of it is in use (sriov_numvfs)");
    tree_directory(machine->root, "sys/" STICK "/virtfn1");
    expect_used(machine, "2 virtual functions of it are in use (sriov_numvfs)");
}

static void test_names_are_made_safe(void **state)
{
    set_mounts(*state, "8:1", "/media/\\033[31mred", "/dev/sda1");
    expect_used(*state, "/media/\\x1b[31mred is mounted from sda1");
}

static void test_what_cannot_be_told_is_taken_as_used(void **state)
{
    struct machine *machine = *state;

    tree_remove(machine->root, "mountinfo");
    expect(machine, STICK, "it has a disk, and what is mounted cannot be told: No such file or directory");
    expect(machine, "devices/pci0000:00/0000:00:14.0/usb1/1-3", NULL);
}

// With room for so many descriptors more, the use is found, or it is said that this is not known.
static void expect_used_or_unknown(const struct machine *machine, int free, const char *reason)
{
    CLEANUP(cleanup_free) char *stick = string_printf("%s/" STICK, machine->sys);
    CLEANUP(cleanup_free) char *other = string_printf("%s/" OTHER, machine->sys);
    CLEANUP(cleanup_free) char *use = NULL;
    CLEANUP(cleanup_free) char *other_use = NULL;
    CLEANUP(cleanup_free) char *later = NULL;

    usage_invalidate(machine->usage);
    tree_limit_descriptors(free);
    use = usage_of(machine->usage, stick);
    other_use = usage_of(machine->usage, other);
    tree_limit_descriptors(-1);
    assert_non_null(use);
    if (!string_equal(use, reason)) {
        assert_non_null(strstr(use, "cannot be told: Too many open files"));
        assert_int_equal(usage_error(machine->usage), -EMFILE);
        assert_non_null(other_use);
    }
    later = usage_of(machine->usage, stick);
    assert_non_null(later);
    assert_string_equal(later, reason);
    assert_int_equal(usage_error(machine->usage), 0);
    assert_null(usage_of(machine->usage, other));
}

static void test_f35_want_of_descriptors_is_no_news_of_what_is_mounted(void **state)
{
    struct machine *machine = *state;

    test_f35_lvm_on_crypt_on_raid(state);
    for (int free = 0; free < 8; free++)
        expect_used_or_unknown(machine, free, "/home is mounted from dm-1");
    test_f35_a_loop_file(state);
    add_attribute(machine, VIRTUAL "loop0/loop/backing_file", "/dev/sda1\n");
    for (int free = 0; free < 8; free++)
        expect_used_or_unknown(machine, free, "/snap is mounted from loop0");
    tree_write(machine->root, "mountinfo", "");
    tree_directory(machine->root, "sys/fs/btrfs/1234/devices/sda2");
    for (int free = 0; free < 8; free++)
        expect_used_or_unknown(machine, free, "a btrfs is mounted with a part on sda2");
}

static void test_links_that_lead_elsewhere_are_not_followed(void **state)
{
    struct machine *machine = *state;

    tree_link(machine->root, "sys/class/block/sdx", "../../../etc");
    tree_link(machine->root, "sys/class/block/sdy", "../../devices/../../etc");
    set_swap(machine, "/dev/sdx", "partition");
    expect(machine, STICK, NULL);
    set_swap(machine, "/dev/sdy", "partition");
    expect(machine, STICK, NULL);
    tree_write(machine->root, "mountinfo", "21 1 8:1 garbage\n\n\\777 x\n");
    tree_write(machine->root, "swaps", "/dev/\\0\n/dev/sda1\n\\\n");
    expect(machine, OTHER, NULL);
}

static void expect_claim(const struct machine *machine, const char *reason)
{
    CLEANUP(cleanup_free) char *stick = string_printf("%s/" STICK, machine->sys);
    CLEANUP(cleanup_free) char *other = string_printf("%s/" OTHER, machine->sys);
    CLEANUP(cleanup_free) char *claim = claim_of(machine->sys, machine->dev, stick);
    CLEANUP(cleanup_free) char *other_claim = claim_of(machine->sys, machine->dev, other);

    assert_null(other_claim);
    if (reason == NULL)
        assert_null(claim);
    else
        assert_string_equal(claim, reason);
}

// Some block device of this machine that is in use; NULL if there is none to be seen.
static char *busy_node(void)
{
    char *found = NULL;
    glob_t nodes;

    if (glob("/dev/[svdn][dvm]*", 0, NULL, &nodes) != 0)
        return NULL;
    for (size_t i = 0; i < nodes.gl_pathc && found == NULL; i++) {
        int fd = open(nodes.gl_pathv[i], O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0)
            close(fd);
        else if (errno == EBUSY)
            found = string_copy(nodes.gl_pathv[i]);
    }
    globfree(&nodes);
    return found;
}

static void test_f35_nothing_claims_what_can_be_opened(void **state)
{
    struct machine *machine = *state;

    expect_claim(machine, NULL); // no nodes at all
    tree_write(machine->root, "dev/sda1", "");
    tree_write(machine->root, "dev/sda2", "");
    expect_claim(machine, NULL);
    tree_link(machine->root, "sys/" DISK "/sda1/holders/sda1", "a circle");
    expect_claim(machine, NULL);
}

static void test_f35_what_the_kernel_has_claimed(void **state)
{
    struct machine *machine = *state;
    CLEANUP(cleanup_free) char *busy = busy_node();

    if (busy == NULL) {
        print_message("test_f35_what_the_kernel_has_claimed: skip: no disk of this machine says that it is in use\n");
        skip();
    }
    tree_link(machine->root, "dev/sda1", busy);
    expect_claim(machine, "sda1 is in use by the host, though not by a mount seen here");
    // A volume on it that is not in use is no claim, and one that is, is.
    add_block(machine, VIRTUAL "dm-0", "253:0");
    tree_link(machine->root, "sys/" DISK "/sda1/holders/dm-0", "wherever");
    expect_claim(machine, NULL);
    tree_link(machine->root, "dev/dm-0", busy);
    expect_claim(machine, "dm-0 is in use by the host, though not by a mount seen here");
}

// Without room for a descriptor beyond FREE more, it is not known that nobody has it.
static void expect_unknown(const struct machine *machine, int free, const char *reason)
{
    CLEANUP(cleanup_free) char *stick = string_printf("%s/" STICK, machine->sys);
    CLEANUP(cleanup_free) char *claim = NULL;

    tree_limit_descriptors(free);
    claim = claim_of(machine->sys, machine->dev, stick);
    tree_limit_descriptors(-1);
    assert_non_null(claim);
    assert_string_equal(claim, reason);
}

static void test_f35_what_cannot_be_looked_at_may_be_in_use(void **state)
{
    struct machine *machine = *state;

    tree_write(machine->root, "dev/sda1", "");
    tree_write(machine->root, "dev/sda2", "");
    expect_unknown(machine, 0, "whether it is in use by the host cannot be told: Too many open files");
    expect_unknown(machine, 1, "whether its disk is in use by the host cannot be told: Too many open files");
    expect_claim(machine, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_is_mounted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_a_partition_and_a_whole_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_an_nvme_disk_behind_its_subsystem, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_dm_crypt, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_lvm_on_crypt_on_raid, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_a_partition_of_a_raid, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_a_loop_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_swap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_compressed_swap_with_a_backing_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_a_swap_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_btrfs_of_several_devices, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_bcache, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_nothing_claims_what_can_be_opened, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_what_the_kernel_has_claimed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_what_cannot_be_looked_at_may_be_in_use, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_circles_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_virtual_functions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names_are_made_safe, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_told_is_taken_as_used, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_f35_want_of_descriptors_is_no_news_of_what_is_mounted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_links_that_lead_elsewhere_are_not_followed, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("usage", tests, NULL, NULL);
}
