"""vhotplugcli: the command lines and texts of the Python vhotplug's client, which scripts use and parse."""
import fcntl
import pathlib
import socket
import struct
import subprocess

import pytest

import ctl

CAMERA, RECEIVER = ctl.CAMERA, ctl.RECEIVER
NETWORK = {"address": "0000:00:14.3", "vid": "8086", "did": "a370", "vendor_name": "Intel Corporation",
           "device_name": "Wireless-AC 9560", "allowed_vms": ["net-vm"], "vm": None}
OK = {"result": "ok"}

# What the Python client prints for the two devices, character by character.
USB_LIST = """\
046d:c52b Logitech, Inc. Unifying Receiver
  device_node     : /dev/bus/usb/001/004
  vid             : 046d
  pid             : c52b
  vendor_name     : Logitech, Inc.
  product_name    : Unifying Receiver
  interfaces      : :030101:030102:
  device_class    : 0
  device_subclass : 0
  device_protocol : 0
  busnum          : 1
  devnum          : 4
  portnum         : 2
  serial          : None
  sys_name        : 1-2
  allowed_vms     : ['vm1', 'vm2']
  vm              : vm1

04f2:b6d9 Chicony Electronics Co., Ltd Integrated Camera
  device_node     : /dev/bus/usb/001/005
  vid             : 04f2
  pid             : b6d9
  vendor_name     : Chicony Electronics Co., Ltd
  product_name    : Integrated Camera
  interfaces      : :0e0100:0e0200:
  device_class    : 239
  device_subclass : 2
  device_protocol : 1
  busnum          : 1
  devnum          : 5
  portnum         : 8
  serial          : 0001
  sys_name        : 1-8
  allowed_vms     : ['vm2']
  vm              : None

"""
PCI_LIST = """\
0000:00:14.3 8086:a370 Intel Corporation Wireless-AC 9560
  address         : 0000:00:14.3
  vid             : 8086
  did             : a370
  vendor_name     : Intel Corporation
  device_name     : Wireless-AC 9560
  allowed_vms     : ['net-vm']
  vm              : None

"""


def usb(*devices):
    return {"result": "ok", "usb_devices": list(devices)}


def test_f45_usb_list_is_the_text_that_scripts_parse(classic, peer):
    daemon = peer({"usb_list": usb(RECEIVER, CAMERA)})
    result = classic("usb", "list")
    assert (result.returncode, result.stdout, result.stderr) == (0, USB_LIST, "")
    assert daemon.requests == [{"action": "usb_list", "disconnected": False}]


def test_f45_pci_list(classic, peer):
    daemon = peer({"pci_list": {"result": "ok", "pci_devices": [NETWORK]}})
    result = classic("pci", "list")
    assert (result.returncode, result.stdout, result.stderr) == (0, PCI_LIST, "")
    assert classic("pci", "list", "--short").stdout == PCI_LIST.splitlines()[0] + "\n"
    assert daemon.requests == [{"action": "pci_list", "disconnected": False}] * 2


def test_f45_short_lists_have_one_line_a_device(classic, peer):
    peer({"usb_list": usb(RECEIVER, CAMERA)})
    assert classic("usb", "list", "--short").stdout == (
        "046d:c52b Logitech, Inc. Unifying Receiver\n04f2:b6d9 Chicony Electronics Co., Ltd Integrated Camera\n")


def test_f45_an_empty_list_prints_nothing(classic, peer):
    peer({"usb_list": usb(), "pci_list": {"result": "ok", "pci_devices": []}})
    for kind in ("usb", "pci"):
        result = classic(kind, "list", "--tag", "cam", "--connected")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_f45_tag_and_disconnected_go_to_the_daemon(classic, peer):
    daemon = peer({"usb_list": usb(CAMERA)})
    assert classic("usb", "list", "--tag", "cam", "--disconnected").returncode == 0
    assert daemon.requests == [{"action": "usb_list", "tag": "cam", "disconnected": True}]


def test_f45_connected_leaves_out_what_a_person_took_out(classic, peer):
    """The kill switch of a desktop asks so: empty means that all devices of the tag are blocked."""
    daemon = peer({"usb_list": lambda request: usb(CAMERA) if request["disconnected"] else usb(RECEIVER, CAMERA)})
    assert classic("usb", "list", "--tag", "cam", "--connected", "--short").stdout == \
        "046d:c52b Logitech, Inc. Unifying Receiver\n"
    assert {request["tag"] for request in daemon.requests} == {"cam"}
    daemon.replies["usb_list"] = usb(CAMERA)
    assert classic("usb", "list", "--tag", "cam", "--connected").stdout == ""


def test_f45_values_are_printed_as_python_prints_them(classic, peer):
    peer({"usb_list": usb({"vid": None, "t": True, "f": False, "i": -3, "d": 1.5, "e": [], "o": {"a": None, "b": ["x"]},
                           "q": ["it's", 'both \' and "', "back\\slash", "a\nb"], "a_key_that_is_too_long": "ü"})})
    assert classic("usb", "list").stdout.splitlines() == [
        "None:None None None", "  vid             : None", "  t               : True", "  f               : False",
        "  i               : -3", "  d               : 1.5", "  e               : []",
        "  o               : {'a': None, 'b': ['x']}",
        "  q               : " + repr(["it's", 'both \' and "', "back\\slash", "a\nb"]),
        "  a_key_that_is_too_long: ü", ""]


REQUESTS = [
    ("usb attach --devnode /dev/bus/usb/001/004 --vm vm1", {"device_node": "/dev/bus/usb/001/004", "vm": "vm1"}, "attached"),
    ("usb attach --devnode /dev/bus/usb/001/004", {"device_node": "/dev/bus/usb/001/004"}, "attached"),
    ("usb attach --bus 1 --port 2 --vm vm1", {"bus": 1, "port": 2, "vm": "vm1"}, "attached"),
    ("usb attach --vid 046d --pid c52b --vm vm1", {"vid": "046d", "pid": "c52b", "vm": "vm1"}, "attached"),
    ("usb attach --vid=046d --pid=c52b", {"vid": "046d", "pid": "c52b"}, "attached"),
    ("usb attach --tag cam", {"tag": "cam"}, "attached"),
    ("usb detach --devnode /dev/bus/usb/001/004", {"device_node": "/dev/bus/usb/001/004"}, "detached"),
    ("usb detach --bus 001 --port 2", {"bus": 1, "port": 2}, "detached"),
    ("usb detach --vid 046D --pid C52B", {"vid": "046D", "pid": "C52B"}, "detached"),
    ("usb detach --tag bt", {"tag": "bt"}, "detached"),
    ("usb suspend", {}, "suspended"), ("usb suspend --vm vm1", {"vm": "vm1"}, "suspended"),
    ("usb resume", {}, "resumed"), ("usb resume --vm vm1", {"vm": "vm1"}, "resumed"),
    ("pci attach --address 0000:00:14.3 --vm vm1", {"address": "0000:00:14.3", "vm": "vm1"}, "attached"),
    ("pci attach --vid 8086 --did a370", {"vid": "8086", "did": "a370"}, "attached"),
    ("pci attach --tag net", {"tag": "net"}, "attached"),
    ("pci detach --address 0000:00:14.3", {"address": "0000:00:14.3"}, "detached"),
    ("pci detach --vid 8086 --did a370", {"vid": "8086", "did": "a370"}, "detached"),
    ("pci detach --tag mic", {"tag": "mic"}, "detached"),
    ("pci suspend", {}, "suspended"), ("pci suspend --vm net-vm", {"vm": "net-vm"}, "suspended"),
    ("pci resume", {}, "resumed"), ("pci resume --vm net-vm", {"vm": "net-vm"}, "resumed"),
]


@pytest.mark.parametrize("line,members,done", REQUESTS, ids=[row[0] for row in REQUESTS])
def test_f45_each_line_asks_and_reports(classic, peer, line, members, done):
    action = "_".join(line.split()[:2])
    daemon = peer({action: [OK, {"result": "failed", "error": "not today"}]})
    result = classic(*line.split())
    assert (result.returncode, result.stdout, result.stderr) == (0, "", f"INFO Successfully {done}\n")
    assert daemon.requests == [{"action": action, **members}]
    kind, verb = line.split()[:2]
    result = classic(*line.split())
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"ERROR Failed to {verb} {kind.upper()}: not today\n"


@pytest.mark.parametrize("kind", ["usb", "pci"])
def test_f45_a_list_that_fails(classic, peer, kind):
    peer({f"{kind}_list": {"result": "failed", "error": "not today"}})
    result = classic(kind, "list")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"ERROR Failed to get {kind.upper()} list: not today\n"


USB_SELECTORS = "ERROR You must specify either --devnode or --bus and --port or --vid and --pid or --tag\n"
PCI_SELECTORS = "ERROR You must specify either --address or --vid and --did or --tag\n"


@pytest.mark.parametrize("line", ["", "--vm vm1", "--bus 1", "--port 1", "--vid 046d", "--pid c52b", "--bus 1 --pid c52b",
                                  "--devnode="])
def test_f45_selectors_are_needed(classic, peer, line):
    daemon = peer()
    for verb in ("attach", "detach"):
        if verb == "attach" or "--vm" not in line:
            result = classic("usb", verb, *line.split())
            assert (result.returncode, result.stdout, result.stderr) == (1, "", USB_SELECTORS)
    assert daemon.requests == []


@pytest.mark.parametrize("line,members", [
    ("usb --vid 046d --pid c52b --tag a --bus 1 --port 2 --devnode /dev/x", {"device_node": "/dev/x"}),
    ("usb --vid 046d --pid c52b --tag a --bus 1 --port 2", {"bus": 1, "port": 2}),
    ("usb --vid 046d --pid c52b --tag a --bus 1", {"tag": "a"}), ("usb --vid 046d --pid c52b --tag a", {"tag": "a"}),
    ("usb --vid 046d --pid c52b --port 1 --tag= --devnode=", {"vid": "046d", "pid": "c52b"}),
    ("pci --vid 8086 --did a370 --tag a --address 0000:00:14.3", {"address": "0000:00:14.3"}),
    ("pci --vid 8086 --did a370 --tag a", {"tag": "a"})], ids=str)
def test_f45_of_several_selectors_one_counts(classic, peer, line, members):
    kind, *options = line.split()
    daemon = peer({f"{kind}_attach": OK, f"{kind}_detach": OK})
    assert classic(kind, "detach", *options).returncode == 0
    assert classic(kind, "attach", *options, "--vm", "vm1").returncode == 0
    assert daemon.requests == [{"action": f"{kind}_detach", **members}, {"action": f"{kind}_attach", **members, "vm": "vm1"}]


@pytest.mark.parametrize("kind", ["usb", "pci"])
def test_f45_a_detach_that_is_not_done_is_a_failure(classic, peer, kind):
    late = {"state": "detaching", "vm": "vm1", "reason": "busy"}
    action, failed = f"{kind}_detach", f"ERROR Failed to detach {kind.upper()}: "
    peer({action: [
        {"result": "ok", **late},
        {"result": "ok", "devices": [{**RECEIVER, "result": "ok", "state": "host"}, {**CAMERA, "result": "ok", **late}]},
        {"result": "failed", "error": "vm1 has not let go of it yet: busy", **late},
        {"result": "ok", "devices": [{**RECEIVER, "result": "ok", "state": "host"}, {**CAMERA, "result": "ok", "state": "gone"}]}]})
    for error in ("still in vm1: busy", "Chicony Electronics Co., Ltd Integrated Camera (04f2:b6d9, 1-8): still in vm1: busy",
                  "vm1 has not let go of it yet: busy"):
        result = classic(kind, "detach", "--tag", "a")
        assert (result.returncode, result.stdout, result.stderr) == (1, "", f"{failed}{error}\n")
    assert classic(kind, "detach", "--tag", "a").stderr == "INFO Successfully detached\n"


@pytest.mark.parametrize("line", ["--help", "usb list", "vmm args"])
def test_output_that_cannot_be_written_is_a_failure(classic_program, peer, place, line):
    peer({"usb_list": usb(RECEIVER), "vmm_args": {"result": "ok", "vmm_args": ["-x"]}})
    with open("/dev/full", "w") as full:
        result = subprocess.run([classic_program, "-t", "unix", "-u", place / "socket", *line.split()], stdout=full, text=True,
                                stderr=subprocess.PIPE, timeout=ctl.PATIENCE, check=False, env=ctl.environment())
    assert (result.returncode, result.stderr) == (1, "ERROR not all could be written: No space left on device\n")


@pytest.mark.parametrize("line", ["", "--vid 8086", "--did a370"])
def test_f45_pci_selectors_are_needed(classic, line):
    for verb in ("attach", "detach"):
        result = classic("pci", verb, *line.split())
        assert (result.returncode, result.stdout, result.stderr) == (1, "", PCI_SELECTORS)


@pytest.mark.parametrize("line", [
    "", "usb", "pci", "vmm", "usb nonesuch", "nonesuch", "usb list more", "usb list --nonesuch", "usb list --vm vm1",
    "usb attach --bus", "usb attach --bus one --port 1", "usb detach --tag a --vm vm1", "usb suspend --tag a",
    "pci attach --devnode /dev/x", "listen more", "vmm args more", "vmm args --qemu-bus-start-index x",
    "--nonesuch usb list", "-t carrier-pigeon usb list",
    "-p port usb list", "-t tcp -p 65536 usb list", "-p 65536 -t tcp usb list", "-c cid usb list", "--timeout 0 usb list", "usb list --connected --disconnected"])
def test_f45_wrong_usage(classic_program, line):
    result = ctl.run(classic_program, *line.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: vhotplugcli ") or "\nusage: vhotplugcli " in result.stderr


@pytest.mark.parametrize("line", ["-h", "--help", "usb list --help", "pci attach -h"])
def test_help(classic_program, line):
    result = ctl.run(classic_program, *line.split())
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("usb attach", "pci list", "vmm args", "listen", "--qemu-bus-prefix", "--disconnected"):
        assert word in result.stdout


# ---- ways to the daemon


@pytest.mark.parametrize("line", ["-t unix -u {}", "--transport unix --path {}", "--transport=unix --path={}", "-tunix -u{}",
                                  "-d -t unix -u {}", "--debug --no-debug -t unix -u {}"])
def test_f45_the_options_of_the_transport(classic_program, peer, place, line):
    peer({"usb_list": usb(CAMERA)})
    result = ctl.run(classic_program, *line.format(place / "socket").split(), "usb", "list", "--short")
    assert (result.returncode, result.stdout) == (0, "04f2:b6d9 Chicony Electronics Co., Ltd Integrated Camera\n")
    assert result.stderr.startswith("DEBUG Reply: {'result': 'ok', 'usb_devices': [{") if "-d -t" in line \
        else result.stderr == ""


def test_f45_tcp(classic_program):
    tcp = ctl.Peer(("127.0.0.1", 0), {"usb_list": usb(CAMERA)}, family=socket.AF_INET)
    try:
        port = tcp.address[1]
        for line in (f"-t tcp -s 127.0.0.1 -p {port}", f"--transport tcp --host 127.0.0.1 --net-port {port}",
                     f"-t tcp -p {port}"):
            assert ctl.run(classic_program, *line.split(), "usb", "list", "--short").stdout.startswith("04f2:b6d9")
    finally:
        tcp.close()


def test_f45_vsock_to_nobody(classic_program):
    result = ctl.run(classic_program, "-t", "vsock", "-c", "1", "-p", "54321", "--timeout", "5", "usb", "list")
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR Failed to connect: vsock CID 1 port 54321: ")


def is_guest():
    """Whether this machine has an address of vsock that is not a host's."""
    try:
        with open("/dev/vsock", "rb") as file:
            cid = struct.unpack("I", fcntl.ioctl(file, socket.IOCTL_VM_SOCKETS_GET_LOCAL_CID, b"\0" * 4))[0]
    except OSError:
        return False
    return 2 < cid < 2 ** 32 - 1


def test_f45_the_default_is_vsock_in_a_guest_and_the_unix_socket_elsewhere(classic_program):
    if pathlib.Path("/var/lib/vhotplug/vhotplug.sock").exists():
        pytest.skip("a daemon of this machine has the default socket")
    result = ctl.run(classic_program, "--timeout", "2", "usb", "list")
    assert result.returncode == 1
    where = "vsock CID 2 port 2000" if is_guest() else "/var/lib/vhotplug/vhotplug.sock"
    assert result.stderr.startswith(f"ERROR Failed to connect: {where}: ")


@pytest.mark.parametrize("line", ["usb list", "usb attach --tag a", "usb detach --tag a", "usb suspend", "usb resume",
                                  "pci list", "pci attach --tag a", "pci detach --tag a", "pci suspend", "pci resume"])
def test_f45_no_daemon(classic, place, line):
    result = classic(*line.split())
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"ERROR Failed to connect: {place}/socket: No such file or directory")


@pytest.mark.parametrize("line", ["usb list", "usb attach --tag a", "usb suspend", "pci detach --tag a", "vmm args"])
def test_f45_each_command_has_a_time_limit(classic, peer, line):
    peer(dict.fromkeys(("usb_list", "usb_attach", "usb_suspend", "pci_detach", "vmm_args"), b""))
    result = classic("--timeout", "1", *line.split())
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("ERROR Failed to ") and result.stderr.endswith(": no answer within 1 s\n")


# ---- arguments of a VMM, and the listener


def test_f45_vmm_args(classic, peer):
    daemon = peer({"vmm_args": {"result": "ok", "vmm_args": ["-device", "vfio-pci,host=0000:00:14.3", "-x"]}})
    result = classic("vmm", "args", "--vm", "net-vm", "--qemu-bus-prefix", "rp")
    assert (result.returncode, result.stdout, result.stderr) == (0, "-device vfio-pci,host=0000:00:14.3 -x", "")
    assert classic("vmm", "args", "--vm", "vm1", "--qemu-bus-start-index", "1", "--require-pci").returncode == 0
    assert daemon.requests == [{"action": "vmm_args", "vm": "net-vm", "qemu_bus_prefix": "rp"},
                               {"action": "vmm_args", "vm": "vm1", "qemu_bus_start_index": 1, "require_pci": True}]


def test_f45_the_time_of_vmm_args_may_stand_after_the_words(classic, peer):
    daemon = peer({"vmm_args": b""})
    result = classic("vmm", "args", "--vm", "a", "--timeout", "1")
    assert (result.returncode, daemon.requests) == (1, [{"action": "vmm_args", "vm": "a"}])
    assert classic("--timeout", "80", "vmm", "args", "--timeout=1", "--require-pci").returncode == 1
    for line in ("vmm args --timeout 0", "vmm args --timeout x", "usb list --timeout 1"):
        assert classic(*line.split()).returncode == 2, line


def test_f45_vmm_args_end_also_without_a_daemon(classic):
    result = classic("--timeout", "2", "vmm", "args", "--vm", "net-vm")
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("WARNING Failed to connect: ") and lines[-1].startswith("ERROR Failed to connect: ")


def test_f45_vmm_args_have_one_time_limit_for_all_tries(classic, place):
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as caller:
        full.bind(str(place / "socket"))
        full.listen(0)
        caller.connect(str(place / "socket"))
        result = classic("--timeout", "2", "vmm", "args") # the first try has all the time that there is
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"ERROR Failed to connect: {place}/socket: no answer within 2 s\n"


def test_f45_vmm_args_wait_for_a_daemon_that_starts(start, classic_program, peer, place):
    running = start("-t", "unix", "-u", place / "socket", "--timeout", "80", "vmm", "args", "--vm", "a",
                    executable=classic_program)
    running.wait_line(running.errors, 1)
    peer({"vmm_args": {"result": "ok", "vmm_args": ["-a", "-b"]}})
    assert running.process.wait(ctl.PATIENCE) == 0
    running.threads[0].join(ctl.PATIENCE)
    assert running.lines == ["-a -b"]


def test_f45_vmm_args_that_fail(classic, peer):
    peer({"vmm_args": {"result": "failed", "error": "no such VM"}})
    result = classic("vmm", "args", "--vm", "x")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "ERROR Failed to get VMM args for PCI devices: no such VM\n"


def test_f45_listen_prints_events_and_connects_again(start, classic_program, peer, place):
    first = peer({"enable_notifications": OK})
    running = start("-t", "unix", "-u", place / "socket", "listen", executable=classic_program)
    assert running.wait_line(running.errors, 1) == "INFO Listening for notifications"
    first.wait_answered("enable_notifications")
    event = {"event": "usb_select_vm", "usb_device": {"device_node": "/dev/bus/usb/001/004", "serial": None},
             "allowed_vms": ["vm1", "vm2"]}
    first.send(event)
    assert running.wait_line(running.errors, 2) == f"INFO {event!r}"
    first.close()
    (place / "socket").unlink()
    assert running.wait_line(running.errors, 3) == "ERROR the other end hung up without an answer"
    second = peer({"enable_notifications": OK})
    second.wait_answered("enable_notifications")
    seen = len(running.errors)
    second.send(event)
    assert running.wait_line(running.errors, seen + 1) == f"INFO {event!r}"
    assert running.lines == []


def test_f45_listen_waits_for_a_daemon(start, classic_program, peer, place):
    running = start("-t", "unix", "-u", place / "socket", "listen", executable=classic_program)
    assert running.wait_line(running.errors, 2).startswith("ERROR Failed to connect: ")
    peer({"enable_notifications": OK}).wait_answered("enable_notifications")
