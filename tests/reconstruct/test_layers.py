"""Whole modules: in place and in order, alone and stitched, saved, stopped and refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from autosparse.errors import DataError, PlanError, RunError, Stopped, UsageError
from autosparse.patterns import check, parse_pattern
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.progress import Progress
from autosparse.reconstruct import (
    Alternatives,
    Errors,
    ReconstructionSettings,
    reconstruct,
    reconstruct_alone,
)
from autosparse.reconstruct import alternatives as alternatives_file
from autosparse.reconstruct.hessians import Calibration
from autosparse.records import DENSE, LayerChoice


class Net(nn.Module):
    """Two convolutions with batch-norm, one of which runs twice, and a linear layer."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(8, 4)  # named before what runs before it
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.idle = nn.Linear(8, 8)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = x + torch.relu(self.twice(x))
        x = x + torch.relu(self.twice(x))
        return self.head(x.mean(dim=(2, 3)))


def images(seed=1, batches=3):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.randn(batches, 16, 3, 2, 2, generator=generator)
    return [nn.functional.interpolate(batch, size=8, mode="bilinear") for batch in smooth]


def plan_of(**labels):
    layers = {}
    for name, label in labels.items():
        pattern, sparsity = label.split("@")
        layers[name] = LayerChoice(pattern=parse_pattern(pattern), sparsity=float(sparsity))
    return Plan(model="net", layers=layers)


PLAN = plan_of(head="2:4@0.5", first="unstructured@0.5", twice="1x4@0.5")
SMALL = ReconstructionSettings(samples=48, positions=0)


def outputs(model):
    with torch.no_grad():
        return torch.cat([model.train()(batch) for batch in images()])


@pytest.mark.smoke
@pytest.mark.parametrize("target", ["own", "dense"])
def test_outputs_are_nearer_to_the_dense_ones_than_by_masking(target):
    dense = Net()
    masked, pruned = copy.deepcopy(dense), copy.deepcopy(dense).eval()
    sparsify(masked, PLAN)
    settings = ReconstructionSettings(samples=48, positions=0, target=target)
    done = reconstruct(pruned, PLAN, images(), settings=settings)
    assert [report.layer for report in done.layers] == ["first", "twice", "head"]  # as they run
    assert [report.label for report in done.layers] == ["unstructured@0.5", "1x4@0.5", "2:4@0.5"]
    assert [report.rows for report in done.layers] == [48 * 64, 2 * 48 * 64, 48]
    assert all(report.error <= report.masked_error for report in done.layers)
    assert not pruned.training and not pruned.norm.training
    for name, kept in done.masks.items():
        layer = pruned.get_submodule(name)
        check(kept.numpy(), PLAN.layers[name].pattern)
        assert not layer.weight[~kept].any()
    wanted = outputs(dense)
    far = (outputs(masked) - wanted).square().mean()
    assert (outputs(pruned) - wanted).square().mean() < 0.5 * far


def test_layers_of_no_plan_stay_as_they_are():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    reconstruct(model, plan_of(twice="1x4@0.5"), images(), settings=SMALL)
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"twice.weight"}
    nothing = reconstruct(model, Plan(model="net", layers={"head": LayerChoice()}), [])
    assert (nothing.masks, nothing.layers) == ({}, ())


def test_sparsity_zero_and_one():
    model = Net()
    before = model.first.weight.clone()
    own = ReconstructionSettings(samples=48, positions=0, target="own")
    done = reconstruct(model, plan_of(first="1x4@0", twice="1x4@1"), images(), settings=own)
    assert torch.equal(model.first.weight, before) and done.masks["first"].all()
    assert not model.twice.weight.any() and not done.masks["twice"].any()
    assert done.layers[1].error == pytest.approx(done.layers[1].masked_error)


def test_later_layers_see_what_pruned_ones_give():
    """With the dense target a layer that keeps all still makes up for the one before it."""
    dense, errors = Net(), {}
    for target in ("own", "dense"):
        model = copy.deepcopy(dense)
        settings = ReconstructionSettings(samples=48, positions=0, target=target)
        reconstruct(model, plan_of(first="1x4@0.5", twice="1x4@0"), images(), settings=settings)
        errors[target] = (outputs(model) - outputs(dense)).square().mean()
        assert torch.equal(model.twice.weight, dense.twice.weight) is (target == "own")
    assert errors["dense"] < errors["own"]


def test_equal_arguments_give_equal_weights():
    states = []
    for seed in (0, 0, 1):
        model = Net()
        settings = ReconstructionSettings(samples=48, positions=8, seed=seed)
        reconstruct(model, PLAN, ((batch, torch.zeros(16)) for batch in images()), settings=settings)
        states.append(model.twice.weight.detach().clone())
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    ("plan", "batches", "error", "says"),
    [
        (plan_of(idle="1x4@0.5"), images(), PlanError, "'idle' does not; leave it dense"),
        (plan_of(tail="1x4@0.5"), images(), PlanError, "got 'tail'"),
        (plan_of(head="1x16@0.5"), images(), PlanError, "a block of 16 outputs"),
        (PLAN, [], DataError, "at least 2 images, but got none"),
        (PLAN, [torch.full((4, 3, 8, 8), float("nan"))], DataError, "those of 'first' hold NaN"),
    ],
)
def test_what_cannot_be_done_is_told(plan, batches, error, says):
    with pytest.raises(error, match=says):
        reconstruct(Net(), plan, batches, settings=SMALL)
    choices = {name: [choice] for name, choice in plan.layers.items()}
    with pytest.raises(error, match=says):
        reconstruct_alone(Net(), choices, batches, settings=SMALL)


def test_progress_is_told_and_a_stop_is_heeded():
    told = []
    reconstruct(Net(), PLAN, images(), settings=SMALL, progress=Progress(told.append))
    assert [event.done for event in told if event.kind == "advance"] == [1, 2, 3]
    model, events = Net(), []
    before = model.head.weight.clone()
    stopping = Progress(events.append, should_stop=lambda: len(events) > 1)
    with pytest.raises(Stopped):
        reconstruct(model, PLAN, images(), settings=SMALL, progress=stopping)
    assert torch.equal(model.head.weight, before) and not model.first.weight.all()
    assert model.training and not any(part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", 0),
        ("positions", -1),
        ("damping", 0.0),
        ("damping", float("nan")),
        ("target", "other"),
        ("dtype", "float16"),
        ("criterion", "l3"),
    ],
)
def test_settings_that_mean_nothing_are_refused(field, value):
    with pytest.raises(UsageError, match=f"{field} must be .*, but got"):
        ReconstructionSettings(**{field: value})


# ------------------------------------------------------------------------------------ alternatives

CHOICES = {
    name: [
        LayerChoice(),
        *(
            LayerChoice(pattern=parse_pattern(label), sparsity=sparsity)
            for label in ("1x4", "1x2")
            for sparsity in (0.25, 0.5)
        ),
    ]
    for name in ("head", "twice")
}


@pytest.fixture(scope="module")
def made():
    return reconstruct_alone(Net(), CHOICES, images(), settings=SMALL)


def test_every_choice_is_what_it_is_alone(made):
    labels = ("1x4@0.25", "1x4@0.5", "1x2@0.25", "1x2@0.5")
    assert set(made.weights) == {(name, label) for name in CHOICES for label in labels}
    for name in CHOICES:
        model = Net()
        alone = reconstruct(model, plan_of(**{name: "1x4@0.5"}), images(), settings=SMALL)
        weight = model.get_submodule(name).weight
        torch.testing.assert_close(made.weights[name, "1x4@0.5"], weight, rtol=1e-4, atol=1e-5)
        assert torch.equal(made.masks[name, "1x4@0.5"], alone.masks[name])
        (report,) = alone.layers
        told = made.errors[name, "1x4@0.5"]
        assert told.best == pytest.approx(report.error, rel=1e-3)
        assert told.masked == pytest.approx(report.masked_error, rel=1e-3)
        assert made.errors[name, "1x4@0.25"].best < told.best < told.masked


def test_a_plan_is_stitched_and_others_after_it(made):
    model = Net()
    for label in ("1x4@0.5", "1x2@0.25"):
        masks = made.stitch(model, plan_of(head=label, twice=label))
        for name, kept in masks.items():
            assert torch.equal(model.get_submodule(name).weight, made.weights[name, label])
            assert torch.equal(kept, made.masks[name, label])


def test_the_module_stays_as_it_is():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    reconstruct_alone(model, CHOICES, images(), settings=SMALL)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_not_at_hand_changes_nothing(made):
    model = Net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PlanError, match=r"'head' has no 1x4@0.75; it has: 1x4@0.25, 1x4@0.5"):
        made.stitch(model, plan_of(twice="1x4@0.5", head="1x4@0.75"))
    with pytest.raises(PlanError, match=r"'first' has no 1x4@0\.5; it has: none"):
        made.stitch(model, plan_of(first="1x4@0.5"))
    model.head = nn.Linear(8, 6)
    with pytest.raises(PlanError, match=r"must fit their layer, but 'head' is \(6, 8\)"):
        made.stitch(model, plan_of(twice="1x4@0.5", head="1x4@0.5"))
    assert torch.equal(model.twice.weight, before["twice.weight"])


def test_alternatives_come_back_from_a_file(made, tmp_path):
    path = tmp_path / "alternatives.safetensors"
    made.save(path)
    back = Alternatives.load(path)
    assert dict(back.errors) == dict(made.errors)
    for key, weight in made.weights.items():
        assert torch.equal(back.weights[key], weight) and torch.equal(back.masks[key], made.masks[key])
    empty = Alternatives({}, {}, {})
    empty.save(path)
    assert not Alternatives.load(path).weights


def test_names_and_labels_of_any_letters_come_back(tmp_path):
    path, key = tmp_path / "odd.safetensors", ("a/b.c", "2:4@0.5")
    ones = torch.ones(2, 4)
    Alternatives({key: ones}, {key: ones > 0}, {key: Errors(masked=2.0, best=1.0)}).save(path)
    assert list(Alternatives.load(path).weights) == [key]


def test_files_that_are_something_else_are_refused(made, tmp_path):
    import safetensors.torch

    path = tmp_path / "other.safetensors"
    with pytest.raises(PlanError, match="must be a readable file"):
        Alternatives.load(path)
    path.write_bytes(b"no such thing")
    with pytest.raises(PlanError, match="must be a readable file"):
        Alternatives.load(path)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(PlanError, match=r"must be what Alternatives\.save wrote"):
        Alternatives.load(path)
    made.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(PlanError, match="must be a readable file"):
        Alternatives.load(path)
    with pytest.raises(RunError):
        made.save(path / "below")


def test_many_layers_take_several_passes(made, monkeypatch):
    monkeypatch.setattr(alternatives_file, "_PASS_BYTES", 1)
    again = reconstruct_alone(Net(), CHOICES, images(), settings=SMALL)
    assert all(torch.equal(again.weights[key], weight) for key, weight in made.weights.items())


class TestStops:
    """What is done of a call that is stopped is not done again."""

    def stopped(self, folder, layers):
        """Stops a call once so many layers are done."""
        with pytest.raises(Stopped):
            reconstruct_alone(
                Net(),
                CHOICES,
                images(),
                settings=SMALL,
                done=folder,
                progress=Progress(should_stop=lambda: len(list(folder.iterdir())) >= layers),
            )

    def looked_at(self, folder, monkeypatch):
        """Gives what a call finds, and the layers that it had to look at."""
        seen = []
        collect = Calibration.collect

        def collecting(self, module, layers):
            seen.extend(layers)
            return collect(self, module, layers)

        monkeypatch.setattr(Calibration, "collect", collecting)
        return reconstruct_alone(Net(), CHOICES, images(), settings=SMALL, done=folder), seen

    def test_the_next_call_goes_on_and_finds_the_same(self, made, tmp_path, monkeypatch):
        self.stopped(tmp_path, 1)
        found, seen = self.looked_at(tmp_path, monkeypatch)
        assert len(seen) == 1
        assert found.weights.keys() == made.weights.keys()
        assert all(torch.equal(found.weights[key], made.weights[key]) for key in made.weights)
        assert all(torch.equal(found.masks[key], made.masks[key]) for key in made.masks)
        assert found.errors == made.errors

    def test_what_is_damaged_or_of_other_choices_is_done_again(self, made, tmp_path, monkeypatch):
        reconstruct_alone(Net(), CHOICES, images(), settings=SMALL, done=tmp_path)
        damaged, other = sorted(tmp_path.iterdir())
        damaged.write_bytes(damaged.read_bytes()[:-9])
        Alternatives({}, {}, {}).save(other)
        found, seen = self.looked_at(tmp_path, monkeypatch)
        assert set(seen) == set(CHOICES)
        assert all(torch.equal(found.weights[key], made.weights[key]) for key in made.weights)

    def test_what_is_whole_needs_no_look(self, made, tmp_path, monkeypatch):
        reconstruct_alone(Net(), CHOICES, images(), settings=SMALL, done=tmp_path)
        found, seen = self.looked_at(tmp_path, monkeypatch)
        assert not seen and found.errors == made.errors


def test_dense_choices_alone_need_no_images():
    found = reconstruct_alone(Net(), {"head": [LayerChoice(pattern=DENSE)]}, [])
    assert not found.weights


def test_files_hold_what_is_kept_and_are_read_when_asked(tmp_path):
    path, keys = tmp_path / "kept.safetensors", [("layer", f"1x4@{s}") for s in (0.5, 0.75)]
    weights = {key: torch.randn(64, 99) for key in keys}
    masks = {key: torch.rand(64, 99) > 0.5 + 0.25 * place for place, key in enumerate(keys)}
    Alternatives(weights, masks, {key: Errors(masked=2.0, best=1.0) for key in keys}).save(path)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert path.stat().st_size < 4 * kept + 2 * 64 * 99 / 8 + 1000
    back = Alternatives.load(path)
    path.unlink()
    for key in keys:
        assert torch.equal(back.weights[key], torch.where(masks[key], weights[key], 0.0))
        assert torch.equal(back.masks[key], masks[key])
    assert ("layer", "1x4@0.9") not in back.weights and len(back.weights) == 2
