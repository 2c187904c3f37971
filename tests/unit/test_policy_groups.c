// Policy on PCI functions: what holds of one function of an IOMMU group holds of the others.
#include <stdlib.h>
#include <string.h>

#include "core/policy.h"
#include "core/rule.h"
#include "unit.h"
#include "util/text.h"

#define FUNCTIONS 4

// The functions of one IOMMU group: the number of each is its device id and its place, 0000:03:0N.0.
struct world {
    struct config *config;
    struct device *functions[FUNCTIONS];
};

// Without peers of its own. CLASS is a letter: a network card, sound, a bridge, or the one to the ISA bus, L.
static struct device *alone(unsigned number, char class)
{
    struct device *device = device_new(DEVICE_PCI);
    device->key = string_printf("pci:0000:03:%02x.0", number);
    device->instance = number + 1;
    device->vendor_id = 0x8086;
    device->product_id = (uint16_t)number;
    device->class = class == 'N' ? 2 : class == 'S' ? 4 : 6;
    device->subclass = class == 'B' ? 4 : class == 'L' ? 1 : 0;
    device->iommu_group = 12;
    return device;
}

// Two VMs and these pciPassthrough groups, in which ' stands for "; a letter of CLASSES for each function.
static struct world world_of(const char *groups, const char *classes)
{
    struct world world = {0};
    CLEANUP(cleanup_free)
    char *text = string_printf("{'pciPassthrough':[%s],'vms':[{'name':'vm1','type':'qemu','socket':'/s'},"
                               "{'name':'vm2','type':'qemu','socket':'/t'}]}",
                               groups);
    for (char *quote = strchr(text, '\''); quote; quote = strchr(quote, '\''))
        *quote = '"';
    struct config_report report;
    world.config = config_parse("f", text, strlen(text), &report);
    if (!world.config)
        fail_msg("%s", report.errors.lines[0]);
    config_report_clear(&report);
    for (unsigned i = 0; i < FUNCTIONS && classes[i]; i++) {
        struct device *device = alone(i, classes[i]);
        device->peers = memory_new(FUNCTIONS, sizeof(struct device *));
        for (unsigned j = 0; j < FUNCTIONS && classes[j]; j++)
            if (j != i)
                device->peers[device->peer_count++] = alone(j, classes[j]);
        world.functions[i] = device;
    }
    return world;
}

static void world_clear(struct world *world)
{
    for (size_t i = 0; i < FUNCTIONS; i++)
        device_release(world->functions[i]);
    config_free(world->config);
}

// The host lives on function NUMBER.
static void live_on(struct world *world, unsigned number, const char *use)
{
    for (size_t i = 0; i < FUNCTIONS && world->functions[i]; i++) {
        struct device *device = world->functions[i];
        if (i == number)
            device->host_use = string_copy(use);
        for (size_t j = 0; j < device->peer_count; j++)
            if (device->peers[j]->product_id == number)
                device->peers[j]->host_use = string_copy(use);
    }
}

// VM: the first of the group, NULL for no group.
static void expect(const struct world *world, unsigned number, enum verdict_kind kind, const char *vm,
                   const char *reason)
{
    struct verdict verdict;
    policy_decide(world->config, world->functions[number], &verdict);
    assert_string_equal(verdict.reason, reason);
    assert_int_equal(verdict.kind, kind);
    assert_true(string_equal(verdict.group ? verdict.group->vms[0] : NULL, vm));
    assert_int_equal(verdict.group != NULL, verdict.rule != NULL);
    assert_int_equal(verdict.added, strstr(reason, "(pciIommuAddAll)") != NULL);
    verdict_clear(&verdict);
}

#define OWN(n) "allowed by pciPassthrough[" #n "].allow[0]"
#define NO_RULE "no rule allows it"

static void test_functions_without_a_shared_group(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world world = world_of("{'targetVm':'vm1','pciIommuAddAll':true,'pciIommuSkipIfShared':true,"
                                  "'allow':[{'deviceId':'0'}]}",
                                  "N");
    expect(&world, 0, VERDICT_ALLOWED, "vm1", OWN(0));
}

static void test_bridges_are_never_passed(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world world = world_of("{'targetVm':'vm1','pciIommuAddAll':true,'pciIommuSkipIfShared':true,"
                                  "'allow':[{'deviceClass':6},{'deviceId':'0'}]}",
                                  "NB");
    expect(&world, 1, VERDICT_HUB, NULL, "bridges are never passed");
    // Nor does one share a group, whatever rule names it: that of another VM is no claim either.
    expect(&world, 0, VERDICT_ALLOWED, "vm1", "allowed by pciPassthrough[0].allow[1]");
    CLEANUP(world_clear)
    struct world other = world_of("{'targetVm':'vm1','pciIommuSkipIfShared':true,'allow':[{'deviceId':'0'}]},"
                                  "{'targetVm':'vm2','allow':[{'deviceClass':6}]}",
                                  "NB");
    expect(&other, 0, VERDICT_ALLOWED, "vm1", OWN(0));
}

// That to the ISA bus is taken from its driver with the others, so the group is shared with the host.
static void test_a_bridge_that_is_bound_shares_its_group(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world skip = world_of("{'targetVm':'vm1','pciIommuAddAll':true,'pciIommuSkipIfShared':true,"
                                 "'allow':[{'deviceClass':6},{'deviceId':'0'}]}",
                                 "NL");
    expect(&skip, 1, VERDICT_HUB, NULL, "bridges are never passed");
    expect(&skip, 0, VERDICT_SHARED, NULL,
           "0000:03:01.0 of the same IOMMU group 12 is not taken by pciPassthrough[0] (pciIommuSkipIfShared)");
    CLEANUP(world_clear)
    struct world plain = world_of("{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceId':'0'}]},"
                                  "{'targetVm':'vm2','allow':[{'deviceClass':6}]}",
                                  "NL");
    expect(&plain, 0, VERDICT_ALLOWED, "vm1", OWN(0)); // nobody's rule can claim it
    expect(&plain, 1, VERDICT_HUB, NULL, "bridges are never passed");
    live_on(&plain, 1, "/ is mounted from it");
    expect(&plain, 0, VERDICT_HOST, NULL,
           "the host lives on 0000:03:01.0, of the same IOMMU group: / is mounted from it");
}

static void test_unnamed_functions_stay_unless_all_are_added(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world plain = world_of("{'targetVm':'vm1','allow':[{'deviceId':'0'}]}", "NS");
    expect(&plain, 0, VERDICT_ALLOWED, "vm1", OWN(0));
    expect(&plain, 1, VERDICT_NO_RULE, NULL, NO_RULE);
    CLEANUP(world_clear)
    struct world all = world_of("{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceId':'0'}]}", "NSB");
    expect(&all, 0, VERDICT_ALLOWED, "vm1", OWN(0));
    expect(&all, 1, VERDICT_ALLOWED, "vm1",
           "allowed with 0000:03:00.0 of its IOMMU group by pciPassthrough[0] (pciIommuAddAll)");
    expect(&all, 2, VERDICT_HUB, NULL, "bridges are never passed");
}

// A deny rule says no: a function is not added against it.
static void test_denied_functions_are_not_added(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world world = world_of("{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'vendorId':'8086'}],"
                                  "'deny':[{'deviceId':'1'}]}",
                                  "NS");
    expect(&world, 0, VERDICT_ALLOWED, "vm1", OWN(0));
    expect(&world, 1, VERDICT_DENIED, "vm1", "denied by pciPassthrough[0].deny[0]");
}

// The first rule that adds wins, as everywhere; an added function adds no further ones.
static void test_the_first_rule_adds(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world world =
        world_of("{'targetVm':'vm1','allow':[{'deviceId':'3'}]},"
                 "{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceId':'2'},{'deviceId':'0'}]},"
                 "{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceId':'1'}]}",
                 "NNSN");
    expect(&world, 3, VERDICT_ALLOWED, "vm1", OWN(0));
    expect(&world, 2, VERDICT_ALLOWED, "vm1", OWN(1));
    expect(&world, 0, VERDICT_ALLOWED, "vm1", "allowed by pciPassthrough[1].allow[1]");
    expect(&world, 1, VERDICT_ALLOWED, "vm1", OWN(2));
    CLEANUP(world_clear)
    struct world unnamed =
        world_of("{'targetVm':'vm1','allow':[{'deviceId':'3'}]},"
                 "{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceId':'2'},{'deviceId':'1'}]},"
                 "{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceId':'1'}]}",
                 "NNSN");
    expect(&unnamed, 0, VERDICT_ALLOWED, "vm1",
           "allowed with 0000:03:02.0 of its IOMMU group by pciPassthrough[1] (pciIommuAddAll)");
    CLEANUP(world_clear)
    struct world upwards =
        world_of("{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceId':'9'},{'deviceId':'1'}]},"
                 "{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceId':'2'}]}",
                 "NNS");
    expect(&upwards, 0, VERDICT_ALLOWED, "vm1",
           "allowed with 0000:03:01.0 of its IOMMU group by pciPassthrough[0] (pciIommuAddAll)");
}

static void test_f34_a_function_of_another_vm_stands_in_the_way(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world world = world_of("{'targetVm':'vm1','allow':[{'deviceId':'0'}]},"
                                  "{'targetVm':'vm2','allow':[{'deviceId':'1'}]}",
                                  "NNS");
    expect(&world, 0, VERDICT_SHARED, NULL,
           "0000:03:01.0 of the same IOMMU group 12 belongs to vm2 by pciPassthrough[1]");
    expect(&world, 1, VERDICT_SHARED, NULL,
           "0000:03:00.0 of the same IOMMU group 12 belongs to vm1 by pciPassthrough[0]");
    // Also if it is added, and to one that is.
    CLEANUP(world_clear)
    struct world added = world_of("{'targetVm':'vm1','allow':[{'deviceId':'0'}]},"
                                  "{'targetVm':'vm2','pciIommuAddAll':true,'allow':[{'deviceId':'1'}]}",
                                  "NNS");
    expect(&added, 2, VERDICT_SHARED, NULL,
           "0000:03:00.0 of the same IOMMU group 12 belongs to vm1 by pciPassthrough[0]");
}

static void test_two_groups_of_one_vm(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world world = world_of("{'targetVm':'vm1','allow':[{'deviceId':'0'}]},"
                                  "{'allowedVms':['vm1'],'allow':[{'deviceId':'1'}]}",
                                  "NN");
    expect(&world, 0, VERDICT_ALLOWED, "vm1", OWN(0));
    expect(&world, 1, VERDICT_ALLOWED, "vm1", OWN(1));
}

// People choose for all functions of one group at once, but nobody knows what they choose for two.
static void test_allowed_vms(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world one = world_of("{'allowedVms':['vm1','vm2'],'allow':[{'deviceClass':2}]}", "NN");
    expect(&one, 0, VERDICT_ALLOWED, "vm1", OWN(0));
    expect(&one, 1, VERDICT_ALLOWED, "vm1", OWN(0));
    CLEANUP(world_clear)
    struct world two = world_of("{'allowedVms':['vm1','vm2'],'allow':[{'deviceId':'0'}]},"
                                "{'targetVm':'vm1','allow':[{'deviceId':'1'}]}",
                                "NN");
    expect(&two, 0, VERDICT_SHARED, NULL,
           "0000:03:01.0 of the same IOMMU group 12 belongs to vm1 by pciPassthrough[1]");
    expect(&two, 1, VERDICT_SHARED, NULL,
           "0000:03:00.0 of the same IOMMU group 12 belongs to vm1 or vm2 by pciPassthrough[0]");
    CLEANUP(world_clear)
    struct world equal = world_of("{'allowedVms':['vm1','vm2'],'allow':[{'deviceId':'0'}]},"
                                  "{'allowedVms':['vm1','vm2'],'allow':[{'deviceId':'1'}]}",
                                  "NN");
    expect(&equal, 0, VERDICT_SHARED, NULL,
           "0000:03:01.0 of the same IOMMU group 12 belongs to vm1 or vm2 by pciPassthrough[1]");
}

static void test_skip_if_shared(void **state)
{
    (void)state;
    static const char skips[] = "0000:03:01.0 of the same IOMMU group 12 is not taken by pciPassthrough[0] "
                                "(pciIommuSkipIfShared)";
    CLEANUP(world_clear)
    struct world unnamed = world_of("{'targetVm':'vm1','pciIommuSkipIfShared':true,'allow':[{'deviceId':'0'}]}", "NS");
    expect(&unnamed, 0, VERDICT_SHARED, NULL, skips);
    expect(&unnamed, 1, VERDICT_NO_RULE, NULL, NO_RULE);
    // Another group takes it, though for the same VM.
    CLEANUP(world_clear)
    struct world other = world_of("{'targetVm':'vm1','pciIommuSkipIfShared':true,'allow':[{'deviceId':'0'}]},"
                                  "{'targetVm':'vm1','allow':[{'deviceId':'1'}]}",
                                  "NS");
    expect(&other, 0, VERDICT_SHARED, NULL, skips);
    expect(&other, 1, VERDICT_ALLOWED, "vm1", OWN(1));
    // The same group takes all of them, or adds them.
    CLEANUP(world_clear)
    struct world both = world_of("{'targetVm':'vm1','pciIommuSkipIfShared':true,'allow':[{'vendorId':'8086'}]}", "NSB");
    expect(&both, 0, VERDICT_ALLOWED, "vm1", OWN(0));
    CLEANUP(world_clear)
    struct world adds = world_of("{'targetVm':'vm1','pciIommuSkipIfShared':true,'pciIommuAddAll':true,"
                                 "'allow':[{'deviceId':'0'}]}",
                                 "NSB");
    expect(&adds, 0, VERDICT_ALLOWED, "vm1", OWN(0));
}

// What its own group leaves on the host does not belong to a VM: it hinders nobody.
static void test_a_skipped_function_is_no_claim(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world world = world_of("{'targetVm':'vm1','allow':[{'deviceId':'0'}]},"
                                  "{'targetVm':'vm2','pciIommuSkipIfShared':true,'allow':[{'deviceId':'1'}]}",
                                  "NN");
    expect(&world, 0, VERDICT_ALLOWED, "vm1", OWN(0));
    expect(&world, 1, VERDICT_SHARED, NULL,
           "0000:03:00.0 of the same IOMMU group 12 belongs to vm1 by pciPassthrough[0]");
}

static void test_what_the_host_lives_on_keeps_its_group(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world world = world_of("{'targetVm':'vm1','pciIommuAddAll':true,'allow':[{'deviceId':'0'}]}", "NSB");
    static const char other[] = "the host lives on 0000:03:01.0, of the same IOMMU group: / is mounted from it";
    live_on(&world, 1, "/ is mounted from it");
    expect(&world, 0, VERDICT_HOST, NULL, other);
    expect(&world, 1, VERDICT_HOST, NULL, "the host lives on it: / is mounted from it");
    expect(&world, 2, VERDICT_HUB, NULL, "bridges are never passed");
    // What no rule takes is not said to be kept for the host.
    CLEANUP(world_clear)
    struct world unnamed = world_of("{'targetVm':'vm1','allow':[{'deviceId':'7'}]}", "NS");
    live_on(&unnamed, 1, "/ is mounted from it");
    expect(&unnamed, 0, VERDICT_NO_RULE, NULL, NO_RULE);
    expect(&unnamed, 1, VERDICT_NO_RULE, NULL, NO_RULE);
}

static void test_a_denied_function_says_so_in_any_company(void **state)
{
    (void)state;
    CLEANUP(world_clear)
    struct world world = world_of("{'targetVm':'vm1','allow':[{'vendorId':'8086'}],'deny':[{'deviceId':'0'}]},"
                                  "{'targetVm':'vm2','allow':[{'deviceId':'2'}]}",
                                  "NS");
    live_on(&world, 1, "x");
    expect(&world, 0, VERDICT_DENIED, "vm1", "denied by pciPassthrough[0].deny[0]");
}

static void test_host_allow(void **state)
{
    (void)state;
    static const char text[] = "{\"usbAuthorization\":{\"enable\":true,\"hostAllow\":["
                               "{\"bus\":1,\"disable\":true},{\"bus\":2},{\"interfaceClass\":3},"
                               "{\"productName\":\"(a+)+$\"}]}}";
    struct config_report report;
    CLEANUP(cleanup_config) struct config *config = config_parse("f", text, strlen(text), &report);
    assert_non_null(config);
    config_report_clear(&report);
    CLEANUP(cleanup_device) struct device *device = device_new(DEVICE_USB);
    const struct rule *rule = NULL;
    device->bus = 1;
    assert_false(policy_host_allows(config, device, &rule));
    assert_null(rule);
    assert_false(policy_host_allows(config, device, NULL));
    device->interfaces = memory_new(1, sizeof(*device->interfaces));
    device->interfaces[0] = (struct usb_interface){3, 1, 1};
    device->interface_count = 1;
    assert_true(policy_host_allows(config, device, &rule));
    assert_string_equal(rule->path, "usbAuthorization.hostAllow[2]");
    device->bus = 2;
    assert_true(policy_host_allows(config, device, &rule));
    assert_string_equal(rule->path, "usbAuthorization.hostAllow[1]");
    assert_true(policy_host_allows(config, device, NULL));
    // A match that is given up is no permission.
    CLEANUP(cleanup_device) struct device *slow = device_new(DEVICE_USB);
    slow->product_reported = string_copy("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
    assert_false(policy_host_allows(config, slow, &rule));
    assert_null(rule);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions_without_a_shared_group),
        cmocka_unit_test(test_bridges_are_never_passed),
        cmocka_unit_test(test_a_bridge_that_is_bound_shares_its_group),
        cmocka_unit_test(test_unnamed_functions_stay_unless_all_are_added),
        cmocka_unit_test(test_denied_functions_are_not_added),
        cmocka_unit_test(test_the_first_rule_adds),
        cmocka_unit_test(test_f34_a_function_of_another_vm_stands_in_the_way),
        cmocka_unit_test(test_two_groups_of_one_vm),
        cmocka_unit_test(test_allowed_vms),
        cmocka_unit_test(test_skip_if_shared),
        cmocka_unit_test(test_a_skipped_function_is_no_claim),
        cmocka_unit_test(test_what_the_host_lives_on_keeps_its_group),
        cmocka_unit_test(test_a_denied_function_says_so_in_any_company),
        cmocka_unit_test(test_host_allow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
