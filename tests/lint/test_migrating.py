"""docs/migrating.md leaves nothing out: keys, actions, events and words of the Python vhotplug."""
import json
import re

import pytest

from conftest import ROOT

PAGE = (ROOT / "docs/migrating.md").read_text()


def cells(heading=""):
    """What stands in first columns, as words in backquotes; of the part below HEADING only."""
    text = PAGE.split(f"\n{heading}\n", 1)[1] if heading else PAGE
    level = len(heading) - len(heading.lstrip("#"))
    text = re.split(rf"\n#{{1,{level}}} ", text)[0] if heading else text
    return {word for line in text.splitlines() if line.startswith("| ") for word in re.findall(r"`([^`]+)`", line.split("|")[1])}


def properties(value):
    """All keys of a configuration, whatever is nested in what."""
    found = set()
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "properties":
                found |= set(inner)
            found |= properties(inner)
    elif isinstance(value, list):
        for inner in value:
            found |= properties(inner)
    return found


def test_every_key_of_the_configuration():
    schema = json.loads((ROOT / "data/vhotplug.schema.json").read_text())
    keys = properties(schema) - {"$schema"}
    assert {"usbPassthrough", "interfaceClass", "unixSocketMode", "grantAccess"} <= keys
    listed = cells("## Configuration") | {"cid", "permissions"}  # these two are named with allowedCids
    assert keys <= listed, sorted(keys - listed)
    assert "`cid`" in PAGE and "`permissions`" in PAGE


def test_no_key_that_is_not_there():
    schema = json.loads((ROOT / "data/vhotplug.schema.json").read_text())
    assert cells("## Configuration") <= properties(schema)


def test_every_action_and_event_of_the_api():
    actions = set(re.findall(r'^    \{"(\w+)", API_\w+, \w+\}', (ROOT / "src/api/request.c").read_text(), re.M))
    events = {event for path in (ROOT / "docs/api.md",) for event in re.findall(r'"event": "(\w+)"', path.read_text())}
    assert {"usb_list", "vmm_args"} <= actions and {"usb_select_vm", "pci_attached"} <= events
    assert actions | events == cells("## API"), (actions | events) ^ cells("## API")


def test_every_option_of_the_daemon(help_text):
    usage = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_text.splitlines()[0]))
    part = PAGE.split("\n## Command line of the daemon\n")[1].split("\n## ")[0]
    for option in usage:
        assert f"`{option}`" in part, option


@pytest.mark.parametrize("word", ["usb attach", "usb detach", "usb list", "usb suspend", "usb resume", "pci attach", "pci detach",
                                  "pci list", "pci suspend", "pci resume", "listen", "vmm args", "--devnode", "--bus", "--port",
                                  "--vid", "--pid", "--did", "--vm", "--tag", "--address", "--disconnected", "--connected", "--short",
                                  "--qemu-bus-prefix", "--qemu-bus-start-index", "--timeout", "--require-pci"])
def test_every_word_of_the_old_client(word):
    assert word in cells("## vhotplugcli")


def test_each_line_says_whether_it_is_the_same():
    for heading in "## Configuration", "## API", "## vhotplugcli", "## Files":
        part = PAGE.split(f"\n{heading}\n")[1].split("\n## ")[0]
        for line in part.splitlines():
            if line.startswith("| ") and not line.startswith(("| key", "| action", "| event", "| words", "| file")):
                verdict = line.split("|")[2].strip()
                assert verdict.startswith(("same", "different", "*new*", "accepted", "see below")), line
