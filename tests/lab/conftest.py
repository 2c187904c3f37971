# Shared by the lab tests: one lab host for all of them, and a bench that is cleared after each.
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import daemon as daemons
import functions
import gadget
import image
import inputs
from crosvm import Crosvm
from guest import PLACE, Guest
from lab import USB_DEVICES, USBCORE, Lab, LabError, wait_for
from person import Person


# What the USB controller of a lab host without devices has.
EMPTY = ["1-0:1.0", "2-0:1.0", "usb1", "usb2"]


class Labs:
    """Boots the lab host when the first test needs it, and again when it has died."""

    def __init__(self, build):
        self.build = build.resolve()
        self.lab = None
        self.qemu10, self.no_qemu10 = str(self.build / "lab" / "qemu10" / "qemu"), None

    def fetch_qemu10(self):
        """Before the lab boots, as its file system is this one as it was then."""
        try:
            fetched = subprocess.run([image.HERE / "qemu10.sh", self.build / "lab" / "qemu10"], capture_output=True,
                                     text=True, timeout=600)
            if fetched.returncode != 0:
                self.no_qemu10 = fetched.stderr.strip()[-300:]
        except (OSError, subprocess.TimeoutExpired) as error:
            self.no_qemu10 = str(error)

    def get(self):
        if self.lab and not self.lab.alive():
            self.close()
        if not self.lab:
            self.fetch_qemu10()
            for left in 2, 1, 0:
                lab = Lab(self.build)
                try:
                    self.lab = lab.boot()
                    break
                except (LabError, AssertionError, OSError):
                    lab.close()
                    if not left:
                        raise
        return self.lab

    def close(self):
        if self.lab:
            self.lab.close()
        self.lab = None


class Bench:
    """Makes guests, daemons and devices for one test, and takes all of them away after it."""

    def __init__(self, lab):
        self.lab, self.guests, self.daemons = lab, [], []

    def guest(self, name="vm1", start=True, wait=True, **options):
        guest = Guest(self.lab, name, **options)
        self.guests.append(guest)
        return guest.start(wait and guest.kernel) if start else guest

    def crosvm(self, name="vm1", *options):
        crosvm = Crosvm(self.lab, name, *options)
        self.guests.append(crosvm)
        return crosvm.start()

    def daemon(self, config, *arguments, start=True, **options):
        daemon = daemons.Daemon(self.lab, config, *arguments, **options)
        self.daemons.append(daemon)
        return daemon.start() if start else daemon

    def diagnose(self):
        parts = []
        for daemon in self.daemons:
            parts += [f"--- log of the daemon ({'running' if daemon.running() else 'not running'})", daemon.log()[-12000:]]
        for guest in self.guests:
            parts += [f"--- {guest.name}: {guest.type} {'runs' if guest.running() else 'does not run'}", guest.console()[-3000:]]
        parts += ["--- kernel of the lab host", self.lab.run("dmesg | tail -40", check=False).text]
        return "\n".join(parts)

    def clean(self):
        """In as few commands as can be: each takes a moment in the lab host."""
        daemons_alive = " ".join(str(daemon.pid) for daemon in self.daemons if daemon.pid)
        self.lab.run(f"""
        pids="{daemons_alive} $(cat {PLACE}/*.pid {PLACE}/*.sitter {inputs.PLACE}/*.pid 2>/dev/null | tr '\\n' ' ')"
        for pid in {daemons_alive}; do pkill -KILL -s $pid; done
        for pid in $pids; do kill -KILL $pid; done 2>/dev/null
        for mount in $(awk '$2 ~ "^/mnt/lab" {{ print $2 }}' /proc/mounts); do umount -l $mount; done
        for pid in $pids; do while kill -0 $pid; do sleep 0.1; done; done 2>/dev/null
        swapoff -a
        {gadget.REMOVE_ALL}
        rm -rf {inputs.PLACE}
        true""")
        self.lab.unplug_all()
        if not self.lab.good(f"rm -rf {PLACE}/* {daemons.PLACE} /run/vhotplug /var/lib/vhotplug /tmp/run; pidof systemd-udevd > /dev/null"):
            self.lab.run("[ -d /run/udev.away ] && { rm -rf /run/udev; mv /run/udev.away /run/udev; }; true")
            self.lab.start_udevd()
        names = self.usb_names()
        if "usb1" not in names or "usb2" not in names:
            self.lab.reset_controller()
        wait_for("the lab host's controller to be empty", lambda: names == EMPTY or self.usb_names() == EMPTY, show=self.usb_names)

    def usb_names(self):
        return self.lab.text("ls /sys/bus/usb/devices").split()


@pytest.fixture(scope="session")
def labs(build):
    labs = Labs(build)
    yield labs
    labs.close()


@pytest.fixture
def bench(labs):
    bench = Bench(labs.get())
    yield bench
    try:
        bench.clean()
    except (LabError, AssertionError, OSError) as error:
        bench.lab.broken = True  # the next test boots a new one; this one has said what it had to say
        print(f"the lab host could not be cleared and is given up: {error}")


@pytest.fixture
def lab(bench):
    return bench.lab


@pytest.fixture
def person(bench):
    return Person(bench)


@pytest.fixture
def host(bench):
    """The lab host, with the kernel's switches for new USB devices as they were when the test is over."""
    lab = bench.lab
    before = lab.usb_switches()
    assert set(before) == {"1", "-1"}, before
    yield lab
    for daemon in bench.daemons:
        daemon.kill()
    lab.run(f"for s in {USB_DEVICES}/usb*; do echo 1 > $s/authorized_default; echo 1 > $s/interface_authorized_default; done; "
            f"echo -1 > {USBCORE}; for d in /sys/bus/serio/devices/*; do printf rescan > $d/drvctl; done; true")


@pytest.fixture
def slots(bench):
    """The lab host without interrupt remapping passes PCI functions only when told to; the daemon loads vfio itself."""
    bench.lab.run("mkdir -p /run/modprobe.d && echo options vfio_iommu_type1 allow_unsafe_interrupts=1 > /run/modprobe.d/lab.conf; "
                  "echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts || true")
    yield bench.lab
    for one in bench.daemons + bench.guests:  # before their devices go
        one.kill()
    functions.restore(bench.lab)


@pytest.fixture(params=["installed", "qemu10"])
def qemu(request, labs):
    if request.param == "installed":
        return "installed"
    labs.get()
    if labs.no_qemu10:
        pytest.skip(f"no QEMU 10 here: {labs.no_qemu10}")
    return labs.qemu10


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    bench = getattr(item, "funcargs", {}).get("bench")
    if report.when == "call" and report.failed and bench:
        try:
            text = bench.diagnose()
        except (LabError, AssertionError, OSError) as error:
            text = f"{error}\n{bench.lab.diagnose()}"
        report.sections.append(("what the lab says", text))
