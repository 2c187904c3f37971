"""What rules, devices and VMs cost in memory, in KiB over a daemon that has one of each: far less than they once did."""
import os
import signal
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import world

VMS = 16


@pytest.fixture(scope="module")
def build(request):
    if reason := world.why_not():
        pytest.skip(reason)
    return (ROOT / request.config.getoption("--build")).resolve()


@pytest.fixture(scope="module")
def least(build, tmp_path_factory):
    return memory(build, world.config_of_rules(tmp_path_factory.mktemp("least"), 1), devices=1, vms=1)


def memory(build, config, devices, vms, reloaded=None):
    """KiB with so many devices, all in VMs that all have said what they have."""
    with world.World(build, vms, 0, max(1, -(-devices // (vms * world.PORTS)))) as here:
        here.tell("make", 0, devices, vms)
        here.start_daemon(config, "-a")
        here.tell("settled", devices)
        if reloaded:
            config.write_text(reloaded.read_text())
            os.kill(here.pid, signal.SIGHUP)
            here.plug(4, 1)  # the signal has its turn before the last of them
        return here.memory()


def test_what_was_made_of_the_configuration_file_is_given_back(build, least, tmp_path):
    """The tree of its JSON takes more than twice the room of 10,000 rules: 14 MiB in all."""
    assert memory(build, world.config_of_rules(tmp_path, 10000), devices=1, vms=1) - least < 7 * 1024


def test_a_reload_gives_back_too(build, least, tmp_path):
    (tmp_path / "more").mkdir()
    more = world.config_of_rules(tmp_path / "more", 10000)
    assert memory(build, world.config_of_rules(tmp_path, 1), devices=0, vms=1, reloaded=more) - least < 7 * 1024


def test_threads_and_readings_of_devices_keep_nothing(build, least, tmp_path):
    """2 MiB for 100 devices, when each thread had a heap of its own and each VM room for the most it could ever say."""
    assert memory(build, world.config_of_vms(tmp_path, VMS), devices=100, vms=VMS) - least < 1280


def test_a_vm_takes_room_for_what_it_has(build, least, tmp_path):
    """30 KiB each, when it was for the most that any could have."""
    assert memory(build, world.config_of_vms(tmp_path, 128), devices=128, vms=128) - least < 2 * 1024
