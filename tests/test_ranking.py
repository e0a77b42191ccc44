"""One threshold over all layers against an independent ranking of their units, one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autosparse.errors import PlanError
from autosparse.patterns import mask, parse_pattern
from autosparse.plans.ranking import ranked_sparsities
from autosparse.records import DENSE

SHAPES = {"stem": (16, 3, 3, 3), "a": (32, 16, 3, 3), "b": (20, 32, 1, 1), "fc": (10, 20)}


def weights_of(scale=None):
    rng = np.random.default_rng(0)
    made = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    return {name: weight * (scale or {}).get(name, 1.0) for name, weight in made.items()}


def total(found, weights):
    size = sum(weights[name].size for name in found)
    return sum(found[name] * weights[name].size for name in found) / size


def blocks(weight, outputs, inputs):
    """Mean size and number of weights of every block."""
    rows = range(0, weight.shape[0], outputs)
    for o, i in itertools.product(rows, range(0, weight.shape[1], inputs)):
        block = weight[o : o + outputs, i : i + inputs]
        yield float(np.abs(block).mean()), block.size


@pytest.mark.parametrize(
    ("name", "outputs", "inputs"), [("1x4", 4, 1), ("filter", 1, 999), ("block2", 2, 2)]
)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.75, 0.9])
def test_the_lowest_units_of_all_layers_go(name, outputs, inputs, sparsity):
    weights = weights_of({"a": 0.5, "fc": 2.0})
    weights.pop("stem")
    found = ranked_sparsities(weights, parse_pattern(name), sparsity)
    units = {layer: list(blocks(weight, outputs, inputs)) for layer, weight in weights.items()}
    spared = {(layer, max(range(len(u)), key=lambda i: u[i])) for layer, u in units.items()}
    order = sorted(
        ((layer, i) for layer, u in units.items() for i in range(len(u)) if (layer, i) not in spared),
        key=lambda at: units[at[0]][at[1]],
    )
    wanted, gone, lost = sparsity * sum(w.size for w in weights.values()), 0, dict.fromkeys(weights, 0)
    for layer, i in order:
        if gone >= wanted - 1e-6:
            break
        gone += units[layer][i][1]
        lost[layer] += 1
    assert found == {layer: pytest.approx(lost[layer] / len(u)) for layer, u in units.items()}


@pytest.mark.parametrize(
    "name", ["1x4", "1x4-layerwide", "filter", "unstructured", "tw4", "tw8-ranked"]
)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8])
def test_the_total_is_reached_within_a_unit_and_masks_follow(name, sparsity):
    weights = weights_of({"a": 0.2, "b": 3.0})
    pattern = parse_pattern(name)
    found = ranked_sparsities(weights, pattern, sparsity)
    largest = max(w.size // w.shape[0] * max(1, pattern.group_out) for w in weights.values())
    assert -0.02 <= total(found, weights) - sparsity <= largest / sum(w.size for w in weights.values())
    assert all(0 <= s < 1 for s in found.values())
    for layer, weight in weights.items():
        assert mask(weight, pattern, found[layer]).any(), "no layer loses everything"
    if sparsity:
        assert found["a"] > found["b"]


def test_single_weights_are_pruned_at_one_threshold():
    weights = weights_of({"a": 0.3})
    found = ranked_sparsities(weights, parse_pattern("unstructured"), 0.6)
    sizes = np.sort(np.concatenate([np.abs(w).ravel() for w in weights.values()]))
    count = -(-6 * sizes.size // 10)
    for layer, weight in weights.items():
        below = int((np.abs(weight) < sizes[count]).sum())
        assert found[layer] * weight.size == pytest.approx(below)
        assert mask(weight, parse_pattern("unstructured"), found[layer]).sum() == weight.size - below


def test_patterns_may_differ_and_dense_layers_are_left_out():
    weights = weights_of()
    patterns = {"stem": DENSE, "a": parse_pattern("tw8"), "b": parse_pattern("tvw4"), "fc": DENSE}
    found = ranked_sparsities(weights, patterns, 0.6)
    assert set(found) == {"a", "b"} and found["b"] >= 0.5
    assert total(found, weights) == pytest.approx(0.6, abs=0.01)
    assert ranked_sparsities(weights, DENSE, 0.5) == {}


def test_what_cannot_be_ranked_is_refused():
    weights = weights_of()
    with pytest.raises(PlanError, match=r"no pattern|got none for 'a'"):
        ranked_sparsities(weights, {"stem": DENSE}, 0.5)
    with pytest.raises(PlanError, match=r"'stem' shall be 2:4: the layer's 3 inputs"):
        ranked_sparsities(weights, parse_pattern("2:4"), 0.5)
    with pytest.raises(PlanError, match=r"'a' shall be 2:4: 2:4 prunes exactly 0.5"):
        ranked_sparsities({"a": weights["a"]}, parse_pattern("2:4"), 0.5)
    with pytest.raises(
        PlanError, match=r"must lie in \[0, 0\.9\d+\].*leaves every layer a unit, but got 1"
    ):
        ranked_sparsities(weights, parse_pattern("1x4"), 1.0)
    with pytest.raises(PlanError, match=r"must lie in \[0\.5, .*but got 0\.3"):
        ranked_sparsities({"b": weights["b"]}, parse_pattern("tvw4"), 0.3)
    with pytest.raises(PlanError, match=r"lie in \[0, 1\], but got nan"):
        ranked_sparsities(weights, parse_pattern("1x4"), float("nan"))


def test_layers_without_weights_worth_anything_still_keep_a_unit():
    weights = weights_of({"a": 0.0})
    found = ranked_sparsities(weights, parse_pattern("1x4"), 0.9)
    assert found["a"] == 1 - 1 / (8 * 16)
