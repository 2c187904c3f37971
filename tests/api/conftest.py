"""What the tests of the API share: the real daemon with a socket of its own. They need no root, VM, USB or udevd."""
import json
import pathlib
import shutil
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(ROOT / "tests/cli")]

import client
import vhotplug
import world as worlds


def pytest_addoption(parser):
    parser.addoption("--build", default="build/gcc", help="build directory with the programs")


@pytest.fixture(scope="session")
def build(request):
    return ROOT / request.config.getoption("--build")


@pytest.fixture(scope="session")
def program(build):
    return build / "src" / "vhotplug"


@pytest.fixture
def place():
    """A directory with a short name, as socket paths are short."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="vha-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


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
    daemons = []

    def begin(*arguments, program=program, **options):
        daemon = vhotplug.Daemon(program, place, *arguments, **options)
        daemons.append(daemon)
        return daemon
    begin.daemons = daemons
    yield begin
    for daemon in daemons:
        daemon.close()


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


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    begin = getattr(item, "funcargs", {}).get("start")
    if report.when == "call" and report.failed and begin:
        for daemon in begin.daemons:
            report.sections.append(("log of the daemon", "\n".join(daemon.log()[-200:])))
