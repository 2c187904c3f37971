// Rules: each field alone, fields together, and the values at their edges.
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/rule.h"
#include "unit.h"
#include "util/text.h"

static const char vms[] = "\"vms\":[{\"name\":\"a\",\"type\":\"qemu\",\"socket\":\"/s\"}]";

// The configuration with one group of that section and this one rule, in which ' stands for ".
static struct config *config_of(const char *section, const char *rule)
{
    CLEANUP(cleanup_free)
    char *text = string_printf("{\"%s\":[{\"targetVm\":\"a\",\"allow\":[%s]}],%s}", section, rule, vms);
    for (char *quote = strchr(text, '\''); quote; quote = strchr(quote, '\''))
        *quote = '"';
    struct config_report report;
    struct config *config = config_parse("f", text, strlen(text), &report);
    if (!config)
        fail_msg("%s", report.errors.lines[0]);
    config_report_clear(&report);
    return config;
}

static bool tried(const struct rule *rule, const struct device *device, bool otherwise)
{
    CLEANUP(rule_subject_clear) struct rule_subject subject;
    rule_subject_init(&subject, device);
    return rule_matches(rule, &subject, otherwise);
}

static bool usb(const char *rule, const struct device *device)
{
    CLEANUP(cleanup_config) struct config *config = config_of("usbPassthrough", rule);
    return tried(config->usb.groups[0].allow[0], device, false);
}

static bool input(const char *rule, const struct device *device)
{
    CLEANUP(cleanup_config) struct config *config = config_of("evdevPassthrough", rule);
    return tried(config->input.groups[0].allow[0], device, false);
}

static void add_interface(struct device *device, uint8_t class, uint8_t subclass, uint8_t protocol)
{
    device->interfaces = memory_resize(device->interfaces, device->interface_count + 1, sizeof(*device->interfaces));
    device->interfaces[device->interface_count++] = (struct usb_interface){class, subclass, protocol};
}

static void add_driver(struct device *device, const char *path)
{
    device->drivers = memory_resize(device->drivers, device->driver_count + 1, sizeof(*device->drivers));
    device->drivers[device->driver_count++] = string_copy(path);
}

static void add_property(struct device *device, const char *property)
{
    device->properties = memory_resize(device->properties, device->property_count + 1, sizeof(*device->properties));
    device->properties[device->property_count++] = string_copy(property);
}

static struct device *receiver(void)
{
    struct device *device = device_new(DEVICE_USB);
    device->key = string_copy("usb:3-2.1");
    device->vendor_id = 0x046d;
    device->product_id = 0xc52b;
    device->vendor_database = string_copy("Logitech, Inc.");
    device->product_database = string_copy("Unifying Receiver");
    device->vendor_reported = string_copy("Logitech");
    device->product_reported = string_copy(" USB  Receiver (new)/2 ");
    device->serial = string_copy("A1-b2");
    device->bus = 3;
    device->address = 7;
    device->root_port = 2;
    device->port_path = string_copy("3-2.1");
    device->id_path = string_copy("pci-0000:00:14.0-usb-0:2.1");
    device->removable = REMOVABLE_FIXED;
    add_interface(device, 3, 1, 1);
    add_interface(device, 3, 1, 2);
    add_interface(device, 255, 0, 0);
    return device;
}

static void test_ids(void **state)
{
    CLEANUP(cleanup_device) struct device *device = receiver();
    (void)state;
    assert_true(usb("{'vendorId':'046d','productId':'c52b'}", device));
    assert_true(usb("{'vendorId':'046D','productId':'C52B'}", device));
    assert_true(usb("{'vendorId':'0x46d'}", device));
    assert_true(usb("{'productId':'0Xc52b'}", device));
    assert_false(usb("{'vendorId':'046d','productId':'c52c'}", device));
    assert_false(usb("{'vendorId':'046e','productId':'c52b'}", device));
    assert_false(usb("{'vendorId':'0'}", device));
    device->vendor_id = 0;
    assert_true(usb("{'vendorId':'0000'}", device));
}

static void test_names(void **state)
{
    CLEANUP(cleanup_device) struct device *device = receiver();
    (void)state;
    assert_true(usb("{'vendorName':'logitech, inc'}", device)); // the database
    assert_true(usb("{'vendorName':'Logitech$'}", device));     // the device
    assert_false(usb("{'vendorName':'Tech'}", device));
    assert_true(usb("{'productName':'.*receiver'}", device));
    assert_true(usb("{'productName':' USB  Receiver'}", device));                // raw
    assert_true(usb("{'productName':'USB_Receiver_\\\\(new\\\\)/2$'}", device)); // blanks as udev has them
    assert_true(usb("{'productName':'USB_Receiver__new__2$'}", device));         // and all else
    assert_false(usb("{'productName':'USB Receiver'}", device));
    assert_false(usb("{'vendorName':'Logitech','productName':'.*mouse'}", device));
}

static void test_names_that_are_missing(void **state)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    (void)state;
    assert_true(usb("{'productName':'.*'}", device));
    assert_true(usb("{'productName':'(?!apple)'}", device));
    assert_false(usb("{'productName':'.'}", device));
    device->product_database = string_copy("Thing");
    assert_false(usb("{'productName':'$'}", device));
    device->product_reported = string_copy("  ");
    assert_true(usb("{'productName':'$'}", device)); // nothing but blanks is nothing, as in udev
    assert_true(usb("{'productName':'Thing'}", device));
}

static void test_names_of_any_length(void **state)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    (void)state;
    device->product_reported = memory_new(10000, 1);
    memset(device->product_reported, ' ', 9999);
    memcpy(device->product_reported, "a\x1b\n\xff", 4);
    assert_true(usb("{'productName':'a'}", device));
    assert_false(usb("{'productName':'b'}", device));
    memset(device->product_reported, '(', 9999);
    assert_true(usb("{'productName':'_{4096}$'}", device));
}

static void test_f08_port_rule_keeps_device_when_ids_change(void **state)
{
    CLEANUP(cleanup_device) struct device *device = receiver();
    (void)state;
    assert_true(usb("{'bus':3,'port':2}", device));
    assert_true(usb("{'portPath':'3-2.1'}", device));
    assert_true(usb("{'idPath':'pci-0000:00:14.0-usb-0:2.1'}", device));
    device->vendor_id = 0x1d50; // its boot loader
    device->product_id = 0x6018;
    free(device->product_reported);
    device->product_reported = NULL;
    assert_true(usb("{'bus':3,'port':2}", device));
    assert_true(usb("{'portPath':'3-2.1'}", device));
    assert_true(usb("{'idPath':'pci-0000:00:14.0-usb-0:2.1'}", device));
    assert_false(usb("{'bus':2,'port':2}", device));
    assert_false(usb("{'bus':3,'port':1}", device));
}

static void test_port_globs(void **state)
{
    CLEANUP(cleanup_device) struct device *device = receiver();
    (void)state;
    assert_true(usb("{'portPath':'3-2.*'}", device));
    assert_true(usb("{'portPath':'*-2.[1-3]'}", device));
    assert_false(usb("{'portPath':'3-2'}", device));
    assert_true(usb("{'idPath':'*usb-0:2*'}", device));
    assert_false(usb("{'idPath':'pci-0000:00:1d.0*'}", device));
    device->port_path[0] = '4';
    assert_false(usb("{'portPath':'3-2.*'}", device));
    free(device->port_path);
    device->port_path = NULL;
    assert_false(usb("{'portPath':'*'}", device));
    free(device->id_path);
    device->id_path = memory_new(300, 1);
    memset(device->id_path, 'x', 299);
    assert_false(usb("{'idPath':'*'}", device)); // no such path is that long
}

// Interfaces come from the descriptors, so they are there before any driver or udev has looked.
static void test_f09_interface_fields_need_no_driver(void **state)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    (void)state;
    add_interface(device, 8, 6, 80);
    assert_true(usb("{'interfaceClass':8}", device));
    assert_true(usb("{'interfaceClass':8,'interfaceSubclass':6,'interfaceProtocol':80}", device));
    assert_false(usb("{'interfaceClass':8,'interfaceSubclass':6,'interfaceProtocol':98}", device));
}

static void test_one_and_the_same_interface(void **state)
{
    CLEANUP(cleanup_device) struct device *device = receiver();
    (void)state;
    assert_true(usb("{'interfaceClass':3,'interfaceProtocol':2}", device));
    assert_true(usb("{'interfaceSubclass':0}", device));
    assert_false(usb("{'interfaceClass':255,'interfaceProtocol':2}", device));
    assert_false(usb("{'interfaceClass':3,'interfaceSubclass':0}", device));
    assert_false(usb("{'interfaceClass':8}", device));
}

static void test_zero_is_a_value(void **state)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    (void)state;
    assert_true(usb("{'deviceClass':0,'deviceSubclass':0,'deviceProtocol':0}", device));
    assert_false(usb("{'interfaceClass':0}", device)); // it has no interface at all
    add_interface(device, 0, 0, 0);
    assert_true(usb("{'interfaceClass':0,'interfaceSubclass':0,'interfaceProtocol':0}", device));
    device->class = 239;
    device->subclass = 2;
    device->protocol = 1;
    assert_true(usb("{'deviceClass':239,'deviceSubclass':2,'deviceProtocol':1}", device));
    assert_false(usb("{'deviceClass':0}", device));
    assert_false(usb("{'deviceSubclass':0}", device));
    assert_false(usb("{'deviceProtocol':0}", device));
}

static void test_removable(void **state)
{
    CLEANUP(cleanup_device) struct device *device = receiver();
    (void)state;
    assert_true(usb("{'removable':['fixed']}", device));
    assert_true(usb("{'removable':'fixed'}", device));
    assert_true(usb("{'removable':['removable','fixed']}", device));
    assert_false(usb("{'removable':['removable','unknown']}", device));
    device->removable = REMOVABLE_UNKNOWN;
    assert_true(usb("{'removable':['removable','unknown']}", device));
    device->removable = REMOVABLE_REMOVABLE;
    assert_true(usb("{'removable':['removable']}", device));
}

// A network adapter with vendor-specific interfaces and no driver bound is known by its driver's place.
static void test_f14_driver_path_catches_vendor_specific_devices(void **state)
{
    static const char rule[] = "{'driverPath':'.*/drivers/net/'}";
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    (void)state;
    assert_false(usb(rule, device));
    add_driver(device, "kernel/drivers/hid/hid-a.ko");
    add_interface(device, 255, 255, 0);
    assert_false(usb(rule, device));
    add_driver(device, "kernel/drivers/net/usb/ax88179_178a.ko");
    assert_true(usb(rule, device));
    add_interface(device, 0, 0, 0);
    assert_true(usb(rule, device));
    add_interface(device, 2, 6, 0); // this one says what it is: its own rules apply
    assert_false(usb(rule, device));
}

static void test_serial(void **state)
{
    CLEANUP(cleanup_device) struct device *device = receiver();
    (void)state;
    assert_true(usb("{'serial':'a1-B2$'}", device));
    assert_true(usb("{'serial':'A1'}", device));
    assert_false(usb("{'serial':'b2'}", device));
    free(device->serial);
    device->serial = NULL;
    assert_false(usb("{'serial':'.*'}", device)); // no serial is no serial
}

static void test_all_fields_are_anded(void **state)
{
    static const char *const wrong[][2] = {
        {"'vendorId':'046d'", "'vendorId':'046e'"},
        {"'productId':'c52b'", "'productId':'c52c'"},
        {"'vendorName':'Logi'", "'vendorName':'Micro'"},
        {"'productName':'Unif'", "'productName':'Mouse'"},
        {"'bus':3", "'bus':4"},
        {"'port':2", "'port':3"},
        {"'interfaceClass':3", "'interfaceClass':4"},
        {"'interfaceSubclass':1", "'interfaceSubclass':2"},
        {"'interfaceProtocol':2", "'interfaceProtocol':3"},
        {"'deviceClass':0", "'deviceClass':1"},
        {"'deviceSubclass':0", "'deviceSubclass':1"},
        {"'deviceProtocol':0", "'deviceProtocol':1"},
        {"'removable':['fixed']", "'removable':['unknown']"},
        {"'serial':'A1'", "'serial':'B1'"},
        {"'portPath':'3-2.1'", "'portPath':'3-2.2'"},
        {"'idPath':'pci-*'", "'idPath':'platform-*'"},
    };
    CLEANUP(cleanup_device) struct device *device = receiver();
    size_t count = sizeof(wrong) / sizeof(*wrong);
    (void)state;
    for (size_t odd = 0; odd <= count; odd++) { // each field in turn is the one that does not match
        struct text rule = {0};
        for (size_t i = 0; i < count; i++)
            text_printf(&rule, "%s%s", i == 0 ? "{" : ",", wrong[i][i == odd]);
        text_add(&rule, "}");
        assert_int_equal(usb(rule.string, device), odd == count);
        text_clear(&rule);
    }
}

static void test_input_rules(void **state)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_INPUT);
    (void)state;
    device->product_reported = string_copy("AT Translated Set 2 keyboard");
    device->path_tag = string_copy("platform-i8042-serio-0");
    add_property(device, "ID_INPUT=1");
    add_property(device, "ID_INPUT_KEYBOARD=1");
    assert_true(input("{'name':'at translated'}", device));
    assert_false(input("{'name':'keyboard'}", device));
    assert_true(input("{'pathTag':'platform-i8042'}", device));
    assert_false(input("{'pathTag':'pci'}", device));
    assert_true(input("{'property':'ID_INPUT_KEYBOARD','value':'1'}", device));
    assert_true(input("{'property':'ID_INPUT_KEYBOARD','value':1}", device));
    assert_false(input("{'property':'ID_INPUT_KEYBOARD','value':'11'}", device));
    assert_false(input("{'property':'ID_INPUT_KEY','value':'1'}", device));
    assert_false(input("{'property':'ID_INPUT_MOUSE','value':'1'}", device));
    assert_true(input("{'name':'AT','pathTag':'plat','property':'ID_INPUT','value':'1'}", device));
    assert_false(input("{'name':'AT','pathTag':'pci','property':'ID_INPUT','value':'1'}", device));
    free(device->path_tag);
    device->path_tag = NULL;
    assert_false(input("{'pathTag':'.*'}", device));
}

static void test_rules_match_their_own_kind_only(void **state)
{
    CLEANUP(cleanup_device) struct device *pointer = device_new(DEVICE_INPUT);
    CLEANUP(cleanup_device) struct device *stick = device_new(DEVICE_USB);
    CLEANUP(cleanup_device) struct device *function = device_new(DEVICE_PCI);
    CLEANUP(cleanup_config) struct config *pci = config_of("pciPassthrough", "{'deviceClass':0,'vendorId':'8086'}");
    (void)state;
    assert_false(usb("{'productName':'.*'}", pointer));
    assert_false(usb("{'productName':'.*'}", function));
    assert_false(input("{'name':'.*'}", stick));
    assert_false(tried(pci->pci.groups[0].allow[0], stick, true));
    rule_free(NULL);
}

// What a match given up means is the caller's word: a deny rule denies, an allow rule does not allow.
static void test_f12_given_up_match(void **state)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    CLEANUP(cleanup_config) struct config *config = config_of("usbPassthrough", "{'productName':'(a+)+$'}");
    const struct rule *rule = config->usb.groups[0].allow[0];
    (void)state;
    device->product_reported = string_copy("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaax");
    assert_false(tried(rule, device, false));
    assert_true(tried(rule, device, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_names_that_are_missing),
        cmocka_unit_test(test_names_of_any_length),
        cmocka_unit_test(test_f08_port_rule_keeps_device_when_ids_change),
        cmocka_unit_test(test_port_globs),
        cmocka_unit_test(test_f09_interface_fields_need_no_driver),
        cmocka_unit_test(test_one_and_the_same_interface),
        cmocka_unit_test(test_zero_is_a_value),
        cmocka_unit_test(test_removable),
        cmocka_unit_test(test_f14_driver_path_catches_vendor_specific_devices),
        cmocka_unit_test(test_serial),
        cmocka_unit_test(test_all_fields_are_anded),
        cmocka_unit_test(test_input_rules),
        cmocka_unit_test(test_rules_match_their_own_kind_only),
        cmocka_unit_test(test_f12_given_up_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
