"""Several processes train one model: what they exchange, and that it is the same training."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from autosparse.errors import MissingDependency, PlanError, Stopped, UsageError
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice, onexn
from autosparse.storage.files import read_jsonl
from autosparse.train.job import TrainJob, load_result
from autosparse.train.launch import train
from autosparse.train.recipes import Recipe
from autosparse.train.team import Team

sys.path.insert(0, str(Path(__file__).parent))
import crew
from crew import together

HERE = Path(__file__).parent

PLAIN, NORMED = f"{HERE / 'tiny_net.py'}:plain", f"{HERE / 'tiny_net.py'}:make"


def choice(pattern=None, sparsity=0.5):
    return LayerChoice(pattern=pattern or onexn(4), sparsity=sparsity)


def job_in(folder, recipe, **changes):
    job = TrainJob(
        model=PLAIN,
        weights=None,
        data="digits",
        resolution=8,
        plan=Plan(model=PLAIN, layers={"0": choice()}),
        recipe=recipe,
        folder=str(folder),
        threads=1,
    )
    return dataclasses.replace(job, **changes)


def rows_of(folder):
    return [{**row, "seconds": 0} for row in read_jsonl(Path(folder) / "metrics.jsonl")]


def assert_same_bits(a, b):
    left, right = load_file(a.weights), load_file(b.weights)
    assert set(left) == set(right)
    assert all(torch.equal(left[k], right[k]) for k in left)


class TestExchange:
    def test_gradients_and_loss_are_those_of_the_whole_batch(self):
        random = np.random.default_rng(0)
        draw = lambda *shape: [random.standard_normal(shape).astype(np.float32) for _ in range(3)]  # noqa: E731
        gradients = {"weight": draw(4, 3, 2, 2), "bias": draw(4), "some": draw(2), "none": [None] * 3}
        for name in ("weight", "bias", "some"):  # the last has no sample
            gradients[name][2] = None
        gradients["some"][0] = None  # and of this one the first's loss does not depend
        shares, losses = (3 / 7, 4 / 7, 0.0), (1.5, 0.25, 0.0)
        for loss, found, alike in together(3, crew.averaged, gradients, losses, shares):
            assert loss == pytest.approx(sum(s * own for s, own in zip(shares, losses, strict=True)))
            for name in ("weight", "bias", "some"):
                parts = zip(shares, gradients[name], strict=True)
                wanted = sum(np.float64(s) * g for s, g in parts if g is not None)
                np.testing.assert_allclose(found[name], wanted, rtol=1e-6, atol=1e-7)
            assert found["none"] is None
            assert alike  # in memory, as the parameter

    def test_all_hear_of_a_loss_that_is_not_finite(self):
        gradients = {"w": [np.ones(2, np.float32), np.full(2, np.nan, np.float32)]}
        for loss, found, _ in together(2, crew.averaged, gradients, (1.0, np.nan), (0.5, 0.5)):
            assert np.isnan(loss) and np.isnan(found["w"]).all()

    def test_a_module_without_parameters_has_a_loss_all_the_same(self):
        assert [f[0] for f in together(2, crew.averaged, {}, (1.0, 3.0), (0.25, 0.75))] == [2.5, 2.5]

    def test_statistics_become_their_mean_by_samples_and_counts_their_maximum(self):
        inf = float("inf")
        tensors = [
            [torch.tensor([[1.0, inf]]), torch.tensor(3), torch.tensor([0.5])],
            [torch.tensor([[4.0, inf]]), torch.tensor(3), torch.tensor([0.5])],
            [torch.tensor([[9.0, -inf]]), torch.tensor(0), torch.tensor([0.5])],
        ]
        for mean, count, same in together(3, crew.statistics, tensors, (10, 20, 0)):
            assert mean.tolist() == [[3.0, inf]]
            assert count.tolist() == 3
            assert same.tolist() == [0.5]

    def test_what_the_first_finds_goes_to_all(self):
        assert together(3, crew.from_first) == [
            (0, [0, 1, 2], [0]),
            (0, [0, 1, 2], []),
            (0, [0, 1, 2], []),
        ]

    @pytest.mark.parametrize("what", ["weights", "masks"])
    def test_a_process_that_differs_in_one_bit_is_named_to_all(self, what):
        said = together(3, crew.compared, 2, what)
        assert len(set(said)) == 1
        assert said[0].startswith("RunError: ") and "after epoch 3 those of rank 2 differ" in said[0]
        assert together(2, crew.compared, 9, what) == ["equal", "equal"]

    def test_one_alone_exchanges_nothing(self):
        alone, module, buffer = Team(), nn.Linear(2, 2), torch.tensor([1.0])
        assert (alone.shard, alone.is_first) == ((0, 1), True)
        assert alone.average(module, 0.5, 1.0) == 0.5 and module.weight.grad is None
        alone.average_statistics([buffer], 4)
        assert buffer.item() == 1.0
        assert alone.from_first(lambda: 7) == 7
        alone.check_equal(module, "masks", "now")


STEADY = {"kind": "short", "epochs": 2, "lr": 0.02, "batch_size": 94}
DENSE = Plan(model=PLAIN, layers={})
SAME = {
    "dense": ("dense", {}, {"ema": 0.9}),
    "subp": (
        "subp",
        {"ramp_start": 0.0, "ramp_end": 0.5},
        {"accumulate": 2, "clip_norm": 0.5, "ema": 0.9},
    ),
    "srste": ("srste", {"every": 3}, {"batch_size": 91, "clip_norm": 0.5}),
    "taylor": ("tw", {"score": "taylor", "taylor_batches": 3, "last": 0.5}, {"batch_size": 95}),
    "one batch": ("subp", {"ramp_start": 0.0, "ramp_end": 0.5}, {"batch_size": 4000, "lr": 0.05}),
}


@pytest.mark.parametrize("name", SAME)
def test_two_or_three_processes_train_as_one_does(tmp_path, name):
    """A model without batch-norm and dropout; shares of a batch differ by one."""
    method, settings, changes = SAME[name]
    recipe = Recipe(**{**STEADY, "method": method, "settings": settings, **changes})
    plan = {"plan": DENSE} if method == "dense" else {}
    alone = train(job_in(tmp_path / "1", recipe, **plan), Progress())
    size = 3 if name in ("srste", "taylor") else 2
    results = together(size, crew.trained, job_in(tmp_path / "n", recipe, **plan, workers=size))
    assert all(result == results[0] for result in results)
    ours, theirs = load_file(alone.weights), load_file(results[0].weights)
    for key in ours:
        np.testing.assert_allclose(theirs[key], ours[key], rtol=0, atol=1e-5)
    assert results[0].masks_checksum == alone.masks_checksum
    assert results[0].best_epoch == alone.best_epoch
    losses = [[row["loss"] for row in rows_of(tmp_path / folder)] for folder in ("1", "n")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert sorted(p.name for p in (tmp_path / "n").iterdir()) == [
        *("job.json", "lock", "metrics.jsonl", "result.json", "weights.safetensors"),
    ]


def test_more_processes_than_samples_train_as_one_does(tmp_path):
    recipe = Recipe(**{**STEADY, "method": "dense", "epochs": 3})
    changes = {"data": f"{HERE / 'crew.py'}:few", "classes": 10, "plan": DENSE}
    alone = train(job_in(tmp_path / "1", recipe, **changes), Progress())
    results = together(3, crew.trained, job_in(tmp_path / "3", recipe, **changes, workers=3))
    ours, theirs = load_file(alone.weights), load_file(results[0].weights)
    for key in ours:
        np.testing.assert_allclose(theirs[key], ours[key], rtol=0, atol=1e-5)


RICH = Recipe(
    kind="short",
    epochs=4,
    lr=0.05,
    batch_size=150,
    settings={"ramp_start": 0.1, "ramp_end": 0.5},
    mixup=0.3,
    ema=0.9,
    accumulate=2,
    clip_norm=1.0,
)
NORMED_PLAN = Plan(model=NORMED, layers={"3": choice(onexn(8))})


def rich_job(folder):
    return job_in(folder, RICH, model=NORMED, plan=NORMED_PLAN, workers=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Batch-norm, dropout, mixing: what two processes make of it without Ray or an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, together(2, crew.trained, rich_job(folder))[0]


def test_batch_norm_learns_and_its_statistics_fit_all_samples(whole):
    _, result = whole
    assert result.accuracy.value > 0.5
    assert result.sparsity == {"3": 0.5}
    state = load_file(result.weights)
    assert int(state["1.num_batches_tracked"]) == 4 * (1294 // 150) * 2
    assert all(torch.isfinite(values).all() for values in state.values())


def test_a_killed_team_ends_as_an_uninterrupted_one(whole, tmp_path):
    job = rich_job(tmp_path)
    with pytest.raises(BrokenProcessPool):
        together(2, crew.killed_after, job, 1)
    assert load_result(tmp_path) is None and len(rows_of(tmp_path)) == 2
    results = together(2, crew.trained, job)
    assert results[0] == results[1]
    assert_same_bits(results[0], whole[1])
    assert rows_of(tmp_path) == rows_of(whole[0])
    assert together(2, crew.trained, job)[1] == results[0]  # all get the result of a finished job


def test_all_give_up_together_where_the_loss_is_not_finite(tmp_path):
    wild = dataclasses.replace(RICH, lr=1e30, epochs=2)
    said = together(2, crew.trained, job_in(tmp_path, wild, workers=2))
    assert len(set(said)) == 1 and said[0].startswith("TrainingDiverged: the loss must stay finite")
    assert [row["status"] for row in rows_of(tmp_path)] == ["retried", "retried", "error"]


class TestJob:
    def test_the_number_of_processes_is_part_of_what_is_trained(self, tmp_path):
        job = job_in(tmp_path, RICH)
        assert "workers" not in job.to_json()
        assert dataclasses.replace(job, workers=2).fingerprint() != job.fingerprint()
        with pytest.raises(UsageError, match="workers must be at least 1, but got"):
            dataclasses.replace(job, workers=0)

    def test_one_gpu_cannot_be_named_for_several(self, tmp_path):
        with pytest.raises(UsageError, match="got 'cuda:1' for 2 of them; write cuda"):
            train(job_in(tmp_path, RICH, workers=2, device="cuda:1"), Progress())

    def test_what_is_missing_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "autosparse.train.parallel", None)
        with pytest.raises(MissingDependency, match=r"pip install 'autosparse\[train\]'"):
            train(job_in(tmp_path, RICH, workers=2), Progress())


# ------------------------------------------------------------------------------------------ on Ray


def children():
    return {c.pid for c in psutil.Process().children(recursive=True) if "ray" in " ".join(c.cmdline())}


def trainers():
    return [c for c in psutil.Process().children(recursive=True) if "RayTrainWorker" in c.name()]


@pytest.mark.long
def test_on_ray_a_killed_process_changes_nothing_and_none_is_left(whole, tmp_path):
    epochs, killed = [], []

    def kill_one(event):
        if event.message.startswith("epoch"):
            epochs.append(event.message)
        if not killed and event.done > 1:  # in the midst of the second epoch, or soon after
            killed.append(trainers()[-1].pid)
            os.kill(killed[0], signal.SIGKILL)

    before = children()
    result = train(rich_job(tmp_path), Progress(kill_one))
    assert killed and [m.partition(":")[0] for m in dict.fromkeys(epochs)] == [
        f"epoch {e}" for e in (1, 2, 3, 4)
    ]
    assert_same_bits(result, whole[1])
    assert rows_of(tmp_path) == rows_of(whole[0])
    assert result == load_result(tmp_path)
    assert children() == before


@pytest.mark.long
def test_on_ray_a_stop_and_errors_come_through(tmp_path):
    from autosparse.local_ray import LocalRay

    asked = []

    def ask(event):
        if event.message.startswith("epoch") and not asked:
            asked.append(event)

    long = dataclasses.replace(RICH, epochs=1000)
    with LocalRay(cores=2):
        wrong = Plan(model=PLAIN, layers={"44": choice()})
        with pytest.raises(PlanError, match="'44'"):
            train(job_in(tmp_path / "wrong", RICH, plan=wrong, workers=2), Progress())
        with pytest.raises(
            MissingDependency, match="3 workers must find 1 CPU each, but Ray has 2 in all"
        ):
            train(job_in(tmp_path / "many", RICH, workers=3), Progress())
        with pytest.raises(Stopped):
            train(
                job_in(tmp_path / "long", long, workers=2),
                Progress(ask, should_stop=lambda: bool(asked)),
            )
        psutil.wait_procs(trainers(), timeout=60)
        assert not trainers()
    assert rows_of(tmp_path / "long")


def _name(process):
    try:
        return process.name()
    except psutil.Error:  # it has ended
        return ""


DRIVER = """
import json, os, signal, sys
from autosparse.progress import Progress
from autosparse.train.job import TrainJob
from autosparse.train.launch import train

def die(event):
    if event.message.startswith("epoch 2"):
        os.kill(os.getpid(), signal.SIGKILL)
train(TrainJob.from_json(json.loads(sys.argv[1])), Progress(die))
"""


@pytest.mark.long
def test_with_everything_killed_the_next_call_ends_as_an_uninterrupted_one(tmp_path):
    long = dataclasses.replace(RICH, epochs=40)  # what trains outlives its driver for an instant
    job = dataclasses.replace(rich_job(tmp_path / "twice"), recipe=long)
    once = together(2, crew.trained, dataclasses.replace(job, folder=str(tmp_path / "once")))
    command = [sys.executable, "-c", DRIVER, json.dumps(job.to_json())]
    process, started = subprocess.Popen(command), []
    while process.poll() is None:
        started = psutil.Process(process.pid).children(recursive=True) or started
        time.sleep(0.1)
    assert process.returncode == -signal.SIGKILL
    # Ray's own agents look about only now and then; what trains must be gone before it begins anew.
    training = [process for process in started if "RayTrainWorker" in _name(process)]
    _, alive = psutil.wait_procs(training, timeout=120)
    assert not alive
    assert 2 <= len(rows_of(tmp_path / "twice")) < 40
    twice = together(2, crew.trained, job)
    assert_same_bits(twice[0], once[0])
    assert rows_of(tmp_path / "twice") == rows_of(tmp_path / "once")
