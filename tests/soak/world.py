"""A daemon with VMs that are processes of their own, which can be killed, and the figures of the daemon's process."""
import collections
import json
import mmap
import os
import pathlib
import re
import subprocess
import time

import client
from crosvm import NODES, NUMBER, Crosvm, Devices, kept_in
from vhotplug import PATIENCE, Daemon

QEMUS = ("q1", "q2", "q3")
PORTS = 4  # USB ports of a QEMU
CONFIG = {
    "vms": [*({"name": name, "type": "qemu"} for name in QEMUS), {"name": "c1", "type": "crosvm"}],
    "usbPassthrough": [*({"targetVm": name, "allow": [{"vendorId": f"{number:04x}"}]} for number, name in enumerate(QEMUS, 1)),
                       {"targetVm": "c1", "allow": [{"vendorId": "046d"}]}],
    "evdevPassthrough": {"targetVm": "q1", "pcieBusPrefix": "ep"},
}
CROSVM_NODES = ("mouse", "twin")


def config_text(place, **more):
    vms = [{**vm, "socket": str(place / vm["name"])} for vm in CONFIG["vms"]]
    return json.dumps({**CONFIG, "vms": vms, "general": kept_in(place), **more})


class Qemu:
    """The program soak-vm as a VM."""

    def __init__(self, program, place, name, *user):
        self.process = subprocess.Popen([str(program), str(place), name, *user], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()  # it is up

    def holds(self):
        """The instances of the devices that it has; one twice is in it twice."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return sorted(int(name.split("-")[4], 16) for name in self.process.stdout.readline().split())

    def kill(self):
        self.process.kill()
        self.close()

    stop = kill

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(PATIENCE)


class Watched(Daemon):
    """A daemon that runs long: keeps the end of its log, and how often each thing was said."""
    said = None

    def _read(self):
        self.said = collections.Counter()
        for raw in self.process.stderr:
            line = raw.rstrip(b"\n").decode("utf-8", "surrogateescape")
            word = re.search(r": (attached|unplugged|waits)\b|^(warning|error) ", line)
            with self.condition:
                self.lines.append(line)
                if len(self.lines) > 2000:
                    del self.lines[:1000]
                if word:
                    self.said[word[1] or word[2]] += 1
                self.condition.notify_all()

    def count(self, word):
        with self.condition:
            return self.said[word] if self.said else 0


class Control:
    """What is shared with fail.c."""

    def __init__(self, place):
        self.path = place / "control"
        self.path.write_bytes(bytes(4096))
        with open(self.path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 4096)

    def phase(self, number):
        self.map[0:4] = number.to_bytes(4, "little")

    def failed(self):
        return int.from_bytes(self.map[4:8], "little")

    def heap(self):
        return int.from_bytes(self.map[8:16], "little")


class Plugs(Devices):
    """The devices of the host, and to which VM each goes."""

    def __init__(self, place):
        self.vms, self.detached = {}, set()
        super().__init__(place)
        self.instances = 100000  # numbers of one length, so that texts with them have one

    def add(self, key, identity, node, vm):
        self.instances += 1
        self.vms[key] = vm, self.instances, node
        self.plugged[key] = f"{key} {self.instances} {identity} {node}\n"

    def plug(self, *vms):
        """A new instance of each device of these VMs."""
        for vm in vms:
            if vm == "c1":
                for port, node in enumerate(CROSVM_NODES, 1):
                    self.add(f"usb:9-{port}", NODES[node][2], NODES[node][0], vm)
                continue
            number = QEMUS.index(vm) + 1
            for port in range(1, PORTS + 1):
                self.add(f"usb:{number}-{port}", f"{number:04x}:0001", "/dev/null", vm)
            if vm == "q1":
                self.add("input:input1", "0001:0001", "/dev/null", vm)
                self.add("input:input2", "0001:0002", "/dev/zero", vm)
        self.write()

    def pull(self, *vms):
        self.plugged = {key: line for key, line in self.plugged.items() if self.vms[key][0] not in vms}
        self.vms = {key: value for key, value in self.vms.items() if value[0] not in vms}
        self.write()

    def of(self, vm):
        if vm == "c1":
            numbers = {path: number for path, number, _ in NODES.values()}
            return sorted(numbers[node] for name, _, node in self.vms.values() if name == vm)
        return sorted(instance for key, (name, instance, _) in self.vms.items()
                      if name == vm and key not in self.detached)


class World:
    def __init__(self, build, plain, place, **environment):
        """The daemon is of BUILD; the VMs and the library are of PLAIN, which has no sanitizers."""
        self.build, self.place, self.plain = build, place, plain
        self.devices, self.control, self.vms = Plugs(place), Control(place), {}
        self.environment = {"LD_PRELOAD": str(self.plain / "tests/soak/libfail.so"), "SOAK_CONTROL": str(self.control.path),
                            "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0", **environment}
        self.config = place / "vhotplug.conf"
        self.config.write_text(config_text(place))
        self.daemon = None

    def begin(self):
        self.daemon = Watched(self.build / "tests/cli/vhotplug-stub", self.place, "-a", "-c", self.config,
                              environment=self.devices.environment(self.place, **self.environment))
        return self.daemon

    def start_vm(self, name):
        self.vms[name] = Crosvm(self.place / name) if name == "c1" else \
            Qemu(self.plain / "tests/soak/soak-vm", self.place, name)

    def restart(self, name):
        self.vms[name].kill()
        if name == "c1":
            (self.place / name).unlink()
        self.start_vm(name)

    def holds(self, name):
        vm = self.vms[name]
        return vm.nodes() if name == "c1" else vm.holds()

    def wrong(self):
        """What VMs have instead of what they should have; empty: all is right."""
        return {name: (found, wanted) for name in self.vms
                if (found := self.holds(name)) != (wanted := self.devices.of(name))}

    def settle(self, patience=PATIENCE):
        """Waits until each device is where the rules say."""
        end = time.monotonic() + patience
        while wrong := self.wrong():
            assert self.daemon.process.poll() is None, "the daemon ended:\n" + "\n".join(self.daemon.log())
            assert time.monotonic() < end, f"VMs have the first, and should the second: {wrong}\n" + "\n".join(
                self.daemon.log()[-60:])
            with self.daemon.condition:
                self.daemon.condition.wait(0.02)

    def ask(self, action, **members):
        asking = client.Client(self.place / "api.sock")
        try:
            return asking.request(action, **members)
        finally:
            asking.close()

    def states(self):
        return collections.Counter(device["state"] for device in self.ask("usb_list", all=True)["usb_devices"])

    def close(self):
        if self.daemon:
            self.daemon.close()
        for vm in self.vms.values():
            vm.kill()


def figures(world):
    """The daemon's process in figures: bytes, and counts of what it has open."""
    pid = pathlib.Path(f"/proc/{world.daemon.process.pid}")
    memory = dict(re.findall(r"^(\w+): +(\d+) kB", (pid / "smaps_rollup").read_text(), re.M))
    links = {entry.name: os.readlink(entry) for entry in (pid / "fd").iterdir()}
    information = {name: (pid / "fdinfo" / name).read_text() for name, link in links.items() if link.startswith("anon_inode")}
    return {
        "rss": int(memory["Rss"]) * 1024,
        # Pages of files are its own as long as no other program happens to map the same library.
        "written": int(memory["Private_Dirty"]) * 1024,
        "heap": world.control.heap(),
        "descriptors": len(links),
        "epoll": sum(text.count("tfd:") for text in information.values()),
        "timers": sum(link == "anon_inode:[timerfd]" for link in links.values()),
        "watches": sum(text.count("inotify wd:") for text in information.values()),
        "threads": len(list((pid / "task").iterdir())),
    }
