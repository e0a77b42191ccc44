"""Rates, sums of layers, the table, the picture and the JSON, from made-up figures."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
from made_up import comparison, result

from autosparse import hardware
from autosparse.compare import picture, rates, table
from autosparse.compare.layer_sums import add_up
from autosparse.compare.records import (
    SCHEMA,
    Comparison,
    Elsewhere,
    LayerTime,
    Memory,
    Ratio,
    Refusal,
)
from autosparse.engine import LayerReport
from autosparse.measuring.conditions import Conditions
from autosparse.measuring.states import HostState
from autosparse.records import LayerShape
from autosparse.report import words
from autosparse.sessions.in_turn import Circumstances

SHAPE = LayerShape(
    op="conv2d", batch_size=1, in_channels=64, out_channels=32, in_height=10, in_width=10
)
CPU = dataclasses.replace(
    hardware.describe().cpu,
    cores_usable=4,
    f32_gflops_core=100.0,
    f32_gflops_all=360.0,
    bf16_gflops_core=None,
    bf16_gflops_all=None,
)


def report(name: str, sparsity: float, shape: LayerShape | None = SHAPE) -> LayerReport:
    pattern = "1x16" if sparsity else "dense"
    return LayerReport(name=name, shape=shape, pattern=pattern, sparsity=sparsity, kernel="k", why="")


def time(name: str, inside_us: float, alone_us: float | None) -> LayerTime:
    return LayerTime(
        name=name, shape="", pattern="dense", sparsity=0, kernel="k",
        inside_us=inside_us, alone_us=alone_us,
    )  # fmt: skip


def test_kept_operations_are_those_of_the_stored_blocks() -> None:
    layers = (report("a", 0.75), report("b", 0.0), report("c", 0.5, None))
    assert rates.kept_flops(layers) == round(1.25 * SHAPE.flops)


def test_the_table_shows_both_states_of_the_host() -> None:
    def elsewhere(ms: float) -> dict[str, Elsewhere]:
        latency = dataclasses.replace(result("x", "f32", ms).latency, state="shared")
        ratio = Ratio(over="peer", median=3.0, ci_low=2.9, ci_high=3.1)
        return {"shared": Elsewhere(latency=latency, ratios={"f32": ratio})}

    found = comparison(
        result("ours", "f32", 7.0, elsewhere=elsewhere(4.2)),
        result("peer", "f32", 17.0, engine="odd", elsewhere=elsewhere(16.3)),
    )
    session = dataclasses.replace(
        found.sessions[0],
        circumstances=Circumstances(
            state=HostState(label="apart", handover_ns=205.0), too_short={"": 2}, discarded=1
        ),
    )
    assert table.title(found, session).endswith(", processors apart unless a row says otherwise")
    rows = list(table.rows(session))
    assert [row[0] for row in rows] == [
        "peer",
        "ours",
        "peer, processors sharing a cache",
        "ours, processors sharing a cache",
    ]
    assert [row[2] for row in rows] == ["17.000", "7.000", "16.300", "4.200"]
    assert rows[3][4] == "3.00 (2.90-3.10) peer"
    assert len({len(row) for row in rows} | {len(table.columns(session))}) == 1
    assert any("seen for 2 rounds only" in line for line in table.remarks(session))
    whole = dataclasses.replace(found, sessions=(session,))
    assert Comparison.from_json(whole.to_json()) == whole


def test_a_busy_host_is_told_beside_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOSPARSE_BUSY_HOST")
    busy = Circumstances(conditions=Conditions(stolen_share=0.2))
    session = dataclasses.replace(comparison(result("a", "f32", 1.0)).sessions[0], circumstances=busy)
    told = [line for line in table.remarks(session) if "busy" in line]
    assert told == [
        "the host was busy with something else: the hypervisor took 20% of all processors' time; "
        "figures suffered"
    ]


def test_rates_and_share_of_the_limit() -> None:
    found = rates.rates(25_000_000, 100_000_000, 1_000.0, 100.0)
    assert (found.kept_gflops, found.dense_gflops, found.limit_share) == (25.0, 100.0, 0.25)
    assert rates.rates(25_000_000, 100_000_000, 1_000.0, None).limit_share is None


@pytest.mark.parametrize(
    ("dtype", "threads", "limit"),
    [("f32", 1, 100.0), ("f32", 3, 300.0), ("f32", 4, 360.0), ("bf16", 1, None)],
)
def test_the_limit_is_that_of_threads_and_type(dtype: str, threads: int, limit: float | None) -> None:
    assert rates.limit_gflops(CPU, dtype, threads) == limit


def test_rows_and_overheads_predict_the_whole() -> None:
    layers = (time("a", 50.0, 40.0), time("b", 30.0, 35.0), time("grouped", 9.0, None))
    operators = {"a": 50.0, "b": 30.0, "grouped": 9.0, "pool": 6.0}
    total = add_up(layers, operators, 100.0, 120.0)
    assert total is not None
    assert (total.tuned_us, total.inside_us) == (75.0, 80.0)
    assert total.overheads_us == {"grouped": 9.0, "pool": 6.0}
    assert (total.predicted_us, total.ratio, total.untuned) == (90.0, 0.9, ("grouped",))
    words = table.layer_sum(total)
    assert "= 90 us predicted, 90.0 % of the whole by itself (100 us; 120 in turn" in words


def test_a_whole_far_beyond_its_operators_tells_of_a_busy_processor() -> None:
    operators = {"a": 50.0}
    quiet = add_up((time("a", 50.0, 45.0),), operators, 54.0, 55.0)
    busy = add_up((time("a", 50.0, 45.0),), operators, 54.0, 150.0)
    said = [
        list(table.remarks(comparison(result("x", "f32", 1.0, layer_sum=total)).sessions[0]))
        for total in (quiet, busy)
    ]
    assert len(said[1]) == len(said[0]) + 1
    assert said[1][1].startswith("x: the whole took 3.0 times the sum of its operators")


def test_no_rows_predict_nothing() -> None:
    assert add_up((time("a", 50.0, None),), {"a": 50.0}, 100.0, 100.0) is None


def test_the_comparison_travels_as_json() -> None:
    found = comparison(
        result("other", "f32", 2.0, engine="other"),
        result("autosparse 75 %", "f32", 1.0, layers=(time("a", 50.0, None),)),
        refused=(Refusal(name="x", kind="absent", reason="not installed"),),
    )
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert Comparison.from_json(values) == found
    assert values["schema"] == SCHEMA
    assert {"asked", "hardware", "versions", "sessions", "absent", "input_shape"} <= set(values)
    one = values["sessions"][0]["results"][1]
    assert len(one["turns_us"]) == 6
    assert {"error", "tolerance", "latency", "ratios", "rates", "memory", "layer_sum"} <= set(one)


@pytest.mark.smoke
def test_the_table_has_every_figure_slowest_first() -> None:
    unknown = Memory(size_bytes=None, how="not measured")
    found = comparison(
        result("autosparse 75 %", "f32", 1.0, weight_bytes=2 << 20, weight_share=0.283),
        result("other", "f32", 2.0, engine="other", memory=unknown, note="careful"),
        refused=(Refusal(name="x", kind="wrong", reason="it is off", ours=True),),
    )
    [session] = found.sessions
    rows = list(table.rows(session))
    assert [row[0] for row in rows] == ["other", "autosparse 75 %"]
    assert all(len(row) == len(table.columns(session)) for row in rows)
    assert rows[1][2:5] == ("1.000", "0.980-1.030", "2.00 (1.90-2.10)")
    assert rows[1][5:] == ("50.0", "100.0", "25 %", "2 MiB (28 % of dense)", "3 MiB")
    assert rows[0][-1] is None
    remarks = list(table.remarks(session))
    assert remarks[:2] == ["x: not timed, wrong: it is off", "other: careful"]
    assert remarks[-1] == "the host disturbed 1 of 6 rounds"
    assert found.failed == session.refused
    worse = dataclasses.replace(session, disturbed=(0, 1, 2))
    assert list(table.remarks(worse))[-1].endswith("most figures suffered, run it again")


def test_more_threads_are_set_against_fewest() -> None:
    found = comparison(result("autosparse 75 %", "f32", 1.0), result("other", "f32", 2.0, engine="o"))
    [one] = found.sessions
    faster = result("autosparse 75 %", "f32", 0.5)
    two = dataclasses.replace(one, threads=2, results=(faster, result("new", "f32", 1.0)))
    both = dataclasses.replace(found, sessions=(two, one))
    assert list(table.scaling(both)) == [
        "autosparse 75 %: 2.00 times as fast on 2 threads as on 1 (medians of two sessions)"
    ]
    assert not list(table.scaling(found))


def test_weights_are_set_against_dense_ones_of_the_same_type() -> None:
    assert rates.weight_share(200, 100, "f32") == 0.5
    assert rates.weight_share(200, 100, "bf16") == 1.0


FOUND = comparison(
    result("autosparse 75 %", "f32", 1.0),
    result("other", "f32", 2.0, engine="other"),
    result("other bf16", "bf16", 0.8, engine="other"),
)


def test_the_figure_shows_everybody_with_ratios() -> None:
    drawn = picture.figure(FOUND)
    bars = [trace for trace in drawn.data if trace.type == "bar"]
    assert [trace.name for trace in bars] == [
        "other engines, f32",
        "other engines, bf16",
        "autosparse, f32",
    ]
    [labels] = [trace for trace in drawn.data if trace.type == "scatter"]
    assert f"  1.00 ms  2.00{words.TIMES}" in labels.text
    assert "&lt;b&gt;net" in drawn.layout.title.text
    assert list(drawn.layout.yaxis.categoryarray) == ["other bf16", "autosparse 75 %", "other"]


def test_without_kaleido_there_is_a_page_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*arguments: object, **rest: object) -> bytes:
        raise ValueError("Image export requires the kaleido package")

    monkeypatch.setattr(picture.go.Figure, "to_image", absent)
    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    files, why = picture.write(FOUND, tmp_path)
    assert [path.name for path in files] == ["bench.html"]
    assert why.endswith("run: pip install kaleido")
    assert "autosparse 75" in files[0].read_text()


def test_without_a_browser_the_reason_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_browser(*arguments: object, **rest: object) -> bytes:
        raise RuntimeError("no Chrome here\nat all")

    monkeypatch.setattr(picture.go.Figure, "to_image", no_browser)
    monkeypatch.setattr(picture, "find_spec", lambda name: object())
    files, why = picture.write(FOUND, tmp_path)
    assert len(files) == 1 and why.endswith("but got: no Chrome here")


@pytest.mark.skipif(importlib.util.find_spec("kaleido") is None, reason="kaleido is not installed")
def test_pictures_are_written_where_kaleido_and_a_browser_are(tmp_path: Path) -> None:
    files, why = picture.write(FOUND, tmp_path)
    if why:
        pytest.skip(why)
    assert [path.name for path in files] == ["bench.html", "bench.svg", "bench.png"]
    assert files[1].read_text().startswith("<svg")
    assert files[2].read_bytes().startswith(b"\x89PNG")
