"""The commands that documents tell people to type are there."""
import re

import pytest

from conftest import ROOT, shown, tree_files

DOCUMENTS = [shown(path) for path in tree_files("*.md", "docs/**/*.md")]
# Meson comes with ninja, and an unpacked tree needs no git.
NOT_FOR_BUILDING = {"ninja-build", "git", "ca-certificates"}


def code(document):
    """Each piece of code of a document: blocks line by line, and what stands in backquotes."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    text = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"^    +(\S.*)$", text, re.M)
    parts = [part for line in lines for part in line.split(" # ")] # a comment may name another command
    return parts + [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", text)]


def words(document, program):
    """The words after each use of a program."""
    for piece in code(document):
        for use in re.findall(rf"(?<![\w/-]){re.escape(program)}((?: +[^ ;|&)]+)*)", piece):
            yield use.split()


def test_the_documents_use_the_programs():
    assert len(list(words("README.md", "vhotplugctl"))) > 5 and len(list(words("README.md", "./dev"))) > 2


@pytest.mark.parametrize("document", DOCUMENTS)
def test_verbs_and_options_of_vhotplugctl(document, ctl_help_text):
    verbs = set(re.findall(r"^  ([a-z]+)\b", ctl_help_text.split("verbs:\n")[1].split("\n\n")[0], re.M))
    options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", ctl_help_text))
    for use in words(document, "vhotplugctl"):
        assert {word for word in use if word.startswith("-")} <= options, use
        plain = [word for word in use if not word.startswith(("-", "/", "…")) and word.islower()]
        assert not plain or plain[0] in verbs, use


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_of_vhotplug(document, help_text):
    options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_text))
    for use in words(document, "vhotplug"):
        assert {word for word in use if word.startswith("-")} <= options, use


@pytest.mark.parametrize("document", DOCUMENTS)
def test_verbs_of_dev(document):
    cases = (ROOT / "dev").read_text().split("\nrun_verb() {\n")[1].split("\n}\n")[0]
    verbs = {verb for case in re.findall(r"^    ([a-z][a-z |-]*)\)", cases, re.M) for verb in case.split(" | ")}
    assert {"setup", "test", "lab-long", "help"} <= verbs
    for use in words(document, "./dev"):
        assert {word for word in use[:1] if re.fullmatch("[a-z][a-z-]*", word)} <= verbs, use


def test_the_packages_for_building():
    text = (ROOT / "dev").read_text()
    lists = re.findall(r"^packages_(?:build|libraries)=\(([^)]*)\)", text, re.M)
    assert len(lists) == 2
    line = re.search(r"^    apt-get install (.*)$", (ROOT / "README.md").read_text(), re.M).group(1)
    assert set(line.split()) == set(" ".join(lists).split()) - NOT_FOR_BUILDING
