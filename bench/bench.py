#!/usr/bin/python3
"""Measures vhotplug against the floor: ./dev bench. docs/benchmarks.md says what is real here and what is not."""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

import figures
import real
from world import PORTS, World, config_of_rules, config_of_vms, percentile, percentiles, why_not

MEMORY_VMS = 16


# ---- measurements

def summary(times):
    """µs at p50, p95, p99 of both times."""
    return {name: percentiles([pair[i] / 1000 for pair in times]) for i, name in enumerate(("bytes", "attached"))}


def plugs(world, count, vms, forget=False):
    world.plug(vms, vms, forget)  # the first in each VM has it surveyed
    begin = world.cpu()
    found = summary(world.plug(count, vms, forget))
    return {**found, "cpu": round((world.cpu() - begin) / count * 1e6, 1), "memory": world.memory()}


def measure_floor(build, count):
    with World(build) as world:
        world.start_floor()
        return plugs(world, count, 1, forget=True)


def measure_plugs(build, config, count, vms=1, hanging=0):
    """One row of the table of plugs; the floor is measured just before, on the machine as it is at that time."""
    floor = measure_floor(build, count)
    with World(build, vms, hanging) as world:
        world.start_daemon(config)
        world.tell("settled", 0)
        found = plugs(world, count, min(vms - hanging, MEMORY_VMS))
    return {"daemon": found, "floor": floor,
            "ratio": {name: round(found[name]["p50"] / floor[name]["p50"], 2) for name in ("bytes", "attached")}}


def measure_burst(build, place, count):
    """So many devices for one VM: present at the start, and all at once."""
    config, controllers = config_of_vms(place, 1), -(-count // PORTS)
    found = {"devices": count}
    with World(build, controllers=controllers) as world:
        world.tell("make", 0, count, 1)
        world.start_daemon(config, "-a")
        [settled] = world.tell("settled", count)
        found["start"] = {"us": int(settled) / 1000, **dict(zip(("connections", "commands"), world.counts()))}
    with World(build, controllers=controllers) as world:
        world.start_daemon(config)
        world.tell("settled", 0)
        before = world.counts()
        world.tell("make", 0, count, 1)
        [pair] = world.tell("burst", 0, count)
        world.tell("settled", count)
        delta = [after - earlier for after, earlier in zip(world.counts(), before)]
        found["once"] = {"us": int(pair.split(",")[1]) / 1000, **dict(zip(("connections", "commands"), delta))}
    with World(build, controllers=controllers) as world:
        world.start_floor()
        world.tell("make", 0, count, 1)
        [pair] = world.tell("burst", 0, count)
        found["floor"] = {"us": int(pair.split(",")[1]) / 1000, **dict(zip(("connections", "commands"), world.counts()))}
    return found


def measure_start(build, place, count):
    """µs from the start of the program until it says that it is ready."""
    config, found = config_of_vms(place, 1), {"daemon": [], "floor": []}
    for _ in range(count):
        with World(build) as world:
            found["floor"].append(world.start_floor())
        with World(build) as world:
            found["daemon"].append(world.start_daemon(config))
    return {name: {f"p{part}": round(percentile(times, part) / 1000, 1) for part in (50, 95)}
            for name, times in found.items()}


def measure_memory(build, place, count):
    """KiB with so many devices, all in VMs."""
    controllers = -(-count // (MEMORY_VMS * PORTS))
    with World(build, MEMORY_VMS, 0, controllers) as world:
        world.tell("make", 0, count, MEMORY_VMS)
        world.start_daemon(config_of_vms(place, MEMORY_VMS), "-a")
        world.tell("settled", count)
        return {"devices": count, "kib": world.memory(), "files": world.memory("Clean")}


def measure_idle(build, place, seconds):
    """What ten devices in VMs cost when nothing happens."""
    with World(build, MEMORY_VMS) as world:
        world.tell("make", 0, 10, MEMORY_VMS)
        world.start_daemon(config_of_vms(place, MEMORY_VMS), "-a")
        world.tell("settled", 10)
        switches, cpu = world.switches(), world.cpu()
        world.tell("wait", seconds * 1000000000)
        return {"seconds": seconds, "switches": world.switches() - switches, "cpu": round(world.cpu() - cpu, 2)}


# ---- sizes

def minimal_packages():
    """What the smallest Debian has: what is essential, apt, and all that these need."""
    fields = "${Package}\t${Essential}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    lines = subprocess.run(["dpkg-query", "-W", "-f", fields], capture_output=True, text=True, check=True).stdout
    needs, todo, provided = {}, ["apt"], {}
    for line in lines.splitlines():
        name, essential, depends, provides = line.split("\t")
        needs[name] = [re.split(r"[ :(]", part.split("|")[0].strip())[0] for part in depends.split(",")]
        provided.update({part.strip().split(" ")[0]: name for part in provides.split(",") if part.strip()})
        if essential == "yes":
            todo.append(name)
    found = set()
    while todo:
        name = todo.pop()
        name = name if name in needs else provided.get(name)
        if name and name not in found:
            found.add(name)
            todo += needs[name]
    return found


def package_of(path):
    for name in (path, path.removeprefix("/usr")):
        run = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True, check=False)
        if run.returncode == 0:
            return run.stdout.split(":")[0]
    return None


def stripped_size(program, place):
    copy = place / "stripped"
    subprocess.run(["strip", "-o", copy, program], check=True)
    return copy.stat().st_size


def measure_sizes(build, place):
    """Bytes of the program, of each library that it needs, and of those that the smallest Debian lacks."""
    found = {}
    minimal = minimal_packages()
    for name, program in (("daemon", build / "src/vhotplug"), ("floor", build / "bench/bench-floor")):
        text = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        paths = [os.path.realpath(path) for path in re.findall(r"(?:=> |^\s+)(/\S+)", text, re.M)]
        sizes = {path: pathlib.Path(path).stat().st_size for path in paths}
        packages = {path: package_of(path) for path in paths}
        found[name] = {"program": stripped_size(program, place), "libraries": sum(sizes.values()),
                       "added": {pathlib.Path(path).name: size for path, size in sizes.items()
                                 if packages[path] not in minimal}}
    return found


# ---- all of it

def machine():
    release = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line)
    model = re.search(r"^model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return {"system": release.get("PRETTY_NAME", "").strip('"'), "kernel": platform.release().split("-")[0],
            "processors": os.cpu_count(), "model": model.group(1) if model else platform.machine(),
            "load": round(os.getloadavg()[0], 2)}


def say(text):
    print(f"== {datetime.datetime.now():%H:%M:%S}  {text}", flush=True)


def measure(settings):
    build = settings.build.resolve()
    found = {"date": f"{datetime.date.today()}", "machine": machine(), "plugs": settings.plugs,
             "rules": [], "vms": [], "bursts": [], "memory": []}
    place = pathlib.Path(tempfile.mkdtemp(prefix="vhp-bench-", dir="/tmp"))
    try:
        for rules in settings.rules:
            say(f"plugs with {rules} rules")
            row = measure_plugs(build, config_of_rules(place, rules), settings.plugs)
            found["rules"].append({"rules": rules, **row})
        for vms in settings.vms:
            for hanging in sorted({0, min(1, vms - 1), vms // 2}):
                say(f"plugs with {vms} VMs of which {hanging} hang")
                row = measure_plugs(build, config_of_vms(place, vms), settings.plugs, vms, hanging)
                found["vms"].append({"vms": vms, "hanging": hanging, **row})
        for count in settings.bursts:
            say(f"{count} devices at once")
            found["bursts"].append(measure_burst(build, place, count))
        say("starts")
        found["start"] = measure_start(build, place, settings.starts)
        for count in settings.devices:
            say(f"memory with {count} devices")
            found["memory"].append(measure_memory(build, place, count))
        say(f"{settings.idle} idle seconds")
        found["idle"] = measure_idle(build, place, settings.idle)
        found["sizes"] = measure_sizes(build, place)
        say(f"{settings.lab} real plugs each in the lab")
        found["lab"] = real.measure(build, settings.lab, say)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    found["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    return found


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build/gcc"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/bench.json"))
    parser.add_argument("--plugs", type=int, default=1000)
    parser.add_argument("--rules", type=numbers, default=[1, 100, 1000, 10000])
    parser.add_argument("--vms", type=numbers, default=[1, 64, 512])
    parser.add_argument("--bursts", type=numbers, default=[1, 16, 32, 64, 127])
    parser.add_argument("--devices", type=numbers, default=[10, 100, 1000])
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--idle", type=int, default=60)
    parser.add_argument("--lab", type=int, default=100, help="real plugs in the lab, for each who is measured; 0: no lab")
    settings = parser.parse_args()
    if reason := why_not():
        sys.exit(f"bench: {reason}")
    found = measure(settings)
    settings.output.write_text(json.dumps(found, indent=1) + "\n")
    print(figures.table(found))
    say(f"written: {settings.output}")


if __name__ == "__main__":
    main()
