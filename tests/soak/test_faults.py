"""Each system call of the daemon fails once at each place that makes it, in each phase of a scenario: nothing is lost.

A first run writes down the places (fail.c); then there is one run for each. SOAK_FAULTS: every so manieth place, chosen
by a fixed seed; 1: all. SOAK_LANES: so many runs side by side.
"""
import concurrent.futures
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import threading

import pytest

import hosts
import scenarios

EVERY, LANES = int(os.environ.get("SOAK_FAULTS", 40)), int(os.environ.get("SOAK_LANES", 3))
SEED = 2026
# What cannot fail, and why.
NEVER = {"write finish worker.c:": "the counter of an eventfd that is read at each turn has room",
         "access udevd_runs monitor.c:": "/run is in memory and has the file or not",
         "access load_vfio bind.c:": "sysfs has the driver or not"}
# Nor what a library looks at by its name, in sysfs, /run and among the kernel's modules, or in a file that it has open:
# only for want of memory, which ends the daemon anyway.
NEVER_OF_LIBRARIES = r"[0-9]+ (access|faccessat|fstat64|fstatat64|lstat64|readlinkat) lib(udev|systemd|mount|acl|kmod)\."
ASAN = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"


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
    return "stub_host.c:" not in words and not words.startswith(tuple(NEVER)) and not re.match(NEVER_OF_LIBRARIES, place)


@pytest.mark.parametrize("kind", [scenarios.Scenario, scenarios.Host, scenarios.Devices], ids=["stub", "host", "devices"])
def test_each_call_that_fails_once_loses_nothing(build, plain, tmp_path, kind, monkeypatch):
    if kind is scenarios.Devices and (reason := hosts.why_not()):
        pytest.skip(reason)
    monkeypatch.setenv("ASAN_OPTIONS", ASAN)
    sites = tmp_path / "sites"
    reference, wrong = life(kind, build, plain, SOAK_SITES=str(sites))
    assert not wrong, wrong
    known = sources(build, set(sites.read_text().splitlines()))
    places = sorted(place for place, source in known.items() if may_fail(place, source))
    every = EVERY if EVERY == 1 or kind is not scenarios.Devices else EVERY * 3  # it has more of them, and they take longer
    chosen = sorted(random.Random(SEED).sample(places, -(-len(places) // every)))
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
