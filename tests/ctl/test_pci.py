"""PCI functions: what vhotplugctl asks and prints of them, against a scripted daemon."""
import json

import pytest

import ctl


def function(place, **members):
    """A PCI function as device_list has it; the place is without its domain."""
    return {"kind": "pci", "address": f"0000:{place}", "driver": "iwlwifi", "vendor_id": 0x8086, "device_id": 0xa0f0,
            "vid": "8086", "did": "A0F0", "vendor_name": "Intel Corporation", "product_name": "Wi-Fi 6 AX201",
            "device_name": "Wi-Fi 6 AX201", "pci_class": 2, "pci_subclass": 128, "pci_prog_if": 0, "iommu_group": 11,
            "peers": [], "allowed_vms": [], "vm": None, "target": None, "selected": None, "state": "host",
            "reason": "no rule allows it", "since": "2020-01-02T12:03:04Z", "tag": None, "named": False,
            "detached": False, "selecting": False, "skip_on_suspend": False, **members}


HOST = function("00:1f.3")
ATTACHED = function("00:14.3", vm="net", target="net", state="attached", named=True, allowed_vms=["net"],
                    reason="allowed by pciPassthrough[0].allow[0]")
DENIED = function("00:14.5", named=True, reason="denied by pciPassthrough[0].deny[0]")
LEFT_OVER = function("00:15.0", vm="net", target="net", state="detaching", reason="no rule allows it")
OLD = {name: value for name, value in function("00:16.0").items() if name != "named"}
CAMERA = ctl.listed(ctl.CAMERA)
LIST = {"device_list": {"result": "ok", "devices": [HOST, ATTACHED, CAMERA, DENIED, LEFT_OVER, OLD]}}


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_list_shows_the_functions_that_are_of_interest(run, peer):
    peer(LIST)
    result = run("list")
    assert (result.returncode, result.stderr) == (0, "")
    assert lines(result.stdout)[1:] == [
        "1-8 04f2:b6d9 Chicony Electronics Co., Ltd Integrated Camera host no rule allows it",
        "0000:00:14.3 8086:a0f0 Intel Corporation Wi-Fi 6 AX201 attached net allowed by pciPassthrough[0].allow[0]",
        "0000:00:14.5 8086:a0f0 Intel Corporation Wi-Fi 6 AX201 host denied by pciPassthrough[0].deny[0]",
        "0000:00:15.0 8086:a0f0 Intel Corporation Wi-Fi 6 AX201 detaching net no rule allows it",
        "0000:00:16.0 8086:a0f0 Intel Corporation Wi-Fi 6 AX201 host no rule allows it"]
    assert json.loads(run("list", "-j").stdout) == [ATTACHED, CAMERA, DENIED, LEFT_OVER, OLD]


def test_list_pci_shows_all_functions_and_nothing_else(run, peer):
    peer(LIST)
    assert [line.split()[0] for line in lines(run("list", "--pci").stdout)[1:]] == [
        "0000:00:14.3", "0000:00:14.5", "0000:00:15.0", "0000:00:16.0", "0000:00:1f.3"]
    assert json.loads(run("--pci", "list", "-j").stdout) == [HOST, ATTACHED, DENIED, LEFT_OVER, OLD]
    tree = run("list", "--pci", "--tree").stdout
    assert "PCI" in tree and "0000:00:1f.3" in tree and "bus" not in tree
    assert "0000:00:1f.3" not in run("list", "--tree").stdout


def test_an_empty_list_of_functions(run, peer):
    peer({"device_list": {"result": "ok", "devices": [CAMERA]}})
    assert run("list", "--pci").stdout == "No devices.\n"


@pytest.mark.parametrize("name", ["0000:01:00.0", "01:00.0", "01:00.7"])
def test_f04_an_address_is_that_of_a_function(run, peer, name):
    moved = {"result": "ok", "state": "attached", "vm": "net", "reason": "allowed"}
    daemon = peer({"pci_attach": moved, "pci_detach": {**moved, "state": "host", "vm": None}})
    assert run("attach", name, "net").stdout == f"{name}: attached to net\n"
    assert run("detach", name).stdout == f"{name}: detached; it stays out until you attach it\n"
    assert daemon.requests == [{"action": "pci_attach", "device": name, "vm": "net"},
                               {"action": "pci_detach", "device": name}]


@pytest.mark.parametrize("name", ["001:004", "1-2.3", "8086:a0f0", "01:00.8", "01:00.0x", "AX201", "event5"])
def test_other_names_may_be_those_of_any_device(run, peer, name):
    daemon = peer({"usb_attach": {"result": "ok", "state": "attached", "vm": "net", "reason": "allowed"}})
    assert run("attach", name).returncode == 0
    assert daemon.requests[0]["action"] == "usb_attach"


def test_a_function_that_is_not_out_is_a_failure(run, peer):
    peer({"pci_detach": {"result": "ok", "state": "detaching", "vm": "net", "reason": "the guest was asked"}})
    result = run("detach", "01:00.0")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "vhotplugctl: 01:00.0: still in net: the guest was asked\n"


def test_f32_suspend_of_functions(run, peer):
    daemon = peer({"pci_suspend": {"result": "ok", "devices": [{**ATTACHED, "result": "ok", "state": "waits",
                                                                 "reason": "net is suspended"}]},
                   "pci_resume": {"result": "ok", "devices": []}})
    assert run("suspend", "--pci", "net").stdout == (
        "Intel Corporation Wi-Fi 6 AX201 (8086:a0f0, 0000:00:14.3): waits: net is suspended\nnet: suspended\n")
    assert run("resume", "--pci").stdout == "all VMs: resumed\n"
    assert daemon.requests == [{"action": "pci_suspend", "vm": "net"}, {"action": "pci_resume"}]


@pytest.mark.parametrize("arguments", [["vms", "--pci"], ["attach", "--pci", "x"], ["status", "--pci"],
                                       ["explain", "-c", "/a", "--device", "/b", "--pci"]], ids=" ".join)
def test_pci_is_an_option_of_some_verbs(program, arguments):
    result = ctl.run(program, *arguments)
    assert (result.returncode, result.stdout) == (2, "") and "does not take that option" in result.stderr


EXPLANATION = {"verdict": "shared", "vm": None, "allowed_vms": [], "group": 0, "rule": 0, "reason": "0000:00:14.5 stays",
               "groups": []}


def peer_of(place, **members):
    return {"address": f"0000:{place}", "title": f"Card (0000:{place})", "bridge": False, "host_use": None, "vms": None,
            "path": None, "added": False, **members}


def explain(run, peer, **members):
    daemon = peer({"explain": {"result": "ok", "device": ATTACHED, "explanation": {**EXPLANATION, **members}}})
    result = run("explain", "00:14.3")
    assert (result.returncode, result.stderr) == (0, "") and daemon.requests[0]["device"] == "00:14.3"
    text = result.stdout.splitlines()
    assert text[0] == "Intel Corporation Wi-Fi 6 AX201 (8086:a0f0, 0000:00:14.3)"
    return text[text.index("policy: stays on the host: 0000:00:14.5 stays") + 1:]


def test_explain_shows_the_iommu_group(run, peer):
    peers = [peer_of("00:14.5"), peer_of("00:1c.0", bridge=True),
             peer_of("00:1f.0", bridge=True, bound=True), peer_of("00:14.2", bound=True), peer_of("00:14.6", host_use="/ is\n on it"),
             peer_of("00:14.7", vms="vm1 or vm2", path="pciPassthrough[1].allow[0]"),
             peer_of("00:14.1", vms="net", path="pciPassthrough[0].allow[0]", added=True)]
    assert explain(run, peer, iommu_group=11, peers=peers) == [
        "IOMMU group 11: it is shared with", "  Card (0000:00:14.5): no rule takes it",
        "  Card (0000:00:1c.0): a bridge, which stays with the host",
        "  Card (0000:00:1f.0): a bridge, which no VM gets; its driver of the host loses it all the same",
        "  Card (0000:00:14.2): no rule takes it; its driver of the host loses it all the same",
        "  Card (0000:00:14.6): the host lives on it: / is\\x0a on it",
        "  Card (0000:00:14.7): for vm1 or vm2 by pciPassthrough[1].allow[0]",
        "  Card (0000:00:14.1): for net by pciPassthrough[0].allow[0] (pciIommuAddAll)"]


@pytest.mark.parametrize("number, text", [(11, "IOMMU group 11: it is alone in it"),
                                          (None, "IOMMU group: none, so no VM can have it")])
def test_explain_of_a_function_by_itself(run, peer, number, text):
    assert explain(run, peer, iommu_group=number, peers=[]) == [text]


def test_explain_says_whether_the_host_may_use_it(run, peer):
    rule = {"path": "usbAuthorization.hostAllow[0]", "description": None, "deny": False, "matches": True}
    assert explain(run, peer, host={"authorized": True, "reason": "allowed", "rules": [rule]}) == [
        "host: may use it: allowed", "    hostAllow[0]: matches"]


def test_monitor_names_functions(start, peer, place):
    daemon = peer({"device_list": {"result": "ok", "devices": [ATTACHED]}, "enable_notifications": {"result": "ok"}})
    made = start("-s", place / "socket", "monitor")
    daemon.wait_answered("enable_notifications")
    wifi = "Intel Corporation Wi-Fi 6 AX201 (8086:a0f0, 0000:00:14.3)"
    left = {"address": "0000:00:14.3", "vid": "8086", "did": "A0F0"}
    daemon.send({"event": "pci_detached", "pci_device": ATTACHED, "vm": "net"},
                {"event": "pci_disconnected", "pci_device": left},
                {"event": "pci_connected", "pci_device": function("00:14.4", product_name="Other", vendor_name=None)},
                {"event": "pci_attached", "pci_device": {"address": "0000:00:14.4"}, "vm": "net"},
                {"event": "attach_failed", "pci_device": ATTACHED, "vm": "net", "error": "no free port"})
    made.wait_line(made.lines, 5)
    assert [line.split(" ", 1)[1] for line in made.lines] == [
        f"{wifi}: detached from net", f"{wifi}: unplugged", "Other (8086:a0f0, 0000:00:14.4): plugged in",
        "Other (8086:a0f0, 0000:00:14.4): attached to net", f"{wifi}: refused by net: no free port"]
