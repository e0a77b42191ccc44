"""Tunings that run out of time, and kernels that fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tuning_bench import LAYER_LIST, REQUEST, Bench, is_accounted_for

from autosparse.records import Status, onexn
from autosparse.tuning import narrowing as reasons


class TestTimeBudget:
    def test_dense_comes_first_and_always(self, bench: Bench) -> None:
        result = bench.tune(replace(REQUEST, time_budget_us=1.0))
        assert all(len(options) == 1 for options in result.options.values())
        assert len(result.options) == 8
        assert result.unfinished == tuple(layer.name for layer in LAYER_LIST[:7])
        assert reasons.NO_TIME in {skip.reason for skip in result.skipped}
        assert is_accounted_for(result)

    def test_the_most_valuable_shape_comes_next(self, bench: Bench) -> None:
        bench.settings(seconds=0.02)
        result = bench.tune(replace(REQUEST, time_budget_us=1.5e6))
        sparse = [name for name, options in result.options.items() if len(options) > 1]
        if result.unfinished:
            assert not sparse or {"a.conv1", "b.conv1"} & {*sparse, *result.unfinished}
            assert "d.conv1" in result.unfinished or "stem" in result.unfinished
        order = [job.split()[2] for job in bench.jobs if "dense" not in job]
        assert order[:5] == ["32"] * 5

    def test_what_is_known_costs_no_time(self, bench: Bench) -> None:
        first = bench.tune()
        again = bench.tune(replace(REQUEST, time_budget_us=1.0))
        assert again.options == first.options
        assert again.unfinished == ()

    def test_what_was_cut_off_is_made_up_later(self, bench: Bench, tmp_path: Path) -> None:
        bench.tune(replace(REQUEST, time_budget_us=1.0))
        result = bench.tune()
        other = replace(bench, folder=tmp_path / "other")
        other.folder.mkdir()
        other.settings()
        assert other.tune().options == result.options


class TestFailures:
    FAILURES = {  # noqa: RUF012
        "onexn8__avx512_px8": "crash",
        "onexn16__avx512_px16": "hang",
        "onexn32__avx512_px8": "raise",
        "dense__avx512_px8": "wrong",
        "dense__avx512_px16": "unstable",
    }
    REQUEST = replace(
        REQUEST,
        layers=LAYER_LIST[4:5],
        patterns=(onexn(8), onexn(16), onexn(32)),
        policy=replace(REQUEST.policy, timeout_s=0.4),
    )

    def test_each_becomes_a_row_and_the_rest_goes_on(self, bench: Bench) -> None:
        bench.settings(failures=self.FAILURES)
        result = bench.tune(self.REQUEST)
        by_kernel = {row.key.kernel: row for row in result.failed}
        statuses = {kernel[9:].replace("_px", ""): row.status for kernel, row in by_kernel.items()}
        assert statuses == {
            "onexn8__avx5128x48": Status.CRASHED,
            "onexn16__avx51216x48": Status.TIMEOUT,
            "onexn32__avx5128x48": Status.ERROR,
            "dense__avx5128x48": Status.WRONG,
            "dense__avx51216x48": Status.UNSTABLE,
        }
        assert "SIGSEGV" in by_kernel["f32_conv_onexn8__avx512_px8x48"].message
        assert "killed after" in by_kernel["f32_conv_onexn16__avx512_px16x48"].message
        assert "no such tile" in by_kernel["f32_conv_onexn32__avx512_px8x48"].message
        assert {option.choice.pattern.group_out for option in result.options["c.conv1"]} == {
            0,
            8,
            16,
            32,
        }
        kernels = {option.choice.kernel for option in result.options["c.conv1"]}
        assert not kernels & set(by_kernel)
        assert is_accounted_for(result)

    def test_failures_are_remembered_until_a_retry_is_asked_for(self, bench: Bench) -> None:
        bench.settings(failures=self.FAILURES)
        bench.tune(self.REQUEST)
        assert bench.tune(self.REQUEST).timed == 0
        bench.settings()
        result = bench.tune(replace(self.REQUEST, retry_failed=True))
        assert result.timed >= 5
        assert result.failed == ()
        assert bench.database().rows(status=["crashed", "error", "timeout", "unstable", "wrong"]) == []

    def test_a_layer_without_any_good_dense_row_is_named(self, bench: Bench) -> None:
        bench.settings(failures={"dense": "raise"})
        result = bench.tune(self.REQUEST)
        assert "c.conv1" not in result.options
        assert "no such tile" in result.unmeasured["c.conv1"]
