"""What is asked and answered, against a host and VMs that do as they are told."""
import json
import re
from datetime import datetime

import pytest

import world as worlds
from world import CAMERA, HUB, KEY, KEYBOARD, MOUSE, RADIO, events, states, usb

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


# ---- the line

@pytest.mark.parametrize("line, error", [
    (b"", "The line is not JSON: it ends too early"),
    (b"{", "The line is not JSON: it ends too early"),
    (b"{}{}", "The line is not JSON: something follows the value"),
    (b"null", "The line is not JSON: null"),
    (b"\0", "The line is not JSON: a NUL byte in it"),
    (b'{"action": "\xff"}', "The line is not JSON: "),
    (b"[" * 200, "The line is not JSON: "),
    (b"[]", "The line is not a JSON object"),
    (b"7", "The line is not a JSON object"),
    (b"{}", "No action specified"),
    (b'{"action": null}', "No action specified"),
    (b'{"action": ""}', "No action specified"),
    (b'{"action": 7}', "action must be a string"),
    (b'{"action": "usb_\\u001blist"}', "Unknown message: usb_\\x1blist"),
    (b'{"action": "nonsense"}', "Unknown message: nonsense"),
    (b"x" * 65537, "The line is longer than 65536 bytes"),
])
def test_f46_every_line_gets_one_answer(ready, line, error):
    client = ready.connect()
    client.send(line + b"\n")
    answer = client.answer()
    assert answer["result"] == "failed" and set(answer) == {"result", "error"}
    assert answer["error"].startswith(error) if error.endswith(": ") else answer["error"] == error
    if len(line) <= 65536:
        assert client.request("pci_list") == {"result": "ok", "pci_devices": []}


def test_an_error_is_not_as_long_as_what_caused_it(ready):
    client = ready.connect()
    answer = client.request("x" * 60000)
    assert answer["error"].startswith("Unknown message: xxx") and len(answer["error"]) < 200
    for name in ("device", "device_node", "tag"):
        error = client.request("usb_detach", **{name: "x" * 60000})["error"]
        assert "xxx" in error and len(error) < 400


def test_an_error_about_many_devices_is_not_endless(world):
    world.ready("vm2")
    for number in range(200):
        world.plug(usb(f"3-{number + 1}", number=number + 1, product_name="x" * 200))
    answer = world.connect().request("usb_attach", tag="input", vm="vm2")
    assert len(answer["devices"]) == 200
    assert answer["error"].startswith("200 of 200 devices: ") and len(answer["error"]) < 17000


# ---- which device

@pytest.mark.parametrize("members, error", [
    ({}, "which device? Give device_node, bus and port, tag, vid and pid, or device"),
    ({"tag": None, "vid": None}, "which device? Give device_node, bus and port, tag, vid and pid, or device"),
    ({"device_node": 7}, "device_node must be a string that is not empty"),
    ({"device_node": ""}, "device_node must be a string that is not empty"),
    ({"device_node": "/dev/\u001bx"}, "there is no device /dev/\\x1bx"),
    ({"bus": 1}, "bus and port belong together"),
    ({"port": 1}, "bus and port belong together"),
    ({"bus": "x", "port": 1}, "bus must be a number from 0 to 65535"),
    ({"bus": 1, "port": 65536}, "port must be a number from 0 to 65535"),
    ({"bus": 1, "port": -1}, "port must be a number from 0 to 65535"),
    ({"bus": 1, "port": 1.5}, "port must be a number from 0 to 65535"),
    ({"bus": 7, "port": 1}, "there is no device on bus 7, port 1"),
    ({"tag": []}, "tag must be a string that is not empty"),
    ({"tag": "nothing"}, "no group has the tag nothing"),
    ({"vid": "046d"}, "vid and pid belong together"),
    ({"pid": "046d"}, "vid and pid belong together"),
    ({"vid": "046g", "pid": "0001"}, "vid must be a string of up to 4 hex digits"),
    ({"vid": "046d", "pid": "00001"}, "pid must be a string of up to 4 hex digits"),
    ({"vid": 1133, "pid": "0001"}, "vid must be a string of up to 4 hex digits"),
    ({"vid": "dead", "pid": "beef"}, "there is no device dead:beef"),
    ({"device": 5}, "device must be a string that is not empty"),
    ({"device": "1-9"}, "there is no device 1-9"),
    ({"device": "mouse"},
     "mouse means 2 devices; say which one: USB Mouse (0627:0001, 1-3), USB Mouse (0627:0001, 1-7)"),
    ({"vid": "0627", "pid": "0001"},
     "0627:0001 means 2 devices; say which one: USB Mouse (0627:0001, 1-3), USB Mouse (0627:0001, 1-7)"),
])
@pytest.mark.parametrize("action", ["usb_attach", "usb_detach", "explain"])
def test_f46_a_device_that_cannot_be_told(ready, action, members, error):
    ready.plug(MOUSE)
    ready.plug(usb("1-7", number=9))
    before = ready.plug(CAMERA)
    if action == "explain":  # is about all kinds
        error = error.replace("bus and port, tag, vid and pid, or", "address, bus and port, vid and pid, vid and did, or")
    assert ready.connect().request(action, **members) == {"result": "failed", "error": error}
    assert ready.operations() == before


def test_a_list_of_devices_that_match_is_not_endless(ready):
    for number in range(12):
        ready.plug(usb(f"3-{number + 1}", number=number + 1))
    error = ready.connect().request("explain", device="0627:0001")["error"]
    assert error.startswith("0627:0001 means 12 devices") and error.endswith("3-8), and 4 more")


@pytest.mark.parametrize("members", [
    {"device_node": "/dev/bus/usb/001/004"},
    {"bus": 1, "port": 2},
    {"bus": "001", "port": "2"},
    {"vid": "046D", "pid": "0825"},
    {"vid": "0x46d", "pid": "825"},
    {"device": "1-2.3"},
    {"device": "/dev/bus/usb/001/004"},
    {"device": "046D:0825"},
    {"device": "001:004"},
    {"device": "1:4"},
    {"device": "2B8C2D20"},
    {"device": "usb:1-2.3"},
    {"device": "pci-0000:00:14.0-usb-0:2.3"},
    {"device": "webcam"},
    {"device": "logitech, inc. webcam"},
    # The first that is given counts, whatever the rest says.
    {"device_node": "/dev/bus/usb/001/004", "bus": 1, "port": 3, "tag": "nothing"},
    {"bus": 1, "port": 2, "tag": "nothing", "vid": "dead", "pid": "beef"},
    {"vid": "046d", "pid": "0825", "device": "mouse"},
])
def test_f46_the_names_of_a_device(ready, members):
    for device in (MOUSE, HUB, CAMERA):
        ready.plug(device)
    answer = ready.connect().request("explain", **members)
    assert answer["result"] == "ok" and answer["device"]["sys_name"] == "1-2.3"


def test_a_serial_number_that_is_a_part_of_a_name_means_both(ready):
    ready.plug(MOUSE)
    ready.plug(usb("1-7", number=9, product_name="Pad 42"))
    answer = ready.connect().request("explain", device="42")
    assert answer["error"] == ("42 means 2 devices; say which one: USB Mouse (0627:0001, 1-3), "
                               "Pad 42 (0627:0001, 1-7)")


@pytest.mark.parametrize("name", ["1-9", "3-1.4.2", "dead:beef", "009:017", "/dev/bus/usb/001/099", "0000:00:14.3"])
def test_a_place_or_number_is_no_serial_number_and_no_name(ready, name):
    ready.plug(usb("1-3", number=5, serial=name))
    ready.plug(usb("1-7", number=9, product_name=f"Pad {name}"))
    assert ready.connect().request("usb_detach", device=name)["error"] == f"there is no device {name}"


def test_a_hub_and_an_input_device_have_names_too(ready):
    ready.plug(HUB)
    ready.plug(KEYBOARD)
    client = ready.connect()
    assert client.request("explain", device="1-2")["explanation"]["verdict"] == "hub"
    assert client.request("explain", bus=1, port=2)["device"]["sys_name"] == "1-2"
    assert client.request("explain", device="/dev/input/event5")["device"]["name"] == "AT keyboard"
    assert client.request("explain", tag="input")["error"] == "explain takes one device, not a tag"


# ---- lists

def test_f42_the_lists(ready):
    for device in (MOUSE, CAMERA, KEY, HUB, RADIO, KEYBOARD):
        ready.plug(device)
    client = ready.connect()
    listed = client.request("usb_list")["usb_devices"]
    assert states(listed) == {"1-3": "attached", "1-2.3": "waits", "2-1": "attached"}
    mouse = listed[0]
    assert TIME.fullmatch(mouse.pop("since"))
    assert mouse == {
        "kind": "usb", "device_node": "/dev/bus/usb/001/005", "vid": "0627", "pid": "0001", "vendor_name": "QEMU",
        "product_name": "USB Mouse", "interfaces": ":030102:", "device_class": 0, "device_subclass": 0,
        "device_protocol": 0, "busnum": 1, "devnum": 5, "portnum": 3, "serial": "42", "sys_name": "1-3",
        "port_path": "1-3", "id_path": "pci-0000:00:14.0-usb-0:3", "speed": "full", "removable": "removable",
        "drivers": [], "vendor_reported": "QEMU", "product_reported": "USB Mouse", "host_use": None, "allowed_vms": ["vm1"],
        "vm": "vm1", "target": "vm1", "selected": None, "state": "attached", "tag": "input", "detached": False, "named": True,
        "reason": "allowed by usbPassthrough[0].allow[0]", "selecting": False, "skip_on_suspend": False}
    assert listed[1]["allowed_vms"] == ["vm1", "vm2"] and listed[1]["vm"] is None and listed[1]["selecting"]
    assert states(client.request("usb_list", tag="camera")["usb_devices"]) == {"1-2.3": "waits"}
    assert client.request("usb_list", tag="nothing")["usb_devices"] == []
    assert client.request("usb_list", disconnected=True)["usb_devices"] == []
    every = client.request("device_list")["devices"]
    assert [device["device_node"][-3:] for device in every] == ["005", "004", "006", "003", "002", "nt5"]
    assert all(device["reason"] and device["state"] for device in every)
    assert every[2]["state"] == "host" and every[2]["reason"] == "denied by usbPassthrough[0].deny[0]"


def test_a_disk_that_the_host_lives_on_is_not_listed(ready):
    ready.plug(usb("1-3", host_use="/home is mounted from it"))
    assert ready.connect().request("usb_list")["usb_devices"] == []
    device, = ready.connect().request("device_list")["devices"]
    assert "/home is mounted from it" in device["reason"]


@pytest.mark.parametrize("members, error", [
    ({"disconnected": "yes"}, "disconnected must be true or false"),
    ({"tag": 7}, "tag must be a string that is not empty"),
])
def test_f46_a_list_that_is_asked_for_wrongly(ready, members, error):
    assert ready.connect().request("usb_list", **members) == {"result": "failed", "error": error}


def test_vm_list(world):
    client = world.connect()
    assert [vm["state"] for vm in client.request("vm_list")["vms"]] == ["unknown", "unknown"]
    world.ready("vm1")
    world.plug(MOUSE)
    world.plug(RADIO)
    one, two = client.request("vm_list")["vms"]
    assert TIME.fullmatch(one.pop("since")) and TIME.fullmatch(two.pop("since"))
    assert one == {"name": "vm1", "type": "qemu", "state": "up", "reason": None, "configured": True,
                   "suspended": False, "attached": 1, "waiting": 0}
    assert two == {"name": "vm2", "type": "crosvm", "state": "down", "reason": None, "configured": True,
                   "suspended": False, "attached": 0, "waiting": 1}
    world.do("mood", vm="vm2", hangs=True)
    world.do("up", vm="vm2", process=7)
    assert client.request("vm_list")["vms"][1]["state"] == "starting"
    world.do("silent", vm="vm2", why="its socket is \u001bbusy")
    two = client.request("vm_list")["vms"][1]
    assert two["state"] == "silent" and two["reason"] == "its socket is \\x1bbusy"


def test_status(ready):
    ready.plug(MOUSE)
    ready.plug(CAMERA)
    ready.plug(HUB)
    ready.do("down", vm="vm2")
    answer = ready.connect().request("status")
    assert TIME.fullmatch(answer.pop("since")) and re.fullmatch(r"\d+\.\d+\.\d+", answer.pop("version"))
    assert answer == {"result": "ok", "devices": {"attached": 1, "waits": 1}, "vms": {"up": 1, "down": 1},
                      "config": str(ready.file)}


def test_since_when_is_right_when_the_host_has_slept(ready):
    ready.plug(MOUSE)
    person = ready.connect()

    def moments():
        answers = person.request("usb_list")["usb_devices"], person.request("vm_list")["vms"], [person.request("status")]
        return [one["since"] for answer in answers for one in answer]
    before = moments()
    ready.do("sleep", seconds=36000)
    later = moments()
    assert len(before) == 4
    for early, late in zip(before, later):  # rounded to a second
        assert abs((datetime.fromisoformat(early) - datetime.fromisoformat(late)).total_seconds()) <= 1


def test_f13_explain_tells_every_rule(ready):
    ready.plug(usb("1-3", interfaces=":0e0100:030000:"))
    answer = ready.connect().request("explain", device="1-3")
    explanation = answer["explanation"]
    assert [group["result"] for group in explanation["groups"]] == ["takes", "takes", "no match"]
    assert explanation["verdict"] == "attach" and explanation["group"] == 0
    assert answer["state"] == "attached" and answer["vm"] == "vm1" and TIME.fullmatch(answer["since"])
    assert answer["reason"] == answer["device"]["reason"] == "allowed by usbPassthrough[0].allow[0]"


def test_f47_names_of_devices_are_made_safe(ready):
    ready.plug(usb("1-3", vendor_name=None, product_name=None), raw=b"\x1b[31m\xff\"\\ \xe2\x80\xae evil\n".hex())
    client = ready.connect()
    device, = client.request("usb_list")["usb_devices"]
    assert device["product_name"] == "\\x1b[31m\\xff\"\\ \\xe2\\x80\\xae evil\\x0a"
    assert client.request("explain", device="evil")["result"] == "ok"


# ---- attach and detach

def test_an_attach_is_answered_when_the_device_is_in_its_vm(ready):
    ready.plug(CAMERA)
    client = ready.connect()
    answer = client.request("usb_attach", device_node="/dev/bus/usb/001/004", vm="vm2")
    assert answer == {"result": "ok", "state": "attached", "vm": "vm2",
                      "reason": "allowed by usbPassthrough[1].allow[0]"}
    count = ready.operations()
    assert client.request("usb_attach", vid="046d", pid="0825", vm="vm2")["state"] == "attached"
    assert ready.operations() == count
    assert client.request("usb_attach", device="1-2.3", vm="vm1")["vm"] == "vm1"
    assert ready.operations() == count + 2
    device, = client.request("usb_list")["usb_devices"]
    assert device["vm"] == device["selected"] == "vm1"


@pytest.mark.parametrize("device, vm, error", [
    ("1-4", "vm1", "YubiKey (1050:0407, 1-4): denied by usbPassthrough[0].deny[0]"),
    ("1-2", "vm1", "Hub (05e3:0608, 1-2): hubs are never passed"),
    ("1-6", "vm1", "USB Mouse (0627:0001, 1-6): the host lives on it: swap is on it"),
    ("1-8", "vm1", "USB Mouse (0627:0001, 1-8): no rule allows it"),
    ("1-3", "vm2", "USB Mouse (0627:0001, 1-3): vm2 is not allowed for it: usbPassthrough[0] names vm1"),
    ("1-3", "vm9", "there is no VM vm9"),
    ("1-3", 7, "vm must be a string that is not empty"),
    ("1-3", "", "vm must be a string that is not empty"),
])
def test_f42_an_attach_that_cannot_be(ready, device, vm, error):
    for plugged in (MOUSE, KEY, HUB, usb("1-6", host_use="swap is on it"), usb("1-8", interfaces=":080650:")):
        count = ready.plug(plugged)
    answer = ready.connect().request("usb_attach", device=device, vm=vm)
    assert answer == {"result": "failed", "error": error}
    assert ready.operations() == count


def test_an_attach_to_a_vm_that_is_down_waits(world):
    world.ready("vm1")
    world.plug(CAMERA)
    answer = world.connect().request("usb_attach", device="webcam", vm="vm2")
    assert answer == {"result": "ok", "state": "waits", "vm": "vm2", "reason": "vm2 is not running"}


def test_f42_a_refusal_is_the_answer(ready):
    ready.do("mood", vm="vm2", refuses="no USB controller\u001b: add one")
    ready.plug(CAMERA)
    client = ready.connect()
    answer = client.request("usb_attach", device="webcam", vm="vm2")
    assert answer == {"result": "failed", "state": "refused", "vm": "vm2",
                      "reason": "no USB controller\\x1b: add one", "error": "no USB controller\\x1b: add one"}
    # What a person asks is tried, and the answer is about that try, not about the one before.
    ready.do("mood", vm="vm2")
    assert client.request("usb_attach", device="webcam", vm="vm2")["state"] == "attached"


def test_what_may_pass_waits(ready):
    ready.do("mood", vm="vm2", fails="its bus is being reset")
    ready.plug(CAMERA)
    answer = ready.connect().request("usb_attach", device="webcam", vm="vm2")
    assert answer == {"result": "ok", "state": "waits", "vm": "vm2", "reason": "its bus is being reset"}


def test_f32_a_detach_holds_until_an_attach(ready):
    ready.plug(MOUSE)
    client = ready.connect()
    answer = client.request("usb_detach", bus="1", port="3", tag=None)
    assert answer["result"] == "ok" and answer["state"] == "host" and answer["vm"] is None
    device, = client.request("usb_list", disconnected=True)["usb_devices"]
    assert device["detached"] and device["vm"] is None and device["allowed_vms"] == ["vm1"]
    count = ready.pull(MOUSE)
    ready.plug(MOUSE)
    ready.do("down", vm="vm1")
    ready.do("up", vm="vm1", process=9)
    assert ready.operations() == count
    assert client.request("usb_detach", device="1-3")["result"] == "ok"
    answer = client.request("usb_attach", device="1-3", vm=None)
    assert answer["state"] == "attached" and answer["vm"] == "vm1"
    assert client.request("usb_list", disconnected=True)["usb_devices"] == []


def test_f45_tags(ready):
    for device in (MOUSE, usb("1-7", number=9), CAMERA, KEY):
        ready.plug(device)
    client = ready.connect()
    answer = client.request("usb_detach", tag="input")
    assert answer["result"] == "ok"
    assert [(one["sys_name"], one["result"], one["state"]) for one in answer["devices"]] == [
        ("1-3", "ok", "host"), ("1-7", "ok", "host")]
    assert [one["sys_name"] for one in client.request("usb_list", disconnected=True)["usb_devices"]] == ["1-3", "1-7"]
    answer = client.request("usb_attach", tag="input", vm="vm1")
    assert [(one["sys_name"], one["vm"]) for one in answer["devices"]] == [("1-3", "vm1"), ("1-7", "vm1")]
    answer = client.request("usb_attach", tag="input", vm="vm2")
    assert answer["result"] == "failed"
    assert answer["error"].startswith("2 of 2 devices: USB Mouse (0627:0001, 1-3): ")
    assert all(one["result"] == "failed" and "vm2 is not allowed" in one["error"] for one in answer["devices"])
    ready.pull(CAMERA)
    assert client.request("usb_detach", tag="camera") == {"result": "ok", "devices": []}


# ---- suspend and resume

def test_f27_suspend_and_resume(ready):
    for device in (MOUSE, usb("1-7", number=9), RADIO, KEYBOARD):
        ready.plug(device)
    client = ready.connect()
    assert client.request("usb_detach", device="1-7")["result"] == "ok"
    answer = client.request("usb_suspend", vm=None)
    assert answer["result"] == "ok"
    assert [(one["sys_name"], one["result"], one["state"], one.get("skipped")) for one in answer["devices"]] == [
        ("1-3", "ok", "waits", None), ("2-1", "ok", "attached", True)]
    assert [vm["suspended"] for vm in client.request("vm_list")["vms"]] == [True, True]
    assert states(client.request("usb_list")["usb_devices"]) == {"1-3": "waits", "1-7": "host", "2-1": "attached"}
    ready.plug({**MOUSE, "devnum": 12})  # it was enumerated anew while the host slept
    answer = client.request("usb_resume")
    assert [(one["sys_name"], one["result"], one["state"], one.get("skipped")) for one in answer["devices"]] == [
        ("2-1", "ok", "attached", True), ("1-3", "ok", "attached", None)]
    assert client.request("usb_list")["usb_devices"][0]["detached"]
    assert [vm["suspended"] for vm in client.request("vm_list")["vms"]] == [False, False]


def test_f27_one_vm_is_suspended(ready):
    ready.plug(MOUSE)
    ready.plug(CAMERA)
    client = ready.connect()
    client.request("usb_attach", device="webcam", vm="vm2")
    assert [one["sys_name"] for one in client.request("usb_suspend", vm="vm2")["devices"]] == ["1-2.3"]
    assert [vm["suspended"] for vm in client.request("vm_list")["vms"]] == [False, True]
    ready.do("mood", vm="vm2", refuses="no free port")
    answer = client.request("usb_resume", vm="vm2")
    assert answer["result"] == "failed"
    assert answer["error"] == "1 of 1 devices: Webcam C270 (046d:0825, 1-2.3): no free port"
    assert client.request("usb_suspend", vm="vm9") == {"result": "failed", "error": "there is no VM vm9"}
    assert client.request("usb_resume", vm=9) == {"result": "failed", "error": "vm must be a string that is not empty"}


# ---- reload

def test_f43_reload(ready):
    ready.plug(MOUSE)
    client = ready.connect()
    assert client.request("reload") == {"result": "ok"}
    ready.configure({**worlds.RULES, "usbPassthrough": []})
    assert client.request("reload") == {"result": "ok"}
    assert client.request("usb_list")["usb_devices"] == []
    ready.configure({**worlds.RULES, "usbPassthrough": [{"targetVm": "vm9", "allow": [{"vendor": "1"}]}]})
    answer = client.request("reload")
    assert answer["result"] == "failed" and len(answer["errors"]) == 2
    assert answer["error"] == "\n".join(answer["errors"])
    assert all(line.startswith(str(ready.file) + ": usbPassthrough[0]") for line in answer["errors"])
    assert client.request("usb_list")["usb_devices"] == []
    ready.configure(text="{\x1b")
    assert "\x1b" not in client.request("reload")["error"]


# ---- guests

def test_f47_a_guest_sees_and_names_its_own_vm_only(ready):
    for device in (MOUSE, CAMERA, RADIO, KEY, HUB):
        ready.plug(device)
    ready.connect().request("usb_attach", device="webcam", vm="vm2")
    one, two = ready.guest(5), ready.guest(6)
    listed = one.request("usb_list")["usb_devices"]
    assert [device["sys_name"] for device in listed] == ["1-3", "1-2.3"]
    assert listed[1]["allowed_vms"] == ["vm1"]
    assert listed[1]["vm"] is listed[1]["target"] is listed[1]["selected"] is None
    assert [vm["name"] for vm in one.request("vm_list")["vms"]] == ["vm1"]
    assert [device["sys_name"] for device in one.request("device_list")["devices"]] == ["1-3", "1-2.3"]
    answer = one.request("status")
    assert answer["vms"] == {"up": 1} and answer["devices"] == {"attached": 2} and answer["config"] is None
    # Neither what is there nor who else is there can be asked for.
    for vm in ("vm2", "vm9"):
        for action in ("usb_attach", "usb_suspend", "usb_resume", "pci_suspend"):
            assert one.request(action, device="1-3", vm=vm) == {"result": "failed",
                                                                "error": "not allowed for this client"}
    assert one.request("explain", device="2-1") == one.request("usb_detach", device="2-1") == {
        "result": "failed", "error": "there is no device 2-1"}
    everything = json.dumps([one.request(action, device="webcam", tag=None) for action in (
        "usb_list", "device_list", "vm_list", "status", "explain")])
    assert "vm2" not in everything
    assert one.request("reload") == {"result": "failed", "error": "not allowed for this client"}
    assert [device["sys_name"] for device in two.request("usb_list")["usb_devices"]] == ["1-2.3", "2-1"]
    explanation = one.request("explain", device="1-3")["explanation"]
    assert explanation == {"verdict": "attach", "vm": "vm1", "allowed_vms": ["vm1"], "groups": [],
                           "reason": "allowed by usbPassthrough[0].allow[0]"}


def test_f47_a_guest_learns_no_tag_of_others(ready):
    rules = json.loads(json.dumps(worlds.RULES))
    rules["usbPassthrough"][2]["tag"] = "radio"
    ready.configure(rules)
    assert ready.connect().request("reload") == {"result": "ok"}
    ready.plug(RADIO)
    one, two = ready.guest(5), ready.guest(6)
    assert one.request("usb_detach", tag="radio")["error"] == "no group has the tag radio"
    assert two.request("usb_detach", tag="radio")["devices"][0]["sys_name"] == "2-1"


def test_f47_guests_leave_room_for_what_people_detach(ready):
    """One that comes under ever new serial numbers makes nobody's detach be forgotten, and leaves half of the room."""
    ready.plug(CAMERA)
    host, guest = ready.connect(), ready.guest(5)
    assert host.request("usb_detach", device="webcam")["result"] == "ok"
    for number in range(2047):
        ready.plug({**MOUSE, "serial": f"S{number}"})
        assert guest.request("usb_detach", device="1-3")["result"] == "ok"
    assert guest.request("usb_detach", device="1-3")["result"] == "ok"  # again
    ready.plug({**MOUSE, "serial": "S"})
    answer = guest.request("usb_detach", device="1-3")
    assert answer["result"] == "failed" and answer["error"] == (
        "2048 devices are detached by request, and this client may detach no more: attach some of them first")
    assert host.request("usb_detach", device="1-3")["result"] == "ok"
    assert [device["sys_name"] for device in host.request("usb_list", disconnected=True)["usb_devices"]] == ["1-2.3", "1-3"]
    assert guest.request("usb_attach", device="1-3")["state"] == "attached"


def test_f47_a_guest_takes_nothing_from_another(ready):
    ready.plug(CAMERA)
    one, two, host = ready.guest(5), ready.guest(6), ready.connect()
    assert one.request("usb_attach", device="webcam")["vm"] == "vm1"
    count = ready.operations()
    for action in ("usb_attach", "usb_detach"):
        assert two.request(action, device="webcam") == {"result": "failed", "error": "not allowed for this client"}
    assert ready.operations() == count
    assert one.request("usb_detach", device="webcam")["result"] == "ok"
    assert two.request("usb_attach", device="webcam", vm="vm2")["vm"] == "vm2"
    assert one.request("usb_suspend")["devices"] == []
    assert host.request("usb_list")["usb_devices"][0]["vm"] == "vm2"
    assert [vm["suspended"] for vm in host.request("vm_list")["vms"]] == [True, False]


def test_f47_a_guest_takes_nothing_that_another_may_have(world):
    world.do("remember", key="usb:1-2.3", instance=1, vm="vm2", process=101)
    world.plug(CAMERA, there=True)
    world.do("scanned")
    world.do("up", vm="vm1", process=100)
    one, two = world.guest(5), world.guest(6)
    assert world.connect().request("usb_list")["usb_devices"][0]["state"] == "waits"
    for action in ("usb_attach", "usb_detach"):
        assert one.request(action, device="webcam") == {"result": "failed", "error": "not allowed for this client"}
    world.do("down", vm="vm2")
    assert one.request("usb_attach", device="webcam")["vm"] == "vm1"


def test_f47_a_guest_takes_nothing_that_a_person_wants_elsewhere(world):
    world.ready("vm1")
    world.plug(CAMERA)
    one, host = world.guest(5), world.connect()
    assert host.request("usb_attach", device="webcam", vm="vm2")["state"] == "waits"
    for action in ("usb_attach", "usb_detach"):
        assert one.request(action, device="webcam") == {"result": "failed", "error": "not allowed for this client"}
    assert host.request("usb_list")["usb_devices"][0]["target"] == "vm2"
    world.pull(CAMERA)  # and when it is plugged again
    world.plug(CAMERA)
    assert one.request("usb_attach", device="webcam")["error"] == "not allowed for this client"
    assert host.request("usb_detach", device="webcam")["result"] == "ok"
    assert one.request("usb_attach", device="webcam")["vm"] == "vm1"


def test_f47_a_reason_names_no_other_vm(ready):
    ready.plug(CAMERA)
    ready.do("down", vm="vm2")
    ready.connect().request("usb_attach", device="webcam", vm="vm2")
    reasons = [ready.guest(cid).request("usb_list")["usb_devices"][0]["reason"] for cid in (5, 6)]
    assert reasons == ["it concerns another VM", "vm2 is not running"]


@pytest.mark.parametrize("cid, allowed", [(7, "list"), (8, "notify"), (9, "control")])
def test_f47_permissions(ready, cid, allowed):
    kinds = {"list": ["usb_list", "device_list", "vm_list", "status", "explain", "pci_list"],
             "notify": ["enable_notifications"],
             "control": ["usb_attach", "usb_detach", "usb_suspend", "usb_resume", "pci_attach", "pci_detach",
                         "pci_suspend", "pci_resume", "vmm_args", "reload"]}
    guest = ready.guest(cid)
    for kind, actions in kinds.items():
        for action in actions:
            answer = guest.request(action, device="1-3")
            refused = answer.get("error") == f"{action}: not allowed for this client"
            assert refused == (kind != allowed), (action, answer)


# ---- events

def told(ready, listener):
    """What a listener was told by now, in short words."""
    ready.operations()
    return events(listener)


def test_f44_each_thing_that_happens_is_told_once(world):
    world.plug(RADIO, there=True)
    world.plug(MOUSE, there=True)
    listener = world.listener()
    world.ready("vm1")
    assert told(world, listener) == ["vm_up vm1"]
    world.plug(CAMERA)
    world.plug(HUB)
    world.plug(KEYBOARD)
    world.plug(KEY)
    assert told(world, listener) == ["usb_connected 1-2.3", "usb_select_vm 1-2.3", "usb_connected 1-4"]
    client = world.connect()
    client.request("usb_attach", device="webcam", vm="vm1")
    assert told(world, listener) == ["usb_attached 1-2.3 vm1"]
    # Nothing has happened: the same again, a reload, an answer.
    client.request("usb_attach", device="webcam", vm="vm1")
    world.plug(KEY, again=True)
    world.do("scanned")
    assert client.request("reload")["result"] == "ok"
    assert client.request("usb_list")["result"] == "ok"
    assert told(world, listener) == []
    world.do("down", vm="vm1")
    assert sorted(told(world, listener)) == ["usb_detached 1-2.3 vm1", "vm_down vm1"]
    world.do("up", vm="vm1", process=5)
    assert sorted(told(world, listener)) == ["usb_attached 1-2.3 vm1", "vm_up vm1"]
    world.do("up", vm="vm1", process=6)  # another process, and nobody saw the end of the one before
    assert sorted(told(world, listener)) == [
        "usb_attached 1-2.3 vm1", "usb_detached 1-2.3 vm1", "vm_down vm1", "vm_up vm1"]
    world.pull(CAMERA)
    assert told(world, listener) == ["usb_detached 1-2.3 vm1", "usb_disconnected 1-2.3"]
    world.pull(KEY)
    world.pull(RADIO)  # that was there before us, and stayed on the host
    world.pull(HUB)
    assert told(world, listener) == ["usb_disconnected 1-4", "usb_disconnected 2-1"]


def test_f44_a_refusal_is_told_once(ready):
    listener = ready.listener()
    ready.do("mood", vm="vm1", refuses="no free \u001bport")
    ready.plug(MOUSE)
    assert told(ready, listener) == ["usb_connected 1-3", "attach_failed 1-3 vm1 no free \\x1bport"]
    ready.connect().request("usb_attach", device="1-3")
    assert told(ready, listener) == []
    ready.do("mood", vm="vm1")
    ready.connect().request("usb_attach", device="1-3")
    assert told(ready, listener) == ["usb_attached 1-3 vm1"]


def test_f44_what_two_vms_refuse_is_told_of_both(ready):
    for vm in ("vm1", "vm2"):
        ready.do("mood", vm=vm, refuses="no free port")
    ready.plug(CAMERA)
    client, listener = ready.connect(), ready.listener()
    for vm in ("vm1", "vm2"):
        assert client.request("usb_attach", device="webcam", vm=vm)["state"] == "refused"
    assert told(ready, listener) == ["attach_failed 1-2.3 vm1 no free port", "attach_failed 1-2.3 vm2 no free port"]
    ready.pull(CAMERA)
    assert told(ready, listener) == ["usb_disconnected 1-2.3"]


def test_f44_what_has_gone_is_forgotten(ready):
    listener = ready.listener()
    for again in (False, True):
        ready.plug(KEY, again=again)
        ready.pull(KEY)
    assert told(ready, listener) == ["usb_connected 1-4", "usb_disconnected 1-4"] * 2


def test_f44_a_failure_that_repeats_is_no_event(ready):
    listener = ready.listener()
    ready.do("mood", vm="vm1", fails="busy")
    ready.plug(MOUSE)
    begin = ready.operations()
    ready.wait_operations(begin + 4)
    assert told(ready, listener) == ["usb_connected 1-3"]


def test_a_device_that_moves_leaves_and_comes(ready):
    ready.plug(CAMERA)
    client, listener = ready.connect(), ready.listener()
    client.request("usb_attach", device="webcam", vm="vm1")
    client.request("usb_attach", device="webcam", vm="vm2")
    client.request("usb_detach", device="webcam")
    assert told(ready, listener) == ["usb_attached 1-2.3 vm1", "usb_detached 1-2.3 vm1", "usb_attached 1-2.3 vm2",
                                     "usb_detached 1-2.3 vm2"]


def test_a_detach_is_told_when_the_vm_has_let_go(ready):
    ready.plug(MOUSE)
    listener = ready.listener()
    ready.do("mood", vm="vm1", hangs=True)
    client = ready.connect()
    client.send(b'{"action": "usb_detach", "device": "1-3"}\n')
    ready.wait_operations(2)
    assert told(ready, listener) == []
    ready.do("mood", vm="vm1")
    assert client.answer()["state"] == "host"
    assert told(ready, listener) == ["usb_detached 1-3 vm1"]


def test_f47_events_of_others_are_not_told_to_guests(ready):
    one, two = ready.listener(5), ready.listener(6)
    for device in (MOUSE, RADIO, CAMERA, KEY):
        ready.plug(device)
    host = ready.connect()
    host.request("usb_attach", device="webcam", vm="vm2")
    ready.do("down", vm="vm2")
    ready.pull(CAMERA)
    answer = one.request("pci_list")
    assert answer["result"] == "ok"
    assert [worlds.short(event) for event in one.events] == [
        "usb_connected 1-3", "usb_attached 1-3 vm1", "usb_connected 1-2.3", "usb_select_vm 1-2.3",
        "usb_disconnected 1-2.3"]
    assert "vm2" not in json.dumps(one.events)
    assert sorted(told(ready, two)) == sorted([
        "usb_connected 2-1", "usb_attached 2-1 vm2", "usb_connected 1-2.3", "usb_select_vm 1-2.3",
        "usb_attached 1-2.3 vm2", "vm_down vm2", "usb_detached 1-2.3 vm2", "usb_detached 2-1 vm2",
        "usb_disconnected 1-2.3"])


def test_f47_from_whom_a_reload_takes_events_is_told_nothing(ready):
    listener, client = ready.listener(8), ready.connect()
    ready.api["allowedCids"] = [{"cid": 8, "permissions": ["list"]}]
    ready.configure()
    assert client.request("reload") == {"result": "ok"}
    ready.plug(MOUSE)
    assert told(ready, listener) == []


def test_who_does_not_ask_is_told_nothing(ready):
    quiet, listener = ready.connect(), ready.listener()
    assert listener.request("enable_notifications") == {"result": "ok"}  # twice is once
    ready.plug(MOUSE)
    assert told(ready, listener) == ["usb_connected 1-3", "usb_attached 1-3 vm1"]
    assert quiet.request("pci_list")["result"] == "ok" and quiet.events == []
