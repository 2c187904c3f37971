"""What the tests of the command line share. They need no root, no VM, no USB and no udevd."""
import json
import pathlib
import shutil
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import vhotplug


def pytest_addoption(parser):
    parser.addoption("--build", default="build/gcc", help="build directory with the program")


@pytest.fixture(scope="session")
def build(request):
    return ROOT / request.config.getoption("--build")


@pytest.fixture(scope="session")
def program(build):
    return build / "src" / "vhotplug"


@pytest.fixture
def place():
    """A directory with a short name, as socket paths are short."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="vhp-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


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
    daemons = []

    def begin(*arguments, **options):
        daemon = vhotplug.Daemon(program, place, *arguments, **options)
        daemons.append(daemon)
        return daemon
    begin.daemons = daemons
    yield begin
    for daemon in daemons:
        daemon.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    begin = getattr(item, "funcargs", {}).get("start")
    if report.when == "call" and report.failed and begin:
        for daemon in begin.daemons:
            report.sections.append(("log of the daemon", "\n".join(daemon.log()[-200:])))
