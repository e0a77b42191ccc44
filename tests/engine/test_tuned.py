"""Rows against the executor's own rule, and tuning while compiling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autosparse
from autosparse.database import TuningDatabase
from autosparse.engine.contest import ROUNDS, contest
from autosparse.errors import UsageError
from autosparse.measuring.states import APART, NEAR, History, Prober
from autosparse.measuring.turns import interleave_here
from autosparse.progress import Progress
from autosparse.records import LayerShape

SHAPE = LayerShape(op="conv2d", batch_size=1, in_channels=8, out_channels=8, in_height=8, in_width=8)
ALONE_US = {"slow": 1.0, "middle": 2.0, "rule": 3.0}
INSIDE_US = {"slow": 9.0, "middle": 4.0, "rule": 5.0}


@dataclass
class Layer:
    name: str
    kernel: str
    pattern: str = "dense"


@dataclass
class Model:
    """One layer, as fast inside the model as its kernel is there."""

    kernel: str
    inside_us: dict[str, float]
    closed: bool = False
    layers: tuple[Layer, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = (Layer("conv", self.kernel), Layer("head", "any"))

    def run_times(self, repeats: int) -> Any:
        return np.full(repeats, int(1e3 * (10 + self.inside_us[self.kernel])), np.int64)

    def operator_times(self, repeats: int) -> dict[str, Any]:
        return {
            "conv": np.full(repeats, 1e3 * self.inside_us[self.kernel]),
            "head": np.full(repeats, 10e3),
        }

    def close(self) -> None:
        self.closed = True


@dataclass
class Table:
    """Rows that are right alone, and what contests made of them."""

    inside_us: dict[str, float]
    rows: dict[str, float] = field(default_factory=lambda: dict(ALONE_US))
    made: list[Model] = field(default_factory=list)

    def by_rows(self) -> Model:
        self.made.append(Model(min(self.rows, key=lambda name: self.rows[name]), self.inside_us))
        return self.made[-1]

    def run(self, state: str = "") -> tuple[Any, Any]:
        return contest(
            self.by_rows,
            Model("rule", self.inside_us),
            lambda times, model: [(model.kernel, float(np.median(times["conv"])) / 1e3)],
            self.rows.update,
            Progress(),
            state=state,
        )


@pytest.mark.smoke
def test_rows_that_mislead_are_replaced_until_the_model_is_no_slower() -> None:
    table = Table(INSIDE_US)
    model, verdict = table.run()
    assert (model.kernel, model.closed, verdict.winner) == ("middle", False, "rows")
    assert table.rows == {"slow": 9.0, "middle": 2.0, "rule": 5.0}
    assert verdict.amended == ("conv",)
    assert verdict.ratio == pytest.approx(15 / 14)
    assert [made.closed for made in table.made] == [True, False]
    assert "timed inside the model instead of alone: conv" in verdict.describe()


def test_where_the_rule_wins_its_choice_becomes_the_fastest_row() -> None:
    table = Table({**INSIDE_US, "middle": 8.0})
    model, verdict = table.run()
    assert (model.kernel, verdict.winner) == ("rule", "same")
    assert min(table.rows, key=lambda name: table.rows[name]) == "rule"
    assert table.rows == {"slow": 9.0, "middle": 8.0, "rule": 5.0}


def test_rows_that_cannot_be_mended_lose() -> None:
    table = Table(INSIDE_US)
    table.rows = {"slow": 1.0}
    stubborn = Table.by_rows
    kept: list[Any] = []
    model, verdict = contest(
        lambda: stubborn(table),
        Model("rule", INSIDE_US),
        lambda times, model: [model.kernel],
        kept.append,
        Progress(),
    )
    assert (model.kernel, verdict.winner) == ("rule", "rule")
    assert verdict.ci_high < 1
    assert "the rule's choice is kept" in verdict.describe()
    assert len(kept) == ROUNDS
    assert all(made.closed for made in table.made)


@pytest.mark.parametrize("seen, wanted", [(500.0, NEAR), (45.0, APART), (20_000.0, NEAR)])
def test_what_layers_take_in_another_state_amends_no_row(
    monkeypatch: pytest.MonkeyPatch, seen: float, wanted: str
) -> None:
    trace = [seen]
    prober = Prober(2, History(split_ns=100.0), lambda threads: trace[-1], lambda seconds: None)
    monkeypatch.setattr(
        "autosparse.engine.contest.interleave_here",
        lambda *given, **options: (interleave_here(*given, **options)[0], prober),
    )
    table = Table(INSIDE_US)
    model, verdict = table.run(state=wanted)
    assert (model.kernel, verdict.winner, verdict.amended) == ("rule", "rule", ())
    assert table.rows == ALONE_US
    assert [made.closed for made in table.made] == [True]
    trace.append(45.0 if wanted == NEAR else 500.0)
    assert table.run(state=wanted)[1].amended == ("conv",)


def test_equal_choices_are_not_run() -> None:
    table = Table(INSIDE_US, rows={"rule": 1.0})
    model, verdict = table.run()
    assert (model.kernel, verdict.winner, verdict.amended) == ("rule", "same", ())
    assert table.made[0].closed and not model.closed


@pytest.fixture(name="net")
def net_fixture(prune_blocks: Callable[..., None]) -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
    prune_blocks(net[2].weight, 16, 0.75, torch.Generator().manual_seed(0))
    return net.eval()


def test_compiling_tunes_the_layers_that_the_model_has(net: nn.Module, tmp_path: Path) -> None:
    url, x = f"sqlite:///{tmp_path}/rows.db", torch.randn(1, 8, 14, 14)
    with autosparse.compile(net, (x,), threads=1, database=url, tune="20s") as model:
        assert model.tuning
        with torch.no_grad():
            torch.testing.assert_close(model(x), net(x), rtol=1e-4, atol=1e-4)
    with TuningDatabase(url) as database:
        rows = database.rows()
    assert {row.key.pattern for row in rows} >= {"dense", "1x16"}
    assert {row.key.shape.split("_")[3] for row in rows} == {"o32"}
    sparse = [row for row in rows if row.key.pattern == "1x16"]
    assert {row.sparsity for row in sparse} == {0.75} and {row.key.kept for row in sparse} == {8}
    with autosparse.compile(net, (x,), threads=1, database=url) as again:
        assert all("fastest of" in layer.why for layer in again.layers)
        assert again.tuning == ""


def test_no_time_still_compiles(net: nn.Module, tmp_path: Path) -> None:
    url, x = f"sqlite:///{tmp_path}/rows.db", torch.randn(1, 8, 14, 14)
    with autosparse.compile(net, (x,), threads=1, database=url, tune="1us") as model:
        assert "what the executor's rule chooses" in model.tuning
    with TuningDatabase(url) as database:
        assert database.rows() == []


def test_known_rows_are_held_to_the_whole_and_none_is_taken(net: nn.Module, tmp_path: Path) -> None:
    url, x = f"sqlite:///{tmp_path}/rows.db", torch.randn(1, 8, 14, 14)
    autosparse.compile(net, (x,), threads=1, database=url, tune="20s").close()
    with TuningDatabase(url) as database:
        before = {row.key for row in database.rows()}
    with autosparse.compile(net, (x,), threads=1, database=url, tune="known") as model:
        assert "rows" in model.tuning
    with TuningDatabase(url) as database:
        assert {row.key for row in database.rows()} == before


@pytest.mark.parametrize("tune", ["30", "soon", "0s"])
def test_a_tuning_time_is_a_duration(net: nn.Module, tune: str) -> None:
    with pytest.raises(UsageError, match="tune must"):
        autosparse.compile(net, (torch.randn(1, 8, 14, 14),), tune=tune)
