# Guest VMs in the lab host.
import re

import image
from lab import LIMIT, wait_for

PLACE = "/tmp/vms"
INITRD = f"{PLACE}/guest.cpio"  # of guests with a kernel
QUERY = '{"execute": "qom-list", "arguments": {"path": "/machine/peripheral"}}'
CONTROLLER = ["-device", "qemu-xhci,id=xhci"]


def monitor_command(line):
    return '{"execute": "human-monitor-command", "arguments": {"command-line": "%s"}}' % line


class Guest:
    """A QEMU VM. kernel=False: no OS and never running, which still really claims devices and starts fast.
    kernel=True: a real kernel that says on its console what it sees."""
    type = "qemu"

    def __init__(self, lab, name, qemu="installed", kernel=False, controller=CONTROLLER, nobody=False, folder=PLACE,
                 machine="q35"):
        self.lab, self.name, self.qemu, self.kernel = lab, name, qemu, kernel
        self.controller, self.nobody, self.machine = controller, nobody, machine
        self.socket, self.pidfile = f"{folder}/{name}.qmp", f"{PLACE}/{name}.pid"
        self.console_file = f"{PLACE}/{name}.console"

    def program(self):
        return "qemu-system-x86_64" if self.qemu == "installed" else self.qemu

    def command(self):
        words = [self.program(), "-M", self.machine, "-nic", "none", "-display", "none", "-nodefaults"]
        if self.kernel:
            _, path = image.kernel()
            words += ["-accel", "kvm", "-cpu", "host", "-m", "256", "-kernel", path, "-initrd",
                      INITRD, "-append", "'console=ttyS0 quiet panic=-1'",
                      "-serial", f"file:{self.console_file}"]
        else:
            words += ["-accel", "tcg", "-m", "64", "-S"]
        words += self.controller
        words += ["-qmp", f"unix:{self.socket},server=on,wait=off", "-pidfile", self.pidfile, "-daemonize"]
        prefix = ""
        if self.nobody and self.qemu == "installed":
            prefix = "setpriv --reuid=65534 --regid=65534 --clear-groups "
        elif self.nobody:
            prefix = "QEMU_USER=65534 "
        return prefix + " ".join(words)

    def start(self, wait=False):
        """Starts it; WAIT: also until the guest's kernel is up."""
        # Nobody may not read what lies below root's home.
        initrd = f"[ -e {INITRD} ] || install -m 644 {self.lab.folder}/guest.cpio {INITRD}; " if self.kernel else ""
        self.lab.run(f"mkdir -p -m 1777 {PLACE} $(dirname {self.socket}); rm -f {self.console_file}; {initrd}{self.command()}", 600)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        wait_for(f"{self.name}'s kernel to boot", lambda: "GUEST READY" in self.console(), 900, 1, self.console)

    def pid(self):
        return self.lab.text(f"cat {self.pidfile} 2>/dev/null || true").strip()

    def running(self):
        return self.lab.good(f"kill -0 $(cat {self.pidfile} 2>/dev/null) 2>/dev/null")

    def kill(self, signal="KILL"):
        pid = self.pid()
        if pid:
            self.lab.run(f"kill -{signal} {pid} 2>/dev/null; kill -CONT {pid} 2>/dev/null; true")
            wait_for(f"{self.name}'s QEMU to end", lambda: not self.lab.good(f"kill -0 {pid} 2>/dev/null"))
        self.lab.run(f"rm -f {self.pidfile}")

    def restart(self, wait=False):
        self.kill()
        return self.start(wait)

    def signal(self, name):
        self.lab.run(f"kill -{name} {self.pid()}")

    def qmp(self, *commands):
        """Replies of the VM, one for each command; the daemon may be served in between."""
        quoted = " ".join("'%s'" % command.replace("'", "'\\''") for command in commands)
        return self.lab.run(f"{self.lab.folder}/qmp {self.socket} {quoted} 2>{PLACE}/qmp.errors || "
                            f"{{ cat {PLACE}/qmp.errors; false; }}").text.splitlines()

    def devices(self):
        """Object names of the usb-host devices, from the VM's own list."""
        return sorted(re.findall(r'"name": "([^"]*)", "type": "child<usb-host>"', self.names()))

    def objects(self, type, property):
        """{object: the last word of its property} of all devices of that type."""
        objects = re.findall(r'"name": "([^"]*)", "type": "child<%s>"' % type, self.names())
        query = '{"execute": "qom-get", "arguments": {"path": "/machine/peripheral/%s", "property": "%s"}}'
        values = self.qmp(*[query % (object, property) for object in objects]) if objects else []
        return {object: re.search(r'["/]([^/"]*)"}', value)[1] if "return" in value else "" for object, value in zip(objects, values)}

    def inputs(self):
        """{object: bus} of the host's input devices, as the VM says: {"vhotplug-input-…": "ep1"}."""
        return self.objects("virtio-input-host-pci", "parent_bus")

    def functions(self):
        """{object: address on the host} of the PCI functions, as the VM says."""
        return self.objects("vfio-pci", "host")

    def wait_functions(self, *addresses):
        """Until it has just these PCI functions of the host, each once."""
        return wait_for(f"{self.name} to have the PCI functions {addresses}",
                        lambda: sorted((found := self.functions()).values()) == sorted(addresses) and (found or True),
                        show=lambda: f"it has {self.functions()}\n{self.console()[-2000:]}")

    def wait_inputs(self, buses, why=""):
        """Until its input devices are on just these buses."""
        return wait_for(f"{self.name} to have input devices on {buses} {why}",
                        lambda: sorted((found := self.inputs()).values()) == sorted(buses) and (found or True),
                        show=lambda: f"it has {self.inputs()}\n{self.console()[-2000:]}")

    def names(self):
        text = self.qmp(QUERY)[0]
        # the order of the members is QEMU's own affair
        return re.sub(r'"type": "([^"]*)", "name": "([^"]*)"', r'"name": "\2", "type": "\1"', text)

    def usb(self):
        """`info usb`: speeds and products."""
        return self.qmp(monitor_command("info usb"))[0].replace("\\r\\n", "\n")

    def by_place(self):
        """The daemon's objects by the host port they were made for; a device that is not there any more is "gone BUS:ADDRESS"."""
        shown = self.lab.text("cd /sys/bus/usb/devices; for d in *-*; do case $d in *:*) ;; *) "
                              "echo $d $(cat $d/busnum $d/devnum 2>/dev/null);; esac; done")
        ports = {tuple(line.split()[1:]): line.split()[0] for line in shown.splitlines()}
        found = {}
        for name in self.devices():
            known = re.match(r"vhotplug-usb-(\d+)-(\d+)-", name)
            if known:
                found.setdefault(ports.get(known.groups(), f"gone {known.group(1)}:{known.group(2)}"), []).append(name)
        return found

    def places(self):
        """["1-3", "1-6.1"]: the host ports of the daemon's objects, one for each object."""
        return sorted(place for place, names in self.by_place().items() for _ in names)

    def at(self, place):
        """The objects made for the device of that host port."""
        return self.by_place().get(place, [])

    def wait_count(self, count, why="", limit=LIMIT):
        wait_for(f"{self.name} to list {count} USB host devices {why}", lambda: len(self.devices()) == count, limit,
                 show=lambda: f"it lists {self.devices()}\n{self.usb()}")
        return self.devices()

    def console(self):
        return self.lab.run(f"cat {self.console_file} 2>/dev/null", check=False).raw.decode(errors="replace")

    def wait_console(self, pattern, since=0, limit=2 * LIMIT):
        """Until the guest's kernel says it, in what came after SINCE characters."""
        return wait_for(f"{self.name}'s kernel to say {pattern!r}",
                        lambda: re.search(pattern, self.console()[since:], re.M), limit, show=lambda: self.console()[-3000:])
