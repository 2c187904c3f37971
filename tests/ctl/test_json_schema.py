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
    for device in (worlds.MOUSE, worlds.CAMERA, worlds.KEY, worlds.RADIO, worlds.HUB, worlds.KEYBOARD):
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
    assert len(listed) == 6
    assert {"attached", "host", "waits"} <= {device["state"] for device in listed}
    for device in listed: # each member that is printed is described, and each that is described is printed
        kind = {"usb": "usbDevice", "evdev": "inputDevice"}[device["kind"]]
        assert set(device) == described("device") | described(kind)


def test_vms(ask):
    listed = ask("vms")
    assert complaints("vms", listed) == []
    assert {vm["name"]: vm["state"] for vm in listed} == {"vm1": "up", "vm2": "down"}
    assert all(set(vm) == described("vm") for vm in listed)


def test_status(ask):
    status = ask("status")
    assert complaints("status", status) == []
    assert set(status) == described("status")
    assert sum(status["devices"].values()) == 5 # without the hub
    assert sum(status["vms"].values()) == 2


@pytest.mark.parametrize("name", ["1-3", "1-2.3", "1-4", "1-2", "event5"])
def test_explain(ask, name):
    reply = ask("explain", name)
    assert complaints("explain", reply) == []
    assert set(reply) == described("explain")
    assert set(reply["explanation"]) == described("explanation")
    for group in reply["explanation"]["groups"]:
        assert set(group) == described("triedGroup")
        for rule in group["rules"]:
            assert set(rule) == described("triedRule") - (set() if not rule["matches"] else {"field", "wanted", "found"})


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


def test_pci_devices_are_described():
    """None is served yet, so what would be printed is read from the source."""
    source = (ROOT / "src/core/device_json.c").read_text()
    members = {"kind"}
    for name in ("pci_to_json", "add_names", "add_reported"):
        body = re.search(rf"static void {name}\(.*?\n}}\n", source, re.S).group(0)
        members |= set(re.findall(r'add_\w+\(object, "(\w+)"', body))
    assert members == described("pciDevice")


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
