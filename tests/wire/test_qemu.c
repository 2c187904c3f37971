// Operations on scripted QEMUs: what is asked, what is told, and every kind of fault in between.
#include "bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_qemu.h"

static void begin(struct bench *bench, struct fake_qemu *fake)
{
    fake_qemu_start(fake, bench->loop, bench->directory, "vm1");
    bench_add_vm(bench, "vm1", "vm1");
    assert_true(bench_expect(bench, "up", "vm1")->instance != 0);
}

static const struct result *expect_done(struct bench *bench, enum result_kind kind)
{
    const struct result *result = &bench_expect(bench, "done", "vm1")->result;
    if (result->kind != kind)
        fail_msg("result %d, not %d: %s", result->kind, kind, result->text ? result->text : "");
    assert_int_equal(result->serial, bench->serial);
    return result;
}

static const struct attachment *find(const struct result *result, const char *object)
{
    for (size_t i = 0; i < result->attachment_count; i++)
        if (strcmp(result->attachments[i].object, object) == 0)
            return &result->attachments[i];
    static const struct attachment none;
    fail_msg("%s is not listed", object);
    return &none;
}

static const struct result *attach(struct bench *bench, unsigned bus, unsigned address, int fd, enum result_kind kind)
{
    struct device *device = bench_device(bus, address, SPEED_HIGH);
    bench_attach(bench, "vm1", device, fd);
    device_release(device);
    return expect_done(bench, kind);
}

static void test_f40_list_tells_ours_from_foreign(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_add(&fake, "vhotplug-usb-1-4-abc-7", "usb-host");
    fake_qemu_add(&fake, "vhotplug-usb-1-5-abd-8", "usb-host");
    fake.devices[1].detached = true;
    fake_qemu_add(&fake, "stick", "usb-host");
    fake.devices[2].bus = 3;
    fake.devices[2].address = 6;
    fake_qemu_add(&fake, "net0", "virtio-net-pci");
    fake_qemu_add(&fake, "gpu", "vfio-pci");
    fake_qemu_add(&fake, "vhotplug-odd", "usb-host");
    begin(bench, &fake);
    bench_list(bench, "vm1");
    const struct result *result = expect_done(bench, RESULT_DONE);
    assert_true(result->listed);
    assert_int_equal(result->attachment_count, 5);
    const struct attachment *ours = find(result, "vhotplug-usb-1-4-abc-7");
    assert_true(ours && ours->ours && !ours->dead && ours->instance == 0xabc);
    assert_true(find(result, "vhotplug-usb-1-5-abd-8")->dead);
    const struct attachment *foreign = find(result, "stick");
    assert_true(foreign && !foreign->ours && foreign->bus == 3 && foreign->address == 6);
    assert_false(find(result, "gpu")->ours);
    assert_true(find(result, "vhotplug-odd")->ours);
    bench_detach(bench, "vm1", "stick");
    expect_done(bench, RESULT_REFUSED);
    assert_int_equal(fake_qemu_asked(&fake, "device_del"), 0);
    fake_qemu_stop(&fake);
}

static void test_f02_two_devices_with_alike_numbers(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    attach(bench, 1, 12, -1, RESULT_DONE);
    const struct result *result = attach(bench, 11, 2, -1, RESULT_DONE);
    assert_int_equal(result->attachment_count, 2);
    char first[OBJECT_NAME_MAX];
    for (size_t i = 0; i < 2; i++)
        if (result->attachments[i].instance == 1012)
            memcpy(first, result->attachments[i].object, sizeof first);
    bench_detach(bench, "vm1", first);
    result = expect_done(bench, RESULT_DONE);
    assert_int_equal(result->attachment_count, 1);
    assert_int_equal(result->attachments[0].instance, 11002);
    assert_int_equal(fake.devices[0].bus, 11);
    bench_expect_nothing(bench); // the events of what we asked for are no news
    fake_qemu_stop(&fake);
}

static void test_the_descriptor_is_the_one_that_was_given(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    struct stat status;
    begin(bench, &fake);
    attach(bench, 1, 2, open("/dev/zero", O_RDWR | O_CLOEXEC), RESULT_DONE);
    assert_int_equal(stat("/dev/zero", &status), 0);
    assert_int_equal(fake.fds, 1);
    assert_true(fake.fd_device == status.st_dev && fake.fd_inode == status.st_ino);
    assert_int_equal(fake_qemu_asked(&fake, "remove-fd"), 1);
    fake_qemu_stop(&fake);
}

static void test_f25_one_connection_then_hang_up(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    bench_list(bench, "vm1");
    expect_done(bench, RESULT_DONE);
    attach(bench, 1, 2, -1, RESULT_DONE);
    attach(bench, 1, 3, -1, RESULT_DONE);
    assert_int_equal(fake.greeted, 1);
    assert_true(fake.client >= 0);
    bench_expect_nothing(bench);
    assert_int_equal(fake.client, -1);
    // What is known already is not asked again before the device goes in.
    size_t before = fake_qemu_asked(&fake, "qom-list /machine/unattached");
    attach(bench, 1, 4, -1, RESULT_DONE);
    assert_int_equal(fake_qemu_asked(&fake, "qom-list /machine/unattached"), before);
    fake_qemu_stop(&fake);
}

static void test_a_connection_is_kept_for_what_is_being_prepared(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    bench_list(bench, "vm1");
    expect_done(bench, RESULT_DONE);
    vmms_expect(bench->vmms, "vm1");
    bench_expect_nothing(bench);
    assert_true(fake.client >= 0);
    attach(bench, 1, 2, -1, RESULT_DONE);
    assert_int_equal(fake.greeted, 1);
    // What was expected does not come.
    vmms_expect(bench->vmms, "vm1");
    while (fake.client >= 0)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    attach(bench, 1, 3, -1, RESULT_DONE);
    assert_int_equal(fake.greeted, 2);
    bench_expect_nothing(bench);
    assert_int_equal(fake.client, -1);
    fake_qemu_stop(&fake);
}

static void test_a_vm_greets_while_what_goes_into_it_is_being_prepared(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    bench_list(bench, "vm1");
    expect_done(bench, RESULT_DONE);
    bench_expect_nothing(bench);
    assert_int_equal(fake.client, -1);
    vmms_expect(bench->vmms, "vm1");
    while (fake.greeted < 2)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    attach(bench, 1, 2, -1, RESULT_DONE);
    assert_int_equal(fake.greeted, 2);
    bench_expect_nothing(bench);
    // What was expected does not come.
    vmms_expect(bench->vmms, "vm1");
    while (fake.greeted < 3 || fake.client >= 0)
        assert_true(sd_event_run(bench->loop, UINT64_MAX) >= 0);
    fake_qemu_stop(&fake);
}

static void test_f41_no_usb_controller(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.no_controller = true};
    begin(bench, &fake);
    const struct result *result = attach(bench, 1, 2, -1, RESULT_REFUSED);
    assert_string_equal(result->text, "vm1 has no USB controller: start QEMU with -device qemu-xhci,id=xhci");
    assert_int_equal(fake_qemu_asked(&fake, "device_add"), 0);
    fake_qemu_stop(&fake);
}

static void test_f41_full_speed_on_ehci_only(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.ehci_only = true};
    begin(bench, &fake);
    struct device *device = bench_device(1, 2, SPEED_FULL);
    bench_attach(bench, "vm1", device, -1);
    device_release(device);
    assert_non_null(strstr(expect_done(bench, RESULT_REFUSED)->text, "EHCI"));
    attach(bench, 1, 2, -1, RESULT_DONE);
    fake_qemu_stop(&fake);
}

static void test_f41_fifth_device_on_four_ports(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    // One that QEMU placed by itself: no port was asked for, so that it shows only when tried.
    fake_qemu_add(&fake, "tablet", "usb-tablet");
    (void)snprintf(fake.devices[0].port, sizeof fake.devices[0].port, "3");
    for (unsigned address = 2; address <= 4; address++)
        attach(bench, 1, address, open("/dev/null", O_RDWR | O_CLOEXEC), RESULT_DONE);
    const struct result *result = attach(bench, 1, 5, open("/dev/null", O_RDWR | O_CLOEXEC), RESULT_REFUSED);
    assert_non_null(strstr(result->text, "all 4 USB ports of vm1"));
    bench_detach(bench, "vm1", fake.devices[1].id);
    expect_done(bench, RESULT_DONE);
    attach(bench, 1, 5, -1, RESULT_DONE);
    fake_qemu_stop(&fake);
}

static void test_refusal_in_qemus_own_words(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.answer_error = "failed to \033[31mopen\n host usb device 1:2"};
    begin(bench, &fake);
    const struct result *result = attach(bench, 1, 2, -1, RESULT_RETRY);
    assert_non_null(strstr(result->text, "host usb device 1:2"));
    assert_null(strchr(result->text, '\033'));
    assert_true(result->listed);
    assert_int_equal(fake_qemu_asked(&fake, "device_add"), 1);
    // Known places are doubted once, and no port after the other is tried in vain.
    attach(bench, 1, 2, -1, RESULT_RETRY);
    assert_int_equal(fake_qemu_asked(&fake, "device_add"), 2);
    fake_qemu_stop(&fake);
}

static void test_device_that_has_gone(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    struct device *device = bench_device(1, 2, SPEED_HIGH);
    free(device->node);
    device->node = strdup("/dev/bus/usb/999/999");
    bench_attach(bench, "vm1", device, -1);
    expect_done(bench, RESULT_GONE);
    device_release(device);
    assert_int_equal(fake_qemu_asked(&fake, "device_add"), 0);
    fake_qemu_stop(&fake);
}

static void test_f29_guest_that_does_not_let_go(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.holds_device_del = true};
    begin(bench, &fake);
    const struct result *result = attach(bench, 1, 2, -1, RESULT_DONE);
    char object[OBJECT_NAME_MAX];
    memcpy(object, result->attachments[0].object, sizeof object);
    bench_detach(bench, "vm1", object);
    result = expect_done(bench, RESULT_PENDING);
    assert_true(result->listed && find(result, object)->leaving);
    // When it lets go later, that is news.
    bench_list(bench, "vm1");
    while (fake.client < 0)
        bench_turn(bench);
    char event[256];
    (void)snprintf(event, sizeof event, "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"%s\"}}\r\n", object);
    fake_qemu_send(&fake, event);
    bench_expect(bench, "news", "vm1");
    assert_true(find(expect_done(bench, RESULT_DONE), object)->leaving);
    fake.holds_device_del = false;
    bench_detach(bench, "vm1", object);
    expect_done(bench, RESULT_DONE);
    bench_detach(bench, "vm1", object); // one that is not there has gone
    expect_done(bench, RESULT_DONE);
    fake_qemu_stop(&fake);
}

static void test_f29_event_ends_the_wait(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.holds_device_del = true};
    begin(bench, &fake);
    attach(bench, 1, 2, -1, RESULT_DONE);
    char event[256], object[OBJECT_NAME_MAX];
    memcpy(object, fake.devices[0].id, sizeof object);
    bench_detach(bench, "vm1", object);
    while (fake_qemu_asked(&fake, "device_del") == 0)
        bench_turn(bench);
    bench_turn(bench);
    fake.device_count = 0;
    (void)snprintf(event, sizeof event, "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"%s\"}}\r\n", object);
    fake_qemu_send(&fake, event);
    expect_done(bench, RESULT_DONE);
    fake_qemu_stop(&fake);
}

static void test_guest_ejects_by_itself(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    attach(bench, 1, 2, -1, RESULT_DONE);
    bench_list(bench, "vm1");
    while (fake.client < 0 || fake_qemu_asked(&fake, "qom-list") < 4)
        bench_turn(bench);
    for (int i = 0; i < 3; i++)
        fake_qemu_send(&fake, "{\"event\": \"DEVICE_DELETED\", \"data\": {\"path\": \"/x\"}}\r\n"
                              "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"other\"}}\r\n");
    bool news = false, done = false;
    for (int i = 0; i < 2; i++) {
        while (bench->read == bench->told_count)
            bench_turn(bench);
        news = news || strcmp(bench->told[bench->read].word, "news") == 0;
        done = done || strcmp(bench->told[bench->read].word, "done") == 0;
        bench->read++;
    }
    assert_true(news && done);
    bench->read = bench->told_count;
    fake_qemu_stop(&fake);
}

static void test_f24_silent_vm_delays_no_other(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu mute = {.mute = true}, fake = {0};
    fake_qemu_start(&mute, bench->loop, bench->directory, "vm2");
    bench_add_vm(bench, "vm2", "vm2");
    bench_expect(bench, "up", "vm2");
    bench_list(bench, "vm2");
    begin(bench, &fake);
    for (unsigned address = 2; address < 6; address++)
        attach(bench, 1, address, -1, RESULT_DONE);
    bench_expect_nothing(bench);
    // Taken out of service, what it owed is answered.
    free(bench->vms[0].name);
    free(bench->vms[0].socket);
    bench->vms[0] = bench->vms[1];
    bench->vms[1] = (struct vm_config){0};
    bench_configure(bench, 1);
    assert_int_equal(bench_expect(bench, "done", "vm2")->result.kind, RESULT_RETRY);
    bench_expect_nothing(bench);
    fake_qemu_stop(&mute);
    fake_qemu_stop(&fake);
}

static void test_f25_late_greeting(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.mute = true};
    bench->told_silent = true;
    begin(bench, &fake);
    bench_list(bench, "vm1");
    const struct told *told = bench_expect(bench, "silent", "vm1");
    assert_non_null(strstr(told->why, "another client holds its QMP socket"));
    assert_int_equal(fake.asked_count, 0);
    fake_qemu_greet(&fake);
    expect_done(bench, RESULT_DONE);
    fake_qemu_stop(&fake);
}

static void test_f24_command_that_is_never_answered(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.garbage = "", .garbage_at = 1};
    bench->told_silent = true;
    begin(bench, &fake);
    bench_list(bench, "vm1");
    assert_non_null(strstr(bench_expect(bench, "silent", "vm1")->why, "has not answered"));
    expect_done(bench, RESULT_LOST);
    bench_expect_nothing(bench);
    assert_int_equal(fake.client, -1); // a late answer must not meet the next command
    fake.garbage = NULL;
    bench_list(bench, "vm1");
    expect_done(bench, RESULT_DONE);
    fake_qemu_stop(&fake);
}

// A process that greets and then sends events without end.
static pid_t flood(struct bench *bench)
{
    static const char text[] = "{\"QMP\": {}}\n", event[] = "{\"event\": \"RESET\", \"data\": {}}\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%.40s/flood", bench->directory);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 4), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            int client = accept(listener, NULL, NULL);
            ssize_t sent = send(client, text, sizeof text - 1, MSG_NOSIGNAL);
            while (sent > 0)
                sent = send(client, event, sizeof event - 1, MSG_NOSIGNAL);
            close(client);
        }
    }
    close(listener);
    return pid;
}

static void test_f24_flood_delays_no_other(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    pid_t pid = flood(bench);
    bench_add_vm(bench, "vm2", "flood");
    bench_expect(bench, "up", "vm2");
    bench_list(bench, "vm2"); // never answered
    bench_expect_nothing(bench);
    begin(bench, &fake);
    for (unsigned address = 2; address < 6; address++)
        attach(bench, 1, address, -1, RESULT_DONE);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    assert_int_not_equal(bench_expect(bench, "done", "vm2")->result.kind, RESULT_DONE);
    bench_expect(bench, "down", "vm2");
    fake_qemu_stop(&fake);
}

// The longest conversation: a list, an attach and a detach; each must be answered exactly once. True
// if all went well.
static bool converse(struct bench *bench, struct fake_qemu *fake)
{
    bool well = true;
    for (int step = 0; step < 3; step++) {
        struct device *device = bench_device(1, 2, SPEED_HIGH);
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (step == 0)
            bench_list(bench, "vm1");
        else if (step == 1)
            bench_attach(bench, "vm1", device, fd);
        else
            bench_detach(bench, "vm1", "vhotplug-usb-1-2-3ea-2");
        if (step != 1)
            close(fd);
        device_release(device);
        const struct told *told = bench_expect(bench, "done", "vm1");
        assert_int_equal(told->result.serial, bench->serial);
        well = well && told->result.kind == RESULT_DONE;
    }
    for (int i = 0; i < 6; i++)
        bench_turn(bench);
    // It never goes down: the socket is served all the time.
    assert_int_equal(bench->read, bench->told_count);
    for (size_t i = 0; i < bench->told_count; i++)
        result_clear(&bench->told[i].result);
    bench->read = bench->told_count = 0;
    fake->device_count = 0;
    for (size_t i = 0; i < fake->asked_count; i++)
        free(fake->asked[i]);
    fake->asked_count = fake->commands = fake->sent = 0;
    bench->serial = 0;
    return well;
}

static void test_hang_up_at_every_byte(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    assert_true(converse(bench, &fake));
    for (size_t cut = 1; cut < 2500; cut += cut < 1200 ? 1 : 7) {
        fake.cut = cut;
        bool well = converse(bench, &fake);
        if (fake.cut) {
            assert_true(well); // longer than the conversation
            if (cut < 500)
                fail_msg("the conversation is only %zu bytes", cut);
            break;
        }
        assert_true(converse(bench, &fake)); // healed
    }
    fake_qemu_stop(&fake);
}

static void test_error_for_every_command(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    for (size_t command = 1; command < 30; command++) {
        fake.fail_command = command;
        (void)converse(bench, &fake);
        fake.fail_command = 0;
        assert_true(converse(bench, &fake));
    }
    fake_qemu_stop(&fake);
}

static void test_garbage_for_every_answer(void **state)
{
    static const char *const garbage[] = {"{\n", "[[[[\r\n", "{\"return\": [{\"name\": 3}], \"id\": 2}\r\n\xff\n",
                                          "{\"return\": 7, \"id\": 1, \"event\": {}}\n"};
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    for (size_t command = 1; command < 24; command++) {
        const char *text = garbage[command % 4];
        fake.garbage = text;
        fake.garbage_length = strlen(text);
        fake.garbage_at = command;
        (void)converse(bench, &fake);
        fake.garbage = NULL;
        assert_true(converse(bench, &fake));
    }
    fake_qemu_stop(&fake);
}

static void test_answers_backwards_and_between_events(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    begin(bench, &fake);
    fake.chatty = true;
    assert_true(converse(bench, &fake));
    fake.backwards = true; // only an even number of commands in flight gets all its answers
    bench_list(bench, "vm1");
    while (fake_qemu_asked(&fake, "qom-list") < 2)
        bench_turn(bench);
    for (int i = 0; i < 8; i++)
        bench_turn(bench);
    fake.backwards = false;
    if (fake.held) {
        fake_qemu_send(&fake, fake.held);
        free(fake.held);
        fake.held = NULL;
    }
    expect_done(bench, RESULT_DONE);
    fake_qemu_stop(&fake);
}

static void test_operations_nobody_can_do(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {.mute = true};
    bench_list(bench, "vm9");
    assert_int_equal(bench_expect(bench, "done", "vm9")->result.kind, RESULT_RETRY);
    begin(bench, &fake);
    bench_list(bench, "vm1");
    bench_list(bench, "vm1"); // one at a time
    expect_done(bench, RESULT_RETRY);
    bench_expect_nothing(bench);
    fake_qemu_stop(&fake);
}

static void test_nothing_is_told_from_inside(void **state)
{
    struct bench *bench = *state;
    struct fake_qemu fake = {0};
    fake_qemu_start(&fake, bench->loop, bench->directory, "vm1");
    bench_add_vm(bench, "vm1", "vm1");
    bench_list(bench, "vm9");
    assert_int_equal(bench->told_count, 0);
    bench_configure(bench, 0);
    assert_int_equal(bench->told_count, 0);
    bench_expect(bench, "done", "vm9");
    bench_expect_nothing(bench); // `up` of a VM that is served no longer is not told
    fake_qemu_stop(&fake);
    bench->config.vm_count = 1; // for the teardown
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, bench_setup, bench_teardown)

// With an argument: only the tests whose names match it.
int main(int count, char **arguments)
{
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
        TEST(test_f40_list_tells_ours_from_foreign),
        TEST(test_f02_two_devices_with_alike_numbers),
        TEST(test_the_descriptor_is_the_one_that_was_given),
        TEST(test_f25_one_connection_then_hang_up),
        TEST(test_a_connection_is_kept_for_what_is_being_prepared),
        TEST(test_a_vm_greets_while_what_goes_into_it_is_being_prepared),
        TEST(test_f41_no_usb_controller),
        TEST(test_f41_full_speed_on_ehci_only),
        TEST(test_f41_fifth_device_on_four_ports),
        TEST(test_refusal_in_qemus_own_words),
        TEST(test_device_that_has_gone),
        TEST(test_f29_guest_that_does_not_let_go),
        TEST(test_f29_event_ends_the_wait),
        TEST(test_guest_ejects_by_itself),
        TEST(test_f24_silent_vm_delays_no_other),
        TEST(test_f25_late_greeting),
        TEST(test_f24_command_that_is_never_answered),
        TEST(test_f24_flood_delays_no_other),
        TEST(test_hang_up_at_every_byte),
        TEST(test_error_for_every_command),
        TEST(test_garbage_for_every_answer),
        TEST(test_answers_backwards_and_between_events),
        TEST(test_operations_nobody_can_do),
        TEST(test_nothing_is_told_from_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
