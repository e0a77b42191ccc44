"""What a tuning would do, told without doing it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tuning_bench import REQUEST, Bench
from tuning_layers import HOST, MadeUp

from autosparse.tuning.autotune import count


class TestForecast:
    def test_it_measures_nothing_and_comes_true(self, bench: Bench) -> None:
        before = count(REQUEST, bench.device, bench.database())
        assert bench.jobs == []
        assert before.basis == "roofline"
        assert (before.reused, before.slowest_us) == (0, None)
        assert before.estimated_s > 0
        result = bench.tune()
        assert before.considered == result.considered
        assert 0.4 < before.to_time / result.timed < 2.5
        after = count(REQUEST, bench.device, bench.database())
        assert (after.to_time, after.reused, after.estimated_s) == (0, result.timed, 0)
        assert after.basis == "measured"
        dense = sum(options[0].median_us for options in result.options.values())
        assert after.dense_us == pytest.approx(dense)
        assert before.fastest_us <= after.fastest_us < after.dense_us <= after.slowest_us
        assert before.dense_us <= after.dense_us

    def test_without_measured_limits_there_are_no_bounds(self, bench: Bench) -> None:
        unknown = replace(HOST, cpu=replace(HOST.cpu, f32_gflops_core=None))
        found = count(REQUEST, MadeUp(unknown), bench.database())
        assert found.to_time > 0
        assert (found.dense_us, found.basis) == (0, "roofline")
