"""The command line: help, version, wrong usage, and which of two contradicting options wins."""
import pathlib
import re
import shutil
import subprocess

import pytest

from vhotplug import USAGE, run


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_goes_to_standard_output(program, option):
    result = run(program, option)
    assert result.returncode == 0
    assert result.stdout.splitlines()[0] == USAGE
    assert "--attach-connected" in result.stdout.split("\n", 1)[1]
    assert result.stderr == ""


def test_version(program):
    result = run(program, "--version")
    assert result.returncode == 0
    assert re.fullmatch(r"vhotplug \d+\.\d+\.\d+\n", result.stdout)
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [
    [], ["-a"], ["-c"], ["--config"], ["-x"], ["--nonesuch"], ["-c", "/dev/null", "more"], ["--debug=yes", "-c", "/x"],
    ["-c", "/x", "--", "-a"], ["-ax"], ["--version=1"]], ids=" ".join)
def test_wrong_usage(program, arguments):
    result = run(program, *arguments)
    assert result.returncode == 2
    assert USAGE in result.stderr.splitlines()
    assert result.stdout == ""


def test_wrong_usage_says_what_is_missing(program):
    assert "-c CONFIG is needed" in run(program, "-a").stderr


def test_output_that_cannot_be_written_is_a_failure(program):
    with open("/dev/full", "w") as full:
        assert subprocess.run([str(program), "-h"], stdout=full, timeout=90, check=False).returncode == 1


@pytest.mark.parametrize("arguments,debug", [
    ([], False), (["-d"], True), (["--debug"], True), (["-d", "--no-debug"], False), (["--no-debug", "-d"], True),
    (["--debug", "--no-debug", "--debug"], True)], ids=lambda value: str(value))
def test_the_last_of_debug_wins(start, config, arguments, debug):
    # A key that is accepted and not used is noted at debug level.
    daemon = start("-c", config(general={"modprobe": "/sbin/modprobe"}), *arguments)
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert bool(daemon.matching("^debug ")) == debug


@pytest.mark.parametrize("arguments", [
    ["-a"], ["--attach-connected"], ["--no-attach-connected"], ["-a", "--no-attach-connected"],
    ["--no-attach-connected", "-a"], ["-ad"], ["-d", "--no-debug", "-a", "--no-attach-connected"]], ids=" ".join)
def test_every_order_of_options_starts(start, config, arguments):
    daemon = start(*arguments, "-c", config())
    daemon.wait_ready()
    assert daemon.stop() == 0


def test_the_last_configuration_wins(start, config):
    daemon = start("-c", "/nonexistent/file", "-c", config())
    daemon.wait_ready()
    assert daemon.stop() == 0


def test_long_option_with_equals_sign(start, config):
    daemon = start(f"--config={config()}")
    daemon.wait_ready()
    assert daemon.stop() == 0


def test_an_empty_environment_is_enough(start, config):
    default = pathlib.Path("/run/vhotplug")
    if default.exists():
        pytest.skip(f"{default} is there: a daemon of this machine uses it")
    try:
        daemon = start("-c", config(), environment={})
        daemon.wait_line("vm1 is not running")
        assert daemon.stop() == 0
    finally:
        shutil.rmtree(default, ignore_errors=True)
