// crosvm's messages: the exact bytes of requests, and replies cut, twisted and hostile.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"
#include "vmm/crosvm_message.h"

#define EMPTY "{\"port\":0,\"vendor_id\":0,\"product_id\":0}"
#define DEVICES(entries) "{\"UsbResponse\":{\"Devices\":[" entries "]}}"

static struct crosvm_reply parse(const char *packet)
{
    struct crosvm_reply reply;
    size_t length = strlen(packet);
    char *exact = memory_new(length + 1, 1); // so that a read behind the end is found
    memcpy(exact, packet, length);
    exact = memory_resize(exact, length ? length : 1, 1);
    crosvm_parse_reply(exact, length, &reply);
    free(exact);
    return reply;
}

static void expect(const char *packet, enum crosvm_reply_kind kind)
{
    struct crosvm_reply reply = parse(packet);
    if (reply.kind != kind)
        fail_msg("%s is %d, not %d", packet, (int)reply.kind, (int)kind);
}

static void test_the_bytes_of_requests(void **state)
{
    (void)state;
    char detach[CROSVM_DETACH_MAX];
    assert_string_equal(crosvm_list_request(), "{\"UsbCommand\":{\"ListDevice\":{\"ports\":[1,2,3,4,5,6,7,8,9,10,11,12,"
                                               "13,14,15,16]}}}");
    assert_string_equal(crosvm_attach_request(),
                        "{\"UsbCommand\":{\"AttachDevice\":{\"bus\":0,\"addr\":0,\"vid\":0,\"pid\":0,\"file\":0}}}");
    crosvm_detach_request(detach, 9);
    assert_string_equal(detach, "{\"UsbCommand\":{\"DetachDevice\":{\"port\":9}}}");
}

static void test_the_list(void **state)
{
    (void)state;
    struct crosvm_reply reply = parse(DEVICES("{\"port\":1,\"vendor_id\":1133,\"product_id\":49271}," EMPTY
                                              ",{\"product_id\":65535,\"more\":[{}],\"port\":16,\"vendor_id\":0}"));
    assert_int_equal(reply.kind, CROSVM_DEVICES);
    assert_true(reply.ports[1].used && reply.ports[1].vendor_id == 1133 && reply.ports[1].product_id == 49271);
    assert_true(reply.ports[16].used && reply.ports[16].vendor_id == 0 && reply.ports[16].product_id == 65535);
    assert_false(reply.ports[2].used);
    expect(DEVICES(""), CROSVM_DEVICES);
    expect(" \n" DEVICES(EMPTY) "\n ", CROSVM_DEVICES);
}

static void test_the_other_replies(void **state)
{
    (void)state;
    struct crosvm_reply reply = parse("{\"UsbResponse\":{\"Ok\":{\"port\":9}}}");
    assert_true(reply.kind == CROSVM_PORT && reply.port == 9);
    expect("{\"UsbResponse\":\"NoAvailablePort\"}", CROSVM_NO_PORT);
    expect("{\"UsbResponse\":\"NoSuchDevice\"}", CROSVM_NO_DEVICE);
    expect("{\"UsbResponse\":\"NoSuchPort\"}", CROSVM_NO_DEVICE);
    expect("{\"UsbResponse\":\"FailedToInitHostDevice\"}", CROSVM_NO_DEVICE);
    reply = parse("{\"UsbResponse\":\"FailedToOpenDevice\"}");
    assert_int_equal(reply.kind, CROSVM_FAILED);
    assert_string_equal(reply.text, "FailedToOpenDevice");
    expect("{\"UsbResponse\":\"SomethingNew\"}", CROSVM_FAILED);
    reply = parse("{\"Err\":19}");
    assert_true(reply.kind == CROSVM_ERROR && reply.number == 19);
    reply = parse("{\"ErrString\":\"no \\u001b[31m\\\"luck\\\"\\n\"}");
    assert_int_equal(reply.kind, CROSVM_OTHER);
    assert_null(strchr(reply.text, '\033'));
    assert_null(strchr(reply.text, '\n'));
    assert_non_null(strstr(reply.text, "luck"));
}

static void test_every_truncation(void **state)
{
    (void)state;
    static const char *const packets[] = {DEVICES("{\"port\":1,\"vendor_id\":1133,\"product_id\":49271}," EMPTY),
                                          "{\"UsbResponse\":{\"Ok\":{\"port\":9}}}",
                                          "{\"UsbResponse\":\"NoAvailablePort\"}", "{\"Err\":19}",
                                          "{\"ErrString\":\"\\u001b \xc3\xa4\"}"};
    for (size_t i = 0; i < sizeof packets / sizeof *packets; i++) {
        for (size_t length = 0; length < strlen(packets[i]); length++) {
            char *part = string_printf("%.*s", (int)length, packets[i]);
            expect(part, CROSVM_OTHER);
            free(part);
        }
    }
}

static void test_hostile_values(void **state)
{
    (void)state;
    static const char *const packets[] = {
        "", "null", "[]", "0", "\"Ok\"", "{}", "{\"UsbResponse\":null}", "{\"UsbResponse\":{}}", "{\"UsbResponse\":[]}",
        "{\"UsbResponse\":{\"Ok\":{}}}", "{\"UsbResponse\":{\"Ok\":{\"port\":0}}}",
        "{\"UsbResponse\":{\"Ok\":{\"port\":17}}}", "{\"UsbResponse\":{\"Ok\":{\"port\":-1}}}",
        "{\"UsbResponse\":{\"Ok\":{\"port\":1.5}}}", "{\"UsbResponse\":{\"Ok\":{\"port\":\"1\"}}}",
        "{\"UsbResponse\":{\"Ok\":{\"port\":99999999999999999999999999}}}", "{\"UsbResponse\":{\"Devices\":{}}}",
        DEVICES("1"), DEVICES("null"), DEVICES("{}"),
        // a port twice, one too high, one negative, numbers out of range, a member that is missing
        DEVICES("{\"port\":1,\"vendor_id\":1,\"product_id\":1},{\"port\":1,\"vendor_id\":1,\"product_id\":1}"),
        DEVICES("{\"port\":17,\"vendor_id\":1,\"product_id\":1}"),
        DEVICES("{\"port\":18446744073709551617,\"vendor_id\":1,\"product_id\":1}"),
        DEVICES("{\"port\":-1,\"vendor_id\":1,\"product_id\":1}"),
        DEVICES("{\"port\":1,\"vendor_id\":65536,\"product_id\":1}"),
        DEVICES("{\"port\":1,\"vendor_id\":1,\"product_id\":-1}"), DEVICES("{\"port\":1,\"vendor_id\":1}"),
        "{\"Err\":-5}", "{\"Err\":0}", "{\"Err\":4096}", "{\"Err\":\"5\"}", "{\"ErrString\":5}",
        DEVICES(EMPTY) DEVICES(EMPTY), "{\"UsbResponse\":\"\xff\xfe\"}", "{\"UsbResponse\":\"NoSuchDevice\\u0000\"}"};
    for (size_t i = 0; i < sizeof packets / sizeof *packets; i++)
        expect(packets[i], CROSVM_OTHER);
}

static void test_a_nul_byte(void **state)
{
    (void)state;
    struct crosvm_reply reply;
    crosvm_parse_reply("{\"Err\":5}", sizeof "{\"Err\":5}", &reply);
    assert_int_equal(reply.kind, CROSVM_OTHER);
}

static void test_depth_and_length(void **state)
{
    (void)state;
    char *packet = memory_new(CROSVM_MESSAGE_MAX + 1, 1);
    memset(packet, '[', CROSVM_MESSAGE_MAX);
    struct crosvm_reply reply;
    crosvm_parse_reply(packet, CROSVM_MESSAGE_MAX, &reply);
    assert_int_equal(reply.kind, CROSVM_OTHER);
    // A reply may fill the room, and one byte more is none.
    memset(packet, ' ', CROSVM_MESSAGE_MAX);
    memcpy(packet, "{\"Err\":5}", strlen("{\"Err\":5}"));
    crosvm_parse_reply(packet, CROSVM_MESSAGE_MAX, &reply);
    assert_int_equal(reply.kind, CROSVM_ERROR);
    packet[CROSVM_MESSAGE_MAX] = ' ';
    crosvm_parse_reply(packet, CROSVM_MESSAGE_MAX + 1, &reply);
    assert_int_equal(reply.kind, CROSVM_OTHER);
    // Its own words are cut, even if each byte has to be escaped.
    int start = snprintf(packet, CROSVM_MESSAGE_MAX, "{\"ErrString\":\"");
    for (size_t i = (size_t)start; i + 6 < 60000; i += 6)
        memcpy(packet + i, "\\u001b", 6);
    memcpy(packet + start + 6 * 9000, "\"}", 3);
    reply = parse(packet);
    assert_int_equal(reply.kind, CROSVM_OTHER);
    assert_in_range(strlen(reply.text), CROSVM_ERROR_TEXT_MAX, sizeof reply.text - 1);
    free(packet);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bytes_of_requests), cmocka_unit_test(test_the_list),
        cmocka_unit_test(test_the_other_replies),     cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_hostile_values),        cmocka_unit_test(test_a_nul_byte),
        cmocka_unit_test(test_depth_and_length),
    };
    return cmocka_run_group_tests_name("wire_crosvm_message", tests, NULL, NULL);
}
