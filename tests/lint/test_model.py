"""The model of attach and detach: it holds, it finds mistakes, and it speaks of the reconciler's own operations."""
import re
import subprocess

import pytest

from conftest import ROOT

MODEL = ROOT / "docs/model/attachment.pml"
# A RETRY that only news repeat, and one that only a person repeats: docs/model/README.md says so.
LEFT_OUT = {"RESULT_REFUSED", "RESULT_FIXED"}


def check(*arguments):
    return subprocess.run([ROOT / "docs/model/check", *arguments], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=600, check=False)


def test_no_order_of_events_breaks_it():
    run = check("4")
    assert run.returncode == 0 and "errors: 0" in run.stdout, run.stdout + run.stderr


@pytest.mark.parametrize("mistake", re.findall(r"#(?:ifn?def) (BUG_\w+)", MODEL.read_text()))
def test_it_finds_a_planted_mistake(mistake):
    run = check("4", mistake)
    assert run.returncode != 0 and "assertion violated" in run.stdout, run.stdout + run.stderr


@pytest.mark.parametrize("kind", ["operation", "result"])
def test_its_words_are_those_of_the_reconciler(kind):
    header = (ROOT / "src/core/operation.h").read_text()
    listed = re.search(rf"enum {kind}_kind {{(.*?)}};", header, re.S).group(1)
    names = set(re.findall(rf"\b{kind.upper()}_\w+", re.sub(r"//.*", "", listed))) - LEFT_OUT
    words = re.search(rf"mtype:{kind} = {{(.*?)}};", MODEL.read_text()).group(1)
    assert {f"{kind.upper()}_{word.strip()}" for word in words.split(",")} == names
