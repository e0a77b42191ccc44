"""pareto.json after a further training: nothing is lost, and all latencies are of one session."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from autosparse.errors import RunError
from autosparse.pipeline.measured.session import ContestantResult, LayerTime
from autosparse.pipeline.results.amending import Amendment, amended
from autosparse.pipeline.trained.accuracies import Reached, trained_dense_values
from autosparse.pipeline.verbs.train import _check_weights
from autosparse.records import Accuracy, WholeLatency
from autosparse.report import document as form
from autosparse.report.verdict import accuracy_change
from autosparse.train.job import TrainResult
from autosparse.train.tickets.sharing import Shared

RUN = Path("/runs/one")


def latency(median_ms: float, engine: str = "autosparse") -> WholeLatency:
    return WholeLatency(
        median_ms=median_ms, ci_low_ms=0.99 * median_ms, ci_high_ms=1.01 * median_ms, repeats=9,
        threads=2, batch_size=1, dtype="f32", engine=engine,
    )  # fmt: skip


def figure(name: str, median_ms: float) -> ContestantResult:
    layers = (LayerTime(name="conv", label="dense", kernel="new", sparsity=0.0, median_us=7.0, why=""),)
    return ContestantResult(name=name, latency=latency(median_ms), layers=layers)


def config(name: str, median_ms: float, accuracy: float, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "measured_latency_ms": median_ms,
        "latency_ci_ms": [median_ms, median_ms],
        "speedup": 1.0,
        "accuracy": accuracy,
        "accuracy_kind": "one-shot",
        "accuracy_split": "validation",
        "sparsity": 0.5,
        "feasible": True,
        "plan": f"configs/{name}.yaml",
        "weights": None,
        "layers": [
            {"name": "conv", "label": "dense", "kernel": "old", "measured_us": 1.0, "extra": 1},
            {"name": "gone", "label": "dense", "kernel": "old", "measured_us": 1.0},
        ],
        "unknown": "kept",
        **more,
    }


def before(budget_ms: float | None = None) -> dict[str, Any]:
    return {
        "schema": form.SCHEMA,
        "model": "net",
        "hardware_id": "h",
        "threads": 2,
        "batch_size": 1,
        "dtypes": ["f32"],
        "budget_ms": budget_ms,
        "dense": {
            "latency": latency(4.0).to_json(),
            "accuracy": {"value": 0.9, "kind": "dense", "split": "test", "samples": 10},
            "peers": {"torch": latency(6.0, "torch").to_json()},
        },
        "baselines": [
            {"name": "u1", "accuracy": 0.5, "accuracy_kind": "one-shot"},
            {
                "name": "u2", "id": "u", "measured_latency_ms": 1.0, "latency_ci_ms": [1.0, 1.0],
                "accuracy": 0.5, "accuracy_kind": "one-shot", "plan": "configs/u.yaml",
            },
        ],
        "configs": [config("a", 1.0, 0.5), config("b", 2.0, 0.6), config("c", 2.1, 0.61)],
        "calibration": {
            "factor": 1.0, "mape": 0.0, "spearman": None,
            "points": [
                {"id": "a", "predicted_ms": 1.0, "measured_ms": 1.0},
                {"id": "other", "predicted_ms": 3.0, "measured_ms": 3.0},
            ],
        },
        "skipped": [
            {"what": "undisturbed measurement", "why": "then"},
            {"what": "conv", "why": "it is the first"},
        ],
        "verdict": {"id": "c", "text": "old"},
        "unknown": [1, 2],
    }  # fmt: skip


def after(values: dict[str, Any], **medians: float) -> dict[str, Any]:
    trained = TrainResult(
        accuracy=Accuracy(value=0.88, kind="full", split="test", samples=100),
        validation=Accuracy(value=0.87, kind="full", split="validation", samples=100),
        weights=str(RUN / "train/a-full-9/weights.safetensors"),
        masks_checksum="x",
        epochs=9,
        best_epoch=8,
    )
    dense = dataclasses.replace(
        trained, accuracy=Accuracy(value=0.91, kind="full", split="test", samples=100)
    )
    found = {"a": 1.1, "b": 2.2, "c": 2.3, "u": 1.5, **medians}
    amendment = Amendment(
        reached={"a": Reached.by(Shared(result=trained))},
        weights={"a": "train/a-full-9/weights.safetensors"},
        dense={"trained": [trained_dense_values(dense, "train/dense-full-9/weights.safetensors")]},
        figures={name: figure(name, median) for name, median in found.items()},
        references={
            "dense": ContestantResult(name="dense", latency=latency(5.0)),
            "torch": ContestantResult(name="torch", latency=latency(4.4, "torch")),
        },
        disturbances=("now",),
    )
    return amended(values, amendment)


def test_keys_that_nobody_amends_stay() -> None:
    values = before()
    kept = copy.deepcopy(values)
    found = after(values)
    assert values == kept, "the argument must not be written to"
    assert found["unknown"] == [1, 2]
    assert [c["unknown"] for c in found["configs"]] == ["kept"] * 3
    assert found["configs"][0]["layers"][0]["extra"] == 1
    assert found["dense"]["accuracy"] == kept["dense"]["accuracy"]
    assert found["baselines"][0] == kept["baselines"][0]


def test_every_latency_is_of_the_new_session() -> None:
    found = after(before())
    assert found["dense"]["latency"]["median_ms"] == 5.0
    assert found["dense"]["peers"]["torch"]["median_ms"] == 4.4
    for row, median_ms in zip(found["configs"], (1.1, 2.2, 2.3), strict=True):
        assert row["measured_latency_ms"] == median_ms
        assert row["latency_ci_ms"] == [0.99 * median_ms, 1.01 * median_ms]
        assert row["speedup"] == pytest.approx(4.4 / median_ms)
        assert [layer["measured_us"] for layer in row["layers"]] == [7.0, 1.0]
        assert [layer["kernel"] for layer in row["layers"]] == ["new", "old"]
    assert found["baselines"][1]["measured_latency_ms"] == 1.5
    points = {p["id"]: p["measured_ms"] for p in found["calibration"]["points"]}
    assert points == {"a": 1.1, "other": 3.0}
    assert found["calibration"]["factor"] == pytest.approx(1.05)
    assert {row["why"] for row in found["skipped"]} == {"now", "it is the first"}


def test_accuracy_and_weights_change_for_the_trained_alone() -> None:
    found = after(before())
    trained, *others = found["configs"]
    assert (trained["accuracy"], trained["accuracy_kind"]) == (0.88, "full")
    assert trained["accuracy_split"] == "test"
    assert trained["weights"] == "train/a-full-9/weights.safetensors"
    assert [c["accuracy"] for c in others] == [0.6, 0.61]
    assert [c["weights"] for c in others] == [None, None]
    form.parse(found)


def test_what_was_trained_is_set_against_dense_trained_as_long() -> None:
    document = form.parse(after(before()))
    trained, untrained, _ = document.configs
    assert (trained.epochs, trained.validation_accuracy) == (9, 0.87)
    assert accuracy_change(document, trained) == pytest.approx(0.88 - 0.91)
    assert accuracy_change(document, untrained) is None, "dense is known on test, this on validation"


def test_the_verdict_is_chosen_on_validation_data() -> None:
    values = before(9.0)
    values["configs"][2] |= {"accuracy": 0.80, "accuracy_split": "test", "validation_accuracy": 0.95}
    found = after(values)
    assert found["configs"][0]["accuracy"] > 0.80, "on test data the first is better"
    assert found["verdict"]["id"] == "c"


def test_the_verdict_is_chosen_as_a_search_chooses_it() -> None:
    # Without a budget the knee: "a" is fastest and now the most accurate.
    assert after(before())["verdict"]["id"] == "a"
    within = after(before(2.25), a=2.3)  # the trained one now misses the budget by its upper end
    assert [c["feasible"] for c in within["configs"]] == [False, True, False]
    assert within["verdict"]["id"] == "b"
    assert "2.25 ms" in within["verdict"]["text"]
    none = after(before(0.5))
    assert none["verdict"]["id"] is None


def test_trained_configurations_without_weights_are_refused_before_work(tmp_path: Path) -> None:
    values = before()
    _check_weights(tmp_path, values, [])
    values["configs"][1] |= {"accuracy_kind": "short"}
    with pytest.raises(RunError, match="of b names none"):
        _check_weights(tmp_path, values, ["a"])
    values["configs"][1] |= {"weights": "train/b/weights.safetensors"}
    with pytest.raises(RunError, match=r"weights.safetensors is missing"):
        _check_weights(tmp_path, values, ["a"])
    _check_weights(tmp_path, values, ["b"])
    (tmp_path / "train" / "b").mkdir(parents=True)
    (tmp_path / "train" / "b" / "weights.safetensors").touch()
    _check_weights(tmp_path, values, ["a"])
