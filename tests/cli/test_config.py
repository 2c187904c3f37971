"""Configuration files as the daemon meets them: what is wrong is said, all of it, and nothing is begun."""
import os
import pathlib

import pytest

from vhotplug import run

ROOT = pathlib.Path(__file__).resolve().parents[2]


def errors(result):
    return [line for line in result.stderr.splitlines() if line.startswith("error ")]


def test_a_missing_file(program, place):
    result = run(program, "-c", place / "none.conf")
    assert result.returncode == 1
    assert errors(result) == [f"error {place}/none.conf: cannot be read: No such file or directory"]


def test_a_directory(program, place):
    result = run(program, "-c", place)
    assert result.returncode == 1
    assert errors(result) == [f"error {place}: is not a file"]


def test_a_device(program):
    result = run(program, "-c", "/dev/zero")
    assert result.returncode == 1
    assert errors(result) == ["error /dev/zero: is not a file"]


def test_a_pipe_does_not_hang(program, place):
    os.mkfifo(place / "pipe")
    result = run(program, "-c", place / "pipe")
    assert result.returncode == 1
    assert errors(result) == [f"error {place}/pipe: is not a file"]


def test_a_file_without_the_right_to_read(program, config):
    path = config()
    path.chmod(0)
    command = [program, "-c", path]
    if os.access(path, os.R_OK):  # root, who reads everything unless that right is taken away
        without = "--bounding-set=-dac_override,-dac_read_search"
        if run("/usr/bin/setpriv", without, "/bin/true").returncode != 0:
            pytest.skip("root may read every file, and its rights cannot be taken away here")
        command = ["/usr/bin/setpriv", without, *command]
    result = run(*command)
    assert result.returncode == 1
    assert errors(result) == [f"error {path}: cannot be read: Permission denied"]


def test_a_file_that_is_too_long(program, config):
    path = config(" " * (1024 * 1024 + 1))
    result = run(program, "-c", path)
    assert result.returncode == 1
    assert errors(result) == [f"error {path}: is longer than 1048576 bytes"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{\"vms\": [}", "\x00", "{} {}", "\udcff", "[" * 100000])
def test_no_configuration_at_all(program, config, text):
    path = config(text)
    result = run(program, "-c", path)
    assert result.returncode == 1
    assert errors(result) and all(line.startswith(f"error {path}:") for line in errors(result))


def test_a_syntax_error_has_its_line_and_column(program, config):
    path = config('{\n  "vms": [\n    nonsense\n  ]\n}\n')
    result = run(program, "-c", path)
    assert result.returncode == 1
    assert len(errors(result)) == 1
    assert errors(result)[0].startswith(f"error {path}:3:5: ")


def test_every_error_is_listed_and_nothing_is_begun(program, config, place):
    path = config(usbPassthrough=[
        {"targetVm": "vm1", "allow": [{"vendorID": "1234"}, {"productName": "("}, {}]},
        {"targetVm": "nobody", "allow": [{"bus": "one"}]}])
    result = run(program, "-c", path, environment={"RUNTIME_DIRECTORY": str(place)})
    assert result.returncode == 1
    listed = errors(result)
    for part in ("usbPassthrough[0].allow[0].vendorID", "usbPassthrough[0].allow[1].productName",
                 "usbPassthrough[0].allow[2]", "usbPassthrough[1].targetVm", "usbPassthrough[1].allow[0].bus"):
        assert any(line.startswith(f"error {path}: {part}: ") for line in listed), part
    assert any("did you mean vendorId" in line for line in listed)
    assert "vm1 " not in result.stderr
    assert sorted(entry.name for entry in place.iterdir()) == ["vhotplug.conf"]


def test_hostile_bytes_of_a_file_are_shown_escaped(program, config):
    path = config(usbPassthrough=[{"targetVm": "\x1b[31mred\nnews", "allow": [{"bus": 1}]}])
    result = run(program, "-c", path)
    assert result.returncode == 1
    assert "\x1b" not in result.stderr
    assert all(line.startswith(("error ", "warning ", "info ")) for line in result.stderr.splitlines())


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.conf")) + [ROOT / "data/vhotplug.conf.example"],
                         ids=lambda path: path.name)
def test_the_examples_load_without_a_word(start, path):
    daemon = start("-c", path)
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert not daemon.matching("^(error|warning) .*" + path.name)


def fenced(path, opening, closing):
    text = (ROOT / path).read_text()
    return text.split(opening, 1)[1].split(closing, 1)[0]


@pytest.mark.parametrize("document,opening,closing", [
    ("README.md", "```jsonc\n", "```"), ("man/vhotplug.conf.5", ".Sh EXAMPLES\n", ".Sh SEE")])
def test_the_configuration_that_a_document_shows_loads(start, config, document, opening, closing):
    text = fenced(document, opening, closing)
    text = "\n".join(line for line in text.splitlines() if line[:1] in ("{", "}", " "))
    daemon = start("-c", config(text))
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert not daemon.matching(r"^(error|warning) .*vhotplug\.conf")


def test_f16_the_start_says_how_many_rules_there_are(start, config):
    path = config(usbPassthrough=[{"targetVm": "vm1", "allow": [{"bus": 7}, {"bus": 8}]}])
    daemon = start("-c", path)
    daemon.wait_ready()
    assert daemon.stop() == 0
    summary = daemon.matching(f"^info {path}: .*rule")
    assert len(summary) == 1
    assert "vm1: 2" in summary[0]
