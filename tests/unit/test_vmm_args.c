// Arguments for the start of a VM, as golden lists.
#include <stdlib.h>
#include <string.h>

#include "core/policy.h"
#include "core/vmm_args.h"
#include "unit.h"
#include "util/text.h"

#define DEVICES_MAX 8

// What the arguments are made of: a configuration with a VM of each type, and devices with their verdicts.
struct world {
    struct config *config;
    struct vmm_args_request request;
    struct device *devices[DEVICES_MAX];
    struct verdict verdicts[DEVICES_MAX];
    struct vmm_args_device items[DEVICES_MAX];
};

// In SECTIONS ' stands for ".
static void world_start(struct world *world, const char *sections)
{
    *world = (struct world){0};
    CLEANUP(cleanup_free)
    char *text = string_printf("{%s,'vms':[{'name':'vm1','type':'qemu','socket':'/s'},"
                               "{'name':'crosvm','type':'crosvm','socket':'/t'},"
                               "{'name':'cloud','type':'cloud-hypervisor'},"
                               "{'name':'vm2','type':'qemu','socket':'/u'}]}",
                               sections);
    for (char *quote = strchr(text, '\''); quote; quote = strchr(quote, '\''))
        *quote = '"';
    struct config_report report;
    world->config = config_parse("f", text, strlen(text), &report);
    if (!world->config)
        fail_msg("%s", report.errors.lines[0]);
    config_report_clear(&report);
    world->request = (struct vmm_args_request){.config = world->config, .devices = world->items};
}

static struct device *add_device(struct world *world, struct device *device)
{
    size_t number = world->request.device_count++;
    device->instance = 0xa0 + number;
    policy_decide(world->config, device, &world->verdicts[number]);
    world->devices[number] = device;
    world->items[number] = (struct vmm_args_device){.device = device, .verdict = &world->verdicts[number]};
    return device;
}

// Its vendor is NVIDIA, so that autoOvmf counts where the class is that of display controllers.
static void add_function(struct world *world, const char *address, unsigned class)
{
    struct device *device = device_new(DEVICE_PCI);
    device->key = string_printf("pci:%s", address);
    device->vendor_id = 0x10de;
    device->class = (uint8_t)(class);
    add_device(world, device);
}

static void add_input(struct world *world, const char *node, const char *name)
{
    struct device *device = device_new(DEVICE_INPUT);
    device->node = string_copy(node);
    device->product_reported = string_copy(name);
    add_device(world, device);
}

static void world_clear(struct world *world)
{
    for (size_t i = 0; i < world->request.device_count; i++) {
        device_release(world->devices[i]);
        verdict_clear(&world->verdicts[i]);
    }
    config_free(world->config);
}

static char *joined(const struct vmm_args *args)
{
    struct text text = {0};
    text_add(&text, "");
    for (size_t i = 0; i < args->count; i++) {
        bool ends = i + 1 == args->count || *args->arguments[i + 1] == '-';
        text_printf(&text, "%s%s", args->arguments[i], ends ? "\n" : " ");
    }
    return text_take(&text);
}

// The arguments of VM, an option and its value on each line.
static void expect(struct world *world, const char *vm, const char *expected)
{
    CLEANUP(vmm_args_clear) struct vmm_args args;
    world->request.vm = vm;
    CLEANUP(cleanup_free) char *error = vmm_args_make(&world->request, &args);
    assert_null(error);
    CLEANUP(cleanup_free) char *got = joined(&args);
    assert_string_equal(got, expected);
}

static const char all_types[] = "'pciPassthrough':[{'targetVm':'vm1','allow':[{'deviceClass':2}]},"
                                "{'targetVm':'crosvm','allow':[{'deviceClass':4}]},"
                                "{'targetVm':'cloud','allow':[{'deviceClass':3}]}],"
                                "'evdevPassthrough':[{'targetVm':'vm1','allow':[{'name':'A'}]},"
                                "{'targetVm':'crosvm','allow':[{'name':'B'}]},"
                                "{'targetVm':'cloud','allow':[{'name':'C'}]}],"
                                "'acpiPassthrough':[{'targetVm':'vm1','allow':[{'acpiTable':'/t/a,b'}]},"
                                "{'targetVm':'crosvm','allow':[{'acpiTable':'/t/c'}]},"
                                "{'targetVm':'cloud','allow':[{'acpiTable':'/t/d'}]}]";

static void test_each_type_of_vm(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    world_start(&world, all_types);
    add_input(&world, "/dev/input/event1", "A");
    add_input(&world, "/dev/input/event2", "B");
    add_input(&world, "/dev/input/event3", "C");
    add_function(&world, "0000:01:00.0", 2);
    add_function(&world, "0000:02:00.0", 4);
    add_function(&world, "0000:03:00.0", 3);
    expect(&world, "vm1",
           "-device vfio-pci,host=0000:01:00.0,multifunction=on,id=vhotplug-pci-0-0-a3-0\n"
           "-acpitable file=/t/a,,b\n"
           "-device virtio-input-host-pci,evdev=/dev/input/event1,id=vhotplug-input-0-0-a0-0\n");
    expect(&world, "crosvm",
           "--vfio-isolate-hotplug\n"
           "--vfio /sys/bus/pci/devices/0000:02:00.0,iommu=viommu,removable=true\n"
           "--acpi-table /t/c\n"
           "--input evdev[path=/dev/input/event2]\n");
    expect(&world, "cloud", "--device path=/sys/bus/pci/devices/0000:03:00.0\n");
    expect(&world, "vm2", "");
}

static void test_f34_order_of_the_rules_then_of_addresses(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    world_start(&world, "'pciPassthrough':[{'targetVm':'vm1','allow':[{'address':'09:00.0'},{'deviceClass':2}]},"
                        "{'targetVm':'vm1','allow':[{'deviceClass':4}]}],'evdevPassthrough':[{'targetVm':'vm1',"
                        "'allow':[{'name':'.'}]}]");
    add_function(&world, "0000:00:01.0", 4);
    add_function(&world, "10000:01:00.0", 2);
    add_function(&world, "0000:0a:00.0", 2);
    add_function(&world, "0000:02:00.0", 2);
    add_function(&world, "0000:09:00.0", 2);
    add_input(&world, "/dev/input/event10", "x");
    add_input(&world, "/dev/input/event9", "x");
    expect(&world, "vm1",
           "-device vfio-pci,host=0000:09:00.0,multifunction=on,id=vhotplug-pci-0-0-a4-0\n"
           "-device vfio-pci,host=0000:02:00.0,multifunction=on,id=vhotplug-pci-0-0-a3-1\n"
           "-device vfio-pci,host=0000:0a:00.0,multifunction=on,id=vhotplug-pci-0-0-a2-2\n"
           "-device vfio-pci,host=10000:01:00.0,multifunction=on,id=vhotplug-pci-0-0-a1-3\n"
           "-device vfio-pci,host=0000:00:01.0,multifunction=on,id=vhotplug-pci-0-0-a0-4\n"
           "-device virtio-input-host-pci,evdev=/dev/input/event9,id=vhotplug-input-0-0-a6-0\n"
           "-device virtio-input-host-pci,evdev=/dev/input/event10,id=vhotplug-input-0-0-a5-1\n");
}

// The functions that a rule adds come with the one that it names.
static void test_f34_added_functions_are_in_the_order_of_their_rule(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    world_start(&world, "'pciPassthrough':[{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceClass':2}]},"
                        "{'targetVm':'vm1','allow':[{'deviceClass':3}]}]");
    add_function(&world, "0000:01:00.0", 3);
    struct device *device = device_new(DEVICE_PCI), *peer = device_new(DEVICE_PCI);
    peer->class = 2;
    device->key = string_copy("pci:0000:05:00.1");
    device->class = 4;
    device->peers = memory_new(1, sizeof(struct device *));
    device->peers[device->peer_count++] = peer;
    add_device(&world, device);
    expect(&world, "vm1",
           "-device vfio-pci,host=0000:05:00.1,multifunction=on,id=vhotplug-pci-0-0-a1-0\n"
           "-device vfio-pci,host=0000:01:00.0,multifunction=on,id=vhotplug-pci-0-0-a0-1\n");
}

static void test_ports(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    world_start(&world, "'pciPassthrough':[{'targetVm':'vm1','allow':[{'deviceClass':2}]},"
                        "{'targetVm':'vm1','qemuUseRootBus':true,'crosvmUseRootBus':true,'allow':[{'deviceClass':3}]},"
                        "{'targetVm':'vm1','allow':[{'deviceClass':4}]}],"
                        "'evdevPassthrough':[{'targetVm':'vm1','pcieBusPrefix':'ep','allow':[{'name':'A'}]},"
                        "{'targetVm':'vm1','allow':[{'name':'B'}]},"
                        "{'targetVm':'vm1','pcieBusPrefix':'ep','allow':[{'name':'C'}]},"
                        "{'targetVm':'vm1','pcieBusPrefix':'fp','allow':[{'name':'D'}]}]");
    add_function(&world, "0000:01:00.0", 2);
    add_function(&world, "0000:02:00.0", 3);
    add_function(&world, "0000:03:00.0", 4);
    add_input(&world, "/dev/input/event1", "A");
    add_input(&world, "/dev/input/event2", "B");
    add_input(&world, "/dev/input/event3", "C");
    add_input(&world, "/dev/input/event4", "D");
    world.request.bus_prefix = "rp";
    world.request.first = 3;
    expect(&world, "vm1",
           "-device vfio-pci,host=0000:01:00.0,multifunction=on,id=vhotplug-pci-0-0-a0-3,bus=rp3\n"
           "-device vfio-pci,host=0000:02:00.0,multifunction=on,id=vhotplug-pci-0-0-a1-4\n"
           "-device vfio-pci,host=0000:03:00.0,multifunction=on,id=vhotplug-pci-0-0-a2-5,bus=rp5\n"
           "-device virtio-input-host-pci,evdev=/dev/input/event1,id=vhotplug-input-0-0-a3-3,bus=ep1\n"
           "-device virtio-input-host-pci,evdev=/dev/input/event2,id=vhotplug-input-0-0-a4-4\n"
           "-device virtio-input-host-pci,evdev=/dev/input/event3,id=vhotplug-input-0-0-a5-5,bus=ep2\n"
           "-device virtio-input-host-pci,evdev=/dev/input/event4,id=vhotplug-input-0-0-a6-6,bus=fp1\n");
}

// A client names the ports: it adds no properties by that.
static void test_f46_hostile_port_names(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    world_start(&world, "'pciPassthrough':[{'targetVm':'vm1','allow':[{'deviceClass':2}]}]");
    add_function(&world, "0000:01:00.0", 2);
    world.request.bus_prefix = "x,romfile=/etc/shadow,";
    expect(&world, "vm1",
           "-device vfio-pci,host=0000:01:00.0,multifunction=on,id=vhotplug-pci-0-0-a0-0,"
           "bus=x,,romfile=/etc/shadow,,0\n");
}

static const char firmware[] = "'pciPassthrough':[{'targetVm':'vm1','autoOvmf':true,'allow':[{'deviceClass':3}]},"
                               "{'targetVm':'vm2','allow':[{'deviceClass':3}]},"
                               "{'targetVm':'vm1','autoOvmf':true,'allow':[{'deviceClass':4}]},"
                               "{'targetVm':'crosvm','autoOvmf':true,'allow':[{'vendorId':'10de'}]}]";

static void test_firmware(void **state)
{
    (void)state;
    static const char general[] = ",'general':{'ovmfCode':'/o/CODE,1.fd','ovmfVars':'/o/VARS.fd'}";
    CLEANUP(cleanup_free) char *sections = string_printf("%s%s", firmware, general);
    CLEANUP(world_clear) struct world world, sound, intel, other;
    world_start(&world, sections);
    add_function(&world, "0000:01:00.1", 4);
    add_function(&world, "0000:01:00.0", 3);
    expect(&world, "vm1",
           "-drive if=pflash,format=raw,unit=0,readonly=on,file=/o/CODE,,1.fd\n"
           "-drive if=pflash,format=raw,unit=1,readonly=on,file=/o/VARS.fd\n"
           "-device vfio-pci,host=0000:01:00.0,multifunction=on,id=vhotplug-pci-0-0-a1-0\n"
           "-device vfio-pci,host=0000:01:00.1,multifunction=on,id=vhotplug-pci-0-0-a0-1\n");
    world_start(&sound, sections); // the controller's sound function needs none
    add_function(&sound, "0000:01:00.1", 4);
    expect(&sound, "vm1", "-device vfio-pci,host=0000:01:00.1,multifunction=on,id=vhotplug-pci-0-0-a0-0\n");
    world_start(&intel, sections); // nor does another vendor's
    add_function(&intel, "0000:00:02.0", 3);
    intel.devices[0]->vendor_id = 0x8086;
    expect(&intel, "vm1", "-device vfio-pci,host=0000:00:02.0,multifunction=on,id=vhotplug-pci-0-0-a0-0\n");
    world_start(&other, firmware); // it is QEMU's; a crosvm needs no names of files
    add_function(&other, "0000:01:00.0", 5);
    other.devices[0]->class = 3;
    expect(&other, "crosvm",
           "--vfio-isolate-hotplug\n--vfio /sys/bus/pci/devices/0000:01:00.0,iommu=viommu,removable=true\n");
}

static void test_firmware_is_missing(void **state)
{
    (void)state;
    static const char *const general[] = {"", ",'general':{'ovmfVars':'/o/VARS.fd'}",
                                          ",'general':{'ovmfCode':'/o/CODE.fd'}"};
    for (size_t i = 0; i < 3; i++) {
        CLEANUP(cleanup_free) char *sections = string_printf("%s%s", firmware, general[i]);
        CLEANUP(cleanup_free)
        char *expected = string_printf("pciPassthrough[0].autoOvmf gives 0000:01:00.0 firmware, and general.%s is "
                                       "missing",
                                       i == 2 ? "ovmfVars" : "ovmfCode");
        CLEANUP(world_clear) struct world world;
        CLEANUP(vmm_args_clear) struct vmm_args args;
        world_start(&world, sections);
        add_function(&world, "0000:01:00.0", 3);
        world.request.vm = "vm1";
        CLEANUP(cleanup_free) char *error = vmm_args_make(&world.request, &args);
        assert_string_equal(error, expected);
        assert_int_equal(args.count, 0);
    }
}

static void test_unknown_vm(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    CLEANUP(vmm_args_clear) struct vmm_args args;
    world_start(&world, all_types);
    world.request.vm = "vm\n3";
    CLEANUP(cleanup_free) char *error = vmm_args_make(&world.request, &args);
    assert_string_equal(error, "VM vm\\x0a3 is not found in the config file");
}

// What a person took out stays out, in a VM that starts too.
static void test_f32_what_a_person_detached_is_left_out(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    world_start(&world, all_types);
    add_function(&world, "0000:01:00.0", 2);
    add_input(&world, "/dev/input/event1", "A");
    world.items[0].detached = world.items[1].detached = true;
    expect(&world, "vm1", "-acpitable file=/t/a,,b\n");
}

static void test_what_is_not_for_the_vm(void **state)
{
    (void)state;
    static const char one[] = "-device vfio-pci,host=0000:05:00.0,multifunction=on,id=vhotplug-pci-0-0-a3-0\n";
    CLEANUP(world_clear) struct world world;
    world_start(&world, "'usbPassthrough':[{'targetVm':'vm1','allow':[{'bus':1}]}],"
                        "'pciPassthrough':[{'targetVm':'vm1','allow':[{'deviceClass':2}],'deny':[{'address':'3:0.0'}]},"
                        "{'allowedVms':['vm2','vm1'],'allow':[{'deviceClass':3}]}]");
    struct device *usb = device_new(DEVICE_USB);
    usb->bus = 1;
    usb->node = string_copy("/dev/bus/usb/001/004");
    add_device(&world, usb);
    add_function(&world, "0000:03:00.0", 2); // denied
    add_function(&world, "0000:04:00.0", 9); // no rule
    add_function(&world, "0000:05:00.0", 3);
    world.items[3].selecting = true; // a person is to choose
    expect(&world, "vm1", "");
    expect(&world, "vm2", "");
    world.items[3].vm = "vm1";
    expect(&world, "vm1", one);
    expect(&world, "vm2", "");
}

static void test_of_several_vms_the_one_chosen_last_or_the_first(void **state)
{
    (void)state;
    static const char one[] = "-device vfio-pci,host=0000:05:00.0,multifunction=on,id=vhotplug-pci-0-0-a0-0\n";
    CLEANUP(world_clear) struct world world;
    world_start(&world, "'pciPassthrough':[{'allowedVms':['vm2','vm1'],'allow':[{'deviceClass':3}]}]");
    add_function(&world, "0000:05:00.0", 3);
    static const char *const chosen[] = {NULL, "vm1", "crosvm"}; // the last may not have it any more
    for (size_t i = 0; i < 3; i++) {
        world.items[0].chosen = chosen[i];
        expect(&world, "vm1", i == 1 ? one : "");
        expect(&world, "vm2", i == 1 ? "" : one);
    }
}

static void test_f34_what_is_taken_is_left_out(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    CLEANUP(vmm_args_clear) struct vmm_args args;
    world_start(&world, all_types);
    add_function(&world, "0000:01:00.0", 2);
    add_function(&world, "0000:02:00.0", 2);
    add_function(&world, "0000:03:00.0", 4);
    add_input(&world, "/dev/input/event1", "A");
    for (size_t i = 1; i < 4; i++)
        world.items[i].taken = "vm2 has it";
    expect(&world, "vm1",
           "-device vfio-pci,host=0000:01:00.0,multifunction=on,id=vhotplug-pci-0-0-a0-0\n-acpitable file=/t/a,,b\n");
    CLEANUP(cleanup_free) char *error = vmm_args_make(&world.request, &args);
    assert_null(error);
    assert_int_equal(args.function_count, 1);
    assert_int_equal(args.left_out_count, 2); // what is for others is nothing to speak of
    assert_ptr_equal(args.left_out[0], &world.items[1]);
    assert_ptr_equal(args.left_out[1], &world.items[3]);
}

static void test_crosvm_and_functions_that_may_come_later(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world, plain;
    world_start(&world,
                "'pciPassthrough':[{'targetVm':'crosvm','crosvmUseRootBus':true,'allow':[{'deviceClass':3}]},"
                "{'targetVm':'crosvm','allow':[{'deviceClass':4}]},{'targetVm':'cloud','allow':[{'deviceClass':5}]}]");
    expect(&world, "crosvm", "--vfio-isolate-hotplug\n"); // a rule names it
    expect(&world, "cloud", "");
    add_function(&world, "0000:02:00.0", 3);
    add_function(&world, "0000:03:00.0", 4);
    expect(&world, "crosvm",
           "--vfio-isolate-hotplug\n"
           "--vfio /sys/bus/pci/devices/0000:02:00.0,iommu=viommu\n"
           "--vfio /sys/bus/pci/devices/0000:03:00.0,iommu=viommu,removable=true\n");
    world_start(&plain, "'pciPassthrough':[{'targetVm':'vm1','allow':[{'deviceClass':3}]},"
                        "{'targetVm':'crosvm','disable':true,'allow':[{'deviceClass':4}]}]");
    expect(&plain, "crosvm", "");
}

static void test_functions_to_make_ready(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    CLEANUP(vmm_args_clear) struct vmm_args args;
    world_start(&world, all_types);
    add_function(&world, "0000:01:00.0", 4);
    add_function(&world, "0000:09:00.0", 2);
    add_function(&world, "0000:02:00.0", 2);
    world.request.vm = "vm1";
    CLEANUP(cleanup_free) char *error = vmm_args_make(&world.request, &args);
    assert_null(error);
    assert_int_equal(args.function_count, 2);
    assert_ptr_equal(args.functions[0], world.devices[2]);
    assert_ptr_equal(args.functions[1], world.devices[1]);
}

static const char tables[] = "'acpiPassthrough':[{'targetVm':'vm1','allow':[{'acpiTable':'/t/a'},"
                             "{'acpiTable':'/t/no'},{'acpiTable':'/t/off','disable':true},"
                             "{'acpiTable':'/t/b','setUser':'microvm','setGroup':'kvm'}],"
                             "'deny':[{'acpiTable':'/t/no'}]},"
                             "{'targetVm':'vm1','disable':true,'allow':[{'acpiTable':'/t/c'}]},"
                             "{'allowedVms':['vm2','vm1'],'allow':[{'acpiTable':'/t/d'}]}],"
                             "'evdevPassthrough':[{'targetVm':'vm1','allow':[{'name':'A'}]}]";

static void test_tables(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    CLEANUP(vmm_args_clear) struct vmm_args args;
    world_start(&world, tables);
    expect(&world, "vm1", "-acpitable file=/t/a\n-acpitable file=/t/b\n-acpitable file=/t/d\n");
    expect(&world, "vm2", "-acpitable file=/t/d\n");
    world.request.vm = "vm1";
    CLEANUP(cleanup_free) char *error = vmm_args_make(&world.request, &args);
    assert_null(error);
    assert_int_equal(args.table_count, 3);
    assert_string_equal(args.tables[1].path, "/t/b");
    assert_string_equal(args.tables[1].user, "microvm");
    assert_string_equal(args.tables[1].group, "kvm");
    assert_null(args.tables[0].user);
    assert_null(args.tables[0].group);
}

static void test_tables_that_could_not_be_made_ready(void **state)
{
    (void)state;
    CLEANUP(world_clear) struct world world;
    CLEANUP(vmm_args_clear) struct vmm_args args;
    world_start(&world, tables);
    add_input(&world, "/dev/input/event1", "A");
    world.request.vm = "vm1";
    CLEANUP(cleanup_free) char *error = vmm_args_make(&world.request, &args);
    assert_null(error);
    vmm_args_drop_table(&args, 0);
    assert_int_equal(args.table_count, 2);
    assert_string_equal(args.tables[0].path, "/t/b");
    vmm_args_drop_table(&args, 1);
    assert_int_equal(args.table_count, 1);
    CLEANUP(cleanup_free) char *got = joined(&args);
    assert_string_equal(got, "-acpitable file=/t/b\n"
                             "-device virtio-input-host-pci,evdev=/dev/input/event1,id=vhotplug-input-0-0-a0-0\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_type_of_vm),
        cmocka_unit_test(test_f34_order_of_the_rules_then_of_addresses),
        cmocka_unit_test(test_f34_added_functions_are_in_the_order_of_their_rule),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_f46_hostile_port_names),
        cmocka_unit_test(test_firmware),
        cmocka_unit_test(test_firmware_is_missing),
        cmocka_unit_test(test_unknown_vm),
        cmocka_unit_test(test_f32_what_a_person_detached_is_left_out),
        cmocka_unit_test(test_what_is_not_for_the_vm),
        cmocka_unit_test(test_of_several_vms_the_one_chosen_last_or_the_first),
        cmocka_unit_test(test_f34_what_is_taken_is_left_out),
        cmocka_unit_test(test_crosvm_and_functions_that_may_come_later),
        cmocka_unit_test(test_functions_to_make_ready),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_tables_that_could_not_be_made_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
