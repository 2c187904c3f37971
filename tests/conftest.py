"""What all suites in Python share: where the programs are, and a directory of a test's own."""
import pathlib
import shutil
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption("--build", default="build/gcc", help="build directory with the programs")


@pytest.fixture(scope="session")
def build(request):
    return ROOT / request.config.getoption("--build")


@pytest.fixture
def place():
    """A directory with a short name, as socket paths are short."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="vhp-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    begin = getattr(item, "funcargs", {}).get("start")
    if report.when == "call" and report.failed:
        for daemon in getattr(begin, "daemons", ()):
            report.sections.append(("log of the daemon", "\n".join(daemon.log()[-200:])))
