"""The daemon and input devices that are not USB: which PCIe port of a running QEMU each one is on in the end."""
import json
import os
import shutil
import subprocess

import pytest

from crosvm import Devices, kept_in, until
from peer import GREETING, Peer, answer

NODES = {"mouse": "/dev/null", "twin": "/dev/zero", "third": "/dev/urandom"}


class Qemu(Peer):
    """A QEMU with PCIe root ports, as far as input devices need one. Like 7.2 it does not mind that a port is in use."""

    def __init__(self, path, ports=("ep1", "ep2")):
        self.ports, self.holds, self.adds, self.dels, self.error = ports, {}, 0, 0, None
        super().__init__(path, self.talk)

    def talk(self, connection):
        connection.send(GREETING)
        while (command := connection.command()) is not None:
            name, arguments = command["execute"], command.get("arguments", {})
            do = self.commands().get(name)
            connection.send({**(do(**arguments) if do else answer(command)), "id": command["id"]})
            if name == "device_del":
                connection.send({"event": "DEVICE_DELETED", "data": {"device": arguments["id"]},
                                 "timestamp": {"seconds": 1, "microseconds": 1}})

    def commands(self):
        return {"qom-list": self.qom_list, "qom-get": self.qom_get, "device_add": self.add, "device_del": self.delete}

    def qom_list(self, path):
        if path == "/machine/peripheral":
            return {"return": [{"name": port, "type": "child<pcie-root-port>"} for port in self.ports] +
                    [{"name": name, "type": "child<virtio-input-host-pci>"} for name in self.holds]}
        if path.startswith("/machine/i440fx"):
            return {"error": {"class": "DeviceNotFound", "desc": "no such object"}}
        bus = path.rsplit("/", 1)[1]
        return {"return": [{"name": "child[0]", "type": "link<>"} for used, _ in self.holds.values() if used == bus]}

    def qom_get(self, path, property):
        return {"return": property == "hotplug"}

    def add(self, id, bus, evdev, driver):
        assert driver == "virtio-input-host-pci"
        self.adds += 1
        if self.error:
            return {"error": {"class": "GenericError", "desc": self.error}}
        self.holds[id] = bus, evdev
        return {"return": {}}

    def delete(self, id):
        self.dels += 1
        del self.holds[id]
        return {"return": {}}

    def inputs(self):
        """Port by port: which of our devices it has. One port, or one device, twice is a failure."""
        holds = list(self.holds.values())
        names = {node: name for name, node in NODES.items()}
        assert len(dict(holds)) == len(holds) == len({node for _, node in holds}), holds
        return {port: names[node] for port, node in holds}


class Bench:
    def __init__(self, start, place):
        self.begin, self.place, self.devices, self.vm = start, place, Devices(place), None

    def qemu(self, path="vm1.qmp", **options):
        self.vm = Qemu(self.place / path, **options)
        return self.vm

    def start(self, path="vm1.qmp"):
        config = self.place / "vhotplug.conf"
        config.write_text(json.dumps({"evdevPassthrough": {"targetVm": "vm1", "pcieBusPrefix": "ep"}, "vms": [
            {"name": "vm1", "type": "qemu", "socket": str(self.place / path)}],
            "general": kept_in(self.place)}))
        self.daemon = self.begin("-a", "-c", config, environment=self.devices.environment(self.place))
        return self.daemon

    def wait(self, **ports):
        until(lambda: self.vm.inputs() == ports, self.daemon, f"{ports}")


@pytest.fixture
def program(build):
    return build / "tests" / "cli" / "vhotplug-stub"


@pytest.fixture
def bench(start, place):
    bench = Bench(start, place)
    yield bench
    if bench.vm:
        bench.vm.close()


def test_f20_f49_devices_come_before_the_vm_and_while_it_runs(bench):
    bench.devices.plug(input_input1="mouse")
    daemon = bench.start()
    daemon.wait_line("waits: vm1 is not running")
    vm = bench.qemu()
    bench.wait(ep1="mouse")
    bench.devices.plug(input_input2="twin")
    bench.wait(ep1="mouse", ep2="twin")
    bench.devices.plug(input_input3="third")
    daemon.wait_line("all 2 PCIe root ports ep1… of vm1 are in use: start QEMU with -device pcie-root-port,id=ep3")
    bench.devices.pull("input_input1")
    bench.wait(ep1="third", ep2="twin")  # the port that it leaves is that of the next
    assert vm.adds == 3 and vm.dels == 1
    assert daemon.stop() == 0


def test_f21_the_directory_of_the_socket_is_deleted_and_made_again(bench):
    directory = bench.place / "late" / "deep"
    bench.devices.plug(input_input1="mouse")
    daemon = bench.start("late/deep/vm1.qmp")
    daemon.wait_line("waits: vm1 is not running")
    for turn in (1, 2):
        directory.mkdir(parents=True)
        vm = bench.qemu("late/deep/vm1.qmp")
        bench.wait(ep1="mouse")
        daemon.wait_line("attached to vm1", count=turn)
        vm.close()
        shutil.rmtree(directory.parent)
        daemon.wait_line("^info vm1 is not running", count=turn + 1)
    bench.vm = None
    assert daemon.stop() == 0


def test_f26_f31_a_vm_that_ends_and_comes_back(bench):
    vm = bench.qemu()
    bench.devices.plug(input_input1="mouse", input_input2="twin")
    daemon = bench.start()
    daemon.wait_line("attached to vm1", count=2)
    vm.close()
    daemon.wait_line("waits: vm1 is not running", count=2)
    bench.devices.pull("input_input1")
    bench.qemu()
    bench.wait(ep1="twin")
    daemon.wait_line("attached to vm1", count=3)
    assert daemon.stop() == 0


def test_f28_fast_replugs(bench):
    bench.qemu(ports=("ep1", "ep2", "ep3"))
    daemon = bench.start()
    for _ in range(100):
        bench.devices.plug(input_input1="mouse", input_input2="twin")
        bench.devices.pull("input_input1", "input_input2")
    bench.devices.plug(input_input1="twin", input_input7="third")
    until(lambda: set(bench.vm.inputs().values()) == {"twin", "third"}, daemon, "the last two")
    assert daemon.stop() == 0


def test_f30_a_restarted_daemon_takes_over_what_the_vm_lists(bench):
    vm = bench.qemu()
    bench.devices.plug(input_input1="mouse", input_input2="twin")
    bench.start().wait_line("attached to vm1", count=2)
    bench.daemon.close()  # killed
    bench.devices.pull("input_input2")
    daemon = bench.start()
    daemon.wait_line("attached to vm1")
    until(lambda: set(vm.inputs().values()) == {"mouse"}, daemon, "the other to leave")
    assert vm.adds == 2 and vm.dels == 1
    assert daemon.stop() == 0


def test_a_grabbed_device_is_said_once_and_asked_for_less_and_less(bench, place):
    vm, node = bench.qemu(), place / "event5"  # nobody but this test has that open
    vm.error = f"{node}: failed to get exclusive access: Device or resource busy"
    node.touch()
    bench.devices.plug(input_input1=str(node))
    with open(node, "rb") as file:
        daemon = bench.start()
        daemon.wait_line(rf"{node} is grabbed by another program, .*: .* \(process {os.getpid()}\) has it open$")
        tries = vm.adds
        with subprocess.Popen(["sleep", "1000"], stdin=file) as other:
            until(lambda: vm.adds >= tries + 3, daemon, "further tries")
            other.kill()
        vm.error = None
        daemon.wait_line("attached to vm1")
    assert len(daemon.matching("is grabbed by another program")) == 1
    assert daemon.stop() == 0
