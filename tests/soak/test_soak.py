"""Devices come and go and VMs are restarted, thousands of times: nothing grows, and each device ends where the rules say.

SOAK_CYCLES: how often devices are unplugged. SOAK_RESTARTS: how often VMs are killed and started. SOAK_RESULTS: a
directory for the figures.
"""
import json
import os
import pathlib
import time

from crosvm import until
from world import QEMUS, figures

CYCLES, RESTARTS = int(os.environ.get("SOAK_CYCLES", 300)), int(os.environ.get("SOAK_RESTARTS", 30))
SAMPLES = 40
VMS = (*QEMUS, "c1")
# What is the same each time that all is at rest.
COUNTS = ("descriptors", "epoll", "timers", "watches", "threads")
# Bytes of the heap and of private memory that may be more at the end than when a tenth was done. The heap's own
# is exact but for lists that keep room for more, the process's is of pages.
HEAP_MORE, PRIVATE_MORE = 4096, 256 * 1024


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

    def sample(self):
        world = self.world
        until(lambda: set(world.states()) == {"attached"}, world.daemon, "the daemon knows that all are attached")
        found = {"cycles": self.cycles(), "restarts": self.restarts, "seconds": round(time.monotonic() - self.began),
                 **self.rest()}
        self.samples.append(found)
        print(json.dumps(found), flush=True)

    def run(self):
        steps = 0
        while self.cycles() < CYCLES or self.restarts < RESTARTS:
            if self.cycles() * RESTARTS <= self.restarts * CYCLES:
                self.plug()
            else:
                self.restart()
            steps = max(self.cycles() / max(CYCLES, 1), self.restarts / max(RESTARTS, 1))
            if steps * SAMPLES >= len(self.samples):
                self.sample()
        self.sample()


def write(samples):
    if directory := os.environ.get("SOAK_RESULTS"):
        pathlib.Path(directory, "soak.json").write_text(json.dumps(samples, indent=1) + "\n")


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
    finally:
        write(soak.samples)
    early, last = soak.samples[len(soak.samples) // 10], soak.samples[-1]
    assert last["heap"] <= early["heap"] + HEAP_MORE, (early, last)
    assert last["private"] <= early["private"] + PRIVATE_MORE, (early, last)
    world.vms["c1"].check()
    assert not world.daemon.matching("^(warning|error) "), world.daemon.matching("^(warning|error) ")
    assert world.daemon.stop() == 0
