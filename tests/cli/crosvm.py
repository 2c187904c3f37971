"""The fake crosvm (tests/crosvm) as a VM of a test, and the daemon with devices that the test makes up."""
import json
import os
import signal
import subprocess
import sys
import time

from conftest import ROOT
from vhotplug import PATIENCE, sanitizers

# Stand-ins for USB device nodes. The first three are equal to the last detail but where they are plugged.
NODES = {"mouse": ("/dev/null", "1:3", "046d:c077"), "twin": ("/dev/zero", "1:5", "046d:c077"),
         "third": ("/dev/urandom", "1:9", "046d:c077"), "stick": ("/dev/full", "1:7", "0781:5567")}
NUMBER = {name: number for name, (_, number, _) in NODES.items()}


def kept_in(directory):
    """general, so that the daemon's socket and state file are the test's own."""
    return {"statePath": str(directory / "state"), "api": {"unixSocket": str(directory / "api.sock")}}


class Crosvm:
    """A VM. Its socket is PATH."""

    def __init__(self, path, *modes):
        self.path = path
        table = [f"--device={number}={identity}" for _, number, identity in NODES.values()]
        self.process = subprocess.Popen([sys.executable, str(ROOT / "tests/crosvm/fake_crosvm.py"), str(path), *table,
                                         *modes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self.process.stdout.readline()) == "up"

    def order(self, words):
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def nodes(self):
        """The device nodes that it holds, each with the port; a foreign device has none."""
        return sorted(number for number in self.order("nodes").values() if number)

    def count(self, kind):
        return sum(request["kind"] == kind for request in self.order("log"))

    def check(self):
        violations = self.order("check")
        assert not violations, violations

    def kill(self):
        """As crosvm is killed: the socket's file stays."""
        self.process.kill()
        self.close()

    def stop(self):
        """In good order; fails if a client has ever done what it must not."""
        self.check()
        self.process.stdin.write("quit\n")
        self.process.stdin.flush()
        self.close()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(PATIENCE)


class Devices:
    """What is plugged into the host of a daemon: the file that stub_host.c reads."""

    def __init__(self, directory):
        self.path, self.plugged, self.instances = directory / "devices", {}, 0
        self.write()

    def plug(self, **places):
        """plug(usb_1_2="mouse"): a fresh instance in each of the places. In place of a name, any file will do."""
        for place, name in places.items():
            self.instances += 1
            kind, _, port = place.partition("_")
            node, _, identity = NODES.get(name, (name, None, "0000:0000"))
            self.plugged[place] = f"{kind}:{port.replace('_', '-', 1)} {self.instances} {identity} {node}\n"
        self.write()

    def pull(self, *places):
        for place in places:
            del self.plugged[place]
        self.write()

    def write(self):
        new = self.path.with_suffix(".new")
        new.write_text("".join(self.plugged.values()))
        os.rename(new, self.path)

    def environment(self, directory, **more):
        (directory / "run").mkdir(exist_ok=True)
        return {"RUNTIME_DIRECTORY": str(directory / "run"), "NOTIFY_SOCKET": str(directory / "notify"),
                "VHOTPLUG_TEST_DEVICES": str(self.path), **more, **sanitizers()}


def until(condition, daemon=None, why=""):
    """Waits until CONDITION() is true, as long as the daemon lives."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert daemon is None or daemon.process.poll() is None, "the daemon ended:\n" + "\n".join(daemon.log())
        assert time.monotonic() < end, f"in vain: {why}\n" + "\n".join(daemon.log() if daemon else [])
        time.sleep(0.02)


def was_killed(daemon):
    return daemon.process.poll() == -signal.SIGKILL
