"""What the daemon could not save is saved as soon as that can be done."""
import json
import signal

import pytest

from crosvm import Devices, until


@pytest.fixture
def blocked(place):
    """A directory for what is saved; a file is in its place."""
    path = place / "blocked"
    path.write_text("")
    return path


def unblock(path):
    path.unlink()
    path.mkdir()


@pytest.fixture
def failing(start, config, blocked):
    """A daemon that has failed to save what people chose."""
    path = config(general={"persistency": False})
    daemon = start("-c", path)
    daemon.wait_ready()
    text = json.loads(path.read_text())
    text["general"] = {"persistency": True, "statePath": str(blocked / "state"), "api": {"enable": False}}
    path.write_text(json.dumps(text))
    daemon.signal(signal.SIGHUP)
    daemon.wait_line("^warning .*/state cannot be written")
    return daemon


def test_what_people_chose_is_saved_later(failing, blocked):
    unblock(blocked)
    until((blocked / "state").exists, failing, "saved")
    assert failing.stop() == 0
    assert len(failing.matching("cannot be written")) == 1


def test_what_people_chose_is_saved_at_the_end(failing, blocked):
    unblock(blocked)
    assert failing.stop() == 0
    assert (blocked / "state").exists()


def test_the_memory_is_saved_later(start, config, build, place, blocked):
    devices = Devices(place)
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"portPath": "1-*"}]}])
    daemon = start("-a", "-c", path, program=build / "tests/cli/vhotplug-stub",
                   environment=devices.environment(place, RUNTIME_DIRECTORY=str(blocked)))
    daemon.wait_ready()
    devices.plug(usb_1_2="twin")
    daemon.wait_line("1-2.*: waits")  # the first scan is over: what comes now is plugged, and so remembered
    devices.plug(usb_1_1="mouse")
    daemon.wait_line("^warning .*/memory.json cannot be written")
    unblock(blocked)
    until((blocked / "memory.json").exists, daemon, "saved")
    assert daemon.stop() == 0
