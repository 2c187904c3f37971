"""A host of files: namespaces in which /sys, /dev and /run are empty file systems in memory, with devices of our own.

What the daemon writes there has its effect by kernel.c. The daemon hears of devices by netlink, as udevd tells them.
"""
import contextlib
import ctypes
import importlib.util
import os
import pathlib
import re
import shutil
import socket
import stat
import struct
import subprocess

PREPARE = """set -e
exec 3</dev/shm
for place in /sys /run /dev; do mount -t tmpfs -o mode=755 none $place; done
mkdir /dev/shm
mount --no-canonicalize --bind /proc/self/fd/3 /dev/shm
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/urandom c 1 9
mkdir -p /run/udev/data
: >/run/udev/control
ip link set lo up
ip route add default dev lo
echo ready
exec cat
"""
# As the benchmarks have it: a mount namespace that can be had in a chroot too.
_bench = importlib.util.spec_from_file_location("bench_world", pathlib.Path(__file__).parents[2] / "bench/world.py")
_world = importlib.util.module_from_spec(_bench)
_bench.loader.exec_module(_world)
UNSHARE = [*_world.UNSHARE, PREPARE]
UDEVD_LISTENERS = 2  # their multicast group
# MurmurHash2 of the names, by which listeners let the kernel drop what they do not ask for.
HASHES = {"usb": 0x0577c5e5, "usb_device": 0x27f8f50c, "input": 0xc1a28470, "pci": 0x59163b92, None: 0}
ROOT_PORT = "devices/pci0000:00/0000:00:14.0"
GROUP = 12
FUNCTIONS = {"0000:02:00.0": ("e1000e", "0x10d3", "0x020000"), "0000:02:00.1": ("snd_hda_intel", "0xa348", "0x040300")}
INPUT = "devices/platform/i8042/serio1/input/input5"
EVENT_NUMBER = os.makedev(13, 69)
# A mouse, and a hub, as the kernel gives their descriptors; the ids are put in.
MOUSE = (b"\x12\x01\x00\x02\x00\x00\x00\x40%s\x00\x00\x01\x02\x03\x01\x09\x02\x22\x00\x01\x01\x04\xa0\x32"
         b"\x09\x04\x00\x00\x01\x03\x01\x02\x00\x09\x21\x01\x00\x00\x01\x22\x34\x00\x07\x05\x81\x03\x04\x00\x07")
HUB = (b"\x12\x01\x00\x02\x09\x00\x01\x40%s\x00\x00\x01\x02\x03\x01\x09\x02\x19\x00\x01\x01\x00\xe0\x00"
       b"\x09\x04\x00\x00\x01\x09\x00\x00\x00\x07\x05\x81\x03\x04\x00\x0c")


def why_not():
    """Why there can be no such host here, or None."""
    if not shutil.which("ip"):
        return "iproute2 is not installed"
    run = subprocess.run(UNSHARE, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return None if run.returncode == 0 else f"root and namespaces of its own are needed: {run.stderr.strip()}"


def mix(number):
    number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9 & 0xffffffffffffffff
    number = (number ^ number >> 27) * 0x94d049bb133111eb & 0xffffffffffffffff
    return number ^ number >> 31


class Host:
    def __init__(self):
        self.process = subprocess.Popen(UNSHARE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        self.root = pathlib.Path(f"/proc/{self.process.pid}/root")
        self.socket, self.sequence, self.addresses = self._socket(), 0, 0
        self.vms, self.numbers = {}, {}  # of each device: the VM that it is for; its number, of which the instance is made
        self._make_buses()

    def _socket(self):
        """For udevd's messages, in the network namespace of the host. A thread's namespace is its own."""
        library = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net", "rb") as own, open(f"/proc/{self.process.pid}/ns/net", "rb") as other:
            assert library.setns(other.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
            try:
                made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)  # NETLINK_KOBJECT_UEVENT
            finally:
                assert library.setns(own.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        made.bind((0, 0))
        return made

    def command(self, program, environment):
        """What runs a program on this host. Only the program itself gets the environment."""
        return ["nsenter", "--target", str(self.process.pid), "--mount", "--net", "--root", "env",
                *(f"{name}={value}" for name, value in environment.items()), str(program)]

    def close(self):
        self.socket.close()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    # ---- files

    def write(self, path, content):
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())

    def link(self, path, target):
        """A link as sysfs has them: up to its root and down again."""
        place = self.root / "sys" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to("../" * path.count("/") + target)

    def read(self, path):
        """The attribute, or what the link leads to; None if it is not there."""
        place = self.root / "sys" / path
        with contextlib.suppress(OSError):
            return os.path.basename(os.readlink(place)) if place.is_symlink() else place.read_text().rstrip("\n")
        return None

    def make(self, directory, **attributes):
        for name, value in attributes.items():
            self.write(f"sys/{directory}/{name}", value if isinstance(value, bytes) else f"{value}\n")

    # ---- news

    def tell(self, action, path, subsystem, kind=None, **properties):
        self.sequence += 1
        pairs = {"ACTION": action, "DEVPATH": f"/{path}", "SUBSYSTEM": subsystem, **({"DEVTYPE": kind} if kind else {}),
                 "SEQNUM": self.sequence, "USEC_INITIALIZED": 1, **properties}
        text = b"".join(f"{name}={value}\0".encode() for name, value in pairs.items())
        header = b"libudev\0" + struct.pack("!I", 0xfeedcafe) + struct.pack("=3I", 40, 40, len(text)) + struct.pack(
            "!4I", HASHES[subsystem], HASHES[kind], 0, 0)
        with contextlib.suppress(ConnectionRefusedError):  # nobody listens
            self.socket.sendto(header + text, (0, UDEVD_LISTENERS))

    # ---- USB

    def _make_buses(self):
        self.make("module/usbcore/parameters", authorized_default="-1")
        self.make("bus/usb", drivers_probe="")
        self.make("bus/usb/drivers/usbhid", bind="")
        for bus in (1, 2, 4):
            self._make_usb(f"{ROOT_PORT}/usb{bus}", bus, 1, 0x1d6b, HUB, authorized=1, authorized_default=1,
                           interface_authorized_default=1)

    def _make_usb(self, directory, bus, address, vendor, descriptors, **more):
        name = os.path.basename(directory)
        descriptors = descriptors % struct.pack("=HH", vendor, 1)
        self.make(directory, busnum=bus, devnum=address, idVendor=f"{vendor:04x}", idProduct="0001", dev="0:0",
                  bDeviceClass=f"{descriptors[4]:02x}", bDeviceSubClass="00", bDeviceProtocol="00", speed="480",
                  removable="removable", serial=name, product="Thing", descriptors=descriptors,
                  uevent=f"DEVTYPE=usb_device\nBUSNUM={bus:03}\nDEVNUM={address:03}", **more)
        self.write(f"run/udev/data/+usb:{name}", "I:1\n")
        self.write(f"dev/bus/usb/{bus:03}/{address:03}", descriptors)  # a plain file, whose device number is none: 0:0
        self.link(f"{directory}/subsystem", "bus/usb")
        self.link(f"bus/usb/devices/{name}", directory)

    def directory_of(self, name):
        return f"{ROOT_PORT}/usb{name[0]}/{name}"

    def plug_usb(self, name, vm=None):
        """At a new address. The kernel authorizes it as the switch of its bus says."""
        bus, directory = int(name[0]), self.directory_of(name)
        self.addresses += 1
        address = 1 + self.addresses
        authorized = self.read(f"{ROOT_PORT}/usb{bus}/authorized_default")
        self._make_usb(directory, bus, address, bus, MOUSE, authorized=authorized)
        if authorized == "1":
            self.make(f"{directory}/{name}:1.0", authorized=1)
        self.vms[f"usb:{name}"], self.numbers[f"usb:{name}"] = vm, bus << 32 | address
        self._tell_usb("add", name)

    def _tell_usb(self, action, name):
        bus, address = int(name[0]), self.numbers[f"usb:{name}"] & 0xffff
        self.tell(action, self.directory_of(name), "usb", "usb_device", DEVNAME=f"/dev/bus/usb/{bus:03}/{address:03}",
                  BUSNUM=f"{bus:03}", DEVNUM=f"{address:03}")

    def pull_usb(self, name):
        bus, address = int(name[0]), self.numbers[f"usb:{name}"] & 0xffff
        for path in (f"sys/bus/usb/devices/{name}", f"run/udev/data/+usb:{name}", f"dev/bus/usb/{bus:03}/{address:03}"):
            (self.root / path).unlink()
        self._remove(self.directory_of(name))
        self._tell_usb("remove", name)
        del self.vms[f"usb:{name}"], self.numbers[f"usb:{name}"]

    def _remove(self, directory):
        # The daemon may make an interface in it meanwhile; that one goes then as well.
        place = self.root / "sys" / directory
        while place.exists():
            shutil.rmtree(place, ignore_errors=True)

    def add_disk(self, name):
        """A disk on that device, which something not seen from here has in use."""
        block = f"{self.directory_of(name)}/{name}:1.0/host0/block/sda"
        self.make(block, dev="8:0")
        (self.root / "sys" / block / "holders").mkdir()
        self.link("class/block/sda", block)

    def pull_disk(self, name):
        (self.root / "sys/class/block/sda").unlink()
        self.pull_usb(name)

    def add_network(self, name):
        """The interface of the only default route is on that device."""
        card = f"{self.directory_of(name)}/{name}:1.0/net/lo"
        self.make(card, type="1", operstate="up")
        self.link("class/net/lo", card)

    # ---- input devices

    def plug_input(self, vm):
        self.make(INPUT, name="Mouse")
        self.make(f"{INPUT}/id", vendor="0002", product="0001")
        self.make(f"{INPUT}/event5", dev="13:69", uevent="MAJOR=13\nMINOR=69\nDEVNAME=input/event5")
        self.link(f"{INPUT}/event5/subsystem", "class/input")
        self.link("class/input/event5", f"{INPUT}/event5")
        self.write("run/udev/data/c13:69", "I:1\nE:ID_INPUT=1\nE:ID_INPUT_MOUSE=1\n")
        node = self.root / "dev/input/event5"
        node.parent.mkdir(exist_ok=True)
        os.mknod(node, stat.S_IFCHR | 0o600, EVENT_NUMBER)
        self.vms["input:input5"], self.numbers["input:input5"] = vm, 5
        self._tell_input("add")

    def _tell_input(self, action):
        self.tell(action, f"{INPUT}/event5", "input", DEVNAME="/dev/input/event5", MAJOR=13, MINOR=69, ID_INPUT=1,
                  ID_INPUT_MOUSE=1)

    def pull_input(self):
        for path in ("sys/class/input/event5", "run/udev/data/c13:69", "dev/input/event5"):
            (self.root / path).unlink()
        self._remove(INPUT)
        self._tell_input("remove")
        del self.vms["input:input5"], self.numbers["input:input5"]

    # ---- PCI functions, all of one IOMMU group

    def add_drivers(self):
        self.make("bus/pci", drivers_probe="")
        for driver in ("vfio-pci", *(driver for driver, *_ in FUNCTIONS.values())):
            self.make(f"bus/pci/drivers/{driver}", bind="", unbind="")
        self.make(f"class/vfio/{GROUP}", dev="0:0")
        self.write("run/udev/data/c0:0", "I:1\n")
        self.write(f"dev/vfio/{GROUP}", "")
        (self.root / f"dev/vfio/{GROUP}").chmod(0o600)

    def plug_function(self, address, vm):
        driver, product, kind = FUNCTIONS[address]
        directory = f"devices/pci0000:00/{address}"
        self.make(directory, vendor="0x8086", device=product, driver_override="(null)", usual_driver=driver,
                  uevent=f"PCI_SLOT_NAME={address}", **{"class": kind})
        self.link(f"{directory}/iommu_group", f"kernel/iommu_groups/{GROUP}")
        self.link(f"{directory}/driver", f"bus/pci/drivers/{driver}")
        self.link(f"{directory}/subsystem", "bus/pci")
        self.link(f"kernel/iommu_groups/{GROUP}/devices/{address}", directory)
        self.write(f"run/udev/data/+pci:{address}", "I:1\n")
        self.link(f"bus/pci/devices/{address}", directory)
        parts = [int(part, 16) for part in re.split("[:.]", address)]
        self.vms[f"pci:{address}"] = vm
        self.numbers[f"pci:{address}"] = parts[0] << 32 | parts[1] << 16 | parts[2] << 8 | parts[3]
        self.tell("add", directory, "pci", PCI_SLOT_NAME=address)

    def pull_function(self, address):
        directory = f"devices/pci0000:00/{address}"
        for path in (f"sys/bus/pci/devices/{address}", f"sys/kernel/iommu_groups/{GROUP}/devices/{address}",
                     f"run/udev/data/+pci:{address}"):
            (self.root / path).unlink()
        self._remove(directory)
        self.tell("remove", directory, "pci", PCI_SLOT_NAME=address)
        del self.vms[f"pci:{address}"], self.numbers[f"pci:{address}"]

    # ---- what is true of them

    def instance(self, key):
        kind, name = key.split(":", 1)
        directory = {"usb": self.directory_of(name), "input": INPUT, "pci": f"devices/pci0000:00/{name}"}[kind]
        inode = (self.root / "sys" / directory).stat().st_ino
        return mix(mix(inode) ^ self.numbers[key])

    def users(self, node):
        """The users that the node's access list names."""
        with contextlib.suppress(OSError):  # it has none
            entries = struct.iter_unpack("<HHI", os.getxattr(self.root / "dev" / node, "system.posix_acl_access")[4:])
            return [user for tag, rights, user in entries if tag == 2 and rights == 6]
        return []
