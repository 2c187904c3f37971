"""What people decided is saved before it is answered; what could not be saved, as soon as that can be done."""
import json
import os
import signal
import time

import pytest

import crosvm
from client import PATIENCE
from crosvm import Devices, until


@pytest.fixture
def blocked(place):
    """A directory for what is saved; a file is in its place."""
    path = place / "blocked"
    path.write_text("")
    return path


def unblock(path):
    path.unlink()
    path.mkdir()


@pytest.fixture
def failing(start, config, blocked):
    """A daemon that has failed to save what people chose."""
    path = config(general={"persistency": False})
    daemon = start("-c", path)
    daemon.wait_ready()
    text = json.loads(path.read_text())
    text["general"] = {"persistency": True, "statePath": str(blocked / "state"), "api": {"enable": False}}
    path.write_text(json.dumps(text))
    daemon.signal(signal.SIGHUP)
    daemon.wait_line("^warning .*/state cannot be written")
    return daemon


def test_what_people_chose_is_saved_later(failing, blocked):
    unblock(blocked)
    until((blocked / "state").exists, failing, "saved")
    assert failing.stop() == 0
    assert len(failing.matching("cannot be written")) == 1


def test_what_people_chose_is_saved_at_the_end(failing, blocked):
    unblock(blocked)
    assert failing.stop() == 0
    assert (blocked / "state").exists()


def test_the_memory_is_saved_later(start, config, build, place, blocked):
    devices = Devices(place)
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"portPath": "1-*"}]}])
    daemon = start("-a", "-c", path, program=build / "tests/cli/vhotplug-stub",
                   environment=devices.environment(place, RUNTIME_DIRECTORY=str(blocked)))
    daemon.wait_ready()
    devices.plug(usb_1_2="twin")
    daemon.wait_line("1-2.*: waits")  # the first scan is over: what comes now is plugged, and so remembered
    devices.plug(usb_1_1="mouse")
    daemon.wait_line("^warning .*/memory.json cannot be written")
    unblock(blocked)
    until((blocked / "memory.json").exists, daemon, "saved")
    assert daemon.stop() == 0


# ---- a disk that is slow

RULES = [{"targetVm": "vm1", "allow": [{"portPath": "1-*"}]}]


class Disk:
    """Where the daemon saves what people decide: each save waits until one more is let go on."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self.gate = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def go_on(self):
        os.write(self.gate, b"x")


@pytest.fixture
def disk(place):
    made = Disk(place / "disk")
    yield made
    os.close(made.gate)


@pytest.fixture
def vm(place):
    made = crosvm.Crosvm(place / "vm1.sock")
    yield made
    made.process.kill()
    made.close()


@pytest.fixture
def host(place):
    return Devices(place)


@pytest.fixture
def served(start, config, build, place, vm, host):
    """Starts a daemon with two devices in a VM."""
    def begin(**environment):
        path = config(vms=[{"name": "vm1", "type": "crosvm", "socket": str(vm.path)}], usbPassthrough=RULES)
        host.plug(usb_1_1="mouse", usb_1_2="stick")
        daemon = start("-a", "-c", path, program=build / "tests/cli/vhotplug-stub",
                       environment=host.environment(place, **environment))
        daemon.wait_ready()
        until(lambda: len(vm.nodes()) == 2, daemon, "the VM with both devices")
        return daemon
    return begin


def detached(place):
    """The places of what is detached, as the state file has it."""
    choices = json.loads((place / "state").read_text())["devices"]
    return [choice["path"] for choice in choices if choice["detached"]]


def ask(client, action, device):
    client.send(json.dumps({"action": action, "device": device}).encode() + b"\n")


def silent(client):
    """Nothing has come by now."""
    client.socket.setblocking(False)
    try:
        return client.socket.recv(1) and False
    except BlockingIOError:
        return True
    finally:
        client.socket.settimeout(PATIENCE)


def test_what_is_answered_is_saved_and_a_slow_disk_delays_no_device(served, connect, place, vm, host, disk):
    daemon = served(VHOTPLUG_TEST_SAVING=str(disk.path))
    client, other = connect(), connect()
    ask(client, "usb_detach", "1-1")
    until(lambda: len(vm.nodes()) == 1, daemon, "the VM without the mouse")
    host.plug(usb_1_3="third")
    until(lambda: len(vm.nodes()) == 2, daemon, "the VM with the third")
    assert other.request("usb_list", disconnected=True)["usb_devices"][0]["sys_name"] == "1-1"
    assert silent(client) and not (place / "state").exists()
    disk.go_on()
    assert client.answer()["state"] == "host"
    assert detached(place) == ["usb:1-1"]
    # What is decided while a save is under way is in the next one, and its answer waits for that.
    ask(client, "usb_attach", "1-1")
    until(lambda: len(vm.nodes()) == 3, daemon, "the VM with all")
    ask(other, "usb_detach", "1-2")
    until(lambda: len(vm.nodes()) == 2, daemon, "the VM without the stick")
    disk.go_on()
    assert client.answer()["state"] == "attached"
    assert detached(place) == [] and silent(other)
    disk.go_on()
    assert other.answer()["state"] == "host"
    assert detached(place) == ["usb:1-2"]
    assert daemon.stop() == 0


def test_the_daemon_ends_when_all_that_was_decided_is_saved(served, connect, place, vm, disk):
    daemon = served(VHOTPLUG_TEST_SAVING=str(disk.path))
    client = connect()
    ask(client, "usb_detach", "1-1")
    until(lambda: len(vm.nodes()) == 1, daemon, "the VM without the mouse")
    ask(connect(), "usb_detach", "1-2")
    until(lambda: not vm.nodes(), daemon, "the VM without both")
    daemon.signal(signal.SIGTERM)
    daemon.wait_notice("STOPPING=1")
    disk.go_on()
    disk.go_on()
    assert daemon.wait_end() == 0
    assert sorted(detached(place)) == ["usb:1-1", "usb:1-2"]


def test_told_twice_the_daemon_ends_without_the_disk(served, connect, place, vm, disk):
    daemon = served(VHOTPLUG_TEST_SAVING=str(disk.path))
    ask(connect(), "usb_detach", "1-1")
    until(lambda: len(vm.nodes()) == 1, daemon, "the VM without the mouse")
    daemon.signal(signal.SIGTERM)
    daemon.wait_notice("STOPPING=1")
    assert daemon.stop() == 0
    assert not (place / "state").exists()


def test_who_decides_again_and_again_does_not_wear_out_the_disk(served, connect, place):
    """After 32 saves there is one a second: what was answered is saved all the same."""
    served()
    client, begin = connect(), time.monotonic()
    for turn in range(38):
        action = "usb_attach" if turn % 2 else "usb_detach"
        assert client.request(action, device="1-1")["result"] == "ok"
        assert detached(place) == ([] if turn % 2 else ["usb:1-1"])
    assert time.monotonic() - begin > 38 - 32 - 1


def test_many_who_decide_at_once_share_a_save(start, config, build, connect, place, host, disk):
    """However many they are, two saves are enough: the one under way, and one with all the rest."""
    for port in range(20):
        host.plug(**{f"usb_1_{port + 1}": "mouse"})
    daemon = start("-a", "-c", config(usbPassthrough=RULES), program=build / "tests/cli/vhotplug-stub",
                   environment=host.environment(place, VHOTPLUG_TEST_SAVING=str(disk.path)))
    daemon.wait_ready()
    daemon.wait_line("vm1 is not running", 20)
    clients = [connect() for _ in range(20)]
    for port, client in enumerate(clients):
        ask(client, "usb_detach", f"1-{port + 1}")
    until(lambda: len(connect().request("usb_list", disconnected=True)["usb_devices"]) == 20, daemon, "all decided")
    disk.go_on()
    disk.go_on()
    assert all(client.answer()["result"] == "ok" for client in clients)
    assert len(detached(place)) == 20
    assert daemon.stop() == 0


# ---- another file

def entry(place, detached):
    return {"id": "usb-046d:c077:None", "path": f"usb:{place}", "detached": detached}


@pytest.mark.parametrize("before", [{"persistency": False}, {"statePath": "other"}], ids=["kept from now on", "kept elsewhere"])
def test_what_was_kept_in_another_file_is_joined(start, config, build, connect, place, host, before):
    """What is detached in either stays detached."""
    path = config(usbPassthrough=RULES)
    later = json.loads(path.read_text())
    former = {**later, "general": {**later["general"], **before}}
    if "statePath" in before:
        former["general"]["statePath"] = str(place / before["statePath"])
    path.write_text(json.dumps(former))
    host.plug(usb_1_1="mouse", usb_1_2="twin", usb_1_3="third")
    daemon = start("-a", "-c", path, program=build / "tests/cli/vhotplug-stub", environment=host.environment(place))
    daemon.wait_ready()
    daemon.wait_line("vm1 is not running", 3)
    (place / "state").write_text(json.dumps({"version": 1, "devices": [entry("1-1", False), entry("1-2", True), entry("1-9", True)]}))
    client = connect()
    assert client.request("usb_detach", device="1-1")["result"] == "ok"
    path.write_text(json.dumps(later))
    assert client.request("reload") == {"result": "ok"}
    daemon.wait_line(f"^info {place}/state: what people chose before is joined with what they chose since")
    out = [device["sys_name"] for device in client.request("usb_list", disconnected=True)["usb_devices"]]
    assert out == ["1-1", "1-2"]
    assert client.request("usb_detach", device="1-3")["result"] == "ok"
    assert sorted(detached(place)) == ["usb:1-1", "usb:1-2", "usb:1-3", "usb:1-9"]
    assert daemon.stop() == 0
