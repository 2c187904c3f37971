"""Answers that wait: for the device that was asked about, and until what was decided is saved."""
import time

from world import CAMERA, MOUSE, has_nothing, states, usb


def test_an_answer_is_about_the_try_that_was_asked_for(ready):
    """The VM is busy with another device: what it said of an earlier try is not the answer."""
    ready.do("mood", vm="vm1", refuses="no free port")
    ready.plug(MOUSE)
    begin = ready.do("mood", vm="vm1", hangs=True)
    ready.plug(usb("1-7", number=9))
    ready.wait_operations(begin + 1)
    client = ready.connect()
    client.send(b'{"action": "usb_attach", "device": "1-3"}\n')
    assert has_nothing(ready, client)
    assert states(ready.connect().request("usb_list")["usb_devices"]) == {"1-3": "refused", "1-7": "attaching"}
    ready.do("mood", vm="vm1")
    answer = client.answer()
    assert answer["result"] == "ok" and answer["state"] == "attached"


def test_an_answer_is_about_the_vm_that_was_asked_for(ready):
    """Another client has it put back meanwhile."""
    ready.plug(CAMERA)
    client, other = ready.connect(), ready.connect()
    assert other.request("usb_attach", device="webcam", vm="vm1")["vm"] == "vm1"
    begin = ready.do("mood", vm="vm1", hangs=True)
    client.send(b'{"action": "usb_attach", "device": "webcam", "vm": "vm2"}\n')
    ready.wait_operations(begin + 1)
    other.send(b'{"action": "usb_attach", "device": "webcam", "vm": "vm1"}\n')
    assert ready.connect().request("usb_list")["usb_devices"][0]["selected"] == "vm1"
    ready.do("mood", vm="vm1")
    assert other.answer()["vm"] == "vm1"
    assert other.request("usb_attach", device="webcam", vm="vm2")["vm"] == "vm2"
    assert client.answer()["vm"] == "vm2"


def test_an_unplug_while_an_answer_waits(ready):
    ready.plug(CAMERA)
    ready.plug(MOUSE)
    client, other = ready.connect(), ready.connect()
    for vm in ("vm1", "vm2"):
        ready.do("mood", vm=vm, hangs=True)
    client.send(b'{"action": "usb_attach", "device": "webcam", "vm": "vm2"}\n')
    other.send(b'{"action": "usb_detach", "device": "1-3"}\n')
    ready.wait_operations(3)
    ready.pull(CAMERA)
    ready.pull(MOUSE)
    answer = client.answer()
    assert answer == {"result": "failed", "state": "gone", "vm": None, "reason": "it was unplugged",
                      "error": "it was unplugged"}
    assert other.answer() == {"result": "ok", "state": "gone", "vm": None, "reason": "it was unplugged"}


def test_f27_a_device_enumerated_anew_while_its_answer_waits(ready):
    ready.plug(MOUSE)
    client = ready.connect()
    client.request("usb_suspend")
    begin = ready.do("mood", vm="vm1", hangs=True)
    client.send(b'{"action": "usb_resume"}\n')
    ready.wait_operations(begin + 1)
    ready.plug({**MOUSE, "devnum": 9, "device_node": "/dev/bus/usb/001/009"})
    ready.do("mood", vm="vm1")
    answer = client.answer()
    assert answer["result"] == "ok" and answer["devices"][0]["state"] == "attached"


def test_no_answer_waits_for_ever(ready):
    ready.plug(CAMERA)
    ready.plug(MOUSE)
    for vm in ("vm1", "vm2"):
        ready.do("mood", vm=vm, hangs=True)
    attach, suspend, other = ready.connect(), ready.connect(), ready.connect()
    begin = time.monotonic()
    attach.send(b'{"action": "usb_attach", "device": "webcam", "vm": "vm2"}\n')
    suspend.send(b'{"action": "usb_suspend", "vm": "vm1"}\n')
    # Nobody waits for others who wait.
    assert other.request("pci_list")["result"] == "ok"
    answer = attach.answer()
    assert answer == {"result": "ok", "state": "attaching", "vm": "vm2",
                      "reason": "allowed by usbPassthrough[1].allow[0]"}
    answer = suspend.answer()
    assert answer["result"] == "failed" and answer["error"].startswith("1 of 1 devices: USB Mouse (0627:0001, 1-3): ")
    assert answer["devices"][0]["result"] == "failed" and answer["devices"][0]["state"] == "detaching"
    assert time.monotonic() - begin >= 9.9


def test_what_its_vm_does_not_let_go_of_is_no_success(ready):
    for device in (MOUSE, CAMERA):
        ready.plug(device)
    client, other, third = ready.connect(), ready.connect(), ready.connect()
    client.request("usb_attach", device="webcam", vm="vm1")
    begin = ready.do("mood", vm="vm1", hangs=True)
    client.send(b'{"action": "usb_detach", "device": "1-3"}\n')
    ready.wait_operations(begin + 1)
    other.send(b'{"action": "usb_attach", "device": "webcam", "vm": "vm2"}\n')
    mouse = third.request("usb_list", tag="input")["usb_devices"][0]
    assert (mouse["vm"], mouse["state"], mouse["detached"]) == ("vm1", "detaching", True)
    for answer in (client.answer(), other.answer()):
        assert answer["result"] == "failed" and answer["state"] == "detaching" and answer["vm"] == "vm1", answer
        assert answer["error"] == f"vm1 has not let go of it yet: {answer['reason']}" and answer["reason"]


def test_a_client_that_leaves_while_its_answer_waits(ready):
    ready.plug(CAMERA)
    ready.do("mood", vm="vm2", hangs=True)
    client = ready.connect()
    client.send(b'{"action": "usb_attach", "device": "webcam", "vm": "vm2"}\n')
    ready.wait_operations(1)
    client.reset()
    ready.do("mood", vm="vm2")
    assert ready.connect().request("usb_list")["usb_devices"][0]["vm"] == "vm2"


def test_answers_come_in_the_order_of_the_questions(ready):
    ready.plug(CAMERA)
    client = ready.connect()
    client.send(b'{"action": "usb_attach", "device": "webcam", "vm": "vm2"}\n{"action": "pci_list"}\n'
                b'{"action": "usb_detach", "device": "webcam"}\n')
    assert [client.answer().get(name) for name in ("vm", "pci_devices", "state")] == ["vm2", [], "host"]


def test_what_is_leaving_its_vm_for_good_is_suspended_and_not_resumed(ready):
    ready.plug(MOUSE)
    begin = ready.do("mood", vm="vm1", hangs=True)
    client, other = ready.connect(), ready.connect()
    client.send(b'{"action": "usb_detach", "device": "1-3"}\n')
    ready.wait_operations(begin + 1)
    assert other.request("usb_resume", vm="vm1") == {"result": "ok", "devices": []}
    other.send(b'{"action": "usb_suspend", "vm": "vm1"}\n')
    assert has_nothing(ready, other)
    ready.do("mood", vm="vm1")
    assert [(one["sys_name"], one["state"]) for one in other.answer()["devices"]] == [("1-3", "host")]
    assert client.answer()["state"] == "host"


# ---- what is decided is saved before it is answered

def test_an_answer_waits_until_what_was_decided_is_saved(ready):
    for device in (MOUSE, CAMERA, usb("1-7", number=9)):
        begin = ready.plug(device)
    ready.do("disk", hangs=True)
    one, two, host = ready.connect(), ready.connect(), ready.connect()
    one.send(b'{"action": "usb_detach", "device": "1-3"}\n')
    ready.wait_operations(begin + 1)
    assert states(host.request("usb_list")["usb_devices"]) == {"1-3": "host", "1-2.3": "waits", "1-7": "attached"}
    two.send(b'{"action": "usb_attach", "device": "webcam", "vm": "vm2"}\n')
    ready.wait_operations(begin + 2)
    # Who asks for nothing that is to be saved does not wait, nor does one who is refused.
    assert [one["sys_name"] for one in host.request("usb_suspend", vm="vm1")["devices"]] == ["1-7"]
    assert host.request("usb_attach", device="1-3", vm="vm2")["result"] == "failed"
    assert has_nothing(ready, one) and has_nothing(ready, two)
    ready.do("disk", hangs=True, saved=1)
    assert one.answer()["state"] == "host"
    assert has_nothing(ready, two)
    # Decided already and not yet saved: that is no answer either.
    host.send(b'{"action": "usb_attach", "device": "webcam", "vm": "vm2"}\n')
    assert has_nothing(ready, host)
    ready.do("disk")
    assert two.answer()["vm"] == host.answer()["vm"] == "vm2"


def test_when_the_disk_hangs_the_answer_says_so(ready):
    ready.plug(MOUSE)
    ready.plug(usb("1-7", number=9))
    ready.do("disk", hangs=True)
    client, other = ready.connect(), ready.connect()
    begin = time.monotonic()
    client.send(b'{"action": "usb_detach", "device": "1-3"}\n')
    other.send(b'{"action": "usb_detach", "tag": "input"}\n')
    error = "it is done, but the disk is slow: it is not saved yet, and is lost if the host fails now"
    answer = client.answer()
    assert time.monotonic() - begin >= 9.9
    assert (answer["result"], answer["error"], answer["state"]) == ("failed", error, "host")
    answer = other.answer()
    assert (answer["result"], answer["error"], len(answer["devices"])) == ("failed", error, 2)
