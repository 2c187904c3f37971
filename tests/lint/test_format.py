"""Formatters and checkers that others wrote: clang-format, shellcheck, mandoc, and Python's own compiler."""
import subprocess

from conftest import ROOT, shown, tree_files


def run(*command):
    return subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True,
                          errors="replace", timeout=300, check=False)


def test_c_is_formatted():
    files = tree_files("src/**/*.[ch]", "tests/**/*.[ch]", "bench/*.[ch]")
    assert files
    wrong = [shown(path) for path in files if run("clang-format", "--dry-run", "--Werror", path).returncode]
    assert not wrong, "run clang-format -i on " + " ".join(wrong)


def is_shell(path):
    with path.open("rb") as file:
        first = file.readline(80)
    return first.startswith(b"#!") and first.rstrip().endswith((b"/sh", b"/bash", b"env bash", b"busybox sh"))


def test_shell_is_clean():
    files = [path for path in tree_files("dev", ".ci/*", "data/*.sh", "tests/**/*") if is_shell(path)]
    files += tree_files("data/*.bash-completion")
    assert len(files) >= 3
    result = run("shellcheck", *files)
    assert result.returncode == 0, result.stdout + result.stderr


def test_manual_pages_are_clean():
    pages = tree_files("man/*.[0-9]")
    assert len(pages) == 3
    result = run("mandoc", "-Tlint", *pages)
    # Which other manuals are installed here is not the pages' fault.
    lines = [line for line in (result.stdout + result.stderr).splitlines()
             if "referenced manual not found" not in line and "mandoc.db" not in line]
    assert not lines, "\n".join(lines)


def test_python_compiles():
    files = tree_files("tests/**/*.py", "bench/*.py")
    assert files
    for path in files:
        compile(path.read_text(), str(path), "exec")


def test_no_blanks_at_line_ends():
    files = tree_files("src/**/*", "tests/**/*.[ch]", "tests/**/*.py", "tests/**/*.sh", "dev", "*.md", "docs/*.md",
                       "man/*", "data/*", "examples/*", "meson*", "tests/**/meson.build")
    wrong = [f"{shown(path)}:{number}" for path in files
             for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.endswith((b" ", b"\t", b"\r"))]
    assert not wrong, " ".join(wrong)
