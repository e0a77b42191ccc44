"""The C example, compiled and run: the same bits as from Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import autosparse
from autosparse import kernels

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) on PATH")
    program = tmp_path_factory.mktemp("embed") / "embed"
    source = ROOT / "examples/embed/main.c"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run(
        [compiler, *flags, f"-I{kernels.include_dir()}", str(source), str(kernels.library_path()),
         "-o", str(program)],
        check=True,
    )  # fmt: skip
    return program


def printed(program: Path, *arguments: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return np.array(done.stdout.split(), np.float32)


def test_the_example_computes_what_python_does(embed: Path, artifact: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, 14, 14), np.float32)
    values.tofile(tmp_path / "input.f32")
    with autosparse.load(artifact, threads=1) as model:
        found = model(values)
    wanted = [found["classes"], *found["more"][:1], found["more"][1][0]]
    got = printed(embed, str(artifact), str(tmp_path / "input.f32"))
    assert np.array_equal(got, np.concatenate([leaf.ravel() for leaf in wanted]))


def test_the_example_runs_without_an_input(embed: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.autosparse"
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    autosparse.export(module, (torch.randn(1, 3, 8, 8),), path, dtype="bf16", measure=False, threads=1)
    ramp = (np.arange(192, dtype=np.float32) / np.float32(192)).reshape(1, 3, 8, 8)
    with autosparse.load(path, threads=1) as model:
        assert np.array_equal(printed(embed, str(path)), model(ramp).ravel())


def test_the_example_says_what_is_wrong(embed: Path, artifact: Path, tmp_path: Path) -> None:
    def failure(*arguments: str) -> str:
        done = subprocess.run([embed, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and done.stdout == ""
        return done.stderr

    (tmp_path / "short.autosparse").write_bytes(artifact.read_bytes()[:-100])
    (tmp_path / "short.f32").write_bytes(bytes(8))
    assert "usage" in failure()
    assert "must be a readable file" in failure(str(tmp_path / "none.autosparse"))
    assert "must be whole" in failure(str(tmp_path / "short.autosparse"))
    assert "too short" in failure(str(artifact), str(tmp_path / "short.f32"))
