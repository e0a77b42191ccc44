"""Removal of shared units: by hand, against brute force, and its traces."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from layer_problems import best, by_hand, error_of, go_on, problem

from autosparse.errors import Stopped, UsageError
from autosparse.patterns import family_of, parse_pattern
from autosparse.patterns.family import Group
from autosparse.reconstruct import elimination
from autosparse.reconstruct.elimination import Trace, eliminate, ranks
from autosparse.reconstruct.hessians import Moments
from autosparse.reconstruct.problem import least_squares, problem_of, rows_alike

F64 = {"dtype": torch.float64}


def traced(asked, groups, **how):
    return eliminate(asked.inverse(), asked.target, groups, go_on, **{**F64, **how})


def groups_of(label, shape):
    pattern = parse_pattern(label)
    return family_of(pattern).groups(pattern, shape)


def mask_of(groups, traces, removed, shape):
    """Keeps what is left of every group after so many removals."""
    mask = np.zeros((shape[0], int(np.prod(shape[1:]))), dtype=bool)
    for group, trace in zip(groups, traces, strict=True):
        columns = group.units[trace.order[removed:]].reshape(-1)
        mask[np.ix_(group.outputs, columns[columns >= 0])] = True
    return mask


def test_by_hand():
    """P is [[2, -1, 0], [-1, 2, 0], [0, 0, 3]] / 3. Removals cost (1 + 4) * 3/2, 1 * 3/2 and 1 + 1, so
    input 1 goes first. Input 0 takes over half of it, 1 + 1/2, and P_00 becomes 1/2. Then inputs cost
    (9/4 + 4) * 2 and still 2. All in all 3/2 + 2 + 25/2 = 16, which is tr(W D W^T) = 7 + 9.
    """
    asked = by_hand()
    (trace,) = traced(asked, groups_of("1x2", (2, 3)))
    assert trace.order.tolist() == [1, 2, 0]
    np.testing.assert_allclose(trace.rise, [1.5, 2.0, 12.5])
    mask = np.array([[True, False, True]] * 2)
    kept = least_squares(asked, mask, go_on).numpy()
    np.testing.assert_allclose(kept, [[1.5, 0, 1], [2, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(error_of(asked, kept, damped=True), 1.5)
    last = least_squares(asked, np.array([[True, False, False]] * 2), go_on).numpy()
    np.testing.assert_allclose(last, [[1.5, 0, 0], [2, 0, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("label", "shape"),
    [("1x4", (8, 6, 1, 2)), ("1x4", (7, 5)), ("block2", (4, 5, 3, 1)), ("1x1", (3, 6))],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_step_costs_what_least_squares_says(label, shape, seed):
    """One pass holds all sparsities: its cumulative errors are those of solving for each mask."""
    asked, groups = problem(shape, seed), groups_of(label, shape)
    traces = traced(asked, groups)
    for removed in range(len(groups[0].units) + 1):
        mask = mask_of(groups, traces, removed, shape)
        cumulative = sum(trace.rise[:removed].sum() for trace in traces)
        np.testing.assert_allclose(
            cumulative, error_of(asked, best(asked, mask), damped=True), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("seed", range(6))
def test_first_removal_is_the_best_and_no_later_one_is_better_than_the_best(seed):
    shape = (4, 6)
    asked, groups = problem(shape, seed), groups_of("1x4", shape)
    (trace,) = traced(asked, groups)
    for kept in range(6):
        errors = []
        for chosen in itertools.combinations(range(6), kept):
            mask = np.zeros(shape, dtype=bool)
            mask[:, chosen] = True
            errors.append(error_of(asked, best(asked, mask), damped=True))
        found = trace.rise[: 6 - kept].sum()
        assert found >= min(errors) * (1 - 1e-9)
        if kept == 5:
            np.testing.assert_allclose(found, min(errors))


def test_batches_of_units_cost_exactly_what_they_cost_together():
    shape = (8, 24, 1, 2)
    asked, groups = problem(shape), groups_of("1x4", shape)
    traces = traced(asked, groups, share=4)
    for removed in (6, 10, 13, 24):  # after the first, second and third batch, and all
        mask = mask_of(groups, traces, removed, shape)
        cumulative = sum(trace.rise[:removed].sum() for trace in traces)
        np.testing.assert_allclose(cumulative, error_of(asked, best(asked, mask), damped=True))


def test_groups_are_worked_on_alike_together_and_one_by_one(monkeypatch):
    shape = (11, 7, 3, 1)  # the last group has three outputs
    asked, groups = problem(shape), groups_of("1x4", shape)
    together = traced(asked, groups)
    monkeypatch.setattr(elimination, "_TOGETHER_BYTES", 1)
    for one, other in zip(together, traced(asked, groups), strict=True):
        assert one.order.tolist() == other.order.tolist()
        np.testing.assert_allclose(one.rise, other.rise)


def test_float32_finds_the_same_order():
    shape = (16, 32)
    asked, groups = problem(shape), groups_of("1x16", shape)
    (exact,), (rough,) = traced(asked, groups), traced(asked, groups, dtype=torch.float32)
    assert exact.order.tolist() == rough.order.tolist()
    np.testing.assert_allclose(exact.rise, rough.rise, rtol=1e-3)


def test_dead_units_go_first_at_no_cost():
    shape = (4, 6, 1, 2)
    asked, groups = problem(shape, dead=(2, 3, 8, 9)), groups_of("1x4", shape)
    asked.target[:, [2, 3, 8, 9]] = 0.0
    (trace,) = traced(asked, groups)
    assert sorted(trace.order[:2].tolist()) == [1, 4]
    assert trace.rise[:2].tolist() == [0.0, 0.0] and trace.rise[2] > 0


def test_ranks_merge_groups_and_keep_each_ones_order():
    first = Trace(np.array([2, 0, 1]), np.array([5.0, 1.0, 9.0]))
    second = Trace(np.array([1, 0, 2]), np.array([2.0, 5.0, 6.0]))
    # Costs so far: 5, 5, 9 and 2, 5, 6. Of equals, the one of an earlier place goes first.
    assert ranks([first, second]).tolist() == [[2.0, 5.0, 1.0], [3.0, 0.0, 4.0]]


def test_short_units_are_their_own_columns_alone():
    """Five inputs in runs of two: the last run has one, and no neighbour pays for the gap."""
    asked = problem((2, 5))
    units = np.array([[0, 1], [2, 3], [4, -1]], dtype=np.int32)
    (trace,) = traced(asked, [Group(np.arange(2, dtype=np.int32), units)])
    assert sorted(trace.order.tolist()) == [0, 1, 2]
    np.testing.assert_allclose(trace.rise.sum(), error_of(asked, np.zeros((2, 5)), damped=True))


def test_a_stop_ends_the_elimination():
    def stop():
        raise Stopped("stopped")

    asked = problem((4, 6))
    with pytest.raises(Stopped):
        eliminate(asked.inverse(), asked.target, groups_of("1x4", (4, 6)), stop)


def test_too_little_damping_is_told():
    asked = problem((2, 6), rank=2, damping=1e-30)
    with pytest.raises(UsageError, match=r"damping must make .* raise it"):
        asked.inverse()


def test_outputs_that_keep_the_same_share_a_solution():
    mask = np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1], [1, 1, 1]], dtype=bool)
    alike = sorted((rows.tolist(), columns.tolist()) for rows, columns in rows_alike(mask))
    assert alike == [([0, 2], [0, 2]), ([1], []), ([3], [0, 1, 2])]


@pytest.mark.parametrize("crossed", [False, True])
def test_least_squares_is_the_best_of_its_mask(crossed):
    asked = problem((6, 4, 3, 1), crossed=crossed)
    mask = np.random.default_rng(1).random(asked.target.shape) < 0.5
    mask[2], mask[4] = False, mask[0]
    found = least_squares(asked, mask, go_on).numpy()
    np.testing.assert_allclose(found, best(asked, mask), rtol=1e-9, atol=1e-12)
    assert not found[~mask].any()


def test_target_gives_back_the_dense_output():
    """With all weights kept and hardly any damping, it is that output's regression on the inputs."""
    rng = np.random.default_rng(0)
    rows, mix = rng.normal(size=(50, 4)), rng.normal(size=(4, 4))
    weight = torch.from_numpy(rng.normal(size=(3, 4)))
    dense = rows @ mix
    own, cross = (torch.from_numpy(each.T @ rows / 50) for each in (rows, dense))
    asked = problem_of(weight, Moments(own, cross, 50), 1e-12)
    wanted = np.linalg.lstsq(rows, dense @ weight.numpy().T, rcond=None)[0].T
    np.testing.assert_allclose(asked.target.numpy(), wanted, rtol=1e-8)
