"""`autosparse profile --break-even`: bad input, and a map of a small network by real kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autosparse.cli import run
from autosparse.pipeline.results.outcomes import BreakEvenOutcome

MODEL = """
from torch import nn


def build(num_classes=5):
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
    net.input_shape = (3, 10, 10)
    return net


def depthwise(num_classes=5):
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    net.input_shape = (4, 10, 10)
    return net
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(MODEL)
    return f"{tmp_path / 'net.py'}:build"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--threads", "0"], "--threads must be a whole number from 1 on"),
        (["--threads", "9999"], "threads must be at most"),
        (["--dtype", "f16"], "--dtype must be f32 or bf16"),
        (["--block-n", "3"], "--block-n must be one of 1, 2, 4, 8, 16, 32"),
        (["--input-shape", "3"], "--input-shape must be channels, height and width"),
        (["--model", "resnet19"], "did you mean resnet18"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["profile", "--break-even", *flags]) == 2
    assert said in capsys.readouterr().err


def test_flags_of_the_map_need_the_map(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "--block-n", "16"]) == 2
    assert (
        "--block-n is of the break-even map, but --break-even was not given" in capsys.readouterr().err
    )


def test_a_model_that_cannot_be_sparse_has_no_map(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = model.replace(":build", ":depthwise")
    assert run(["-q", "profile", "--break-even", "--model", source, "--threads", "1"]) == 2
    assert "has none: depthwise convolution: no sparse kernel" in capsys.readouterr().err


def test_the_map_is_printed_kept_and_measured_once(
    model: str, own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["-q", "profile", "--break-even", "--model", model, "--threads", "1", "--block-n", "8,16"]
    assert run(line) == 0
    text = capsys.readouterr().out
    assert "least sparsity that beats dense" in text
    assert "1x8" in text and "1x16" in text and "conv2d_b1_i16x8x8_o16" in text
    [file] = (own_home / "break-even").glob("*.json")
    kept = json.loads(file.read_text())
    assert BreakEvenOutcome.from_json(kept).to_json() == kept
    assert (kept["schema"], kept["model"], kept["threads"], kept["dtype"]) == (2, model, 1, "f32")
    assert list(kept["layers"].values()) == [["0"], ["2"]]
    assert len(kept["cells"]) == 4 and kept["timed"] > 0
    assert run([*line, "--json", "-o", str(tmp_path / "map.json")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["timed"], again["reused"]) == (0, kept["timed"] + kept["reused"])
    assert again["cells"] == kept["cells"]
    assert json.loads((tmp_path / "map.json").read_text()) == again
