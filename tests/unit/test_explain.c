// Explanations: each rule that does not match says why, and no explanation disagrees with policy.
#include <stdlib.h>
#include <string.h>

#include "core/device_json.h"
#include "core/explain.h"
#include "core/policy.h"
#include "core/rule.h"
#include "unit.h"
#include "util/json.h"
#include "util/text.h"

static const char vms[] = "'vms':[{'name':'a','type':'qemu','socket':'/s'},{'name':'b','type':'qemu','socket':'/t'}]";

// ' to ".
static char *quoted(const char *text)
{
    char *copy = string_copy(text);
    for (char *quote = strchr(copy, '\''); quote; quote = strchr(quote, '\''))
        *quote = '"';
    return copy;
}

// The configuration with these sections and two VMs.
static struct config *config_of(const char *sections)
{
    CLEANUP(cleanup_free) char *plain = string_printf("{%s,%s}", sections, vms);
    CLEANUP(cleanup_free) char *text = quoted(plain);
    struct config_report report;
    struct config *config = config_parse("f", text, strlen(text), &report);
    if (!config)
        fail_msg("%s: %s", text, report.errors.lines[0]);
    config_report_clear(&report);
    return config;
}

static struct json_object *value_of(const char *json)
{
    static const struct json_limits limits = {65536, 16};
    CLEANUP(cleanup_free) char *text = quoted(json), *error = NULL;
    struct json_object *value = json_parse(text, strlen(text), &limits, &error);
    if (!value)
        fail_msg("%s: %s", json, error);
    return value;
}

static struct device *device_of(const char *json)
{
    CLEANUP(cleanup_json) struct json_object *value = value_of(json);
    char *error = NULL;
    struct device *device = device_from_json(value, &error);
    if (!device)
        fail_msg("%s: %s", json, error);
    return device;
}

// The explanation is what EXPECTED says, member by member, its members in that order.
static void expect(const char *sections, const char *device_json, const char *expected)
{
    CLEANUP(cleanup_config) struct config *config = config_of(sections);
    CLEANUP(cleanup_device) struct device *device = device_of(device_json);
    CLEANUP(cleanup_json) struct json_object *explanation = explain_device(config, device);
    CLEANUP(cleanup_json) struct json_object *wanted = value_of(expected);
    CLEANUP(cleanup_free) char *got = json_print(explanation), *want = json_print(wanted);
    assert_string_equal(got, want);
}

// A webcam with a microphone that is also a keyboard, behind a hub.
static const char camera[] =
    "{'vid':'046d','pid':'0825','vendor_name':'Logitech, Inc.','product_name':'Webcam C270',"
    "'vendor_reported':null,'product_reported':'C270 HD','interfaces':':0e0100:0e0200:010100:030101:',"
    "'device_class':239,'device_subclass':2,'device_protocol':1,'busnum':3,'devnum':7,'portnum':2,"
    "'serial':'A1B2','sys_name':'3-2.1','id_path':'pci-0000:00:14.0-usb-0:2.1','removable':'removable'}";

static const char bare[] = "{'vid':'1234','pid':'5678'}";

// The one rule of the one group does not match for this reason; found NULL: there is none.
static void expect_mismatch(const char *section, const char *rule, const char *device_json, const char *field,
                            const char *wanted, const char *found)
{
    CLEANUP(cleanup_free) char *sections = string_printf("'%s':[{'targetVm':'a','allow':[%s]}]", section, rule);
    CLEANUP(cleanup_free) char *quotes = found ? string_printf("'%s'", found) : string_copy("null");
    CLEANUP(cleanup_free)
    char *expected =
        string_printf("{'verdict':'none','vm':null,'allowed_vms':[],'group':null,'rule':null,"
                      "'reason':'no rule allows it','groups':[{'path':'%s[0]','description':null,"
                      "'result':'no match','rules':[{'path':'%s[0].allow[0]','description':null,'deny':false,"
                      "'matches':false,'field':'%s','wanted':'%s','found':%s}]}]%s}",
                      section, section, field, wanted, quotes,
                      strcmp(section, "pciPassthrough") == 0 ? ",'iommu_group':null,'peers':[]" : "");
    expect(sections, device_json, expected);
}

static void test_each_field_of_usb_rules(void **state)
{
    static const char *const cases[][5] = {
        {"{'vendorId':'46E','bus':3}", camera, "vendorId", "046e", "046d"},
        {"{'productId':'0826','vendorId':'046d'}", camera, "productId", "0826", "0825"},
        {"{'vendorName':'Microsoft'}", camera, "vendorName", "Microsoft", "Logitech, Inc."},
        {"{'vendorName':'.+'}", bare, "vendorName", ".+", NULL},
        {"{'vendorName':'.+'}", "{'vendor_name':'','vendor_reported':''}", "vendorName", ".+", NULL},
        {"{'productName':'Mouse|HD'}", camera, "productName", "Mouse|HD", "Webcam C270 or C270 HD"},
        {"{'bus':4,'vendorId':'046d'}", camera, "bus", "4", "3"},
        {"{'bus':4}", bare, "bus", "4", NULL},
        {"{'port':1,'bus':3}", camera, "port", "1", "2"},
        {"{'port':1}", bare, "port", "1", NULL},
        {"{'interfaceClass':8}", camera, "interfaceClass", "8", "14, 1, 3"},
        {"{'interfaceClass':8}", bare, "interfaceClass", "8", NULL},
        {"{'interfaceClass':14,'interfaceSubclass':3}", camera, "interfaceSubclass", "3", "1, 2"},
        {"{'interfaceClass':3,'interfaceProtocol':2}", camera, "interfaceProtocol", "2", "1"},
        {"{'interfaceSubclass':2,'interfaceProtocol':1}", camera, "interfaceProtocol", "1", "0"},
        {"{'deviceClass':0}", camera, "deviceClass", "0", "239"},
        {"{'deviceSubclass':3}", camera, "deviceSubclass", "3", "2"},
        {"{'deviceProtocol':0}", camera, "deviceProtocol", "0", "1"},
        {"{'removable':['fixed','unknown']}", camera, "removable", "unknown or fixed", "removable"},
        {"{'removable':['fixed']}", bare, "removable", "fixed", "unknown"},
        {"{'serial':'B'}", camera, "serial", "B", "A1B2"},
        {"{'serial':'.*'}", bare, "serial", ".*", NULL},
        {"{'portPath':'3-2'}", camera, "portPath", "3-2", "3-2.1"},
        {"{'portPath':'*'}", bare, "portPath", "*", NULL},
        {"{'idPath':'platform-*'}", camera, "idPath", "platform-*", "pci-0000:00:14.0-usb-0:2.1"},
        {"{'driverPath':'.*uvc'}", camera, "driverPath", ".*uvc", "not looked at, as it has an interface of class 14"},
        {"{'driverPath':'.*ch341'}", "{'interfaces':':ff0000:','drivers':['/m/cp210x.ko','/m/x.ko']}", "driverPath",
         ".*ch341", "/m/cp210x.ko, /m/x.ko"},
        {"{'driverPath':'.*'}", "{'interfaces':':ff0000:'}", "driverPath", ".*", NULL},
        // Numbers are compared before patterns are matched.
        {"{'vendorName':'X','productName':'X','serial':'X','idPath':'pci-1*'}", camera, "idPath", "pci-1*",
         "pci-0000:00:14.0-usb-0:2.1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        expect_mismatch("usbPassthrough", cases[i][0], cases[i][1], cases[i][2], cases[i][3], cases[i][4]);
}

static void test_each_field_of_other_rules(void **state)
{
    static const char input[] = "{'kind':'evdev','name':'AT Keyboard','path_tag':'platform-i8042',"
                                "'properties':{'ID_INPUT':1,'ID_INPUT_KEYBOARD':'1'}}";
    static const char function[] = "{'kind':'pci','address':'00:14.3','vid':'8086','did':'a0f0','pci_class':2,"
                                   "'pci_subclass':128,'pci_prog_if':0}";
    (void)state;
    expect_mismatch("evdevPassthrough", "{'name':'Mouse'}", input, "name", "Mouse", "AT Keyboard");
    expect_mismatch("evdevPassthrough", "{'name':'.+'}", "{'kind':'evdev'}", "name", ".+", NULL);
    expect_mismatch("evdevPassthrough", "{'pathTag':'usb'}", input, "pathTag", "usb", "platform-i8042");
    expect_mismatch("evdevPassthrough", "{'property':'ID_INPUT_MOUSE','value':'1'}", input, "property",
                    "ID_INPUT_MOUSE", NULL);
    expect_mismatch("evdevPassthrough", "{'property':'ID_INPUT','value':'0'}", input, "value", "0", "1");
    expect_mismatch("pciPassthrough", "{'address':'0000:00:14.4'}", function, "address", "0000:00:14.4",
                    "0000:00:14.3");
    expect_mismatch("pciPassthrough", "{'address':'0000:00:14.4'}", "{'kind':'pci'}", "address", "0000:00:14.4", NULL);
    expect_mismatch("pciPassthrough", "{'vendorId':'10de'}", function, "vendorId", "10de", "8086");
    expect_mismatch("pciPassthrough", "{'deviceId':'1'}", function, "deviceId", "0001", "a0f0");
    expect_mismatch("pciPassthrough", "{'deviceClass':3}", function, "deviceClass", "3", "2");
    expect_mismatch("pciPassthrough", "{'deviceSubclass':0}", function, "deviceSubclass", "0", "128");
    expect_mismatch("pciPassthrough", "{'deviceProgIf':1}", function, "deviceProgIf", "1", "0");
}

// Every rule of both groups that matches is listed, and the verdict tells which won.
static void test_f13_composite_device(void **state)
{
    (void)state;
    expect("'usbPassthrough':[{'description':'Sound','targetVm':'a','allow':[{'interfaceClass':1},"
           "{'interfaceClass':9},{'interfaceClass':3,'description':'HID'}]},"
           "{'targetVm':'b','allow':[{'interfaceClass':14}]}]",
           camera,
           "{'verdict':'attach','vm':'a','allowed_vms':['a'],'group':0,'rule':0,"
           "'reason':'allowed by usbPassthrough[0].allow[0]','groups':["
           "{'path':'usbPassthrough[0]','description':'Sound','result':'takes','rules':["
           "{'path':'usbPassthrough[0].allow[0]','description':null,'deny':false,'matches':true},"
           "{'path':'usbPassthrough[0].allow[1]','description':null,'deny':false,'matches':false,"
           "'field':'interfaceClass','wanted':'9','found':'14, 1, 3'},"
           "{'path':'usbPassthrough[0].allow[2]','description':'HID','deny':false,'matches':true}]},"
           "{'path':'usbPassthrough[1]','description':null,'result':'takes','rules':["
           "{'path':'usbPassthrough[1].allow[0]','description':null,'deny':false,'matches':true}]}]}");
}

// A rule can leave out what has another interface.
static void test_f13_deny_of_an_interface(void **state)
{
    (void)state;
    expect("'usbPassthrough':[{'targetVm':'a','allow':[{'interfaceClass':1}],'deny':[{'interfaceClass':14}]},"
           "{'targetVm':'b','allow':[{'interfaceClass':14}]}]",
           camera,
           "{'verdict':'attach','vm':'b','allowed_vms':['b'],'group':1,'rule':0,"
           "'reason':'allowed by usbPassthrough[1].allow[0]','groups':["
           "{'path':'usbPassthrough[0]','description':null,'result':'denies','rules':["
           "{'path':'usbPassthrough[0].allow[0]','description':null,'deny':false,'matches':true},"
           "{'path':'usbPassthrough[0].deny[0]','description':null,'deny':true,'matches':true}]},"
           "{'path':'usbPassthrough[1]','description':null,'result':'takes','rules':["
           "{'path':'usbPassthrough[1].allow[0]','description':null,'deny':false,'matches':true}]}]}");
}

static void test_denied(void **state)
{
    (void)state;
    expect("'usbPassthrough':[{'targetVm':'b','disable':true,'allow':[{'bus':3}]},"
           "{'targetVm':'a','allow':[{'bus':3}],'deny':[{'bus':9},{'bus':3,'disable':true},{'port':2}]}]",
           camera,
           "{'verdict':'deny','vm':null,'allowed_vms':[],'group':1,'rule':2,"
           "'reason':'denied by usbPassthrough[1].deny[2]','groups':["
           "{'path':'usbPassthrough[0]','description':null,'result':'disabled','rules':[]},"
           "{'path':'usbPassthrough[1]','description':null,'result':'denies','rules':["
           "{'path':'usbPassthrough[1].allow[0]','description':null,'deny':false,'matches':true},"
           "{'path':'usbPassthrough[1].deny[0]','description':null,'deny':true,'matches':false,"
           "'field':'bus','wanted':'9','found':'3'},"
           "{'path':'usbPassthrough[1].deny[2]','description':null,'deny':true,'matches':true}]}]}");
}

// A deny rule alone denies nothing: nothing would have been allowed.
static void test_deny_without_allow(void **state)
{
    (void)state;
    expect("'usbPassthrough':[{'targetVm':'a','allow':[{'bus':9}],'deny':[{'bus':3}]}]", camera,
           "{'verdict':'none','vm':null,'allowed_vms':[],'group':null,'rule':null,'reason':'no rule allows it',"
           "'groups':[{'path':'usbPassthrough[0]','description':null,'result':'no match','rules':["
           "{'path':'usbPassthrough[0].allow[0]','description':null,'deny':false,'matches':false,"
           "'field':'bus','wanted':'9','found':'3'},"
           "{'path':'usbPassthrough[0].deny[0]','description':null,'deny':true,'matches':true}]}]}");
}

// The index is that of the file, where disabled rules count.
static void test_choice_and_index(void **state)
{
    (void)state;
    expect("'usbPassthrough':[{'allowedVms':['b','a'],'allow':[{'bus':3,'disable':true},{'bus':3}]}]", camera,
           "{'verdict':'choose','vm':null,'allowed_vms':['b','a'],'group':0,'rule':1,"
           "'reason':'allowed by usbPassthrough[0].allow[1]','groups':["
           "{'path':'usbPassthrough[0]','description':null,'result':'takes','rules':["
           "{'path':'usbPassthrough[0].allow[1]','description':null,'deny':false,'matches':true}]}]}");
    // Of one VM there is nothing to choose.
    expect("'usbPassthrough':[{'allowedVms':['b','gone'],'allow':[{'bus':3}]}]", camera,
           "{'verdict':'attach','vm':'b','allowed_vms':['b'],'group':0,'rule':0,"
           "'reason':'allowed by usbPassthrough[0].allow[0]','groups':["
           "{'path':'usbPassthrough[0]','description':null,'result':'takes','rules':["
           "{'path':'usbPassthrough[0].allow[0]','description':null,'deny':false,'matches':true}]}]}");
}

static void test_hub_and_host(void **state)
{
    static const char sections[] = "'usbPassthrough':[{'targetVm':'a','allow':[{'productName':'.*'}]}]";
    (void)state;
    expect(sections, "{'vid':'1d6b','pid':'2','interfaces':':090000:'}",
           "{'verdict':'hub','vm':null,'allowed_vms':[],'group':null,'rule':null,"
           "'reason':'hubs are never passed','groups':[]}");
    expect(sections, "{'host_use':'/ is mounted from it'}",
           "{'verdict':'host','vm':null,'allowed_vms':[],'group':null,'rule':null,"
           "'reason':'the host lives on it: / is mounted from it','groups':["
           "{'path':'usbPassthrough[0]','description':null,'result':'takes','rules':["
           "{'path':'usbPassthrough[0].allow[0]','description':null,'deny':false,'matches':true}]}]}");
}

static void test_all_inputs(void **state)
{
    static const char sections[] = "'evdevPassthrough':{'targetVm':'b'}";
    (void)state;
    expect(sections, "{'kind':'evdev','properties':['ID_INPUT=1','ID_INPUT_TABLET=1']}",
           "{'verdict':'attach','vm':'b','allowed_vms':['b'],'group':0,'rule':null,"
           "'reason':'allowed by evdevPassthrough','groups':["
           "{'path':'evdevPassthrough','description':null,'result':'takes','rules':["
           "{'path':'evdevPassthrough','description':null,'deny':false,'matches':true}]}]}");
    expect(sections, "{'kind':'evdev','properties':['NAME=x','ID_INPUT=1','ID_INPUT_KEY=1']}",
           "{'verdict':'none','vm':null,'allowed_vms':[],'group':null,'rule':null,'reason':'no rule allows it',"
           "'groups':[{'path':'evdevPassthrough','description':null,'result':'no match','rules':["
           "{'path':'evdevPassthrough','description':null,'deny':false,'matches':false,'field':'properties',"
           "'wanted':'a mouse, keyboard, touchpad, touchscreen or tablet','found':'ID_INPUT=1 ID_INPUT_KEY=1'}]}]}");
    expect("'evdevPassthrough':{'targetVm':'b','disable':true}", "{'kind':'evdev','properties':['ID_INPUT_MOUSE=1']}",
           "{'verdict':'none','vm':null,'allowed_vms':[],'group':null,'rule':null,'reason':'no rule allows it',"
           "'groups':[{'path':'evdevPassthrough','description':null,'result':'disabled','rules':[]}]}");
}

// The verdict alone is the beginning of the explanation.
static void test_verdict_alone(void **state)
{
    CLEANUP(cleanup_config)
    struct config *config = config_of("'usbPassthrough':[{'targetVm':'a','allow':[{'bus':3}]}]");
    CLEANUP(cleanup_device) struct device *device = device_of(camera);
    CLEANUP(cleanup_json) struct json_object *verdict = explain_verdict(config, device);
    CLEANUP(cleanup_json) struct json_object *explanation = explain_device(config, device);
    (void)state;
    assert_int_equal(json_object_object_length(verdict), 6);
    json_object_object_del(explanation, "groups");
    assert_true(json_object_equal(verdict, explanation));
}

// A match that took too long is not said to differ.
// What the rules want of each function of the IOMMU group is what decides.
static void test_f42_iommu_group(void **state)
{
    static const char sections[] =
        "'pciPassthrough':[{'targetVm':'a','pciIommuAddAll':true,'allow':[{'address':'3:0.0'}]},"
        "{'targetVm':'b','allow':[{'address':'3:0.3'}]}]";
    static const char device[] =
        "{'kind':'pci','address':'3:0.1','iommu_group':12,'peers':[{'address':'3:0.0','vid':'8086','did':'10d3',"
        "'device_name':'82574L'},{'address':'3:0.2','pci_class':6,'pci_subclass':4},{'address':'3:0.4','pci_class':6,'"
        "pci_subclass':1},{'address':'3:0.3','host_use':'x\\u001b'}]}";
    static const char peers[] =
        "'iommu_group':12,'peers':["
        "{'address':'0000:03:00.0','title':'82574L (8086:10d3, "
        "0000:03:00.0)','bridge':false,'bound':true,'host_use':null,"
        "'vms':'a','path':'pciPassthrough[0].allow[0]','added':false},"
        "{'address':'0000:03:00.2','title':'unnamed device (0000:03:00.2)','bridge':true,'bound':false,'host_use':null,"
        "'vms':null,'path':null,'added':false},"
        "{'address':'0000:03:00.4','title':'unnamed device (0000:03:00.4)','bridge':true,'bound':true,'host_use':null,"
        "'vms':null,'path':null,'added':false},"
        "{'address':'0000:03:00.3','title':'unnamed device "
        "(0000:03:00.3)','bridge':false,'bound':true,'host_use':'x\\\\x1b',"
        "'vms':'b','path':'pciPassthrough[1].allow[0]','added':false}]";
    static const char groups[] =
        "'groups':[{'path':'pciPassthrough[0]','description':null,'result':'no match','rules':[{'path':"
        "'pciPassthrough[0].allow[0]','description':null,'deny':false,'matches':false,'field':'address','wanted':"
        "'0000:03:00.0','found':'0000:03:00.1'}]},{'path':'pciPassthrough[1]','description':null,'result':'no match',"
        "'rules':[{'path':'pciPassthrough[1].allow[0]','description':null,'deny':false,'matches':false,'field':"
        "'address','wanted':'0000:03:00.3','found':'0000:03:00.1'}]}]";
    CLEANUP(cleanup_free)
    char *expected = string_printf("{'verdict':'host','vm':null,'allowed_vms':[],'group':null,'rule':null,'reason':"
                                   "'the host lives on 0000:03:00.3, of the same IOMMU group: x\\\\x1b',%s,%s}",
                                   groups, peers);
    (void)state;
    expect(sections, device, expected);
}

static void expect_word(const char *sections, const char *device_json, const char *word)
{
    CLEANUP(cleanup_config) struct config *config = config_of(sections);
    CLEANUP(cleanup_device) struct device *device = device_of(device_json);
    CLEANUP(cleanup_json) struct json_object *verdict = explain_verdict(config, device);
    assert_string_equal(json_member_string(verdict, "verdict"), word);
}

static void test_words_for_functions(void **state)
{
    static const char skip[] = "'pciPassthrough':[{'targetVm':'a','pciIommuSkipIfShared':true,"
                               "'allow':[{'address':'3:0.0'}]}]";
    (void)state;
    expect_word(skip, "{'kind':'pci','address':'3:0.0','pci_class':6}", "bridge");
    expect_word(skip, "{'kind':'pci','address':'3:0.0','peers':[{'address':'3:0.1'}]}", "shared");
    expect_word(skip, "{'kind':'pci','address':'3:0.0','peers':[{'address':'3:0.1','host_use':'x'}]}", "host");
    expect_word(skip, "{'kind':'pci','address':'3:0.0'}", "attach");
}

// With usbAuthorization on: whether the host may use the device itself.
static void expect_host(const char *device_json, bool authorized, const char *reason)
{
    CLEANUP(cleanup_config)
    struct config *config = config_of("'usbAuthorization':{'enable':true,'hostAllow':[{'bus':1},{'bus':2},{'bus':5}]},"
                                      "'usbPassthrough':[{'targetVm':'a','allow':[{'bus':3},{'bus':5}]}]");
    CLEANUP(cleanup_device) struct device *device = device_of(device_json);
    CLEANUP(cleanup_json) struct json_object *explanation = explain_device(config, device);
    struct json_object *host = json_member(explanation, "host");
    struct json_object *rule = json_object_array_get_idx(json_member(host, "rules"), 1);
    assert_string_equal(json_member_string(host, "reason"), reason);
    assert_int_equal(json_object_get_boolean(json_member(host, "authorized")), authorized);
    assert_string_equal(json_member_string(rule, "path"), "usbAuthorization.hostAllow[1]");
    assert_int_equal(json_object_get_boolean(json_member(rule, "matches")), device->bus == 2);
}

static void test_host_authorization(void **state)
{
    static const char none[] = "no rule of usbAuthorization.hostAllow names it: ";
    static const char false_hub[] = "it says that it is a hub and something else, and no rule of "
                                    "usbAuthorization.hostAllow names it: when it is plugged it stays unauthorized";
    CLEANUP(cleanup_free) char *plain = string_printf("%swhen it is plugged it stays unauthorized", none);
    CLEANUP(cleanup_free) char *passed = string_printf("%sit is authorized only while a VM has it", none);
    (void)state;
    expect_host("{'busnum':2}", true, "allowed by usbAuthorization.hostAllow[1]");
    expect_host("{'busnum':4,'device_class':9,'interfaces':':090000:'}", true, "hubs are always authorized");
    expect_host("{'busnum':4,'device_class':0,'interfaces':':030101:090000:'}", false, false_hub);
    expect_host("{'busnum':4,'device_class':9,'interfaces':':030101:090000:'}", false, false_hub);
    expect_host("{'busnum':2,'device_class':9,'interfaces':':030101:090000:'}", true,
                "allowed by usbAuthorization.hostAllow[1]");
    expect_host("{'busnum':4,'host_use':'/ is mounted from it'}", true, "the host lives on it: / is mounted from it");
    expect_host("{'busnum':4}", false, plain);
    expect_host("{'busnum':3}", false, passed);
    expect_host("{'busnum':5}", false,
                "a VM is to have it: it is the host's by usbAuthorization.hostAllow[2] once a person has detached it");
    // Without it nothing is said of that, nor of what is no USB device.
    expect("'usbAuthorization':{'enable':false,'hostAllow':[{'bus':1}]}", "{'busnum':1}",
           "{'verdict':'none','vm':null,'allowed_vms':[],'group':null,'rule':null,'reason':'no rule allows it',"
           "'groups':[]}");
    expect("'usbAuthorization':{'enable':true}", "{'kind':'evdev'}",
           "{'verdict':'none','vm':null,'allowed_vms':[],'group':null,'rule':null,'reason':'no rule allows it',"
           "'groups':[]}");
}

static void test_f12_given_up_match_is_told(void **state)
{
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'targetVm':'a','allow':[{'serial':'(a+)+$'}],'deny':[{'serial':'(a+)+$'}]}]");
    CLEANUP(cleanup_device)
    struct device *device = device_of("{'serial':'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaax'}");
    CLEANUP(cleanup_json) struct json_object *explanation = explain_device(config, device);
    CLEANUP(cleanup_free) char *text = json_print(explanation);
    (void)state;
    assert_non_null(strstr(text, "\"found\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaax (the match took too long "
                                 "and was given up)\""));
    assert_non_null(strstr(text, "\"deny\":true,\"matches\":true"));
}

// Nothing that a device says reaches people raw, and the explanation stays JSON.
static void test_f47_hostile_names(void **state)
{
    static const struct json_limits limits = {65536, 16};
    CLEANUP(cleanup_config)
    struct config *config =
        config_of("'usbPassthrough':[{'description':'x\\u001b[2J','targetVm':'a','allow':[{'productName':'X',"
                  "'description':'\\u202e'},{'serial':'X'}]}]");
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    device->product_reported = string_copy("\x1b[31mred\xff\n");
    device->serial = string_copy("\xe2\x80\xae\x80");
    device->host_use = string_copy("\x1b]0;title\x07");
    CLEANUP(cleanup_json) struct json_object *explanation = explain_device(config, device);
    CLEANUP(cleanup_free) char *text = json_print(explanation), *error = NULL;
    CLEANUP(cleanup_json) struct json_object *again = json_parse(text, strlen(text), &limits, &error);
    (void)state;
    assert_non_null(again);
    assert_null(strstr(text, "\xe2\x80\xae"));
    assert_null(strstr(text, "\\u001b"));
    assert_non_null(strstr(text, "\\\\x1b[31mred\\\\xff\\\\x0a"));
    assert_non_null(strstr(text, "x\\\\x1b[2J"));
}

// ---- no explanation disagrees with policy

static uint64_t seed;

static unsigned random_below(unsigned limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 11) % limit);
}

static const char *one_of(const char *const *words, size_t count)
{
    return words[random_below((unsigned)count)];
}
#define ONE_OF(words) one_of(words, sizeof(words) / sizeof(*(words)))

// One field of a rule; values are few, so that rules match now and then.
static char *random_field(unsigned field)
{
    static const char *const patterns[] = {".*", "A", "B", "a b", "A_B", ".*b$", "(a|b)+$", "x*"};
    static const char *const globs[] = {"1-1", "1-*", "2-?.1", "*"};
    static const char *const removable[] = {"['fixed']", "['removable','unknown']", "['unknown']"};
    static const char *const names[] = {"vendorName", "productName", "serial", "driverPath"};
    static const char *const numbers[] = {"interfaceClass", "interfaceSubclass", "interfaceProtocol",
                                          "deviceClass",    "deviceSubclass",    "deviceProtocol"};
    if (field < 4)
        return string_printf("'%s':'%s'", names[field], ONE_OF(patterns));
    if (field < 10)
        return string_printf("'%s':%u", numbers[field - 4], random_below(3));
    if (field == 10)
        return string_printf("'portPath':'%s'", ONE_OF(globs));
    if (field == 11)
        return string_printf("'idPath':'%s'", ONE_OF(globs));
    if (field == 12)
        return string_printf("'removable':%s", ONE_OF(removable));
    return string_printf("'%s':%s%u%s",
                         field == 13   ? "bus"
                         : field == 14 ? "port"
                         : field == 15 ? "vendorId"
                                       : "productId",
                         field > 14 ? "'" : "", 1 + random_below(2), field > 14 ? "'" : "");
}

static char *random_rule(void)
{
    struct text text = {0};
    unsigned first = random_below(17), count = 1 + random_below(3);
    text_printf(&text, "{%s", random_below(6) ? "" : "'disable':true,");
    for (unsigned i = 0; i < count; i++) {
        CLEANUP(cleanup_free) char *field = random_field((first + i * 5) % 17);
        text_printf(&text, "%s%s", i > 0 ? "," : "", field);
    }
    text_add(&text, "}");
    return text_take(&text);
}

static void add_random_rules(struct text *text, const char *name, unsigned count)
{
    text_printf(text, ",'%s':[", name);
    for (unsigned i = 0; i < count; i++) {
        CLEANUP(cleanup_free) char *rule = random_rule();
        text_printf(text, "%s%s", i > 0 ? "," : "", rule);
    }
    text_add(text, "]");
}

static struct config *random_config(void)
{
    static const char *const targets[] = {"'targetVm':'a'", "'allowedVms':['b','a']", "'targetVm':'b','disable':true"};
    CLEANUP(text_clear) struct text text = {0};
    text_add(&text, "'usbPassthrough':[");
    unsigned groups = random_below(4);
    for (unsigned i = 0; i < groups; i++) {
        text_printf(&text, "%s{%s", i > 0 ? "," : "", ONE_OF(targets));
        add_random_rules(&text, "allow", random_below(4));
        add_random_rules(&text, "deny", random_below(3));
        text_add(&text, "}");
    }
    text_add(&text, "]");
    return config_of(text.string);
}

static struct device *random_device(void)
{
    static const char *const words[] = {"a", "b", "A b", "a_b", "", "ab"};
    static const char *const paths[] = {"1-1", "2-1.1", "1-2"};
    struct device *device = device_new(DEVICE_USB);
    char **const texts[] = {&device->vendor_database, &device->product_database, &device->vendor_reported,
                            &device->product_reported, &device->serial};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        *texts[i] = random_below(3) ? string_copy(ONE_OF(words)) : NULL;
    device->port_path = random_below(5) ? string_copy(ONE_OF(paths)) : NULL;
    device->id_path = random_below(5) ? string_copy(ONE_OF(paths)) : NULL;
    device->vendor_id = (uint16_t)(1 + random_below(2));
    device->product_id = (uint16_t)(1 + random_below(2));
    device->bus = 1 + random_below(2);
    device->root_port = 1 + random_below(2);
    device->class = (uint8_t)(random_below(40) ? random_below(3) : 9);
    device->subclass = (uint8_t)random_below(3);
    device->protocol = (uint8_t)random_below(3);
    device->removable = (enum usb_removable)random_below(3);
    device->interfaces = memory_new(4, sizeof(*device->interfaces));
    device->interface_count = random_below(4);
    for (size_t i = 0; i < device->interface_count; i++)
        device->interfaces[i] =
            (struct usb_interface){(uint8_t)random_below(3), (uint8_t)random_below(3), (uint8_t)random_below(3)};
    device->drivers = memory_new(2, sizeof(*device->drivers));
    device->driver_count = random_below(2);
    if (device->driver_count > 0)
        device->drivers[0] = string_copy(ONE_OF(words));
    device->host_use = random_below(10) ? NULL : string_copy("swap");
    return device;
}

static bool flag(struct json_object *object, const char *name)
{
    bool value = false;
    assert_true(json_member_bool(object, name, &value));
    return value;
}

// Whether any of COUNT rules matches by rule_matches; what the explanation says of each is the same.
static bool check_rules(struct json_object *list, size_t first, struct rule *const *rules, size_t count, bool deny,
                        const struct rule_subject *subject)
{
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        struct json_object *rule = json_object_array_get_idx(list, first + i);
        bool matches = rule_matches(rules[i], subject, deny);
        assert_string_equal(json_member_string(rule, "path"), rules[i]->path);
        assert_int_equal(flag(rule, "deny"), deny);
        assert_int_equal(flag(rule, "matches"), matches);
        assert_int_equal(json_member_string(rule, "field") != NULL, !matches);
        assert_int_equal(json_member_string(rule, "wanted") != NULL, !matches);
        any = any || matches;
    }
    return any;
}

// Returns what the group does, by rule_matches.
static const char *check_group(struct json_object *explained, const struct group *group,
                               const struct rule_subject *subject)
{
    struct json_object *rules = json_member(explained, "rules");
    bool allowed = !group->disabled && check_rules(rules, 0, group->allow, group->allow_count, false, subject);
    bool denied =
        !group->disabled && check_rules(rules, group->allow_count, group->deny, group->deny_count, true, subject);
    const char *result = group->disabled ? "disabled" : !allowed ? "no match" : denied ? "denies" : "takes";
    size_t count = group->disabled ? 0 : group->allow_count + group->deny_count;
    assert_string_equal(json_member_string(explained, "path"), group->path);
    assert_string_equal(json_member_string(explained, "result"), result);
    assert_int_equal(json_object_array_length(rules), count);
    return result;
}

// The groups lead to the same verdict as policy_decide: the first that takes, else the first that denies.
static void check_explanation(const struct config *config, const struct device *device, unsigned counts[])
{
    CLEANUP(cleanup_json) struct json_object *explanation = explain_device(config, device);
    struct json_object *groups = json_member(explanation, "groups");
    CLEANUP(rule_subject_clear) struct rule_subject subject;
    CLEANUP(verdict_clear) struct verdict verdict;
    policy_decide(config, device, &verdict);
    rule_subject_init(&subject, device);
    const struct group *takes = NULL, *denies = NULL;
    assert_string_equal(json_member_string(explanation, "reason"), verdict.reason); // F42: there is one
    counts[verdict.kind]++;
    if (verdict.kind == VERDICT_HUB)
        return;
    assert_int_equal(json_object_array_length(groups), config->usb.count);
    for (size_t i = 0; i < config->usb.count; i++) {
        const struct group *group = &config->usb.groups[i];
        const char *result = check_group(json_object_array_get_idx(groups, i), group, &subject);
        takes = !takes && strcmp(result, "takes") == 0 ? group : takes;
        denies = !denies && strcmp(result, "denies") == 0 ? group : denies;
    }
    enum verdict_kind kind = takes    ? (device->host_use ? VERDICT_HOST : VERDICT_ALLOWED)
                             : denies ? VERDICT_DENIED
                                      : VERDICT_NO_RULE;
    assert_int_equal(verdict.kind, kind);
    assert_ptr_equal(verdict.group, kind == VERDICT_ALLOWED ? takes : kind == VERDICT_DENIED ? denies : NULL);
    if (verdict.group)
        assert_int_equal(json_object_get_int64(json_member(explanation, "group")), verdict.group - config->usb.groups);
    assert_int_equal(json_member(explanation, "rule") != NULL, verdict.group != NULL);
}

static void test_f42_never_disagrees_with_policy(void **state)
{
    unsigned counts[VERDICT_ALLOWED + 1] = {0};
    (void)state;
    for (unsigned i = 1; i <= 1500; i++) {
        seed = i * 0x9e3779b97f4a7c15U;
        CLEANUP(cleanup_config) struct config *config = random_config();
        for (unsigned j = 0; j < 4; j++) {
            CLEANUP(cleanup_device) struct device *device = random_device();
            check_explanation(config, device, counts);
        }
    }
    for (size_t i = 0; i <= VERDICT_ALLOWED; i++)
        assert_true(i == VERDICT_SHARED || counts[i] > 50); // all verdicts of USB devices were there
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_field_of_usb_rules),
        cmocka_unit_test(test_each_field_of_other_rules),
        cmocka_unit_test(test_f13_composite_device),
        cmocka_unit_test(test_f13_deny_of_an_interface),
        cmocka_unit_test(test_denied),
        cmocka_unit_test(test_deny_without_allow),
        cmocka_unit_test(test_choice_and_index),
        cmocka_unit_test(test_hub_and_host),
        cmocka_unit_test(test_all_inputs),
        cmocka_unit_test(test_verdict_alone),
        cmocka_unit_test(test_f42_iommu_group),
        cmocka_unit_test(test_words_for_functions),
        cmocka_unit_test(test_host_authorization),
        cmocka_unit_test(test_f12_given_up_match_is_told),
        cmocka_unit_test(test_f47_hostile_names),
        cmocka_unit_test(test_f42_never_disagrees_with_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
