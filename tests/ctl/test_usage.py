"""The command line of vhotplugctl: help, version, wrong usage, ways to the daemon, exit statuses."""
import json
import re
import socket
import subprocess

import pytest

import ctl

USAGE = ("usage: vhotplugctl [-s SOCKET | --host ADDRESS | --cid CID] [--port PORT] [--timeout SECONDS] [-j] "
         "VERB [ARGUMENT...]")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_goes_to_standard_output(program, option):
    result = ctl.run(program, option)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == USAGE
    assert max(map(len, result.stdout.splitlines()[1:])) <= 110


def test_version(program):
    result = ctl.run(program, "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"vhotplugctl \d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.parametrize("arguments", [
    [], ["-j"], ["nonesuch"], ["--nonesuch", "list"], ["list", "more"], ["explain"], ["explain", "a", "b"], ["attach"],
    ["attach", "a", "b", "c"], ["detach"], ["detach", "a", "b"], ["suspend", "a", "b"], ["check"], ["check", "a", "b"],
    ["-s"], ["-s", "/a", "--host", "b", "list"], ["--host", "a", "--cid", "3", "list"], ["--cid", "three", "list"],
    ["--port", "0", "list"], ["--port", "65536", "--host", "a", "list"], ["-s", "/a", "--port", "1", "list"],
    ["--timeout", "0", "list"], ["--timeout", "-1", "list"], ["--timeout", "3601", "list"], ["status", "--tree"],
    ["vms", "--tree"], ["list", "--tree", "--json"], ["check", "--json", "/a"], ["check", "-s", "/a", "/b"],
    ["explain", "-c", "/a"], ["explain", "--device", "/a"], ["explain", "-c", "/a", "--device", "/b", "c"],
    ["list", "-c", "/a"], ["explain", "-c", "/a", "--device", "/b", "--tree"], ["-s", "/x", "explain", "-c", "/a", "--device", "/b"]], ids=" ".join)
def test_wrong_usage(program, arguments):
    result = ctl.run(program, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert USAGE in result.stderr.splitlines()


@pytest.mark.parametrize("arguments", [["-h"], ["--version"]], ids=" ".join)
def test_output_that_cannot_be_written_is_a_failure(program, arguments):
    with open("/dev/full", "w") as full:
        assert subprocess.run([program, *arguments], stdout=full, timeout=90, check=False).returncode == 1


@pytest.mark.parametrize("arguments", [["list"], ["list", "--tree"], ["list", "-j"], ["vms"], ["status"], ["explain", "x"]],
                         ids=" ".join)
def test_an_answer_that_cannot_be_written_is_a_failure(program, peer, place, arguments):
    peer({"device_list": {"result": "ok", "devices": [ctl.listed(ctl.RECEIVER)]}, "vm_list": {"result": "ok", "vms": []},
          "status": {"result": "ok"}, "explain": {"result": "ok"}})
    with open("/dev/full", "w") as full:
        run = subprocess.run([program, "-s", place / "socket", *arguments], stdout=full, timeout=90, check=False)
    assert run.returncode == 1


@pytest.mark.parametrize("arguments", [["-j", "vms"], ["vms", "-j"], ["vms", "--json"], ["--json", "vms"]], ids=" ".join)
def test_options_stand_before_or_after_the_verb(run, peer, arguments):
    peer({"vm_list": {"result": "ok", "vms": []}})
    result = run(*arguments)
    assert (result.returncode, json.loads(result.stdout), result.stderr) == (0, [], "")


def test_no_daemon_is_a_failure_that_says_what_to_do(run, place):
    result = run("list")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (f"vhotplugctl: cannot connect to {place}/socket: No such file or directory "
                             "(is vhotplug running?)\n")


def test_a_socket_without_a_daemon(run, place):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(place / "socket"))
    left.close()
    result = run("status")
    assert result.returncode == 1
    assert "Connection refused (is vhotplug running?)" in result.stderr


@pytest.mark.parametrize("path", ["", "/" + "x" * 200], ids=["empty", "long"])
def test_a_path_that_is_no_socket_address(program, path):
    result = ctl.run(program, "-s", path, "list")
    assert result.returncode == 1
    assert "vhotplugctl: cannot connect to" in result.stderr


def test_the_default_socket_is_that_of_the_daemon(program):
    result = ctl.run(program, "--help")
    assert "/var/lib/vhotplug/vhotplug.sock" in result.stdout


def test_tcp(program, peer):
    daemon = peer({"vm_list": {"result": "ok", "vms": []}})
    daemon.close()
    tcp = ctl.Peer(("127.0.0.1", 0), {"vm_list": {"result": "ok", "vms": []}}, family=socket.AF_INET)
    try:
        port = str(tcp.address[1])
        assert ctl.run(program, "--host", "127.0.0.1", "--port", port, "vms").stdout == "No VMs.\n"
        assert ctl.run(program, "--host", "localhost", "--port", port, "vms").returncode == 0
        # A port alone is one of this host.
        assert ctl.run(program, "--port", port, "vms").returncode == 0
        assert len(tcp.requests) == 3
    finally:
        tcp.close()


def test_tcp_to_nobody(program):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = ctl.run(program, "--host", "127.0.0.1", "--port", taken.getsockname()[1], "vms")
    assert result.returncode == 1
    assert "Connection refused" in result.stderr and "general.api.transports" in result.stderr


def test_vsock_to_nobody(program):
    result = ctl.run(program, "--cid", "1", "--port", "54321", "--timeout", "5", "vms")
    assert result.returncode == 1
    assert "cannot connect to vsock CID 1 port 54321: " in result.stderr


def test_another_name_is_another_command_line(classic_program):
    assert ctl.run(classic_program, "--help").stdout.startswith("usage: vhotplugcli ")
