"""The shape of the code: sizes, which room may include which, no circles, no promises left in comments."""
import pathlib
import re
import statistics

import pytest

from conftest import ROOT, shown, tree_files

FILE_LINES, FUNCTION_LINES, FUNCTION_MEDIAN = 800, 70, 20
# A room may include itself and these. The files directly in src/ join the rooms and may include any.
ROOMS = {"util": set(), "core": {"util"}, "host": {"core", "util"}, "vmm": {"core", "util"},
         "api": {"core", "util"}, "ctl": {"core", "util"}}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def functions(text):
    """(name, lines) of each function: from the line of its name to its closing brace. clang-format puts a
    function's braces, and no others, alone at the start of a line."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if line != "{":
            continue
        end = next(i for i in range(start, len(lines)) if lines[i] == "}")
        first = start
        while first > 0 and lines[first - 1] and lines[first - 1][0] not in "}/#;" and not lines[first - 1].endswith(";"):
            first -= 1
        name = re.search(r"(\w+)\s*\(", " ".join(lines[first:start]))
        yield (name.group(1) if name else lines[first]), end - first + 1


def test_the_counting_of_functions():
    text = "// x\nstatic int\na_b(int c,\n    int d)\n{\n    if (c) {\n    }\n}\n\nvoid e(void)\n{\n}\n"
    assert list(functions(text)) == [("a_b", 7), ("e", 3)]


def test_files_are_short():
    long = {shown(path): count for path in tree_files("src/**/*.[ch]", "tests/**/*.[ch]", "tests/**/*.py", "bench/*.[ch]", "bench/*.py")
            if (count := len(path.read_text().splitlines())) > FILE_LINES}
    assert not long, long


def test_functions_are_short():
    long = {f"{shown(path)}: {name}": lines for path in tree_files("src/**/*.[ch]", "tests/**/*.[ch]", "bench/*.[ch]")
            for name, lines in functions(path.read_text()) if lines > FUNCTION_LINES}
    assert not long, long


def test_most_functions_are_very_short():
    sizes = [lines for path in tree_files("src/**/*.c") for _, lines in functions(path.read_text())]
    assert statistics.median(sizes) < FUNCTION_MEDIAN


def room_of(path):
    parts = path.relative_to(ROOT / "src").parts
    return parts[0] if len(parts) > 1 else None


def test_every_room_is_known():
    assert {room_of(path) for path in tree_files("src/**/*.[ch]")} == {None, *ROOMS}


def test_includes_go_down_only():
    wrong = []
    for path in tree_files("src/**/*.[ch]"):
        room = room_of(path)
        for name in INCLUDE.findall(path.read_text()):
            assert (ROOT / "src" / name).is_file(), f"{shown(path)} includes {name}: write paths from src/"
            target = pathlib.PurePath(name).parts[0]
            if room and target != room and target not in ROOMS[room]:
                wrong.append(f"{shown(path)} includes {name}")
    assert not wrong, "\n".join(wrong)


def test_nothing_but_main_includes_the_daemon():
    users = [shown(path) for path in tree_files("src/*/*.[ch]") if re.search(r'"(daemon|main)\.h"', path.read_text())]
    assert not users, users


def circle(edges):
    """One circle in the graph as a list of names, or None."""
    done, trail = set(), []

    def walk(node):
        if node in trail:
            return trail[trail.index(node):] + [node]
        if node in done:
            return None
        trail.append(node)
        for follower in sorted(edges.get(node, ())):
            if found := walk(follower):
                return found
        trail.pop()
        done.add(node)
        return None

    return next((found for node in sorted(edges) if (found := walk(node))), None)


def test_the_search_for_circles():
    assert circle({"a": {"b"}, "b": {"c"}}) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_no_headers_of_a_room_include_each_other_in_a_circle(room):
    edges = {f"{room}/{path.name}": set(INCLUDE.findall(path.read_text())) for path in tree_files(f"src/{room}/*.h")}
    found = circle(edges)
    assert not found, " -> ".join(found)


def plain_code(text):
    """The text without comments and strings."""
    return re.sub(r'"(\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', " ", text, flags=re.DOTALL)


def exported(text):
    """Functions that a file defines for others."""
    lines = text.splitlines()
    for name, _ in functions(text):
        heads = [line for line in lines if re.match(rf"\w.*\b{name}\(", line)]
        if heads and not any(line.startswith("static ") for line in heads):
            yield name


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_no_files_of_a_room_call_each_other_in_a_circle(room):
    code = {path.stem: plain_code(path.read_text()) for path in tree_files(f"src/{room}/*.c")}
    owner = {name: stem for stem, text in code.items() for name in exported(text)}
    edges, calls = {}, {}
    for stem, text in code.items():
        for name in set(re.findall(r"\b\w+\b", text)) & owner.keys():
            if owner[name] != stem:
                edges.setdefault(stem, set()).add(owner[name])
                calls.setdefault((stem, owner[name]), set()).add(name)
    found = circle(edges)
    assert not found, "; ".join(f"{a} calls {', '.join(sorted(calls[a, b]))} of {b}" for a, b in zip(found, found[1:]))


def test_core_does_no_input_or_output():
    forbidden = re.compile(r"#\s*include\s+<(systemd/|libudev|sys/socket|sys/inotify|fcntl|time|sys/time|poll|dirent|"
                           r"libmount|libkmod|stdio_ext|sys/epoll|sys/stat)")
    calls = re.compile(r"(?<![\w.>])(fopen|open|read|write|socket|getenv|clock_gettime|time|printf|fprintf|syslog)\s*\(")
    wrong = []
    for path in tree_files("src/core/*.[ch]"):
        code = re.sub(r'//.*|"(\\.|[^"\\])*"', "", path.read_text())
        wrong += [f"{shown(path)}: {found.group(0)}" for found in forbidden.finditer(path.read_text())]
        wrong += [f"{shown(path)}: {found.group(0)}" for found in calls.finditer(code)]
    assert not wrong, wrong


def test_no_promises_in_comments():
    words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    wrong = [f"{shown(path)}:{number}" for path in tree_files("src/**/*", "tests/**/*.[ch]", "tests/**/*.py",
                                                             "tests/**/*.sh", "dev")
             for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1) if words.search(line)]
    assert not wrong, " ".join(wrong)


def test_every_file_says_what_it_is_for():
    silent = [shown(path) for path in tree_files("src/**/*.[ch]", "tests/**/*.[ch]", "bench/*.[ch]")
              if not path.read_text().startswith(("//", "/*"))]
    assert not silent, silent


def test_no_two_rooms_declare_the_same_function():
    """They are linked together, where one of two would silently stand in for the other."""
    owners = {}
    for header in sorted((ROOT / "src").glob("*/*.h")):
        for name in set(re.findall(r"^(?!static|#|//)[\w \*]*?\b(\w+)\(", header.read_text(), re.M)):
            owners.setdefault(name, set()).add(header.parent.name)
    assert not {name: rooms for name, rooms in owners.items() if len(rooms) > 1 and not name.isupper()}
