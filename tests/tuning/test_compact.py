"""Tuning with compact weights: kernels that expand weights are neither timed nor taken from rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tuning_bench import Bench
from tuning_layers import DEVICE, HOST, conv, fake_kernels, info

from autosparse.database import TuningDatabase
from autosparse.devices.kinds.cpu import Cpu
from autosparse.kernels import spec
from autosparse.kernels.compact import expanding_kernels
from autosparse.measuring.stopwatch import LAYERS
from autosparse.records import DENSE, Measurement, Status, kept_blocks, onexn
from autosparse.tuning.asker import key_of
from autosparse.tuning.autotune import TuneRequest, count, tune
from autosparse.tuning.bisection import bisect
from autosparse.tuning.narrowing import Option

SHAPE = conv(32, 14, activation="relu")
STEM = conv(3, 32, out_channels=32, kernel=(7, 7), stride=(2, 2), padding=(3, 3))
FREE = TuneRequest(
    layers=(info("stem", STEM, "the first"), info("conv", SHAPE)),
    patterns=(onexn(16),),
    sparsities=(0.5, 0.75),
    policy=LAYERS.for_model(1 << 20),
)
CPU = Cpu(HOST)
COMPACT = replace(FREE, compact_weights=True)


@pytest.fixture
def database(bench: Bench) -> TuningDatabase:
    """Holds a row of every kernel that expands weights, faster than anything that is timed."""
    found = bench.database()
    structures = [(DENSE, -1, 0.0)] + [
        (onexn(16), kept_blocks(SHAPE.in_channels, sparsity), sparsity) for sparsity in FREE.sparsities
    ]
    for layer in FREE.layers:
        for pattern, kept, sparsity in structures:
            for kernel in spec.kernels_for(layer.shape, pattern):
                if kernel.expands_weights:
                    option = Option(layer.shape, pattern, kept, sparsity, kernel)
                    found.put(fast(option))
    return found


def fast(option: Option) -> Measurement:
    values = dict.fromkeys(("median_us", "ci_low_us", "ci_high_us"), 0.01)
    key = key_of(option, FREE, CPU, FREE.catalogue(CPU), "")
    return Measurement(key=key, status=Status.OK, repeats=9, sparsity=option.sparsity, **values)


def test_the_catalogue_leaves_out_those_that_expand_weights_and_no_other() -> None:
    for shape, pattern in ((SHAPE, DENSE), (SHAPE, onexn(16)), (STEM, DENSE)):
        every = FREE.catalogue(CPU).kernels(shape, pattern)
        compact = COMPACT.catalogue(CPU).kernels(shape, pattern)
        assert compact == tuple(kernel for kernel in every if not kernel.expands_weights)
        assert len(compact) < len(every)
    made_up = COMPACT.catalogue(DEVICE).kernels(SHAPE, DENSE)
    assert set(made_up) == set(fake_kernels(SHAPE, DENSE))


def test_nothing_that_expands_weights_is_timed_taken_or_counted(
    bench: Bench, database: TuningDatabase
) -> None:
    forecast = count(COMPACT, CPU, database)
    result = tune(COMPACT, CPU, database, worker=bench.shared)
    assert result.considered == forecast.considered
    assert result.considered < count(FREE, CPU, database).considered
    asked_for = {row.key.kernel for row in result.rows}
    chosen = {option.choice.kernel for options in result.options.values() for option in options}
    assert set(result.options) == {"stem", "conv"} and chosen <= asked_for
    assert not asked_for & expanding_kernels()
    assert (result.reused, len(bench.jobs)) == (0, result.timed)
    assert not [job for job in bench.jobs if any(name in job for name in expanding_kernels())]
    # What was timed serves a tuning of all kernels, and there the others win.
    free = tune(FREE, CPU, database, worker=bench.shared)
    assert {
        o.choice.kernel for options in free.options.values() for o in options
    } <= expanding_kernels()


def test_a_break_even_map_keeps_to_the_request(bench: Bench, database: TuningDatabase) -> None:
    found = bisect(COMPACT, CPU, database, worker=bench.shared)
    assert found.timed == len(bench.jobs) > 0
    assert not [job for job in bench.jobs if any(name in job for name in expanding_kernels())]
