"""Whoever answers may be hostile: limits on time, length and nesting, and nothing raw on a terminal."""
import json
import re
import threading

import pytest

import ctl

EVIL = "\x1b[31mred\x07 \u061c\u2060 \u202egnp.exe \x9b1m\u2028 \x7f"
# What a terminal obeys or what turns the direction of reading around.
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def assert_harmless(result):
    assert not OBEYED.search(result.stdout) and not OBEYED.search(result.stderr), (result.stdout, result.stderr)
    assert "\udc80" <= "\udcff" and not re.search("[\udc80-\udcff]", result.stdout + result.stderr)


# ---- strings (F47)


def evil(device):
    return {name: EVIL if isinstance(value, str) and name not in ("kind",) else value for name, value in device.items()}


WORST = {**evil(ctl.listed(ctl.RECEIVER)), "target": EVIL, "selected": EVIL, "sys_name": EVIL, "port_path": EVIL}
EVIL_RULE = {"path": EVIL, "description": EVIL, "matches": False, "field": EVIL, "wanted": EVIL, "found": EVIL}
EVIL_ANSWERS = {
    "device_list": {"result": "ok", "devices": [WORST, {**WORST, "kind": EVIL}]},
    "vm_list": {"result": "ok", "vms": [dict.fromkeys(("name", "type", "state", "reason", "since"), EVIL)]},
    "status": {"result": "ok", "version": EVIL, "config": EVIL, "since": EVIL, "devices": {EVIL: 1, "a": EVIL},
               "vms": EVIL},
    "explain": {"result": "ok", "device": WORST, "explanation": {
        "verdict": EVIL, "reason": EVIL, "vm": EVIL, "allowed_vms": [EVIL],
        "groups": [{"path": EVIL, "description": EVIL, "result": EVIL, "rules": [EVIL_RULE, {**EVIL_RULE, "found": None}]}]}},
    "usb_attach": {"result": "ok", "state": EVIL, "vm": EVIL, "reason": EVIL},
    "usb_suspend": {"result": "failed", "error": EVIL, "devices": [{**WORST, "result": "failed", "error": EVIL}, WORST]},
    "reload": {"result": "failed", "error": EVIL, "errors": [EVIL, EVIL + "\n" + EVIL]},
    "usb_list": {"result": "ok", "usb_devices": [{**WORST, EVIL: [EVIL, {EVIL: EVIL}]}]},
}
VERBS = {"device_list": ["list"], "vm_list": ["vms"], "status": ["status"], "explain": ["explain", EVIL],
         "usb_attach": ["attach", EVIL], "usb_suspend": ["suspend"], "reload": ["reload"]}


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("action", VERBS)
def test_f47_no_raw_escapes_reach_the_terminal(run, peer, action, more):
    peer(EVIL_ANSWERS)
    result = run(*VERBS[action], *more)
    assert_harmless(result)
    assert r"\x1b" in result.stdout + result.stderr or r"\u001b" in result.stdout
    if more:
        shown = json.loads(result.stdout)
        assert shown in (EVIL_ANSWERS[action], next(iter(value for value in EVIL_ANSWERS[action].values()
                                                         if isinstance(value, list)), None))


def test_f47_the_tree_is_safe_too(run, peer):
    peer(EVIL_ANSWERS)
    assert_harmless(run("list", "--tree"))


@pytest.mark.parametrize("arguments", [["usb", "list"], ["-d", "usb", "list"], ["usb", "suspend"]], ids=" ".join)
def test_f47_no_raw_escapes_from_vhotplugcli(classic, peer, arguments):
    peer(EVIL_ANSWERS)
    result = classic(*arguments)
    assert_harmless(result)
    assert r"\x1b" in result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [["monitor"], ["monitor", "--json"]], ids=" ".join)
def test_f47_events_are_safe(start, peer, place, arguments):
    daemon = peer({**EVIL_ANSWERS, "enable_notifications": {"result": "ok"}})
    running = start("-s", place / "socket", *arguments)
    running.wait_line(running.errors, 1)
    daemon.send({"event": "usb_attached", "usb_device": WORST, "vm": EVIL}, {"event": EVIL, EVIL: EVIL},
                {"event": "usb_select_vm", "usb_device": WORST, "allowed_vms": [EVIL]},
                {"event": "attach_failed", "usb_device": {}, "vm": EVIL, "error": EVIL}, {"event": "vm_up", "vm": EVIL})
    running.wait_line(running.lines, 5)
    assert not OBEYED.search("".join(running.lines))
    assert len(running.lines) == 5


# ---- types


WRONG = [None, True, 7, 1.5, "text", [], {}, [None, 3, [], {"vid": {}}], {"a": [1]}, -1, 2 ** 70]


@pytest.mark.parametrize("index", range(len(WRONG)))
def test_members_of_any_type_are_survived(run, classic, peer, index):
    wrong = WRONG[index]
    device = dict.fromkeys(WORST, wrong)
    explanation = dict.fromkeys(EVIL_ANSWERS["explain"]["explanation"], wrong)
    group = {"groups": [wrong, dict.fromkeys(("path", "description", "result", "rules"), wrong), {"rules": [wrong]}]}
    peer({"device_list": [{"result": "ok", "devices": [wrong, device]}, {"result": "ok", "devices": wrong}],
          "vm_list": [{"result": "ok", "vms": [wrong, dict.fromkeys(("name", "state", "attached"), wrong)]},
                      {"result": "ok", "vms": wrong}],
          "status": {"result": "ok", "devices": wrong, "vms": {"a": wrong}, "version": wrong, "since": wrong},
          "explain": [{"result": "ok", "explanation": explanation, "device": device},
                      {"result": "ok", "explanation": {**explanation, **group}, "device": wrong},
                      {"result": "ok", "explanation": wrong}],
          "usb_attach": {"result": "ok", "state": wrong, "vm": wrong, "reason": wrong, "devices": wrong},
          "usb_suspend": {"result": "ok", "devices": [wrong, device, {"result": "failed", "error": wrong}]},
          "reload": {"result": "failed", "error": wrong, "errors": [wrong]},
          "usb_list": [{"result": "ok", "usb_devices": [wrong, device]}, {"result": "ok", "usb_devices": wrong}],
          "vmm_args": {"result": "ok", "vmm_args": wrong}})
    for arguments in [["list"], ["list"], ["vms"], ["vms"], ["status"], *[["explain", "x"]] * 3, ["attach", "x"],
                      ["suspend"], ["reload"]]:
        assert run(*arguments).returncode in (0, 1)
    for arguments in [["usb", "list"], ["usb", "list", "--connected"], ["vmm", "args"]]:
        assert classic(*arguments).returncode in (0, 1)


@pytest.mark.parametrize("reply,why", [
    ({}, "the answer has no result"), ({"result": None}, "the answer has no result"),
    ({"result": "perhaps"}, "the answer has no result"), ({"result": "failed"}, "no reason given"),
    ({"result": "failed", "error": 3}, "no reason given"), ({"result": "failed", "error": ""}, "no reason given"),
    ({"result": "ok"}, "the answer has no list of devices"),
    ({"result": "ok", "devices": {}}, "the answer has no list of devices"),
    (b"[]\n", "the answer is not a JSON object"), (b"7\n", "the answer is not a JSON object"),
    (b"\n", "the answer is not JSON: "), (b"hello\n", "the answer is not JSON: "),
    (b'{"result": "ok"} {}\n', "the answer is not JSON: "), (b'{"result": "\xff"}\n', "the answer is not JSON: "),
    (b'{"result"\0: "ok"}\n', "the answer is not JSON: "),
    (b'{"result":"ok","devices":' + b"[" * 100 + b"]" * 100 + b"}\n", "the answer is not JSON: "),
    (b"[" * 1000000 + b"\n", "the answer is not JSON: ")])
def test_answers_that_are_none(run, peer, reply, why):
    peer({"device_list": reply})
    result = run("list")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"vhotplugctl: {why}"), result.stderr


# ---- time, length and hanging up


@pytest.mark.parametrize("last", [None, b'{"result": "o', b""], ids=["at once", "in the middle", "silent"])
def test_f45_a_peer_that_hangs_up_is_a_failure(run, classic, peer, last):
    daemon = peer()
    answer = (lambda _: last) if last is None else (lambda _: (daemon.clients[-1].sendall(last), None)[1])
    daemon.replies.update({"device_list": answer, "usb_list": answer})
    result = run("list")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "vhotplugctl: the other end hung up without an answer\n"
    result = classic("usb", "list")
    assert result.returncode == 1
    assert result.stderr == "ERROR Failed to get USB list: the other end hung up without an answer\n"


def test_the_last_words_of_a_peer_that_hangs_up_are_heard(run, peer):
    peer(at_once=b'{"result": "failed", "error": "too many clients"}\n', deaf=True)
    for _ in range(20): # it hangs up before the request, in the middle of it or after
        assert run("vms").stderr == "vhotplugctl: too many clients\n"


@pytest.mark.parametrize("arguments", [["list"], ["vms"], ["status"], ["explain", "x"], ["attach", "x"], ["detach", "x"],
                                       ["suspend"], ["resume"], ["reload"], ["monitor"]], ids=" ".join)
def test_f45_each_command_has_a_time_limit(run, peer, arguments):
    peer(dict.fromkeys(("device_list", "vm_list", "status", "explain", "usb_attach", "usb_detach", "usb_suspend",
                        "usb_resume", "reload", "enable_notifications"), b""))
    result = run("--timeout", "1", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "vhotplugctl: no answer within 1 s\n"


def test_a_peer_that_never_accepts(program, place):
    """Its queue of callers is full: connecting itself has the time limit."""
    import socket
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place / "socket"))
    listener.listen(0)
    callers = []
    try:
        while True:
            caller = socket.socket(socket.AF_UNIX)
            callers.append(caller)
            caller.setblocking(False)
            caller.connect(str(place / "socket"))
    except BlockingIOError:
        pass
    result = ctl.run(program, "-s", place / "socket", "--timeout", "1", "list")
    assert result.returncode == 1
    assert "no answer within 1 s" in result.stderr
    for one in [listener, *callers]:
        one.close()


def flood(daemon, chunk):
    """Sends for ever, until the client has gone."""
    def answer(_):
        try:
            while True:
                daemon.clients[-1].sendall(chunk)
        except OSError:
            return None
    return answer


def test_a_line_without_an_end_is_cut_off(run, peer):
    daemon = peer()
    daemon.replies["device_list"] = flood(daemon, b"x" * 65536)
    result = run("--timeout", "80", "list")
    assert (result.returncode, result.stderr) == (1, "vhotplugctl: the answer is longer than 16 MiB\n")


def test_events_that_never_end_are_no_answer(run, peer):
    daemon = peer()
    daemon.replies["device_list"] = flood(daemon, b'{"event": "vm_up", "vm": "vm1"}\n' * 1000)
    result = run("--timeout", "2", "list")
    assert (result.returncode, result.stderr) == (1, "vhotplugctl: no answer within 2 s\n")


def test_a_trickle_does_not_prolong_the_time(run, peer):
    daemon, stop = peer(), threading.Event()

    def trickle(_):
        try:
            while not stop.wait(0.1):
                daemon.clients[-1].sendall(b" ")
        except OSError:
            pass
    daemon.replies["device_list"] = trickle
    result = run("--timeout", "2", "list")
    stop.set()
    assert (result.returncode, result.stderr) == (1, "vhotplugctl: no answer within 2 s\n")


def test_an_answer_in_pieces_and_among_events(run, peer):
    daemon = peer()

    def answer(_):
        line = json.dumps({"result": "ok", "vms": [{"name": "vm7"}]}).encode() + b"\n"
        for message in (b'{"event":"vm_up","vm":"vm1"}\n', *[bytes([byte]) for byte in line], b'{"event":"vm_do'):
            daemon.clients[-1].sendall(message)
        return b""
    daemon.replies["vm_list"] = answer
    assert "vm7" in run("vms").stdout


def test_a_large_answer_is_taken(run, peer):
    many = [ctl.listed({**ctl.CAMERA, "sys_name": f"1-{i}", "serial": "x" * 3000}) for i in range(4000)]
    peer({"device_list": {"result": "ok", "devices": many}})
    result = run("list", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == many
