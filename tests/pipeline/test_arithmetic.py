"""Which types a run computes in: asked for, refused before work, or left out with the reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from autosparse.cli import run as command
from autosparse.config import SearchConfig, validate
from autosparse.errors import ConfigError, UsageError
from autosparse.hosts import here
from autosparse.kernels import binding
from autosparse.kernels.spec import why_not_native
from autosparse.pipeline import forecast
from autosparse.pipeline.measured import tables
from autosparse.pipeline.measured.tables import combined, measured_arithmetic
from autosparse.pipeline.subject.arithmetic import F32, Arithmetic
from autosparse.pipeline.subject.arithmetic import settle as settle_any
from autosparse.pipeline.subject.survey import survey
from autosparse.pipeline.subject.traced import Traced, trace
from autosparse.progress import Progress, ProgressEvent
from autosparse.records import LatencyOption, LayerChoice
from autosparse.tuning.request import Skip, TuneRequest, TuneResult

BOTH = Arithmetic(dtypes=("f32", "bf16"))
native = pytest.mark.skipif(bool(why_not_native("bf16")), reason=why_not_native("bf16") or "native")


@pytest.fixture
def old_host() -> Iterator[None]:
    """A host whose CPU has no instruction for bf16."""
    binding.limit_isa("avx512")
    yield
    binding.limit_isa(None)


def traced(*modules: nn.Module) -> Traced:
    return trace(nn.Sequential(*modules).eval(), (1, 3, 8, 8), "cpu")


def plain() -> Traced:
    return traced(nn.Conv2d(3, 16, 3), nn.ReLU())


def unable() -> Traced:
    return traced(nn.Conv2d(3, 16, 3), nn.GroupNorm(2, 16))


def settle(wanted: str, model: Traced) -> Arithmetic:
    there = {"bf16": why} if (why := why_not_native("bf16")) else {}
    return settle_any(wanted, ("f32", "bf16"), there, model.why_not)


def test_a_device_of_other_types_takes_its_own() -> None:
    there = {"f32": "GPUs compute in halves", "f16": ""}
    assert settle_any("auto", ("bf16",), there, plain().why_not).dtypes == ("bf16",)
    assert settle_any("f16", ("bf16",), there, lambda dtype: "").dtypes == ("f16",)
    with pytest.raises(UsageError, match=r"--dtype f32 .*in halves; write --dtype bf16 or auto"):
        settle_any("f32", ("bf16",), there, lambda dtype: "")
    with pytest.raises(UsageError, match="none is possible: bf16: it overflows"):
        settle_any("auto", ("bf16",), there, lambda dtype: "it overflows")


@native
def test_this_host_computes_in_both() -> None:
    assert settle("f32", plain()) == F32
    assert settle("bf16", plain()) == Arithmetic(dtypes=("bf16",))
    assert settle("auto", plain()) == BOTH


@pytest.mark.usefixtures("old_host")
def test_a_host_without_bf16_refuses_it_and_auto_does_without() -> None:
    for refused in (lambda: settle("bf16", plain()), lambda: validate(config("bf16"), writing=False)):
        with pytest.raises(UsageError, match=r"bf16.*need avx512bf16 or amx.*here is a?"):
            refused()
    assert settle("f32", plain()) == F32
    found = settle("auto", plain())
    assert found.dtypes == ("f32",)
    ((dtype, why),) = found.why_not
    assert dtype == "bf16" and "avx512bf16 or amx" in why
    validate(config("auto"), writing=False)


@native
def test_a_model_that_the_executor_does_not_take_whole_is_computed_in_f32() -> None:
    assert settle("f32", unable()) == F32
    ((dtype, why),) = settle("auto", unable()).why_not
    assert dtype == "bf16" and "group_norm" in why
    with pytest.raises(UsageError, match=r"--dtype bf16 .*group_norm.*write --dtype f32 or auto"):
        settle("bf16", unable())


def config(dtype: str, model: str = "resnet20", **more: Any) -> SearchConfig:
    return SearchConfig(model=model, dtype=dtype, **more)


@pytest.mark.usefixtures("old_host")
def test_what_is_left_out_is_told_before_any_work(shop: Any) -> None:
    events: list[ProgressEvent] = []
    asked = config("auto", f"{shop.folder}/net.py:build", space=str(shop.folder / "space.yaml"))
    assert survey(asked, Progress(events.append)).dtypes == ("f32",)
    assert any(event.message.startswith("no bf16: ") for event in events)
    found = forecast(asked)
    assert [each.dtype for each in found.types] == ["f32"]
    assert "no bf16: kernels of bf16 need avx512bf16 or amx" in found.text()


@pytest.mark.usefixtures("old_host")
def test_the_command_line_refuses_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in ("search", "tune"):
        assert command([verb, "--model", "resnet20", "--dtype", "bf16"]) == 2
        told = capsys.readouterr().err
        assert "bf16 need avx512bf16 or amx" in told and "--dtype f32" in told
    assert list(tmp_path.iterdir()) == []


@native
def test_a_dry_run_counts_both_types(shop: Any) -> None:
    asked = config("auto", f"{shop.folder}/net.py:build", space=str(shop.folder / "space.yaml"))
    both = forecast(asked)
    f32, bf16 = both.types
    assert (f32.dtype, bf16.dtype) == ("f32", "bf16")
    assert both.to_time == f32.to_time + bf16.to_time > max(f32.to_time, bf16.to_time)
    assert both.fastest_ms == min(f32.fastest_ms, bf16.fastest_ms)
    # Which is the larger is up to peaks that are measured here, now, beside whatever else runs.
    assert both.dense_ms == f32.dense_ms and bf16.dense_ms > 0
    assert "latency in f32, by the machine's limits" in both.text()
    assert "latency in bf16, by the machine's limits" in both.text()
    alone = forecast(config("bf16", asked.model, space=asked.space))
    assert [each.dtype for each in alone.types] == ["bf16"]
    assert both.configurations_log10 == pytest.approx(alone.configurations_log10 + math.log10(2))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="f32 or bf16 or f16 or auto"):
        config("f99")


# ------------------------------------------------------------------------------- after tuning


def tuned(dtype: Any, layers: str, **more: Any) -> TuneResult:
    def option(name: str) -> LatencyOption:
        us = float(ord(name))
        return LatencyOption(
            choice=LayerChoice(dtype=dtype), median_us=us, ci_low_us=us, ci_high_us=us, flops_kept=1
        )

    values: dict[str, Any] = {
        "options": {name: (option(name),) for name in layers},
        "considered": 9, "timed": 3, "reused": 4, "beaten": 1,
        "skipped": (Skip(reason="slow", count=2),),
        "failed": (), "rows": (), "unmeasured": {}, "unfinished": (), "seconds": 1.5,
    }  # fmt: skip
    return TuneResult(**(values | more))


def test_types_share_the_time_that_tuning_may_take(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = config("f32", f"{shop.folder}/net.py:build", space=str(shop.folder / "space.yaml"))
    subject = dataclasses.replace(survey(asked, Progress()), arithmetic=BOTH)
    requests: list[TuneRequest] = []

    def tune(request: TuneRequest, *_: Any, **__: Any) -> TuneResult:
        requests.append(request)
        return tuned(request.dtype, "a")

    monkeypatch.setattr(here, "tune", tune)
    both = tables.measure_options(subject, 60e6, Progress())
    assert [option.choice.dtype for option in both.options["a"]] == ["f32", "bf16"]
    assert [request.dtype for request in requests] == ["f32", "bf16"]
    first, second = (request.time_budget_us for request in requests)
    assert first == pytest.approx(30e6, rel=0.1)
    assert second == pytest.approx(60e6, rel=0.1), "the first type took none of its share"
    far, near = (request.policy.reuse_bytes for request in requests)
    assert far == 2 * near, "weights of bf16 are half as large"
    tables.measure_options(subject, None, Progress())
    assert [request.time_budget_us for request in requests[2:]] == [None, None]


def test_results_of_two_types_add_up() -> None:
    f32, bf16 = (
        tuned("f32", "ab"),
        tuned("bf16", "ab", unmeasured={"c": "no kernel"}, unfinished=("a",)),
    )
    assert combined({"f32": f32}) is f32
    both = combined({"f32": f32, "bf16": bf16})
    assert both.considered == both.timed + both.reused + sum(skip.count for skip in both.skipped) == 18
    assert [option.choice.dtype for option in both.options["a"]] == ["f32", "bf16"]
    assert both.unmeasured == {"c": "in bf16: no kernel"}
    assert both.unfinished == ("a",)


def test_a_type_that_a_layer_lacks_is_left_out_with_the_reason() -> None:
    both = combined({"f32": tuned("f32", "ab"), "bf16": tuned("bf16", "ab")})
    assert measured_arithmetic(BOTH, both) == BOTH
    lacking = combined(
        {"f32": tuned("f32", "ab"), "bf16": tuned("bf16", "a", unmeasured={"b": "it crashed"})}
    )
    found = measured_arithmetic(BOTH, lacking)
    assert found.dtypes == ("f32",)
    assert found.why_not == (("bf16", "layer b could not be measured in bf16: it crashed"),)


def test_a_layer_that_only_the_other_type_has_leaves_both_in() -> None:
    odd = combined({"f32": tuned("f32", "a"), "bf16": tuned("bf16", "ab")})
    assert measured_arithmetic(BOTH, odd) == BOTH
    assert dataclasses.replace(BOTH).without("bf16", "why").dtypes == ("f32",)
