"""What the tuner measures and what it leaves out, against the truth of a made-up machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tuning_bench import LAYER_LIST, REQUEST, SPARSITIES, Bench, is_accounted_for, truth
from tuning_layers import conv, info, linear

from autosparse.database import TuningDatabase
from autosparse.devices import AUTO
from autosparse.devices.device import find
from autosparse.errors import UsageError
from autosparse.measuring import limits
from autosparse.measuring.stopwatch import LAYERS
from autosparse.progress import Progress
from autosparse.records import DENSE, kept_blocks, onexn
from autosparse.tuning import narrowing as reasons
from autosparse.tuning.autotune import TuneRequest, tune
from autosparse.tuning.narrowing import steps


@pytest.mark.smoke
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
        for pattern in REQUEST.patterns:
            block_n = pattern.group_out
            for step in steps(shape, pattern, SPARSITIES):
                if step.kept == shape.in_channels:
                    continue
                if f"1x{block_n}@{step.sparsities[0]:g}" in labels:
                    continue
                missing += 1
                more_accurate = [truth(shape, 0, -1)] + [
                    truth(shape, n, other.kept)
                    for n in (each.group_out for each in REQUEST.patterns)
                    for other in steps(shape, onexn(n), SPARSITIES)
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


def test_a_layer_is_timed_in_the_patterns_that_it_is_offered(bench: Bench) -> None:
    whole = bench.tune()
    jobs = len(bench.jobs)
    offered = {"a.conv1": (onexn(8),), "b.conv1": (onexn(16),), "c.conv1": ()}
    wanted = replace(REQUEST, layer_patterns=offered)
    assert TuneRequest.from_json(wanted.to_json()) == wanted
    assert "layer_patterns" not in REQUEST.to_json()
    chosen = bench.tune(wanted)
    found = {
        name: {option.choice.pattern.name for option in options}
        for name, options in chosen.options.items()
    }
    # Two layers of one shape share what is measured, and not what they are offered.
    assert found["a.conv1"] == {"dense", "1x8"} and found["b.conv1"] == {"dense", "1x16"}
    assert all(found[name] == {"dense"} for name in found.keys() - {"a.conv1", "b.conv1"})
    assert is_accounted_for(chosen) and chosen.considered < whole.considered
    assert chosen.timed + chosen.reused < jobs


def test_sparsities_that_keep_equally_many_blocks_share_a_row(bench: Bench) -> None:
    result = bench.tune()
    stem = {option.choice.label: option for option in result.options["stem"]}
    # Three inputs: 50 and 62.5 % prune one, 75 % and more prune two.
    assert stem["1x8@0.75"].median_us == stem["1x8@0.875"].median_us
    assert "1x8@0.5" not in stem or stem["1x8@0.5"].median_us == stem["1x8@0.625"].median_us
    few = bench.tune(replace(REQUEST, sparsities=(0.1, 0.75)))
    assert reasons.NO_BLOCK in {skip.reason for skip in few.skipped}
    assert is_accounted_for(few)


def test_the_progress_adds_up(bench: Bench) -> None:
    events = []
    result = bench.tune(progress=Progress(events.append))
    assert events[-1].kind == "end"
    assert events[-1].done == events[-1].total == result.considered


class TestRequest:
    @pytest.mark.parametrize(
        "change",
        [{"sparsities": (1.2,)}, {"sparsities": (0.0,)}, {"patterns": (DENSE,)}, {"threads": 0}],
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
        patterns=(onexn(8),),
        sparsities=(0.75,),
        policy=replace(LAYERS, warmup_us=200.0, time_cap_us=2_000.0, target_ci=0.1),
        model_weight_bytes=1 << 20,
    )
    database = TuningDatabase(str(tmp_path / "t.db"))
    result = tune(request, find(AUTO, limits.profile()), database)
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
    assert tune(request, find(AUTO, limits.profile()), database).timed == 0
