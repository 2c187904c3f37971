"""The daemon and crosvm: what it says, what each VM has in the end, and that the VM never sees what it must not."""
import concurrent.futures
import itertools
import json
import os
import pathlib
import shutil
import signal
import tempfile

import pytest

from crosvm import NUMBER, Crosvm, Devices, kept_in, until, was_killed
from vhotplug import Daemon, open_files

# Each VM gets what is plugged into one of the buses.
RULES = {"usbPassthrough": [{"targetVm": f"vm{number}", "allow": [{"portPath": f"{number}-*"}]} for number in (1, 2)]}

WIDTH = 8  # how many of them run at a time where a test has many cases


def write_config(directory, sockets=("vm1.sock", "vm2.sock"), **keys):
    vms = [{"name": pathlib.Path(name).stem, "type": "crosvm", "socket": str(directory / name)} for name in sockets]
    path = directory / "vhotplug.conf"
    path.write_text(json.dumps({**RULES, "vms": vms, "general": kept_in(directory), **keys}))
    return path


class Bench:
    """A host with devices, a daemon and the crosvms vm1 and vm2."""

    def __init__(self, program, directory):
        self.program, self.directory = program, directory
        self.devices, self.vms, self.daemons = Devices(directory), {}, []

    @property
    def daemon(self):
        return self.daemons[-1]

    def vm(self, name, *modes):
        self.vms[name] = Crosvm(self.directory / f"{name}.sock", *modes)
        return self.vms[name]

    def start(self, *options, config=None, **environment):
        self.daemons.append(Daemon(self.program, self.directory, "-c", config or write_config(self.directory), *options,
                                   environment=self.devices.environment(self.directory, **environment)))
        return self.daemon

    def ready(self, *options, **keys):
        self.start(*options, **keys).wait_ready()
        return self.daemon

    def wait(self, name, *devices):
        """Until that VM has exactly these."""
        wanted = sorted(NUMBER[device] for device in devices)
        until(lambda: self.vms[name].nodes() == wanted, self.daemon, f"{name} with {devices}")

    def line(self, pattern, count=1):
        return self.daemon.wait_line(pattern, count)

    def end(self):
        """The daemon ends well, and no VM has seen what it must not."""
        assert self.daemon.stop() == 0
        for vm in self.vms.values():
            vm.stop()
        self.vms = {}

    def close(self):
        for daemon in self.daemons:
            daemon.close()
        for vm in self.vms.values():
            vm.process.kill()
            vm.close()


def side_by_side(program, run, cases):
    """The results of run(bench, case) for each case. They wait more than they work."""
    def one(case):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="vhp-", dir="/tmp"))
        bench = Bench(program, directory)
        try:
            return run(bench, case)
        finally:
            bench.close()
            shutil.rmtree(directory, ignore_errors=True)
    with concurrent.futures.ThreadPoolExecutor(WIDTH) as pool:
        return list(pool.map(one, cases))


@pytest.fixture
def program(build):
    return build / "tests" / "cli" / "vhotplug-stub"


@pytest.fixture
def bench(program, place):
    bench = Bench(program, place)
    yield bench
    bench.close()
    print("\n".join(line for daemon in bench.daemons for line in daemon.log()[-100:]))


def test_f03_equal_devices_on_two_vms_come_and_go(bench):
    one, two = bench.vm("vm1"), bench.vm("vm2")
    bench.devices.plug(usb_1_1="mouse", usb_1_2="twin", usb_2_1="third")
    bench.ready("-a")
    bench.line("usb:1-1|1-1\\): attached to vm1, ")
    bench.wait("vm1", "mouse", "twin")
    bench.wait("vm2", "third")
    bench.devices.pull("usb_1_1")
    bench.wait("vm1", "twin")
    bench.devices.plug(usb_1_1="mouse")
    bench.wait("vm1", "mouse", "twin")
    assert one.count("attach") == 3 and two.count("attach") == 1 and two.count("detach") == 0
    bench.devices.pull("usb_1_1", "usb_1_2", "usb_2_1")
    bench.wait("vm1")
    bench.wait("vm2")
    bench.end()


def test_f28_a_hundred_fast_replugs_and_four_devices_at_once(bench):
    bench.vm("vm1")
    bench.ready()
    bench.line("^info vm1 answers")
    bench.devices.plug(usb_1_1="mouse")
    bench.line("attached to vm1")
    for _ in range(100):
        bench.devices.pull("usb_1_1")
        bench.devices.plug(usb_1_1="mouse")
    bench.devices.plug(usb_1_1="twin", usb_1_2="third", usb_1_3="stick", usb_1_4="mouse")
    bench.wait("vm1", "twin", "third", "stick", "mouse")
    bench.devices.pull("usb_1_1", "usb_1_4")
    bench.wait("vm1", "third", "stick")
    bench.end()


def test_f26_f31_a_vm_that_is_killed_gets_its_devices_back_and_no_other_is_touched(bench):
    bench.vm("vm1")
    other = bench.vm("vm2")
    bench.devices.plug(usb_1_1="mouse", usb_1_2="twin", usb_2_1="third")
    bench.ready("-a")
    bench.line("attached to vm", count=3)
    bench.vms["vm1"].kill()
    bench.line("^info vm1 is not running")
    bench.line("waits: vm1 is not running", count=2)
    before = len(other.order("log"))
    bench.devices.pull("usb_1_2")  # while nobody has it
    bench.vm("vm1")
    bench.wait("vm1", "mouse")
    bench.line("1-1\\): attached to vm1", count=2)
    assert len(other.order("log")) == before
    bench.end()


def test_f38_a_vm_is_asked_for_a_device_only_when_the_host_has_withheld_it(bench):
    gate = bench.directory / "gate"
    os.mkfifo(gate)
    with open(gate, "r+b", buffering=0) as pipe:  # a byte lets the host do one thing
        bench.vm("vm1")
        bench.devices.plug(usb_1_1="mouse", usb_2_1="third")
        bench.ready("-a", "-d", VHOTPLUG_TEST_OPENING=str(gate))
        pipe.write(b"1")
        bench.line("1-1\\): attached to vm1")
        write_config(bench.directory, usbPassthrough=[])
        bench.daemon.process.send_signal(signal.SIGHUP)
        bench.line("host: withholds usb:1-1")
        assert bench.vms["vm1"].nodes() == [NUMBER["mouse"]] and bench.vms["vm1"].count("detach") == 0
        pipe.write(b"1")
        bench.wait("vm1")
        # Given back to it, and taken again; it ends while the host is at it, and its successor is served as any other.
        write_config(bench.directory)
        bench.daemon.process.send_signal(signal.SIGHUP)
        pipe.write(b"1")
        bench.wait("vm1", "mouse")
        write_config(bench.directory, usbPassthrough=[])
        bench.daemon.process.send_signal(signal.SIGHUP)
        bench.line("host: withholds usb:1-1", count=2)
        bench.vms["vm1"].kill()
        bench.line("^info vm1 is not running")
        bench.vm("vm1")
        bench.line("vm1 is starting", count=2)
        pipe.write(b"1")
        bench.line("^info vm1 answers", count=2)
        write_config(bench.directory)
        bench.daemon.process.send_signal(signal.SIGHUP)
        pipe.write(b"1")
        bench.wait("vm1", "mouse")
        # One that is unplugged is not there to be withheld.
        bench.devices.pull("usb_1_1")
        bench.wait("vm1")
        assert len(bench.daemon.matching("host: withholds")) == 2
        bench.end()


def test_f26_the_vm_restarts_while_the_daemon_is_down(bench):
    bench.vm("vm1")
    bench.ready()
    bench.line("^info vm1 answers")
    bench.devices.plug(usb_1_1="mouse", usb_1_2="twin")
    bench.line("attached to vm1", count=2)
    bench.daemon.close()
    bench.vms["vm1"].kill()
    bench.vm("vm1")
    bench.ready()  # without -a: it is known that these were attached before
    bench.wait("vm1", "mouse", "twin")
    bench.end()


def test_f20_f30_what_is_attached_is_what_the_vm_lists(bench):
    bench.devices.plug(usb_1_1="mouse")
    bench.ready("-a")
    bench.line("waits: vm1 is not running")
    vm = bench.vm("vm1", "--halt")  # its socket is there long before it answers
    bench.line("^(info|warning) vm1 .*crosvm has not answered yet: it is starting, or stopped")
    assert vm.count("attach") == 0 and not bench.daemon.matching("attached to")
    vm.order("run")
    bench.line("attached to vm1")
    bench.wait("vm1", "mouse")
    assert vm.count("attach") == 1
    bench.end()


def test_f20_a_socket_that_nobody_serves(bench):
    bench.devices.plug(usb_1_1="mouse")
    bench.vm("vm1").kill()
    bench.ready("-a")
    bench.line("^info vm1 is not running")
    bench.line("waits: vm1 is not running")
    bench.vm("vm1")
    bench.line("attached to vm1")
    bench.wait("vm1", "mouse")
    bench.end()


def test_f21_the_directory_of_the_socket_is_deleted_and_made_again(bench):
    directory = bench.directory / "late" / "deep"
    bench.devices.plug(usb_1_1="mouse")
    bench.ready("-a", config=write_config(bench.directory, ("late/deep/vm1.sock", "vm2.sock")))
    bench.line("waits: vm1 is not running")
    for turn in (1, 2):
        directory.mkdir(parents=True)
        vm = bench.vms["vm1"] = Crosvm(directory / "vm1.sock")
        bench.wait("vm1", "mouse")
        bench.line("attached to vm1", count=turn)
        vm.kill()
        shutil.rmtree(directory.parent)
        bench.line("^info vm1 is not running", count=turn + 1)
        bench.vms = {}
    bench.end()


def test_f22_a_guest_that_is_not_up_yet(bench):
    vm = bench.vm("vm1", "--early")
    bench.devices.plug(usb_1_1="mouse")
    bench.ready("-a")
    bench.line("the guest of vm1 is not ready for USB yet")
    until(lambda: vm.order("ports") == {}, bench.daemon, "the leaked port to be freed")
    until(lambda: vm.count("attach") >= 2, bench.daemon, "another try")
    until(lambda: vm.order("ports") == {}, bench.daemon, "the leaked port to be freed")
    vm.order("guest-init")  # a leaked port would end its USB for good
    bench.line("attached to vm1")
    bench.wait("vm1", "mouse")
    assert len(bench.daemon.matching("not ready for USB yet")) == 1
    bench.end()


def test_replies_one_behind(bench):
    vm = bench.vm("vm1")
    bench.devices.plug(usb_1_1="mouse")
    bench.ready("-a")
    bench.line("attached to vm1")
    vm.order("slow attach")  # two seconds, and its replies are one behind from then on
    bench.devices.plug(usb_1_2="twin")
    bench.line("attached to vm1", count=2)
    bench.wait("vm1", "mouse", "twin")
    bench.devices.pull("usb_1_1")
    bench.wait("vm1", "twin")
    bench.devices.plug(usb_1_3="stick")
    bench.wait("vm1", "twin", "stick")
    assert vm.count("attach") == 3 and vm.count("detach") >= 1
    bench.end()


def test_usb_that_is_lost_until_the_vm_restarts(bench):
    vm = bench.vm("vm1", "--early")
    vm.order("foreign 1234 5678")  # somebody else was less careful
    vm.order("guest-init")
    bench.devices.plug(usb_1_1="mouse")
    bench.ready("-a")
    bench.line("the USB of vm1 does not answer any more: restart the VM")
    assert not bench.daemon.matching("attached to")
    vm.check()
    vm.kill()
    bench.vm("vm1")
    bench.line("attached to vm1")
    bench.wait("vm1", "mouse")
    bench.end()


def test_no_reply_holds_up_no_other_vm_and_is_asked_again(bench):
    silent = bench.vm("vm1")
    bench.vm("vm2")
    bench.ready()
    bench.line("^info vm. answers", count=2)
    silent.order("fault attach 1 silent")
    bench.devices.plug(usb_1_1="mouse", usb_2_1="third")
    bench.line("attached to vm2")
    assert not bench.daemon.matching("attached to vm1")
    bench.line("vm1 .*crosvm has not answered a request: it is busy or stopped")
    bench.line("attached to vm1")  # it had been done all the time
    bench.wait("vm1", "mouse")
    assert silent.count("attach") == 1
    bench.end()


FAULTS = ["eof", "reset", "junk", "truncated", "wrong", "fd", "NoSuchDevice", "err 5"]


@pytest.mark.parametrize("kind", ["list", "attach", "detach"])
def test_a_fault_is_healed(program, kind):
    def heal(bench, fault):
        vm = bench.vm("vm1")
        vm.order(f"fault {kind} 1 {fault}")
        bench.devices.plug(usb_1_1="mouse", usb_1_2="twin")
        bench.ready("-a")
        bench.wait("vm1", "mouse", "twin")
        bench.line("attached to vm1", count=2)
        bench.devices.pull("usb_1_1")
        bench.wait("vm1", "twin")
        bench.devices.pull("usb_1_2")
        bench.wait("vm1")
        bench.end()
        return True
    assert all(side_by_side(program, heal, FAULTS))


def test_all_ports_in_use(bench):
    vm = bench.vm("vm1")
    for _ in range(7):
        vm.order("foreign 046d c077")
    bench.devices.plug(usb_1_1="stick")
    bench.ready("-a")
    bench.line("attached to vm1")
    bench.devices.plug(usb_1_2="mouse")
    bench.line("all 8 USB 2 ports of vm1 are in use")
    bench.wait("vm1", "stick")
    bench.devices.pull("usb_1_1")
    bench.line("attached to vm1", count=2)
    bench.wait("vm1", "mouse")
    assert len(vm.order("ports")) == 8, "somebody else's are there still"
    bench.end()


@pytest.mark.parametrize("mode, words", [("off", "has no USB: start crosvm without --no-usb"),
                                         ("unbuilt", "was built without USB")])
def test_no_usb(bench, mode, words):
    vm = bench.vm("vm1")
    vm.order(f"usb {mode}")
    bench.devices.plug(usb_1_1="mouse")
    bench.ready("-a")
    bench.line(words)
    assert vm.count("attach") == 0
    vm.stop()
    del bench.vms["vm1"]
    bench.vm("vm1")
    bench.wait("vm1", "mouse")
    bench.end()


def test_no_descriptor_is_left(bench):
    vm = bench.vm("vm1")
    bench.devices.plug(usb_1_1="mouse", usb_1_2="twin")
    bench.ready("-a")
    bench.line("attached to vm1", count=2)

    def nodes():
        return [path for path in open_files(bench.daemon.process).values() if path in ("/dev/null", "/dev/zero")]
    for _ in range(3):
        bench.devices.pull("usb_1_1", "usb_1_2")
        bench.wait("vm1")
        vm.order("fault attach 1 fd")
        bench.devices.plug(usb_1_1="mouse", usb_1_2="twin")
        bench.wait("vm1", "mouse", "twin")
    # Standard input and output are /dev/null, and so is the spare descriptor of the API.
    until(lambda: len(nodes()) == 3, bench.daemon, f"the daemon keeps {nodes()}")
    bench.end()


def test_f49_input_devices_wait_for_the_start_of_their_vm(bench):
    vm = bench.vm("vm1")
    bench.ready("-a", config=write_config(bench.directory, evdevPassthrough={"targetVm": "vm1", "pcieBusPrefix": "ep"}))
    bench.line("^info vm1 answers")
    bench.devices.plug(input_input5="mouse")
    bench.line("waits: vm1 takes input devices only at its start")
    bench.devices.plug(usb_1_1="twin")
    bench.line("attached to vm1")
    assert len(bench.daemon.matching("only at its start")) == 1, "said once"
    assert vm.count("attach") == 1
    bench.end()


# ---- the daemon is killed

def history(bench, **kill):
    """One history in which the daemon is killed once. False: it came to its end before that. RUNTIME_DIRECTORY is
    what the next daemon has of the one before it."""
    bench.vm("vm1")
    bench.vm("vm2")
    if "request" in kill:
        bench.vms["vm1"].order(f"kill {kill['request']} {kill['when']}")
    bench.devices.plug(usb_1_1="mouse", usb_1_2="twin", usb_2_1="third")
    config = write_config(bench.directory)
    bench.start("-a", config=config, **({"VHOTPLUG_TEST_KILL": str(kill["step"])} if "step" in kill else {}))

    def wait(*devices, vm2):
        def reached():
            if was_killed(bench.daemon) and len(bench.daemons) == 1:
                bench.start("-a", config=config)
            return [bench.vms[name].nodes() for name in ("vm1", "vm2")] == wanted
        wanted = [sorted(NUMBER[device] for device in devices), sorted(NUMBER[device] for device in vm2)]
        until(reached, why=f"{kill}: {wanted}, log:\n" + "\n".join(bench.daemon.log()))
    wait("mouse", "twin", vm2=["third"])
    bench.devices.pull("usb_1_1")
    wait("twin", vm2=["third"])  # of two equal ones, this one
    bench.devices.plug(usb_1_1="mouse")
    wait("mouse", "twin", vm2=["third"])
    bench.devices.pull("usb_1_2", "usb_2_1")
    wait("mouse", vm2=[])
    assert bench.vms["vm1"].count("attach") == 3 and bench.vms["vm2"].count("attach") == 1, "one for each plug"
    # The last of its requests may come yet, and be the one that it is killed at.
    while True:
        until(lambda: was_killed(bench.daemon) or bench.daemon.matching("1-1\\): attached to vm1"), why=f"{kill}")
        status = bench.daemon.stop()
        if status == 0 or len(bench.daemons) > 1:
            break
        bench.start("-a", config=config)
    assert status == 0
    assert [bench.vms[name].nodes() for name in ("vm1", "vm2")] == [[NUMBER["mouse"]], []]
    for vm in bench.vms.values():
        vm.check()
    return len(bench.daemons) == 2


def histories(program, kills):
    """Runs a history for each of KILLS until one runs through; returns how many were killed."""
    killed = 0
    while True:
        results = side_by_side(program, lambda bench, kill: history(bench, **kill), itertools.islice(kills, WIDTH))
        killed += sum(results)
        if not all(results):
            return killed


@pytest.mark.parametrize("when", ["read", "executed", "answered"])
def test_the_daemon_is_killed_at_each_request(program, when):
    killed = histories(program, ({"request": number, "when": when} for number in itertools.count(1)))
    assert killed >= 12, "fewer requests than the history needs"


def test_the_daemon_is_killed_at_each_step_of_its_own(program):
    killed = histories(program, ({"step": number} for number in itertools.count(1)))
    assert killed >= 12, "fewer steps than the history needs"
