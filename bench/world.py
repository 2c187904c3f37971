"""The world around who is measured: bench-world in namespaces, and the configurations of the daemon in it."""
import contextlib
import json
import os
import pathlib
import re
import select
import signal
import subprocess

# When a measurement is given up; nothing here fails because a time is long.
PATIENCE = 600
SOCKETS = "/run/bench"
API = "/run/bench/api.sock"
# What is mounted in this namespace is to be seen nowhere else. In a chroot / may be no mount point that could be made
# private; /proc always is one, and what is made in it can be / then.
OWN_ROOT = """set -e
mount --make-rprivate /proc
mount -t tmpfs none /proc
mkdir /proc/root
mount --rbind / /proc/root
mount --make-rprivate /proc/root
umount /proc/root/proc
exec chroot /proc/root "$@"
"""
UNSHARE = ["unshare", "--mount", "--net", "--propagation", "unchanged", "sh", "-c", OWN_ROOT, "sh", "sh", "-c"]
# There /sys, /dev and /run are empty, and udevd seems to run.
PREPARE = """set -e
for place in /sys /run /dev; do mount -t tmpfs -o mode=755 none $place; done
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/urandom c 1 9
mkdir -p /run/udev/data /run/bench/run /sys/bus/usb/devices /sys/bus/pci/devices /sys/class/input /sys/class/block
: >/run/udev/control
exec "$@"
"""
PORTS = 15  # of a controller of the scripted VMs


def why_not():
    """Why nothing can be measured here, or None."""
    run = subprocess.run([*UNSHARE, PREPARE, "sh", "true"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                         check=False)
    return None if run.returncode == 0 else f"root and namespaces of its own are needed: {run.stderr.strip()}"


class Told:
    """A bench-world that does what it is told, and who is measured in it. INPUT and OUTPUT are lines to it and from it."""

    def __init__(self, build, input, output):
        self.build, self.input, self.output, self.pid = build, input, output, None

    def tell(self, *words):
        self.input.write(" ".join(map(str, words)) + "\n")
        self.input.flush()
        if not select.select([self.output], [], [], PATIENCE)[0]:
            raise RuntimeError(f"no answer to {words} within {PATIENCE} s")
        answer = self.output.readline()
        if not answer:
            raise RuntimeError(f"bench-world ended at {words}")
        return answer.split()

    def start(self, *arguments):
        """Starts a program; returns the ns until it was ready, and has its events listened to."""
        pid, ready = self.tell("start", *arguments)
        self.pid = int(pid)
        self.tell("listen", API)
        return int(ready)

    def start_daemon(self, config, *arguments):
        return self.start(self.build / "src/vhotplug", "-c", config, *arguments)

    def start_floor(self):
        return self.start(self.build / "bench/bench-floor", SOCKETS + "/vm0000.qmp", API)


class World(Told):
    """bench-world in namespaces of its own."""

    def __init__(self, build, vms=1, hanging=0, controllers=1):
        self.process = subprocess.Popen(
            [*UNSHARE, PREPARE, "sh", build / "bench/bench-world", SOCKETS, str(vms), str(hanging), str(controllers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        super().__init__(build, self.process.stdin, self.process.stdout)

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        if failed:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def plug(self, count, vms, forget=False):
        """[(ns to device_add, ns to attached)]"""
        return [tuple(map(int, pair.split(","))) for pair in self.tell("plug", count, vms, int(forget))]

    def counts(self):
        return [int(word) for word in self.tell("counts")]

    def memory(self, kind="Dirty"):
        """KiB that are this process's alone: what it has written; "Clean": of its files, what nobody else has mapped."""
        text = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(re.search(rf"^Private_{kind}: +(\d+) kB", text, re.M).group(1))

    def cpu(self):
        """Seconds of CPU so far, of all its threads, also of those that have ended."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def switches(self):
        """Context switches of the threads that it has."""
        statuses = [path.read_text() for path in pathlib.Path(f"/proc/{self.pid}/task").glob("*/status")]
        return sum(int(count) for text in statuses for count in re.findall(r"ctxt_switches:\s+(\d+)", text))


# ---- configurations

def configuration(groups, sockets):
    """SOCKETS: {name of a VM: its QMP socket}"""
    return json.dumps({
        "usbPassthrough": groups,
        "vms": [{"name": name, "type": "qemu", "socket": socket} for name, socket in sockets.items()],
        "general": {"statePath": f"{SOCKETS}/state", "api": {"enable": True, "unixSocket": API}},
    })


def write_config(place, groups, vms):
    path = place / "vhotplug.conf"
    path.write_text(configuration(groups, {f"vm{i:04}": f"{SOCKETS}/vm{i:04}.qmp" for i in range(vms)}))
    return path


def config_of_vms(place, vms):
    """A group for each VM, with one rule."""
    return write_config(place, [{"targetVm": f"vm{i:04}", "allow": [{"serial": f"vm{i:04}"}]} for i in range(vms)], vms)


def config_of_rules(place, rules):
    """One VM and so many rules, of which the last matches: before it by turns two ids and a pattern."""
    others = [{"vendorId": "1d6b", "productId": f"{i % 65536:04x}"} if i % 2 == 0 else {"productName": f"Nothing {i}.*"}
              for i in range(rules - 1)]
    return write_config(place, [{"targetVm": "vm0000", "allow": [*others, {"serial": "vm0000"}]}], 1)


# ---- figures

def percentile(values, part):
    """The smallest value that so large a part of all values does not exceed."""
    values = sorted(values)
    return values[max(0, -(-len(values) * part // 100) - 1)]


def percentiles(values, digits=1):
    return {f"p{part}": round(percentile(values, part), digits) for part in (50, 95, 99)}
