"""vhotplugctl and vhotplugcli against the real daemon, on a machine whatever devices it has."""
import json
import pathlib
import re
import sys

import pytest

import ctl

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

import vhotplug


@pytest.fixture
def daemon(build, place):
    """A running daemon with one VM that does not run, and its configuration's path."""
    config = place / "vhotplug.conf"
    settings = {"vms": [{"name": "vm1", "type": "qemu", "socket": str(place / "vm1.qmp")}],
                "general": {"api": {"unixSocket": str(place / "socket")}, "statePath": str(place / "state")}}
    config.write_text(json.dumps(settings))
    running = vhotplug.Daemon(build / "src" / "vhotplug", place, "-c", config)
    running.wait_ready()
    yield running, config, settings
    running.close()


def test_status_list_and_vms(run, daemon):
    _, config, _ = daemon
    status = run("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert re.fullmatch(r"vhotplug \d+\.\d+\.\d+, running since [-\d :]+", status.stdout.splitlines()[0])
    assert f"config:  {config}" in status.stdout.splitlines()
    assert re.search(r"^VMs: +1 (down|unknown)$", status.stdout, re.M)
    vms = run("vms").stdout.splitlines()
    assert vms[1].split()[:2] == ["vm1", "qemu"]
    for arguments in (["list"], ["list", "--tree"], ["list", "--json"], ["vms", "--json"], ["status", "--json"]):
        result = run(*arguments)
        assert (result.returncode, result.stderr) == (0, ""), arguments
    assert all("state" in device and "reason" in device for device in json.loads(run("list", "--json").stdout))


def test_devices_that_are_not_there(run, classic, daemon):
    for verb in ("explain", "attach", "detach"):
        result = run(verb, "99-1.2")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("vhotplugctl: ") and "99-1.2" in result.stderr
    result = classic("usb", "detach", "--devnode", "/dev/bus/usb/255/255")
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR Failed to detach USB: ")


def test_vms_that_are_not_there(run, daemon):
    result = run("suspend", "vm9")
    assert (result.returncode, result.stdout) == (1, "")
    assert "vm9" in result.stderr


def test_suspend_and_resume_of_nothing(run, classic, daemon):
    assert run("suspend").stdout == "all VMs: suspended\n"
    assert run("resume", "vm1").stdout == "vm1: resumed\n"
    for verb in ("suspend", "resume"):
        assert classic("usb", verb, "--vm", "vm1").stderr == f"INFO Successfully {verb}ed\n".replace("eed", "ed")
        assert classic("pci", verb).returncode == 0


def test_f43_reload_with_errors_prints_all_of_them_and_changes_nothing(run, daemon):
    running, config, settings = daemon
    assert run("reload").stdout == "The configuration was read again.\n"
    settings["vms"].append({"name": "vm2", "type": "qemu", "socket": "/nonexistent/vm2"})
    config.write_text(json.dumps(settings))
    assert run("reload").returncode == 0
    assert len(json.loads(run("vms", "--json").stdout)) == 2
    config.write_text(json.dumps({**settings, "usbPassthrough": [{"targetVm": "vm9", "allow": [{"vendorID": "046d"}]}]}))
    result = run("reload")
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert any("usbPassthrough[0].targetVm" in line for line in lines)
    assert any("usbPassthrough[0].allow[0].vendorID" in line for line in lines)
    assert lines[-1] == "vhotplugctl: the configuration that runs stays"
    assert len(json.loads(run("vms", "--json").stdout)) == 2


def test_f45_lists_of_vhotplugcli(classic, daemon):
    for line in ("usb list", "usb list --short", "usb list --tag cam --connected", "usb list --disconnected", "pci list"):
        result = classic(*line.split())
        assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), line


def test_monitor(start, place, daemon):
    running, _, _ = daemon
    monitor = start("-s", place / "socket", "monitor")
    assert monitor.wait_line(monitor.errors, 1).startswith("vhotplugctl: listening")
    running.stop()
    assert "hung up" in monitor.wait_line(monitor.errors, 2)
