#!/usr/bin/python3
"""Real plugs, timed: the lab host is a VM with a stock kernel, a USB controller and udevd, and its own monitor plugs. It is
an emulated machine, whose times are not times: the same plugs are timed for the daemon and for the floor, by turns. As a
program it puts these figures alone into a file of figures: bench/real.py build/gcc build/bench.json 100"""
import datetime
import json
import os
import pathlib
import socket
import sys
import time

from world import SOCKETS, Told, configuration, percentiles

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/lab"))

from guest import Guest
from lab import Lab, wait_for

PORT = "/dev/virtio-ports/bench"
SERIAL = "vm0000"  # by which the configuration takes them
# What is plugged, by turns, and where.
DEVICES = [("usb-mouse", 3), ("usb-kbd", 4), ("usb-storage", 1)]
BLOCK = 25  # plugs until it is the other's turn
CONFIG = f"{SOCKETS}/vhotplug.conf"


def open_port(lab):
    """A socket whose other end is PORT in the lab host."""
    path = f"{lab.work}/bench"
    lab.monitor.command("chardev-add", id="bench", backend={"type": "socket", "data": {
        "server": True, "wait": False, "addr": {"type": "unix", "data": {"path": path}}}})
    end = socket.socket(socket.AF_UNIX)
    end.connect(path)
    lab.monitor.command("device_add", driver="virtserialport", id="bench", chardev="bench", name="bench")
    wait_for("the lab host to have the port", lambda: lab.good(f"test -c {PORT}"))
    return end


class LabWorld(Told):
    """bench-world in the lab host, at that port. It goes before all others, as it is to see an event when it comes."""

    def __init__(self, lab, port):
        self.lab = lab
        program = f"chrt --reset-on-fork --fifo 1 {lab.build}/bench/bench-world {SOCKETS} 1 0 1"
        command = f"setsid {program} 0<>{PORT} 1>&0 2>{SOCKETS}/errors & echo $!"
        self.process = int(lab.text(f"mkdir -p {SOCKETS}/run; {command}"))
        super().__init__(lab.build, port.makefile("w"), port.makefile("r"))

    def __enter__(self):
        self.tell("watch")
        return self

    def __exit__(self, *_):
        # the port can be open once
        self.lab.run(f"kill -KILL {self.process} {self.pid or ''}; while kill -0 {self.process}; do sleep 0.1; done; "
                     f"rm -rf {SOCKETS}", check=False)

    def tell(self, *words):
        try:
            return super().tell(*words)
        except RuntimeError as error:
            raise RuntimeError(f"{error} {self.lab.text(f'tail -n 1 {SOCKETS}/errors')}".strip()) from error

    def plug(self, number, forget):
        """ns from the kernel's event: (udevd's event, device_add, its answer or 0, attached)"""
        driver, port = DEVICES[number % len(DEVICES)]
        self.lab.plug(f"d{number % len(DEVICES)}", driver, port, wait=False, serial=SERIAL)
        times = tuple(int(word) for word in self.tell("seen"))
        self.lab.unplug(f"d{number % len(DEVICES)}")
        self.tell("gone", int(forget))
        return times


def block(lab, port, who, vm, count):
    """COUNT plugs for WHO; the first one before these, by which a VM is surveyed, does not count."""
    with LabWorld(lab, port) as world:
        if vm:
            world.tell("proxy", vm.socket)
        if who == "floor":
            world.start_floor()
        else:
            lab.write(CONFIG, configuration([{"targetVm": "vm", "allow": [{"serial": SERIAL}]}],
                                            {"vm": f"{SOCKETS}/{'proxy' if vm else 'vm0000'}.qmp"}))
            world.start_daemon(CONFIG)
            world.tell("settled", 0)
        return [world.plug(number, who == "floor") for number in range(-1, count)][1:]


def summary(times):
    """µs of the emulated machine, and what part of the way from the kernel's event until the attach was told is whose."""
    own = [attached - udevd - (answer - bytes if answer else 0) for udevd, bytes, answer, attached in times]
    ways = {"udevd": [row[0] for row in times], "bytes": [row[1] - row[0] for row in times],
            "attached": [row[3] - row[0] for row in times], "vm": [row[2] - row[1] if row[2] else 0 for row in times]}
    return {"plugs": len(times), "us": {name: percentiles([way / 1000 for way in ns]) for name, ns in ways.items()},
            "share": {name: percentiles([part / row[3] for part, row in zip(parts, times)], 3)
                      for name, parts in (("udevd", ways["udevd"]), ("own", own), ("vm", ways["vm"]))}}


def figures_of(times):
    """TIMES: {"daemon", "floor" and "qemu": [what LabWorld.plug() gave]}"""
    found = {who: summary(rows) for who, rows in times.items()}
    daemon, floor = found["daemon"]["us"], found["floor"]["us"]
    return {**found, "ratio": {way: {part: round(value / floor[way][part], 2) for part, value in daemon[way].items()}
                               for way in ("bytes", "attached")}}


def timed(lab, count, say):
    port, vm, times = open_port(lab), Guest(lab, "vm1"), {"floor": [], "daemon": [], "qemu": []}
    vm.start()
    for begin in range(0, count, BLOCK):
        for who, rows in times.items():
            say(f"real plugs: {who}, from {begin} of {count}")
            rows += block(lab, port, who, vm if who == "qemu" else None, min(BLOCK, count - begin))
    return figures_of(times)


def load():
    return round(os.getloadavg()[0], 2)


def measure(build, count, say):
    """The figures of COUNT plugs each, or {"missing": why there are none}."""
    if count == 0:
        return {"missing": "not asked for"}
    lab, found, began = None, {"date": f"{datetime.date.today()}", "load": load()}, time.monotonic()
    try:
        lab = Lab(build, progress=say)
        found.update(timed(lab.boot(), count, say))
    except Exception as error:  # whatever it is, the other figures were measured
        return {"missing": str(error).split("\n")[0]}
    finally:
        if lab:
            lab.close()
    return {**found, "load_after": load(), "minutes": round((time.monotonic() - began) / 60, 1)}


def main():
    build, file = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
    found = json.loads(file.read_text())
    found["lab"] = measure(build, int(sys.argv[3]), print)
    file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
