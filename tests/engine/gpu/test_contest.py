"""Ways to run one model on a GPU, held against one another on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import autosparse
from autosparse.engine.gpu import contest
from autosparse.engine.gpu.compiling import Place, compile_on
from autosparse.engine.gpu.contest import compile_fastest, fastest
from autosparse.errors import NoKernel, Stopped, UsageError
from autosparse.graph import Exported
from autosparse.kernels.gpu.chips import CHIPS
from autosparse.measuring.histories import prober_for
from autosparse.progress import Progress

HERE = Place(device=torch.device("cpu"), chip=CHIPS[9, 0])
X = torch.randn(2, 12, generator=torch.Generator().manual_seed(1))
Way = Callable[[], autosparse.CompiledModel]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = {**contest._POLICY.to_json(), "time_cap_us": 150_000.0, "warmup_us": 1_000.0}
    monkeypatch.setattr(contest, "_POLICY", type(contest._POLICY).from_json(policy))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 5)).eval()


class Ways:
    """Makes ways, and remembers the models."""

    def __init__(self) -> None:
        self.made: dict[str, autosparse.CompiledModel] = {}

    def way(self, name: str, seed: int = 0, late_s: float = 0.0) -> Way:
        def make() -> autosparse.CompiledModel:
            model = compile_on(Exported(network(seed), (X,)), HERE)
            times = model.run_times

            def late(repeats: int) -> NDArray[np.int64]:
                time.sleep(late_s * repeats)
                return times(repeats) + int(1e9 * late_s)

            model.run_times = late  # type: ignore[method-assign]
            self.made[name] = model
            return model

        return make

    def is_open(self, name: str) -> bool:
        try:
            self.made[name](X)
        except UsageError:
            return False
        return True


def fail(error: Exception) -> Way:
    def way() -> autosparse.CompiledModel:
        raise error

    return way


def won(ways: dict[str, Way]) -> autosparse.CompiledModel:
    return fastest(ways, (X,), Progress(), probe=prober_for)


@pytest.mark.parametrize("late", ["one", "other"])
def test_the_fastest_stays_and_the_verdict_says_by_how_much(late: str) -> None:
    makes = Ways()
    ways = {name: makes.way(name, late_s=2e-3 if name == late else 0.0) for name in ("one", "other")}
    best = "other" if late == "one" else "one"
    with won(ways) as model:
        assert model is makes.made[best]
        assert f"{best} is the fastest of 2; {late} takes " in model.tuning
        assert makes.is_open(best) and not makes.is_open(late)


def test_what_fails_or_computes_something_else_takes_no_part_however_short_it_takes() -> None:
    makes = Ways()
    ways = {
        "first": makes.way("first", late_s=1e-3),
        "failing": fail(RuntimeError("no such operator\nand its trace")),
        "without kernel": fail(NoKernel("none for it", {})),
        "wrong": makes.way("wrong", seed=1),
    }
    with won(ways) as model:
        assert model is makes.made["first"]
        assert "failing takes no part: no such operator;" in model.tuning
        assert "without kernel takes no part: none for it" in model.tuning
        assert "wrong takes no part: its results are off by " in model.tuning
        assert not makes.is_open("wrong")


def test_results_that_are_not_finite_are_wrong() -> None:
    nan = torch.full((3,), float("nan"))
    assert contest._off(nan, torch.zeros(3)) == float("inf")
    assert contest._off(torch.zeros(2), torch.zeros(3)) == float("inf")
    assert contest._off(torch.zeros(3), torch.zeros(3)) == 0.0


def test_a_stop_leaves_nothing_open() -> None:
    makes = Ways()
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 1

    with pytest.raises(Stopped):
        fastest(
            {name: makes.way(name) for name in ("one", "other", "third")},
            (X,),
            Progress(should_stop=stop),
            probe=prober_for,
        )
    assert makes.made and not any(makes.is_open(name) for name in makes.made)


def test_our_layers_and_torchs_take_part_as_they_are_and_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def compiler(program: torch.fx.GraphModule) -> Callable[..., Any]:
        seen.append(1)
        return torch.compile(program, backend="eager")  # type: ignore[no-any-return]

    monkeypatch.setattr(contest, "by_torch", compiler)
    module = network()
    with compile_fastest(Exported(module, (X,)), HERE, Progress(), dtype="bf16") as model:
        assert "is the fastest of 3" in model.tuning
        assert torch.allclose(model(X), module(X), atol=2e-2)
    assert len(seen) == 2
    torch._dynamo.reset()
