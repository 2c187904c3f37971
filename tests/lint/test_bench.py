"""The benchmarks run, in a short form: every figure is there, whatever it is. How long anything took is not looked at."""
import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import figures
import real
import world

SHORT = ["--plugs", "3", "--rules", "1,20", "--vms", "1,4", "--bursts", "2,20", "--devices", "3", "--starts", "2",
         "--idle", "1", "--lab", "0"]


# A root that is no mount point, as in a chroot; where it lies is another file system of the same namespace.
CHROOT = """set -e
mount -t tmpfs none /mnt
mkdir /mnt/root
cd /mnt/root
for name in bin sbin lib lib32 lib64 usr etc proc dev sys run; do
    if [ -L /$name ]; then cp -P /$name $name; elif [ -d /$name ]; then mkdir $name; mount --rbind /$name $name; fi
done
exec chroot . "$@"
"""
KERNEL_EVENT = """import socket
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as end:
    end.sendto(b"add@/devices/one\\0ACTION=add\\0SUBSYSTEM=usb\\0DEVTYPE=usb_device\\0", (0, 1))
"""


@pytest.fixture(scope="module")
def found(request, tmp_path_factory):
    build = ROOT / request.config.getoption("--build")
    if reason := world.why_not():
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
    [memory] = found["memory"]
    assert memory["devices"] == 3 and memory["kib"] > 0 and memory["files"] >= 0
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


def lab_times():
    """What a lab may tell of 100 plugs each."""
    def plugs(scale, answer=0):
        step = 10000 * scale
        return [(1000000 * i, 1000000 * i + step * i, answer and 1000000 * i + step * i + answer,
                 1000000 * i + 2 * step * i + answer) for i in range(1, 101)]
    return {"floor": plugs(1), "daemon": plugs(5), "qemu": plugs(5, 1000000)}


def test_a_chroot_has_such_namespaces_too_and_nothing_is_mounted_outside():
    if reason := world.why_not():
        pytest.skip(reason)
    before = pathlib.Path("/proc/self/mountinfo").read_text()
    run = subprocess.run([*world.UNSHARE, CHROOT, "sh", *world.UNSHARE, world.PREPARE, "sh", "ls", "/sys"],
                         capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "bus\nclass\n", "")
    assert pathlib.Path("/proc/self/mountinfo").read_text() == before


def test_a_plug_is_seen_from_the_kernels_event_until_it_was_told(request, tmp_path):
    if reason := world.why_not():
        pytest.skip(reason)
    config = tmp_path / "vhotplug.conf"
    config.write_text(world.configuration([{"targetVm": "vm", "allow": [{"serial": "vm0000"}]}],
                                          {"vm": f"{world.SOCKETS}/proxy.qmp"}))
    with world.World(ROOT / request.config.getoption("--build")) as here:
        here.tell("watch")
        here.tell("proxy", f"{world.SOCKETS}/vm0000.qmp")
        here.start_daemon(config)
        here.tell("settled", 0)
        here.tell("make", 0, 1, 1)
        subprocess.run(["nsenter", f"--net=/proc/{here.process.pid}/ns/net", sys.executable, "-c", KERNEL_EVENT], check=True)
        here.tell("burst", 0, 1)
        udevd, added, answered, attached = map(int, here.tell("seen"))
    assert 0 < udevd and 0 < added < answered < attached


def test_real_plugs_are_told_as_shares_and_ratios():
    found = real.figures_of(lab_times())
    assert found["floor"]["plugs"] == 100
    assert found["ratio"] == {way: {"p50": 5.0, "p95": 5.0, "p99": 5.0} for way in ("bytes", "attached")}
    assert found["daemon"]["share"]["own"]["p50"] == round(100 / 1100, 3)
    assert found["daemon"]["share"]["udevd"]["p50"] == round(1000 / 1100, 3)
    share = found["qemu"]["share"]
    assert share["own"]["p50"] < found["daemon"]["share"]["own"]["p50"] and share["vm"]["p50"] > 0  # that is QEMU's own
    text = figures.lab_table({**found, "date": "2026-01-02", "minutes": 3, "load": 0.1, "load_after": 0.2})
    assert "| vhotplug, scripted VM | 100 | 91 / 91 / 91 | 9 / 9 / 9 | – |" in text
    assert "| from udevd's event to attached | 5.0 | 5.0 | 5.0 |" in text
    assert "2026-01-02" in text


def test_where_no_lab_can_run_the_reason_stands_in_its_place(monkeypatch, tmp_path):
    def no_lab(*_, **__):
        raise RuntimeError("no kernel to boot\nand much more")
    monkeypatch.setattr(real, "Lab", no_lab)
    found = real.measure(tmp_path, 1, print)
    assert found == {"missing": "no kernel to boot"}
    assert "not measured: no kernel to boot.\n" in figures.lab_table(found)


def test_percentiles():
    values = list(range(1, 101))
    assert [world.percentile(values, part) for part in (50, 95, 99)] == [50, 95, 99]
    assert world.percentile([7], 99) == 7


@pytest.mark.parametrize("top", [0.4, 3, 9, 42, 999, 12345, 1700000])
def test_the_marks_of_a_plot_reach_beyond_its_values(top):
    marks = figures.ticks(top)
    assert marks[0] == 0 and marks[-1] >= top and 2 <= len(marks) <= 9
