"""The daemon and PCI functions, from the host's list to QEMU's, over its own socket; a stub is in place of the host."""
import json
import os
import re
import socket

import pytest

from crosvm import Devices, kept_in, until
from test_input import Qemu as InputQemu

# What stands for /dev/iommu, and, in stub_host.c, for the nodes of functions.
IOMMU, FUNCTION_NODE = "/dev/zero", "/dev/full"
ADDRESSES = {"pci_a": "0000:01:00.0", "pci_b": "0000:01:00.1", "pci_c": "0000:02:00.0"}


class Functions(Devices):
    def plug(self, group=11, ids="8086:a0f0", **places):
        """plug(pci_a=7): the function with that instance."""
        for place, instance in places.items():
            self.plugged[place] = f"pci:{ADDRESSES[place]} {instance} {ids} {group}\n"
        self.write()


class Qemu(InputQemu):
    """A QEMU with PCIe root ports, as far as PCI functions need one."""

    def qom_list(self, path):
        if path == "/machine/peripheral":
            return {"return": [{"name": port, "type": "child<pcie-root-port>"} for port in self.ports] +
                    [{"name": name, "type": "child<vfio-pci>"} for name in self.holds]}
        return super().qom_list(path)

    def qom_get(self, path, property):
        name = path.rsplit("/", 1)[1]
        if property == "host":
            return {"return": self.holds[name][1]}
        return super().qom_get(path, property)

    def add(self, id, bus, host, driver):
        assert driver == "vfio-pci"
        self.adds += 1
        self.holds[id] = bus, host
        return {"return": {}}

    def functions(self):
        return [host for _, host in self.holds.values()]


class DescriptorQemu(Qemu):
    """One that takes functions by descriptor."""

    def __init__(self, path, **options):
        self.named = {}  # name: what device that descriptor is of
        self.context = None  # what device the context for memory is of
        self.taken = []  # of each function: the context's name, and what device it is itself
        super().__init__(path, **options)

    def talk(self, connection):
        self.connection = connection
        super().talk(connection)

    def commands(self):
        return {**super().commands(), "device-list-properties": self.properties, "getfd": self.name,
                "closefd": self.forget, "object-add": self.make}

    def properties(self, typename):
        return {"return": [{"name": name, "type": "str"} for name in ("host", "iommufd", "fd")]}

    def name(self, fdname):
        self.named[fdname] = self.connection.nodes.pop(0)
        return {"return": {}}

    def forget(self, fdname):
        self.named.pop(fdname, None)
        return {"return": {}}

    def make(self, id, fd, **type):
        self.context = id, self.named[fd]
        return {"return": {}}

    def add(self, iommufd=None, fd=None, **arguments):
        self.taken.append((iommufd, self.named.get(fd)))
        return super().add(**arguments)


class Bench:
    def __init__(self, start, place):
        self.begin, self.place, self.devices, self.vms = start, place, Functions(place), {}

    def qemu(self, name="vm1", qemu=Qemu):
        self.vms[name] = qemu(self.place / f"{name}.qmp", ports=("rp1", "rp2", "rp3"))
        return self.vms[name]

    def start(self, *groups, debug=(), **environment):
        config = self.place / "vhotplug.conf"
        kept = kept_in(self.place)
        self.socket = self.place / "api.sock"
        kept["api"] = {**kept.get("api", {}), "enable": True, "unixSocket": str(self.socket)}
        config.write_text(json.dumps({"pciPassthrough": list(groups), "general": kept, "vms": [
            {"name": name, "type": "qemu", "socket": str(self.place / f"{name}.qmp")} for name in ("vm1", "vm2")]}))
        self.daemon = self.begin("-a", "-c", config, *debug, environment={**self.devices.environment(self.place), **environment})
        return self.daemon

    def ask(self, **request):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(client.makefile().readline())

    def wait(self, vm, *functions):
        until(lambda: vm.functions() == list(functions), self.daemon, f"{functions}")


@pytest.fixture
def program(build):
    return build / "tests" / "cli" / "vhotplug-stub"


@pytest.fixture
def bench(start, place):
    bench = Bench(start, place)
    yield bench
    for vm in bench.vms.values():
        vm.close()


NET = {"targetVm": "vm1", "allow": [{"vendorId": "8086"}]}


def test_functions_that_no_rule_names_are_said_to_nobody(bench):
    bench.devices.plug(pci_a=7, pci_b=8, ids="1234:0001")
    daemon = bench.start(NET)
    bench.devices.plug(pci_c=9)
    daemon.wait_line(r"Test Function \(8086:a0f0, 0000:02:00.0\): waits: ")
    assert not [line for line in daemon.log() if "01:00." in line]
    assert daemon.stop() == 0


def test_functions_that_no_rule_names_are_there_for_those_who_look(bench):
    bench.devices.plug(pci_a=7, ids="1234:0001")
    daemon = bench.start(NET, debug=["-d"])
    daemon.wait_line(r"debug Test Function \(1234:0001, 0000:01:00.0\): stays on the host: no rule allows it")
    assert daemon.stop() == 0


def test_f34_functions_go_in_by_the_order_of_the_rules(bench):
    vm = bench.qemu()
    bench.devices.plug(pci_a=7, group=11)
    bench.devices.plug(pci_b=8, group=12)
    bench.devices.plug(pci_c=9, group=13, ids="8086:0001")
    bench.start({"targetVm": "vm1", "allow": [{"deviceId": "0001", "vendorId": "8086"}, {"vendorId": "8086"}]})
    bench.wait(vm, "0000:02:00.0", "0000:01:00.0", "0000:01:00.1")
    assert bench.daemon.stop() == 0


def test_what_comes_together_goes_in_over_one_connection(bench):
    vm = bench.qemu()
    daemon = bench.start(NET)
    daemon.wait_line("^info vm1 answers")
    before = vm.served
    for place, group in ("pci_a", 11), ("pci_b", 12), ("pci_c", 13):
        bench.devices.plugged[place] = f"pci:{ADDRESSES[place]} {group} 8086:a0f0 {group}\n"
    bench.devices.write()
    bench.wait(vm, *ADDRESSES.values())
    daemon.wait_line("attached to vm1", count=3)
    assert vm.served == before + 1
    assert daemon.stop() == 0


def test_f27_f49_a_restart_finds_what_it_gave_away(bench):
    vm = bench.qemu()
    bench.devices.plug(pci_a=7)
    daemon = bench.start(NET)
    bench.wait(vm, "0000:01:00.0")
    daemon.wait_line("attached to vm1")
    daemon.process.kill()
    daemon.process.wait()
    daemon = bench.start(NET)
    daemon.wait_line("attached to vm1")
    bench.devices.plug(pci_c=9, group=12)  # while all runs
    bench.wait(vm, "0000:01:00.0", "0000:02:00.0")
    assert (vm.adds, vm.dels) == (2, 0)
    assert bench.ask(action="pci_detach", address="02:00.0")["state"] == "host"
    assert vm.functions() == ["0000:01:00.0"]
    assert daemon.stop() == 0


def test_a_qemu_that_takes_descriptors_is_handed_the_function_and_a_context_of_the_iommu(bench):
    vm = bench.qemu(qemu=DescriptorQemu)
    bench.devices.plug(pci_a=7)
    daemon = bench.start(NET, VHOTPLUG_TEST_IOMMU=IOMMU)
    bench.wait(vm, "0000:01:00.0")
    name, node = vm.context
    assert node == os.stat(IOMMU).st_rdev
    assert vm.taken == [(name, os.stat(FUNCTION_NODE).st_rdev)]
    assert daemon.stop() == 0


def test_a_qemu_that_takes_descriptors_is_handed_none_where_the_host_has_no_node_for_contexts(bench):
    vm = bench.qemu(qemu=DescriptorQemu)
    bench.devices.plug(pci_a=7)
    daemon = bench.start(NET, VHOTPLUG_TEST_IOMMU=bench.place / "none")
    bench.wait(vm, "0000:01:00.0")
    assert vm.taken == [(None, None)]
    assert daemon.stop() == 0


def test_a_group_moves_as_a_whole(bench):
    vm1, vm2 = bench.qemu("vm1"), bench.qemu("vm2")
    bench.devices.plug(pci_a=7, pci_b=8)
    daemon = bench.start({"allowedVms": ["vm1", "vm2"], "allow": [{"vendorId": "8086"}]})
    bench.wait(vm1, "0000:01:00.0", "0000:01:00.1")
    assert bench.ask(action="pci_attach", address="01:00.1", vm="vm2")["vm"] == "vm2"
    bench.wait(vm2, "0000:01:00.0", "0000:01:00.1")
    assert vm1.functions() == []
    assert daemon.stop() == 0


def test_the_arguments_of_a_vm_are_made_by_the_daemon(bench):
    bench.devices.plug(pci_a=7, pci_b=8)
    daemon = bench.start(NET)
    daemon.wait_line("waits: vm1 is not running", count=2)
    answer = bench.ask(action="vmm_args", vm="vm1", qemu_bus_prefix="rp")
    assert answer["result"] == "ok"
    assert [re.sub("id=[^,]*", "id", word) for word in answer["vmm_args"][1::2]] == [
        "vfio-pci,host=0000:01:00.0,multifunction=on,id,bus=rp0", "vfio-pci,host=0000:01:00.1,multifunction=on,id,bus=rp1"]
    # QEMU is started with them: they are ours from the beginning.
    vm = Qemu(bench.place / "vm1.qmp", ports=("rp0", "rp1"))
    bench.vms["vm1"] = vm
    ids = [re.search("id=([^,]*)", word)[1] for word in answer["vmm_args"][1::2]]
    vm.holds = {ids[0]: ("rp0", "0000:01:00.0"), ids[1]: ("rp1", "0000:01:00.1")}
    daemon.wait_line("attached to vm1", count=2)
    assert (vm.adds, vm.dels) == (0, 0)
    assert daemon.stop() == 0


def test_a_vm_that_is_restarted_while_its_function_is_made_ready(bench):
    gate = bench.place / "gate"
    os.mkfifo(gate)
    bench.devices.plug(pci_a=7)
    bench.qemu()
    daemon = bench.start(NET, debug=["-d"], VHOTPLUG_TEST_OPENING=str(gate))
    daemon.wait_line("host: opens pci:0000:01:00.0")
    bench.vms["vm1"].close()
    daemon.wait_line("vm1 is not running")
    settled = len(daemon.matching("host: settles"))
    vm = bench.qemu()
    daemon.wait_line("vm1.* answers|vm1.* starting|vm1.* up")
    with open(gate, "wb", buffering=0) as pipe:
        pipe.write(b"1")  # ready, for the process that has ended
        daemon.wait_line("host: opens pci:0000:01:00.0", count=2)
        assert vm.adds == 0
        daemon.wait_line("host: settles pci:0000:01:00.0$", count=settled + 1)
        pipe.write(b"1")
        bench.wait(vm, "0000:01:00.0")
    assert vm.adds == 1
    assert daemon.stop() == 0
