"""What each verb asks and prints, against a scripted daemon."""
import json
import re

import pytest

import ctl

CAMERA, RECEIVER = ctl.CAMERA, ctl.RECEIVER
ATTACHED = ctl.listed(RECEIVER, state="attached", target="vm1", reason="allowed by usbPassthrough[0].allow[0]")
WAITING = ctl.listed(CAMERA, state="waits", target="vm2", reason="vm2 is not running")
KEYBOARD = {"kind": "evdev", "device_node": "/dev/input/event5", "name": "AT keyboard", "vid": "0001", "pid": "0001",
            "vendor_name": None, "product_name": "AT keyboard", "vm": "vm1", "target": "vm1", "state": "attached",
            "reason": "allowed by evdevPassthrough[0].allow[0]"}
VMS = [{"name": "vm1", "type": "qemu", "state": "up", "reason": None, "configured": True, "suspended": False,
        "attached": 3, "waiting": 0, "since": "2020-01-02T12:03:04Z"},
       {"name": "vm2", "type": "crosvm", "state": "silent", "reason": "no answer", "configured": True,
        "suspended": True, "attached": 0, "waiting": 2, "since": None},
       {"name": "vm3", "type": "qemu", "state": "down", "reason": None, "configured": False, "suspended": False,
        "attached": 0, "waiting": 0, "since": None}]


def devices(*several):
    return {"device_list": {"result": "ok", "devices": list(several)}}


def failed(result):
    return result.returncode == 1 and result.stdout == ""


# ---- list


def test_list_shows_each_device_with_state_vm_and_reason(run, peer):
    daemon = peer(devices(WAITING, ctl.hub("1-3"), KEYBOARD, ATTACHED))
    result = run("list")
    assert (result.returncode, result.stderr) == (0, "")
    rows = [re.split(r"  +", line.rstrip()) for line in result.stdout.splitlines()]
    assert rows[0][0].split() == ["DEVICE", "ID"]
    text = [re.sub(r" +", " ", line).strip() for line in result.stdout.splitlines()]
    assert text == [
        "DEVICE ID NAME STATE VM WHY",
        "1-2 046d:c52b Logitech, Inc. Unifying Receiver attached vm1 allowed by usbPassthrough[0].allow[0]",
        "1-8 04f2:b6d9 Chicony Electronics Co., Ltd Integrated Camera waits (vm2) vm2 is not running",
        "event5 0001:0001 AT keyboard attached vm1 allowed by evdevPassthrough[0].allow[0]"]
    assert daemon.requests == [{"action": "device_list"}]


def test_list_sorts_ports_as_numbers(run, peer):
    peer(devices(*[ctl.listed({**CAMERA, "sys_name": path}) for path in ("1-10", "1-9", "1-2.10", "1-2.9", "1-2")]))
    assert [line.split()[0] for line in run("list").stdout.splitlines()[1:]] == ["1-2", "1-2.9", "1-2.10", "1-9", "1-10"]


def test_list_json_is_the_daemons_list(run, peer):
    peer(devices(ATTACHED, ctl.hub("1-3"), KEYBOARD))
    result = run("list", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == [ATTACHED, ctl.hub("1-3"), KEYBOARD]


@pytest.mark.parametrize("arguments", [["list"], ["list", "--tree"]], ids=" ".join)
def test_no_devices(run, peer, arguments):
    peer(devices())
    assert run(*arguments).stdout == "No devices.\n"


def test_a_vendor_in_the_products_name_is_not_repeated(run, peer):
    peer(devices(ctl.listed({**RECEIVER, "vendor_name": "Acme", "product_name": "Acme Mouse"})))
    assert " Acme Mouse " in run("list").stdout


def test_a_list_that_is_longer_than_any_host_has_is_cut(run, peer):
    peer(devices(*[ctl.listed({**CAMERA, "sys_name": f"1-{i}"}) for i in range(5000)]))
    result = run("list")
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 4097
    assert "5000 entries, of which only 4096 are shown" in result.stderr


TREE = """\
DEVICE       ID        NAME                                         STATE    VM
bus 1
├─1-2        046d:c52b Logitech, Inc. Unifying Receiver             attached vm1
├─1-3        05e3:0610 Genesys Logic, Inc. Hub                      hub
│ ├─1-3.1    04f2:b6d9 Chicony Electronics Co., Ltd Integrated Camera host
│ └─1-3.2    05e3:0610 Genesys Logic, Inc. Hub                      hub
│   └─1-3.2.4 04f2:b6d9 Chicony Electronics Co., Ltd Integrated Camera host
└─1-8        04f2:b6d9 Chicony Electronics Co., Ltd Integrated Camera waits    (vm2)
bus 2
└─2-1.1      04f2:b6d9 Chicony Electronics Co., Ltd Integrated Camera host
bus 3
input
└─event5     0001:0001 AT keyboard                                  attached vm1
"""


def test_tree_shows_buses_hubs_devices_and_vms(run, peer):
    on = [ctl.listed({**CAMERA, "sys_name": path, "busnum": int(path[0])}) for path in ("1-3.2.4", "1-3.1", "2-1.1")]
    peer(devices(KEYBOARD, WAITING, *on, ctl.hub("1-3.2"), ctl.hub("1-3"), ATTACHED, ctl.hub("usb1"),
                 ctl.hub("usb2", bus=2), ctl.hub("usb3", bus=3)))
    result = run("list", "--tree")
    assert (result.returncode, result.stderr) == (0, "")

    def plain(text):
        return [re.sub(r" +", " ", line).rstrip() for line in text.splitlines()]
    assert plain(result.stdout) == plain(TREE)


def test_tree_without_utf_8_is_plain(run, peer):
    peer(devices(ATTACHED))
    result = run("list", "--tree", LC_ALL="C")
    assert result.stdout.isascii() and "`-1-2" in result.stdout


# ---- on a terminal


LONG = ctl.listed({**RECEIVER, "sys_name": "1-3.4.2", "product_name": "A receiver with a name that goes on and on"},
                  state="refused", target="vm1", vm=None,
                  reason="no free port on a USB controller of vm1; add one: -device qemu-xhci,p2=8,p3=8")


@pytest.mark.parametrize("arguments", [["list"], ["list", "--tree"], ["vms"]], ids=" ".join)
@pytest.mark.parametrize("columns", [80, 100])
def test_a_terminal_is_not_overrun(program, peer, place, arguments, columns):
    reason = {**VMS[1], "reason": "no greeting within 5 s: another client of the socket holds it, or QEMU is frozen"}
    peer({**devices(LONG, WAITING, KEYBOARD), "vm_list": {"result": "ok", "vms": [VMS[0], reason]}})
    text = ctl.run_on_terminal(program, "-s", place / "socket", *arguments, columns=columns, NO_COLOR="1")
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= columns, text


def test_a_long_reason_is_shown_whole_and_broken_at_blanks(program, peer, place):
    peer(devices(LONG))
    lines = ctl.run_on_terminal(program, "-s", place / "socket", "list", NO_COLOR="1").splitlines()
    start = lines[0].index("WHY")
    assert " ".join(line[start:].strip() for line in lines[1:]).strip() == LONG["reason"]
    assert len(lines) > 2


def test_colours_on_a_terminal_only(program, run, peer, place):
    peer(devices(ATTACHED, WAITING))
    arguments = ["-s", place / "socket", "list"]
    assert "\x1b[32mattached" in ctl.run_on_terminal(program, *arguments)
    assert "\x1b" not in ctl.run_on_terminal(program, *arguments, NO_COLOR="1")
    assert "\x1b[32mattached" in ctl.run_on_terminal(program, *arguments, NO_COLOR="")
    assert "\x1b" not in run("list").stdout


# ---- vms and status


def test_vms(run, peer):
    peer({"vm_list": {"result": "ok", "vms": VMS}})
    text = [re.sub(r" +", " ", line).strip() for line in run("vms").stdout.splitlines()]
    assert text == ["VM TYPE STATE SINCE DEVICES WAITING WHY", "vm1 qemu up 2020-01-02 12:03 3 0",
                    "vm2 crosvm silent 0 2 suspended: no answer", "vm3 qemu down 0 0 no longer configured"]
    assert json.loads(run("vms", "--json").stdout) == VMS


STATUS = {"result": "ok", "version": "1.2.3", "devices": {"attached": 2, "waits": 1}, "vms": {}, "config": "/etc/v.conf",
          "since": "2020-01-02T12:03:04Z"}


def test_status(run, peer):
    peer({"status": STATUS})
    assert run("status").stdout == ("vhotplug 1.2.3, running since 2020-01-02 12:03\nconfig:  /etc/v.conf\n"
                                    "devices: 2 attached, 1 waits\nVMs:     none\n")
    assert json.loads(run("status", "--json").stdout) == STATUS


def test_times_are_of_here(run, peer):
    peer({"status": STATUS})
    assert "2020-01-02 14:03" in run("status", TZ="XYZ-2").stdout


# ---- attach, detach, suspend, resume


def test_attach(run, peer):
    daemon = peer({"usb_attach": {"result": "ok", "state": "attached", "vm": "vm1", "reason": "allowed by …"}})
    assert run("attach", "1-2", "vm1").stdout == "1-2: attached to vm1\n"
    assert run("attach", "Unifying Receiver").returncode == 0
    assert daemon.requests == [{"action": "usb_attach", "device": "1-2", "vm": "vm1"},
                               {"action": "usb_attach", "device": "Unifying Receiver"}]


def test_attach_that_waits_says_for_what(run, peer):
    peer({"usb_attach": {"result": "ok", "state": "waits", "vm": "vm1", "reason": "vm1 is not running"}})
    result = run("attach", "1-2")
    assert (result.returncode, result.stdout) == (0, "1-2: waits: vm1 is not running\n")


@pytest.mark.parametrize("given,asked", [
    ("event5", "/dev/input/event5"), ("event", "event"), ("event5x", "event5x"), ("/dev/input/event5", "/dev/input/event5"),
    ("1-2.3", "1-2.3"), ("a name with blanks", "a name with blanks")])
def test_what_lists_call_a_device_names_it(run, peer, given, asked):
    daemon = peer({"explain": {"result": "ok"}, "usb_detach": {"result": "ok"}, "usb_attach": {"result": "ok"}})
    for verb in ("explain", "attach", "detach"):
        assert run(verb, given).returncode == 0
    assert [request["device"] for request in daemon.requests] == [asked] * 3


def test_detach(run, peer):
    daemon = peer({"usb_detach": {"result": "ok", "state": "host", "vm": None, "reason": "detached"}})
    assert run("detach", "046d:c52b").stdout == "046d:c52b: detached; it stays out until you attach it\n"
    assert daemon.requests == [{"action": "usb_detach", "device": "046d:c52b"}]


@pytest.mark.parametrize("answer", [{}, {"state": None}, {"state": "host"}, {"state": "gone", "reason": "it was unplugged"}],
                         ids=json.dumps)
def test_detach_of_what_is_out(run, peer, answer):
    peer({"usb_detach": {"result": "ok", **answer}})
    result = run("detach", "1-2")
    assert (result.returncode, result.stdout, result.stderr) == (0, "1-2: detached; it stays out until you attach it\n", "")


NOT_OUT = [
    ({"result": "ok", "state": "detaching", "vm": "vm1", "reason": "it does not let go"}, "1-2: still in vm1: it does not let go"),
    ({"result": "ok", "state": "detaching", "vm": "vm1", "reason": None}, "1-2: still in vm1"),
    ({"result": "ok", "state": "detaching", "vm": None, "reason": None}, "1-2: not out, but detaching"),
    ({"result": "ok", "state": "attached", "vm": "v\x1bm"}, r"1-2: still in v\x1bm"),
    ({"result": "ok", "state": "waits", "vm": "vm1", "reason": "vm1 is not running"}, "1-2: not out, but waits: vm1 is not running"),
    ({"result": "failed", "error": "vm1 has not let go of it yet: busy", "state": "detaching", "vm": "vm1", "reason": "busy"},
     "vm1 has not let go of it yet: busy")]


@pytest.mark.parametrize("answer,error", NOT_OUT, ids=[row[1] for row in NOT_OUT])
def test_detach_of_what_is_not_out_is_a_failure(run, peer, answer, error):
    peer({"usb_detach": answer})
    result = run("detach", "1-2")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"vhotplugctl: {error}\n")
    result = run("detach", "1-2", "--json")
    assert (result.returncode, json.loads(result.stdout), result.stderr) == (1, answer, f"vhotplugctl: {error}\n")


def test_detach_of_several_of_which_one_is_not_out_is_a_failure(run, peer):
    peer({"usb_detach": {"result": "ok", "devices": [
        {**RECEIVER, "result": "ok", "state": "host"},
        {**CAMERA, "result": "ok", "state": "detaching", "vm": "vm2", "reason": "x"}]}})
    result = run("detach", "all")
    assert result.returncode == 1 and "stays out" not in result.stdout
    assert result.stderr == ("vhotplugctl: all: Chicony Electronics Co., Ltd Integrated Camera (04f2:b6d9, 1-8): "
                             "still in vm2: x\n")


@pytest.mark.parametrize("action,arguments", [
    ("usb_attach", ["attach", "x"]), ("usb_detach", ["detach", "x"]), ("usb_suspend", ["suspend"]),
    ("usb_resume", ["resume"]), ("reload", ["reload"])])
def test_a_failure_as_json_is_also_said(run, peer, action, arguments):
    peer({action: {"result": "failed", "error": "because of \x1b[31mred"}})
    result = run(*arguments, "-j")
    assert result.returncode == 1 and json.loads(result.stdout)["result"] == "failed"
    assert result.stderr == "vhotplugctl: because of \\x1b[31mred\n"


def test_moves_as_json(run, peer):
    reply = {"result": "ok", "state": "attached", "vm": "vm1", "reason": "x"}
    peer({"usb_attach": reply, "usb_detach": {"result": "failed", "error": "no"}})
    assert json.loads(run("attach", "1-2", "-j").stdout) == reply
    refused = run("detach", "1-2", "-j")
    assert refused.returncode == 1 and json.loads(refused.stdout) == {"result": "failed", "error": "no"}


def test_suspend_says_what_became_of_each_device(run, peer):
    daemon = peer({"usb_suspend": {"result": "ok", "devices": [
        {**RECEIVER, "result": "ok", "state": "waits", "reason": "suspended"},
        {**CAMERA, "result": "ok", "state": "attached", "vm": "vm2", "reason": "x", "skipped": True}]}})
    result = run("suspend")
    assert (result.returncode, result.stdout) == (0, (
        "Logitech, Inc. Unifying Receiver (046d:c52b, 1-2): waits: suspended\n"
        "Chicony Electronics Co., Ltd Integrated Camera (04f2:b6d9, 1-8): attached to vm2 (skipOnSuspend)\n"
        "all VMs: suspended\n"))
    assert daemon.requests == [{"action": "usb_suspend"}]


def test_resume_that_fails_for_one_device_is_a_failure(run, peer):
    daemon = peer({"usb_resume": {"result": "failed", "error": "1 of 2 devices: camera: no port", "devices": [
        {**RECEIVER, "result": "ok", "state": "attached", "vm": "vm1"},
        {**CAMERA, "result": "failed", "error": "no port", "state": "refused"}]}})
    result = run("resume", "vm1")
    assert result.returncode == 1
    assert "(046d:c52b, 1-2): attached to vm1\n" in result.stdout
    assert "(04f2:b6d9, 1-8): failed: no port\n" in result.stdout
    assert "resumed" not in result.stdout
    assert result.stderr == "vhotplugctl: 1 of 2 devices: camera: no port\n"
    assert daemon.requests == [{"action": "usb_resume", "vm": "vm1"}]


@pytest.mark.parametrize("action,arguments", [
    ("device_list", ["list"]), ("vm_list", ["vms"]), ("status", ["status"]), ("explain", ["explain", "x"]),
    ("usb_attach", ["attach", "x"]), ("usb_detach", ["detach", "x"]), ("usb_suspend", ["suspend"]),
    ("usb_resume", ["resume"]), ("reload", ["reload"]), ("enable_notifications", ["monitor"])])
def test_a_refusal_is_a_failure_with_its_reason(run, peer, action, arguments):
    peer({"device_list": {"result": "ok", "devices": []}, action: {"result": "failed", "error": "because of \x1b[31mred"}})
    result = run(*arguments)
    assert failed(result)
    assert result.stderr.splitlines()[0] == r"vhotplugctl: because of \x1b[31mred"


# ---- reload


def test_reload(run, peer):
    daemon = peer({"reload": {"result": "ok"}})
    assert run("reload").stdout == "The configuration was read again.\n"
    assert daemon.requests == [{"action": "reload"}]


def test_reload_prints_every_error_line(run, peer):
    lines = ["/etc/v.conf: a: is wrong", "/etc/v.conf:3:4: b \x1b[31m is wrong"]
    peer({"reload": [{"result": "failed", "error": "\n".join(lines), "errors": lines},
                     {"result": "failed", "error": "\n".join(lines)}]})
    for _ in range(2):
        result = run("reload")
        assert failed(result)
        assert result.stderr.splitlines() == [
            "vhotplugctl: /etc/v.conf: a: is wrong", r"vhotplugctl: /etc/v.conf:3:4: b \x1b[31m is wrong",
            "vhotplugctl: the configuration that runs stays"]


# ---- explain


def rule(path, matches, **why):
    return {"path": path, "description": None, "deny": ".deny" in path, "matches": matches, **why}


EXPLANATION = {
    "verdict": "attach", "vm": "vm1", "allowed_vms": ["vm1"], "group": 1, "rule": 0,
    "reason": "allowed by usbPassthrough[1].allow[0]", "groups": [
        {"path": "usbPassthrough[0]", "description": "Mice", "result": "no match", "rules": [
            {**rule("usbPassthrough[0].allow[0]", False, field="vendorId", wanted="0627", found="046d"),
             "description": "HID mouse"},
            rule("usbPassthrough[0].allow[1]", False, field="serial", wanted="ABC", found=None)]},
        {"path": "usbPassthrough[1]", "description": None, "result": "takes", "rules": [
            rule("usbPassthrough[1].deny[0]", False, field="productId", wanted="0001", found="c52b"),
            rule("usbPassthrough[1].allow[0]", True)]}]}


def test_f42_explain_tells_every_group_and_rule_the_verdict_and_the_state(run, peer):
    daemon = peer({"explain": {"result": "ok", "explanation": EXPLANATION,
                               "device": {**ATTACHED, "since": "2020-01-02T12:03:04Z"}}})
    result = run("explain", "1-2")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == """\
Logitech, Inc. Unifying Receiver (046d:c52b, 1-2)
now:    attached to vm1 since 2020-01-02 12:03: allowed by usbPassthrough[0].allow[0]
policy: belongs in vm1: allowed by usbPassthrough[1].allow[0]
  usbPassthrough[0] "Mice" does not take it
    allow[0] "HID mouse": no, vendorId is to be 0627, and is 046d
    allow[1]: no, serial is to be ABC, and the device has none
  usbPassthrough[1] takes it
    deny[0]: no, productId is to be 0001, and is c52b
    allow[0]: matches
"""
    assert daemon.requests == [{"action": "explain", "device": "1-2"}]


@pytest.mark.parametrize("members,lines", [
    ({"state": "waits", "target": "vm2", "vm": None, "reason": "vm2 is not running", "since": None},
     ["now:    waits: vm2 is not running"]),
    ({"state": "refused", "target": "vm1", "vm": None, "reason": "no free port", "since": None},
     ["now:    refused by vm1: no free port"]),
    ({"state": "host", "vm": None, "reason": "detached", "since": None, "detached": True},
     ["now:    host: detached", "choice: a person took it out; it stays out until it is attached again"]),
    ({"state": "attached", "since": None, "reason": None, "selected": "vm1"},
     ["now:    attached to vm1", "choice: vm1 was chosen for it last"]),
    ({"state": "waits", "since": None, "reason": "x", "vm": None, "selecting": True},
     ["now:    waits: x", "choice: asked, and not answered yet"]),
])
def test_f42_explain_says_what_stands_in_the_way(run, peer, members, lines):
    peer({"explain": {"result": "ok", "explanation": EXPLANATION, "device": {**ATTACHED, **members}}})
    assert run("explain", "1-2").stdout.splitlines()[1:1 + len(lines)] == lines


@pytest.mark.parametrize("verdict,text", [
    ({"verdict": "choose", "vm": None, "allowed_vms": ["vm1", "vm2"]}, "may go into one of vm1, vm2"),
    ({"verdict": "deny", "vm": None}, "denied, stays on the host"), ({"verdict": "none", "vm": None}, "stays on the host"),
    ({"verdict": "hub", "vm": None}, "stays on the host"), ({"verdict": "host", "vm": None}, "stays on the host")])
def test_explain_says_each_verdict(run, peer, verdict, text):
    peer({"explain": {"result": "ok", "explanation": {**EXPLANATION, **verdict, "reason": "why"}, "device": ATTACHED}})
    assert f"policy: {text}: why" in run("explain", "1-2").stdout.splitlines()


def test_explain_json_is_the_daemons_answer(run, peer):
    reply = {"result": "ok", "explanation": EXPLANATION, "device": ATTACHED}
    peer({"explain": reply})
    assert json.loads(run("explain", "1-2", "--json").stdout) == reply
