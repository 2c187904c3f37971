"""Each fuzzer, for a moment: over its corpus, and a number of inputs made from it. ./dev fuzz runs them for longer."""
import os
import pathlib
import subprocess


HERE = pathlib.Path(__file__).parent
FUZZERS = sorted(path.stem[len("fuzz_"):] for path in HERE.glob("fuzz_*.c"))
RUNS = os.environ.get("FUZZ_RUNS", "20000")
SECONDS = os.environ.get("FUZZ_SECONDS", "0")  # 0: as long as the runs take


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", FUZZERS)


def test_no_input_breaks_it(name, build, tmp_path):
    program = build / "tests/fuzz" / f"fuzz_{name}"
    assert program.is_file(), f"{program} is not there: --build must name a build with -Dfuzz=true, as that of ./dev fuzz"
    corpus = [str(HERE / "corpus" / name)]
    if name == "config":
        corpus = [str(HERE.parent / "config" / kind) for kind in ("good", "bad")]
    new = tmp_path / "new"
    new.mkdir()
    limit = [f"-max_total_time={SECONDS}"] if SECONDS != "0" else [f"-runs={RUNS}"]
    run = subprocess.run([program, *limit, "-max_len=8192", "-print_final_stats=1", "-seed=1",
                          "-artifact_prefix=" + str(tmp_path) + "/", new, *corpus],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    found = [path for path in tmp_path.iterdir() if path.is_file()]
    inputs = "\n".join(f"{path.name}: {path.read_bytes()[:4096]!r}" for path in found)
    assert run.returncode == 0 and not found, inputs + "\n" + run.stderr[-8000:]
    executed = next(line for line in run.stderr.splitlines() if "number_of_executed_units" in line)
    print(f"fuzz_{name}: {executed.split()[-1]} inputs")
