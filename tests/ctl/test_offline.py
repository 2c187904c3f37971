"""Policy tested before it is deployed: explain -c CONFIG --device FILE, and check CONFIG."""
import json
import os
import pathlib
import re
import subprocess

import pytest

import ctl

ROOT = pathlib.Path(__file__).resolve().parents[2]
BAD = sorted((ROOT / "tests/config/bad").glob("*.json"))
GOOD = sorted((ROOT / "tests/config/good").glob("*.json"))
VMS = [{"name": name, "type": "qemu", "socket": f"/run/{name}.qmp"} for name in ("vm1", "vm2")]
MEMBERS = ["verdict", "vm", "allowed_vms", "group", "rule", "reason"]

MOUSE = {"vid": "0627", "pid": "0001", "vendor_name": "QEMU", "product_name": "QEMU USB Mouse", "device_class": 0,
         "device_subclass": 0, "device_protocol": 0, "interfaces": ":030102:", "busnum": 1, "devnum": 4, "portnum": 2,
         "serial": "S-42", "sys_name": "1-2.3", "port_path": "1-2.3", "removable": "removable",
         "id_path": "pci-0000:00:14.0-usb-0:2.3", "device_node": "/dev/bus/usb/001/004"}
SERIAL_PORT = {**MOUSE, "product_name": "CH341", "interfaces": ":ff0102:", "drivers": ["/lib/modules/x/usb/ch341.ko.xz"]}
CAMERA = {"vid": "046d", "pid": "0825", "product_name": "Webcam C270", "interfaces": ":0e0100:0e0200:010100:010200:",
          "device_class": 239, "device_subclass": 2, "device_protocol": 1, "sys_name": "3-1"}
HUB = {"vid": "05e3", "pid": "0610", "device_class": 9, "interfaces": ":090001:090002:", "sys_name": "1-2"}
KEYBOARD = {"kind": "evdev", "name": "AT Translated Set 2 keyboard", "path_tag": "platform-i8042-serio-0",
            "properties": {"ID_INPUT": "1", "ID_INPUT_KEYBOARD": "1"}, "device_node": "/dev/input/event3"}
BUTTON = {"kind": "evdev", "name": "Power Button", "properties": ["ID_INPUT=1", "ID_INPUT_KEY=1"]}
WIFI = {"kind": "pci", "address": "0000:00:14.3", "vid": "8086", "did": "a0f0", "pci_class": 2, "pci_subclass": 128,
        "pci_prog_if": 0, "driver": "iwlwifi"}


@pytest.fixture
def daemon_program(build):
    return build / "src" / "vhotplug"


@pytest.fixture
def config(place):
    def write(**keys):
        path = place / "vhotplug.conf"
        path.write_text(json.dumps({"vms": VMS, **keys}))
        return path
    return write


@pytest.fixture
def explain(program, place):
    """Verdicts for devices by a configuration."""
    def begin(config_file, devices, *options):
        path = place / "devices.json"
        path.write_text(devices if isinstance(devices, str) else json.dumps(devices))
        return ctl.run(program, "explain", "-c", config_file, "--device", path, *options)
    return begin


@pytest.fixture
def verdicts(explain):
    def begin(config_file, devices):
        result = explain(config_file, devices, "--json")
        assert (result.returncode, result.stderr) == (0, "")
        found = json.loads(result.stdout)
        for verdict in found:
            assert list(verdict) == MEMBERS
            assert isinstance(verdict["reason"], str) and verdict["reason"] # F42: each verdict has a reason
        return found
    return begin


def attach(vm, group=0, rule=0, section="usbPassthrough"):
    path = f"{section}[{group}].allow[{rule}]"
    return {"verdict": "attach", "vm": vm, "allowed_vms": [vm], "group": group, "rule": rule,
            "reason": f"allowed by {path}"}


def stays(verdict, reason, group=None, rule=None):
    return {"verdict": verdict, "vm": None, "allowed_vms": [], "group": group, "rule": rule, "reason": reason}


NONE = stays("none", "no rule allows it")


@pytest.mark.parametrize("section,device,fits,differs", [
    ("usb", MOUSE, {"vendorId": "0627"}, {"vendorId": "0628"}),
    ("usb", {**MOUSE, "vid": "0aBc"}, {"vendorId": "0AbC"}, {"vendorId": "abd"}),
    ("usb", MOUSE, {"productId": "0x1"}, {"productId": "0002"}),
    ("usb", MOUSE, {"vendorName": "qemu"}, {"vendorName": "EMU"}),
    ("usb", MOUSE, {"productName": "QEMU.*mouse$"}, {"productName": "mouse"}),
    ("usb", MOUSE, {"productName": "QEMU_USB"}, {"productName": "QEMU__USB"}),
    ("usb", MOUSE, {"bus": 1}, {"bus": 2}),
    ("usb", {**MOUSE, "busnum": "3"}, {"bus": 3}, {"bus": 1}),
    ("usb", {**MOUSE, "busnum": None}, {"bus": 1}, {"bus": 2}),
    ("usb", MOUSE, {"port": 2}, {"port": 3}),
    ("usb", {**MOUSE, "portnum": None}, {"port": 2}, {"port": 3}),
    ("usb", MOUSE, {"interfaceClass": 3}, {"interfaceClass": 8}),
    ("usb", MOUSE, {"interfaceSubclass": 1}, {"interfaceSubclass": 0}),
    ("usb", MOUSE, {"interfaceProtocol": 2}, {"interfaceProtocol": 1}),
    ("usb", CAMERA, {"interfaceClass": 14, "interfaceSubclass": 1}, {"interfaceClass": 14, "interfaceSubclass": 3}),
    ("usb", MOUSE, {"deviceClass": 0}, {"deviceClass": 239}),
    ("usb", CAMERA, {"deviceSubclass": 2}, {"deviceSubclass": 0}),
    ("usb", CAMERA, {"deviceProtocol": 1}, {"deviceProtocol": 0}),
    ("usb", MOUSE, {"removable": ["fixed", "removable"]}, {"removable": ["fixed", "unknown"]}),
    ("usb", CAMERA, {"removable": ["unknown"]}, {"removable": ["removable"]}),
    ("usb", SERIAL_PORT, {"driverPath": ".*/ch341"}, {"driverPath": ".*/pl2303"}),
    ("usb", SERIAL_PORT, {"driverPath": ".*ch341.*"}, {"driverPath": "ch341"}),
    ("usb", MOUSE, {"serial": "s-4"}, {"serial": "42"}),
    ("usb", MOUSE, {"portPath": "1-2.*"}, {"portPath": "1-2"}),
    ("usb", MOUSE, {"idPath": "pci-0000:00:14.0-usb-0:2*"}, {"idPath": "pci-0000:00:14.0-usb-0:3*"}),
    ("usb", MOUSE, {"vendorId": "0627", "interfaceClass": 3}, {"vendorId": "0627", "interfaceClass": 8}),
    ("evdev", KEYBOARD, {"name": "at translated"}, {"name": "keyboard"}),
    ("evdev", KEYBOARD, {"pathTag": "platform-i8042"}, {"pathTag": "pci"}),
    ("evdev", KEYBOARD, {"property": "ID_INPUT_KEYBOARD", "value": "1"}, {"property": "ID_INPUT_MOUSE", "value": "1"}),
    ("evdev", BUTTON, {"property": "ID_INPUT_KEY", "value": 1}, {"property": "ID_INPUT_KEY", "value": 0}),
    ("pci", WIFI, {"address": "00:14.3"}, {"address": "00:14.2"}),
    ("pci", WIFI, {"vendorId": "8086"}, {"vendorId": "8087"}),
    ("pci", WIFI, {"deviceId": "A0F0"}, {"deviceId": "a0f1"}),
    ("pci", WIFI, {"deviceClass": 2}, {"deviceClass": 3}),
    ("pci", WIFI, {"deviceSubclass": 128}, {"deviceSubclass": 0}),
    ("pci", WIFI, {"deviceProgIf": 0}, {"deviceProgIf": 1}),
], ids=lambda value: "+".join(value) if isinstance(value, dict) and len(value) < 3 else None)
def test_each_field_of_a_rule(verdicts, config, section, device, fits, differs):
    section += "Passthrough"
    assert verdicts(config(**{section: [{"targetVm": "vm1", "allow": [fits]}]}), device) == [
        attach("vm1", section=section)]
    assert verdicts(config(**{section: [{"targetVm": "vm1", "allow": [differs]}]}), device) == [NONE]
    # The same rule denies what it matches, and only that.
    everything = {"usbPassthrough": {"productName": ".*"}, "evdevPassthrough": {"name": ".*"},
                  "pciPassthrough": {"deviceClass": 2}}[section]
    assert verdicts(config(**{section: [{"targetVm": "vm1", "allow": [everything], "deny": [differs, fits]}]}), device) == [
        stays("deny", f"denied by {section}[0].deny[1]", 0, 1)]


def test_the_driver_tells_nothing_of_a_device_whose_interfaces_do(verdicts, config):
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"driverPath": ".*ch341"}]}])
    assert verdicts(path, [SERIAL_PORT, {**SERIAL_PORT, "interfaces": ":ff0102:080650:"}]) == [attach("vm1"), NONE]


def test_each_verdict(verdicts, config):
    path = config(usbPassthrough=[
        {"targetVm": "vm1", "disable": True, "allow": [{"productName": ".*"}]},
        {"targetVm": "vm1", "allow": [{"interfaceClass": 8, "disable": True}, {"interfaceClass": 3}],
         "deny": [{"bus": 9}, {"serial": "BAD"}]},
        {"allowedVms": ["vm2", "none", "vm1"], "allow": [{"interfaceClass": 14}]},
        {"allowedVms": ["vm2", "none"], "allow": [{"vendorId": "1234"}]}])
    stick = {"vid": "0951", "pid": "1666", "interfaces": ":080650:", "sys_name": "1-1"}
    root = {"vid": "1d6b", "pid": "0002", "interfaces": ":090000:", "sys_name": "usb1"}
    lived_on = {**MOUSE, "host_use": "/ is mounted from it"}
    assert verdicts(path, [MOUSE, {**MOUSE, "serial": "BAD 1"}, CAMERA, stick, HUB, root, {"vid": "1234"}, lived_on]) == [
        attach("vm1", 1, 1),
        stays("deny", "denied by usbPassthrough[1].deny[1]", 1, 1),
        {"verdict": "choose", "vm": None, "allowed_vms": ["vm2", "vm1"], "group": 2, "rule": 0,
         "reason": "allowed by usbPassthrough[2].allow[0]"},
        NONE,
        stays("hub", "hubs are never passed"),
        stays("hub", "hubs are never passed"),
        attach("vm2", 3, 0),
        stays("host", "the host lives on it: / is mounted from it")]


def test_a_denied_device_goes_on_to_the_next_group(verdicts, config):
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"bus": 1}], "deny": [{"interfaceClass": 3}]},
                                  {"targetVm": "vm2", "allow": [{"port": 9}, {"bus": 1}]}])
    assert verdicts(path, MOUSE) == [attach("vm2", 1, 1)]


def test_f13_composite_device_says_which_rule_won_and_what_else_matches(explain, config):
    groups = [{"description": "Sound", "targetVm": "vm1", "allow": [{"interfaceClass": 1, "description": "audio"}]},
              {"description": "Video", "targetVm": "vm2", "allow": [{"interfaceClass": 14}, {"interfaceClass": 8}]}]
    text = explain(config(usbPassthrough=groups), CAMERA).stdout
    assert text.splitlines()[0] == "Webcam C270 (046d:0825, 3-1)"
    assert "belongs in vm1: allowed by usbPassthrough[0].allow[0]" in text
    assert re.search(r'usbPassthrough\[0\] "Sound" takes it\n +allow\[0\] "audio": matches\n', text)
    assert re.search(r'usbPassthrough\[1\] "Video" would take it, but comes later\n +allow\[0\]: matches\n', text)
    assert re.search(r"allow\[1\]: .*interfaceClass.* 8.* 14, 1\n", text)
    # The cure: a rule that leaves out what has another interface.
    groups[0]["deny"] = [{"interfaceClass": 14}]
    text = explain(config(usbPassthrough=groups), CAMERA).stdout
    assert "belongs in vm2: allowed by usbPassthrough[1].allow[0]" in text
    assert re.search(r'usbPassthrough\[0\] "Sound" denies it\n +allow\[0\] "audio": matches\n +deny\[0\]: matches\n', text)


def test_evdev_in_both_forms(verdicts, config):
    single = {"targetVm": "vm2", "pcieBusPrefix": "ep"}
    all_of = {"verdict": "attach", "vm": "vm2", "allowed_vms": ["vm2"], "group": 0, "rule": None,
              "reason": "allowed by evdevPassthrough"}
    assert verdicts(config(evdevPassthrough=single), [KEYBOARD, BUTTON, MOUSE]) == [all_of, NONE, NONE]
    assert verdicts(config(evdevPassthrough={**single, "disable": True}), KEYBOARD) == [NONE]
    listed = [{"targetVm": "vm1", "allow": [{"name": "Power"}]},
              {"targetVm": "vm2", "allow": [{"property": "ID_INPUT_KEYBOARD", "value": "1"}]}]
    assert verdicts(config(evdevPassthrough=listed), [KEYBOARD, BUTTON]) == [
        attach("vm2", 1, 0, "evdevPassthrough"), attach("vm1", 0, 0, "evdevPassthrough")]


def test_each_kind_goes_by_its_own_groups(verdicts, config):
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"vendorId": "8086"}, {"deviceClass": 2}]}])
    assert verdicts(path, [WIFI, KEYBOARD]) == [NONE, NONE]


def test_what_the_api_prints_is_read(verdicts, config):
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"interfaceClass": 3}]}])
    device = ctl.listed(ctl.RECEIVER)
    for form in (device, [device], {"result": "ok", "usb_devices": [device]},
                 {"result": "ok", "devices": [device]}):
        assert verdicts(path, form) == [attach("vm1")]
    assert verdicts(path, []) == []


def test_devices_from_standard_input(program, config):
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"interfaceClass": 3}]}])
    def begin(text):
        return subprocess.run([str(program), "explain", "-c", str(path), "--device", "-", "--json"], input=text, text=True,
                              capture_output=True, timeout=ctl.PATIENCE, check=False, env=ctl.environment())
    result = begin(json.dumps(MOUSE))
    assert (result.returncode, json.loads(result.stdout)) == (0, [attach("vm1")])
    result = begin("")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("standard input: is not JSON: ")


@pytest.mark.parametrize("text,error", [
    ("", "is not JSON: "), ("{", "is not JSON: "), ("\x00", "is not JSON: "), ("null", "is not JSON: "),
    ("\udcff", "is not JSON: "), ("[" * 100000, "is not JSON: "), ("3", "a device must be an object in { }"),
    ('{"vid": 1133}', "vid: must be up to four hex digits in quotes"),
    ('[{}, {"busnum": []}, 5]', "[1]: busnum: must be a whole number from 0 to 65535, not a list\n"),
    ('{"kind": "\x7f\\u001b[31m"}', "kind: must be usb, evdev or pci"),
    (" " * (1024 * 1024 + 1), "is longer than 1048576 bytes")])
def test_a_bad_device_file(program, config, place, text, error):
    path, devices = config(), place / "bad.json"
    devices.write_text(text, errors="surrogateescape")
    for options in ([], ["--json"]):
        result = ctl.run(program, "explain", "-c", path, "--device", devices, *options)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"{devices}: {error}")
        assert "\x1b" not in result.stderr
        if text.startswith("[{}"):
            assert result.stderr.splitlines()[1:] == [f"{devices}: [2]: a device must be an object in {{ }}"]


def test_no_such_device_file(program, config, place):
    result = ctl.run(program, "explain", "-c", config(), "--device", place / "none")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"{place}/none: cannot be read: No such file or directory\n"
    result = ctl.run(program, "explain", "-c", config(), "--device", place)
    assert (result.returncode, result.stderr) == (1, f"{place}: is not a file\n")


def test_f47_hostile_names_reach_no_terminal(explain, config):
    device = {**MOUSE, "product_name": "\x1b[31mred\u202e\x9b", "vendor_name": "\x07", "serial": "\x1b]0;x\x07"}
    path = config(usbPassthrough=[{"targetVm": "vm1", "description": "\x1b[2J", "allow": [
        {"productName": "x", "description": "\u202e"}, {"serial": "x\x1b"}]}])
    for options in ([], ["--json"]):
        result = explain(path, device, *options)
        assert result.returncode == 0
        assert not set(result.stdout) & set("\x1b\u202e\x9b\x07")


def test_a_full_disk_is_no_success(program, config, place):
    devices = place / "devices.json"
    devices.write_text(json.dumps(MOUSE))
    explain = ["explain", "-c", config(), "--device", devices]
    for arguments in (["check", config()], explain, [*explain, "--json"]):
        with open("/dev/full", "w", encoding="utf-8") as full:
            result = subprocess.run([str(program), *map(str, arguments)], stdout=full, stderr=subprocess.DEVNULL,
                                    timeout=ctl.PATIENCE, check=False, env=ctl.environment())
        assert result.returncode == 1


# ---- check


def level(result, word):
    """The daemon's lines of a level, without it."""
    return [line[len(word) + 1:] for line in result.stderr.splitlines() if line.startswith(word + " ")]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_check_prints_the_errors_of_the_daemon(program, daemon_program, path):
    daemon, check = ctl.run(daemon_program, "-d", "-c", path), ctl.run(program, "check", path)
    assert (daemon.returncode, check.returncode, check.stdout) == (1, 1, "")
    lines = check.stderr.splitlines()
    errors = [line for line in lines if not line.startswith(("warning: ", "note: "))]
    assert errors and errors == level(daemon, "error")
    assert lines[:len(errors)] == errors
    assert [line[9:] for line in lines if line.startswith("warning: ")] == level(daemon, "warning")
    assert [line[6:] for line in lines if line.startswith("note: ")] == level(daemon, "debug")
    # Whoever needs the configuration for something else is told the same.
    explained = ctl.run(program, "explain", "-c", path, "--device", "/dev/null")
    assert (explained.returncode, explained.stdout, explained.stderr.splitlines()) == (1, "", errors)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_check_of_a_good_file(program, path):
    check = ctl.run(program, "check", path)
    assert check.returncode == 0
    assert re.fullmatch(re.escape(str(path)) + r": .*\d+ VMs?\n", check.stdout)
    assert all(line.startswith(("warning: ", "note: ")) for line in check.stderr.splitlines())


def test_f15_check_notes_what_python_read_otherwise(program, config):
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"vendorId": "046d"},
                                                                {"interfaceClass": 3, "bus": 1, "port": 2}]}])
    check = ctl.run(program, "check", path)
    assert (check.returncode, check.stderr.splitlines()) == (0, [
        f"note: {path}: usbPassthrough[0].allow[0]: matches here, but had no effect in the Python vhotplug, which wanted "
        "vendorId and productId together",
        f"note: {path}: usbPassthrough[0].allow[1]: all must match here (bus and port, interface class); the Python "
        "vhotplug took a device that matched any of them"])


def test_f16_check_counts_the_rules(program, config):
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"bus": 1}, {"bus": 2}]},
                                  {"targetVm": "vm2", "allow": [{"bus": 3}, {"bus": 4, "disable": True}]}],
                  evdevPassthrough={"targetVm": "vm2"})
    check = ctl.run(program, "check", path)
    assert check.returncode == 0
    assert check.stdout == (f"{path}: 3 USB allow rules (vm1: 2, vm2: 1), all input devices (vm2), 2 VMs\n")


@pytest.mark.parametrize("what,error", [("none", "cannot be read: No such file or directory"), ("", "is not a file")])
def test_check_of_no_file(program, daemon_program, place, what, error):
    path = place / what
    daemon, check = ctl.run(daemon_program, "-c", path), ctl.run(program, "check", path)
    assert check.returncode == 1
    assert check.stderr.splitlines() == level(daemon, "error") == [f"{path}: {error}"]


def test_check_of_a_pipe_does_not_hang(program, place):
    os.mkfifo(place / "pipe")
    check = ctl.run(program, "check", place / "pipe")
    assert (check.returncode, check.stderr) == (1, f"{place}/pipe: is not a file\n")


def test_check_shows_hostile_bytes_escaped(program, place):
    path = place / "hostile.conf"
    path.write_bytes(b'{"vms": [], "usbPassthrough": [{"targetVm": "\\u001b[31m\xe2\x80\xae", "x\\u0007": 1}]}')
    check = ctl.run(program, "check", path)
    assert check.returncode == 1
    assert not set(check.stderr) & set("\x1b\u202e\x07")
