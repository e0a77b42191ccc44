from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from autosparse import limits
from autosparse.errors import Stopped, UsageError
from autosparse.progress import Progress
from autosparse.records import Status, kept_blocks
from autosparse.tuning import narrowing as reasons
from autosparse.tuning.autotune import TuneRequest, TuneResult, count, tune
from autosparse.tuning.database import TuningDatabase
from autosparse.tuning.narrowing import Catalogue, steps
from autosparse.tuning.stopwatch import LAYERS
from autosparse.tuning.worker import Worker

sys.path.insert(0, str(Path(__file__).parent))
from fake_runners import true_us
from tuning_layers import HOST, conv, fake_kernels, info, linear

FOLDER = Path(__file__).parent

SPARSITIES = (0.5, 0.625, 0.75, 0.875, 0.9375)
LAYER_LIST = (
    info("stem", conv(3, 56, out_channels=32)),
    info("a.conv1", conv(32, 56, activation="relu")),
    info("a.conv2", conv(32, 56, activation="relu", residual=True)),
    info("b.conv1", conv(32, 56, activation="relu")),
    info("c.conv1", conv(64, 28)),
    info("d.conv1", conv(128, 14)),
    info("head", linear(512, 64)),
    info("kept", conv(48, 28), "excluded by name"),
    info("norm", None, "layer_norm is no convolution"),
)
REQUEST = TuneRequest(
    layers=LAYER_LIST,
    block_ns=(8, 16, 32),
    sparsities=SPARSITIES,
    policy=replace(LAYERS.for_model(1 << 25), timeout_s=5.0),
)


@dataclass
class Bench:
    """A database, made-up kernels, and a measuring process that notes what it was asked."""

    folder: Path
    control: Path
    shared: Worker
    hashes: dict[str, str] = field(default_factory=dict)

    def settings(self, seconds: float = 0.0, failures: dict[str, str] | None = None) -> None:
        values = {"log": str(self.log), "seconds": seconds, "failures": failures or {}}
        (self.control / "synthetic.json").write_text(json.dumps(values))

    @property
    def log(self) -> Path:
        return self.folder / "jobs.log"

    @property
    def jobs(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(fake_kernels, lambda kernel: self.hashes.get(kernel.name, "h1"))

    def database(self) -> TuningDatabase:
        return TuningDatabase(str(self.folder / "t.db"), current_hashes=dict)

    def tune(self, request: TuneRequest = REQUEST, progress: Progress | None = None) -> TuneResult:
        return tune(
            request,
            HOST,
            self.database(),
            progress=progress,
            worker=self.shared,
            catalogue=self.catalogue,
        )


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("control")


@pytest.fixture(scope="module")
def shared(control: Path):
    with Worker("fake_runners:synthetic", import_path=[control, FOLDER]) as worker:
        yield worker


@pytest.fixture
def bench(tmp_path: Path, control: Path, shared: Worker) -> Bench:
    bench = Bench(tmp_path, control, shared)
    bench.settings()
    return bench


def is_accounted_for(result: TuneResult) -> bool:
    skipped = sum(skip.count for skip in result.skipped)
    return result.considered == result.timed + result.reused + skipped


def truth(shape, block_n: int, kept: int) -> float:
    """Gives the fastest true latency of a structure."""
    pattern = reasons.onexn(block_n) if block_n else reasons.DENSE
    return min(true_us(k.name, shape.to_json(), kept) for k in fake_kernels(shape, pattern))


def test_every_layer_gets_the_truly_fastest_kernels(bench: Bench) -> None:
    result = bench.tune()
    assert is_accounted_for(result)
    assert list(result.options) == [layer.name for layer in LAYER_LIST if layer.shape]
    for layer in LAYER_LIST[:7]:
        dense, *sparse = result.options[layer.name]
        assert dense.choice.label == "dense"
        assert dense.median_us == pytest.approx(truth(layer.shape, 0, -1))
        assert sparse
        for option in sparse:
            kept = kept_blocks(layer.shape.in_channels, option.choice.sparsity)
            expected = truth(layer.shape, option.choice.pattern.group_out, kept)
            assert option.median_us == pytest.approx(expected), (layer.name, option.choice)
            assert option.flops_kept == layer.shape.flops * kept // layer.shape.in_channels
            assert option.ci_low_us <= option.median_us <= option.ci_high_us


def test_what_is_left_out_could_not_have_been_of_use(bench: Bench) -> None:
    result = bench.tune()
    missing = 0
    for layer in LAYER_LIST[:7]:
        labels = {option.choice.label for option in result.options[layer.name]}
        shape = layer.shape
        for block_n in REQUEST.block_ns:
            for step in steps(shape, SPARSITIES):
                if step.kept == shape.in_channels:
                    continue
                if f"1x{block_n}@{step.sparsities[0]:g}" in labels:
                    continue
                missing += 1
                more_accurate = [truth(shape, 0, -1)] + [
                    truth(shape, n, other.kept)
                    for n in REQUEST.block_ns
                    for other in steps(shape, SPARSITIES)
                    if block_n % n == 0 and other.kept >= step.kept and other.kept < shape.in_channels
                    if (n, other.kept) != (block_n, step.kept)
                ]
                assert truth(shape, block_n, step.kept) >= 0.98 * min(more_accurate)
    assert missing


def test_only_a_part_is_timed_and_the_reasons_are_told(bench: Bench) -> None:
    result = bench.tune()
    told = {skip.reason: skip.count for skip in result.skipped}
    assert result.timed < result.considered / 2
    assert result.timed == len(bench.jobs) == len(set(bench.jobs))
    assert {reasons.LOST, reasons.NARROW, reasons.SIBLING, reasons.BOUND} <= set(told)
    assert 0 < result.beaten < result.timed
    # Equal shapes are measured once, and narrower vectors on the first shapes alone.
    assert result.options["a.conv1"] == result.options["b.conv1"]
    generic = [job for job in bench.jobs if "generic" in job and "dense" in job]
    assert len(generic) <= reasons.SCOUTS


def test_layers_that_must_stay_dense_are_timed_dense_only(bench: Bench) -> None:
    result = bench.tune()
    assert [option.choice.label for option in result.options["kept"]] == ["dense"]
    assert "layer_norm" in result.unmeasured["norm"]
    chosen = bench.tune(replace(REQUEST, sparse_layers=("c.conv1",)))
    assert {name for name, options in chosen.options.items() if len(options) > 1} == {"c.conv1"}


def test_sparsities_that_keep_equally_many_blocks_share_a_row(bench: Bench) -> None:
    result = bench.tune()
    stem = {option.choice.label: option for option in result.options["stem"]}
    # Three inputs: 50 and 62.5 % prune one, 75 % and more prune two.
    assert stem["1x8@0.75"].median_us == stem["1x8@0.875"].median_us
    assert "1x8@0.5" not in stem or stem["1x8@0.5"].median_us == stem["1x8@0.625"].median_us
    few = bench.tune(replace(REQUEST, sparsities=(0.1, 0.75)))
    assert reasons.NO_BLOCK in {skip.reason for skip in few.skipped}
    assert is_accounted_for(few)


def test_a_second_run_times_nothing(bench: Bench) -> None:
    first = bench.tune()
    jobs = len(bench.jobs)
    second = bench.tune()
    assert len(bench.jobs) == jobs
    assert (second.timed, second.reused) == (0, first.timed)
    assert second.options == first.options
    assert second.skipped == first.skipped


def test_rows_of_other_hosts_and_thread_counts_are_not_touched(bench: Bench) -> None:
    bench.tune()
    before = bench.database().rows()
    other = replace(HOST, hardware_id="other-host")
    result = tune(REQUEST, other, bench.database(), worker=bench.shared, catalogue=bench.catalogue)
    assert result.reused == 0
    threads = bench.tune(replace(REQUEST, threads=2))
    assert threads.reused == 0
    rows = bench.database().rows()
    assert rows[: len(before)] == before
    assert Counter(row.key.hardware_id for row in rows)["other-host"] == result.timed


def test_a_changed_kernel_is_measured_again_and_no_other(bench: Bench) -> None:
    first = bench.tune()
    bench.log.unlink()
    bench.hashes["f32_conv_onexn16__avx512_px16x48"] = "h2"
    second = bench.tune()
    assert second.timed > 0
    assert {job.split()[0] for job in bench.jobs} == {"f32_conv_onexn16__avx512_px16x48"}
    assert second.options == first.options


def test_another_n_adds_rows_and_invalidates_none(bench: Bench) -> None:
    first = bench.tune(replace(REQUEST, block_ns=(16,)))
    second = bench.tune(replace(REQUEST, block_ns=(16, 32)))
    assert second.reused == first.timed
    assert second.timed > 0


KILLED = """
import sys
sys.path.insert(0, {here!r})
from test_autotune import FOLDER, Bench, Worker
from pathlib import Path
control = Path({control!r})
Bench(Path({folder!r}), control, Worker("fake_runners:synthetic", import_path=[control, FOLDER])).tune()
"""


@pytest.mark.parametrize("rows", [1, 25, 80])
def test_a_killed_run_resumes_where_it_was(bench: Bench, tmp_path: Path, rows: int) -> None:
    bench.settings(seconds=0.005)
    code = KILLED.format(here=str(FOLDER), folder=str(bench.folder), control=str(bench.control))
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(bench.jobs) < rows:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()

    bench.settings()
    stored = len(bench.database().rows())
    assert stored >= rows - 1
    result = bench.tune()
    assert result.reused == stored
    twice = [job for job, times in Counter(bench.jobs).items() if times > 1]
    assert len(twice) <= 1  # the one in flight
    rows_after = len(bench.database().rows())
    assert rows_after == result.reused + result.timed

    bench.log.unlink()
    whole = replace(bench, folder=tmp_path / "whole")
    whole.folder.mkdir()
    whole.settings()
    expected = whole.tune()
    assert expected.timed == rows_after
    assert expected.options == result.options


def test_a_stop_is_heeded_and_the_same_call_goes_on(bench: Bench) -> None:
    with pytest.raises(Stopped):
        bench.tune(progress=Progress(should_stop=lambda: len(bench.jobs) >= 10))
    assert len(bench.database().rows()) == 10
    result = bench.tune()
    assert result.reused == 10
    assert len(bench.jobs) == len(set(bench.jobs))


def test_the_progress_adds_up(bench: Bench) -> None:
    events = []
    result = bench.tune(progress=Progress(events.append))
    assert events[-1].kind == "end"
    assert events[-1].done == events[-1].total == result.considered


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
        block_ns=(8, 16, 32),
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


class TestForecast:
    def test_it_measures_nothing_and_comes_true(self, bench: Bench) -> None:
        before = count(REQUEST, HOST, bench.database(), catalogue=bench.catalogue)
        assert bench.jobs == []
        assert before.basis == "roofline"
        assert (before.reused, before.slowest_us) == (0, None)
        assert before.estimated_s > 0
        result = bench.tune()
        assert before.considered == result.considered
        assert 0.4 < before.to_time / result.timed < 2.5
        after = count(REQUEST, HOST, bench.database(), catalogue=bench.catalogue)
        assert (after.to_time, after.reused, after.estimated_s) == (0, result.timed, 0)
        assert after.basis == "measured"
        dense = sum(options[0].median_us for options in result.options.values())
        assert after.dense_us == pytest.approx(dense)
        assert before.fastest_us <= after.fastest_us < after.dense_us <= after.slowest_us
        assert before.dense_us <= after.dense_us

    def test_without_measured_limits_there_are_no_bounds(self, bench: Bench) -> None:
        unknown = replace(HOST, cpu=replace(HOST.cpu, f32_gflops_core=None))
        found = count(REQUEST, unknown, bench.database(), catalogue=bench.catalogue)
        assert found.to_time > 0
        assert (found.dense_us, found.basis) == (0, "roofline")


class TestRequest:
    @pytest.mark.parametrize(
        "change", [{"sparsities": (1.2,)}, {"sparsities": (0.0,)}, {"block_ns": (0,)}, {"threads": 0}]
    )
    def test_rules(self, change) -> None:
        with pytest.raises(UsageError):
            replace(REQUEST, **change)

    def test_more_threads_than_cores(self, bench: Bench) -> None:
        with pytest.raises(UsageError, match="2 cores"):
            bench.tune(replace(REQUEST, threads=3))

    def test_the_reuse_distance_comes_from_the_model(self) -> None:
        request = replace(REQUEST, policy=LAYERS, model_weight_bytes=46_000_000)
        assert request.effective_policy == LAYERS.for_model(46_000_000)
        assert REQUEST.effective_policy == REQUEST.policy

    def test_json(self) -> None:
        assert TuneRequest.from_json(REQUEST.to_json()) == REQUEST


def test_real_kernels(tmp_path: Path) -> None:
    request = TuneRequest(
        layers=(info("conv", conv(32, 14, activation="relu")), info("fc", linear(128, 24))),
        block_ns=(8,),
        sparsities=(0.75,),
        policy=replace(LAYERS, warmup_us=200.0, time_cap_us=2_000.0, target_ci=0.1),
        model_weight_bytes=1 << 20,
    )
    database = TuningDatabase(str(tmp_path / "t.db"))
    result = tune(request, limits.profile(), database)
    assert result.failed == ()
    assert set(result.options) == {"conv", "fc"}
    labels = [option.choice.label for option in result.options["conv"]]
    assert labels == ["dense", "1x8@0.75"]
    for option in (option for options in result.options.values() for option in options):
        assert 0 < option.ci_low_us <= option.median_us <= option.ci_high_us
    row = database.best(
        result.rows[0].key.hardware_id,
        request.layers[0].shape,
        "1x8",
        8,
        "f32",
        1,
        result.rows[0].key.policy,
    )
    assert row.key.kernel == result.options["conv"][1].choice.kernel
    assert tune(request, limits.profile(), database).timed == 0
