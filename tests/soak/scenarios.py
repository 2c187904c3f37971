"""Lives of the daemon, phase by phase: with a list of devices, with a host's own wing, and with a host of files."""
import collections
import contextlib
import os
import re
import signal
import time

import hosts
import world as worlds
from crosvm import until
from vhotplug import PATIENCE, open_files

VM_USER = 65534  # of the VMs of a host of files


class Scenario:
    """One life of the daemon, phase by phase, and what must hold after each."""

    def __init__(self, build, plain, place, **environment):
        self.world = worlds.World(build, plain, place, **environment)
        self.kinds = self.wanted = None
        self.world.config.write_text(self.config())

    def phases(self):
        return [self.start, self.plug, self.restart, self.unplug, self.reload, self.ask, self.stop, self.start, self.stop]

    def vms(self, without):
        place = self.world.place
        return [{**vm, "socket": str(place / vm["name"])} for vm in worlds.CONFIG["vms"] if vm["name"] != without]

    def config(self, without=None):
        groups = [group for group in worlds.CONFIG["usbPassthrough"] if group["targetVm"] != without]
        return worlds.config_text(self.world.place, vms=self.vms(without), usbPassthrough=groups)

    def begin(self):
        return self.world.begin()

    def start(self):
        world = self.world
        if not world.vms:
            world.devices.plug("q1", "c1")
            for name in ("q1", "c1"):
                world.start_vm(name)
        ends, end = 0, time.monotonic() + PATIENCE
        while not self.begins():
            # All users' inotify instances together have a limit, which others than this test may have come to.
            shared = self.world.daemon.matching("^error vhotplug cannot start: Too many open files$")
            ends += not shared
            assert ends <= 1 and time.monotonic() < end, "\n".join(self.world.daemon.log())
            time.sleep(1 if shared else 0)
        self.settle()

    def begins(self):
        """Whether it comes to be ready. Else it said why and ended in good order; its unit starts it again."""
        daemon = self.begin()
        try:
            daemon.wait_ready()
        except AssertionError:
            assert daemon.wait_end() == 1 and daemon.matching("^error "), "\n".join(daemon.log())
            daemon.close()
            return False
        return True

    def settle(self):
        self.world.settle()

    def plug(self):
        self.world.devices.plug("q1", "q2")
        self.settle()

    def restart(self):
        self.world.restart("q1")
        self.world.restart("c1")
        self.world.start_vm("q2")
        self.settle()

    def unplug(self):
        devices = self.world.devices
        devices.pull("q2", "c1")
        self.settle()
        devices.plug("c1")
        self.settle()

    def reload(self):
        world, daemon = self.world, self.world.daemon
        world.config.write_text(self.config(without="q3"))
        for _ in range(2):
            daemon.signal(signal.SIGHUP)
            daemon.wait_notice("READY=1")
            if "q3" not in {vm["name"] for vm in self.request("vm_list")["vms"]}:
                break
        self.reload_devices()
        self.settle()

    def reload_devices(self):
        self.world.devices.plug("q2")

    def request(self, action, **members):
        """Whom the daemon hangs up on asks again, and who reads in its log that it does not listen has it reload."""
        daemon, end = self.world.daemon, time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if (answer := self.world.ask(action, **members)) is not None:
                    return answer
            if daemon.matching("^error API: .* is not served: "):
                daemon.signal(signal.SIGHUP)
                daemon.wait_notice("READY=1")
            time.sleep(0.1)
        raise AssertionError(f"{action} is not answered:\n" + "\n".join(self.world.daemon.log()))

    def ask(self):
        self.request("usb_list")
        self.request("usb_detach", device="1-2")
        self.request("usb_attach", device="1-2", vm="q1")
        self.request("usb_detach", device="1-1")  # stays so, over the end of the daemon
        self.world.devices.detached = {"usb:1-1"}
        self.settle()

    def stop(self):
        daemon = self.world.daemon
        self.kinds = self.kinds or self.rest()
        assert daemon.stop() == 0, "\n".join(daemon.log())

    def left_out(self, name):
        """What the daemon goes on without: the descriptor that the API gives up when there are no more, the names of
        devices, and news of routes, which it says."""
        routes = name == "socket" and self.world.daemon.matching("Cannot watch the host's routes")
        return name == "/dev/null" or name.endswith("/hwdb.bin") or routes

    def rest(self):
        """What is open when all is at rest."""
        seen, wanted = [], self.wanted

        def same():
            time.sleep(0.05)
            # A host of files may have its root elsewhere.
            names = [re.sub(r"^.*/proc/root(?=/)", "", name) for name in open_files(self.world.daemon.process).values()]
            seen.append(collections.Counter(re.sub(r"^/proc/[0-9]+|(?<=^socket):.*|(?<=^pipe):.*", "", name)
                                            for name in names if not name.endswith("/sites")))
            if wanted:
                return not seen[-1] - wanted and all(self.left_out(name) for name in (wanted - seen[-1]).elements())
            return len(seen) > 10 and all(one == seen[-1] for one in seen[-10:])
        try:
            until(same, self.world.daemon, "what is open comes back")
        except AssertionError:
            raise AssertionError(f"open: {seen[-1]}; without a fault: {wanted}\n" +
                                 "\n".join(self.world.daemon.log()[-60:])) from None
        return seen[-1]

    def run(self):
        for number, phase in enumerate(self.phases(), 1):
            self.world.control.phase(number)
            phase()

    def close(self):
        self.world.close()


class Host(Scenario):
    """The program itself, with the host's own devices, none of which goes anywhere."""

    def config(self, without=None):
        groups = [{"targetVm": "q1", "allow": [{"serial": "none such"}]}]
        return worlds.config_text(self.world.place, vms=self.vms(without), usbPassthrough=groups, evdevPassthrough={})

    def begin(self):
        world = self.world
        environment = {**world.devices.environment(world.place, **world.environment)}
        world.daemon = worlds.Watched(world.build / "src/vhotplug", world.place, "-c", world.config, environment=environment)
        return world.daemon

    def settle(self):
        """Who runs answers."""
        world = self.world

        def answering():
            found = self.request("vm_list")["vms"]
            return {vm["name"] for vm in found if vm["state"] == "up"} == set(world.vms)
        until(answering, world.daemon, "the VMs answer")

    def ask(self):
        self.request("usb_list", all=True)
        self.request("pci_list", all=True)


class Devices(Scenario):
    """The program itself with all of the host's own wing, on a host of files with devices of each kind.

    The network adapter 1-3 and the disk 4-1 are of rules too, and no VM may ever have them, as the host lives on them.
    """

    def __init__(self, build, plain, place, **environment):
        self.host, self.detached = hosts.Host(), set()
        try:
            super().__init__(build, plain, place, **environment)
            self.world.devices.of = self.of
            self.add_devices()
            place.chmod(0o755)
            (place / "vms").mkdir()
            os.chown(place / "vms", VM_USER, VM_USER)
        except BaseException:
            self.host.close()
            raise

    def phases(self):
        return [self.start, self.plug, self.replug, self.restart, self.unplug, self.reload, self.ask, self.stop, self.start,
                self.stop]

    def add_devices(self):
        host = self.host
        host.plug_usb("1-1", "q1")
        host.plug_usb("1-3")
        host.add_network("1-3")
        host.plug_usb("4-1")
        host.add_disk("4-1")
        host.plug_usb("2-1", "q2")
        host.plug_input("q1")
        host.add_drivers()
        for address in hosts.FUNCTIONS:
            host.plug_function(address, "q2")

    def config(self, without=None):
        vms = [name for name in ("q1", "q2", "q3", "q4") if name != without]
        place = self.world.place / "vms"
        return worlds.config_text(
            self.world.place, vms=[{"name": name, "type": "qemu", "socket": str(place / name)} for name in vms],
            usbPassthrough=[{"targetVm": name, "allow": [{"vendorId": f"000{name[1]}"}]} for name in vms],
            pciPassthrough=[{"targetVm": "q2", "allow": [{"vendorId": "8086"}]}], usbAuthorization={"enable": True})

    def begin(self):
        world = self.world
        libraries = ":".join(str(world.plain / f"tests/soak/lib{name}.so") for name in ("fail", "kernel"))
        environment = world.devices.environment(world.place, **{**world.environment, "LD_PRELOAD": libraries,
                                                                "SYSTEMD_DEVICE_VERIFY_SYSFS": "0"})
        program, *arguments = self.host.command(world.build / "src/vhotplug", environment)
        world.daemon = worlds.Watched(program, world.place, *arguments, "-a", "-c", world.config,
                                      environment={"PATH": os.environ["PATH"]})
        return world.daemon

    def start_vm(self, name):
        world = self.world
        world.vms[name] = worlds.Qemu(world.plain / "tests/soak/soak-vm", world.place / "vms", name, str(VM_USER))

    def start(self):
        if not self.world.vms:
            for name in ("q1", "q2", "q4"):
                self.start_vm(name)
        super().start()

    # ---- what must hold

    def held(self):
        """The devices that VMs should have."""
        return {key: vm for key, vm in self.host.vms.items() if vm in self.world.vms and key not in self.detached}

    def of(self, vm):
        return sorted(self.host.instance(key) for key, owner in self.held().items() if owner == vm)

    def settle(self):
        self.world.settle()
        wrong = {}

        def right():
            wrong.clear()
            wrong.update({what: pair for what, pair in self.state().items() if pair[0] != pair[1]})
            return not wrong
        try:
            until(right, self.world.daemon, "the host is as it should be")
        except AssertionError as error:
            raise AssertionError(f"found and wanted: {wrong}\n{error}") from None

    def state(self):
        """What sysfs and the nodes say, with what they should."""
        host, held, state = self.host, self.held(), {}
        for key, vm in host.vms.items():
            kind, name = key.split(":", 1)
            if kind == "usb":
                directory = host.directory_of(name)
                here = "1" if key in held or vm is None else "0"
                state[key] = host.read(f"{directory}/authorized"), here
                state[f"interface of {key}"] = host.read(f"{directory}/{name}:1.0/authorized"), "1" if here == "1" else None
            if kind == "pci":
                usual = hosts.FUNCTIONS[name][0]
                taken = any(other.startswith("pci:") for other in held)
                state[key] = host.read(f"bus/pci/devices/{name}/driver"), "vfio-pci" if taken else usual
        for node, kind in (("input/event5", "input:"), (f"vfio/{hosts.GROUP}", "pci:")):
            state[node] = host.users(node), [VM_USER] if any(key.startswith(kind) for key in held) else []
        return state

    # ---- phases

    def plug(self):
        self.host.plug_usb("1-2", "q1")
        self.host.plug_usb("2-2", "q2")
        self.settle()

    def replug(self):
        host = self.host
        host.pull_usb("1-1")
        host.plug_usb("1-1", "q1")
        host.pull_input()
        host.plug_input("q1")
        self.settle()

    def restart(self):
        self.world.vms["q1"].kill()
        self.start_vm("q1")
        self.settle()

    def unplug(self):
        host = self.host
        host.pull_usb("2-1")
        host.pull_function("0000:02:00.1")
        self.settle()
        host.plug_usb("2-1", "q2")
        host.plug_function("0000:02:00.1", "q2")
        self.settle()

    def reload_devices(self):
        self.host.pull_usb("2-2")
        self.host.plug_usb("2-2", "q2")

    def ask(self):
        self.request("usb_detach", device="1-2")
        self.request("usb_attach", device="1-2", vm="q1")
        self.request("usb_detach", device="1-1")  # stays so, over the end of the daemon, as these do
        self.request("usb_detach", device_node="/dev/input/event5")
        for address in hosts.FUNCTIONS:
            self.request("pci_detach", address=address)
        self.detached = {"usb:1-1", "input:input5", *(f"pci:{address}" for address in hosts.FUNCTIONS)}
        self.settle()

    def stop(self):
        if "usb:4-1" in self.host.vms:  # it is tried again and again, so that nothing comes to rest
            self.host.pull_disk("4-1")
        super().stop()

    def close(self):
        super().close()
        self.host.close()
