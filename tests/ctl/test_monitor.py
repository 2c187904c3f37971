"""vhotplugctl monitor: events as they come, one line each, also after the daemon was restarted."""
import json
import os
import re
import signal
import socket
import time

import pytest

import ctl

CAMERA, RECEIVER = ctl.CAMERA, ctl.RECEIVER
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000 "
RECEIVER_TITLE = "Logitech, Inc. Unifying Receiver (046d:c52b, 1-2)"
CAMERA_TITLE = "Chicony Electronics Co., Ltd Integrated Camera (04f2:b6d9, 1-8)"
REPLIES = {"device_list": {"result": "ok", "devices": [RECEIVER]}, "enable_notifications": {"result": "ok"}}


def short(device):
    """What the daemon says of a device that has gone."""
    return {"device_node": device["device_node"], "vid": device["vid"], "pid": device["pid"]}


def test_each_event_is_one_readable_line(start, peer, place):
    daemon = peer(REPLIES)
    running = start("-s", place / "socket", "monitor")
    assert running.wait_line(running.errors, 1) == "vhotplugctl: listening; end with Ctrl-C"
    daemon.send(
        {"event": "usb_connected", "usb_device": CAMERA}, {"event": "usb_attached", "usb_device": CAMERA, "vm": "vm2"},
        {"event": "usb_detached", "usb_device": short(CAMERA), "vm": "vm2"},
        {"event": "usb_disconnected", "usb_device": short(CAMERA)},
        {"event": "usb_detached", "usb_device": {"device_node": RECEIVER["device_node"]}, "vm": "vm1"},
        {"event": "usb_select_vm", "usb_device": RECEIVER, "allowed_vms": ["vm1", "vm2"]},
        {"event": "attach_failed", "usb_device": RECEIVER, "vm": "vm1", "error": "no free port"},
        {"event": "vm_up", "vm": "vm1"}, {"event": "vm_down", "vm": "vm1"},
        {"event": "usb_disconnected", "usb_device": {"device_node": "/dev/bus/usb/009/009"}}, {"event": "new", "a": 1})
    running.wait_line(running.lines, 11)
    assert all(re.match(TIME, line) for line in running.lines)
    assert [re.sub(TIME, "", line) for line in running.lines] == [
        f"{CAMERA_TITLE}: plugged in", f"{CAMERA_TITLE}: attached to vm2", f"{CAMERA_TITLE}: detached from vm2",
        f"{CAMERA_TITLE}: unplugged", f"{RECEIVER_TITLE}: detached from vm1",
        f"{RECEIVER_TITLE}: which VM is to have it? vm1, vm2", f"{RECEIVER_TITLE}: refused by vm1: no free port",
        "VM vm1: is up", "VM vm1: is down", "unnamed (/dev/bus/usb/009/009): unplugged", '{"event":"new","a":1}']


def test_json_is_one_event_a_line(start, peer, place):
    daemon = peer(REPLIES)
    events = [{"event": "vm_up", "vm": "vm1"}, {"event": "usb_connected", "usb_device": CAMERA}]
    running = start("-s", place / "socket", "monitor", "--json")
    running.wait_line(running.errors, 1)
    daemon.send(*events, {"no": "event"}, *events)
    running.wait_line(running.lines, 4)
    assert [json.loads(line) for line in running.lines] == events * 2


def test_it_connects_again_when_the_daemon_comes_back(start, peer, place):
    first = peer(REPLIES)
    running = start("-s", place / "socket", "monitor")
    running.wait_line(running.errors, 1)
    first.close()
    (place / "socket").unlink()
    assert running.wait_line(running.errors, 2) == \
        "vhotplugctl: the other end hung up without an answer; trying again"
    time.sleep(4) # long enough for a try that fails
    second = peer(REPLIES)
    while not running.errors[-1].startswith("vhotplugctl: connected again"):
        running.wait_line(running.errors, len(running.errors) + 1)
    second.send({"event": "vm_up", "vm": "vm1"})
    assert running.wait_line(running.lines, 1).endswith("VM vm1: is up")


@pytest.fixture
def names(place):
    """A name service that answers as often as it is let."""
    class Names:
        path = place / "names"
        environment = {"VHOTPLUG_TEST_NAMES": str(path)}

        def answer(self):
            os.write(gate, b"x")

        def wait_asked(self, count):
            end, file = time.monotonic() + ctl.PATIENCE, place / "names.asked"
            while not file.exists() or file.stat().st_size < count:
                assert time.monotonic() < end, "nobody asks"
                time.sleep(0.05)
    os.mkfifo(Names.path)
    gate = os.open(Names.path, os.O_RDWR | os.O_CLOEXEC)
    yield Names()
    os.close(gate)


def tcp_arguments(daemon):
    return "--host", "localhost", "--port", daemon.address[1], "--timeout", 1


def test_a_name_service_that_is_slow_does_not_end_it(start, build, names):
    daemon = ctl.Peer(("127.0.0.1", 0), REPLIES, family=socket.AF_INET)
    names.answer()
    running = start(*tcp_arguments(daemon), "monitor", executable=build / "tests/ctl/vhotplugctl-names",
                    **names.environment)
    assert running.wait_line(running.errors, 1) == "vhotplugctl: listening; end with Ctrl-C"
    daemon.hang_up()
    names.wait_asked(4)  # at least two of them in vain
    names.answer()
    while not running.errors[-1].startswith("vhotplugctl: connected again"):
        running.wait_line(running.errors, len(running.errors) + 1)
    daemon.send({"event": "vm_up", "vm": "vm1"})
    assert running.wait_line(running.lines, 1).endswith("VM vm1: is up")
    daemon.close()


def test_a_name_that_cannot_be_found_out_in_time(build, names):
    result = ctl.run(build / "tests/ctl/vhotplugctl-names", "--host", "localhost", "--timeout", 1, "list",
                     **names.environment)
    assert result.returncode == 1
    assert result.stderr == "vhotplugctl: cannot connect to localhost port 2000: the name of the host could not be found out in time\n"


def test_it_works_for_who_may_not_list(start, peer, place):
    daemon = peer({"enable_notifications": {"result": "ok"}})
    running = start("-s", place / "socket", "monitor")
    running.wait_line(running.errors, 1)
    daemon.send({"event": "vm_up", "vm": "vm1"})
    running.wait_line(running.lines, 1)


def test_no_daemon_at_the_start_is_a_failure(run):
    result = run("monitor")
    assert result.returncode == 1
    assert "No such file or directory" in result.stderr


def test_rubbish_ends_the_connection_only(start, peer, place):
    daemon = peer(REPLIES)
    running = start("-s", place / "socket", "monitor")
    running.wait_line(running.errors, 1)
    daemon.send(b"rubbish\n")
    assert "not JSON" in running.wait_line(running.errors, 2)
    daemon.wait_answered("enable_notifications", 2)


def test_it_ends_when_it_is_told_to(start, peer, place):
    peer(REPLIES)
    running = start("-s", place / "socket", "monitor")
    running.wait_line(running.errors, 1)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(ctl.PATIENCE) == -signal.SIGTERM
