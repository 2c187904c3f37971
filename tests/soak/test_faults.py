"""Each system call of the daemon fails once at each place that makes it, in each phase of a scenario: nothing is lost.

A first run writes down the places (fail.c); then there is one run for each. SOAK_FAULTS: every so manieth place, chosen
by a fixed seed; 1: all. SOAK_LANES: so many runs side by side.
"""
import collections
import concurrent.futures
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

import world as worlds
from crosvm import until
from vhotplug import PATIENCE, open_files

EVERY, LANES = int(os.environ.get("SOAK_FAULTS", 40)), int(os.environ.get("SOAK_LANES", 3))
SEED = 2026
# What cannot fail, and why.
NEVER = {"write finish worker.c:": "the counter of an eventfd that was just made has room"}
ASAN = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"


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
        world.devices.plug("q2")
        self.settle()

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
            names = open_files(self.world.daemon.process).values()
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


def life(kind, build, plain, wanted=None, **environment):
    """One run; returns the scenario, and what went wrong."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
    place = pathlib.Path(tempfile.mkdtemp(prefix="vhf-", dir=shm))
    scenario, wrong = None, None
    try:
        scenario = kind(build, plain, place, **environment)
        scenario.wanted = wanted
        scenario.run()
    except Exception as error:  # all that can be wrong is told of all places, in the end
        log = scenario.world.daemon.log()[-40:] if scenario and scenario.world.daemon else []
        wrong = f"{type(error).__name__}: {error}\n" + "\n".join(log)
    finally:
        if scenario:
            scenario.close()
        shutil.rmtree(place, ignore_errors=True)
    return scenario, wrong


def sources(build, places):
    """For each place the function and line of the program: "finish worker.c:79"."""
    found = {}
    for program in (build / "src/vhotplug", build / "tests/cli/vhotplug-stub"):
        offsets = {place: match[1] for place in places if (match := re.search(rf"\b{program.name}\+([0-9a-f]+)$", place))}
        lines = subprocess.run(["addr2line", "-s", "-f", "-e", program], input="\n".join(offsets.values()),
                               capture_output=True, text=True, check=True).stdout.splitlines()
        found |= {place: f"{name} {line}" for place, name, line in zip(offsets, lines[::2], lines[1::2])}
    return {place: found.get(place, "") for place in places}


def may_fail(place, source):
    """Not what is of the stand-in for the host wing, which is no part of the daemon."""
    words = f"{place.split()[1]} {source}"
    return "stub_host.c:" not in words and not words.startswith(tuple(NEVER))


@pytest.mark.parametrize("kind", [Scenario, Host], ids=["stub", "host"])
def test_each_call_that_fails_once_loses_nothing(build, plain, tmp_path, kind, monkeypatch):
    monkeypatch.setenv("ASAN_OPTIONS", ASAN)
    sites = tmp_path / "sites"
    reference, wrong = life(kind, build, plain, SOAK_SITES=str(sites))
    assert not wrong, wrong
    known = sources(build, set(sites.read_text().splitlines()))
    places = sorted(place for place, source in known.items() if may_fail(place, source))
    chosen = places if EVERY == 1 else sorted(random.Random(SEED).sample(places, -(-len(places) // EVERY)))
    print(f"{len(places)} places, {len(chosen)} of them fail", flush=True)
    failures, missed, lock = [], [], threading.Lock()

    def fail(place):
        for _ in range(3):
            scenario, wrong = life(kind, build, plain, reference.kinds, SOAK_FAIL=place)
            reached = scenario and scenario.world.control.failed()
            if reached or wrong:
                break
        with lock:
            if wrong:
                failures.append(f"--- {place}\n{known[place]}\n{wrong}")
                print(failures[-1], flush=True)
            elif not reached:
                missed.append(place)
    with concurrent.futures.ThreadPoolExecutor(LANES) as lanes:
        list(lanes.map(fail, chosen))
    print(f"{len(chosen) - len(missed)} failed, {len(missed)} were not come by again: {missed}", flush=True)
    assert not failures, f"{len(failures)} of {len(chosen)}\n" + "\n".join(failures)
    assert len(missed) * 10 <= len(chosen), missed
