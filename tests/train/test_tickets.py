"""Cycles after a training: what is swapped, averaged, pruned again and shared, and that it says so."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from autosparse import data, models
from autosparse.errors import PlanError, RunError, Stopped, TrainingDiverged, UsageError
from autosparse.patterns import check, parse_pattern
from autosparse.patterns.family import unit_family_of
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.progress import Progress
from autosparse.records import LayerChoice
from autosparse.train.evaluate import accuracy, recalibrate_batchnorm, score
from autosparse.train.job import TrainJob, load_result
from autosparse.train.launch import train
from autosparse.train.methods.latent import MaskedLayers
from autosparse.train.methods.method import method_named
from autosparse.train.recipes import Recipe
from autosparse.train.tickets import cycles
from autosparse.train.tickets.cycles import cycle_tickets, merge, open_trained
from autosparse.train.tickets.forks import ensemble_accuracy, fork
from autosparse.train.tickets.records import (
    ForkedResult,
    Tickets,
    TicketSettings,
    load_forked,
    load_tickets,
)
from autosparse.train.tickets.sharing import group_by_training, train_shared
from autosparse.train.tickets.swapping import swap, swapped_rows

NET = f"{Path(__file__).parent / 'tiny_net.py'}:make"
SETTINGS = TicketSettings(cycles=2, epochs=0.5, lr_high=0.5, lr_low=0.1, swap=0.5)
RECIPE = Recipe(kind="short", epochs=4, lr=0.1, settings={"ramp_start": 0.0, "ramp_end": 0.3})


def plan_of(first=0.5, second=0.75, patterns=("1x8", "1x4"), dtype="f32"):
    found = zip(("3", "6"), patterns, (first, second), strict=True)
    layers = {
        name: LayerChoice(pattern=parse_pattern(pattern), sparsity=sparsity, dtype=dtype)
        for name, pattern, sparsity in found
    }
    return Plan(model=NET, layers=layers)


def job_in(folder, **changes):
    job = TrainJob(
        model=NET,
        weights=None,
        data="digits",
        resolution=8,
        plan=plan_of(),
        recipe=RECIPE,
        folder=str(folder),
        threads=1,
    )
    return dataclasses.replace(job, **changes)


def units_of(state, name, choice):
    """Gives which units of a saved layer live, in rows within which they compete."""
    family = unit_family_of(choice.pattern)
    live = family.reduce(state[f"{name}.weight"].numpy() != 0, choice.pattern)
    return family.rows(live, choice.pattern)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    job = job_in(tmp_path_factory.mktemp("trained"))
    return job, train(job, Progress())


@pytest.fixture(scope="module")
def tickets(trained):
    return cycle_tickets(open_trained(trained[0]), SETTINGS, Progress())


# ---------------------------------------------------------------------------------------- settings


def test_a_cycle_rises_and_falls_and_ends_low():
    settings = TicketSettings(lr_high=0.5, lr_low=0.1)
    rates = [settings.lr_at(step, 8) for step in range(8)]
    assert rates == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert settings.lr_at(0, 1) == pytest.approx(0.1)


def test_parts_of_epochs_are_whole_steps():
    assert TicketSettings(epochs=0.5).steps(10) == 5
    assert TicketSettings(epochs=2.0).steps(10) == 20
    assert TicketSettings(epochs=0.001).steps(10) == 1


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"cycles": 0}, "cycles must be at least 1"),
        ({"epochs": 0.0}, "epochs must be above 0"),
        ({"epochs": float("nan")}, "epochs must be above 0"),
        ({"lr_low": 0.2, "lr_high": 0.1}, "at most lr_high"),
        ({"swap": 1.5}, r"swap must lie in \[0, 1\]"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\)"),
        ({"weighting": "median"}, "weighting must be one of mean, ema"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, rule):
    with pytest.raises(UsageError, match=rule):
        TicketSettings(**wrong)


# ---------------------------------------------------------------------------------------- swapping


def test_the_least_important_go_and_the_most_wanted_come():
    live = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]], dtype=bool)
    kept = np.array([[4, 1, 3, 2, 0, 0, 0, 0], [9, 9, 9, 9, 1, 2, 3, 4]], dtype=float)
    wanted = np.array([[9, 9, 9, 9, 1, 4, 2, 3], [5, 1, 4, 2, 9, 9, 9, 9]], dtype=float)
    found = swapped_rows(live, kept, wanted, 0.5)
    expected = [[1, 0, 1, 0, 0, 1, 0, 1], [1, 0, 1, 0, 0, 0, 1, 1]]
    assert found.tolist() == np.array(expected, dtype=bool).tolist()


@pytest.mark.parametrize(
    ("alive", "fraction", "moved"),
    [(4, 0.0, 0), (4, 0.24, 0), (4, 0.25, 1), (6, 1.0, 2), (8, 1.0, 0), (0, 1.0, 0), (1, 1.0, 1)],
)
def test_no_more_go_than_can_come(alive, fraction, moved):
    live = np.zeros((3, 8), dtype=bool)
    live[:, :alive] = True
    scores = np.random.default_rng(0).random((2, 3, 8))
    found = swapped_rows(live, scores[0], scores[1], fraction)
    assert (found.sum(axis=1) == alive).all()
    assert ((live & ~found).sum(axis=1) == moved).all()


@pytest.mark.parametrize(
    ("pattern", "sparsity"),
    [
        *(("1x8", 0.5), ("1x16", 0.7), ("1x4-layerwide", 0.6), ("block4", 0.5), ("2:4", 0.5)),
        *(("unstructured", 0.9), ("filter", 0.5), ("1x8", 0.0), ("1x8", 1.0)),
    ],
)
def test_every_group_keeps_its_count_when_units_are_swapped(pattern, sparsity):
    net = torch.nn.Sequential(torch.nn.Conv2d(12, 20, 3))  # 20 outputs: a short last group
    choice = LayerChoice(pattern=parse_pattern(pattern), sparsity=sparsity)
    layers = MaskedLayers(net, Plan(model="net", layers={"0": choice}))
    method = method_named("subp")(layers, RECIPE.rules, epochs=4, seed=0)
    (layer,) = layers
    family, random = unit_family_of(choice.pattern), np.random.default_rng(1)
    layer.set(family.random(choice.pattern, layer.shape, sparsity, random))
    before = layer.mask.numpy().copy()
    gone = swap(layer, method, random.standard_normal(layer.shape), 0.5)
    after = layer.mask.numpy()
    check(after, choice.pattern)
    rows = [family.rows(family.reduce(m, choice.pattern), choice.pattern) for m in (before, after)]
    assert (rows[0].sum(axis=1) == rows[1].sum(axis=1)).all()
    assert gone == (rows[0] & ~rows[1]).sum()
    assert (gone > 0) == (0 < sparsity < 1)


# ------------------------------------------------------------------------------------------ cycles


@pytest.mark.smoke
def test_every_ticket_has_the_plans_zeros_and_another_mask(tickets, trained):
    members = [load_file(member) for member in tickets.members]
    assert len(members) == 3 and len(tickets.validation) == 3
    for name, choice in plan_of().layers.items():
        rows = [units_of(state, name, choice) for state in members]
        for live in rows:
            assert (live.sum(axis=1) == live.shape[1] * (1 - choice.sparsity)).all()
        for before, after in itertools.pairwise(rows):
            moved = (before & ~after).sum(axis=1)
            expected = min(int(before[0].sum() * 0.5), int((~before[0]).sum()))
            assert (moved == expected).all() and expected > 0
    first, best = members[0], load_file(trained[1].weights)
    assert all(torch.equal(first[k], best[k]) for k in best)
    assert tickets.validation[0] == trained[1].validation.value


def test_the_mean_is_that_of_its_members_and_counters_are_the_last_ones(tickets):
    members = [load_file(member) for member in tickets.members]
    mean = load_file(tickets.mean)
    for name, found in mean.items():
        if found.is_floating_point():
            expected = np.mean([state[name].double().numpy() for state in members], axis=0)
            assert found.double().numpy() == pytest.approx(expected, rel=1e-5, abs=1e-7)
        else:
            assert torch.equal(found, members[-1][name])
    assert {k for k, v in mean.items() if not v.is_floating_point()} == {
        f"{n}.num_batches_tracked" for n in (1, 4, 7)
    }
    assert mean["1.num_batches_tracked"] > members[0]["1.num_batches_tracked"]


def test_a_moving_average_weighs_later_tickets_more():
    settings = TicketSettings(weighting="ema", decay=0.75)
    values = [1.0, 5.0, -3.0]
    mean = {"w": torch.tensor([values[0]]), "n": torch.tensor(1)}
    for cycle, value in enumerate(values[1:], 1):
        ticket = {"w": torch.tensor([value]), "n": torch.tensor(10 * cycle)}
        merge(mean, ticket, settings.share_of_ticket(cycle))
    assert mean["w"].item() == pytest.approx(0.75 * (0.75 * 1.0 + 0.25 * 5.0) + 0.25 * -3.0)
    assert mean["n"].item() == 20


def test_the_mask_is_fixed_inside_a_cycle(trained, tmp_path, monkeypatch):
    job = dataclasses.replace(trained[0], folder=str(tmp_path))
    run = open_trained(trained[0])
    run.job = job
    seen, step_on = [], cycles.step_on

    def watched(run, batch):
        before = run.layers.checksum()
        loss = step_on(run, batch)
        seen.append((before, run.layers.checksum()))
        return loss

    monkeypatch.setattr(cycles, "step_on", watched)
    start = run.layers.checksum()
    cycle_tickets(run, SETTINGS, Progress())
    steps = SETTINGS.steps(len(run.images.train) // RECIPE.batch_size)
    assert len(seen) == 2 * steps
    per_cycle = [set(sum(seen[i : i + steps], ())) for i in (0, steps)]
    assert [len(masks) for masks in per_cycle] == [1, 1]
    assert len({start, *per_cycle[0], *per_cycle[1]}) == 3


@pytest.mark.parametrize("method", ["srste", "onexn"])
def test_other_methods_masks_stay_fixed_and_hard_ones_leave_pruned_weights_alone(method, tmp_path):
    recipe = Recipe(kind="short", epochs=1, lr=0.05, method=method)
    job = job_in(tmp_path, recipe=recipe)
    train(job, Progress())
    run = open_trained(job)
    one = TicketSettings(cycles=1, epochs=0.3, lr_high=1.0, lr_low=0.5, swap=0.25)
    found = cycle_tickets(run, one, Progress())
    first, second = (load_file(member) for member in found.members)
    for layer in run.layers:
        state = second[f"{layer.name}.weight"]
        assert not state[~layer.mask].any()
        check(layer.mask.numpy(), layer.choice.pattern)
        before = first[f"{layer.name}.weight"]
        untouched = (before == 0) & ~layer.mask  # pruned before and after
        assert untouched.any()
        learnt = bool((layer.weight.detach()[untouched] != 0).any())
        assert learnt == (method == "srste")


def test_finished_cycles_give_their_tickets_at_once_and_can_be_moved(trained, tickets, tmp_path):
    seen = []
    again = cycle_tickets(open_trained(trained[0]), SETTINGS, Progress(seen.append))
    assert again == tickets and not seen
    other = TicketSettings.from_json({**SETTINGS.to_json(), "swap": 0.25, "cycles": 1})
    assert cycle_tickets(open_trained(trained[0]), other, Progress()).mean != tickets.mean
    folder = Path(tickets.mean).parent
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert load_tickets(moved).members[0] == str(moved / "ticket-00000.safetensors")
    (moved / "ticket-00001.safetensors").unlink()
    assert load_tickets(moved) is None
    assert sorted(p.name for p in folder.iterdir()) == [
        *("lock", "mean.safetensors", "ticket-00000.safetensors", "ticket-00001.safetensors"),
        *("ticket-00002.safetensors", "tickets.json"),
    ]
    assert Tickets.from_json(json.loads(json.dumps(tickets.to_json()))) == tickets


KILLED = """
import json, os, signal, sys
from autosparse.progress import Progress
from autosparse.train import checkpoint
from autosparse.train.job import TrainJob
from autosparse.train.tickets.cycles import cycle_tickets, open_trained
from autosparse.train.tickets.records import TicketSettings

save = checkpoint.save
def stop_at(folder, cycle, state):
    if cycle == 2:  # its ticket is written, its checkpoint is not
        os.kill(os.getpid(), signal.SIGKILL)
    save(folder, cycle, state)
checkpoint.save = stop_at
job = TrainJob.from_json(json.loads(sys.argv[1]))
cycle_tickets(open_trained(job), TicketSettings.from_json(json.loads(sys.argv[2])), Progress())
"""


def copied(trained, folder):
    """Gives the finished training again, in a folder of its own without any tickets."""
    for file in Path(trained[0].folder).iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return dataclasses.replace(trained[0], folder=str(folder))


def assert_same_tickets(found, whole):
    for left, right in zip((*found.members, found.mean), (*whole.members, whole.mean), strict=True):
        one, other = load_file(left), load_file(right)
        assert set(one) == set(other)
        assert all(torch.equal(one[k], other[k]) for k in one)
    told = [
        dataclasses.replace(t, job=whole.job, members=(), mean="", seconds=0.0) for t in (found, whole)
    ]
    assert told[0] == told[1]


def test_killed_cycles_end_as_uninterrupted_ones(trained, tickets, tmp_path):
    job = copied(trained, tmp_path)
    texts = [json.dumps(record.to_json()) for record in (job, SETTINGS)]
    command = [sys.executable, "-c", KILLED, *texts]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (folder,) = tmp_path.glob("tickets-*")
    assert load_tickets(folder) is None and len(list(folder.glob("ticket-*"))) == 3
    told = []
    found = cycle_tickets(
        open_trained(job), SETTINGS, Progress(lambda event: told.append(event.message))
    )
    assert sum(m.startswith("cycle") for m in told) == 1
    assert_same_tickets(found, tickets)


def test_a_requested_stop_loses_the_cycle_under_way_at_most(trained, tickets, tmp_path):
    job, told = copied(trained, tmp_path), []

    def sink(event):
        told.append(event)

    with pytest.raises(Stopped):
        progress = Progress(sink, should_stop=lambda: any(e.done > 1.2 for e in told))
        cycle_tickets(open_trained(job), SETTINGS, progress)
    assert_same_tickets(cycle_tickets(open_trained(job), SETTINGS, Progress()), tickets)


def test_a_loss_that_is_not_finite_is_told(trained, tmp_path):
    wild = dataclasses.replace(SETTINGS, lr_high=1e30, lr_low=1e30)
    with pytest.raises(TrainingDiverged, match="cycle 1; lower lr_high"):
        cycle_tickets(open_trained(copied(trained, tmp_path)), wild, Progress())


def test_only_a_finished_training_with_its_zeros_has_tickets(trained, tmp_path):
    with pytest.raises(RunError, match="holds no result; train"):
        open_trained(job_in(tmp_path / "nothing"))
    job = copied(trained, tmp_path)
    with pytest.raises(RunError, match="belongs to one job"):
        open_trained(dataclasses.replace(job, recipe=dataclasses.replace(RECIPE, lr=0.2)))
    state = load_file(tmp_path / "weights.safetensors")
    state["6.weight"].fill_(1.0)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(RunError, match=r"must have the zeros of 1x4@0.75, but '6'"):
        open_trained(job)


@pytest.mark.parametrize(
    ("plan", "method", "rule"),
    [
        (Plan(model=NET), "dense", "the plan has none"),
        (plan_of(0.75, 0.5, ("tw4", "tw4")), "tw", "known beforehand"),
    ],
)
def test_what_has_no_units_to_swap_is_refused(plan, method, rule, tmp_path):
    recipe = Recipe(kind="short", epochs=1, lr=0.01, method=method)
    job = job_in(tmp_path, plan=plan, recipe=recipe)
    train(job, Progress())
    with pytest.raises(PlanError, match=rule):
        open_trained(job)


# ------------------------------------------------------------------------------------------- forks


@pytest.fixture(scope="module")
def forked(tickets, tmp_path_factory):
    return fork(tickets, plan_of(0.625, 0.75), tmp_path_factory.mktemp("forked"))


def test_a_fork_has_its_plans_zeros_in_every_group_and_says_whose_training_it_is(
    forked, tickets, trained
):
    state = load_file(forked.weights)
    for name, choice in plan_of(0.625, 0.75).layers.items():
        live = units_of(state, name, choice)
        kept = unit_family_of(choice.pattern).kept(
            choice.pattern, tuple(state[f"{name}.weight"].shape), choice.sparsity
        )
        assert (live.sum(axis=1) == kept).all()
    mean = load_file(tickets.mean)
    left = state["3.weight"] != 0
    assert not torch.equal(state["3.weight"][left], mean["3.weight"][left])  # they are set anew
    assert forked.shared_with == trained[0].plan.id
    assert (forked.epochs, forked.best_epoch) == (4, trained[1].best_epoch)
    assert (forked.accuracy.kind, forked.accuracy.split) == ("short", "test")
    assert forked.accuracy.value > 0.4  # ten classes
    module = models.resolve(NET, classes=10, weights=Path(forked.weights)).module
    images = data.resolve("digits", resolution=8)
    assert accuracy(module, images.test) == forked.accuracy.value
    assert accuracy(module, images.validation) == forked.validation.value


def test_statistics_of_a_fork_are_recomputed(forked, tickets):
    module = models.resolve(NET, classes=10, weights=Path(forked.weights)).module.eval()
    train_split = data.resolve("digits", resolution=8).train
    images = torch.cat([x for x, _ in train_split.batches(256)])
    with torch.no_grad():
        found = module[0](images).double()
    state, mean = load_file(forked.weights), load_file(tickets.mean)
    expected = found.mean(dim=(0, 2, 3))
    assert state["1.running_mean"].double().numpy() == pytest.approx(expected.numpy(), abs=5e-3)
    assert not torch.equal(state["1.running_mean"], mean["1.running_mean"])


@pytest.mark.parametrize("bad", ["mean", "trained weights"])
def test_a_fork_is_of_what_does_better_on_validation_data(bad, tickets, tmp_path):
    empty = tmp_path / "empty.safetensors"
    state = load_file(tickets.mean)
    save_file({name: torch.zeros_like(value) for name, value in state.items()}, empty)
    if bad == "mean":
        spoiled = dataclasses.replace(tickets, mean=str(empty))
    else:
        spoiled = dataclasses.replace(tickets, members=(str(empty), *tickets.members[1:]))
    found = fork(spoiled, plan_of(0.625, 0.75), tmp_path / "fork")
    steps = 1295 // RECIPE.batch_size
    tail = 2 * int(0.5 * steps + 0.5) / steps
    assert found.accuracy.value > 0.4  # ten classes
    assert found.tickets == (1 if bad == "mean" else 3)
    assert found.tail_epochs == pytest.approx(0.0 if bad == "mean" else tail)


def test_a_fork_loses_less_than_masks_do(tickets, tmp_path):
    plan = plan_of(0.75, 0.75)
    found = fork(tickets, plan, tmp_path)
    module = models.resolve(NET, classes=10, weights=Path(tickets.mean)).module
    sparsify(module, plan)
    images = data.resolve("digits", resolution=8)
    recalibrate_batchnorm(module, images.train, batches=16, batch_size=128, seed=0)
    assert found.accuracy.value > accuracy(module, images.test)


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """Tickets of a training in which the second of two layers is dense."""
    plan = Plan(model=NET, layers={"3": plan_of().layers["3"]})
    job = job_in(tmp_path_factory.mktemp("partly"), plan=plan)
    train(job, Progress())
    return cycle_tickets(open_trained(job), dataclasses.replace(SETTINGS, cycles=1), Progress())


def test_a_fork_prunes_a_layer_that_was_dense_and_so_does_every_vote(partly, tmp_path):
    plan = plan_of(0.5, 0.5)
    found = fork(partly, plan, tmp_path)
    state = load_file(found.weights)
    for name, choice in plan.layers.items():
        live = units_of(state, name, choice)
        assert (live.sum(axis=1) == live.shape[1] / 2).all()
    assert found.accuracy.value > 0.4
    assert ensemble_accuracy(partly, plan, "test").accuracy.value > 0.4
    assert ensemble_accuracy(partly, partly.job.plan, "test").members == 2


def test_a_fork_may_be_denser_as_far_as_the_mean_is_alive(tickets, tmp_path):
    mean, choice = load_file(tickets.mean), plan_of().layers["3"]
    live = units_of(mean, "3", choice).sum(axis=1).min()
    assert live > 8  # of 16, of which a ticket has half
    least = 1 - live / 16
    fork(tickets, plan_of(float(least)), tmp_path / "a")
    with pytest.raises(
        PlanError, match=rf"keep {live + 1} of 16 per group and {live} are; .*{least:g}"
    ):
        fork(tickets, plan_of(float(least) - 1 / 16), tmp_path / "b")


@pytest.mark.parametrize(
    ("plan", "rule"),
    [
        (plan_of(patterns=("1x4", "1x4")), "layer '3' is 1x8 there and shall be 1x4"),
        (Plan(model=NET, layers={"3": plan_of().layers["3"]}), "'6' is 1x4 there and shall be dense"),
        (dataclasses.replace(plan_of(), model="another"), "of the model that was trained"),
    ],
)
def test_a_plan_that_is_no_neighbour_is_refused(plan, rule, tickets, tmp_path):
    with pytest.raises(PlanError, match=rule):
        fork(tickets, plan, tmp_path)
    with pytest.raises(PlanError, match=rule):
        ensemble_accuracy(tickets, plan, "test")


def test_a_fork_is_made_once_per_mean_and_never_over_a_training(forked, trained, tickets, tmp_path):
    folder = Path(forked.weights).parent
    before = (folder / "weights.safetensors").stat().st_mtime_ns
    assert fork(tickets, plan_of(0.625, 0.75), folder) == forked == load_forked(folder)
    assert (folder / "weights.safetensors").stat().st_mtime_ns == before
    assert ForkedResult.from_json(json.loads(json.dumps(forked.to_json()))) == forked
    settings = dataclasses.replace(SETTINGS, cycles=1)
    other = cycle_tickets(open_trained(trained[0]), settings, Progress())
    anew = fork(other, plan_of(0.625, 0.75), tmp_path)
    assert anew.mean != forked.mean
    assert fork(tickets, plan_of(0.625, 0.75), tmp_path).mean == forked.mean
    with pytest.raises(RunError, match="without a training"):
        fork(tickets, plan_of(), Path(trained[0].folder))


def test_a_bf16_fork_has_the_weights_of_f32_and_the_accuracy_of_bf16(forked, tickets, tmp_path):
    found = fork(tickets, plan_of(0.625, 0.75, dtype="bf16"), tmp_path)
    one, other = load_file(found.weights), load_file(forked.weights)
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert (found.accuracy.dtype, found.accuracy.through) == ("bf16", "emulation")


# ---------------------------------------------------------------------------------------- ensemble


def test_an_ensemble_of_one_is_that_ticket(tickets):
    images = data.resolve("digits", resolution=8)
    for member in tickets.members:
        one = dataclasses.replace(tickets, members=(member,))
        module = models.resolve(NET, classes=10, weights=Path(member)).module
        found = ensemble_accuracy(one, plan_of(), "test")
        assert found.accuracy == score(module, images.test).as_accuracy("short", "test")
        assert found.members == 1


def test_an_ensemble_votes_by_the_mean_of_probabilities_and_names_its_price(tickets):
    split = data.resolve("digits", resolution=8).validation
    images = torch.cat([x for x, _ in split.batches(64)]).double()
    total = torch.zeros(len(split), 10, dtype=torch.float64)
    for member in tickets.members:
        module = models.resolve(NET, classes=10, weights=Path(member)).module.double().eval()
        with torch.no_grad():
            total += module(images).softmax(dim=1) / len(tickets.members)
    found = ensemble_accuracy(tickets, plan_of(), "validation")
    right = (total.argmax(dim=1) == split.labels).double().mean().item()
    assert found.accuracy.value == pytest.approx(right)
    assert (found.accuracy.split, found.accuracy.samples) == ("validation", len(split))
    assert found.members == 3 and "3 times that of one" in found.note


def test_an_ensemble_under_a_sparser_plan_prunes_every_ticket(tickets):
    nothing = ensemble_accuracy(tickets, plan_of(1.0, 1.0), "test")
    assert nothing.accuracy.value < 0.2  # all inputs look alike
    with pytest.raises(PlanError, match="keep 10 of 16 per group and 8 are"):
        ensemble_accuracy(tickets, plan_of(0.375), "test")


# ----------------------------------------------------------------------------------------- sharing


def test_plans_within_reach_of_a_denser_one_share_its_training():
    dense, near, far = plan_of(0.5, 0.5), plan_of(0.6, 0.55), plan_of(0.9, 0.9)
    crossed = plan_of(0.45, 0.7)  # denser in one layer
    finer = plan_of(0.6, 0.6, patterns=("1x4", "1x4"))
    groups = group_by_training([far, finer, near, crossed, dense], 0.125)
    assert groups == [[dense, near], [crossed], [finer], [far]]
    assert group_by_training([near, dense], 0.05) == [[dense], [near]]
    assert group_by_training([near, dense], 0.075) == [[dense, near]]  # in the mean of its layers
    partly = Plan(model=NET, layers={"3": dense.layers["3"]})
    assert group_by_training([partly, dense], 0.25) == [[partly, dense]]
    assert group_by_training([partly, dense], 0.2) == [[partly], [dense]]
    assert group_by_training([], 0.1) == []


def test_of_two_trainings_the_nearest_is_shared_and_equals_share_without_reach():
    one, two = plan_of(0.5, 0.48), plan_of(0.6, 0.39)  # each denser than the other in one layer
    both, only = plan_of(0.61, 0.49), plan_of(0.51, 0.5)
    assert group_by_training([both, only, two, one], 0.15) == [[one, only], [two, both]]
    half = plan_of(dtype="bf16")
    (group,) = group_by_training([half, plan_of()], 0.0)
    assert {plan.id for plan in group} == {half.id, plan_of().id}


@pytest.mark.parametrize("patterns", [("tw4", "1x4"), ("dense", "dense")])
def test_plans_without_tickets_are_trained_by_themselves(patterns):
    if patterns[0] == "dense":
        plans = [Plan(model=NET), Plan(model=NET, note="again")]
    else:
        plans = [plan_of(0.5, s, patterns) for s in (0.5, 0.55)]
    assert [len(group) for group in group_by_training(plans, 0.1)] == [1, 1]


def test_a_reach_out_of_range_is_refused():
    with pytest.raises(UsageError, match=r"reach must lie in \[0, 1\]"):
        group_by_training([plan_of()], 1.5)


def test_one_training_serves_a_group_and_every_result_says_how(trained, tickets, tmp_path):
    copied(trained, tmp_path)  # trained already, as after an interruption
    plans = {"a": plan_of(), "b": plan_of(0.5625, 0.8), "c": plan_of(patterns=("1x4", "1x4"))}
    jobs = {
        name: job_in(tmp_path if name == "a" else tmp_path / name, plan=plan)
        for name, plan in plans.items()
    }
    shared = train_shared(jobs, SETTINGS, 0.1, Progress())
    assert list(shared) == ["a", "b", "c"]
    assert [each.ensemble and each.ensemble.members for each in shared.values()] == [3, 3, None]
    found = {name: each.result for name, each in shared.items()}
    assert found["a"].validation == trained[1].validation
    assert not isinstance(found["a"], ForkedResult) and not isinstance(found["c"], ForkedResult)
    assert found["b"].shared_with == plans["a"].id
    assert load_result(tmp_path / "b") is None and load_result(tmp_path / "c") == found["c"]
    seen = []
    assert train_shared(jobs, SETTINGS, 0.1, Progress(seen.append)) == shared
    assert not seen  # nothing was trained


def test_jobs_that_differ_in_more_than_the_plan_share_nothing(tmp_path):
    one, other = job_in(tmp_path / "a"), job_in(tmp_path / "b", seed=1)
    with pytest.raises(UsageError, match="differ in plan and folder alone, but got 'b'"):
        train_shared({"a": one, "b": other}, SETTINGS, 0.1, Progress())
    twice = job_in(tmp_path / "b")
    with pytest.raises(UsageError, match="must have different plans"):
        train_shared({"a": one, "b": twice}, SETTINGS, 0.1, Progress())
    assert train_shared({}, SETTINGS, 0.1, Progress()) == {}
