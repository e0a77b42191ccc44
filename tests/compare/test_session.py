from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_up import misshapen, peer, refusing, right, running, slightly_off, unsupported

import autosparse
from autosparse import graph
from autosparse.compare import session as sessions
from autosparse.compare.own_engine import OwnRunning
from autosparse.compare.records import OURS, Contestant, Memory, Own, Session, Zeros
from autosparse.compare.session import SessionRequest, fastest_rivals, run, run_session
from autosparse.compare.slim_task import kept_flops, slim_task
from autosparse.compare.task import capture
from autosparse.engine import compile
from autosparse.errors import Stopped
from autosparse.plans.plan import Plan
from autosparse.progress import Progress, ProgressEvent
from autosparse.records import LayerChoice, onexn

Make = Callable[..., SessionRequest]


def with_peer(monkeypatch: pytest.MonkeyPatch, **variants: Any) -> None:
    monkeypatch.setattr(sessions, "find", lambda name: peer(**variants))


def sparse(sparsity: float = 0.5, kernel: str | None = None) -> Own:
    choice = LayerChoice(pattern=onexn(8), sparsity=sparsity, kernel=kernel)
    plan = Plan(model="net", layers={"middle": choice})
    zeros = Zeros(name=f"{100 * sparsity:g} %", plan=plan, random=True)
    return Own(name=f"{OURS} {zeros.name}", dtype="f32", plan=plan, zeros=zeros)


@pytest.mark.smoke
def test_nobody_is_timed_before_the_output_is_known_to_be_right(
    monkeypatch: pytest.MonkeyPatch, request_for: Make
) -> None:
    with_peer(
        monkeypatch,
        good=("f32", right),
        off=("f32", slightly_off),
        off_bf16=("bf16", slightly_off),
        misshapen=("f32", misshapen),
        refusing=("f32", refusing),
        unsupported=("bf16", unsupported),
    )
    found = run_session(request_for(peers=("odd",)))
    # An error of 1e-3 is within what bf16 explains, and not within what float32 does.
    assert [result.contestant.name for result in found.results] == ["good", "off_bf16"]
    refused = {refusal.name: refusal for refusal in found.refused}
    assert refused["off"].kind == "wrong"
    assert "off by 0.001" in refused["off"].reason
    assert refused["misshapen"].kind == "wrong"
    assert (refused["refusing"].kind, refused["refusing"].reason) == (
        "failed",
        "ValueError: operator Foo is not known",
    )
    assert refused["unsupported"].kind == "absent"
    assert not any(refusal.ours for refusal in found.refused)


def test_a_session_without_anybody_left_says_so(
    monkeypatch: pytest.MonkeyPatch, request_for: Make
) -> None:
    with_peer(monkeypatch, off=("f32", slightly_off))
    found = run_session(request_for(peers=("odd",)))
    assert (found.results, found.rounds, len(found.refused)) == ((), 0, 1)


def test_our_own_wrong_output_is_refused_and_marked(
    monkeypatch: pytest.MonkeyPatch, request_for: Make
) -> None:
    model: Any = SimpleNamespace(dtype="f32")
    zeros = running(np.zeros((1, 5), np.float32))
    wrong = OwnRunning(zeros, model, Memory(size_bytes=1, how=""))
    monkeypatch.setattr(sessions, "open_own", lambda own, task, database, **how: wrong)
    found = run_session(request_for(own=(sparse(),)))
    assert [(r.name, r.kind, r.ours) for r in found.refused] == [(f"{OURS} 50 %", "wrong", True)]


def test_a_plan_that_our_engine_refuses_is_named_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, request_for: Make
) -> None:
    with_peer(monkeypatch, good=("f32", right))
    found = run_session(request_for(peers=("odd",), own=(sparse(kernel="no_such_kernel"),)))
    assert [result.contestant.name for result in found.results] == ["good"]
    [refusal] = found.refused
    assert (refusal.kind, refusal.ours) == ("failed", True)
    assert "no_such_kernel" in refusal.reason


def test_ours_is_timed_with_layers_rates_and_memory(
    monkeypatch: pytest.MonkeyPatch, request_for: Make
) -> None:
    with_peer(monkeypatch, good=("f32", right), good_bf16=("bf16", right))
    dense = Own(name=f"{OURS} dense", dtype="f32")
    found = run_session(request_for(peers=("odd",), own=(dense, sparse()), layers_alone=True))
    peer_result, _, ours, pruned = found.results
    assert peer_result.layers == () and peer_result.weight_bytes is None
    assert [layer.name for layer in pruned.layers] == ["stem", "middle", "fc"]
    assert (pruned.layers[1].pattern, pruned.layers[1].sparsity) == ("1x8", 0.5)
    assert all(layer.inside_us > 0 and (layer.alone_us or 0) > 0 for layer in pruned.layers)
    assert pruned.layer_sum is not None and not pruned.layer_sum.untuned
    assert "(borders)" in pruned.layer_sum.overheads_us
    assert pruned.contestant.zeros == "50 %"
    assert 0 < pruned.weight_bytes < ours.weight_bytes < ours.memory.size_bytes
    assert 0 < pruned.error < 1e-4
    assert pruned.weight_share == pruned.weight_bytes / (4 * 1_448)
    assert peer_result.weight_share is None
    kept, dense_rate = pruned.rates.kept_gflops, pruned.rates.dense_gflops
    assert kept is not None and kept < dense_rate * 2
    assert pruned.ratios["f32"].over == "good" and pruned.ratios["bf16"].over == "good_bf16"
    assert peer_result.ratios["f32"].median == 1.0
    assert len(pruned.turns_us) == found.rounds >= 6


def test_layers_are_timed_alone_only_when_asked(request_for: Make) -> None:
    [result] = run_session(request_for(own=(sparse(),))).results
    assert result.layer_sum is None
    assert [layer.name for layer in result.layers] == ["stem", "middle", "fc"]
    assert all(layer.inside_us > 0 and layer.alone_us is None for layer in result.layers)


def test_a_stop_ends_the_timing_of_layers(request_for: Make) -> None:
    stopped: list[str] = []

    def sink(event: ProgressEvent) -> None:
        if event.step == "time layers" and event.kind == "advance":
            stopped.append(event.step)

    progress = Progress(sink, should_stop=lambda: bool(stopped))
    with pytest.raises(Stopped):
        run_session(request_for(own=(sparse(),), layers_alone=True), progress)
    assert len(stopped) == 1


def test_peers_run_the_models_with_zeros_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, request_for: Make
) -> None:
    with_peer(monkeypatch, good=("f32", right))
    asked = request_for(peers=("odd",), own=(sparse(0.5), sparse(0.75)))
    assert [r.contestant.name for r in run_session(asked).results[:2]] == ["good", f"{OURS} 50 %"]
    masked = request_for(peers=("odd",), own=(sparse(0.5), sparse(0.75)), peers_masked=True)
    found = run_session(masked)
    names = [result.contestant.name for result in found.results]
    assert names[:3] == ["good", "good, 50 % zeros", "good, 75 % zeros"]
    # They are no rivals: ratios are over what runs the dense model.
    assert found.results[-1].ratios["f32"].over == "good"
    assert not found.refused


def test_a_session_travels_as_plain_values(monkeypatch: pytest.MonkeyPatch, request_for: Make) -> None:
    with_peer(monkeypatch, good=("f32", right))
    request = request_for(peers=("odd",), own=(sparse(),))
    assert SessionRequest.from_json(request.to_json()) == request
    told = run(request.to_json(), Progress())
    assert Session.from_json(told).to_json() == told


def test_without_peers_our_dense_model_is_the_rival() -> None:
    def who(name: str, engine: str, dtype: str = "f32", zeros: str = "") -> Contestant:
        return Contestant(name=name, engine=engine, dtype=dtype, zeros=zeros)

    times = {"a": 3.0, "b": 2.0, "masked": 1.0, "bf": 1.5, "dense": 2.5, "sparse": 0.5}
    timings: Any = {name: SimpleNamespace(median_us=us) for name, us in times.items()}
    ours = [who("dense", OURS), who("sparse", OURS, zeros="75 %")]
    theirs = [who("a", "x"), who("b", "y"), who("masked", "y", zeros="75 %"), who("bf", "y", "bf16")]
    assert fastest_rivals([*theirs, *ours], timings) == {"f32": "b", "bf16": "bf"}
    assert fastest_rivals(ours, timings) == {"f32": "dense"}
    assert fastest_rivals(ours[1:], timings) == {}


def loaded(request: SessionRequest, path: str, threads: int) -> Any:
    """Gives what an exported file gives: something to call and to time, here compiled on the spot."""
    task = request.task()
    return compile(task.module(), (task.tensor(),), threads=threads)


def test_an_exported_file_takes_part(monkeypatch: pytest.MonkeyPatch, request_for: Make) -> None:
    own = Own(name=f"{OURS} net.autosparse", dtype="f32", artifact="net.autosparse")
    request = request_for(own=(own,))
    load = functools.partial(loaded, request)
    monkeypatch.setattr(autosparse, "load", load, raising=False)
    found = run_session(request)
    assert not found.refused
    [result] = found.results
    assert result.weight_bytes and result.memory.size_bytes
    assert [layer.name for layer in result.layers] == ["stem", "middle", "fc"]


@pytest.mark.skipif(
    not hasattr(autosparse, "load"), reason="this version has no autosparse.load to load exports with"
)
def test_a_file_that_was_really_exported_takes_part(request_for: Make, tmp_path: Path) -> None:
    file = tmp_path / "net.autosparse"
    task = request_for().task()
    with compile(task.module(), (task.tensor(),), threads=1, exportable=True) as compiled:
        compiled.save(file)
    found = run_session(request_for(own=(Own(name="export", dtype="f32", artifact=str(file)),)))
    assert not found.refused
    assert [layer.name for layer in found.results[0].layers] == ["stem", "middle", "fc"]


def test_an_exported_file_of_other_weights_is_refused(
    monkeypatch: pytest.MonkeyPatch, request_for: Make
) -> None:
    own = Own(name=f"{OURS} net.autosparse", dtype="f32", artifact="net.autosparse")
    request = request_for(own=(own,))
    other = replace(request, subject=replace(request.subject, seed=7))
    monkeypatch.setattr(autosparse, "load", functools.partial(loaded, other), raising=False)
    [refusal] = run_session(request).refused
    assert (refusal.kind, refusal.ours) == ("wrong", True)


def test_a_version_that_cannot_load_exports_says_so(
    monkeypatch: pytest.MonkeyPatch, request_for: Make
) -> None:
    monkeypatch.delattr(autosparse, "load", raising=False)
    monkeypatch.delitem(autosparse._HOME, "load", raising=False)
    own = Own(name="x", dtype="f32", artifact="net.autosparse")
    [refusal] = run_session(request_for(own=(own,))).refused
    assert refusal.kind == "failed" and refusal.ours


def test_a_channel_pruned_model_stands_for_one_with_zeros(request_for: Make) -> None:
    own = sparse()
    found = run_session(request_for(peers=("channel-pruned",), own=(own,)))
    others = [each for each in found.results if not each.contestant.is_ours]
    assert others and not [each for each in found.refused if each.kind != "absent"]
    assert own.zeros is not None
    task = slim_task(request_for().task(own.zeros))
    layers = capture(task.subject, task.shape)
    allowed = kept_flops(own.zeros, layers)
    dense = sum(layer.shape.flops for layer in layers if layer.shape)
    assert allowed == dense - layers[1].shape.flops // 2
    module = task.module()
    real = sum(x.shape.flops for x in graph.capture_layers(module, (task.tensor(),)) if x.shape)
    assert 0.7 * allowed < real == task.flops <= allowed
    for result in others:
        assert result.contestant.name.endswith(" channel-pruned, as 50 %")
        us = 1e3 * result.latency.median_ms
        assert result.rates.kept_gflops == pytest.approx(task.flops / us / 1e3)


def test_no_channel_pruned_model_stands_for_none(request_for: Make) -> None:
    found = run_session(request_for(peers=("channel-pruned",), own=(Own(name=OURS, dtype="f32"),)))
    assert [each.contestant.is_ours for each in found.results] == [True]
