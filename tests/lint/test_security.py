"""SECURITY.md names tests that are there, and explains all that the service unit leaves open."""
import re

from conftest import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()


def test_every_test_that_it_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.(?:c|py))::(\w+)`", PAGE)
    assert len(named) > 30
    for path, name in named:
        text = (ROOT / path).read_text()
        assert re.search(rf"^(static void|def) {name}\(", text, re.M), f"{path}::{name}"
        if path.endswith(".c"):  # and it is run
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{path}::{name}"


def test_every_line_of_a_table_has_its_test():
    for part in re.split(r"\n\|---\|---\|\n", PAGE)[1:-1]:
        for line in part.split("\n\n")[0].splitlines():
            assert re.search(r"`tests/[\w/.]+::\w+`", line), line


def test_it_explains_each_capability_of_the_unit():
    unit = (ROOT / "data/vhotplug.service.in").read_text()
    capabilities = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.M)[1].split()
    families = re.search(r"^RestrictAddressFamilies=(.*)$", unit, re.M)[1].split()
    for word in capabilities + families:
        assert f"`{word}`" in PAGE, word


def test_it_explains_what_the_unit_does_not_restrict():
    unit = (ROOT / "data/vhotplug.service.in").read_text()
    for setting in ("PrivateDevices", "PrivateNetwork", "PrivateTmp", "PrivateUsers", "ProtectKernelModules", "ProtectProc",
                    "ProcSubset", "RootDirectory"):
        assert not re.search(rf"^{setting}=", unit, re.M) and f"`{setting}=`" in PAGE, setting
