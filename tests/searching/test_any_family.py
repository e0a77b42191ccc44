"""A family that the project does not have, added by its one file, goes from a space to a report.

The other half of its laws is in tests/patterns/test_families.py; whole inputs, which no code here
mentions, stand for any stranger, and square blocks for those that are not 1xN.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import analytic
import pytest

from autosparse.errors import ConfigError
from autosparse.patterns import family_of, parse_label, parse_pattern
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LatencyOption, LayerChoice, LayerInfo, LayerShape, Pattern, onexn
from autosparse.searching import space
from autosparse.searching.knobs import Knobs
from autosparse.searching.pool import SerialPool
from autosparse.searching.problem import Problem, plan_labels, prepare
from autosparse.searching.study import PredictedAccuracy, run_study
from autosparse.searching.trials import StudySettings
from autosparse.train import sensitivity
from autosparse.train.evaluate import Score

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_up_run import write_run

pytestmark = pytest.mark.usefixtures("strangers")

LAYERS = tuple(
    LayerInfo(
        name=name,
        shape=LayerShape(
            op="conv2d", batch_size=1, in_channels=inputs, out_channels=outputs,
            in_height=8, in_width=8, kernel=(3, 3), padding=(1, 1),
        ),
    )
    for name, inputs, outputs in (("stem", 3, 16), ("a", 16, 32), ("b", 32, 32), ("c", 32, 12))
)  # fmt: skip
NAMED = ["inputs", "block", "parity"]
WANTED = {"version": 1, "sparsity": [0.5, 0.75], "block_n": [8], "pattern": NAMED}


@pytest.mark.smoke
def test_a_space_offers_what_families_offer_layer_by_layer(tmp_path: Path) -> None:
    found = space.SearchSpace.parse(WANTED, "test")
    scopes = {scope.name: scope for scope in found.applicable(LAYERS)}
    labels = [choice.label for choice in scopes["a"].choices]
    assert labels == [
        "parity@0.5", "block2@0.5", "block2@0.75", "1x8@0.5", "1x8@0.75", "block4@0.5", "block4@0.75",
        "block8@0.5", "inputs@0.5", "inputs@0.75",
    ]  # fmt: skip
    assert "parity: parity prunes exactly 0.5" in scopes["a"].refused
    assert any("block16: sparsity 0.75 prunes none of 1 blocks" in r for r in scopes["a"].refused)
    assert {parse_label(label) for label in labels} == {
        (choice.pattern, choice.sparsity) for choice in scopes["a"].choices
    }
    copy = tmp_path / "s.yaml"
    copy.write_text(found.to_yaml())
    assert space.load(copy) == found and space.load(copy).fingerprint == found.fingerprint
    assert (
        found.fingerprint != space.SearchSpace.parse(WANTED | {"pattern": ["inputs"]}, "t").fingerprint
    )


def test_a_space_names_tiles_and_nm_as_it_names_blocks() -> None:
    named = {"block_n": [], "pattern": ["tw", "tvw32", "tvw64", "nm", "filter", "unstructured"]}
    found = space.SearchSpace.parse(WANTED | named, "test")
    scopes = {scope.name: scope for scope in found.applicable(LAYERS)}
    assert [choice.label for choice in scopes["b"].choices] == [
        "1:4@0.75", "2:4@0.5", "unstructured@0.5", "unstructured@0.75", "tvw32@0.5", "tvw32@0.75",
        "tw32@0.5", "tw32@0.75", "tw32k8@0.5", "tw32k8@0.75", "tw32k16@0.5", "tw32k16@0.75",
        "filter@0.5", "filter@0.75",
    ]  # fmt: skip
    assert "tvw64: a tile of 64 outputs is larger than the layer's 32" in scopes["b"].refused


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"pattern": ["blok"]}, "did you mean 'block"),
        ({"pattern": "dense"}, "must list sparse patterns"),
        ({"pattern": [], "block_n": []}, "at least one pattern"),
        ({"patern": ["block"]}, "did you mean 'pattern'"),
    ],
)
def test_spaces_refuse_patterns_that_nobody_knows(keys: Mapping[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        space.SearchSpace.parse({"version": 1} | dict(keys), "test")


def test_a_space_of_1xn_alone_is_what_it_was_before_there_were_families() -> None:
    # The fingerprint of version 1.
    old = space.SearchSpace.parse({"version": 1}, "test")
    assert old.block_n == (8, 16, 32) and "pattern" not in old.to_yaml()
    assert old.fingerprint == "bd65c423"


class Evaluator:
    """Loses by rank and sparsity, by a rule of its own."""

    def reference(self, dtype: str = "f32") -> Score:
        return Score(accuracy=0.92, cross_entropy=0.3, samples=500, classes=10)

    def score(self, plan: Plan) -> Score:
        [choice] = plan.layers.values()
        rank = family_of(choice.pattern).rank(choice.pattern)
        lost = 0.01 * (1 + rank) * choice.sparsity**3
        return dataclasses.replace(self.reference(), accuracy=0.92 - lost)

    def fingerprint(self) -> str:
        return "made up"


def widened() -> Problem:
    """The recorded table with whole outputs and square blocks beside every 1x8."""
    table = analytic.problem()
    options = {}
    for layer, known in table.options.items():
        more = []
        for option in known:
            if option.choice.pattern == onexn(8):
                for name, ratio in (("inputs", 0.7), ("block8", 0.95)):
                    more.append(faster(option, parse_pattern(name), ratio))
        options[layer] = (*known, *more)
    return dataclasses.replace(table, options=options)


def faster(option: LatencyOption, pattern: Pattern, ratio: float) -> LatencyOption:
    return dataclasses.replace(
        option,
        choice=LayerChoice(pattern=pattern, sparsity=option.choice.sparsity, kernel="made_up"),
        median_us=option.median_us * ratio,
        ci_low_us=option.ci_low_us * ratio,
        ci_high_us=option.ci_high_us * ratio,
    )


def searched(folder: Path):
    table = widened()
    choices = {layer: [option.choice for option in known] for layer, known in table.options.items()}
    losses = sensitivity.measure(Evaluator(), choices, cache=folder / "c", progress=Progress())
    problem = dataclasses.replace(table, losses=losses, budget_us=250.0)
    with SerialPool() as pool:
        return problem, run_study(
            problem,
            StudySettings(trials=36, seed=1),
            PredictedAccuracy(problem),
            pool=pool,
            folder=folder / "study",
            progress=Progress(),
        )


def test_sensitivity_and_study_take_any_family(tmp_path: Path) -> None:
    problem, result = searched(tmp_path)
    labels = {label for layer in problem.losses.values() for label in layer}
    assert {"inputs@0.5", "block8@0.875", "1x16@0.75"} <= labels
    assert {str(t.kind) for t in result.trials} >= {"uniform", "seed-knapsack", "dense"}
    used = {c.pattern.family for plan in result.plans.values() for c in plan.layers.values()}
    assert used == {"dense", "onexn", "block", "inputs"}
    uniform = [plan for plan in result.plans.values() if plan.note.startswith("uniform inputs@")]
    assert uniform
    for plan in result.plans.values():
        assert Plan.load(tmp_path / "study" / "plans" / f"{plan.id}.yaml") == plan
        rebuilt = result.problem.plan_from_labels(plan_labels(plan), plan.note, plan.dtype)
        assert rebuilt.id == plan.id


def test_the_knobs_order_patterns_of_all_families_by_rank() -> None:
    losses = {
        layer: {o.choice.label: 0.01 for o in known if not o.choice.pattern.is_dense}
        for layer, known in widened().options.items()
    }
    found = Knobs.of(prepare(dataclasses.replace(widened(), losses=losses)).problem)
    assert [p.name for p in found.patterns] == ["1x4", "1x8", "1x16", "1x32", "block8", "inputs"]
    narrow = found.plan(found.neutral() | {"block_n_rank": 3, "budget_fraction": 0.0}, ())
    assert {c.pattern.family for c in narrow.layers.values()} == {"dense", "onexn"}
    blocks = found.neutral() | {"kind": "staged", "budget_fraction": 0.5, "block_n_rank": 4}
    plan = found.plan(blocks, ())
    families = {c.pattern.family for c in plan.layers.values() if not c.pattern.is_dense}
    assert plan.note.startswith("uniform block8@") and "block" in families


def test_a_loss_is_borrowed_within_a_kind_alone() -> None:
    table = widened()
    layer = "layer3.1.conv1"
    known = dataclasses.replace(table, losses={**table.losses, layer: {"1x8@0.875": 0.02}})
    completed = prepare(known).problem.losses[layer]
    assert completed and not any(label.startswith(("inputs", "block")) for label in completed)


def test_a_report_shows_any_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autosparse.report import build

    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "window.Plotly = {};")
    run = write_run(tmp_path / "run")
    for name in ("pareto.json", "latency_table.csv"):
        text = (run / name).read_text()
        assert "1x16@" in text and "1x8@" in text
        (run / name).write_text(text.replace("1x16@", "inputs@").replace("1x8@", "block8@"))
    json.loads((run / "pareto.json").read_text())
    page = build(run).read_text()
    section = page.partition('<section id="layers">')[2].partition("</section>")[0]
    assert "<b>inputs</b>" in section and "<b>block8</b>" in section
    chart = page.partition('<section id="break-even">')[2].partition("</section>")[0]
    heads = [cell.partition("</th>")[0] for cell in chart.split("<th>")[1:]]
    assert {"block8", "inputs"} <= set(heads)
