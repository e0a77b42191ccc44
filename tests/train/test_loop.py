"""Training one plan: what comes out, and that no interruption changes it."""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autosparse import data, models
from autosparse.errors import PlanError, RunError, Stopped, TrainingDiverged, UsageError
from autosparse.graph.rearrange import Rearrangement
from autosparse.patterns import check
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice, onexn
from autosparse.train import checkpoint, starting
from autosparse.train.evaluate import accuracy, computed_in
from autosparse.train.job import (
    TrainJob,
    TrainResult,
    append_metrics,
    load_result,
    truncate_metrics,
)
from autosparse.train.launch import train
from autosparse.train.methods.latent import MaskedLayers
from autosparse.train.recipes import Recipe

NET = f"{Path(__file__).parent / 'tiny_net.py'}:make"
PLAN = Plan(
    model=NET,
    layers={
        "3": LayerChoice(pattern=onexn(8), sparsity=0.5),
        "6": LayerChoice(pattern=onexn(4), sparsity=0.75),
    },
)
RECIPE = Recipe(kind="short", epochs=6, lr=0.1, settings={"ramp_start": 0.1, "ramp_end": 0.5})


def job_in(folder, **changes):
    job = TrainJob(
        model=NET,
        weights=None,
        data="digits",
        resolution=8,
        plan=PLAN,
        recipe=RECIPE,
        folder=str(folder),
        threads=1,
    )
    return dataclasses.replace(job, **changes)


def metrics_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(job_in(folder), Progress())


@pytest.mark.smoke
def test_weights_have_the_plans_zeros_and_the_reported_accuracy(whole):
    folder, result = whole
    state = load_file(result.weights)
    for name, choice in PLAN.layers.items():
        kept = (state[f"{name}.weight"] != 0).numpy()
        check(kept, choice.pattern)
        assert 1 - kept.mean() == pytest.approx(choice.sparsity)
    module = models.resolve(NET, classes=10, weights=Path(result.weights)).module
    images = data.resolve("digits", resolution=8)
    assert accuracy(module, images.test) == result.accuracy.value
    assert accuracy(module, images.validation) == result.validation.value
    assert (result.accuracy.split, result.accuracy.kind) == ("test", "short")
    assert result.validation.split == "validation"
    assert result.accuracy.samples == len(images.test)
    assert result.accuracy.value > 0.5  # it learnt
    assert result.sparsity == {"3": 0.5, "6": 0.75}
    assert result.seconds > 0
    assert sorted(p.name for p in folder.iterdir()) == [
        "job.json",
        "lock",
        "metrics.jsonl",
        "result.json",
        "weights.safetensors",
    ]


def test_the_best_epoch_is_chosen_among_those_with_final_masks(whole):
    folder, result = whole
    rows = metrics_of(folder)
    assert [row["epoch"] for row in rows] == list(range(6))
    final = [row for row in rows if row["epoch"] >= RECIPE.first_final_epoch]
    assert [row["sparsity"] for row in final] == [0.625] * 3
    best = max(final, key=lambda row: (row["validation_accuracy"], row["epoch"]))
    assert result.best_epoch == best["epoch"] >= 3
    assert result.validation.value == best["validation_accuracy"]


def test_running_again_gives_the_same_bits_and_a_finished_job_gives_its_result(whole, tmp_path):
    _, result = whole
    again = train(job_in(tmp_path), Progress())
    assert again.masks_checksum == result.masks_checksum
    assert_same_weights(again.weights, result.weights)
    seen = []
    assert train(job_in(tmp_path), Progress(seen.append)) == again
    assert not seen  # nothing was trained
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert load_result(moved).weights == str(moved / "weights.safetensors")


def test_another_seed_gives_other_weights(whole, tmp_path):
    other = train(job_in(tmp_path, recipe=dataclasses.replace(RECIPE, seed=1)), Progress())
    assert other.masks_checksum != whole[1].masks_checksum


def assert_same_weights(a, b):
    left, right = load_file(a), load_file(b)
    assert set(left) == set(right)
    assert all(torch.equal(left[k], right[k]) for k in left)


KILLED = """
import json, os, signal, sys
from autosparse.progress import Progress
from autosparse.train import checkpoint, launch
from autosparse.train.job import TrainJob

save = checkpoint.save
def stop_at(folder, epoch, state):
    if epoch == 3 and sys.argv[2] == "before":  # the row is written, the checkpoint is not
        os.kill(os.getpid(), signal.SIGKILL)
    save(folder, epoch, state)
    if epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save = stop_at
launch.train(TrainJob.from_json(json.loads(sys.argv[1])), Progress())
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_run_ends_as_an_uninterrupted_one(whole, tmp_path, when):
    job = job_in(tmp_path)
    command = [sys.executable, "-c", KILLED, json.dumps(job.to_json()), when]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(metrics_of(tmp_path)) == 4
    assert load_result(tmp_path) is None
    epochs = []
    resumed = train(job, Progress(lambda event: epochs.append(event.message)))
    trained = [m for m in epochs if m.startswith("epoch")]
    assert len(trained) == (3 if when == "before" else 2)
    assert resumed.masks_checksum == whole[1].masks_checksum
    assert resumed.accuracy == whole[1].accuracy
    assert_same_weights(resumed.weights, whole[1].weights)
    assert metrics_of(tmp_path) == metrics_of(whole[0])


def test_a_requested_stop_saves_and_the_next_call_goes_on(whole, tmp_path):
    epochs = []

    def sink(event):
        if event.message.startswith("epoch"):
            epochs.append(event.message)

    with pytest.raises(Stopped):
        train(job_in(tmp_path), Progress(sink, should_stop=lambda: len(epochs) >= 2))
    result = train(job_in(tmp_path), Progress(sink))
    assert len(epochs) == 6
    assert_same_weights(result.weights, whole[1].weights)


def stopped_after(folder, epochs):
    count = []

    def sink(event):
        if event.message.startswith("epoch"):
            count.append(event)

    with pytest.raises(Stopped):
        train(job_in(folder), Progress(sink, should_stop=lambda: len(count) >= epochs))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(whole, tmp_path, caplog):
    stopped_after(tmp_path, 3)
    newest = sorted(tmp_path.glob("checkpoint-*.pt"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load(tmp_path)[0] == 1
    assert f"{newest}" in caplog.text and "does not match its hash" in caplog.text
    result = train(job_in(tmp_path), Progress())
    assert_same_weights(result.weights, whole[1].weights)
    assert metrics_of(tmp_path) == metrics_of(whole[0])


def test_with_all_checkpoints_damaged_training_starts_over(whole, tmp_path, caplog):
    stopped_after(tmp_path, 2)
    for path in tmp_path.glob("checkpoint-*.pt"):
        path.write_bytes(path.read_bytes()[:100])
    (tmp_path / "checkpoint-00009.pt").write_bytes(b"not in the index")
    result = train(job_in(tmp_path), Progress())
    assert caplog.text.count("cannot be used") == 2
    assert_same_weights(result.weights, whole[1].weights)


def test_an_unreadable_index_starts_over_with_a_warning(tmp_path, caplog):
    checkpoint.save(tmp_path, 0, {"a": torch.ones(3)})
    assert checkpoint.load(tmp_path)[0] == 0
    (tmp_path / "checkpoints.json").write_text("[{")
    assert checkpoint.load(tmp_path) is None
    assert "starting over" in caplog.text


def test_metrics_hold_no_number_that_json_lacks(tmp_path):
    for epoch in range(3):
        row = {"epoch": epoch, "status": "ok", "validation_cross_entropy": float("inf")}
        append_metrics(tmp_path, row)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "sta')  # a kill cut it off
    truncate_metrics(tmp_path, 2)
    assert [row["epoch"] for row in metrics_of(tmp_path)] == [0, 1]
    assert metrics_of(tmp_path)[0]["validation_cross_entropy"] is None


def test_only_two_checkpoints_are_kept(tmp_path):
    for epoch in range(5):
        checkpoint.save(tmp_path, epoch, {"a": torch.full((3,), float(epoch))})
    assert len(list(tmp_path.glob("checkpoint-*.pt"))) == 2
    epoch, state = checkpoint.load(tmp_path)
    assert epoch == 4 and state["a"].tolist() == [4.0] * 3


def test_a_loss_that_is_not_finite_ends_with_a_row_and_an_error(tmp_path):
    wild = dataclasses.replace(RECIPE, lr=1e30)
    with pytest.raises(TrainingDiverged, match=r"must stay finite, but it became .* lower"):
        train(job_in(tmp_path, recipe=wild), Progress())
    row = metrics_of(tmp_path)[-1]
    assert row["status"] == "error" and "finite" in row["message"]
    assert not (tmp_path / "result.json").exists()
    with pytest.raises(TrainingDiverged):
        train(job_in(tmp_path, recipe=wild), Progress())
    assert len([r for r in metrics_of(tmp_path) if r["status"] == "error"]) == 1


def test_a_folder_belongs_to_one_job(whole):
    folder, _ = whole
    with pytest.raises(RunError, match="belongs to one job"):
        train(job_in(folder, recipe=dataclasses.replace(RECIPE, lr=0.2)), Progress())


def test_a_plan_that_does_not_fit_is_refused_before_training(tmp_path):
    wrong = Plan(model=NET, layers={"44": PLAN.layers["3"]})
    with pytest.raises(PlanError, match="'44'"):
        train(job_in(tmp_path, plan=wrong), Progress())


def test_starting_weights_are_used_unless_from_scratch(whole, tmp_path):
    _, result = whole
    at_once = {"ramp_start": 0, "ramp_end": 0}
    gentle = dataclasses.replace(RECIPE, epochs=1, lr=1e-6, settings=at_once)
    warm = train(job_in(tmp_path / "warm", weights=result.weights, recipe=gentle), Progress())
    assert warm.accuracy.value == pytest.approx(result.accuracy.value, abs=0.05)
    scratch = dataclasses.replace(gentle, from_scratch=True)
    cold = train(job_in(tmp_path / "cold", weights=result.weights, recipe=scratch), Progress())
    assert cold.accuracy.value < 0.4


def test_recalibration_at_the_end_changes_statistics_only(whole, tmp_path):
    recalibrated = dataclasses.replace(RECIPE, recalibrate_batches=2)
    result = train(job_in(tmp_path, recipe=recalibrated), Progress())
    left, right = load_file(result.weights), load_file(whole[1].weights)
    changed = {k for k in left if not torch.equal(left[k], right[k])}
    assert changed == {
        f"{n}.{s}" for n in (1, 4, 7) for s in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_job_and_result_travel_as_json(whole):
    folder, result = whole
    job = job_in(folder)
    assert TrainJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    assert TrainResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_masks_that_keep_moving_are_saved_with_their_own_weights(tmp_path):
    moving = {"freeze": False, "score_masked": False, "criterion": "l1"}
    restless = dataclasses.replace(RECIPE, settings={**RECIPE.settings, **moving}, lr=0.3)
    result = train(job_in(tmp_path, recipe=restless), Progress())
    state = load_file(result.weights)
    net = models.resolve(NET, classes=10).module
    layers = MaskedLayers(net, PLAN)
    for layer in layers:
        layer.set((state[f"{layer.name}.weight"] != 0).numpy())
    assert layers.checksum() == result.masks_checksum


def test_a_bf16_plan_is_trained_alike_and_its_accuracy_is_that_of_bf16(whole, tmp_path):
    layers = {name: dataclasses.replace(choice, dtype="bf16") for name, choice in PLAN.layers.items()}
    job = job_in(tmp_path, plan=dataclasses.replace(PLAN, layers=layers))
    found = train(job, Progress())
    assert_same_weights(found.weights, whole[1].weights)
    images = data.resolve("digits", resolution=8)
    module = models.resolve(NET, classes=10, weights=Path(found.weights)).module
    sample, _ = next(iter(images.test.batches(2)))
    emulated = computed_in("bf16", module, sample)
    assert found.accuracy.value == accuracy(emulated, images.test)
    assert (found.accuracy.dtype, found.accuracy.through) == ("bf16", "emulation")
    assert (found.validation.dtype, found.validation.through) == ("bf16", "emulation")


RICH = Recipe(
    kind="short",
    epochs=4,
    lr=0.05,
    optimizer="sgd",
    nesterov=True,
    settings={"ramp_start": 0.1, "ramp_end": 0.5, "soft": False},
    mixup=0.3,
    cutmix=0.5,
    distill=0.5,
    ema=0.9,
    accumulate=2,
    clip_norm=1.0,
    schedule="one-cycle",
    recalibrate_batches=2,
)


def test_all_of_a_recipe_at_once_is_resumed_to_the_bit(whole, tmp_path):
    teacher = whole[1].weights
    rich = dataclasses.replace(RICH, from_scratch=True)
    once = train(job_in(tmp_path / "once", recipe=rich, weights=teacher), Progress())
    stopped = job_in(tmp_path / "twice", recipe=rich, weights=teacher)
    count = []

    def sink(event):
        if event.message.startswith("epoch"):
            count.append(event)

    for epochs in (1, 3):
        with pytest.raises(Stopped):
            train(stopped, Progress(sink, should_stop=lambda limit=epochs: len(count) >= limit))
    twice = train(stopped, Progress(sink))
    assert len(count) == 4
    assert_same_weights(once.weights, twice.weights)
    assert once.accuracy == twice.accuracy and once.accuracy.value > 0.3
    assert metrics_of(tmp_path / "once") == metrics_of(tmp_path / "twice")
    for name, choice in PLAN.layers.items():
        check((load_file(twice.weights)[f"{name}.weight"] != 0).numpy(), choice.pattern)


def test_parts_of_a_batch_add_up_to_its_gradient(tmp_path):
    once = dataclasses.replace(RECIPE, epochs=2, lr=0.01)
    parts = dataclasses.replace(once, accumulate=4)
    plain = {"model": f"{Path(__file__).parent / 'tiny_net.py'}:plain", "plan": Plan(model="plain")}
    found = [
        load_file(train(job_in(tmp_path / name, recipe=recipe, **plain), Progress()).weights)
        for name, recipe in (("once", once), ("parts", parts))
    ]
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-5)


def test_mixed_precision_trains_too(tmp_path):
    result = train(job_in(tmp_path, recipe=dataclasses.replace(RECIPE, autocast="bf16")), Progress())
    assert result.accuracy.value > 0.5
    assert all(value.dtype != torch.bfloat16 for value in load_file(result.weights).values())


class TestRetries:
    @pytest.fixture
    def broken(self, monkeypatch):
        """Makes the loss of some epochs infinite, once or for good."""
        from autosparse.train import loop

        step, plan = loop._step, {}

        def failing(run, batch, check):
            loss = step(run, batch, check)
            failures = plan.get(run.next_epoch, 0)
            return float("inf") if len(run.failures) < failures else loss

        monkeypatch.setattr(loop, "_step", failing)
        return plan

    def test_an_epoch_is_begun_anew_at_half_the_rate_and_told(self, tmp_path, broken):
        broken[3] = 1
        result = train(job_in(tmp_path), Progress())
        assert result.failures == ("the loss must stay finite, but it became inf in epoch 3",)
        assert load_result(tmp_path) == result
        rows = metrics_of(tmp_path)
        assert [(r["epoch"], r["status"]) for r in rows] == [
            *((e, "ok") for e in range(3)),
            (3, "retried"),
            *((e, "ok") for e in range(3, 6)),
        ]
        rates = {r["epoch"]: r["lr"] for r in rows if r["status"] == "ok"}
        assert rates[2] == RECIPE.lr_at(2, 0, 1) and rates[3] == 0.5 * RECIPE.lr_at(3, 0, 1)

    def test_a_failure_in_the_first_epoch_begins_with_new_weights(self, tmp_path, broken):
        broken[0] = 2
        result = train(job_in(tmp_path), Progress())
        assert len(result.failures) == 2 and result.accuracy.value > 0.3

    def test_a_stop_after_a_failure_changes_nothing(self, tmp_path, broken):
        broken[2] = 1
        once = train(job_in(tmp_path / "once"), Progress())
        stopped_after(tmp_path / "twice", 4)
        twice = train(job_in(tmp_path / "twice"), Progress())
        assert twice.failures == once.failures
        assert_same_weights(once.weights, twice.weights)
        assert metrics_of(tmp_path / "once") == metrics_of(tmp_path / "twice")

    def test_three_failures_are_the_end_and_no_result(self, tmp_path, broken):
        broken[1] = 9
        with pytest.raises(TrainingDiverged, match="as it did 2 times before at twice the"):
            train(job_in(tmp_path), Progress())
        assert [r["status"] for r in metrics_of(tmp_path)] == ["ok", "retried", "retried", "error"]
        assert load_result(tmp_path) is None


class TestPrepared:
    """Trained weights are rearranged or reconstructed before a method prunes them."""

    def gentle(self, **changes):
        return Recipe(kind="short", epochs=1, method="onexn", lr=1e-6, **changes)

    def test_reconstruction_starts_better_than_masking(self, whole, tmp_path):
        reached = {}
        for name, recipe in (
            ("masks", self.gentle(recalibrate_batches=8)),
            ("obs", self.gentle(recalibrate_batches=8, reconstruct=True)),
        ):
            job = job_in(tmp_path / name, recipe=recipe, weights=whole[1].weights)
            # The trained weights hold zeros for the plan; another one has to prune anew.
            layers = {"3": LayerChoice(pattern=onexn(4), sparsity=0.75)}
            result = train(dataclasses.replace(job, plan=Plan(model=NET, layers=layers)), Progress())
            reached[name] = result.validation.value
            check((load_file(result.weights)["3.weight"] != 0).numpy(), onexn(4))
        assert reached["obs"] > reached["masks"]

    def test_a_training_that_goes_on_does_not_reconstruct_again(self, whole, tmp_path, monkeypatch):
        recipe = dataclasses.replace(self.gentle(reconstruct=True), epochs=2, lr=0.01)
        job = job_in(tmp_path / "once", recipe=recipe, weights=whole[1].weights)
        once = train(job, Progress())
        again = dataclasses.replace(job, folder=str(tmp_path / "twice"))
        epochs = tmp_path / "twice" / "metrics.jsonl"
        with pytest.raises(Stopped):
            train(again, Progress(should_stop=epochs.exists))

        def never(*_, **__):
            raise AssertionError("what training has changed must not be reconstructed")

        monkeypatch.setattr(starting, "reconstruct", never)
        twice = train(again, Progress())
        first, second = load_file(once.weights), load_file(twice.weights)
        assert all(torch.equal(first[name], second[name]) for name in first)

    @pytest.mark.parametrize("by", ["l1", "kept"])
    def test_rearranged_filters_compute_the_same_and_their_order_is_saved(self, whole, tmp_path, by):
        pruned = Plan(model=NET, layers={"3": LayerChoice(pattern=onexn(4), sparsity=0.5)})
        recipe = dataclasses.replace(self.gentle(rearrange=by), lr=1e-12, weight_decay=0.0)
        job = job_in(tmp_path, recipe=recipe, weights=whole[1].weights, plan=pruned)
        result = train(job, Progress())
        saved = Rearrangement.from_json(json.loads((tmp_path / "rearrangement.json").read_text()))
        order = saved.orders["3"]
        before, after = load_file(whole[1].weights), load_file(result.weights)
        kept = after["3.weight"] != 0
        moved = before["3.weight"][order.tolist()]
        torch.testing.assert_close(after["3.weight"][kept], moved[kept], rtol=1e-4, atol=1e-5)
        assert sorted(order) == list(range(20))
        if by == "l1":
            norms = moved.abs().sum(dim=(1, 2, 3))
            assert (norms.diff() <= 1e-5).all()

    def test_without_trained_weights_there_is_nothing_to_go_by(self, tmp_path):
        for change in ({"rearrange": "l1"}, {"reconstruct": True}):
            with pytest.raises(UsageError, match="starts from scratch; name weights"):
                train(job_in(tmp_path / str(change), recipe=self.gentle(**change)), Progress())
