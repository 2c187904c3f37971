#!/usr/bin/python3
"""Counts what each suite's result files say, prints a table and, as the last line, the sum.

usage: summary.py RESULTS SUITE...     exit status 0 only if every suite ran and nothing failed
"""
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

UNIT_SUITES = ("gcc", "clang", "sanitizers")


class Suite:
    """What came out of one suite: names passed, (name, why) failed and skipped, remarks."""

    def __init__(self, name):
        self.name = name
        self.passed, self.failed, self.skipped, self.remarks = [], [], [], []

    def add(self, name, outcome, why=""):
        if outcome == "passed":
            self.passed.append(name)
        elif outcome == "skipped" and why:
            self.skipped.append((name, why))
        else:
            self.failed.append((name, why if outcome == "failed" else "skipped without saying why"))


def one_line(text, limit=200):
    """The text on one line, safe to print: results may quote hostile bytes."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def junit_cases(path):
    """(name, outcome, why) of each test case in one JUnit file."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name, outcome, why = case.get("name", "?"), "passed", ""
        for kind, means in (("skipped", "skipped"), ("error", "failed"), ("failure", "failed")):
            found = case.find(kind)
            if found is not None:
                outcome, why = means, found.get("message") or found.text or ""
        # A test id is its file and its name, so that two of one name stay two.
        classname = case.get("classname")
        yield (f"{classname}::{name}" if classname else name), outcome, one_line(why)


def pytest_outcomes(path):
    """Name -> (outcome, why). A case reported twice (call and teardown) takes the worse one."""
    order = ("passed", "skipped", "failed")
    found = {}
    for name, outcome, why in junit_cases(path):
        if name not in found or order.index(outcome) > order.index(found[name][0]):
            found[name] = (outcome, why)
    return found


def read_pytest(suite, results):
    first = results / f"{suite.name}.xml"
    if not first.exists():
        suite.add(suite.name, "failed", "the suite left no results: see the output above")
        return
    outcomes = pytest_outcomes(first)
    again = results / f"{suite.name}-again.xml"
    if again.exists():
        second = pytest_outcomes(again)
        healed = [name for name, (outcome, _) in outcomes.items()
                  if outcome == "failed" and second.get(name, ("",))[0] == "passed"]
        for name in healed:
            outcomes[name] = second[name]
        if healed:
            suite.remarks.append(f"{suite.name}: {len(healed)} failed at first and passed when run again: "
                                 + ", ".join(name.split("::")[-1] for name in healed))
    for name, (outcome, why) in outcomes.items():
        suite.add(name, outcome, why)
    if not outcomes:
        suite.add(suite.name, "failed", "no test was run")


def skip_reason(stdout, name):
    """Why a C test skipped: the line of its output that names it, else the last that says skip."""
    lines = [line for line in stdout.splitlines() if line.strip()]
    for wanted in (name, "skip"):
        for line in reversed(lines):
            if wanted in line:
                return one_line(line)
    return ""


def read_unit_programs(suite, results):
    """meson's log says how each program ended; cmocka's files say how each test function did."""
    log = results.parent / suite.name / "meson-logs" / "testlog-run-unit.json"
    if not (results / suite.name).is_dir() or not log.exists():
        suite.add(suite.name, "failed", "the suite left no results: see the output above")
        return
    programs = {}
    for line in log.read_text(errors="replace").splitlines():
        test = json.loads(line)
        program = pathlib.Path(test["command"][1]).name
        programs.setdefault(program, []).append(test)
    for program, tests in sorted(programs.items()):
        read_unit_program(suite, results / suite.name, program, tests)
    if not programs:
        suite.add(suite.name, "failed", "no test was run")


def how_it_ended(test):
    return "took too long" if test["result"] == "TIMEOUT" else f"exit status {test['returncode']}"


def read_unit_program(suite, directory, program, tests):
    ended_badly = [test for test in tests if test["result"] not in ("OK", "SKIP", "EXPECTEDFAIL")]
    cases = []
    try:
        for path in sorted(directory.glob(f"{program}.[0-9]*.xml")):
            cases += junit_cases(path)
    except ElementTree.ParseError as error:
        suite.add(program, "failed", f"its results are no XML: {error}")
        return
    if not cases:  # no cmocka program, or one that ended before it could write: each run counts as one
        for test in tests:
            outcome = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}.get(test["result"], "failed")
            output = test.get("stdout") or ""
            last = one_line(output.strip().splitlines()[-1]) if output.strip() else ""
            suite.add(test["name"], outcome, how_it_ended(test) if outcome == "failed" else last)
        return
    stdout = "\n".join(test.get("stdout") or "" for test in tests)
    for name, outcome, why in cases:
        suite.add(f"{program}::{name}", outcome, skip_reason(stdout, name) if outcome == "skipped" else why)
    if not any(outcome == "failed" for _, outcome, _ in cases):
        for test in ended_badly:  # all functions passed, but a leak or a teardown ended the program
            suite.add(test["name"], "failed", f"{how_it_ended(test)} after its tests had passed")


def read_suite(name, results):
    suite = Suite(name)
    try:
        (read_unit_programs if name in UNIT_SUITES else read_pytest)(suite, results)
    except (OSError, ValueError, KeyError, ElementTree.ParseError) as error:
        suite.add(name, "failed", f"the results cannot be read: {error}")
    status = results / f"{name}.status"
    code = status.read_text().strip() if status.exists() else "missing"
    if code != "0" and not suite.failed:
        suite.add(name, "failed", f"ended with status {code} though no test failed")
    return suite


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    results = pathlib.Path(arguments[0])
    suites = [read_suite(name, results) for name in arguments[1:]]
    print()
    print(f"{'suite':<16}{'passed':>8}{'failed':>8}{'skipped':>8}")
    for suite in suites:
        print(f"{suite.name:<16}{len(suite.passed):>8}{len(suite.failed):>8}{len(suite.skipped):>8}")
    for suite in suites:
        for remark in suite.remarks:
            print(remark)
        for word, entries in (("skipped", suite.skipped), ("FAILED", suite.failed)):
            for name, why in entries:
                print(f"{word}: {suite.name}: {one_line(name)}" + (f": {why}" if why else ""))
    passed, failed, skipped = (sum(len(getattr(suite, kind)) for suite in suites)
                               for kind in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
