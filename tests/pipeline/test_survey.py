"""What a run is about: settled with one reading of the data, and with progress."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from autosparse import data, models
from autosparse.config import SearchConfig
from autosparse.errors import AutosparseError, ExitCode, NoValidConfiguration, PlanError
from autosparse.measuring.stopwatch import WHOLE
from autosparse.patterns import parse_pattern
from autosparse.pipeline.measured import session
from autosparse.pipeline.subject import requests
from autosparse.pipeline.subject.survey import survey
from autosparse.pipeline.trained.accuracies import dense_accuracies
from autosparse.pipeline.verbs import forecast as forecasting
from autosparse.pipeline.verbs import search as search_run
from autosparse.pipeline.verbs import tune as tune_run
from autosparse.plans.plan import Plan
from autosparse.progress import Progress, ProgressEvent
from autosparse.records import LayerChoice
from autosparse.storage import paths
from autosparse.train.baseline import baseline
from autosparse.train.recipes import Recipe


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Notes every reading of a data set."""
    made: list[dict[str, Any]] = []
    resolve = data.resolve

    def counted(spec: str, **options: Any) -> data.ImageData:
        made.append(options)
        return resolve(spec, **options)

    monkeypatch.setattr(data, "resolve", counted)
    return made


def config_for(shop: Any, **more: Any) -> SearchConfig:
    given = {"model": f"{shop.folder}/net.py:build", "space": str(shop.folder / "space.yaml")}
    return SearchConfig(**(given | more))


def test_the_data_are_read_once(shop: Any, readings: list[dict[str, Any]], tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    torch.save(models.resolve(f"{shop.folder}/net.py:build").module.state_dict(), weights)
    subject = survey(config_for(shop, weights=weights, data_resolution=32), Progress())
    evaluator = requests.evaluator_for(subject, requests.dense_weights(subject, Progress()))
    evaluator.fingerprint()
    dense_accuracies(subject, weights, Progress())
    assert len(subject.images.train) > 0
    assert len(readings) == 1


def test_data_that_must_be_resized_are_read_once_more(
    shop: Any, readings: list[dict[str, Any]]
) -> None:
    subject = survey(config_for(shop), Progress())
    assert len(readings) == 1, "what concerns no accuracy needs the number of classes alone"
    assert subject.images is subject.images
    assert (subject.images.resolution, subject.loaded.resolution) == (32, 8)
    assert len(readings) == 2


def test_what_takes_long_tells_how_far_it_is(shop: Any) -> None:
    events: list[ProgressEvent] = []
    progress = Progress(events.append)
    subject = survey(config_for(shop, data_resolution=32), progress)
    found = baseline(subject.config.model, "digits", resolution=32, images=subject.images)
    dense_accuracies(subject, Path(found.weights), progress)
    moved = {event.step: event for event in events if event.kind == "end"}
    for step in ("survey", "accuracy of the dense model"):
        assert moved[step].total is not None
        assert moved[step].done == moved[step].total > 1
        advances = [e for e in events if e.kind == "advance" and e.step == step]
        assert len(advances) > 1 and all(e.total for e in advances)


FOREIGN = """
from net import Net
from torch import nn


def build(num_classes=10):
    net = Net(num_classes)
    net.relu = nn.LeakyReLU()
    return net


def shuffled(num_classes=10):
    net = Net(num_classes)
    net.stem = nn.Sequential(net.stem, nn.ChannelShuffle(4))
    return net


def depthwise(num_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
"""


@pytest.fixture(scope="module")
def foreign(shop: Any) -> Path:
    path = shop.folder / "foreign.py"
    path.write_text(FOREIGN)
    return Path(path)


@pytest.mark.parametrize(
    ("factory", "named"),
    [
        ("build", ["aten.leaky_relu.default in relu (no converter knows this operator)"]),
        ("shuffled", ["aten.channel_shuffle.default in stem.1"]),
        (
            "depthwise",
            ["all 3 of", "1 (depthwise convolution", "0 (the space keeps the first", "--include"],
        ),
    ],
)
def test_a_search_in_which_nothing_can_be_sparse_ends_before_any_work(
    shop: Any, foreign: Path, factory: str, named: list[str], tmp_path: Path
) -> None:
    config = config_for(
        shop, model=f"{foreign}:{factory}", input_shape=(3, 96, 96), out=tmp_path / "runs"
    )
    for verb in (forecasting.forecast, search_run.search):
        with pytest.raises(NoValidConfiguration) as refusal:
            verb(config)
        assert refusal.value.exit_code == ExitCode.NO_CONFIGURATION == 4
        for text in named:
            assert text in str(refusal.value)
    assert not list(tmp_path.glob("runs/*")), "no run was begun"
    assert not paths.home().joinpath("tuning.db").exists()


def test_tuning_a_model_that_would_run_through_torch_is_refused(shop: Any, foreign: Path) -> None:
    config = config_for(shop, model=f"{foreign}:build")
    with pytest.raises(NoValidConfiguration, match="leaky_relu"):
        tune_run.tune(config)


def test_a_run_by_torch_is_never_measured_as_ours(shop: Any, foreign: Path) -> None:
    subject = survey(config_for(shop, model=f"{foreign}:build"), Progress())
    request = requests.session_request(subject).with_contestants((session.Contestant(name="dense"),))
    with pytest.raises(AutosparseError, match=r"dense must be measured on autosparse.*leaky_relu"):
        session.run_session(request, Progress())


def test_the_dense_model_is_dense_though_its_weights_hold_zeros(shop: Any, tmp_path: Path) -> None:
    module = models.resolve(f"{shop.folder}/net.py:build").module
    with torch.no_grad():
        module.conv3.weight[:, 16:] = 0.0
    weights = tmp_path / "pruned.pt"
    torch.save(module.state_dict(), weights)
    subject = survey(config_for(shop, weights=weights), Progress())
    [(name, why)] = subject.held
    assert (name, "block16@0.75" in why) == ("conv3", True)
    request = dataclasses.replace(
        requests.session_request(subject),
        policy=dataclasses.replace(WHOLE, time_cap_us=50_000.0),
        database=None,
        contestants=(session.Contestant(name="dense", weights=str(weights)),),
    )
    [dense] = session.run_session(request, Progress()).results
    assert [layer.label for layer in dense.layers] == ["dense"] * 4
    # In another run of the same model, with weights that hold none, nothing is said.
    assert survey(config_for(shop), Progress()).held == ()


def test_a_layer_is_tuned_in_the_patterns_that_its_space_has(shop: Any) -> None:
    space = Path(shop.folder) / "wide.yaml"
    space.write_text("version: 1\nblock_n: [8, 32]\nsparsity: [0.5]\n")
    subject = survey(SearchConfig(model="resnet20", space=str(space), data="digits"), Progress())
    request = subject.tune_request("f32")
    found = {layer.name: request.patterns_of(layer) for layer in subject.layers}
    scopes = {scope.name: scope for scope in subject.scopes}
    assert {name: {p.name for p in patterns} for name, patterns in found.items()} == {
        name: {choice.pattern.name for choice in scope.choices} for name, scope in scopes.items()
    }
    assert [p.name for p in found["layer1.0.conv1"]] == ["1x8"]
    assert [p.name for p in found["layer3.0.conv1"]] == ["1x8", "1x32"]
    assert found["conv1"] == ()


def test_a_recipe_that_cannot_train_the_space_is_refused_before_any_work(
    shop: Any, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    Recipe(kind="full", epochs=5, method="tvw").save(file)
    subject = survey(config_for(shop, train="full", recipe=str(file)), Progress())
    told = r"tvw takes tiles, such as tvw64.*take tw"
    with pytest.raises(PlanError, match=told):
        requests.check_training(subject)
    with pytest.raises(PlanError, match=told):
        forecasting.forecast(subject.config)
    Recipe(kind="full", epochs=5, method="tw").save(file)
    requests.check_training(subject)


def test_what_no_kernel_runs_need_not_be_trained(shop: Any, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("version: 1\nblock_n: [8]\npattern: tw16\nsparsity: [0.5]\n")
    subject = survey(config_for(shop, space=str(space), train="full"), Progress())
    assert {c.pattern.name for s in subject.scopes for c in s.choices} == {"1x8", "tw16"}
    requests.check_training(subject)
    plan = Plan(model="net", layers={"conv3": LayerChoice(pattern=parse_pattern("tw16"), sparsity=0.5)})
    with pytest.raises(PlanError, match="soft masks regrow units that are known beforehand"):
        requests.check_trainable(subject, requests.recipe_for(subject, "full"), [plan])
