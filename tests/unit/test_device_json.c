// Devices as JSON: there and back, hostile files, and random bytes.
#include <stdlib.h>
#include <string.h>

#include "core/device_json.h"
#include "core/rule.h"
#include "unit.h"
#include "util/json.h"
#include "util/text.h"

static const struct json_limits limits = {1024 * 1024, 32};

// The value of JSON, in which ' stands for ".
static struct json_object *value_of(const char *json)
{
    CLEANUP(cleanup_free) char *text = string_copy(json), *error = NULL;
    for (char *quote = strchr(text, '\''); quote; quote = strchr(quote, '\''))
        *quote = '"';
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
    assert_null(error);
    assert_int_equal(device->references, 1);
    assert_int_not_equal(device->instance, 0);
    assert_non_null(device->key);
    return device;
}

static void expect_error(const char *json, const char *expected)
{
    CLEANUP(cleanup_json) struct json_object *value = value_of(json);
    CLEANUP(cleanup_free) char *error = NULL;
    assert_null(device_from_json(value, &error));
    assert_string_equal(error, expected);
}

static struct device *full_usb(void)
{
    static const struct usb_interface interfaces[] = {{3, 1, 2}, {8, 6, 80}, {255, 0, 9}};
    struct device *device = device_new(DEVICE_USB);
    device->key = string_copy("usb:1-2.3");
    device->instance = 1;
    device->node = string_copy("/dev/bus/usb/001/004");
    device->vendor_database = string_copy("Logitech, Inc.");
    device->product_database = string_copy("Unifying Receiver");
    device->vendor_reported = string_copy(" Logitech");
    device->product_reported = string_copy("USB Receiver é");
    device->serial = string_copy("A1");
    device->vendor_id = 0x46d;
    device->product_id = 0xc52b;
    device->bus = 1;
    device->address = 4;
    device->port_path = string_copy("1-2.3");
    device->root_port = 2;
    device->id_path = string_copy("pci-0000:00:14.0-usb-0:2.3");
    device->speed = SPEED_HIGH;
    device->class = 239;
    device->subclass = 2;
    device->protocol = 1;
    device->interfaces = memory_new(3, sizeof interfaces[0]);
    memcpy(device->interfaces, interfaces, sizeof interfaces);
    device->interface_count = 3;
    device->removable = REMOVABLE_FIXED;
    device->drivers = memory_new(2, sizeof *device->drivers);
    device->drivers[device->driver_count++] = string_copy("/m/a.ko");
    device->drivers[device->driver_count++] = string_copy("/m/b.ko");
    return device;
}

static void test_form_of_usb(void **state)
{
    CLEANUP(cleanup_device) struct device *device = full_usb();
    CLEANUP(cleanup_json) struct json_object *value = device_to_json(device);
    CLEANUP(cleanup_json)
    struct json_object *wanted = value_of(
        "{'kind':'usb','device_node':'/dev/bus/usb/001/004','vid':'046d','pid':'c52b','vendor_name':'Logitech, Inc.',"
        "'product_name':'Unifying Receiver','interfaces':':030102:080650:ff0009:','device_class':239,"
        "'device_subclass':2,'device_protocol':1,'busnum':1,'devnum':4,'portnum':2,'serial':'A1','sys_name':'1-2.3',"
        "'port_path':'1-2.3','id_path':'pci-0000:00:14.0-usb-0:2.3','speed':'high','removable':'fixed',"
        "'drivers':['/m/a.ko','/m/b.ko'],'vendor_reported':' Logitech','product_reported':'USB Receiver é',"
        "'host_use':null}");
    CLEANUP(cleanup_free) char *got = json_print(value), *want = json_print(wanted);
    (void)state;
    assert_string_equal(got, want);
}

static void test_form_of_a_bare_device(void **state)
{
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    device->product_reported = string_copy("Thing");
    CLEANUP(cleanup_json) struct json_object *value = device_to_json(device);
    static const char *const absent[] = {"device_node", "vendor_name", "interfaces", "serial",
                                         "sys_name",    "port_path",   "id_path",    "host_use"};
    (void)state;
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        assert_true(json_object_object_get_ex(value, absent[i], NULL));
        assert_null(json_member(value, absent[i]));
    }
    assert_string_equal(json_member_string(value, "product_name"), "Thing");
    assert_string_equal(json_member_string(value, "removable"), "unknown");
    assert_string_equal(json_member_string(value, "vid"), "0000");
}

// What policy sees of a device is the same after a way there and back, printed and parsed.
static void expect_round_trip(const struct device *device)
{
    CLEANUP(cleanup_json) struct json_object *value = device_to_json(device);
    CLEANUP(cleanup_free) char *text = json_print(value), *error = NULL;
    CLEANUP(cleanup_json) struct json_object *parsed = json_parse(text, strlen(text), &limits, &error);
    assert_non_null(parsed);
    CLEANUP(cleanup_device) struct device *again = device_from_json(parsed, &error);
    if (!again)
        fail_msg("%s: %s", text, error);
    CLEANUP(cleanup_json) struct json_object *value_again = device_to_json(again);
    CLEANUP(cleanup_free) char *text_again = json_print(value_again);
    assert_string_equal(text_again, text);
    assert_true(device_equal(device, again));
}

static void test_round_trip_of_usb(void **state)
{
    CLEANUP(cleanup_device) struct device *device = full_usb();
    (void)state;
    expect_round_trip(device);
    char **const places[] = {&device->vendor_database, &device->product_database, &device->vendor_reported,
                             &device->serial,          &device->id_path,          &device->node};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        free(*places[i]);
        *places[i] = NULL;
        expect_round_trip(device);
    }
    free(device->product_reported);
    device->product_reported = NULL;
    device->vendor_database = string_copy("of the database alone");
    device->host_use = string_copy("/home is mounted from it");
    expect_round_trip(device);
    for (unsigned speed = SPEED_UNKNOWN; speed <= SPEED_SUPER; speed++) {
        device->speed = (enum usb_speed)speed;
        device->removable = (enum usb_removable)(speed % 3);
        expect_round_trip(device);
    }
    device->interface_count = 0;
    device->class = 0;
    expect_round_trip(device);
}

static struct device *full_peer(void)
{
    struct device *device = device_new(DEVICE_PCI);
    device->key = string_copy("pci:0000:00:14.2");
    device->instance = 1;
    device->iommu_group = 12;
    device->vendor_id = 0x8086;
    device->product_id = 0xa0ef;
    device->class = 5;
    device->product_database = string_copy("RAM");
    device->host_use = string_copy("x");
    return device;
}

static void test_round_trip_of_others(void **state)
{
    CLEANUP(cleanup_device) struct device *input = device_new(DEVICE_INPUT);
    CLEANUP(cleanup_device) struct device *function = device_new(DEVICE_PCI);
    (void)state;
    input->key = string_copy("/dev/input/event5"); // the number in its usual key is not told
    input->instance = function->instance = 1;
    input->node = string_copy("/dev/input/event5");
    input->product_reported = string_copy("AT Translated Set 2 keyboard");
    input->vendor_id = 1;
    input->product_id = 2;
    input->path_tag = string_copy("platform-i8042-serio-0");
    input->properties = memory_new(2, sizeof *input->properties);
    input->properties[input->property_count++] = string_copy("ID_INPUT=1");
    input->properties[input->property_count++] = string_copy("NAME=a=b");
    expect_round_trip(input);
    function->key = string_copy("pci:0000:00:14.3");
    function->vendor_id = 0x8086;
    function->product_id = 0xa0f0;
    function->class = 2;
    function->subclass = 128;
    function->protocol = 7;
    function->vendor_database = string_copy("Intel");
    expect_round_trip(function);
    function->iommu_group = 12;
    function->subsystem_vendor_id = 0x8086;
    function->subsystem_id = 0x4070;
    function->host_use = string_copy("the default route is on it");
    expect_round_trip(function);
    CLEANUP(cleanup_device) struct device *bare = device_of("{'kind':'pci','address':'00:14.0','iommu_group':12}");
    function->peers = memory_new(2, sizeof *function->peers);
    function->peers[function->peer_count++] = device_reference(bare);
    expect_round_trip(function);
    function->peers[function->peer_count++] = full_peer();
    expect_round_trip(function);
}

// The members and values of the Python vhotplug's pci_list, then ours.
static void test_members_of_a_function(void **state)
{
    CLEANUP(cleanup_device)
    struct device *device =
        device_of("{'kind':'pci','address':'0000:00:1f.3','vid':'8086','did':'a0c8','pci_class':4,'pci_subclass':3,"
                  "'pci_prog_if':128,'pci_subsystem_vendor_id':'1028','pci_subsystem_id':'0a1b','iommu_group':14,"
                  "'driver':'snd_hda_intel','vendor_name':'Intel Corporation','device_name':'Audio',"
                  "'vendor_reported':null,'product_reported':null,'peers':[{'address':'0000:00:1f.0'}]}");
    static const char function[] =
        "'address':'%s','driver':%s,'vendor_id':%u,'device_id':%u,'vid':'%s','did':'%s','vendor_name':%s,"
        "'product_name':%s,'device_name':%s,'pci_class':%u,'pci_subclass':%u,'pci_prog_if':%u,"
        "'pci_subsystem_vendor_id':'%s','pci_subsystem_id':'%s','vendor_reported':null,'product_reported':null,"
        "'host_use':null";
    CLEANUP(cleanup_free)
    char *own = string_printf(function, "0000:00:1f.3", "'snd_hda_intel'", 0x8086U, 0xa0c8U, "8086", "A0C8",
                              "'Intel Corporation'", "'Audio'", "'Audio'", 4U, 3U, 128U, "1028", "0A1B");
    CLEANUP(cleanup_free)
    char *peer = string_printf(function, "0000:00:1f.0", "null", 0U, 0U, "0000", "0000", "null", "null", "null", 0U, 0U,
                               0U, "0000", "0000");
    CLEANUP(cleanup_free)
    char *expected = string_printf("{'kind':'pci',%s,'iommu_group':14,'peers':[{%s}]}", own, peer);
    CLEANUP(cleanup_json) struct json_object *written = device_to_json(device), *wanted = value_of(expected);
    CLEANUP(cleanup_free) char *got = json_print(written), *want = json_print(wanted);
    (void)state;
    assert_string_equal(got, want);
    CLEANUP(cleanup_device) struct device *alone = device_new(DEVICE_PCI);
    CLEANUP(cleanup_json) struct json_object *value = device_to_json(alone);
    assert_true(json_object_object_get_ex(value, "iommu_group", NULL));
    assert_null(json_member(value, "iommu_group"));
    assert_null(json_member(value, "driver"));
}

// A device as a person writes it, or as the API of the Python vhotplug gave it.
static void test_short_forms(void **state)
{
    CLEANUP(cleanup_device)
    struct device *device =
        device_of("{'vid':'046D','pid':'0xc52b','busnum':'3','devnum':'17','portnum':null,'sys_name':'3-4.1',"
                  "'device_class':'0','interfaces':'030102:030102:080650','serial':'','product_name':'USB Mouse',"
                  "'speed':null,'vm':'vm1','allowed_vms':['vm1'],'a member of tomorrow':{'x':[1]}}");
    CLEANUP(rule_subject_clear) struct rule_subject subject;
    (void)state;
    assert_int_equal(device->vendor_id, 0x46d);
    assert_int_equal(device->product_id, 0xc52b);
    assert_int_equal(device->bus, 3);
    assert_int_equal(device->address, 17);
    assert_int_equal(device->root_port, 4);
    assert_string_equal(device->port_path, "3-4.1");
    assert_int_equal(device->interface_count, 2); // each once
    assert_int_equal(device->interfaces[1].protocol, 0x50);
    assert_null(device->serial);
    rule_subject_init(&subject, device); // a name that may be of the database or reported counts as both
    assert_int_equal(subject.product_count, 2);
    assert_string_equal(subject.product[1], "USB_Mouse");
}

static void test_port_path_and_bus(void **state)
{
    static const struct {
        const char *json;
        const char *port_path, *key;
        unsigned bus, root_port;
    } cases[] = {
        {"{'port_path':'1-2.3'}", "1-2.3", "usb:1-2.3", 1, 2},
        {"{'port_path':'1-2.3','sys_name':'9-9'}", "1-2.3", "usb:1-2.3", 1, 2},
        {"{'port_path':'1-2.3','busnum':4,'portnum':5}", "1-2.3", "usb:1-2.3", 4, 5},
        {"{'port_path':'12-10','portnum':0}", "12-10", "usb:12-10", 12, 0},
        {"{'sys_name':'usb3'}", "usb3", "usb:usb3", 3, 0},
        {"{'busnum':4,'devnum':7}", NULL, "usb:4:7", 4, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CLEANUP(cleanup_device) struct device *device = device_of(cases[i].json);
        assert_true(string_equal(device->port_path, cases[i].port_path));
        assert_string_equal(device->key, cases[i].key);
        assert_int_equal(device->bus, cases[i].bus);
        assert_int_equal(device->root_port, cases[i].root_port);
    }
}

static void test_forms_of_others(void **state)
{
    CLEANUP(cleanup_device)
    struct device *input = device_of("{'kind':'evdev','product_name':'Pen','properties':{'ID_INPUT':1,'A':'b=c',"
                                     "'gone':null}}");
    CLEANUP(cleanup_device)
    struct device *function = device_of("{'kind':'pci','address':'01:00.0','vendor_id':'8086','device_id':'A0F0',"
                                        "'device_name':'Wi-Fi','driver':'iwlwifi','pci_class':'2'}");
    CLEANUP(cleanup_device) struct device *placeless = device_of("{'kind':'pci','vid':'1','did':'2'}");
    (void)state;
    assert_int_equal(input->kind, DEVICE_INPUT);
    assert_string_equal(input->product_reported, "Pen");
    assert_int_equal(input->property_count, 2);
    assert_string_equal(input->properties[0], "ID_INPUT=1");
    assert_string_equal(input->properties[1], "A=b=c");
    assert_string_equal(device_pci_address(function), "0000:01:00.0");
    assert_int_equal(function->product_id, 0xa0f0);
    assert_int_equal(function->class, 2);
    assert_string_equal(function->product_database, "Wi-Fi");
    assert_string_equal(function->driver, "iwlwifi");
    assert_int_equal(function->iommu_group, -1);
    CLEANUP(cleanup_device)
    struct device *numbers = device_of("{'kind':'pci','vendor_id':32902,'device_id':41200,'iommu_group':'7',"
                                       "'peers':[{'address':'1:0.1','vid':'10DE','peers':[{}]}]}");
    assert_int_equal(numbers->vendor_id, 0x8086); // as the API has them
    assert_int_equal(numbers->product_id, 0xa0f0);
    assert_int_equal(numbers->iommu_group, 7);
    assert_int_equal(numbers->peers[0]->iommu_group, 7);
    assert_int_equal(numbers->peers[0]->vendor_id, 0x10de);
    assert_int_equal(numbers->peers[0]->peer_count, 0);
    assert_string_equal(device_pci_address(numbers->peers[0]), "0000:01:00.1");
    assert_null(device_pci_address(placeless));
    assert_int_equal(placeless->product_id, 2);
    assert_null(device_pci_address(input));
}

static void test_errors_name_the_member(void **state)
{
    static const char hex[] = "must be up to four hex digits";
    CLEANUP(cleanup_free) char *vid = string_printf("vid: %s in quotes, such as \"046d\", not a number", hex);
    CLEANUP(cleanup_free) char *pid = string_printf("pid: %s, such as \"046d\"", hex);
    CLEANUP(cleanup_free)
    char *several = string_printf("pid: %s, such as \"046d\"; busnum: must be from 0 to 65535; speed: must be unknown, "
                                  "low, full, high or super",
                                  hex);
    (void)state;
    expect_error("[]", "a device must be an object in { }");
    expect_error("'usb'", "a device must be an object in { }");
    expect_error("{'kind':'scsi'}", "kind: must be usb, evdev or pci");
    expect_error("{'kind':7}", "kind: must be a text in quotes, not a number");
    expect_error("{'vid':1133}", vid);
    expect_error("{'pid':'c52bb'}", pid);
    expect_error("{'pid':'','busnum':-1,'speed':'fast'}", several);
    expect_error("{'serial':['A']}", "serial: must be a text in quotes, not a list");
    expect_error("{'serial':'a\\u0000b'}", "serial: has a NUL in it");
    expect_error("{'device_class':256}", "device_class: must be from 0 to 255");
    expect_error("{'device_class':'ff'}", "device_class: must be a whole number from 0 to 255, not a text");
    expect_error("{'device_class':3.5}", "device_class: must be a whole number from 0 to 255, not a fraction");
    expect_error("{'devnum':99999999999999999999}", "devnum: must be from 0 to 65535");
    expect_error("{'removable':'maybe'}", "removable: must be unknown, fixed or removable");
    expect_error("{'removable':true}", "removable: must be a text in quotes, not true");
    expect_error("{'port_path':'1-2;3'}", "port_path: must be a port chain such as \"1-2.3\"");
    expect_error("{'sys_name':'1-2:1.0'}", "sys_name: must be a port chain such as \"1-2.3\"");
    expect_error("{'sys_name':'usb1\\n'}", "sys_name: must be a port chain such as \"1-2.3\"");
    expect_error("{'drivers':'x'}", "drivers: must be a list in [ ], not a text");
    expect_error("{'drivers':['x',3]}", "drivers[1]: must be a text in quotes, not a number");
    expect_error("{'kind':'evdev','properties':['A=1','A']}", "properties[1]: must be \"NAME=value\"");
    expect_error("{'kind':'evdev','properties':['=1']}", "properties[0]: must be \"NAME=value\"");
    expect_error("{'kind':'evdev','properties':{'A=B':'1'}}", "properties.A=B: is no name of a property");
    expect_error("{'kind':'evdev','properties':{'A':[]}}", "properties.A: must be a text in quotes, not a list");
    expect_error("{'kind':'evdev','properties':3}", "properties: must be a list in [ ], not a number");
    expect_error("{'kind':'pci','address':'0000:00:20.0'}", "address: must be a PCI address such as \"0000:00:14.3\"");
    expect_error("{'kind':'pci','iommu_group':-1}", "iommu_group: must be from 0 to 2147483647");
    expect_error("{'kind':'pci','vendor_id':65536}", "vendor_id: must be from 0 to 65535");
    expect_error("{'vendor_id':5}", "vendor_id: must be up to four hex digits in quotes, such as \"046d\", not a "
                                    "number"); // decimal or hex: nobody knows
    expect_error("{'kind':'pci','peers':{}}", "peers: must be a list in [ ], not an object");
    expect_error(
        "{'kind':'pci','peers':[{},{'address':'x'},'0000:00:14.3']}",
        "peers[1].address: must be a PCI address such as \"0000:00:14.3\"; peers[2]: must be an object in { }");
    expect_error("{'kind':'pci','address':'00:14.3 '}", "address: must be a PCI address such as \"0000:00:14.3\"");
}

static void test_bad_interfaces(void **state)
{
    static const char *const bad[] = {"03010", ":03010:", "0301022", ":03010g:", "::", ":030102::", "03 102", "0x0102"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CLEANUP(cleanup_free) char *json = string_printf("{'interfaces':'%s'}", bad[i]);
        expect_error(json, "interfaces: must be six hex digits an interface, such as \":030102:080650:\"");
    }
}

// COUNT times BEFORE, six digits that count, and AFTER, within BEGIN and END.
static char *repeated(const char *begin, const char *before, size_t count, const char *after, const char *end)
{
    struct text text = {0};
    text_add(&text, begin);
    for (size_t i = 0; i < count; i++)
        text_printf(&text, "%s%06zu%s", before, i, after);
    text_add(&text, end);
    return text_take(&text);
}

static void test_f46_counts_and_lengths_are_bounded(void **state)
{
    CLEANUP(cleanup_free) char *most = repeated("{'interfaces':'", ":", DEVICE_INTERFACES_MAX, "", "'}");
    CLEANUP(cleanup_free) char *more = repeated("{'interfaces':'", ":", DEVICE_INTERFACES_MAX + 1, "", "'}");
    CLEANUP(cleanup_free) char *drivers = repeated("{'drivers':[", "'", DEVICE_DRIVERS_MAX, "',", "'x']}");
    CLEANUP(cleanup_free) char *listed = repeated("{'kind':'evdev','properties':[", "'A=", 256, "',", "'B=1']}");
    CLEANUP(cleanup_free) char *members = repeated("{'kind':'evdev','properties':{", "'A", 256, "':1,", "'B':1}}");
    CLEANUP(cleanup_free) char *allowed = repeated("{'serial':'", "", 682, "", "abcd'}");
    CLEANUP(cleanup_free) char *length = repeated("{'serial':'", "", 682, "", "abcde'}");
    CLEANUP(cleanup_free) char *wrong = repeated("{'kind':'evdev','properties':[", "1", 20, ",", "0]}");
    CLEANUP(cleanup_free) char *peers = repeated("{'kind':'pci','peers':[", "{'x':1", 256, "},", "{}]}");
    CLEANUP(cleanup_device) struct device *device = device_of(most);
    CLEANUP(cleanup_device) struct device *longest = device_of(allowed);
    (void)state;
    assert_int_equal(device->interface_count, DEVICE_INTERFACES_MAX);
    assert_int_equal(strlen(longest->serial), 4096);
    expect_error(more, "interfaces: has more than 256 interfaces");
    expect_error(drivers, "drivers: has more than 32 items");
    expect_error(listed, "properties: has more than 256 items");
    expect_error(members, "properties: has more than 256 items");
    expect_error(peers, "peers: has more than 256 items");
    expect_error(length, "serial: is longer than 4096 bytes");
    CLEANUP(cleanup_json) struct json_object *value = value_of(wrong);
    CLEANUP(cleanup_free) char *error = NULL;
    assert_null(device_from_json(value, &error));
    assert_non_null(strstr(error, "; and 13 more"));
}

// Whatever a device says: what comes out is JSON and safe, may be read back, and stays as it is from then on.
static void test_f47_hostile_strings_are_made_safe(void **state)
{
    char long_name[5001];
    memset(long_name, '\x1b', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const char *const names[] = {"\x1b[31mred", "\xff\xfe", "\xe2\x80\xae", "a\nb\"\\", "\xed\xa0\x80", long_name};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
        char **const places[] = {&device->vendor_database,
                                 &device->product_database,
                                 &device->vendor_reported,
                                 &device->product_reported,
                                 &device->serial,
                                 &device->id_path,
                                 &device->node};
        for (size_t j = 0; j < sizeof places / sizeof *places; j++)
            *places[j] = string_copy(names[i]);
        CLEANUP(cleanup_json) struct json_object *value = device_to_json(device);
        CLEANUP(cleanup_free) char *text = json_print(value), *error = NULL;
        assert_null(strchr(text, '\x1b'));
        assert_null(strstr(text, "\\u001b"));
        assert_null(strstr(text, "\xe2\x80\xae"));
        CLEANUP(cleanup_json) struct json_object *parsed = json_parse(text, strlen(text), &limits, &error);
        assert_non_null(parsed); // only valid UTF-8 is
        CLEANUP(cleanup_device) struct device *again = device_from_json(parsed, &error);
        assert_non_null(again);
        CLEANUP(cleanup_json) struct json_object *value_again = device_to_json(again);
        CLEANUP(cleanup_free) char *serial = string_copy(json_member_string(value, "serial"));
        if (i + 1 < sizeof names / sizeof *names)
            assert_string_equal(json_member_string(value_again, "serial"), serial);
    }
}

// ---- random bytes

static uint64_t seed;

static unsigned random_below(unsigned limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 11) % limit);
}

// Changes some bytes, or puts a piece of another place here.
static void mutate(char *text, size_t length)
{
    static const char pieces[] = "\"\\{}[]:,0129-.eEtrufalsn \x00\xff\x1b";
    for (unsigned count = 1 + random_below(4); count > 0; count--) {
        size_t at = random_below((unsigned)length), from = random_below((unsigned)length);
        size_t run = random_below(12);
        if (random_below(2))
            text[at] = pieces[random_below(sizeof pieces - 1)];
        else if (at + run <= length && from + run <= length)
            memmove(text + at, text + from, run);
    }
}

// Reads TEXT as a device. If it is one, it can be written and read again.
static bool try_bytes(const char *text, size_t length)
{
    CLEANUP(cleanup_free) char *error = NULL;
    CLEANUP(cleanup_json) struct json_object *value = json_parse(text, length, &limits, &error);
    if (!value)
        return false;
    CLEANUP(cleanup_device) struct device *device = device_from_json(value, &error);
    assert_true(!device == !!error);
    if (!device)
        return false;
    CLEANUP(cleanup_free) char *title = device_title(device);
    assert_non_null(title);
    CLEANUP(cleanup_json) struct json_object *written = device_to_json(device);
    CLEANUP(cleanup_device) struct device *again = device_from_json(written, &error);
    if (!again)
        fail_msg("%s: %s", json_object_to_json_string(written), error);
    return true;
}

static void test_f46_mutated_json(void **state)
{
    static const char *const texts[] = {
        "{\"kind\":\"evdev\",\"name\":\"AT\",\"path_tag\":\"p\",\"properties\":{\"ID_INPUT\":1,\"B\":\"x\"}}",
        "{\"kind\":\"evdev\",\"properties\":[\"A=1\",\"B=2\"],\"product_reported\":null,\"product_name\":\"x\"}",
        "{\"kind\":\"pci\",\"address\":\"0000:00:14.3\",\"vid\":\"8086\",\"pci_class\":2,\"driver\":\"d\"}",
        "{\"kind\":\"pci\",\"iommu_group\":3,\"peers\":[{\"address\":\"01:0.1\",\"pci_class\":6},{}],\"vid\":\"1\"}",
        "{\"vid\":\"046d\",\"interfaces\":\":030102:080650:\",\"port_path\":\"1-2\",\"drivers\":[\"a\",\"b\"]}",
    };
    CLEANUP(cleanup_device) struct device *device = full_usb();
    CLEANUP(cleanup_json) struct json_object *value = device_to_json(device);
    CLEANUP(cleanup_free) char *full = json_print(value);
    unsigned devices = 0;
    (void)state;
    for (unsigned i = 1; i <= 20000; i++) {
        seed = i * 0x9e3779b97f4a7c15U;
        unsigned which = random_below(6);
        const char *text = which < 5 ? texts[which] : full;
        size_t length = strlen(text);
        CLEANUP(cleanup_free) char *copy = memory_new(length, 1); // no byte more: reading beyond is seen
        memcpy(copy, text, length);
        mutate(copy, length);
        devices += try_bytes(copy, length - (random_below(8) ? 0 : random_below((unsigned)length)));
    }
    assert_true(devices > 200); // some mutations leave a device
    assert_true(devices < 19800);
}

static void test_f46_random_bytes(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 5000; i++) {
        seed = i * 0x9e3779b97f4a7c15U;
        size_t length = random_below(200);
        CLEANUP(cleanup_free) char *bytes = memory_new(length, 1);
        for (size_t j = 0; j < length; j++)
            bytes[j] = (char)random_below(256);
        assert_false(try_bytes(bytes, length));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form_of_usb),
        cmocka_unit_test(test_form_of_a_bare_device),
        cmocka_unit_test(test_round_trip_of_usb),
        cmocka_unit_test(test_round_trip_of_others),
        cmocka_unit_test(test_members_of_a_function),
        cmocka_unit_test(test_short_forms),
        cmocka_unit_test(test_port_path_and_bus),
        cmocka_unit_test(test_forms_of_others),
        cmocka_unit_test(test_errors_name_the_member),
        cmocka_unit_test(test_bad_interfaces),
        cmocka_unit_test(test_f46_counts_and_lengths_are_bounded),
        cmocka_unit_test(test_f47_hostile_strings_are_made_safe),
        cmocka_unit_test(test_f46_mutated_json),
        cmocka_unit_test(test_f46_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
