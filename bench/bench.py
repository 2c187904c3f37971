#!/usr/bin/python3
"""Measures vhotplug against the floor: ./dev bench. docs/benchmarks.md says what is real here and what is not."""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile

import figures

# When a measurement is given up; nothing here fails because a time is long.
PATIENCE = 600
SOCKETS = "/run/bench"
API = "/run/bench/api.sock"
# Namespaces of its own, in which /sys, /dev and /run are empty, and udevd seems to run.
PREPARE = """set -e
for place in /sys /run /dev; do mount -t tmpfs -o mode=755 none $place; done
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/urandom c 1 9
mkdir -p /run/udev/data /run/bench/run /sys/bus/usb/devices /sys/bus/pci/devices /sys/class/input /sys/class/block
: >/run/udev/control
exec "$@"
"""
UNSHARE = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c"]
PORTS = 15  # of a controller of the scripted VMs
MEMORY_VMS = 16


def why_not():
    """Why nothing can be measured here, or None."""
    run = subprocess.run([*UNSHARE, PREPARE, "sh", "true"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                         check=False)
    return None if run.returncode == 0 else f"root and namespaces of its own are needed: {run.stderr.strip()}"


class World:
    """bench-world in its namespaces, and at most one program that is measured in it."""

    def __init__(self, build, vms=1, hanging=0, controllers=1):
        self.build, self.pid = build, None
        self.process = subprocess.Popen(
            [*UNSHARE, PREPARE, "sh", build / "bench/bench-world", SOCKETS, str(vms), str(hanging), str(controllers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)

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

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            raise RuntimeError(f"no answer to {words} within {PATIENCE} s")
        answer = self.process.stdout.readline()
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

    def plug(self, count, vms, forget=False):
        """[(ns to device_add, ns to attached)]"""
        return [tuple(map(int, pair.split(","))) for pair in self.tell("plug", count, vms, int(forget))]

    def counts(self):
        return [int(word) for word in self.tell("counts")]

    def memory(self):
        """KiB that are this process's alone."""
        text = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return sum(int(kib) for kib in re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", text, re.M))

    def cpu(self):
        """Seconds of CPU so far, of all its threads, also of those that have ended."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def switches(self):
        """Context switches of the threads that it has."""
        statuses = [path.read_text() for path in pathlib.Path(f"/proc/{self.pid}/task").glob("*/status")]
        return sum(int(count) for text in statuses for count in re.findall(r"ctxt_switches:\s+(\d+)", text))


# ---- configurations

def write_config(place, groups, vms):
    path = place / "vhotplug.conf"
    path.write_text(json.dumps({
        "usbPassthrough": groups,
        "vms": [{"name": f"vm{i:04}", "type": "qemu", "socket": f"{SOCKETS}/vm{i:04}.qmp"} for i in range(vms)],
        "general": {"statePath": f"{SOCKETS}/state", "api": {"enable": True, "unixSocket": API}},
    }))
    return path


def config_of_vms(place, vms):
    """A group for each VM, with one rule."""
    return write_config(place, [{"targetVm": f"vm{i:04}", "allow": [{"serial": f"vm{i:04}"}]} for i in range(vms)], vms)


def config_of_rules(place, rules):
    """One VM and so many rules, of which the last matches: before it by turns two ids and a pattern."""
    others = [{"vendorId": "1d6b", "productId": f"{i % 65536:04x}"} if i % 2 == 0 else {"productName": f"Nothing {i}.*"}
              for i in range(rules - 1)]
    return write_config(place, [{"targetVm": "vm0000", "allow": [*others, {"serial": "vm0000"}]}], 1)


# ---- measurements

def percentile(values, part):
    """The smallest value that so large a part of all values does not exceed."""
    values = sorted(values)
    return values[max(0, -(-len(values) * part // 100) - 1)]


def summary(times):
    """µs at p50, p95, p99 of both times."""
    return {name: {f"p{part}": round(percentile([pair[i] for pair in times], part) / 1000, 1) for part in (50, 95, 99)}
            for i, name in enumerate(("bytes", "attached"))}


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
        return {"devices": count, "kib": world.memory()}


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
    settings = parser.parse_args()
    if reason := why_not():
        sys.exit(f"bench: {reason}")
    found = measure(settings)
    settings.output.write_text(json.dumps(found, indent=1) + "\n")
    print(figures.table(found))
    say(f"written: {settings.output}")


if __name__ == "__main__":
    main()
