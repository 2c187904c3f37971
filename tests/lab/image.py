# What the lab is made of: the two initramfs images and the small tools, built once into BUILD/lab.
import gzip
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import threading

HERE = pathlib.Path(__file__).resolve().parent
HOST_MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console"]
GUEST_MODULES = ["xhci_pci", "ehci_pci", "uhci_hcd", "usbhid", "hid_generic", "usb_storage", "sd_mod", "evdev",
                 "virtio_pci", "virtio_input", "e1000e"]

# Mounts this machine's root under a writable layer and goes there. BUILD is mounted once more at its
# own path, as it may lie under /tmp, which is fresh.
HOST_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /lower /upper /root
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
while read module; do insmod $module; done < /modules/order
for word in $(cat /proc/cmdline); do case $word in lab.build=*) build=${word#lab.build=};; esac; done
p9=trans=virtio,version=9p2000.L,cache=loose,msize=262144,ro
mount -t 9p -o $p9 hostroot /lower
mount -t tmpfs -o size=75% tmpfs /upper
mkdir /upper/upper /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /root
mkdir -p /root/tmp /root/run /root/proc /root/sys /root/dev
mount -t tmpfs -o mode=1777 tmpfs /root/tmp
mount -t tmpfs -o mode=755 tmpfs /root/run
mkdir -p /root$build
mount -t 9p -o $p9 build /root$build
for d in dev proc sys; do mount --move /$d /root/$d; done
exec switch_root /root $build/lab/agent
"""

# A guest whose kernel says on its console what it sees; keeps its input devices polled, as a desktop does, and says
# of each event (24 bytes) from which of them it came.
GUEST_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
# What is plugged in already is found while the modules load: the console has to tell of it.
dmesg -n 8
while read module; do insmod $module; done < /modules/order
listen() {
    name=$(cat /sys/class/input/${1##*/}/device/name)
    while [ "$(dd bs=24 count=1 2> /dev/null | wc -c)" = 24 ]; do echo "GUEST EVENT $name" > /dev/console; done < $1
}
echo GUEST READY > /dev/console
while :; do
    for node in /dev/input/event*; do
        [ -c $node ] && ! [ -e /tmp-${node##*/} ] && { : > /tmp-${node##*/}; (listen $node 2> /dev/null; rm /tmp-${node##*/}) & }
    done
    sleep 1
done
"""


class LabError(Exception):
    """The lab cannot be built or has died; says what to do."""


def kernel():
    """The newest kernel that has its modules: (version, path)."""
    found = [p.name[len("vmlinuz-"):] for p in pathlib.Path("/boot").glob("vmlinuz-*")]
    found = [v for v in found if pathlib.Path("/lib/modules", v, "modules.dep").exists()]
    if not found:
        raise LabError("no /boot/vmlinuz-* with modules in /lib/modules: install linux-image-amd64 (./dev setup)")
    numbers = lambda version: [int(n) for n in re.findall(r"\d+", version)]
    version = max(found, key=numbers)
    return version, f"/boot/vmlinuz-{version}"


def module_files(version, modules):
    """The module files in the order in which they must be loaded."""
    files = []
    for module in modules:
        shown = subprocess.run(["modprobe", "-S", version, "--show-depends", module], capture_output=True, text=True)
        if shown.returncode != 0:
            raise LabError(f"modprobe does not know {module} for kernel {version}: {shown.stderr.strip()}")
        for line in shown.stdout.splitlines():
            word = line.split()
            if word[0] == "insmod" and word[1] not in files:
                files.append(word[1])
    return files


def unpacked(path):
    data = pathlib.Path(path).read_bytes()
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".gz"):
        return gzip.decompress(data)
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout
    return data


class Archive:
    """A cpio archive of the kind that the kernel unpacks."""

    def __init__(self):
        self.parts, self.inode, self.folders = [], 0, set()

    def add(self, name, mode, data=b"", device=(0, 0)):
        self.inode += 1
        raw = name.encode() + b"\0"
        fields = [self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(raw), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
        self.parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]

    def file(self, name, data, mode=0o644):
        folder = os.path.dirname(name)
        if folder and folder not in self.folders:
            self.folders.add(folder)
            self.add(folder, 0o040755)
        self.add(name, 0o100000 | mode, data)

    def bytes(self):
        self.add("TRAILER!!!", 0)
        return b"".join(self.parts)


def initramfs(path, init, modules):
    version, _ = kernel()
    files = module_files(version, modules)
    busybox = shutil.which("busybox", path="/bin:/usr/bin:/sbin")
    if not busybox:
        raise LabError("no busybox: install busybox-static (./dev setup)")
    names = [f"modules/{number:02}-{os.path.basename(file).split('.')[0]}.ko" for number, file in enumerate(files)]
    archive = Archive()
    archive.add("dev", 0o040755)
    archive.add("dev/console", 0o020600, device=(5, 1))
    archive.file("init", init.encode(), 0o755)
    archive.file("bin/busybox", pathlib.Path(busybox).read_bytes(), 0o755)
    for name, file in zip(names, files):
        archive.file(name, unpacked(file))
    archive.file("modules/order", "".join(f"/{name}\n" for name in names).encode())
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_bytes(archive.bytes())
    temporary.replace(path)


def tool(folder, name):
    """Builds one of the C tools when its source is newer."""
    source, target = HERE / f"{name}.c", folder / name
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    temporary = folder / f"{name}.{os.getpid()}"
    command = [os.environ.get("CC", "cc"), "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-o", temporary, source]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode != 0:
        raise LabError(f"{source.name} does not build:\n{built.stderr}")
    temporary.replace(target)


def prepare(build):
    """Makes what is missing or out of date in BUILD/lab and returns that folder."""
    folder = pathlib.Path(build).resolve() / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    version, _ = kernel()
    for name in "agent", "qmp", "uinput":
        tool(folder, name)
    for name, init, modules in ("host", HOST_INIT, HOST_MODULES), ("guest", GUEST_INIT, GUEST_MODULES):
        recipe = hashlib.sha256(repr((version, init, modules)).encode()).hexdigest()[:12]
        image = folder / f"{name}-{recipe}.cpio"
        if not image.exists():
            initramfs(image, init, modules)
        link = folder / f"{name}.cpio"
        link.unlink(missing_ok=True)
        link.symlink_to(image.name)
    return folder
