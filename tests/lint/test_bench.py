"""The benchmarks run, in a short form: every figure is there, whatever it is. How long anything took is not looked at."""
import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import bench
import figures

SHORT = ["--plugs", "3", "--rules", "1,20", "--vms", "1,4", "--bursts", "2,20", "--devices", "3", "--starts", "2",
         "--idle", "1"]


@pytest.fixture(scope="module")
def found(request, tmp_path_factory):
    build = ROOT / request.config.getoption("--build")
    if reason := bench.why_not():
        pytest.skip(reason)
    output = tmp_path_factory.mktemp("bench") / "bench.json"
    run = subprocess.run([sys.executable, ROOT / "bench/bench.py", "--build", build, "--output", output, *SHORT],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(output.read_text())
    assert figures.table(result) in run.stdout
    return result


def test_plugs_are_measured_with_rules_and_vms(found):
    assert [row["rules"] for row in found["rules"]] == [1, 20]
    assert [(row["vms"], row["hanging"]) for row in found["vms"]] == [(1, 0), (4, 0), (4, 1), (4, 2)]
    for row in found["rules"] + found["vms"]:
        for who in ("daemon", "floor"):
            for when in ("bytes", "attached"):
                times = row[who][when]
                assert 0 < times["p50"] <= times["p95"] <= times["p99"]
            assert row[who]["attached"]["p50"] >= row[who]["bytes"]["p50"]
            assert row[who]["memory"] > 0
        assert set(row["ratio"]) == {"bytes", "attached"}


def test_bursts_count_what_the_vms_were_asked(found):
    for burst in found["bursts"]:
        count = burst["devices"]
        assert burst["floor"]["connections"] == count and burst["floor"]["commands"] == 2 * count
        for way in ("start", "once"):
            assert burst[way]["us"] > 0 and burst[way]["connections"] >= 1
            assert burst[way]["commands"] > count  # a device_add for each, and what finds the ports


def test_start_memory_idling_and_sizes_are_measured(found):
    assert all(found["start"][who]["p50"] > 0 for who in ("daemon", "floor"))
    assert [row["devices"] for row in found["memory"]] == [3] and found["memory"][0]["kib"] > 0
    assert found["idle"]["seconds"] == 1 and found["idle"]["switches"] >= 0 and found["idle"]["cpu"] >= 0
    for who in ("daemon", "floor"):
        assert found["sizes"][who]["program"] > 0 and found["sizes"][who]["libraries"] > 0


def test_the_plots_are_whole(found):
    plots = figures.plots(found)
    page = (ROOT / "docs/benchmarks.md").read_text()
    for name, svg in plots.items():
        assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
        assert f"benchmark-{name}.svg" in page and (ROOT / f"docs/benchmark-{name}.svg").is_file()


def test_figures_are_put_into_the_page(found, tmp_path):
    page = pathlib.Path(tmp_path / "benchmarks.md")
    page.write_text("before\n" + figures.BEGIN + "old\n" + figures.END + "after\n")
    figures.publish(found, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert figures.table(found) in text


def test_percentiles():
    values = list(range(1, 101))
    assert [bench.percentile(values, part) for part in (50, 95, 99)] == [50, 95, 99]
    assert bench.percentile([7], 99) == 7


@pytest.mark.parametrize("top", [0.4, 3, 9, 42, 999, 12345, 1700000])
def test_the_marks_of_a_plot_reach_beyond_its_values(top):
    marks = figures.ticks(top)
    assert marks[0] == 0 and marks[-1] >= top and 2 <= len(marks) <= 9
