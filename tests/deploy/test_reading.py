"""A file's manifest is read without the rest; other files are told apart from artifacts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from headed import headed
from torch import nn

import autosparse
from autosparse.deploy.manifest import FORMAT_VERSION
from autosparse.deploy.reading import read_manifest
from autosparse.errors import ArtifactError


def test_it_is_the_manifest_that_loading_finds(tmp_path: Path) -> None:
    path = tmp_path / "net.autosparse"
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU())
    autosparse.compile(model, (torch.randn(2, 12),), exportable=True).save(path, model="net")
    with autosparse.load(path, threads=1) as loaded:
        assert read_manifest(path) == loaded.manifest


def weights(path: Path) -> Path:
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path)
    return path


def of(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def cut(path: Path) -> Path:
    path.write_bytes(headed(path).read_bytes()[:40])
    return path


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (of(b""), "cannot be read as one"),
        (of(b"\xff" * 64), "cannot be read as one"),
        (of(b"version https://git-lfs.github.com/spec/v1\n"), "cannot be read as one"),
        (cut, "cannot be read as one"),
        (lambda path: path / "none", "cannot be read as one"),
        (weights, "of format 'unknown'"),
        (lambda path: headed(path, version=str(FORMAT_VERSION + 1)), "update autosparse"),
        (lambda path: headed(path, version="0"), "must be of a format version up to"),
        (lambda path: headed(path, version="\u0661"), "must be of a format version up to"),
        (lambda path: headed(path, manifest=""), "must follow format version"),
        (lambda path: headed(path, manifest="[]"), "must follow format version"),
        (lambda path: headed(path, manifest='{"model": 1}'), "must follow format version"),
    ],
)
def test_what_is_none(tmp_path: Path, write: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        read_manifest(write(tmp_path / "file"))
