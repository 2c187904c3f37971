# The service unit's sandbox: its capabilities, its filter of system calls, and what of /sys it lets be written.
import functools
import pathlib
import re
import subprocess

from daemon import PLACE, access_taken_back, configuration, mouse_rule
from functions import Card
from guest import CONTROLLER
from inputs import Input, ports

HERE = pathlib.Path(__file__).resolve().parent


def settings(build, name):
    """Values of a setting of the unit, in their order."""
    text = (pathlib.Path(build) / "data/vhotplug.service").read_text()
    return re.findall(rf"^{name}=(.*)$", text, re.M)


def expand(words):
    """Names of system calls that these words stand for."""
    calls = set()
    for word in words:
        if word.startswith("@"):
            shown = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True).stdout
            calls |= expand(line.strip() for line in shown.splitlines()[1:] if line.strip() and not line.strip().startswith("#"))
        else:
            calls.add(word)
    return calls


@functools.lru_cache
def allowed_calls(build):
    calls = set()
    for value in settings(build, "SystemCallFilter"):
        named = expand(value.lstrip("~").split())
        calls = calls - named if value.startswith("~") else calls | named
    assert {"openat", "setxattr", "epoll_wait"} <= calls and not {"init_module", "finit_module", "mount", "ptrace", "bpf"} & calls
    return calls


def prefix(lab):
    """Shell words that put the sandbox around what follows them; the modules it needs are there, as the unit wants it."""
    lab.run("modprobe vfio-pci")
    lab.write(f"{PLACE}/confined.py", (HERE / "confined.py").read_text())
    writable = [path.lstrip("-") for path in settings(lab.build, "ReadWritePaths")[0].split()]
    capabilities = ",".join("+" + name.lower().removeprefix("cap_") for name in settings(lab.build, "CapabilityBoundingSet")[0].split())
    mounts = "".join(f"mount --bind {path} {path}; " for path in [*writable, "/proc/sys"])
    lab.write(f"{PLACE}/sandbox.sh", "mount --make-rslave /; " + mounts +
              "mount -o remount,bind,ro /sys; mount -o remount,bind,ro /proc/sys; "
              f"exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,{capabilities} "
              f"/usr/bin/python3 {PLACE}/confined.py {','.join(sorted(allowed_calls(lab.build)))} "
              f"{','.join(settings(lab.build, 'RestrictAddressFamilies')[0].split())} \"$@\"")
    return f"unshare --mount --propagation unchanged sh {PLACE}/sandbox.sh"


def status(lab, pid):
    return dict(re.findall(r"^(\w+):\s*(.*)$", lab.text(f"cat /proc/{pid}/status"), re.M))


KEYBOARD = {"interfaceClass": 3, "interfaceProtocol": 1}


def everything(guest, crosvm, card, other):
    """All kinds of devices for the QEMU, USB keyboards for the crosvm, and a card for a VM that is yet to be started."""
    config = configuration([guest, crosvm], [(guest.name, [mouse_rule()]), (crosvm.name, [KEYBOARD])])
    config["vms"].append({"name": "vm3", "type": "qemu", "socket": f"{PLACE}/vm3.qmp"})
    config["evdevPassthrough"] = [{"targetVm": guest.name, "allow": [{"name": "lab .*"}]}]
    config["pciPassthrough"] = [{"targetVm": name, "allow": [{"address": function.address}]}
                                for name, function in ((guest.name, card), ("vm3", other))]
    config["usbAuthorization"] = {"enable": True, "hostAllow": [{"vendorId": "46f4"}]}
    return config


def test_every_kind_of_device_under_the_rights_of_the_unit(bench, slots, host, person):
    lab = bench.lab
    card, other, keyboard = Card(slots, "port1"), Card(slots, "port2"), Input(lab, "keyboard", "lab keys")
    guest, crosvm = bench.guest(nobody=True, controller=[*CONTROLLER, *ports("rp1", "rp2")]), bench.crosvm("vm2")
    lab.run(f"prlimit -p {guest.pid()} --memlock=unlimited:unlimited")
    config = everything(guest, crosvm, card, other)
    daemon = bench.daemon(config, start=False)
    daemon.start(prefix(lab))
    daemon.wait_log("lab keys .*: attached to vm1")
    daemon.wait_log(f"{card.address}.*: attached to vm1")
    shown = status(lab, daemon.pid)
    assert shown["Seccomp"] == "2" and shown["NoNewPrivs"] == "1" and int(shown["CapEff"], 16).bit_count() == 3, shown
    # A device that is authorized for the VM only, one for the crosvm, and a disk of the host's.
    lab.plug("mouse", "usb-mouse", 3)
    lab.plug("keys", "usb-kbd", 4)
    lab.plug("disk", "usb-storage", 2)
    daemon.wait_log("1-3.*: attached to vm1")
    guest.wait_count(1)
    crosvm.wait_ports({1: "1-4"})
    lab.wait_driver("2-2")
    # What a person asks for, with what is kept on disk; and what a VM is started with.
    person.does("detach", "1-3")
    guest.wait_count(0)
    person.does("attach", "1-3")
    guest.wait_count(1)
    person.does("suspend", "vm2")
    crosvm.wait_ports({})
    person.does("resume", "vm2")
    crosvm.wait_ports({1: "1-4"})
    assert f"host={other.address}" in person.classic("vmm", "args", "--vm", "vm3", "--qemu-bus-prefix", "rp")
    assert other.driver() == "vfio-pci"
    # A start that finds all of that, and a reload that gives everything back.
    daemon.kill()
    mark = daemon.mark()
    daemon.start(prefix(lab))
    daemon.wait_log(f"{card.address}.*: attached to vm1", mark)
    daemon.wait_log(r"1-4\): attached to vm2", mark)
    guest.kill()
    daemon.configure(config | {"usbPassthrough": [], "evdevPassthrough": [], "pciPassthrough": []})
    daemon.signal("HUP")
    crosvm.wait_ports({})
    card.wait_driver("e1000e")
    other.wait_driver("e1000e")
    access_taken_back(lab)
    assert not re.search("not permitted|Read-only|Permission denied", daemon.log()), daemon.log()
    keyboard.remove()


FORBIDDEN = ["mount -t tmpfs none /mnt", "echo 1 > /proc/sys/vm/drop_caches", "chown 1 /tmp/daemon",
             "echo 0 > /sys/module/kernel/parameters/panic_on_warn", "modprobe dummy_hcd"]


def test_what_the_sandbox_keeps_away(bench):
    lab = bench.lab
    lab.run("modprobe -r dummy_hcd; mkdir -p /tmp/daemon")
    confined = prefix(lab)
    assert lab.good(f"{confined} /bin/sh -c 'true'")
    for command in FORBIDDEN:
        assert lab.good(f"command -v {command.split()[0]}")
        assert not lab.good(f"{confined} /bin/sh -c '{command}'"), command
        assert lab.good(f"unshare --mount sh -c '{command}'"), command
