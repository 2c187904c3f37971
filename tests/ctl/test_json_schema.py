"""What --json prints is as data/vhotplugctl.schema.json says, and that says no more than is printed."""
import json
import pathlib
import re
import sys

import pytest

import ctl

jsonschema = pytest.importorskip("jsonschema", reason="python3-jsonschema is not installed")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(1, str(ROOT / "tests/api"))

import world as worlds

SCHEMA = json.loads((ROOT / "data/vhotplugctl.schema.json").read_text())
WIFI = {"kind": "pci", "address": "0000:00:14.3", "vid": "8086", "did": "a0f0", "pci_class": 2}


def complaints(verb, value):
    """What the schema of a verb has against a value."""
    schema = {"$ref": f"#/$defs/{verb}", "$defs": SCHEMA["$defs"]}
    return [f"{list(error.absolute_path)}: {error.message}"
            for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]


def described(name):
    """The members that the schema describes for an object of this name."""
    return set(SCHEMA["$defs"][name]["properties"])


@pytest.fixture
def world(build, place):
    """A host with a device in each state that is easily had."""
    made, end = worlds.make(build, place)
    made.ready("vm1")
    for device in (worlds.MOUSE, worlds.CAMERA, worlds.KEY, worlds.RADIO, worlds.HUB, worlds.KEYBOARD, worlds.WIFI,
                   worlds.SOUND):
        made.plug(device)
    yield made
    end()


@pytest.fixture
def ask(program, world):
    """What vhotplugctl prints of that host."""
    def begin(*arguments):
        result = ctl.run(program, "-s", world.address, *arguments, "--json")
        assert (result.returncode, result.stderr) == (0, "")
        return json.loads(result.stdout)
    return begin


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    references = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(SCHEMA)))
    assert references == set(SCHEMA["$defs"])


def test_list(ask):
    listed = ask("list")
    assert complaints("list", listed) == []
    assert len(listed) == 7
    assert {"attached", "host", "waits"} <= {device["state"] for device in listed}
    functions = ask("list", "--pci")
    assert complaints("list", functions) == [] and [device["kind"] for device in functions] == ["pci"] * 2
    for device in listed + functions: # each member that is printed is described, and each that is described is printed
        kinds = {"usb": ["usbDevice"], "evdev": ["inputDevice"], "pci": ["pciDevice", "pciFunction"]}[device["kind"]]
        assert set(device) == described("device").union(*map(described, kinds))


def test_vms(ask):
    listed = ask("vms")
    assert complaints("vms", listed) == []
    assert {vm["name"]: vm["state"] for vm in listed} == {"vm1": "up", "vm2": "down"}
    assert all(set(vm) == described("vm") for vm in listed)


def test_status(ask):
    status = ask("status")
    assert complaints("status", status) == []
    assert set(status) == described("status")
    assert sum(status["devices"].values()) == 6 # without the hub and the sound card
    assert sum(status["vms"].values()) == 2


@pytest.mark.parametrize("name", ["1-3", "1-2.3", "1-4", "1-2", "event5", "00:14.3", "00:1f.3"])
def test_explain(ask, name):
    reply = ask("explain", name)
    assert complaints("explain", reply) == []
    assert set(reply) == described("explain")
    pci = {"iommu_group", "peers"} if reply["device"]["kind"] == "pci" else set()
    assert set(reply["explanation"]) == described("explanation") - {"iommu_group", "peers", "host"} | pci
    for group in reply["explanation"]["groups"]:
        assert set(group) == described("triedGroup")
        for rule in group["rules"]:
            assert set(rule) == described("triedRule") - (set() if not rule["matches"] else {"field", "wanted", "found"})


def test_what_is_moved(ask, world):
    moved = ask("detach", "1-3")
    assert complaints("detach", moved) == [] and moved["state"] == "host"
    assert set(moved) == described("moved") - {"error"}
    moved = ask("attach", "1-3")
    assert complaints("attach", moved) == [] and moved["state"] == "attached"
    assert set(moved) == described("moved") - {"error"}
    for verb in ("suspend", "resume"):
        moved = ask(verb)
        assert complaints(verb, moved) == [] and moved["devices"]
        assert all(set(device) >= {"state", "vm", "reason"} for device in moved["devices"])


def test_refusals(program, world):
    for arguments in (["attach", "1-9"], ["attach", "1-4"], ["detach", "nonesuch"], ["suspend", "vm9"], ["resume", "vm9"]):
        result = ctl.run(program, "-s", world.address, *arguments, "--json")
        assert (result.returncode, complaints("failed", json.loads(result.stdout))) == (1, []), arguments


LEFT = {name: ctl.RECEIVER[name] for name in ("device_node", "vid", "pid", "sys_name", "serial")}
DEVICE = {**ctl.RECEIVER, "kind": "usb"}
MOVED = {"result": "ok", "state": "attached", "vm": "vm1", "reason": "allowed by usbPassthrough[0].allow[0]"}
STUCK = {"result": "failed", "error": "vm1 has not let go of it yet: busy", "state": "detaching", "vm": "vm1",
         "reason": "busy"}
SEVERAL = {"result": "ok", "devices": [{**DEVICE, **MOVED, "skipped": True}, {**DEVICE, "result": "ok", "state": "gone",
                                                                          "vm": None, "reason": "it was unplugged"}]}
SOME = {"result": "failed", "error": "1 of 1 devices: x", "devices": [{**DEVICE, **STUCK}]}
PRINTED = [
    ("attach", "attach x", "usb_attach", MOVED),
    ("attach", "attach x", "usb_attach", {**MOVED, "state": "waits", "reason": "vm1 is not running"}),
    ("detach", "detach x", "usb_detach", {**MOVED, "state": "host", "vm": None, "reason": "detached"}),
    ("detach", "detach x", "usb_detach", {**MOVED, "state": "gone", "vm": None, "reason": "it was unplugged"}),
    ("detach", "detach x", "usb_detach", {**MOVED, "state": "detaching"}),
    ("suspend", "suspend", "usb_suspend", SEVERAL), ("resume", "resume", "usb_resume", SEVERAL),
    ("reload", "reload", "reload", {"result": "ok"}),
    ("failed", "attach x", "usb_attach", {"result": "failed", "error": "there is no device x"}),
    ("failed", "detach x", "usb_detach", STUCK), ("failed", "suspend", "usb_suspend", SOME),
    ("failed", "resume", "usb_resume", SOME),
    ("failed", "reload", "reload", {"result": "failed", "error": "a\nb", "errors": ["a", "b"]})]


@pytest.mark.parametrize("name,line,action,reply", PRINTED)
def test_replies_are_printed_as_they_are_described(run, peer, name, line, action, reply):
    peer({action: reply})
    printed = json.loads(run(*line.split(), "--json").stdout)
    assert printed == reply and complaints(name, printed) == []
    other = "failed" if name != "failed" else line.split()[0]
    assert complaints(other, printed) != []


def test_each_state_of_a_moved_device_is_described():
    for state in (*SCHEMA["$defs"]["deviceState"]["enum"], "gone"):
        assert complaints("attach", {**MOVED, "state": state}) == []
    assert complaints("attach", {**MOVED, "state": "lost"}) != []


@pytest.mark.parametrize("name,reply,member", [
    ("attach", MOVED, "state"), ("detach", MOVED, "vm"), ("detach", MOVED, "reason"), ("suspend", SEVERAL, "devices"),
    ("reload", {"result": "ok"}, "result"), ("failed", STUCK, "error"), ("failed", STUCK, "result")])
def test_a_reply_without_a_member_is_seen(name, reply, member):
    assert complaints(name, reply) == []
    assert complaints(name, {key: value for key, value in reply.items() if key != member}) != []


EVENTS = [
    {"event": "usb_connected", "usb_device": DEVICE}, {"event": "usb_disconnected", "usb_device": LEFT},
    {"event": "usb_attached", "usb_device": DEVICE, "vm": "vm1"}, {"event": "usb_detached", "usb_device": LEFT, "vm": "vm1"},
    {"event": "attach_failed", "usb_device": DEVICE, "vm": "vm1", "error": "no free port"},
    {"event": "usb_select_vm", "usb_device": DEVICE, "allowed_vms": ["vm1", "vm2"]},
    {"event": "vm_up", "vm": "vm1"}, {"event": "vm_down", "vm": "vm1"}]


def test_events_are_printed_as_they_are_described(start, peer, place):
    daemon = peer({"device_list": {"result": "ok", "devices": []}, "enable_notifications": {"result": "ok"}})
    running = start("-s", place / "socket", "monitor", "--json")
    daemon.wait_answered("enable_notifications")
    daemon.send(*EVENTS)
    running.wait_line(running.lines, len(EVENTS))
    printed = [json.loads(line) for line in running.lines]
    assert printed == EVENTS
    assert [complaints("monitor", event) for event in printed] == [[]] * len(EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=[event["event"] for event in EVENTS])
def test_an_event_without_a_member_is_seen(event):
    for member in event:
        assert complaints("monitor", {key: value for key, value in event.items() if key != member}) != []
    assert complaints("monitor", {**event, "event": "vm_sideways"}) != []


def test_events_of_the_daemon_are_as_described(start, world):
    """All events that the source names are described, and those that are easily had are as described."""
    source = (ROOT / "src/api/events.c").read_text()
    told = set(re.findall(r'"((?:usb|vm)_[a-z_]+|attach_failed)"', source)) - {"usb_device"}
    assert told == {event["event"] for event in EVENTS}
    running = start("-s", world.address, "monitor", "--json")
    running.wait_line(running.errors, 1)
    world.pull(worlds.MOUSE)
    world.plug(worlds.MOUSE)
    running.wait_line(running.lines, 4)
    printed = [json.loads(line) for line in running.lines]
    assert {event["event"] for event in printed} == {"usb_detached", "usb_disconnected", "usb_connected", "usb_attached"}
    assert [complaints("monitor", event) for event in printed] == [[]] * 4


def test_explain_offline(program, place):
    devices, config = place / "devices.json", place / "vhotplug.conf"
    config.write_text(json.dumps({**worlds.RULES, "pciPassthrough": [{"targetVm": "vm1", "allow": [{"deviceClass": 2}]}]}))
    devices.write_text(json.dumps([worlds.MOUSE, worlds.CAMERA, worlds.KEY, worlds.HUB, worlds.KEYBOARD, WIFI, {},
                                   {**worlds.MOUSE, "host_use": "/ is mounted from it"}]))
    result = ctl.run(program, "explain", "-c", config, "--device", devices, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    verdicts = json.loads(result.stdout)
    assert [one["verdict"] for one in verdicts] == ["attach", "choose", "deny", "hub", "attach", "attach", "none", "host"]
    assert complaints("explainOffline", verdicts) == []
    assert complaints("list", verdicts) != [] # the definitions tell each other apart


def test_all_words_of_states_are_there():
    report, view = ((ROOT / "src" / path).read_text() for path in ("core/report.c", "api/view.c"))
    states = re.findall(r"\[STATE_\w+\] = \{\"(\w+)\"", report)
    assert states and sorted(SCHEMA["$defs"]["deviceState"]["enum"]) == sorted(states)
    states = re.findall(r"\[VM_STATE_\w+\] = \"(\w+)\"", view)
    assert states and sorted(SCHEMA["$defs"]["vmState"]["enum"]) == sorted([*states, "unknown"])


def test_an_iommu_group_is_described(program, build, place):
    """Of a function that shares its group, and of a device that USB authorization is about."""
    made, end = worlds.make(build, place, rules={
        **worlds.RULES, "usbAuthorization": {"enable": True, "hostAllow": [{"vendorId": "1050"}]}})
    try:
        made.ready("vm1")
        peer = worlds.pci("00:14.5", "8086", "a0f5", pci_class=2)
        made.plug({**worlds.WIFI, "peers": [peer, worlds.pci("00:1c.0", "8086", "a0b8", pci_class=6)]})
        made.plug(worlds.KEY)
        reply = json.loads(ctl.run(program, "-s", made.address, "explain", "00:14.3", "--json").stdout)
        assert complaints("explain", reply) == []
        assert [set(one) for one in reply["explanation"]["peers"]] == [described("peer")] * 2
        assert [set(one) for one in reply["device"]["peers"]] == [described("pciFunction")] * 2
        reply = json.loads(ctl.run(program, "-s", made.address, "explain", "1-4", "--json").stdout)
        assert complaints("explain", reply) == [] and set(reply["explanation"]["host"]) == described("hostUse")
    finally:
        end()


@pytest.mark.parametrize("change", [
    lambda verdict: verdict.pop("reason"), lambda verdict: verdict.pop("rule"), lambda verdict: verdict.update(more=1),
    lambda verdict: verdict.update(vm=None), lambda verdict: verdict.update(verdict="allowed"),
    lambda verdict: verdict.update(group=-1), lambda verdict: verdict.update(reason=""),
    lambda verdict: verdict.update(allowed_vms=[])])
def test_a_wrong_verdict_is_seen(change):
    verdict = {"verdict": "attach", "vm": "vm1", "allowed_vms": ["vm1"], "group": 0, "rule": 0, "reason": "allowed"}
    assert complaints("explainOffline", [verdict]) == []
    change(verdict)
    assert complaints("explainOffline", [verdict]) != []
