"""A run with compact weights: every stage that chooses kernels is told, and so is who reads of it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import autosparse
from autosparse import models
from autosparse.cli import run as command_line
from autosparse.config import SearchConfig
from autosparse.database import TuningDatabase
from autosparse.engine.compiled import CompiledModel
from autosparse.kernels.compact import expanding_kernels
from autosparse.measuring.stopwatch import WHOLE
from autosparse.pipeline.measured import session
from autosparse.pipeline.measured.session import Contestant, SessionRequest
from autosparse.pipeline.subject import requests
from autosparse.pipeline.subject.opening import command
from autosparse.pipeline.subject.survey import Survey, survey
from autosparse.pipeline.verbs import export as export_run
from autosparse.pipeline.verbs import forecast as forecasting
from autosparse.pipeline.verbs import tune as tune_run
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.report import document as form
from autosparse.report import words
from autosparse.tuning.request import TuneResult


def config_for(shop: Any, compact: bool) -> SearchConfig:
    return SearchConfig(
        model=f"{shop.folder}/net.py:build",
        space=str(shop.folder / "space.yaml"),
        dtype="f32",
        compact_weights=compact,
    )


@pytest.fixture(scope="module", params=[False, True], ids=["free", "compact"])
def subject(request: pytest.FixtureRequest, shop: Any) -> Survey:
    return survey(config_for(shop, request.param), Progress())


def test_tuner_and_whole_runs_are_told(subject: Survey) -> None:
    compact = subject.config.compact_weights
    assert subject.tune_request("f32").compact_weights is compact
    assert requests.session_request(subject).compact_weights is compact


def test_dry_runs_and_tunings_count_and_say_it(
    shop: Any, subject: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = TuneResult(
        options={}, considered=0, timed=0, reused=0, beaten=0, skipped=(), failed=(), rows=(),
        unmeasured={}, unfinished=(), seconds=0.0,
    )  # fmt: skip
    for module in (forecasting, tune_run):
        monkeypatch.setattr(module, "survey", lambda config, progress, **more: subject)
    monkeypatch.setattr(tune_run, "measure_options", lambda *asked: nothing)
    monkeypatch.setattr(tune_run, "hold_to_the_whole", lambda *asked: ())
    found = forecasting.forecast(subject.config)
    free = dataclasses.replace(subject, config=config_for(shop, compact=False))
    request = free.tune_request("f32")
    everything = free.host.count(request, free.device, TuningDatabase())
    compact = subject.config.compact_weights
    assert (found.considered < everything.considered) is compact
    assert found.compact_weights is compact
    for text in (found.text(), tune_run.tune(subject.config).text()):
        assert (words.COMPACT_WEIGHTS in text) is compact


@pytest.mark.parametrize("compact", [False, True])
def test_whole_models_are_compiled_without_kernels_that_expand_weights(compact: bool) -> None:
    request = SessionRequest(
        model="resnet20", classes=10, input_shape=(3, 32, 32), batch_size=1, threads=1,
        contestants=(), policy=WHOLE, compact_weights=compact,
    )  # fmt: skip
    module = models.resolve("resnet20").module
    dense, sample = Contestant(name="dense"), torch.zeros(1, 3, 32, 32)
    with session._compiled(request, dense, module, sample) as program:
        assert isinstance(program, CompiledModel)
        ran = {layer.kernel for layer in program.layers}
    assert bool(ran & expanding_kernels()) is not compact


def test_an_export_elsewhere_keeps_to_it(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another host kernels are chosen anew, by the run's own settings."""
    made = export_run._Deployment(
        run=tmp_path,
        document=form.Document(
            schema=1, model="resnet20", hardware_id="another", threads=1, batch_size=1,
            dtypes=("f32",), dense=form.Dense(), configs=(),
        ),
        config=form.Config(
            id="a", accuracy=0.5, accuracy_kind="one-shot", sparsity=0.0, feasible=True, plan=""
        ),
        settings=config_for(shop, compact=True),
        plan=Plan(model="resnet20"),
        module=models.resolve("resnet20").module,
        sample=torch.zeros(1, 3, 32, 32),
    )  # fmt: skip
    export_run._artifact(made, tmp_path / "m.autosparse", overwrite=False)
    with autosparse.load(tmp_path / "m.autosparse", threads=1) as loaded:
        assert not {layer.kernel for layer in loaded.layers} & expanding_kernels()


def test_the_command_of_a_run_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = SearchConfig(model="resnet18", compact_weights=True, exclude=("a", "b"), seed=3)
    words_ = shlex.split(command(config))
    assert words_[:2] == ["autosparse", "search"] and "--compact-weights" in words_
    assert command_line([*words_[1:], "--save-config", "c.yaml"]) == 0
    assert SearchConfig.from_yaml(tmp_path / "c.yaml") == config
    assert "compact" not in command(SearchConfig(model="resnet18"))
