"""The main job in bf16, and in whichever type is better: every stage for real."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autosparse
from autosparse import models
from autosparse.graph import Emulation, fuse, trace
from autosparse.kernels.spec import why_not_native
from autosparse.plans.plan import Plan

pytestmark = pytest.mark.skipif(
    bool(why_not_native("bf16")), reason=why_not_native("bf16") or "this CPU computes in bf16"
)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_both_types_are_tuned_searched_and_measured_together(finished: Any) -> None:
    document, run = finished.document(), finished.latest
    assert document["dtypes"] == ["f32", "bf16"] and document["no_dtypes"] == {}
    assert {row["dtype"] for row in rows_of(run / "latency_table.csv")} == {"f32", "bf16"}
    assert {row["dtype"] for row in rows_of(run / "trials.csv")} == {"f32", "bf16"}
    sessions = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
    figures = {row["figure"]["name"]: row["figure"]["latency"]["dtype"] for row in sessions}
    assert figures["dense"] == figures["torch"] == "f32" and figures["dense-bf16"] == "bf16"
    plans = [(Plan.from_json(row["plan"]), row["figure"]) for row in sessions if row["plan"]]
    assert {plan.dtype for plan, _ in plans} == {"f32", "bf16"}
    for plan, figure in plans:
        assert figure["latency"]["dtype"] == plan.dtype
        assert all(layer["kernel"].startswith(plan.dtype) for layer in figure["layers"])
    assert set(document["dense"]["peers"]) == {"torch", "autosparse bf16"}
    assert document["dense"]["latency"]["dtype"] == "f32"
    assert set(document["dense"]["accuracies"]) == {"f32", "bf16"}


def test_a_configuration_says_its_type_and_that_of_its_accuracy(finished: Any) -> None:
    document = finished.document()
    for config in document["configs"]:
        plan = Plan.load(finished.latest / config["plan"])
        assert config["dtype"] == plan.dtype == config["accuracy_dtype"]
        assert config["accuracy_through"] == ("torch" if plan.dtype == "f32" else "emulation")
        assert {layer["dtype"] for layer in config["layers"]} == {plan.dtype}
    for row, config in zip(rows_of(finished.latest / "pareto.csv"), document["configs"], strict=True):
        assert row["dtype"] == row["accuracy_dtype"] == config["dtype"]
    assert "Arithmetic</dt><dd>f32 or bf16" in (finished.latest / "report.html").read_text()
    chosen = next(c for c in document["configs"] if c["id"] == document["verdict"]["id"])
    assert f"runs in {chosen['dtype']} in " in document["verdict"]["text"]
    shown = finished.verb("runs", "show", str(finished.latest))
    assert shown.returncode == 0 and chosen["dtype"] in shown.stdout


def test_rows_of_a_type_serve_a_search_in_it_alone(trained: Any) -> None:
    document = trained.before
    assert document["tuning"]["timed"] == 0 and document["tuning"]["reused"] > 0
    assert document["dtypes"] == ["bf16"]
    assert document["dense"]["latency"]["dtype"] == "bf16"
    assert {config["dtype"] for config in document["configs"]} == {"bf16"}


def test_further_training_keeps_the_type(trained: Any) -> None:
    after = trained.shop.document()
    assert after["dense"].keys() == trained.before["dense"].keys()
    assert after["dense"]["latency"]["dtype"] == "bf16"
    assert {config["accuracy_dtype"] for config in after["configs"]} == {"bf16"}
    assert {config["accuracy_through"] for config in after["configs"]} == {"emulation"}


def test_the_accuracy_of_a_trained_configuration_is_that_of_the_compiled_model(trained: Any) -> None:
    """The emulation in which it was evaluated computes what the executor does."""
    shop = trained.shop
    configs = [config for config in shop.document()["configs"] if config["weights"]]
    assert configs
    for config in configs:
        plan = Plan.load(shop.latest / config["plan"])
        weights = shop.latest / config["weights"]
        module = models.resolve(f"{shop.folder}/net.py:build", weights=weights).module.eval()
        image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        emulated = Emulation(fuse(trace(module, (image,))))(image)
        with autosparse.compile(module, (image,), dtype=plan.dtype) as compiled:
            assert compiled.dtype == "bf16"
            got = compiled(image)
        assert (got - emulated).abs().max() <= 2**-7 * emulated.abs().max()


def test_a_bf16_configuration_is_exported_in_bf16(trained: Any, tmp_path: Path) -> None:
    file = tmp_path / "net.autosparse"
    done = trained.shop.verb("export", str(trained.shop.latest), "-o", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dtype"] == "bf16"
    loaded = autosparse.load(file)
    with loaded:
        assert loaded.dtype == "bf16"
        assert loaded.manifest.accuracy.dtype == "bf16"
        assert np.isfinite(loaded(np.zeros((1, 3, 96, 96), np.float32))).all()
