"""Comparisons with compact weights: ours without kernels that expand them, and the reader told so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import comparison, result

import autosparse
from autosparse.cli import run
from autosparse.compare import own, picture, table
from autosparse.compare.records import Asked, Comparison, Own, Subject
from autosparse.compare.session import SessionRequest, run_session
from autosparse.compare.task import build, capture
from autosparse.hardware import describe
from autosparse.hosts.here import LocalHost
from autosparse.kernels.compact import expanding_kernels
from autosparse.kernels.spec import kernels_for
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import DENSE, LayerChoice
from autosparse.tuning.request import TuneRequest

SHAPE = (1, 3, 12, 12)


def expanding_plan(model: str) -> Plan:
    """Names a kernel that expands weights for the convolution in the middle."""
    middle = capture(Subject(model=model), SHAPE)[1]
    kernel = next(kernel for kernel in kernels_for(middle.shape, DENSE) if kernel.expands_weights)
    return Plan(model="net", layers={"middle": LayerChoice(kernel=kernel.name)})


def test_layers_are_tuned_without_them(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TuneRequest] = []
    host = LocalHost()
    monkeypatch.setattr(host, "measure", lambda request, *rest, **more: seen.append(request))
    subject = Subject(model=model)
    layers = capture(subject, SHAPE)
    for compact in (False, True):
        asked = Asked(subject=subject, compact_weights=compact)
        own.tune_layers(asked, layers, layers[1:-1], "f32", 1, describe(), host, Progress())
    assert [request.compact_weights for request in seen] == [False, True]


def test_contestants_are_compiled_without_them(
    model: str, request_for: Callable[..., SessionRequest]
) -> None:
    asking = Own(name="fast", dtype="f32", plan=expanding_plan(model))
    free = Own(name="free", dtype="f32")
    found = run_session(request_for(own=(asking,)))
    assert [ran.contestant.name for ran in found.results] == ["fast"]
    assert {layer.kernel for layer in found.results[0].layers} & expanding_kernels()
    found = run_session(request_for(own=(asking, free), compact_weights=True))
    assert [ran.contestant.name for ran in found.results] == ["free"]
    assert not {layer.kernel for layer in found.results[0].layers} & expanding_kernels()
    assert "with compact_weights a plan must name kernels" in found.refused[0].reason


def test_files_that_name_them_are_refused_before_any_work(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = expanding_plan(model)
    plan.save(tmp_path / "plan.yaml")
    module = build(Subject(model=model))
    for name, options in (("fast", {"plan": plan}), ("compact", {"compact_weights": True})):
        file = tmp_path / f"{name}.autosparse"
        autosparse.export(module, (torch.zeros(SHAPE),), file, measure=False, threads=1, **options)
    line = ["bench", "-m", model, "--compact-weights", "--threads", "1", "--against", "nobody"]
    for flags, said in (
        (["--plan", str(tmp_path / "plan.yaml")], "with compact_weights a plan must name kernels"),
        (["--artifact", str(tmp_path / "fast.autosparse")], "export again with it"),
        (["--artifact", str(tmp_path / "compact.autosparse")], "a peer must be one of"),
    ):
        assert run([*line, *flags]) == 2
        assert said in capsys.readouterr().err


def test_tables_pictures_and_json_say_so() -> None:
    def texts(compact: bool) -> list[Any]:
        found = comparison(result("autosparse 75 %", "f32", 1.0))
        asked = Asked(subject=found.asked.subject, compact_weights=compact)
        found = Comparison.from_json({**found.to_json(), "asked": asked.to_json()})
        return [
            table.title(found, found.sessions[0]),
            picture.figure(found).layout.title.text,
            json.dumps(found.to_json()["asked"]).replace('"compact_weights": false', ""),
        ]

    for free, compact in zip(texts(False), texts(True), strict=True):
        assert "compact" not in free
        assert "compact weights" in compact.replace("_", " ")
