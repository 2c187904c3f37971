"""The daemon's life: ready, reload, end, and what it leaves open."""
import os
import pathlib
import re
import signal
import time

import pytest

from vhotplug import open_files, sanitizers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_asked(start, config, number):
    daemon = start("-c", config())
    daemon.wait_ready()
    daemon.signal(number)
    assert daemon.wait_end() == 0
    assert not daemon.matching("^error ")


def test_it_is_ready_and_says_when_it_stops(start, config):
    daemon = start("-c", config())
    daemon.wait_notice("READY=1")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_end() == 0
    assert b"STOPPING=1" in daemon.notify.recv(65536, 0)


def test_it_is_not_ready_with_a_bad_file(start, config):
    daemon = start("-c", config("nonsense"))
    assert daemon.wait_end() == 1
    with pytest.raises(BlockingIOError):
        daemon.notify.setblocking(False)
        daemon.notify.recv(65536)


def test_a_vm_that_is_not_running_is_said_once(start, config):
    daemon = start("-c", config())
    daemon.wait_ready()
    daemon.wait_line("^info vm1 is not running")
    assert daemon.stop() == 0
    assert len(daemon.matching("vm1 is not running")) == 1


def reload(daemon):
    daemon.signal(signal.SIGHUP)
    notice = daemon.wait_notice("RELOADING=1")
    assert 0 < int(notice["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    daemon.wait_notice("READY=1")


def test_reload_takes_the_new_file(start, config, place):
    daemon = start("-c", config())
    daemon.wait_ready()
    config(vms=[{"name": "other", "type": "qemu", "socket": str(place / "other.qmp")}])
    reload(daemon)
    daemon.wait_line("other is not running")
    assert daemon.stop() == 0
    assert not daemon.matching("^(error|warning) .*vhotplug.conf")


@pytest.mark.parametrize("text", ["", "nonsense", '{"vms": 1}', '{"usbPassthrough": [{"targetVm": "vm9"}]}'])
def test_f12_reload_of_a_bad_file_keeps_the_old(start, config, text):
    path = config()
    daemon = start("-c", path)
    daemon.wait_ready()
    config(text)
    reload(daemon)
    daemon.wait_line(f"^error {path}: not reloaded, the running configuration stays")
    assert len(daemon.matching(f"^error {path}")) >= 2
    config()
    reload(daemon)
    assert daemon.stop() == 0
    assert len(daemon.matching("not reloaded")) == 1


def test_f12_a_bad_pattern_on_reload_keeps_the_old(start, config):
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"productName": "mouse"}]}])
    daemon = start("-c", path)
    daemon.wait_ready()
    config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"productName": "mouse("}]}])
    reload(daemon)
    daemon.wait_line(r"^error .*usbPassthrough\[0\]\.allow\[0\]\.productName: ")
    daemon.wait_line("not reloaded")
    assert daemon.stop() == 0


def test_reload_of_a_file_that_went_away(start, config):
    path = config()
    daemon = start("-c", path)
    daemon.wait_ready()
    path.unlink()
    reload(daemon)
    daemon.wait_line("not reloaded")
    assert daemon.stop() == 0


def kinds_of_open_files(daemon):
    """Once they no longer change: it may still be closing the socket on which it said that it is ready."""
    kinds, same = None, 0
    while same < 5:
        now = sorted(name.split(":")[0] for name in open_files(daemon.process).values())
        kinds, same = now, same + 1 if now == kinds else 0
        time.sleep(0.1)
    return kinds


def test_many_reloads_leave_nothing_open(start, config, place):
    daemon = start("-c", config())
    daemon.wait_ready()
    reload(daemon)
    before = kinds_of_open_files(daemon)
    for turn in range(20):
        config(vms=[{"name": f"vm{turn}", "type": "qemu", "socket": str(place / f"{turn}.qmp")}])
        reload(daemon)
    config()
    reload(daemon)
    assert kinds_of_open_files(daemon) == before
    assert daemon.stop() == 0


def test_no_descriptor_is_inherited_by_children(start, config):
    daemon = start("-c", config())
    daemon.wait_ready()
    flags = {}
    for number, target in open_files(daemon.process).items():
        try:
            info = pathlib.Path(f"/proc/{daemon.process.pid}/fdinfo/{number}").read_text()
        except FileNotFoundError:
            continue  # closed meanwhile
        flags[number, target] = int(re.search(r"^flags:\s*(\d+)", info, re.M).group(1), 8)
    kept = [what for what, flag in flags.items() if what[0] > 2 and not flag & os.O_CLOEXEC]
    assert not kept
    assert daemon.stop() == 0


def test_a_runtime_directory_that_cannot_be_written_is_no_reason_to_end(start, config, place):
    daemon = start("-c", config(), environment={"RUNTIME_DIRECTORY": str(place / "none" / "such"),
                                                "NOTIFY_SOCKET": str(place / "notify"), **sanitizers()})
    daemon.wait_ready()
    assert daemon.stop() == 0


@pytest.mark.parametrize("text", ["", "{", "\x00\x01", "[1]", "null", '{"devices": 3}', "[" * 5000])
def test_a_damaged_memory_is_said_and_set_aside(start, config, place, text):
    (place / "run").mkdir()
    memory = place / "run" / "memory.json"
    memory.write_text(text)
    daemon = start("-c", config())
    daemon.wait_ready()
    daemon.wait_line("^warning .*memory.json")
    assert daemon.stop() == 0
    assert not memory.exists() or memory.read_text() != text
