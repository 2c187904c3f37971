// Policy: which group takes a device, and what is never passed.
#include <stdlib.h>
#include <string.h>

#include "core/policy.h"
#include "core/rule.h"
#include "unit.h"
#include "util/text.h"

static const char vms[] = "'vms':[{'name':'a','type':'qemu','socket':'/s'},{'name':'b','type':'qemu','socket':'/t'}]";

// The configuration with these sections and two VMs; in SECTIONS ' stands for ".
static struct config *config_of(const char *sections)
{
    CLEANUP(cleanup_free) char *text = string_printf("{%s,%s}", sections, vms);
    for (char *quote = strchr(text, '\''); quote; quote = strchr(quote, '\''))
        *quote = '"';
    struct config_report report;
    struct config *config = config_parse("f", text, strlen(text), &report);
    if (!config)
        fail_msg("%s", report.errors.lines[0]);
    config_report_clear(&report);
    return config;
}

// Decides and checks kind, reason and the (first) VM of the group, NULL for no group.
static void expect(const struct config *config, const struct device *device, enum verdict_kind kind, const char *vm,
                   const char *reason)
{
    struct verdict verdict;
    policy_decide(config, device, &verdict);
    assert_string_equal(verdict.reason, reason);
    assert_int_equal(verdict.kind, kind);
    assert_true(string_equal(verdict.group ? verdict.group->vms[0] : NULL, vm));
    verdict_clear(&verdict);
    assert_null(verdict.reason);
}

static struct device *stick(const char *port_path, unsigned bus, unsigned address)
{
    struct device *device = device_new(DEVICE_USB);
    device->vendor_id = 0x0951;
    device->product_id = 0x1666;
    device->bus = bus;
    device->address = address;
    device->port_path = string_copy(port_path);
    device->interfaces = memory_new(1, sizeof(*device->interfaces));
    device->interfaces[0] = (struct usb_interface){8, 6, 80};
    device->interface_count = 1;
    return device;
}

static struct device *input_device(const char *property)
{
    struct device *device = device_new(DEVICE_INPUT);
    device->product_reported = string_copy("Thing");
    device->properties = memory_new(2, sizeof(*device->properties));
    device->properties[0] = string_copy("ID_INPUT=1");
    device->properties[1] = string_copy(property);
    device->property_count = 2;
    return device;
}

static void test_first_group_that_allows(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config = config_of("'usbPassthrough':[{'targetVm':'b','allow':[{'bus':9}]},"
                                      "{'targetVm':'a','allow':[{'bus':8},{'interfaceClass':8},{'bus':1}]},"
                                      "{'targetVm':'b','allow':[{'bus':1}]}]");
    (void)state;
    expect(config, device, VERDICT_ALLOWED, "a", "allowed by usbPassthrough[1].allow[1]");
}

static void test_no_rule(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'b','allow':[{'bus':9}],'deny':[{'bus':1}]},{'targetVm':'a'}]");
    CLEANUP(cleanup_config) struct config *empty = config_of("'usbPassthrough':[]");
    (void)state;
    expect(config, device, VERDICT_NO_RULE, NULL, "no rule allows it");
    expect(empty, device, VERDICT_NO_RULE, NULL, "no rule allows it");
}

static void test_denied_goes_on_to_the_next_group(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'b','allow':[{'bus':1}],'deny':[{'bus':7},{'vendorId':'0951'}]},"
                  "{'targetVm':'a','allow':[{'bus':1}],'deny':[{'bus':2}]}]");
    (void)state;
    expect(config, device, VERDICT_ALLOWED, "a", "allowed by usbPassthrough[1].allow[0]");
}

static void test_denied_everywhere_names_the_first_denial(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'b','allow':[{'bus':1}],'deny':[{'bus':7},{'vendorId':'0951'}]},"
                  "{'targetVm':'a','allow':[{'bus':1}],'deny':[{'bus':1}]}]");
    (void)state;
    expect(config, device, VERDICT_DENIED, "b", "denied by usbPassthrough[0].deny[1]");
    device->host_use = string_copy("/ is mounted from it"); // it stays on the host either way
    expect(config, device, VERDICT_DENIED, "b", "denied by usbPassthrough[0].deny[1]");
}

static void test_disabled_groups_and_rules(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config = config_of("'usbPassthrough':[{'targetVm':'b','disable':true,'allow':[{'bus':1}]},"
                                      "{'targetVm':'b','allow':[{'bus':1,'enable':false}]},"
                                      "{'targetVm':'b','enable':false,'allow':[{'bus':1}]},"
                                      "{'targetVm':'a','allow':[{'bus':1}],'deny':[{'bus':1,'disable':true}]}]");
    (void)state;
    expect(config, device, VERDICT_ALLOWED, "a", "allowed by usbPassthrough[3].allow[0]");
}

static void test_allowed_vms(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config = config_of("'usbPassthrough':[{'allowedVms':['gone','b','a'],'allow':[{'bus':1}]}]");
    struct verdict verdict;
    (void)state;
    policy_decide(config, device, &verdict);
    assert_int_equal(verdict.kind, VERDICT_ALLOWED);
    assert_true(verdict.group->chooses);
    assert_int_equal(verdict.group->vm_count, 2);
    assert_string_equal(verdict.group->vms[1], "a");
    verdict_clear(&verdict);
}

static void test_hubs_are_never_passed(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'a','allow':[{'productName':'.*'},{'deviceClass':9}]}]");
    (void)state;
    device->class = 9;
    expect(config, device, VERDICT_HUB, NULL, "hubs are never passed");
    device->class = 0;
    expect(config, device, VERDICT_ALLOWED, "a", "allowed by usbPassthrough[0].allow[0]");
    device->interfaces[0].class = 9;
    expect(config, device, VERDICT_HUB, NULL, "hubs are never passed");
}

static void test_what_the_host_lives_on_is_never_passed(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config = config_of("'usbPassthrough':[{'targetVm':'a','allow':[{'interfaceClass':8}]}]");
    (void)state;
    device->host_use = string_copy("/home is mounted from it");
    expect(config, device, VERDICT_HOST, NULL, "the host lives on it: /home is mounted from it");
    device->interfaces[0].class = 3;
    expect(config, device, VERDICT_NO_RULE, NULL, "no rule allows it");
}

// The boot disk and a stick with the same ids: the port decides.
static void test_f01_port_path_tells_twins_apart(void **state)
{
    CLEANUP(cleanup_device) struct device *boot = stick("1-1", 1, 2);
    CLEANUP(cleanup_device) struct device *wanted = stick("1-4.2", 1, 3);
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'a','allow':[{'vendorId':'0951','productId':'1666',"
                  "'portPath':'1-4.*'}]}]");
    (void)state;
    expect(config, boot, VERDICT_NO_RULE, NULL, "no rule allows it");
    expect(config, wanted, VERDICT_ALLOWED, "a", "allowed by usbPassthrough[0].allow[0]");
}

// Two without a serial, one for each VM; neither is taken for the other, whichever address they have.
static void test_f05_twins_without_serial_by_port(void **state)
{
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'a','allow':[{'vendorId':'0951','portPath':'1-1'}]},"
                  "{'targetVm':'b','allow':[{'vendorId':'0951','portPath':'1-2'}]},"
                  "{'targetVm':'b','allow':[{'serial':'.*'}]}]");
    (void)state;
    for (unsigned address = 2; address < 5; address++) {
        CLEANUP(cleanup_device) struct device *first = stick("1-1", 1, address);
        CLEANUP(cleanup_device) struct device *second = stick("1-2", 1, 9 - address);
        CLEANUP(cleanup_device) struct device *third = stick("1-3", 1, 9);
        expect(config, first, VERDICT_ALLOWED, "a", "allowed by usbPassthrough[0].allow[0]");
        expect(config, second, VERDICT_ALLOWED, "b", "allowed by usbPassthrough[1].allow[0]");
        expect(config, third, VERDICT_NO_RULE, NULL, "no rule allows it");
    }
}

// The controllers got each other's bus numbers at this boot: rules by idPath decide as before.
static void test_f06_id_path_survives_swapped_buses(void **state)
{
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'a','allow':[{'idPath':'pci-0000:00:14.0-usb-0:2*'}]},"
                  "{'targetVm':'b','allow':[{'idPath':'pci-0000:00:1d.0-usb-0:2*'}]}]");
    (void)state;
    for (unsigned bus = 1; bus <= 2; bus++) {
        CLEANUP(cleanup_device) struct device *first = stick(bus == 1 ? "1-2" : "2-2", bus, 5);
        CLEANUP(cleanup_device) struct device *second = stick(bus == 1 ? "2-2" : "1-2", 3 - bus, 5);
        first->id_path = string_copy("pci-0000:00:14.0-usb-0:2");
        second->id_path = string_copy("pci-0000:00:1d.0-usb-0:2");
        expect(config, first, VERDICT_ALLOWED, "a", "allowed by usbPassthrough[0].allow[0]");
        expect(config, second, VERDICT_ALLOWED, "b", "allowed by usbPassthrough[1].allow[0]");
    }
}

// A pattern that takes too long on some name denies where it stands in deny and does not allow in allow.
static void test_f12_a_slow_pattern_is_on_the_safe_side(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *allow = config_of("'usbPassthrough':[{'targetVm':'a','allow':[{'productName':'(a+)+$'}]}]");
    CLEANUP(cleanup_config)
    struct config *deny =
        config_of("'usbPassthrough':[{'targetVm':'a','allow':[{'bus':1}],'deny':[{'productName':'(a+)+$'}]}]");
    (void)state;
    device->product_reported = string_copy("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaax");
    expect(allow, device, VERDICT_NO_RULE, NULL, "no rule allows it");
    expect(deny, device, VERDICT_DENIED, "a", "denied by usbPassthrough[0].deny[0]");
}

// Fields of one rule are all required, where the Python one took any kind of them.
static void test_f15_fields_are_anded(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config = config_of(
        "'usbPassthrough':[{'targetVm':'a','allow':[{'vendorId':'0951','productId':'1666','interfaceClass':3}]}]");
    (void)state;
    expect(config, device, VERDICT_NO_RULE, NULL, "no rule allows it");
    device->interfaces[0].class = 3;
    expect(config, device, VERDICT_ALLOWED, "a", "allowed by usbPassthrough[0].allow[0]");
}

static void test_input_groups(void **state)
{
    CLEANUP(cleanup_device) struct device *device = input_device("ID_INPUT_MOUSE=1");
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'b','allow':[{'productName':'.*'}]}],"
                  "'evdevPassthrough':[{'targetVm':'a','allow':[{'property':'ID_INPUT_MOUSE','value':'1'}],"
                  "'deny':[{'name':'Power'}]}]");
    (void)state;
    expect(config, device, VERDICT_ALLOWED, "a", "allowed by evdevPassthrough[0].allow[0]");
    memcpy(device->product_reported, "Power", 5);
    expect(config, device, VERDICT_DENIED, "a", "denied by evdevPassthrough[0].deny[0]");
}

static void test_older_form_takes_what_people_point_and_type_with(void **state)
{
    static const char *const taken[] = {"ID_INPUT_MOUSE=1", "ID_INPUT_KEYBOARD=1", "ID_INPUT_TOUCHPAD=1",
                                        "ID_INPUT_TOUCHSCREEN=1", "ID_INPUT_TABLET=1"};
    static const char *const left[] = {"ID_INPUT_KEY=1", "ID_INPUT_SWITCH=1", "ID_INPUT_JOYSTICK=1",
                                       "ID_INPUT_ACCELEROMETER=1", "ID_INPUT_MOUSE=0"};
    CLEANUP(cleanup_config)
    struct config *config = config_of("'evdevPassthrough':{'targetVm':'b','pcieBusPrefix':'ep'}");
    CLEANUP(cleanup_config) struct config *off = config_of("'evdevPassthrough':{'targetVm':'b','disable':true}");
    (void)state;
    for (size_t i = 0; i < sizeof(taken) / sizeof(*taken); i++) {
        CLEANUP(cleanup_device) struct device *device = input_device(taken[i]);
        expect(config, device, VERDICT_ALLOWED, "b", "allowed by evdevPassthrough");
        expect(off, device, VERDICT_NO_RULE, NULL, "no rule allows it");
    }
    for (size_t i = 0; i < sizeof(left) / sizeof(*left); i++) {
        CLEANUP(cleanup_device) struct device *device = input_device(left[i]);
        expect(config, device, VERDICT_NO_RULE, NULL, "no rule allows it");
    }
}

static void test_pci_functions_go_by_their_own_groups(void **state)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_PCI);
    CLEANUP(cleanup_config)
    struct config *config = config_of("'usbPassthrough':[{'targetVm':'b','allow':[{'vendorId':'8086'}]}],"
                                      "'pciPassthrough':[{'targetVm':'a','allow':[{'vendorId':'8086'}]}]");
    (void)state;
    expect(config, device, VERDICT_NO_RULE, NULL, "no rule allows it");
    device->vendor_id = 0x8086;
    expect(config, device, VERDICT_ALLOWED, "a", "allowed by pciPassthrough[0].allow[0]");
}

static void test_the_verdict_names_its_rule(void **state)
{
    CLEANUP(cleanup_device) struct device *device = stick("1-2", 1, 4);
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'b','allow':[{'bus':1,'disable':true},{'bus':2},{'bus':1}],"
                  "'deny':[{'bus':3},{'port':2}]}]");
    struct verdict verdict;
    (void)state;
    policy_decide(config, device, &verdict);
    assert_ptr_equal(verdict.rule, config->usb.groups[0].allow[1]);
    assert_int_equal(verdict.rule->index, 2); // disabled ones count
    verdict_clear(&verdict);
    device->root_port = 2;
    policy_decide(config, device, &verdict);
    assert_int_equal(verdict.kind, VERDICT_DENIED);
    assert_ptr_equal(verdict.rule, config->usb.groups[0].deny[1]);
    verdict_clear(&verdict);
    device->class = 9;
    policy_decide(config, device, &verdict);
    assert_null(verdict.rule);
    verdict_clear(&verdict);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_group_that_allows),
        cmocka_unit_test(test_no_rule),
        cmocka_unit_test(test_denied_goes_on_to_the_next_group),
        cmocka_unit_test(test_denied_everywhere_names_the_first_denial),
        cmocka_unit_test(test_disabled_groups_and_rules),
        cmocka_unit_test(test_allowed_vms),
        cmocka_unit_test(test_hubs_are_never_passed),
        cmocka_unit_test(test_what_the_host_lives_on_is_never_passed),
        cmocka_unit_test(test_f01_port_path_tells_twins_apart),
        cmocka_unit_test(test_f05_twins_without_serial_by_port),
        cmocka_unit_test(test_f06_id_path_survives_swapped_buses),
        cmocka_unit_test(test_f12_a_slow_pattern_is_on_the_safe_side),
        cmocka_unit_test(test_f15_fields_are_anded),
        cmocka_unit_test(test_input_groups),
        cmocka_unit_test(test_older_form_takes_what_people_point_and_type_with),
        cmocka_unit_test(test_pci_functions_go_by_their_own_groups),
        cmocka_unit_test(test_the_verdict_names_its_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
