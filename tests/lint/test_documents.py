"""Documents and code agree: options, configuration keys, examples, and the catalogue of failures."""
import re

import pytest

from conftest import ROOT, shown, tree_files

# The failures that tests must name, as test_fNN_..., in the order of the catalogue.
ROWS = "01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49".split()
CAMEL = re.compile(r'"([a-z]+(?:[A-Z][a-z]*)+)"')
# Keys of the tables that configuration and rules are read by: {"key", ...
TABLE = re.compile(r'\{"([a-z][A-Za-z]*)",')


def options(help_text):
    """Short and long options of the lines that describe one each."""
    found = set()
    for line in help_text.splitlines():
        if re.match(r"\s+-", line):
            found.update(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.split("   ")[0] + " " + line[:28]))
    return {option for option in found if option not in ("-",)}


def test_help_describes_each_option_of_the_usage(help_text):
    usage = help_text.splitlines()[0]
    described = options(help_text)
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", usage))
    assert {"-h", "-c", "-a", "-d", "--version"} <= named
    assert named <= described, named - described


def options_of_page(path):
    described = (ROOT / path).read_text().split(".Sh DESCRIPTION")[1].split(".Ss ")[0]
    return {"-" + word for line in described.splitlines() if line.startswith(".It Fl ")
            for word in re.findall(r"Fl ([\w-]+)", line)}


def test_options_stand_in_the_manual_page(help_text):
    assert options_of_page("man/vhotplug.8") == options(help_text)


def test_options_of_vhotplugctl_stand_in_its_manual_page(ctl_help_text):
    assert options_of_page("man/vhotplugctl.1") == options(ctl_help_text)


def verbs(help_text):
    """The verbs that a help describes."""
    lines = help_text.split("verbs:\n")[1].split("\n\n")[0].splitlines()
    return {line.split()[0] for line in lines if re.match("  [a-z]", line)}


def test_verbs_stand_in_the_manual_page(ctl_help_text):
    described = (ROOT / "man/vhotplugctl.1").read_text().split(".Ss ")[0]
    assert set(re.findall(r"^\.It Cm (\w+)", described, re.M)) == verbs(ctl_help_text)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_verbs_stand_in_the_completions(ctl_help_text, shell):
    text = (ROOT / f"data/vhotplugctl.{shell}-completion").read_text()
    found = re.findall(r"^ +'([a-z]+):", text, re.M) if shell == "zsh" else \
        re.search(r"verbs[= ]\"?([a-z ]+)", text).group(1).split()
    assert set(found) == verbs(ctl_help_text)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_options_stand_in_the_completions(help_text, shell):
    assert options_of_completion(f"data/vhotplug.{shell}-completion", shell) == options(help_text)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_options_of_vhotplugctl_stand_in_the_completions(ctl_help_text, shell):
    assert options_of_completion(f"data/vhotplugctl.{shell}-completion", shell) == options(ctl_help_text)


def options_of_completion(path, shell):
    text = (ROOT / path).read_text()
    if shell == "fish":
        found = {"-" + word for word in re.findall(r" -s (\w)", text)}
        found |= {"--" + word for word in re.findall(r" -l ([\w-]+)", text)}
    elif shell == "bash":
        found = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", re.search(r'-W "(-[^"]*)"', text).group(1)))
    else:
        found = set()
        for line in text.splitlines():
            if line.lstrip().startswith(("'(", "'-")):
                found |= set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", re.sub(r"'\([^)]*\)|\[.*", " ", line)))
    return found


def sections(page):
    """What a man page names in SEE ALSO: {(name, section)}."""
    text = page.read_text().split("\n.Sh SEE ALSO\n")[1].split("\n.Sh ")[0]
    return set(re.findall(r"^\.Xr (\S+) (\d)", text, re.M))


@pytest.mark.parametrize("page", [shown(path) for path in tree_files("man/*.[1-8]")])
def test_a_manual_page_names_its_siblings(page):
    siblings = {(path.stem, path.suffix[1:]) for path in tree_files("man/*.[1-8]") if shown(path) != page}
    assert len(siblings) >= 2
    assert siblings <= sections(ROOT / page), siblings - sections(ROOT / page)


def known_keys():
    keys = set()
    for path in tree_files("src/core/config*.[ch]", "src/core/rule*.[ch]", "src/core/reader*.[ch]"):
        code = re.sub(r"//.*", "", path.read_text())
        keys |= set(CAMEL.findall(code)) | set(TABLE.findall(code))
    return keys


def test_keys_stand_in_the_manual_page():
    page = (ROOT / "man/vhotplug.conf.5").read_text()
    words = {word for line in page.splitlines() if re.match(r"\.(It |Pq any of )?Cm ", line) for word in line.split()}
    keys = known_keys()
    assert {"usbPassthrough", "interfaceClass", "allowedVms", "portPath", "bus", "socket", "api"} <= keys
    assert keys <= words, sorted(keys - words)


def test_keys_of_the_manual_page_are_known():
    page = (ROOT / "man/vhotplug.conf.5").read_text()
    words = {word for line in page.splitlines() if re.match(r"\.(It )?Cm ", line)
             for word in line.split() if CAMEL.fullmatch(f'"{word}"')}
    assert words <= known_keys(), sorted(words - known_keys())


def test_every_row_of_the_catalogue_has_a_test():
    named = set()
    for path in tree_files("tests/**/*.c", "tests/**/*.py"):
        for name in re.findall(r"\b(test_f\d\d\w*)\s*\(", path.read_text()):
            named |= set(re.findall(r"_f(\d\d)(?=_|$)", name))
    missing = [f"F{row}" for row in ROWS if row not in named]
    assert not missing, "no test_fNN for " + " ".join(missing)


def test_links_of_the_documents_lead_somewhere():
    for path in tree_files("*.md", "docs/*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{shown(path)}: {target}"


def test_files_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    table = text.split("## Where things are")[1].split("\n## ")[0]
    for name in re.findall(r"`((?:src|tests|docs|man|data|examples)[\w./-]*)`", table):
        assert (ROOT / name).exists(), name


def test_the_license_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
