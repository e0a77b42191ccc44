"""Configurations of a run as files: artifact, ONNX and state dict, from a run made up for it."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autosparse
from autosparse import hardware, models
from autosparse.cli import run as command
from autosparse.config import SearchConfig
from autosparse.deploy import onnx_file
from autosparse.deploy.state_dict import write_state_dict
from autosparse.engine import compile
from autosparse.errors import MissingDependency, RunError, UsageError
from autosparse.graph import capture_layers
from autosparse.kernels.spec import kernels_for
from autosparse.pipeline.verbs.export import export
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, LayerInfo
from autosparse.run_folders import RunFolder
from autosparse.storage.files import write_json, write_yaml

SHAPE = (3, 32, 32)
MODEL = "resnet20"


@functools.cache
def layers_of_model() -> tuple[LayerInfo, ...]:
    return tuple(capture_layers(models.resolve(MODEL).module, (torch.randn(1, *SHAPE),)))


def planned(block_n: int, dtype: Any = "f32") -> Plan:
    plan = Plan.uniform(MODEL, layers_of_model()[1:], block_n=block_n, sparsity=0.5, dtype=dtype)
    return dataclasses.replace(plan, note=f"made up {block_n}")


def row(plan: Plan, latency_ms: float, accuracy: float, **more: Any) -> dict[str, Any]:
    """Gives a configuration of pareto.json, each layer with the last kernel that can run it."""
    layers = []
    for layer in layers_of_model():
        choice = plan.choice(layer.name)
        assert layer.shape is not None
        able = kernels_for(layer.shape, choice.pattern, plan.dtype)
        layers.append({"name": layer.name, "label": choice.label, "kernel": able[-1].name})
    return {
        "id": plan.id,
        "measured_latency_ms": latency_ms,
        "latency_ci_ms": [latency_ms * 0.9, latency_ms * 1.1],
        "latency_repeats": 42,
        "accuracy": accuracy,
        "accuracy_kind": "full",
        "accuracy_split": "test",
        "accuracy_samples": 1000,
        "sparsity": 0.4,
        "feasible": True,
        "plan": f"configs/{plan.id}.yaml",
        "dtype": plan.dtype,
        "layers": layers,
        **more,
    }


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {"wide": planned(16), "narrow": planned(8), "half": planned(16, "bf16")}


@pytest.fixture
def run(tmp_path: Path, plans: dict[str, Plan], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with two trained configurations, and one that prunes the dense weights."""
    monkeypatch.chdir(tmp_path)
    dense = tmp_path / "dense.safetensors"
    module = models.resolve(MODEL, seed=3).module
    write_state_dict(dense, module, Plan(model=MODEL))
    config = SearchConfig(model=MODEL, weights=dense, input_shape="3x32x32", out=tmp_path / "results")
    folder = RunFolder.create(
        tmp_path / "results",
        model=MODEL,
        hardware_id=hardware.hardware_id(),
        config_yaml=config.to_yaml(),
        fingerprint="f",
    )
    with folder:
        rows = [
            trained(folder.path, plans["wide"], 2.0, 0.8, seed=1),
            trained(folder.path, plans["half"], 1.0, 0.7, seed=2),
            row(plans["narrow"], 3.0, 0.9, accuracy_kind="one-shot", accuracy_split="validation"),
        ]
        for plan in plans.values():
            write_yaml(folder.path / f"configs/{plan.id}.yaml", json.loads(json.dumps(plan.to_json())))
        write_json(folder.path / "pareto.json", document(rows, verdict=plans["wide"].id))
    return folder.path


def trained(run: Path, plan: Plan, latency_ms: float, accuracy: float, *, seed: int) -> dict[str, Any]:
    module = models.resolve(MODEL, seed=seed).module
    autosparse.sparsify(module, plan)
    weights = f"train/{plan.id}/weights.safetensors"
    write_state_dict(run / weights, module, plan)
    return row(plan, latency_ms, accuracy, weights=weights)


def document(rows: list[dict[str, Any]], verdict: str | None) -> dict[str, Any]:
    return {
        "schema": 1,
        "model": MODEL,
        "hardware_id": hardware.hardware_id(),
        "threads": 1,
        "batch_size": 1,
        "dtypes": ["f32", "bf16"],
        "input_shape": list(SHAPE),
        "dense": {},
        "configs": rows,
        "verdict": {"id": verdict, "text": ""},
    }


def reference(run: Path, plan: Plan, weights: Path | None) -> torch.nn.Module:
    module = models.resolve(MODEL, weights=weights or run.parents[1] / "dense.safetensors").module
    if weights is None:
        autosparse.sparsify(module, plan)
    return module


@pytest.mark.parametrize("name", ["wide", "half", "narrow"])
def test_an_artifact_runs_the_configuration_with_the_kernels_that_were_measured(
    run: Path, plans: dict[str, Plan], name: str, tmp_path: Path
) -> None:
    plan, path = plans[name], tmp_path / "model.autosparse"
    outcome = export(run, plan.id, target=path)
    assert (outcome.id, outcome.to, outcome.notes) == (plan.id, "artifact", ())
    config = next(c for c in read(run)["configs"] if c["id"] == plan.id)
    weights = None if name == "narrow" else run / config["weights"]
    image = torch.randn(1, *SHAPE)
    with autosparse.load(path, threads=1) as loaded:
        assert {layer.name: layer.kernel for layer in loaded.layers} == {
            layer["name"]: layer["kernel"] for layer in config["layers"]
        }
        manifest = loaded.manifest
        bound = {
            layer["name"]: dataclasses.replace(plan.choice(layer["name"]), kernel=layer["kernel"],
                                               dtype=plan.dtype)
            for layer in config["layers"]
        }  # fmt: skip
        module = reference(run, plan, weights)
        with compile(module, (image,), plan=dataclasses.replace(plan, layers=bound), threads=1) as ours:
            assert torch.equal(loaded(image), ours(image))
    assert manifest.accuracy == Accuracy(
        value=config["accuracy"], kind=config["accuracy_kind"], split=config["accuracy_split"],
        samples=1000,
    )  # fmt: skip
    assert manifest.latency is not None
    assert (manifest.latency.median_ms, manifest.latency.repeats) == (config["measured_latency_ms"], 42)
    assert manifest.latency_hardware_id == hardware.hardware_id()
    assert manifest.provenance.run == run.name
    assert manifest.plan is not None and Plan.from_json(manifest.plan) == plan
    assert manifest.dtype == plan.dtype


def read(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "pareto.json").read_text()))


def test_the_verdict_decides_what_is_exported_and_names_it(run: Path, plans: dict[str, Plan]) -> None:
    chosen = plans["wide"].id
    assert export(run).path == f"resnet20-{chosen}.autosparse"
    with pytest.raises(UsageError, match="must not exist"):
        export(run)
    assert export(run, overwrite=True).id == chosen
    assert export(run, "fastest").id == plans["half"].id
    assert export(run, "most-accurate").id == plans["narrow"].id
    write_json(run / "pareto.json", {**read(run), "verdict": {"id": None}})
    assert export(run, overwrite=True).id in {plan.id for plan in plans.values()}
    with pytest.raises(UsageError, match="must be one of knee"):
        export(run, "nothing")


def test_a_run_of_another_host_is_exported_with_a_note(run: Path, plans: dict[str, Plan]) -> None:
    write_json(run / "pareto.json", {**read(run), "hardware_id": "0123456789ab"})
    outcome = export(run)
    assert "the run is of another host (0123456789ab)" in outcome.notes[0]
    with autosparse.load(outcome.path, threads=1) as loaded:
        assert loaded.manifest.latency_hardware_id == "0123456789ab"
        assert loaded.manifest.provenance.hardware_id == hardware.hardware_id()


def test_missing_weights_are_named_with_the_remedy(run: Path, plans: dict[str, Plan]) -> None:
    config = read(run)["configs"][0]
    (run / config["weights"]).unlink()
    with pytest.raises(
        RunError, match=f"is missing; train it again: autosparse train .* {config['id']}"
    ):
        export(run)
    (run.parents[1] / "dense.safetensors").unlink()
    with pytest.raises(RunError, match=r"dense\.safetensors is missing"):
        export(run, plans["narrow"].id)


def test_a_state_dict_loads_strictly_and_holds_the_plan(
    run: Path, plans: dict[str, Plan], tmp_path: Path
) -> None:
    import safetensors.torch

    for name in ("wide", "narrow"):
        outcome = export(run, plans[name].id, to="torch")
        assert outcome.path.endswith(".safetensors")
        module = models.resolve(MODEL).module
        module.load_state_dict(safetensors.torch.load_file(outcome.path), strict=True)
        plans[name].check(capture_layers(module, (torch.randn(1, *SHAPE),)))
        # Refuses weights without the plan's zeros.
        compile(module, (torch.randn(1, *SHAPE),), plan=plans[name], threads=1).close()
        with safetensors.safe_open(outcome.path, framework="numpy") as opened:
            assert Plan.from_json(json.loads(opened.metadata()["plan"])) == plans[name]
    assert export(run, plans["half"].id, to="torch").notes == (
        "weights are float32; the configuration was measured in bf16",
    )


@pytest.mark.parametrize("name", ["m.pth", "m.pt"])
def test_the_ending_of_a_state_dict_says_its_format(
    run: Path, plans: dict[str, Plan], name: str
) -> None:
    plan = plans["wide"]
    assert export(run, plan.id, to="torch", target=Path(name)).path == name
    state = torch.load(name, weights_only=True)
    models.resolve(MODEL).module.load_state_dict(state, strict=True)
    module = models.resolve(MODEL, weights=Path(name)).module  # as --weights takes it
    plan.check(capture_layers(module, (torch.randn(1, *SHAPE),)))
    compile(module, (torch.randn(1, *SHAPE),), plan=plan, threads=1).close()


@pytest.mark.parametrize(
    ("to", "name", "remedy"),
    [
        ("torch", "m.onnx", "--to onnx"),
        ("torch", "m.bin", "m.safetensors"),
        ("torch", "model", "model.safetensors"),
        ("onnx", "m.pth", "--to torch"),
        ("artifact", "m.onnx", "--to onnx"),
        ("artifact", "m.safetensors", "--to torch"),
        ("artifact", "m.SAFETENSORS", "m.autosparse"),
    ],
)
def test_an_ending_of_another_kind_is_refused_before_any_work(
    run: Path, to: Any, name: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["export", str(run), "--to", to, "-o", name]) == 2
    said = capsys.readouterr().err
    assert "must end in" in said and remedy in said
    assert not Path(name).exists()


needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript or onnxruntime is not installed",
)


@needs_onnx
def test_an_onnx_file_keeps_the_zeros_and_agrees_with_the_model(
    run: Path, plans: dict[str, Plan]
) -> None:
    import onnxruntime

    plan = plans["wide"]
    outcome = export(run, plan.id, to="onnx")
    assert "agrees with the model in ONNX Runtime" in outcome.notes[0]
    session = onnxruntime.InferenceSession(outcome.path, providers=["CPUExecutionProvider"])
    image = torch.randn(1, *SHAPE)
    [got] = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    module = reference(run, plan, run / f"train/{plan.id}/weights.safetensors")
    with torch.inference_mode():
        wanted = module(image).numpy()
    assert np.abs(wanted - got).max() <= 1e-4 * np.abs(wanted).max()


@needs_onnx
def test_an_onnx_file_that_computes_something_else_is_not_left_behind(
    run: Path, plans: dict[str, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    with pytest.raises(autosparse.AutosparseError, match="nothing was written"):
        export(run, to="onnx")
    assert not list(Path.cwd().glob("*.onnx"))


def test_absent_libraries_are_named_before_any_work(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"onnx and onnxscript.*autosparse\[onnx\]"):
        export(run, to="onnx")


def test_the_verb_prints_what_it_wrote_and_how_to_use_it(
    run: Path, plans: dict[str, Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", str(run), "-o", "m.autosparse", "--id", plans["wide"].id]
    assert command(line) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"m.autosparse: resnet20 {plans['wide'].id}, ")
    assert "accuracy 80.00 % (full, test), 2.000 ms on 1 threads" in said
    assert 'autosparse.load("m.autosparse")' in said
    assert command(line) == 2
    assert "must not exist" in capsys.readouterr().err
    assert command([*line, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == Path("m.autosparse").stat().st_size
    assert command(["export", "latest", "--to", "tflite"]) == 2
    assert "--to must be" in capsys.readouterr().err
    assert command(["export", "nothing"]) == 2


def test_unfinished_runs_are_refused(run: Path) -> None:
    (run / "pareto.json").unlink()
    with pytest.raises(RunError, match="unfinished"):
        export(run)
