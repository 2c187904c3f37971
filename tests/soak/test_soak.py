"""Devices come and go and VMs are restarted, thousands of times: nothing grows, and each device ends where the rules say.

SOAK_CYCLES: how often devices are unplugged. SOAK_RESTARTS: how often VMs are killed and started. SOAK_PLUGS: how often
devices are plugged into a host of files. SOAK_RESULTS: a directory for the figures.
"""
import json
import os
import pathlib
import time

import pytest

import hosts
import scenarios
from crosvm import until
from world import QEMUS, figures

CYCLES, RESTARTS = int(os.environ.get("SOAK_CYCLES", 300)), int(os.environ.get("SOAK_RESTARTS", 30))
PLUGS = int(os.environ.get("SOAK_PLUGS", 200))
SAMPLES = 40
VMS = (*QEMUS, "c1")
# What is the same each time that all is at rest.
COUNTS = ("descriptors", "epoll", "timers", "watches", "threads")
# Bytes of the heap and of private memory that was written, which may be more at the end than when a tenth was done. The
# heap's own is exact but for lists that keep room for more, the process's is of pages.
HEAP_MORE, WRITTEN_MORE = 4096, 256 * 1024


class Soak:
    def __init__(self, world):
        self.world, self.restarts, self.rounds, self.samples = world, 0, 0, []
        self.began = time.monotonic()

    def cycles(self):
        return self.world.daemon.count("unplugged")

    def plug(self):
        """All devices go and come back: at once, after the VMs are empty, or so fast that no VM gets the first ones."""
        devices, kind = self.world.devices, self.rounds % 3
        self.rounds += 1
        if kind == 1:
            devices.pull(*VMS)
            self.world.settle()
        elif kind == 2:
            devices.plug(*VMS)
        devices.plug(*VMS)
        self.world.settle()

    def restart(self):
        # One in 100 is the crosvm, whose first answers take seconds.
        name = "c1" if self.restarts % 100 == 99 else QEMUS[self.restarts % len(QEMUS)]
        self.restarts += 1
        self.world.restart(name)
        self.world.settle()

    def rest(self):
        """Waits until what is open is what was open at the first time; returns the figures."""
        world, last = self.world, None

        def same():
            nonlocal last
            before = last
            try:
                last = figures(world)
            except FileNotFoundError:
                return False  # closed meanwhile
            wanted = self.samples[0] if self.samples else before
            return before and all(before[name] == last[name] == wanted[name] for name in COUNTS) and \
                before["heap"] == last["heap"]
        until(same, world.daemon, "what is open comes back to what was open at first")
        return last

    def calm(self):
        until(lambda: set(self.world.states()) == {"attached"}, self.world.daemon, "the daemon knows that all are attached")

    def sample(self):
        self.calm()
        found = {"cycles": self.cycles(), "restarts": self.restarts, "seconds": round(time.monotonic() - self.began),
                 **self.rest()}
        self.samples.append(found)
        print(json.dumps(found), flush=True)

    def run(self, times=1):
        steps = 0
        while self.cycles() < times * CYCLES or self.restarts < times * RESTARTS:
            if self.cycles() * RESTARTS <= self.restarts * CYCLES:
                self.plug()
            else:
                self.restart()
            steps = max(self.cycles() / max(CYCLES, 1), self.restarts / max(RESTARTS, 1))
            if steps * SAMPLES >= len(self.samples):
                self.sample()
        self.sample()


class Wing(Soak):
    """Devices of each kind on a host of files, heard of and handed over by the host's own wing."""

    def __init__(self, scenario):
        super().__init__(scenario.world)
        self.scenario, self.plugged = scenario, 0

    def cycles(self):
        return self.plugged

    def calm(self):
        self.scenario.settle()

    def plug(self):
        """All go and come back: after the VMs are empty, or so fast that no VM can have let go of the first ones."""
        host, scenario = self.scenario.host, self.scenario
        devices = [("1-1", "q1"), ("1-2", "q1"), ("2-1", "q2"), ("2-2", "q2")]
        for name, _ in devices:
            if f"usb:{name}" in host.vms:
                host.pull_usb(name)
        host.pull_input()
        host.pull_function("0000:02:00.1")
        self.rounds += 1
        if self.rounds % 2:
            scenario.settle()
        for name, vm in devices:
            host.plug_usb(name, vm)
        host.plug_input("q1")
        host.plug_function("0000:02:00.1", "q2")
        self.plugged += len(devices) + 2
        scenario.settle()

    def run(self, times=1):
        while self.plugged < times * PLUGS:
            self.plug()
            if self.plugged * SAMPLES >= len(self.samples) * PLUGS:
                self.sample()
        self.sample()


def write(name, samples):
    if directory := os.environ.get("SOAK_RESULTS"):
        pathlib.Path(directory, f"{name}.json").write_text(json.dumps(samples, indent=1) + "\n")


def grown(samples):
    """Of which figures there is more at the end than when a tenth was done."""
    early, last = samples[len(samples) // 10], samples[-1]
    return {name: (early, last) for name, more in (("heap", HEAP_MORE), ("written", WRITTEN_MORE))
            if last[name] > early[name] + more}


def judge(soak):
    """A list that has come to its size late grows once; what is lost each time goes on growing, in as many again."""
    count = len(soak.samples)
    if grown(soak.samples):
        soak.run(2)
        assert not grown(soak.samples[count - 1:]), grown(soak.samples[count - 1:])


def test_nothing_grows_and_each_device_ends_where_the_rules_say(world):
    world.devices.plug(*VMS)
    for name in VMS:
        world.start_vm(name)
    world.begin().wait_ready()
    world.settle()
    soak = Soak(world)
    for _ in range(3):
        soak.plug()
        soak.restart()
    try:
        soak.run()
        judge(soak)
    finally:
        write("soak", soak.samples)
    world.vms["c1"].check()
    assert not world.daemon.matching("^(warning|error) "), world.daemon.matching("^(warning|error) ")
    assert world.daemon.stop() == 0


def test_nothing_grows_when_the_host_s_own_wing_hands_devices_over(plain, place):
    if reason := hosts.why_not():
        pytest.skip(reason)
    scenario = scenarios.Devices(plain, plain, place)
    try:
        scenario.host.pull_disk("4-1")  # it is tried again and again, so that nothing comes to rest
        scenario.start()
        soak = Wing(scenario)
        for _ in range(40):  # lists have come to their size, and threads to their memory
            soak.plug()
        soak.plugged = 0
        try:
            soak.run()
            judge(soak)
        finally:
            write("wing", soak.samples)
        daemon = scenario.world.daemon
        assert not daemon.matching("^(warning|error) "), daemon.matching("^(warning|error) ")
        assert daemon.stop() == 0
    finally:
        scenario.close()
