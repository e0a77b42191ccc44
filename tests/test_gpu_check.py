"""What `make gpu-check` computes and says, as far as it shows without a GPU."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from autosparse import hardware
from autosparse.devices.kinds.cuda import Cuda
from autosparse.graph import Exported
from autosparse.graph.sites import find_sites

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if name.startswith("gpu_"):
            del sys.modules[name]


def test_without_a_gpu_it_says_what_is_missing_and_writes_nothing(tmp_path: Path) -> None:
    if Cuda.of(hardware.detect()):
        pytest.skip("this host has a GPU")
    line = [sys.executable, str(FOLDER / "gpu_check.py"), "--out", str(tmp_path / "x" / "out.json")]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 7
    assert done.stderr.startswith("gpu_check: device cuda was asked for, but ")
    assert not list(tmp_path.iterdir())


def test_goals_hold_the_raw_means_and_say_what_is_missing(benchmarks: Any, capsys: Any) -> None:
    figures = benchmarks("gpu_figures")

    def layer(name: str, median: float, *, chosen: bool, half: float | None = None) -> Any:
        return figures.LayerFigure(
            group="linears, TVW",
            name=name,
            over_dense=figures.Ratio(median=median, low=median, high=median),
            over_library=half and figures.Ratio(median=half, low=half, high=half),
            is_chosen=chosen,
        )

    layers = [
        layer("one", 4.0, chosen=True, half=2.0),
        layer("other", 0.25, chosen=False),
        layer("third", 0.9, chosen=True, half=0.5),
        figures.LayerFigure(group="linears, TVW", name="last", missing="no time was left"),
    ]
    whole = figures.WholeFigure(
        name="net",
        over_rival=figures.Ratio(median=1.8, low=1.7, high=1.9),
        predicted_us=94.0,
        measured_us=100.0,
    )
    unmeasured = figures.WholeFigure(name="other net", missing="no time was left")
    found = {goal.what: goal for goal in figures.goals(layers, [whole, unmeasured])}
    paired = found["linears, TVW, over dense, geometric mean"]
    assert paired.found == pytest.approx(0.9 ** (1 / 3))
    assert paired.note == f"3 of 4 layers; {4 ** (1 / 3):.2f}x where layers that lose stay dense"
    assert paired.verdict == "missed"
    assert found["linears, TW, over dense, geometric mean"].verdict == "not measured"
    half = found["linears, TVW, over the library's 2:4, geometric mean"]
    assert half.found == pytest.approx(1.0) and half.note == "2 layers"
    least = found["any sparse layer that the tuner chose, over dense, the least"]
    assert (least.found, least.verdict) == (0.9, "missed")
    assert found["net, over torch.compile"].verdict == "met"
    assert found["net, error predicted"].found == pytest.approx(0.06)
    assert found["net, error predicted"].verdict == "missed"
    assert found["other net, over torch.compile"].verdict == "not measured"
    assert found["other net, error predicted"].verdict == "not measured"
    figures.show_goals(list(found.values()))
    for each in (*layers[:1], layers[3]):
        figures.show_layer(each)
        assert figures.LayerFigure.from_json(each.to_json()) == each
    figures.show_whole(whole)
    printed = capsys.readouterr().out
    assert "not measured: no time was left" in printed and "missed" in printed


def _linear(x: NDArray[Any], module: nn.Linear) -> NDArray[Any]:
    weight, bias = (p.detach().double().numpy() for p in (module.weight, module.bias))
    result: NDArray[Any] = x @ weight.T + bias
    return result


def _normed(x: NDArray[Any]) -> NDArray[Any]:
    centred = x - x.mean(-1, keepdims=True)
    result: NDArray[Any] = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return result


def test_bert_computes_what_it_shall_and_all_its_linear_layers_are_found(benchmarks: Any) -> None:
    torch.manual_seed(0)
    small = {"layers": 1, "width": 8, "inner": 12, "heads": 2, "words": 20, "most_tokens": 6}
    model = benchmarks("gpu_models").Bert(**small).eval()
    tokens = torch.randint(0, 20, (2, 5))
    with torch.no_grad():
        got = model(tokens).numpy()

    [layer] = model.layers
    x = model.words.weight.detach().double().numpy()[tokens.numpy()]
    x = _normed(x + model.places.weight.detach().double().numpy()[:5])
    q, k, v = (
        _linear(x, each).reshape(2, 5, 2, 4).transpose(0, 2, 1, 3)
        for each in (layer.query, layer.key, layer.value)
    )
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / 2.0)
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    x = _normed(x + _linear(mixed.transpose(0, 2, 1, 3).reshape(2, 5, 8), layer.output))
    inner = _linear(x, layer.up)
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    expected = _normed(x + _linear(inner, layer.down))
    np.testing.assert_allclose(got, expected, atol=2e-5)

    found = find_sites(Exported(model, (tokens,))).layers
    assert [each.name for each in found] == [
        f"layers.0.{name}" for name in ("query", "key", "value", "output", "up", "down")
    ]


def test_wrong_results_of_a_whole_model_are_seen(benchmarks: Any) -> None:
    off = benchmarks("gpu_layers")._off
    module, x = nn.Linear(4, 3), torch.ones(2, 4)
    assert not off(module, module, x)
    assert off(nn.Linear(4, 3), module, x)
    assert off(lambda x: torch.full((2, 3), math.nan), module, x)
