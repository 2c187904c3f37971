"""The README's comparison: each cell has a line in docs/comparison.md, and each line a source that is listed there."""
import re

import pytest

from conftest import ROOT

PAGE = (ROOT / "docs/comparison.md").read_text()
TEXT, SOURCES = PAGE.split("\n# Sources\n")


def table():
    """Rows of the README's table: {feature: {tool: cell}}, as they stand there."""
    part = (ROOT / "README.md").read_text().split("\n## How it compares\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    head, rows = rows[0], rows[2:]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def lines():
    """The lines of the page: {feature: {tool: line}}."""
    found = {}
    for part in TEXT.split("\n## ")[1:]:
        feature, text = part.split("\n", 1)
        items = re.findall(r"^- \*\*(.+?)\*\*: (.+(?:\n  .+)*)", text, re.M)
        found[feature] = dict(items)
        assert len(items) == len(found[feature]), feature
    return found


def named(tool):
    return tool.replace(" (this)", "")


def test_the_table_compares_with_all_of_them():
    tools = {named(tool) for row in table().values() for tool in row}
    assert tools == {"vhotplug", "Python vhotplug", "hotplugger", "libvirt", "Incus", "USBGuard"}
    assert len(table()) >= 15


def test_features_are_the_same_in_both():
    assert list(table()) == list(lines())


@pytest.mark.parametrize("feature", list(table()))
def test_each_cell_has_its_line(feature):
    cells = table()[feature]
    assert all(cells.values()), feature
    assert [named(tool) for tool in cells] == list(lines()[feature])


def test_what_is_not_known_is_so_in_both():
    for feature, cells in table().items():
        for tool, cell in cells.items():
            assert ("not known" in cell) == ("ot known" in lines()[feature][named(tool)]), f"{feature}: {tool}"


@pytest.mark.parametrize("feature", list(lines()))
def test_each_line_has_a_source(feature):
    if feature.startswith("packaged"):
        assert "`apt-cache policy" in TEXT.split(f"\n## {feature}\n")[1]
        return
    for tool, line in lines()[feature].items():
        if line == "not known.":
            continue
        own = re.search(r"\]\([\w./-]+\)|`\w[\w.]*\(\d\)`$", line)
        assert own if tool == "vhotplug" else re.search(r"\[[A-Z]\d+\]$", line.split(" [migrating.md]")[0]), f"{feature}: {tool}"


def test_sources_are_listed_and_used():
    used, listed = set(re.findall(r"\[([A-Z]\d+)\](?!\()", TEXT)), re.findall(r"^- \[([A-Z]\d+)\] ", SOURCES, re.M)
    assert len(listed) == len(set(listed))
    assert used == set(listed), used ^ set(listed)
    for line in SOURCES.splitlines():
        if line.startswith("- ["):
            assert re.search(r"@[0-9a-f]{8}|https://|commit is not known|commits are not known|\(1\)", line), line
