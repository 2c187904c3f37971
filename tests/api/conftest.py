"""What the tests of the API share: the real daemon with a socket of its own. They need no root, VM, USB or udevd."""
import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(ROOT / "tests/cli")]

import client
import vhotplug
import world as worlds


@pytest.fixture(scope="session")
def program(build):
    return build / "src" / "vhotplug"


@pytest.fixture
def address(place):
    """Where the daemon of the test listens."""
    return place / "api.sock"


@pytest.fixture
def config(place, address):
    """Writes a configuration with one VM: API has more keys for general.api, KEYS more of the first floor. Returns
    its path."""
    def write(api=None, **keys):
        path = place / "vhotplug.conf"
        vms = [{"name": "vm1", "type": "qemu", "socket": str(place / "vm1.qmp")}]
        general = {"statePath": str(place / "state"), "api": {"unixSocket": str(address), **(api or {})}}
        path.write_text(json.dumps({"vms": vms, "general": general, **keys}))
        return path
    return write


@pytest.fixture
def start(program, place):
    """Starts daemons, and ends them after the test."""
    yield from vhotplug.starter(program, place)


@pytest.fixture
def daemon(start, config):
    """A daemon that is ready, with the configuration as config() writes it."""
    made = start("-c", config())
    made.wait_ready()
    return made


@pytest.fixture
def connect(address):
    """Connects clients, and closes them after the test."""
    clients = []

    def begin(to=None):
        clients.append(client.Client(address if to is None else to))
        return clients[-1]
    yield begin
    for one in clients:
        one.close()


@pytest.fixture
def world(build, place):
    made, end = worlds.make(build, place)
    yield made
    end()


@pytest.fixture
def ready(world):
    world.ready("vm1", "vm2")
    return world
