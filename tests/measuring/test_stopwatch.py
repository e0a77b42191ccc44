from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from autosparse.errors import UsageError
from autosparse.measuring.stopwatch import (
    LAYERS,
    MeasurementPolicy,
    Timing,
    measure,
)


class Clock:
    """A runner whose wall times come from a generator; time passes only here."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.calls: list[int] = []

    def __call__(self, count: int) -> np.ndarray:
        self.calls.append(count)
        return np.asarray(self.draw(count), dtype=np.float64).astype(np.int64)

    @property
    def runs(self) -> int:
        return sum(self.calls)


def steady(ns: float, spread: float = 0.0, seed: int = 0) -> Clock:
    generator = np.random.default_rng(seed)
    return Clock(lambda count: ns * (1 + spread * generator.standard_normal(count)))


class TestPolicy:
    def test_every_field_is_part_of_the_id(self) -> None:
        changed = {
            field.name: replace(LAYERS, **{field.name: getattr(LAYERS, field.name) * 2 or 1}).id
            for field in fields(LAYERS)
            if field.name != "name"
        }
        assert len({LAYERS.id, *changed.values()}) == len(changed) + 1
        assert replace(LAYERS, name="other").id.startswith("other-warm-")

    @pytest.mark.parametrize(
        ("weight_bytes", "label"),
        [(23_400_000, "cold16M"), (23_750_000, "cold32M"), (550_000, "cold512K"), (0, "cold1K")],
    )
    def test_reuse_distance_is_the_model_in_powers_of_two(self, weight_bytes, label) -> None:
        assert LAYERS.for_model(weight_bytes).id.startswith(f"default-{label}-")

    def test_models_of_similar_size_share_rows(self) -> None:
        assert LAYERS.for_model(24_000_000).id == LAYERS.for_model(46_000_000).id

    def test_json(self) -> None:
        policy = LAYERS.for_model(1 << 24)
        assert MeasurementPolicy.from_json(policy.to_json()) == policy

    @pytest.mark.parametrize(
        "change", [{"min_repeats": 5}, {"max_repeats": 6}, {"target_ci": 0}, {"max_copies": 0}]
    )
    def test_rules(self, change: dict[str, float]) -> None:
        with pytest.raises(UsageError, match="but got"):
            MeasurementPolicy(**change)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({}, 17),  # ceil(16 MiB / 1 MB)
            ({"cache_bytes": 4 << 20}, 9),  # twice the cache is enough
            ({"weight_bytes": 100 << 20}, 1),
            ({"weight_bytes": 10}, 64),  # max_copies
            ({"memory_bytes": 100 << 20}, 2),  # max_copies_bytes
            ({"memory_bytes": 1 << 40}, 1),
            ({"run_us": 5_000.0}, 6),  # a rotation fits into the time cap
            ({"run_us": 1e9}, 1),
            ({"run_us": 210.0, "rival_us": 100.0}, 6),  # hopeless
            ({"run_us": 190.0, "rival_us": 100.0}, 17),
        ],
    )
    def test_copies(self, change: dict[str, float], expected: int) -> None:
        policy = replace(LAYERS, reuse_bytes=16 << 20)
        values = {"weight_bytes": 1_000_000, "memory_bytes": 2_000_000, "run_us": 100.0, **change}
        assert policy.copies(values.pop("weight_bytes"), **values) == expected

    def test_warm_weights_need_no_copies(self) -> None:
        assert LAYERS.copies(1000, memory_bytes=1000, run_us=1.0) == 1


class TestMeasure:
    def test_steady_times_settle_at_once(self) -> None:
        clock = steady(100_000, 0.001)
        timing = measure(clock, LAYERS)
        assert timing.settled
        assert not timing.beaten
        assert timing.repeats == LAYERS.min_repeats
        assert timing.median_us == pytest.approx(100, rel=0.002)
        assert timing.ci_low_us <= timing.median_us <= timing.ci_high_us

    def test_noise_is_sampled_until_the_interval_is_narrow(self) -> None:
        timing = measure(steady(20_000, 0.08), LAYERS)
        assert timing.settled
        assert timing.repeats > 50
        width = timing.ci_high_us - timing.ci_low_us
        assert width <= 2 * LAYERS.target_ci * timing.median_us

    def test_the_cap_ends_the_sampling_and_the_interval_stays_honest(self) -> None:
        timing = measure(steady(1_000_000, 0.05), LAYERS)
        assert not timing.settled
        assert timing.repeats <= LAYERS.time_cap_us / 1_000 + 1
        width = timing.ci_high_us - timing.ci_low_us
        assert width > 2 * LAYERS.target_ci * timing.median_us

    def test_a_disturbed_measurement_gets_more_time(self) -> None:
        generator = np.random.default_rng(3)
        noisy = Clock(lambda n: np.where(generator.random(n) < 0.45, 9e6, 1e6))
        timing = measure(noisy, LAYERS)
        assert timing.repeats > LAYERS.time_cap_us / 1_000 / 4
        assert noisy.runs * 4.6e6 < 2 * LAYERS.patience * LAYERS.time_cap_us * 1e3

    def test_slow_runs_still_get_their_least_samples(self) -> None:
        timing = measure(steady(50_000_000, 0.01), LAYERS)
        assert timing.repeats == LAYERS.min_repeats

    def test_warm_up_comes_first(self) -> None:
        times = iter([9e6, *[1e5] * 10_000])
        clock = Clock(lambda count: [next(times) for _ in range(count)])
        timing = measure(clock, replace(LAYERS, warmup_us=20_000.0))
        assert timing.median_us == 100
        assert timing.ci_high_us == 100
        assert clock.runs > timing.repeats

    def test_a_beaten_runner_is_given_up_early(self) -> None:
        timing = measure(steady(100_000, 0.05), LAYERS, rival_us=60.0)
        assert timing.beaten
        assert timing.repeats == 6
        assert timing.ci_low_us > 60

    def test_a_winner_is_not_given_up(self) -> None:
        timing = measure(steady(100_000, 0.05), LAYERS, rival_us=110.0)
        assert not timing.beaten
        assert timing.settled

    @pytest.mark.parametrize("bad", [0, -5])
    def test_zero_and_negative_times_are_not_plausible(self, bad: int) -> None:
        clock = Clock(lambda count: [bad] + [1000] * (count - 1))
        assert "greater than zero" in measure(clock, LAYERS).problem

    def test_faster_than_the_machine_is_not_plausible(self) -> None:
        assert "lower bound" in measure(steady(10_000), LAYERS, floor_us=25.0).problem
        assert measure(steady(10_000), LAYERS, floor_us=15.0).problem == ""

    def test_intervals_cover_the_true_median(self) -> None:
        hits = 0
        for seed in range(400):
            timing = measure(steady(200_000, 0.1, seed), replace(LAYERS, warmup_us=0.0))
            hits += timing.ci_low_us <= 200 <= timing.ci_high_us
        assert hits / 400 >= 0.92

    def test_json(self) -> None:
        timing = measure(steady(100_000, 0.01), LAYERS)
        assert Timing.from_json(timing.to_json()) == timing
        whole = timing.whole_latency(threads=2, batch_size=1, dtype="f32", engine="torch")
        assert whole.median_ms == pytest.approx(timing.median_us / 1e3)
