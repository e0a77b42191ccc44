"""A run of two arithmetic types: every configuration and every figure says which is its own."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from autosparse.report import build, summary, words
from autosparse.report.document import load
from autosparse.report.facts import dense_accuracies, dense_rows, key_facts, reference_note
from autosparse.report.layers import views
from autosparse.report.source import Option, read
from autosparse.report.verdict import dense_reference, sentence, speedup

RunWriter = Callable[..., Path]


@pytest.fixture(autouse=True)
def light_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "window.Plotly = {};")


def in_two_types(document: dict[str, Any]) -> None:
    """Makes every other configuration one of bf16, and the dense model nearly twice as fast in it."""
    document["dtypes"] = ["f32", "bf16"]
    for config in document["configs"][::2]:
        config |= {"dtype": "bf16", "accuracy_dtype": "bf16", "accuracy_through": "emulation"}
        for layer in config["layers"]:
            layer["dtype"] = "bf16"
    dense = document["dense"]
    ours = dense["latency"]
    dense["peers"]["autosparse bf16"] = ours | {
        "dtype": "bf16",
        **{key: 0.6 * ours[key] for key in ("median_ms", "ci_low_ms", "ci_high_ms")},
    }
    accuracy = dense["accuracy"]
    dense["accuracies"] = {
        "f32": accuracy,
        "bf16": accuracy | {"value": 0.9694, "dtype": "bf16", "through": "emulation"},
    }
    document["verdict"] = {"id": document["configs"][0]["id"], "text": ""}


@pytest.fixture
def run(make_run: RunWriter) -> Path:
    return make_run(budget_ms=None, edit=in_two_types)


def test_speed_ups_count_from_the_faster_dense_type(run: Path) -> None:
    document = load(run)
    reference = dense_reference(document)
    assert reference is not None and reference.engine == "autosparse bf16"
    assert reference.beaten == ("autosparse", "torch")
    assert "dense autosparse bf16" in reference_note(document)
    assert speedup(document, document.configs[0]) == pytest.approx(
        reference.latency.median_ms / (document.configs[0].measured_latency_ms or 0)
    )
    settings = {row[0]: row[4] for row in dense_rows(document)}
    assert settings["autosparse bf16"].startswith("bf16,")
    assert settings["autosparse"].startswith("f32,")


def test_every_configuration_names_its_type(run: Path) -> None:
    document = load(run)
    assert dict(key_facts(read(run)))["Arithmetic"] == "f32 or bf16"
    assert "runs in bf16 in" in sentence(document)
    page = unescape(build(run).read_text())
    for config in document.configs:
        assert f"{config.dtype}</span></th>" in page
    assert "bf16 by emulation" in page
    assert dense_accuracies(document)[:2] == [
        ("as it is", "f32", "97.2 % of 360", "97.9 % of 143"),
        ("as it is", "bf16", "96.9 % of 360", words.NONE),
    ]
    assert "97.2 % of 360" in page and "96.9 % of 360" in page
    lines = [line.split() for line in summary(document).splitlines()]
    for config in document.configs:
        assert any(config.id in line and config.dtype in line for line in lines)
    with (run / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, config in zip(rows, document.configs, strict=True):
        assert (row["dtype"], row["accuracy_dtype"]) == (config.dtype, config.accuracy_dtype)
        assert row["accuracy_through"] == config.accuracy_through


def test_a_layer_is_explained_by_the_rows_of_its_type(run: Path) -> None:
    source = read(run)
    name = "layer1.0.conv1"
    made = tuple(
        Option(
            layer=name, shape="s", label=label, kernel="k", median_us=us, ci_us=(us, us), dtype=dtype
        )
        for dtype, label, us in (
            ("f32", "dense", 5.0),
            ("f32", "1x8@0.5", 2.0),
            ("bf16", "dense", 3.0),
            ("bf16", "1x8@0.5", 4.0),
        )
    )
    source = dataclasses.replace(source, options={name: made})
    notes = {}
    for config in source.document.configs[:2]:
        layer = next(each for each in config.layers if each.name == name)
        dense = layer.model_copy(update={"label": "dense", "sparsity": 0.0})
        (view,) = views(source, config.model_copy(update={"layers": (dense,)}))
        assert view.shape == "s"
        notes[config.dtype] = view.note
    assert notes["bf16"].startswith("no sparse option is faster")
    assert notes["f32"].startswith("kept for accuracy")


def test_a_type_that_is_left_out_is_named_with_the_reason(make_run: RunWriter) -> None:
    run = make_run(edit=lambda document: document.update(no_dtypes={"bf16": "the CPU is old"}))
    assert dict(key_facts(read(run)))["Arithmetic"] == "f32; no bf16: the CPU is old"
    assert "no bf16: the CPU is old" in unescape(build(run).read_text())


def test_a_run_from_before_there_were_types_is_one_of_f32(make_run: RunWriter) -> None:
    document = load(make_run())
    assert {dtype for _, dtype, *_ in dense_accuracies(document)} == {"f32"}
    assert {config.accuracy_dtype for config in document.configs} == {"f32"}
    assert "runs in f32" not in sentence(document)
