"""What the tests of vhotplugctl share: the real program against a scripted daemon, without privileges."""
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import ctl


@pytest.fixture(scope="session")
def program(build):
    return build / "src" / "ctl" / "vhotplugctl"


@pytest.fixture
def classic_program(program, place):
    """The same program under its other name."""
    link = place / "vhotplugcli"
    os.symlink(program, link)
    return link


@pytest.fixture
def peer(place):
    """Starts scripted daemons and ends them after the test."""
    peers = []

    def begin(replies=None, **options):
        made = ctl.Peer(place / "socket", replies or {}, **options)
        peers.append(made)
        return made
    yield begin
    for one in peers:
        one.close()


@pytest.fixture
def run(program, place):
    """Runs vhotplugctl against the scripted daemon of this test."""
    def begin(*arguments, **options):
        return ctl.run(program, "-s", place / "socket", *arguments, **options)
    return begin


@pytest.fixture
def classic(classic_program, place):
    """Runs vhotplugcli against the scripted daemon of this test."""
    def begin(*arguments, **options):
        return ctl.run(classic_program, "-t", "unix", "-u", place / "socket", *arguments, **options)
    return begin


@pytest.fixture
def start(program):
    """Starts programs that run until the test ends."""
    runs = []

    def begin(*arguments, executable=program, **options):
        made = ctl.Running(executable, *arguments, **options)
        runs.append(made)
        return made
    yield begin
    for one in runs:
        one.close()
