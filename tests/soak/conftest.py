"""What soak and fault injection share; see CONTRIBUTING.md."""
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / room) for room in ("soak", "cli", "api")]

import world as worlds


def pytest_addoption(parser):
    parser.addoption("--plain", default=None, help="one without sanitizers, if that is not: for the VMs and the figures")


@pytest.fixture(scope="session")
def plain(request, build):
    other = request.config.getoption("--plain")
    return ROOT / other if other else build


@pytest.fixture
def place():
    """A directory in memory, as the daemon's own is, with a short name, as socket paths are short."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="vhs-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def world(plain, place):
    made = worlds.World(plain, plain, place)
    yield made
    made.close()
