"""BlockStructure keeps its own rules, and find_structure recovers any 1xN pruning from the zeros."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from autosparse.errors import PlanError
from autosparse.patterns import CANDIDATES, BlockStructure, find_structure, group_count

SHAPES = [(64, 48, 3, 3), (64, 64, 1, 1), (40, 30, 3, 3), (24, 96, 1, 1), (10, 32), (33, 7, 1, 1)]


def random_blocks(rng, outputs, inputs, block_n, sparsity, uniform=True):
    groups = group_count(outputs, block_n)
    if not uniform:
        return rng.random((groups, inputs)) >= sparsity
    blocks = np.ones((groups, inputs), dtype=bool)
    for group in blocks:
        group[rng.permutation(inputs)[: int(sparsity * inputs)]] = False
    return blocks


def pruned_weight(rng, shape, blocks, block_n):
    live = np.repeat(blocks, block_n, axis=0)[: shape[0]]
    weight = rng.standard_normal(shape).astype(np.float32)
    return weight * live.reshape(*live.shape, *(1,) * (len(shape) - 2))


@pytest.mark.smoke
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block_n", CANDIDATES)
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
def test_pruned_layer_comes_out_as_it_went_in(shape, block_n, sparsity):
    rng = np.random.default_rng([*shape, block_n, int(sparsity * 100)])
    blocks = random_blocks(rng, shape[0], shape[1], block_n, sparsity)
    found = find_structure(pruned_weight(rng, shape, blocks, block_n))
    expected = BlockStructure.from_mask(blocks, block_n)
    one_group = [s for s in CANDIDATES if s >= shape[0]]
    if block_n in one_group:  # all such N describe the same single group; the smallest comes first
        assert found[0].block_n == min(one_group)
        assert np.array_equal(found[0].kept, expected.kept)
    else:
        assert found[0] == expected
    assert sorted(s.block_n for s in found) == sorted(CANDIDATES)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_candidate_covers_exactly_the_nonzeros_as_tightly_as_it_can(shape, sparsity, uniform):
    rng = np.random.default_rng([*shape, int(sparsity * 100), uniform])
    weight = pruned_weight(rng, shape, random_blocks(rng, *shape[:2], 8, sparsity, uniform), 8)
    for structure in find_structure(weight):
        structure.check(*shape[:2])
        for group in range(structure.groups):
            rows = weight[group * structure.block_n : (group + 1) * structure.block_n]
            needed = [c for c in range(shape[1]) if np.any(rows[:, c])]
            kept = structure.kept[structure.group_start[group] : structure.group_start[group + 1]]
            assert kept.tolist() == needed


def test_layer_without_zeros_and_layer_without_weights_prefer_the_largest_n():
    dense = np.ones((64, 8, 3, 3), dtype=np.float32)
    assert [s.block_n for s in find_structure(dense)] == list(CANDIDATES)
    assert [s.block_n for s in find_structure(0 * dense)] == list(CANDIDATES)
    assert find_structure(0 * dense)[0].blocks == 0
    assert find_structure(0 * dense)[0].sparsity(8) == 1.0


def test_dead_filter_does_not_hide_the_blocks():
    rng = np.random.default_rng(5)
    weight = pruned_weight(rng, (64, 64, 3, 3), random_blocks(rng, 64, 64, 16, 0.5), 16)
    weight[21] = 0
    assert find_structure(weight)[0].block_n == 16


def test_one_block_too_many_is_enough_to_refuse_a_larger_n():
    rng = np.random.default_rng(6)
    blocks = np.ones((4, 64), dtype=bool)
    blocks[1, 3] = False  # 32 would store this block: 0.4 % overhead, but a whole block of zeros
    assert find_structure(pruned_weight(rng, (64, 64, 1, 1), blocks, 16))[0].block_n == 16


def test_larger_n_wins_where_it_really_fits():
    rng = np.random.default_rng(7)
    blocks = np.repeat(random_blocks(rng, 64, 40, 32, 0.75), 2, axis=0)
    assert find_structure(pruned_weight(rng, (64, 40, 3, 3), blocks, 16))[0].block_n == 32


def test_filter_pruning_is_stored_by_single_outputs():
    weight = np.ones((64, 16, 3, 3), dtype=np.float32)
    weight[::2] = 0
    assert find_structure(weight)[0].block_n == 1


def test_candidates_are_a_choice():
    found = find_structure(np.ones((12, 4)), candidates=(3, 6))
    assert [(s.block_n, s.groups) for s in found] == [(6, 2), (3, 4)]


def test_mask_round_trip_and_counts():
    rng = np.random.default_rng(8)
    blocks = rng.random((5, 21)) < 0.4
    structure = BlockStructure.from_mask(blocks, 8)
    assert np.array_equal(structure.to_mask(21), blocks)
    assert structure.blocks == blocks.sum()
    assert structure.kept_per_group.tolist() == blocks.sum(axis=1).tolist()
    assert structure.sparsity(21) == pytest.approx(1 - blocks.mean())
    assert not structure.is_uniform
    rows = [8, 8, 8, 8, 1]
    stored = sum(int(b.sum()) * r for b, r in zip(blocks, rows, strict=True))
    assert structure.stored_weights(33, taps=9) == 9 * stored
    assert structure.group_start.dtype == structure.kept.dtype == np.int32


def test_arrays_are_copied_and_frozen():
    kept = np.array([0, 1], dtype=np.int32)
    structure = BlockStructure(4, np.array([0, 2]), kept)
    kept[0] = 5
    assert structure.kept[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        structure.kept[0] = 1
    assert structure == BlockStructure(4, np.array([0, 2]), np.array([0, 1]))
    assert hash(structure) == hash(BlockStructure(4, np.array([0, 2]), np.array([0, 1])))


@pytest.mark.parametrize(
    ("block_n", "start", "kept", "message"),
    [
        (0, [0, 1], [0], "block_n must be at least 1"),
        (4, [0], [], "groups \\+ 1"),
        (4, [1, 2], [0, 1], "run from 0"),
        (4, [0, 1], [0, 1], "run from 0"),
        (4, [0, 2, 1, 3], [0, 1, 2], "must not fall"),
        (4, [0, 2], [1, 1], "must ascend"),
        (4, [0, 1, 3], [5, 3, 2], "group 1 3 is followed by 2"),
        (4, [0, 1], [-1], "at least 0"),
    ],
)
def test_broken_structures_are_refused(block_n, start, kept, message):
    with pytest.raises(PlanError, match=message):
        BlockStructure(block_n, np.array(start), np.array(kept, dtype=np.int32))


def test_order_may_restart_at_every_group():
    structure = BlockStructure(2, np.array([0, 2, 2, 4]), np.array([3, 9, 0, 1]))
    assert structure.kept_per_group.tolist() == [2, 0, 2]


def test_structure_must_fit_its_layer():
    structure = BlockStructure(4, np.array([0, 1, 2]), np.array([3, 5]))
    structure.check(8, 6)
    structure.check(5, 6)
    with pytest.raises(PlanError, match="3 groups, but got 2"):
        structure.check(9, 6)
    with pytest.raises(PlanError, match="below 5, but got 5"):
        structure.check(8, 5)


def test_patterns_import_without_torch():
    code = "import sys, autosparse.patterns; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
