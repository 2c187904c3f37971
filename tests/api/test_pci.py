"""PCI functions over the API, against a host and VMs that do as they are told."""
import os
import re
import select

import pytest

import world as worlds
from world import KEYBOARD, MOUSE, SOUND, WIFI, events, pci


def addresses(listed):
    return [device["address"] for device in listed]


def choice(*vms):
    return {**worlds.RULES, "pciPassthrough": [{"allowedVms": list(vms), "allow": [{"deviceClass": 2}]}]}


@pytest.fixture
def functions(ready):
    """A world with a wireless card for vm1 and a sound card for nobody."""
    ready.plug(WIFI)
    ready.plug(SOUND)
    return ready


def test_pci_functions_in_lists(functions):
    functions.plug(MOUSE)
    client = functions.connect()
    listed = client.request("pci_list")["pci_devices"]
    assert addresses(listed) == ["0000:00:14.3"]
    shown = {name: listed[0][name] for name in ("kind", "vm", "target", "state", "tag", "allowed_vms", "named", "detached",
                                                "iommu_group", "device_name", "vendor_id", "device_id")}
    assert shown == {"kind": "pci", "vm": "vm1", "target": "vm1", "state": "attached", "tag": "net",
                     "allowed_vms": ["vm1"], "named": True, "detached": False, "iommu_group": 11,
                     "device_name": "Wi-Fi 6 AX201", "vendor_id": 0x8086, "device_id": 0xa0f0}
    assert [device["sys_name"] for device in client.request("usb_list")["usb_devices"]] == ["1-3"]
    everything = client.request("device_list")["devices"]
    assert [device.get("address") for device in everything] == ["0000:00:14.3", "0000:00:1f.3", None]
    assert [device["named"] for device in everything] == [True, False, True]
    # The host's own are not counted: there are dozens, and they are nobody's concern.
    assert client.request("status")["devices"] == {"attached": 2}
    assert client.request("pci_list", tag="net")["pci_devices"] == listed
    assert client.request("pci_list", tag="camera")["pci_devices"] == []
    assert client.request("pci_list", disconnected=True)["pci_devices"] == []
    assert client.request("pci_list", disconnected=1)["result"] == "failed"
    assert client.request("pci_detach", address="0000:00:14.3")["result"] == "ok"
    assert addresses(client.request("pci_list", disconnected=True)["pci_devices"]) == ["0000:00:14.3"]
    assert [client.request("pci_list", **members)["pci_devices"] for members in ({}, {"disconnected": False})] == [[], []]


def test_functions_that_come_with_another_are_told(functions):
    functions.configure({**worlds.RULES, "pciPassthrough": [
        {"targetVm": "vm1", "pciIommuAddAll": True, "allow": [{"deviceClass": 2}]}]})
    client = functions.connect()
    assert client.request("reload")["result"] == "ok"
    functions.plug({**SOUND, "address": "0000:00:14.4", "iommu_group": 11, "peers": [WIFI]})
    listed = client.request("pci_list")["pci_devices"]
    assert [(one["address"], one["iommu_member"]) for one in listed] == [("0000:00:14.3", False), ("0000:00:14.4", True)]


@pytest.mark.parametrize("members", [
    {"address": "0000:00:14.3"}, {"address": "00:14.3"}, {"vid": "8086", "did": "A0F0"}, {"vid": "0x8086", "did": "a0f0"},
    {"device": "0000:00:14.3"}, {"device": "00:14.3"}, {"device": "8086:a0f0"}, {"device": "ax201"},
    {"address": "00:14.3", "vid": "1", "did": "2", "tag": "nothing"}], ids=str)
def test_a_pci_function_is_named(functions, members):
    client = functions.connect()
    assert client.request("pci_detach", **members)["state"] == "host"
    assert client.request("pci_attach", **members) == {
        "result": "ok", "state": "attached", "vm": "vm1", "reason": "allowed by pciPassthrough[0].allow[0]"}
    if "tag" not in members:
        assert client.request("explain", **members)["device"]["address"] == "0000:00:14.3"


@pytest.mark.parametrize("members, error", [
    ({}, "which device? Give address, tag, vid and did, or device"),
    ({"device_node": "/dev/x", "bus": 1, "port": 2, "pid": "1"}, "which device? Give address, tag, vid and did, or device"),
    ({"address": 5}, "address must be a string that is not empty"),
    ({"address": "eth\u001b0"}, "address must be that of a PCI function, such as 0000:00:14.3, and not eth\\x1b0"),
    ({"address": "0000:00:14.4"}, "there is no device 0000:00:14.4"),
    ({"vid": "8086"}, "vid and did belong together"), ({"did": "a0f0"}, "vid and did belong together"),
    ({"vid": "8086", "did": "a0fg"}, "did must be a string of up to 4 hex digits"),
    ({"vid": "0627", "did": "0001"}, "there is no device 0627:0001"),
    ({"tag": "nothing"}, "no group has the tag nothing"),
    ({"device": "1-9"}, "there is no device 1-9"),
    ({"device": "8086:a0c8"}, "Smart Sound (8086:a0c8, 0000:00:1f.3): no rule allows it"),
], ids=str)
def test_f46_a_pci_function_that_cannot_be_told(functions, members, error):
    before = functions.plug(MOUSE)
    assert functions.connect().request("pci_attach", **members) == {"result": "failed", "error": error}
    assert functions.operations() == before


def test_usb_actions_take_no_pci_function_and_the_other_way_round(functions):
    functions.configure({**worlds.RULES, "pciPassthrough": [
        {"targetVm": "vm1", "tag": "input", "allow": [{"deviceClass": 2}]}]})
    client = functions.connect()
    assert client.request("reload")["result"] == "ok"
    functions.plug(MOUSE)
    assert client.request("usb_detach", vid="8086", pid="a0f0")["error"] == "there is no device 8086:a0f0"
    for members in ({"address": "00:14.3"}, {"did": "a0f0"}):
        assert client.request("usb_detach", **members)["error"].startswith("which device?")
    # A kill switch for USB devices leaves PCI functions of the same tag alone, and the other way round.
    assert [device["kind"] for device in client.request("usb_detach", tag="input")["devices"]] == ["usb"]
    assert [device["kind"] for device in client.request("pci_detach", tag="input")["devices"]] == ["pci"]
    assert [device["kind"] for device in client.request("pci_attach", tag="input")["devices"]] == ["pci"]


def test_f04_detach_touches_the_named_function_only(functions):
    functions.configure({**worlds.RULES, "pciPassthrough": [{"targetVm": "vm1", "allow": [{"vendorId": "8086"}]}]})
    client = functions.connect()
    assert client.request("reload")["result"] == "ok"
    twin = pci("00:14.4", "8086", "a0f0", pci_class=2, iommu_group=13)
    functions.plug(twin)
    assert client.request("pci_detach", vid="8086", did="a0f0")["error"].startswith("8086:a0f0 means 2 devices")
    assert client.request("pci_detach", address="0000:00:14.4")["result"] == "ok"
    states = {device["address"]: device["state"] for device in client.request("device_list")["devices"]}
    assert states == {"0000:00:14.3": "attached", "0000:00:1f.3": "attached", "0000:00:14.4": "host"}


def test_f32_pci_suspend_and_resume(functions):
    functions.plug(MOUSE)
    client = functions.connect()
    answer = client.request("pci_suspend", vm="vm1")
    assert [(device["address"], device["state"]) for device in answer["devices"]] == [("0000:00:14.3", "waits")]
    assert client.request("usb_list")["usb_devices"][0]["state"] == "attached"
    assert client.request("vm_list")["vms"][0]["suspended"] is True
    assert client.request("usb_suspend")["result"] == "ok"
    answer = client.request("pci_resume")
    assert [(device["address"], device["state"]) for device in answer["devices"]] == [("0000:00:14.3", "attached")]
    assert client.request("usb_list")["usb_devices"][0]["state"] == "waits"
    assert client.request("pci_resume", vm="vm9") == {"result": "failed", "error": "there is no VM vm9"}


def test_f44_pci_events(world):
    world.plug(WIFI, there=True)
    listener = world.listener()
    world.ready("vm1")
    assert events(listener) == ["vm_up vm1"]
    world.pull(WIFI)
    world.plug(WIFI)
    world.plug(SOUND)
    assert events(listener) == ["pci_disconnected 0000:00:14.3", "pci_connected 0000:00:14.3",
                                "pci_attached 0000:00:14.3 vm1", "pci_connected 0000:00:1f.3"]
    world.connect().request("pci_suspend")
    listener.request("pci_list")
    assert listener.events.pop()["pci_device"]["device_name"] == "Wi-Fi 6 AX201"  # it is there still
    world.connect().request("pci_resume")
    assert events(listener) == ["pci_attached 0000:00:14.3 vm1"]
    world.do("mood", vm="vm1", refuses="no free port")
    world.connect().request("pci_detach", address="00:14.3")
    assert world.connect().request("pci_attach", address="00:14.3")["error"] == "no free port"
    assert events(listener) == ["pci_detached 0000:00:14.3 vm1", "attach_failed 0000:00:14.3 vm1 no free port"]


def test_a_function_of_another_vm_is_left_alone(ready):
    """An IOMMU group is in one VM: who may take one function of it must not pull the others out of another VM."""
    ready.configure({**choice("vm1", "vm3"), "vms": [*worlds.RULES["vms"],
                                                     {"name": "vm3", "type": "qemu", "socket": "/run/vm3.qmp"}]})
    assert ready.connect().request("reload")["result"] == "ok"
    ready.do("up", vm="vm3", process=103)
    ready.plug(WIFI)
    ready.plug({**WIFI, "address": "0000:00:14.4"})
    assert ready.connect().request("pci_attach", address="00:14.3", vm="vm3")["state"] == "attached"
    assert ready.guest(5).request("pci_detach", address="00:14.4")["error"] == "not allowed for this client"
    listed = ready.connect().request("pci_list")["pci_devices"]
    assert [(device["state"], device["vm"], device["selected"]) for device in listed] == [("attached", "vm3", "vm3")] * 2
    ready.connect().request("pci_detach", address="00:14.4")
    assert ready.guest(5).request("pci_attach", address="00:14.4", vm="vm1")["error"] == "not allowed for this client"
    assert ready.connect().request("pci_list")["pci_devices"][0]["vm"] == "vm3"


# ---- the start of a VM

def function_arguments(answer):
    """The functions of QEMU's arguments, without their ids, which are others each time."""
    return [re.sub(r",id=[^,]*", "", word) for word in answer["vmm_args"] if word.startswith("vfio-pci")]


def test_f34_the_arguments_of_a_vm(functions):
    functions.do("down", vm="vm1")
    functions.plug(KEYBOARD)
    functions.plug(pci("00:05.0", "8086", "a0f1", pci_class=2, pci_subclass=128, iommu_group=13))
    client = functions.connect()
    answer = client.request("vmm_args", vm="vm1", qemu_bus_prefix="rp", qemu_bus_start_index=3)
    assert answer["result"] == "ok" and function_arguments(answer) == [
        "vfio-pci,host=0000:00:05.0,multifunction=on,bus=rp3", "vfio-pci,host=0000:00:14.3,multifunction=on,bus=rp4"]
    assert [word for word in answer["vmm_args"] if "event5" in word]
    assert function_arguments(client.request("vmm_args", vm="vm1", require_pci=True)) == [
        "vfio-pci,host=0000:00:05.0,multifunction=on", "vfio-pci,host=0000:00:14.3,multifunction=on"]
    # What a person took out is not given to the next start.
    client.request("pci_detach", address="00:05.0")
    assert len(function_arguments(client.request("vmm_args", vm="vm1"))) == 1
    client.request("pci_detach", address="00:14.3")
    assert client.request("vmm_args", vm="vm1", require_pci=True)["error"] == "no PCI function is there for vm1"
    assert function_arguments(client.request("vmm_args", vm="vm1")) == []
    assert client.request("vmm_args", vm="vm2") == {"result": "ok", "vmm_args": ["--vfio-isolate-hotplug"]}


@pytest.mark.parametrize("members, error", [
    ({}, "VM name is required"), ({"vm": ""}, "vm must be a string that is not empty"), ({"vm": "vm9"}, "there is no VM vm9"),
    ({"vm": "vm1", "qemu_bus_prefix": 5}, "qemu_bus_prefix must be a string that is not empty"),
    ({"vm": "vm1", "qemu_bus_start_index": -1}, "qemu_bus_start_index must be a number from 0 to 65535"),
    ({"vm": "vm1", "qemu_bus_start_index": 65536}, "qemu_bus_start_index must be a number from 0 to 65535"),
    ({"vm": "vm1", "require_pci": 1}, "require_pci must be true or false")], ids=str)
def test_f46_arguments_that_cannot_be_made(functions, members, error):
    assert functions.connect().request("vmm_args", **members) == {"result": "failed", "error": error}


def test_the_answer_waits_for_the_host(functions):
    functions.plug({**WIFI, "address": "0000:00:14.4"})
    functions.do("host", slow=True)
    gone, second, first, other = (functions.connect() for _ in range(4))
    for count, one in enumerate((gone, second, first), 1):
        one.send(b'{"action": "vmm_args", "vm": "vm1"}\n{"action": "pci_list"}\n')
        while functions.preparing < 2 * count:
            functions.operations()
        assert other.request("pci_list")["result"] == "ok"  # nobody else waits
    gone.close()
    functions.do("host", slow=True, ready=1, refuses="busy")  # the last that was asked for
    functions.operations()
    assert not select.select([first.socket, second.socket], [], [], 0)[0]  # one of its two functions is ready
    functions.do("host")
    answers = [one.answer() for one in (first, second)]
    assert [answer["result"] for answer in answers] == ["failed", "ok"], answers
    assert answers[0]["error"].endswith(": busy") and len(function_arguments(answers[1])) == 2
    assert "pci_devices" in first.answer() and "pci_devices" in second.answer()
    client = other
    functions.do("host", refuses="\u001b[0mthe IOMMU is off")
    assert client.request("vmm_args", vm="vm1") == {
        "result": "failed", "error": "Wi-Fi 6 AX201 (8086:a0f0, 0000:00:14.4): \\x1b[0mthe IOMMU is off"}


def test_the_answer_waits_until_all_devices_are_known(world):
    early, late = world.connect(), world.connect()
    early.send(b'{"action": "vmm_args", "vm": "vm1", "require_pci": true, "qemu_bus_prefix": "rp"}\n')
    late.send(b'{"action": "vmm_args", "vm": "vm2"}\n')
    assert worlds.has_nothing(world, early) and worlds.has_nothing(world, late)
    world.plug(WIFI, there=True)
    assert worlds.has_nothing(world, early)
    world.do("scanned")
    answer = early.answer()
    assert answer["result"] == "ok", answer
    assert function_arguments(answer) == ["vfio-pci,host=0000:00:14.3,multifunction=on,bus=rp0"]
    assert late.answer() == {"result": "ok", "vmm_args": ["--vfio-isolate-hotplug"]}


def test_a_first_scan_that_takes_as_long_as_it_may_is_waited_for(world):
    early = world.connect()
    early.send(b'{"action": "vmm_args", "vm": "vm1", "require_pci": true, "qemu_bus_prefix": "rp"}\n')
    assert worlds.has_nothing(world, early)
    world.plug(WIFI, there=True)
    world.do("sleep", seconds=20)
    assert worlds.has_nothing(world, early)
    world.do("scanned")
    assert function_arguments(early.answer())


def test_who_has_gone_is_not_answered_when_all_devices_are_known(world):
    gone, other = world.connect(), world.connect()
    gone.send(b'{"action": "vmm_args", "vm": "vm1"}\n')
    assert worlds.has_nothing(world, gone)
    gone.close()
    world.plug(WIFI, there=True)
    world.operations()
    world.do("scanned")
    assert world.connect().request("vmm_args", vm="vm1")["result"] == "ok"
    assert other.request("status")["result"] == "ok"


def test_devices_that_are_never_all_known(world):
    one = world.connect()
    one.send(b'{"action": "vmm_args", "vm": "vm1"}\n{"action": "pci_list"}\n')
    assert worlds.has_nothing(world, one)
    world.do("sleep", seconds=30)
    assert one.answer() == {"result": "failed", "error": "the devices of the host are not all known after 28 s; try again"}
    assert one.answer() == {"result": "ok", "pci_devices": []}
    world.do("scanned")
    assert one.request("vmm_args", vm="vm1") == {"result": "ok", "vmm_args": []}


def test_a_function_that_is_never_made_ready(functions):
    functions.plug({**WIFI, "address": "0000:00:14.4"})
    functions.do("host", slow=True)
    one, other = functions.connect(), functions.connect()
    one.send(b'{"action": "vmm_args", "vm": "vm1"}\n')
    while functions.preparing < 2:
        functions.operations()
    functions.do("host", slow=True, ready=1) # the other of the two
    functions.do("sleep", seconds=30)
    assert one.answer() == {"result": "failed", "error": "Wi-Fi 6 AX201 (8086:a0f0, 0000:00:14.3): "
                            "the host has not made it ready within 28 s"}
    functions.do("host") # too late, and nobody is told
    assert function_arguments(one.request("vmm_args", vm="vm1")) and other.request("status")["result"] == "ok"


def test_what_another_vm_or_tool_has_is_left_out(world):
    world.configure({**worlds.RULES, "pciPassthrough": [
        {"targetVm": "vm1", "allow": [{"deviceId": "a0f0"}, {"deviceId": "a0f2"}]}]})
    world.do("remember", key="pci:0000:00:14.3", instance=1, vm="vm2", process=7)
    client = world.connect()
    assert client.request("reload")["result"] == "ok"
    world.plug(WIFI, there=True)
    world.plug(pci("00:05.0", "8086", "a0f2", pci_class=2, iommu_group=13), there=True)
    world.do("scanned")
    warning = "Wi-Fi 6 AX201 (8086:a0f0, 0000:00:14.3): vm2 may still have it and has not said so yet"
    answer = client.request("vmm_args", vm="vm1")
    assert function_arguments(answer) == ["vfio-pci,host=0000:00:05.0,multifunction=on"]
    assert answer["warnings"] == [warning]
    assert world.log("start without") == [f"warning vm1: it is to start without {warning}"]
    assert client.request("vmm_args", vm="vm1", require_pci=True) == {"result": "failed", "error": warning}
    # The names of others' VMs are not for everybody.
    assert "vm2" not in world.guest(5).request("vmm_args", vm="vm1")["warnings"][0]
    assert "warnings" not in client.request("vmm_args", vm="vm2")


def test_a_function_whose_iommu_group_another_vm_has_is_left_out(ready):
    ready.configure({**worlds.RULES, "pciPassthrough": [
        {"allowedVms": ["vm1", "vm3"], "allow": [{"deviceId": "a0f0"}]}], "vms": [
            *worlds.RULES["vms"], {"name": "vm3", "type": "qemu", "socket": "/run/vm3.qmp"}]})
    client = ready.connect()
    assert client.request("reload")["result"] == "ok"
    ready.do("up", vm="vm3", process=103)
    ready.plug(WIFI)
    assert client.request("pci_attach", address="00:14.3", vm="vm3")["state"] == "attached"
    ready.do("mood", vm="vm3", hangs=True) # it does not let go of its function
    ready.configure({**worlds.RULES, "pciPassthrough": [{"targetVm": "vm1", "allow": [{"deviceId": "a0f2"}]}],
                     "vms": [*worlds.RULES["vms"], {"name": "vm3", "type": "qemu", "socket": "/run/vm3.qmp"}]})
    assert client.request("reload")["result"] == "ok"
    ready.plug(pci("00:14.4", "8086", "a0f2", pci_class=2, iommu_group=11))
    answer = client.request("vmm_args", vm="vm1", require_pci=True)
    assert answer["error"].endswith("vm3 has or is getting 0000:00:14.3 of the same IOMMU group, and a group can be in "
                                    "one VM only"), answer
    assert function_arguments(client.request("vmm_args", vm="vm1")) == []


def test_acpi_tables(ready, place):
    user, group = os.getuid(), os.getgid()
    table, missing = place / "a,b.aml", place / "missing.aml"
    table.write_bytes(b"DSDT")
    tables = [{"acpiTable": str(table), "setUser": str(user), "setGroup": str(group)}, {"acpiTable": str(missing)},
              {"acpiTable": str(place)}]
    ready.configure({**worlds.RULES, "acpiPassthrough": [{"targetVm": "vm1", "allow": tables}]})
    client = ready.connect()
    assert client.request("reload")["result"] == "ok"
    assert client.request("vmm_args", vm="vm1")["vmm_args"] == ["-acpitable", f"file={str(table).replace(',', ',,')}"]
    assert ready.log("ACPI") == [f"warning vm1: ACPI table {place} is left out: it is no file",
                           f"warning vm1: ACPI table {missing} is left out: No such file or directory"]
    sysctl = "/proc/sys/kernel/version" # belongs to nobody else, ever
    for file, key, name, why in ((table, "setUser", "nobody-there", "there is no user nobody-there"),
                                 (table, "setGroup", "nobody-there", "there is no group nobody-there"),
                                 (sysctl, "setUser", "1", "its owner cannot be set: Operation not permitted"
                                  "; the service unit allows that by its acpi-tables.conf")):
        ready.configure({**worlds.RULES, "acpiPassthrough": [
            {"targetVm": "vm1", "allow": [{"acpiTable": str(file), key: name}]}]})
        assert client.request("reload")["result"] == "ok"
        assert len(client.request("vmm_args", vm="vm1")["vmm_args"]) == 2
        assert ready.log("ACPI")[-1] == f"warning vm1: ACPI table {file}: {why}; vm1 may not be able to read it"
