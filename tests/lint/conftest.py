"""What the lint tests share: the tree, its files, and the built program."""
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tree_files(*patterns):
    """Files of the source tree that match, without build directories and hidden ones."""
    found = set()
    for pattern in patterns:
        for path in ROOT.glob(pattern):
            parts = path.relative_to(ROOT).parts
            generated = any(part.startswith("build") or part in (".git", "__pycache__") for part in parts[:-1])
            if path.is_file() and not generated:
                found.add(path)
    return sorted(found)


def shown(path):
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="session")
def help_text(build):
    run = subprocess.run([build / "src" / "vhotplug", "-h"], capture_output=True, text=True, timeout=60, check=True)
    return run.stdout


@pytest.fixture(scope="session")
def ctl_help_text(build):
    run = subprocess.run([build / "src" / "ctl" / "vhotplugctl", "-h"], capture_output=True, text=True, timeout=60, check=True)
    return run.stdout
