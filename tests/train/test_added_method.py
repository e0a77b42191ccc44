"""A pruning method is a file in one folder: a made-up one trains, and is refused by its own rules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from autosparse.errors import UsageError
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice, onexn
from autosparse.train import methods
from autosparse.train.job import TrainJob
from autosparse.train.launch import train
from autosparse.train.methods import method as registry
from autosparse.train.recipes import Recipe

METHOD = '''
"""Prunes the first inputs of every group, whatever they weigh."""

from dataclasses import dataclass

import numpy as np

from autosparse.records.rules import require
from autosparse.train.methods.method import Method, MethodSettings, register


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstSettings(MethodSettings):
    """When."""

    epoch: int = 0

    def __post_init__(self):
        require(self.epoch >= 0, "epoch must be at least 0", epoch=self.epoch)

    def first_final_epoch(self, epochs):
        return self.epoch


@register
class First(Method):
    """Hard masks."""

    Settings = FirstSettings

    def start_epoch(self, epoch, probe):
        if epoch != self.settings.epoch:
            return 0
        changed = 0
        for layer in self.layers:
            mask = np.ones(layer.shape, dtype=bool)
            mask[:, : round(layer.choice.sparsity * layer.shape[1])] = False
            changed += layer.set(mask)
        return changed
'''


@pytest.fixture
def first(tmp_path, monkeypatch):
    (tmp_path / "first.py").write_text(METHOD)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    registry.all_methods.cache_clear()
    yield
    registry.all_methods.cache_clear()
    sys.modules.pop("autosparse.train.methods.first", None)


@pytest.mark.usefixtures("first")
def test_a_method_added_in_its_one_place_trains(tmp_path):
    net = f"{Path(__file__).parent / 'tiny_net.py'}:make"
    plan = Plan(model=net, layers={"3": LayerChoice(pattern=onexn(4), sparsity=0.25)})
    job = TrainJob(
        model=net,
        weights=None,
        data="digits",
        resolution=8,
        plan=plan,
        recipe=Recipe(kind="short", epochs=2, method="first", settings={"epoch": 1}, lr=0.05),
        folder=str(tmp_path / "run"),
        threads=1,
    )
    result = train(job, Progress())
    assert result.best_epoch == 1 and result.sparsity == {"3": 0.25}
    weight = load_file(result.weights)["3.weight"]
    assert (weight[:, :4] == 0).all() and (weight[:, 4:] != 0).all()
    with pytest.raises(UsageError, match="epoch must be at least 0"):
        Recipe(kind="short", epochs=2, method="first", settings={"epoch": -1})
    with pytest.raises(UsageError, match="before the last epoch"):
        Recipe(kind="short", epochs=2, method="first", settings={"epoch": 2})
