# The lab host: a VM with this machine's root file system, a stock kernel, udevd and a USB controller
# into which devices are really plugged.
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import image
from image import LabError

# Seconds for anything that should take a moment: the machine may be very busy.
LIMIT = int(os.environ.get("VHOTPLUG_LAB_LIMIT", "300"))

# For PCI functions behind the emulated IOMMU: ports for one network card each, which has an IOMMU group of its own, and
# two cards behind one bridge, which no hardware keeps apart.
CARD_PORTS = ["port1", "port2", "port3"]
SLOTS = [word for number, port in enumerate(CARD_PORTS, 1)
         for word in ("-device", f"pcie-root-port,id={port},chassis={number},slot={number}")] + [
    "-device", "pcie-root-port,id=port4,chassis=4,slot=4", "-device", "pcie-pci-bridge,id=bridge,bus=port4",
    "-device", "e1000,bus=bridge,addr=1", "-device", "e1000,bus=bridge,addr=2"]


USB_DEVICES = "/sys/bus/usb/devices"
USBCORE = "/sys/module/usbcore/parameters/authorized_default"


class Result:
    def __init__(self, status, raw):
        self.status, self.raw = status, raw

    @property
    def text(self):
        return self.raw.decode(errors="backslashreplace")

    def __repr__(self):
        return f"status {self.status}\n{self.text}"


def wait_for(what, check, limit=LIMIT, pause=0.3, show=None):
    """Polls CHECK until it is true and returns its value; says WHAT it waited for, and SHOW(), when the time is up."""
    end = time.monotonic() + limit
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit} s for: {what}" + (f"\n{show()}" if show else ""))
        time.sleep(pause)


def with_parent():
    """A child does not outlive us: PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Qmp:
    """The lab host's own monitor, with which devices are plugged and pulled."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.socket.connect(path)
        self.file = self.socket.makefile("rwb")
        self.line()
        self.command("qmp_capabilities")

    def line(self):
        line = self.file.readline()
        if not line:
            raise LabError("the lab host's monitor has closed")
        return json.loads(line)

    def command(self, execute, **arguments):
        self.file.write(json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n")
        self.file.flush()
        while True:
            reply = self.line()
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise LabError(f"{execute} {arguments}: {reply['error']['desc']}")


class Lab:
    def __init__(self, build, progress=lambda text: None, memory=4096):
        self.build = pathlib.Path(build).resolve()
        self.folder = image.prepare(self.build)
        self.progress, self.memory = progress, memory
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="vhotplug-lab-", dir="/tmp"))
        self.process = self.agent = self.monitor = None
        self.serial, self.buffer, self.broken = 0, b"", False
        self.plugged, self.disks = {}, 0

    # --- life

    def arguments(self):
        _, kernel = image.kernel()
        return [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", str(self.memory),
            "-M", "q35,kernel-irqchip=off", "-device", "intel-iommu,intremap=off,caching-mode=on",
            "-cpu", "max,+svm,+npt", "-display", "none", "-no-reboot", "-nodefaults", "-kernel", kernel,
            "-initrd", str(self.folder / "host.cpio"),
            "-append", f"console=ttyS0 quiet panic=-1 intel_iommu=on iommu=pt lab.build={self.build}",
            "-serial", f"file:{self.work}/console",
            "-virtfs", "local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap",
            "-virtfs", f"local,path={self.build},mount_tag=build,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={self.work}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=agent",
            "-qmp", f"unix:{self.work}/qmp,server=on,wait=off",
            "-device", "qemu-xhci,id=xhci,p2=8,p3=4", *SLOTS,
        ]

    def boot(self):
        self.progress("the lab host's kernel boots")
        errors = open(self.work / "errors", "wb")
        self.process = subprocess.Popen(self.arguments(), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                                        preexec_fn=with_parent)
        errors.close()
        self.agent = socket.socket(socket.AF_UNIX)
        wait_for("the lab host's QEMU to listen", lambda: self.try_connect("agent"), show=self.diagnose)
        self.monitor = Qmp(f"{self.work}/qmp")
        self.receive(0, 900)
        self.progress("its agent answers, udevd starts")
        self.run("mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts 2>&1 || { mkdir -p /dev/pts; mount -t devpts devpts /dev/pts; };"
                 "mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm; ip link set lo up;"
                 "mount -t debugfs none /sys/kernel/debug 2>/dev/null; modprobe kvm_amd; true")
        self.start_udevd()
        self.run("test -c /dev/kvm || echo no /dev/kvm >&2; mkdir -p -m 1777 /tmp/vms")
        self.progress("the lab host is up")
        return self

    def try_connect(self, name):
        if self.process.poll() is not None:
            raise LabError(f"the lab host's QEMU ended: {self.errors()}")
        try:
            self.agent.connect(f"{self.work}/{name}")
        except OSError:
            return False
        return True

    def start_udevd(self):
        self.run("pidof systemd-udevd > /dev/null || /lib/systemd/systemd-udevd --daemon; "
                 "udevadm trigger --action=add && udevadm settle --timeout=240", 300)

    def close(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        for end in self.agent, self.monitor and self.monitor.socket:
            if end:
                end.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def alive(self):
        if self.broken or not self.process or self.process.poll() is not None:
            return False
        try:
            return self.run("echo here", 120).text == "here\n"
        except (LabError, OSError, AssertionError):
            return False

    # --- commands inside

    def receive_bytes(self, count, end):
        while len(self.buffer) < count:
            if self.process.poll() is not None:
                raise LabError(f"the lab host has died: {self.diagnose()}")
            self.agent.settimeout(5)
            try:
                got = self.agent.recv(1 << 16)
            except socket.timeout:
                got = None
            if got == b"" or (got is None and time.monotonic() > end):
                self.broken = True
                raise LabError(f"the lab host's agent does not answer: {self.diagnose()}")
            self.buffer += got or b""
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive(self, wanted, limit):
        """The answer with that number; older ones are left overs of commands that were given up."""
        end = time.monotonic() + limit
        while True:
            line = b""
            while not line.endswith(b"\n"):
                line += self.receive_bytes(1, end)
            number, status, length = (int(word) for word in line.split())
            result = Result(status, self.receive_bytes(length, end))
            if number == wanted:
                return result

    def run(self, script, limit=LIMIT, check=True):
        """Runs a bash script as root in the lab host; its background processes live on."""
        self.serial += 1
        raw = script.encode()
        self.agent.settimeout(120)
        try:
            self.agent.sendall(b"%d %d %d\n" % (self.serial, limit, len(raw)) + raw)
        except OSError as error:
            self.broken = True
            raise LabError(f"the lab host's agent takes no command ({error}): {self.diagnose()}") from error
        result = self.receive(self.serial, limit + 240)
        if check and result.status != 0:
            raise LabError(f"in the lab host: {script}\n{result!r}")
        return result

    def text(self, script, limit=LIMIT):
        return self.run(script, limit).text

    def good(self, script, limit=LIMIT):
        return self.run(script, limit, check=False).status == 0

    def write(self, path, text):
        self.run(f"mkdir -p $(dirname {path}) && cat > {path} <<'END OF FILE'\n{text}\nEND OF FILE")

    # --- devices

    def plug(self, id, driver, port, wait=True, **properties):
        """Plugs a device; usb-storage gets a disk of 16 MiB of its own unless FILE names one."""
        if driver == "usb-storage":
            file = pathlib.Path(properties.pop("file", self.work / f"{id}.img"))
            if not file.exists():
                with open(file, "wb") as disk:
                    disk.truncate(16 << 20)
            self.disks += 1
            properties["drive"] = f"disk{self.disks}"
            self.monitor.command("blockdev-add", driver="file", **{"node-name": properties["drive"], "filename": str(file)})
        self.plugged[id] = driver
        self.monitor.command("device_add", driver=driver, bus="xhci.0", id=id, port=str(port), **properties)
        if wait:
            self.wait_usb(self.place(driver, port))

    @staticmethod
    def place(driver, port):
        """The kernel's name of the port: fast ones are on the second bus."""
        return f"{2 if driver == 'usb-storage' else 1}-{port}"

    def reset_controller(self, meanwhile="true"):
        """Takes the driver off the USB controller and gives it back: all devices leave and come again."""
        self.run(f"""
        for address in $(cd /sys/bus/pci/drivers/xhci_hcd && ls -d 0000:*); do
            echo $address > /sys/bus/pci/drivers/xhci_hcd/unbind
            {meanwhile}
            echo $address > /sys/bus/pci/drivers/xhci_hcd/bind
        done""")

    def usb_switches(self):
        """What becomes of new USB devices, on each bus and on buses that are yet to come."""
        return self.text(f"cat {USB_DEVICES}/usb*/authorized_default {USBCORE}").split()

    def objects(self):
        return {item["name"] for item in self.monitor.command("qom-list", path="/machine/peripheral")}

    def unplug(self, id):
        driver = self.plugged.pop(id, None)
        if id in self.objects():
            self.monitor.command("device_del", id=id)
            wait_for(f"{id} to leave the lab host's controller", lambda: id not in self.objects())

    def unplug_all(self):
        for id in sorted(self.plugged, key=lambda id: self.plugged[id] == "usb-hub"):
            self.unplug(id)

    def wait_usb(self, name, present=True):
        """Until udevd has (or has no more) the device of that port, such as 1-3."""
        path = f"/sys/bus/usb/devices/{name}"
        test = f"[ -e {path}/descriptors ] && [ -e /run/udev/data/c$(cat {path}/dev) ]" if present else f"! [ -e {path} ]"
        wait_for(f"{name} to be {'there' if present else 'gone'} on the lab host", lambda: self.good(test),
                 show=lambda: self.run("ls /sys/bus/usb/devices; dmesg | tail -20", check=False).text)

    def wait_driver(self, name, present=True):
        """Until the host's own driver has (or has no more) the first interface."""
        test = f"[ -e /sys/bus/usb/devices/{name}/{name}:1.0/driver ] && " \
               f"[ $(basename $(readlink /sys/bus/usb/devices/{name}/{name}:1.0/driver)) != usbfs ]"
        wait_for(f"the host's driver {'on' if present else 'off'} {name}", lambda: self.good(test) == present)

    # --- what went wrong

    def console(self, size=3000):
        try:
            return (self.work / "console").read_bytes()[-size:].decode(errors="backslashreplace")
        except OSError:
            return ""

    def errors(self):
        try:
            return (self.work / "errors").read_text(errors="backslashreplace")[-2000:]
        except OSError:
            return ""

    def diagnose(self):
        state = self.process.poll() if self.process else "not started"
        return f"QEMU's status {state}\n{self.errors()}\n--- console\n{self.console()}"
