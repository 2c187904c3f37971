"""Where the fuzzers are."""
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pytest_addoption(parser):
    parser.addoption("--build", default="build/fuzz", help="build directory with the fuzzers")


@pytest.fixture(scope="session")
def build(request):
    return ROOT / request.config.getoption("--build")
