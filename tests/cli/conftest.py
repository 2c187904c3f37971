"""What the tests of the command line share. They need no root, no VM, no USB and no udevd."""
import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import vhotplug


@pytest.fixture(scope="session")
def program(build):
    return build / "src" / "vhotplug"


@pytest.fixture
def config(place):
    """Writes a configuration with one VM and what the daemon keeps in PLACE; what is given is added to it. Returns its
    path."""
    def write(text=None, name="vhotplug.conf", **keys):
        path = place / name
        if text is None:
            vms = [{"name": "vm1", "type": "qemu", "socket": str(place / "vm1.qmp")}]
            kept = {"statePath": str(place / "state"), "api": {"unixSocket": str(place / "api.sock")}}
            text = json.dumps({"vms": vms, **keys, "general": {**kept, **keys.get("general", {})}})
        path.write_text(text, errors="surrogateescape")
        return path
    return write


@pytest.fixture
def start(program, place):
    """Starts daemons and ends them after the test."""
    yield from vhotplug.starter(program, place)
