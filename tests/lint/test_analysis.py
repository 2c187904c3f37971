"""What finds faults by reading: gcc's analyzer, clang-tidy, cppcheck and scan-build over src. None may say anything.

What a tool is told to leave out has its reason beside it: here, in .clang-tidy, or at the place in the source. scan-build
takes as long as all the others together several times over, and is left to ./dev lint and ./dev lint-long.
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess

import pytest

from conftest import ROOT

# Has something for each of the tools; one that finds nothing here does not work.
PLANTED = """#include <stdlib.h>
int planted(int number);
int planted(int number)
{
    int *none = NULL;
    char narrow = number;
    return narrow ? *none : 0;
}
"""
CPPCHECK_OPTIONS = (
    "--enable=warning,performance,portability", "--inline-suppr", "--library=posix", "--library=gnu", "--quiet",
    "--template={file}:{line}: {id}: {message}", "--error-exitcode=0",
    "--suppress=readdirCalled",    # safe for each stream alone, and none is shared
    "--suppress=fgetpwentCalled",  # by the main thread alone
    "--suppress=fgetgrentCalled",  # the same
)
# A macro of libudev's header, which cppcheck does not read.
CPPCHECK_MACROS = "#define udev_list_entry_foreach(entry, first) " \
                  "for (entry = first; entry; entry = udev_list_entry_get_next(entry))\n"


class Sources:
    """Source files, each with the arguments of the compiler that say what it means, and without those of one compiler."""

    def __init__(self, directory, arguments):
        self.directory = directory
        self.arguments = arguments  # path -> list
        database = [{"directory": str(ROOT), "file": path, "command": shlex.join(["cc", *words, "-c", path])}
                    for path, words in arguments.items()]
        (directory / "compile_commands.json").write_text(json.dumps(database))

    def each(self, run):
        """What RUN(path) says of each file, several at a time; RUN returns a text, empty if all is well."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            return [text for text in pool.map(run, self.arguments) if text.strip()]


def meaning(entry):
    """The arguments that say what a file means, with whole paths."""
    for word in shlex.split(entry["command"]):
        if word.startswith("-I"):
            yield "-I" + os.path.normpath(os.path.join(entry["directory"], word[2:]))
        elif word.startswith(("-D", "-std=")):
            yield word


def call(*command, status=True):
    """What a tool says; also that it failed, if STATUS."""
    run = subprocess.run([str(word) for word in command], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                         errors="replace", timeout=3600, check=False)
    return run.stdout + run.stderr + (f"{command[0]} failed: {run.returncode}\n" if status and run.returncode else "")


def gcc(sources):
    """Without optimization: once functions are inlined, gcc 12 misses what a local with CLEANUP begins with."""
    options = ("-O0", "-fanalyzer", "-o", "/dev/null")
    return sources.each(lambda path: call("gcc", *sources.arguments[path], *options, "-c", path))


def clang_tidy(sources):
    def run(path):
        text = call("clang-tidy", f"--config-file={ROOT / '.clang-tidy'}", "-p", sources.directory, "--quiet", path)
        # How many it has found in the headers of others, of which it says nothing.
        return re.sub(r"(?m)^\d+ warnings? generated\.\n", "", text)
    return sources.each(run)


def is_released(finding):
    """Whether cppcheck has lost a descriptor that is declared with CLEANUP, an attribute that it does not know."""
    match = re.match(r"(.+?):(\d+): resourceLeak: Resource leak: (\w+)$", finding)
    if not match:
        return False
    before = pathlib.Path(match[1]).read_text().splitlines()[:int(match[2])]
    function = before[max(i for i, line in enumerate(before) if line == "{"):]
    return any(re.match(rf"\s+CLEANUP\(\w+\)\s+(?:\w+\s+)+\**{match[3]} =", line) for line in function)


def cppcheck(sources):
    macros = sources.directory / "macros.h"
    macros.write_text(CPPCHECK_MACROS)
    text = call("cppcheck", f"--project={sources.directory / 'compile_commands.json'}", *CPPCHECK_OPTIONS,
                f"--include={macros}", f"-j{os.cpu_count()}")
    return [line for line in text.splitlines() if not is_released(line)]


def scan_build(sources):
    def run(path):
        text = call("scan-build", "--status-bugs", "-o", sources.directory, "--use-cc=gcc", "gcc", *sources.arguments[path],
                    "-c", path, "-o", "/dev/null")
        return "" if "scan-build: No bugs found." in text and "failed: " not in text else text
    return sources.each(run)


TOOLS = [gcc, clang_tidy, cppcheck, pytest.param(scan_build, marks=pytest.mark.long)]


@pytest.fixture(name="source", scope="module")
def source_fixture(request, tmp_path_factory):
    build = ROOT / request.config.getoption("--build")
    arguments = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
        if path.startswith(f"{ROOT}/src/"):
            arguments.setdefault(path, list(meaning(entry)))
    assert set(arguments) == {str(path) for path in ROOT.glob("src/**/*.c")}, "the build has other files"
    return Sources(tmp_path_factory.mktemp("analysis"), arguments)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_tool_finds_what_is_planted(tool, tmp_path):
    path = tmp_path / "planted.c"
    path.write_text(PLANTED)
    findings = tool(Sources(tmp_path, {str(path): ["-std=gnu17"]}))
    assert "planted.c" in "\n".join(findings)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_tool_finds_nothing(tool, source):
    findings = tool(source)
    assert not findings, "\n".join(findings)


def test_a_descriptor_that_is_not_released_is_no_false_finding(tmp_path):
    path = tmp_path / "planted.c"
    path.write_text("int a(void)\n{\n    CLEANUP(cleanup_close) int fd = open();\n    return 1;\n}\n"
                    "int b(void)\n{\n    int fd = open();\n    return 1;\n}\n")
    finding = "{}:{}: resourceLeak: Resource leak: fd".format
    assert is_released(finding(path, 4)) and not is_released(finding(path, 9))
