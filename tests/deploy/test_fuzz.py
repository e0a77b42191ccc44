"""The native fuzz test of the loader, on the artifact of a small network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from autosparse import kernels

SOURCES = Path(__file__).parents[2] / "kernels"
# `make sanitize` names an instrumented one.
BUILT = os.environ.get("ARTIFACT_FUZZ")
ROUNDS = int(os.environ.get("ARTIFACT_FUZZ_ROUNDS", "200"))


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if BUILT is not None:
        return Path(BUILT)
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    binary = tmp_path_factory.mktemp("fuzz") / "artifact_fuzz"
    sources = [SOURCES / "tests/artifact_fuzz.cpp", SOURCES / "artifact/sha256.cpp"]
    library = Path(kernels.library_path())
    flags = ["-std=c++17", "-O1", f"-I{SOURCES}", f"-I{SOURCES / 'include'}"]
    command = [compiler, *flags, *sources, library, f"-Wl,-rpath,{library.parent}", "-o", binary]
    subprocess.run(command, check=True)
    return binary


def test_damaged_artifacts_are_refused_and_never_crash(fuzz: Path, artifact: Path) -> None:
    command = [fuzz, artifact, "--rounds", str(ROUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    # Some changes that the hashes do not tell are harmless: those programs were run.
    assert f" of {ROUNDS} resealed changes were taken and ran" in done.stdout
    assert "\n0 failures" in done.stdout
