"""The clients of `examples/serving`, in Python and in Rust, against a server with the quickstart's events."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest

from server import BINARY, ENVIRONMENT, Server, cli

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    with open(os.path.join(ROOT, "examples", "quickstart.sql")) as script:
        cli(folder / "warehouse", script.read())
    shutil.copytree(folder / "warehouse", folder / "untouched")
    with Server(folder / "warehouse", folder) as started:
        yield started


def example(name, *arguments):
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, "examples", "serving", name), *arguments], capture_output=True, text=True, timeout=120, env=ENVIRONMENT
    )


def test_serve(quickstart):
    done = example("serve.py", quickstart.uri, "ann", "bob", "cy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "by ticket",
        "  {'user_id': 'ann', 'payments_1h': 1, 'spend_1h': 12.0, 'largest_24h': 20.0}",
        "  {'user_id': 'bob', 'payments_1h': 1, 'spend_1h': 70.0, 'largest_24h': 70.0}",
        "  {'user_id': 'cy', 'payments_1h': 0, 'spend_1h': None, 'largest_24h': None}",
        "by session",
        "  ann {'spend_1h': 12.0, 'payments_1h': 1}",
        "  bob {'spend_1h': 70.0, 'payments_1h': 1}",
        "  cy {'spend_1h': None, 'payments_1h': 0}",
    ]


@pytest.mark.parametrize("target", ["pandas", "polars"])
def test_train(quickstart, target):
    done = example("train.py", quickstart.uri, target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1080 rows of training"


@pytest.mark.parametrize("target", ["torch", "xgboost"])
def test_train_into_what_is_optional(quickstart, target):
    """Where it is installed it works; where it is not, the example says so and how to get it."""
    done = example("train.py", quickstart.uri, target)
    if importlib.util.find_spec(target):
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "1080 rows of training", done.stderr
    else:
        assert done.returncode == 1 and done.stderr.strip() == f"{target} is missing: pip install {target}"


def test_rust(quickstart, tmp_path):
    """The example in Rust, which cargo builds beside the binary; it writes, so it has a copy."""
    shutil.copytree(quickstart.folder / "untouched", tmp_path / "warehouse")
    with Server(tmp_path / "warehouse", tmp_path) as started:
        done = subprocess.run(
            [os.path.join(os.path.dirname(BINARY), "examples", "serving"), started.uri], capture_output=True, text=True, timeout=120, env=ENVIRONMENT
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("| ann     | 12.0     | 1           |") == 1, done.stdout
    assert "| 1.1666666666666667 |" in lines, done.stdout
    assert "written, first: accepted 1, duplicate 1" in lines and "written, again: accepted 0, duplicate 0" in lines, done.stdout
    assert "training: 5 rows" in lines, done.stdout
