"""The main job on a small network: every stage for real, through the command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autosparse
from autosparse import models
from autosparse.plans.plan import Plan
from autosparse.records import kept_blocks
from autosparse.train.recipes import Recipe


@pytest.mark.smoke
def test_every_promised_file_is_there(finished: Any) -> None:
    names = {str(path.relative_to(finished.latest)) for path in finished.latest.rglob("*")}
    promised = {
        "config.yaml", "hardware.json", "latency_table.csv", "trials.csv", "pareto.csv",
        "pareto.json", "report.html", "logs/events.jsonl",
    }  # fmt: skip
    assert promised <= names


def test_every_event_of_a_run_says_where_it_was_from_the_first_on(finished: Any) -> None:
    lines = (finished.latest / "logs" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["job"] for event in events} == {f"search {finished.latest.name}"}
    stages = list(dict.fromkeys(event["stage"] for event in events))
    assert stages[:2] == ["profile", "survey"]
    assert [stage for stage in stages if stage not in ("profile", "survey", "start")] == [
        "baseline", "reconstruct layers", "tune", "measure dense", "sensitivity", "search", "measure",
        "train", "final measurement", "report",
    ]  # fmt: skip
    whole = [event for event in events if event.get("step") == "compile whole models"]
    assert {event["stage"] for event in whole} == {"measure dense", "measure", "final measurement"}


@pytest.mark.smoke
def test_pareto_json_holds_what_it_must(finished: Any) -> None:
    document = finished.document()
    assert {"schema", "model", "hardware_id", "threads", "batch_size", "dtypes", "budget_ms"} <= set(
        document
    )
    assert document["dense"]["latency"]["median_ms"] > 0
    assert document["dense"]["accuracy"]["split"] == "test"
    assert document["configs"]
    for config in document["configs"]:
        assert config["accuracy_kind"] == "short"
        assert config["latency_ci_ms"][0] <= config["measured_latency_ms"] <= config["latency_ci_ms"][1]
        assert 0 < config["predicted_latency_ms"]
        assert 0 <= config["sparsity"] <= 1
        assert (finished.latest / config["plan"]).is_file()
        assert config["weights"] == f"train/{config['id']}/weights.safetensors"
        assert (finished.latest / config["weights"]).is_file()


@pytest.mark.smoke
def test_reported_layers_have_kernels_and_times(finished: Any) -> None:
    for config in finished.document()["configs"]:
        layers = {layer["name"]: layer for layer in config["layers"]}
        assert list(layers) == ["stem", "conv2", "conv3", "fc"]
        assert layers["stem"]["why_dense"] == "the space keeps the first layer dense"
        assert all(layer["measured_us"] > 0 for layer in layers.values())


@pytest.mark.smoke
def test_trained_weights_have_exactly_the_planned_zeros(finished: Any) -> None:
    for config in finished.document()["configs"]:
        plan = Plan.load(finished.latest / config["plan"])
        weights = finished.latest / "train" / config["id"] / "weights.safetensors"
        module = models.resolve(f"{finished.folder}/net.py:build", weights=weights).module
        for name, choice in plan.layers.items():
            if choice.pattern.is_dense:
                continue
            weight = dict(module.named_modules())[name].weight.detach().numpy()
            block_n = choice.pattern.group_out
            live = np.abs(weight).reshape(weight.shape[0] // block_n, block_n, weight.shape[1], -1)
            kept = (live.sum(axis=(1, 3)) > 0).sum(axis=1)
            assert (kept <= kept_blocks(weight.shape[1], choice.sparsity)).all()


@pytest.mark.smoke
def test_deployed_configuration_computes_what_torch_does(finished: Any) -> None:
    document = finished.document()
    config = document["configs"][0]
    weights = finished.latest / "train" / config["id"] / "weights.safetensors"
    module = models.resolve(f"{finished.folder}/net.py:build", weights=weights).module
    image = torch.randn(1, 3, 96, 96)
    with autosparse.compile(module, (image,)) as compiled, torch.inference_mode():
        wanted, got = module(image), compiled(image)
    assert (wanted - got).abs().max() <= 1e-4 * wanted.abs().max()


def test_second_search_measures_no_kernel_again(trained: Any) -> None:
    document = trained.before
    assert document["tuning"]["timed"] == 0
    assert document["tuning"]["reused"] > 0
    assert {config["accuracy_kind"] for config in document["configs"]} == {"one-shot"}


def test_train_updates_the_run(trained: Any) -> None:
    before, run = trained.before, trained.shop.latest
    document = trained.shop.document()
    kinds = [config["accuracy_kind"] for config in document["configs"]]
    assert kinds.count("short") == 1
    assert document.keys() == before.keys()
    assert document["dense"]["latency"] != before["dense"]["latency"]
    for old, new in zip(before["configs"], document["configs"], strict=True):
        assert new.keys() == old.keys()
        assert new["latency_ci_ms"] != old["latency_ci_ms"], "all are measured anew"
        assert (new["weights"] is None) == (new["accuracy_kind"] == "one-shot")
        assert new["weights"] is None or (run / new["weights"]).is_file()
    assert (run / "state.json").read_bytes() == trained.state
    with (run / "pareto.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(document["configs"])


def test_a_recipe_that_cannot_train_what_was_picked_is_refused_before_any_work(
    trained: Any, tmp_path: Path
) -> None:
    run, recipe = trained.shop.latest, tmp_path / "tiles.yaml"
    Recipe(kind="short", epochs=5, method="tvw").save(recipe)
    before = trained.shop.document()
    done = trained.shop.verb(
        "train", str(run), "--pick", "fastest", "--kind", "short", "--recipe", str(recipe)
    )
    assert done.returncode == 2, done.stderr
    assert "tvw takes tiles, such as tvw64" in done.stderr
    assert trained.shop.document() == before


def test_infeasible_budget_ends_with_3_and_the_smallest_feasible_one(used_shop: Any) -> None:
    run = used_shop.search("--latency-budget", "1us", "--train", "none")
    assert run.returncode == 3, run.stderr
    assert "Traceback" not in run.stderr
    assert re.search(r"\d ms", run.stdout)
    document = used_shop.document()
    assert document["verdict"]["id"] is None
    assert document["feasibility"]["smallest_feasible_ms"] > 0.001
    assert not any(config["feasible"] for config in document["configs"])


def test_dry_run_counts_and_writes_no_run(finished: Any) -> None:
    before = sorted((finished.folder / "results").iterdir())
    run = finished.search("--dry-run", "--json", "--latency-budget", "50ms")
    assert run.returncode == 0, run.stderr
    forecast = json.loads(run.stdout)
    assert forecast["met"] is True
    assert forecast["to_time"] == 0
    assert forecast["fastest_ms"] <= forecast["dense_ms"]
    assert sorted((finished.folder / "results").iterdir()) == before


def test_report_is_rebuilt_from_the_run(finished: Any) -> None:
    page = Path(finished.latest / "report.html")
    page.unlink()
    assert finished.verb("report", str(finished.latest)).returncode == 0
    assert page.stat().st_size > 100_000
