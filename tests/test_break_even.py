from __future__ import annotations

from dataclasses import replace

import pytest

from autosparse.plans.break_even import (
    BreakEven,
    Outcome,
    Timed,
    Verdict,
    bracket,
    break_even,
    in_order,
    is_known,
    next_sparsity,
    outcome,
    timed,
)
from autosparse.records import Measurement, MeasurementKey, Status, onexn

GRID = tuple(step / 16 for step in range(1, 16))


def row(block_n: int, sparsity: float, us: float, noise: float = 0.01, shape: str = "s") -> Timed:
    return Timed(
        shape=shape,
        pattern=onexn(block_n).name if block_n else "dense",
        sparsity=sparsity,
        dtype="f32",
        median_us=us,
        ci_low_us=us * (1 - noise),
        ci_high_us=us * (1 + noise),
    )


DENSE = row(0, 0.0, 100.0)


def one(*rows: Timed) -> BreakEven:
    [found] = break_even([DENSE, *rows])
    return found


@pytest.mark.smoke
def test_the_least_sparsity_that_wins_is_the_break_even() -> None:
    found = one(row(16, 0.25, 120.0), row(16, 0.5, 80.0), row(16, 0.75, 40.0))
    assert (found.verdict, found.sparsity, found.above) == (Verdict.WINS, 0.5, 0.25)
    assert found.label == "50 %"
    assert [point.outcome for point in found.points] == ["loses", "wins", "wins"]
    assert found.points[2].speedup == 2.5


def test_rows_may_come_in_any_order() -> None:
    rows = [row(16, 0.75, 40.0), row(16, 0.25, 120.0), DENSE, row(16, 0.5, 80.0)]
    assert break_even(rows) == break_even(reversed(rows))


def test_intervals_that_overlap_show_no_gain() -> None:
    # 1 % faster by the medians, but neither is known to better than 1 %.
    found = one(row(16, 0.5, 99.0))
    assert (found.verdict, found.sparsity, found.label) == (Verdict.NO_GAIN, None, "no gain")
    assert found.points[0].outcome is Outcome.TIES
    assert one(row(16, 0.5, 99.0, noise=0.0), row(16, 0.75, 150.0)).label == "no gain"


def test_intervals_that_touch_are_a_tie() -> None:
    touching = replace(row(16, 0.5, 90.0), ci_high_us=DENSE.ci_low_us)
    assert outcome(touching, DENSE) is Outcome.TIES
    slower = replace(row(16, 0.5, 110.0), ci_low_us=DENSE.ci_high_us)
    assert outcome(slower, DENSE) is Outcome.TIES
    assert one(row(16, 0.25, 100.0)).points[0].outcome is Outcome.TIES


def test_a_win_below_a_loss_is_noise() -> None:
    found = one(row(16, 0.25, 80.0), row(16, 0.5, 130.0), row(16, 0.75, 40.0))
    assert (found.sparsity, found.above) == (0.75, 0.5)
    assert one(row(16, 0.25, 80.0), row(16, 0.5, 130.0)).verdict is Verdict.NO_GAIN


def test_a_win_at_the_least_measured_sparsity_may_begin_lower() -> None:
    found = one(row(16, 0.5, 60.0), row(16, 0.75, 30.0))
    assert (found.sparsity, found.above, found.label) == (0.5, None, "<= 50 %")


def test_what_was_not_measured_is_not_guessed() -> None:
    other = row(8, 0.5, 50.0, shape="t")
    found = {
        (cell.shape, cell.pattern): cell for cell in break_even([DENSE, row(16, 0.5, 50.0), other])
    }
    assert found["s", "1x8"].verdict is Verdict.UNMEASURED  # this N has no row here
    assert found["t", "1x8"].verdict is Verdict.UNMEASURED  # dense has none
    assert found["t", "1x8"].label == "-"
    assert found["s", "1x16"].verdict is Verdict.WINS
    assert break_even([]) == ()
    assert break_even([DENSE]) == ()


def test_the_fastest_row_of_a_structure_counts() -> None:
    assert one(row(16, 0.5, 140.0), row(16, 0.5, 60.0)).sparsity == 0.5
    [found] = break_even([row(0, 0.0, 300.0), DENSE, row(16, 0.5, 150.0)])
    assert found.verdict is Verdict.NO_GAIN


def test_types_are_compared_with_their_own_dense_row() -> None:
    rows = [DENSE, row(16, 0.5, 60.0), replace(DENSE, dtype="bf16", median_us=50.0, ci_low_us=49.0)]
    rows.append(replace(row(16, 0.5, 60.0), dtype="bf16"))
    assert [(c.dtype, c.verdict) for c in break_even(rows)] == [
        ("f32", "wins"),
        ("bf16", "no gain shown"),
    ]


def test_it_travels_as_plain_values() -> None:
    found = one(row(16, 0.25, 120.0), row(16, 0.5, 80.0))
    assert BreakEven.from_json(found.to_json()) == found


# --------------------------------------------------------------------------------------- bisection


@pytest.mark.parametrize("least", [*GRID, None])
def test_bisection_finds_the_least_sparsity_in_few_steps(least: float | None) -> None:
    known: list[tuple[float, bool]] = []
    while (sparsity := next_sparsity(GRID, known)) is not None:
        assert sparsity not in [seen for seen, _ in known]
        known.append((sparsity, least is not None and sparsity >= least))
    assert len(known) <= 4
    lost, won = bracket(known)
    assert won == least
    assert lost == (None if least == GRID[0] else (least or 1.0) - 1 / 16)


def test_known_rows_narrow_the_search_even_off_the_grid() -> None:
    assert next_sparsity(GRID, [(0.55, False), (0.7, True)]) in (0.5625, 0.625, 0.6875)
    assert next_sparsity((0.5, 0.75), [(0.5, False), (0.75, True)]) is None
    assert next_sparsity((), []) is None


def test_a_noisy_win_does_not_end_the_search() -> None:
    # A win at 25 % does not count below a loss at 50 %.
    assert next_sparsity((0.25, 0.5, 0.75), [(0.25, True), (0.5, False)]) == 0.75


# --------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("pattern", "known"),
    [
        ("dense", True),
        ("1x16", True),
        ("1x4-layerwide", True),
        ("block8", True),
        ("2x16", False),
        ("1x32+2:4", False),
    ],
)
def test_patterns_are_read_by_name(pattern: str, known: bool) -> None:
    assert is_known(pattern) == known


def test_patterns_come_the_finest_first() -> None:
    names = {"block8", "1x16", "dense", "1x8", "block2"}
    assert in_order(names) == ("block2", "1x8", "1x16", "block8")


def test_only_good_rows_count() -> None:
    key = MeasurementKey(
        hardware_id="h", kernel="k", kernel_hash="x", shape="s", pattern="1x16", kept=8, config="",
        dtype="f32", threads=1, policy="p",
    )  # fmt: skip
    good = Measurement(key=key, status=Status.OK, median_us=5.0, sparsity=0.5)
    wrong = Measurement(key=key, status=Status.WRONG, message="off")
    foreign = replace(good, key=replace(key, pattern="1x32+2:4"))
    [found] = timed([good, wrong, foreign])
    assert (found.pattern, found.sparsity, found.ci_low_us, found.ci_high_us) == ("1x16", 0.5, 5.0, 5.0)
