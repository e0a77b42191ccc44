"""The native tests of kernels/tests, on the installed library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from autosparse.kernels.native import library_path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "kernels"
HARNESS = ("harness.cpp", "reference.cpp")
RUNNERS = {
    "conformance": (
        *("conformance.cpp", "layer.cpp", "operators.cpp", "refusals.cpp", "situations.cpp"),
        *HARNESS,
    ),
    "threads": ("threads.cpp", *HARNESS),
}


def run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def program(name: str) -> str:
    """Finds a tool beside the interpreter or on the path; skips the test where there is none."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return found or pytest.skip(f"needs {name}, but it is not installed")


@pytest.fixture(
    scope="module",
    params=[pytest.param("conformance", marks=pytest.mark.long), "threads"],
)
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds a runner against the library that Python uses."""
    compiler = program(os.environ.get("CXX", "c++"))
    binary = tmp_path_factory.mktemp("native") / request.param
    library = Path(library_path())
    sources = [SOURCES / "tests" / name for name in RUNNERS[request.param]]
    flags = ["-std=c++17", "-O1", "-pthread", f"-I{SOURCES / 'include'}"]
    run([compiler, *flags, *sources, library, f"-Wl,-rpath,{library.parent}", "-o", binary])
    return binary


def test_installed_library(runner: Path) -> None:
    selection = ["--every", "15"] if runner.name == "conformance" else ["--rounds", "30"]
    assert " 0 failures" in run([runner, *selection])
