"""The JSON Schema of the configuration says what the parser and the manual page say: the same keys, the same files."""
import json
import pathlib
import re

import pytest

from vhotplug import run

jsonschema = pytest.importorskip("jsonschema", reason="python3-jsonschema is not installed")

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "data/vhotplug.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
KEYS_PER_RUN = 200  # an object of the file may have 256
# One of the strings of JSON with comments, so that what stands in it is left alone; or what is to go.
RELAXED = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
TRAILING = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[\]}])', re.DOTALL)
# What is wrong with a file in a way that a schema cannot say.
BEYOND = re.compile("|".join((
    "has no VM named", "has the same (name|socket)", "is the socket of", "is the same as", "in the list twice",
    "bad regular expression", "contradict each other", "this rule is empty", "go together", "for tcp$",
    "control character")))
BEYOND_FILES = ("general_api_mode_fraction", "general_api_mode_number_9")  # numbers, but not these


def strict(text):
    """The text without comments and trailing commas."""
    text = RELAXED.sub(lambda found: found.group(1) or " ", text.removeprefix("\ufeff"))
    return TRAILING.sub(lambda found: found.group(1) or "", text)


def load(path):
    return json.loads(strict(path.read_text()))


def resolve(node):
    while "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node


def objects(node, build=lambda value: value, path=""):
    """(path, how to build a file with an object there, its keys) of each object that the schema describes."""
    node = resolve(node)
    for choice in node.get("anyOf", ()):
        yield from objects(choice, build, path)
    if "items" in node:
        yield from objects(node["items"], lambda value: build([value]), path + "[0]")
    if "properties" in node and "type" in node:
        yield path, build, frozenset(node["properties"])
        for key, member in node["properties"].items():
            yield from objects(member, lambda value, key=key: build({key: value}), f"{path}.{key}".lstrip("."))


OBJECTS = {f"{path or 'top'}-{number}": (path, build, keys)
           for number, (path, build, keys) in enumerate(objects(SCHEMA))}


def candidates():
    """Every text of the sources that may be a key, and every key of the schema."""
    found = {"noSuchKeyAtAll"}
    for source in (ROOT / "src/core").glob("*.[ch]"):
        found |= set(re.findall(r'"([A-Za-z][A-Za-z0-9]*)"', source.read_text()))
    for _, _, keys in OBJECTS.values():
        found |= keys
    return sorted(key for key in found if not key.startswith("x"))


def known_to_the_parser(program, config, path, build):
    """Which of the candidates are no unknown keys of the object at PATH, as the program says."""
    names, known = candidates(), set()
    for start in range(0, len(names), KEYS_PER_RUN):
        part = names[start:start + KEYS_PER_RUN]
        # No key takes this value, and with an error in the file nothing starts.
        file = config(json.dumps(build({key: [[[]]] for key in part})), f"probe{start}.conf")
        result = run(program, "-c", file)
        assert result.returncode == 1, result.stderr
        said = set()
        for line in result.stderr.splitlines():
            if match := re.match(rf"(?:error|warning) {re.escape(str(file))}: (\S*): unknown key", line):
                said.add(match.group(1))
        prefix = path + "." if path else ""
        known |= {key for key in part if prefix + key not in said}
        assert prefix + "noSuchKeyAtAll" in said or "noSuchKeyAtAll" not in part, result.stderr
    return known


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"", "usbPassthrough[0]", "usbPassthrough[0].allow[0]", "evdevPassthrough", "evdevPassthrough[0].deny[0]",
            "vms[0]", "general", "general.api", "general.api.allowedCids[0]", "usbAuthorization.hostAllow[0]",
            } <= {path for path, _, _ in OBJECTS.values()}


@pytest.mark.parametrize("place_name", OBJECTS)
def test_the_parser_knows_the_same_keys(program, config, place_name):
    path, build, keys = OBJECTS[place_name]
    filler = build
    if not path:  # an error in the file, whatever the keys are
        filler = lambda value: {**value, "vms": [[]]}
    known = known_to_the_parser(program, config, path, filler)
    assert known == keys, f"only the parser: {sorted(known - keys)}; only the schema: {sorted(keys - known)}"


def test_the_manual_page_describes_the_same_keys():
    keys = set().union(*(keys for _, _, keys in OBJECTS.values()))
    lines = (ROOT / "man/vhotplug.conf.5").read_text().split(".Sh EXAMPLES")[0].splitlines()
    named = {word for line in lines if re.match(r"\.(It )?Cm ", line) for word in re.findall(r"\w+", line)}
    items = {word for line in lines if line.startswith(".It Cm ") for word in re.findall(r"\w[\w-]*", line[7:])}
    assert keys <= named, sorted(keys - named)
    assert items <= keys, sorted(items - keys)
    camel = {word for word in named if re.fullmatch(r"[a-z]+([A-Z][a-z]*)+", word)}
    assert camel <= keys, sorted(camel - keys)


GOOD = [*sorted((ROOT / "tests/config/good").glob("*.json")), *sorted((ROOT / "examples").glob("*.conf")),
        ROOT / "data/vhotplug.conf.example"]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_good_files_are_valid(path):
    errors = [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(load(path))]
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize("path", sorted((ROOT / "tests/config/bad").glob("*.json")), ids=lambda path: path.stem)
def test_bad_files_are_not_valid(path):
    try:
        value = load(path)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return
    lines = path.with_suffix(".expect").read_text().splitlines()
    if path.stem in BEYOND_FILES or all(
            BEYOND.search(line) or re.match(r"\S+\.json:\d+:\d+: ", line) for line in lines):
        return
    assert not VALIDATOR.is_valid(value), lines
