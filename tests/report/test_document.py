from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosparse.errors import RunError
from autosparse.report.document import load, parse

RunWriter = Callable[..., Path]


def document(run: Path) -> Any:
    return json.loads((run / "pareto.json").read_text())


@pytest.mark.smoke
def test_a_document_keeps_what_was_written(make_run: RunWriter) -> None:
    run = make_run()
    raw, parsed = document(run), load(run)
    assert parsed.configs[3].measured_latency_ms == raw["configs"][3]["measured_latency_ms"]
    assert parsed.dense.peers["torch"].median_ms == raw["dense"]["peers"]["torch"]["median_ms"]
    assert parsed.config(raw["verdict"]["id"]).plan == f"configs/{raw['verdict']['id']}.yaml"
    assert len(parsed.configs[0].layers) == 21


def test_the_least_document_has_dense_and_configs() -> None:
    least = {
        "schema": 1,
        "model": "m",
        "hardware_id": "h",
        "threads": 1,
        "batch_size": 1,
        "dtypes": ["f32"],
        "dense": {},
        "configs": [],
    }
    assert parse(least).budget_ms is None
    assert parse({**least, "a_later_addition": 1}).model == "m"


@pytest.mark.parametrize("schema", [0, 2, "1", None, True])
def test_another_schema_is_refused(make_run: RunWriter, schema: Any) -> None:
    run = make_run(edit=lambda d: d.update(schema=schema))
    with pytest.raises(RunError, match="must have schema 1, but got"):
        load(run)


@pytest.mark.parametrize(
    ("place", "edit"),
    [
        ("model", lambda d: d.pop("model")),
        ("configs.0.accuracy", lambda d: d["configs"][0].update(accuracy=91.7)),
        ("configs.2.measured_latency_ms", lambda d: d["configs"][2].update(measured_latency_ms=0)),
        ("configs.1.accuracy_kind", lambda d: d["configs"][1].update(accuracy_kind="long")),
        ("configs.1.feasible", lambda d: d["configs"][1].update(feasible="perhaps")),
        ("configs.0.layers.4.sparsity", lambda d: d["configs"][0]["layers"][4].update(sparsity=1.2)),
        ("dense.latency", lambda d: d["dense"]["latency"].pop("median_ms")),
        ("the whole", lambda d: d["verdict"].update(id="nobody")),
        ("the whole", lambda d: d["configs"].append(d["configs"][0])),
    ],
)
def test_a_broken_document_names_the_place(
    make_run: RunWriter, place: str, edit: Callable[[dict[str, Any]], None]
) -> None:
    run = make_run(edit=edit)
    with pytest.raises(RunError, match=f"breaks its format at {place}"):
        load(run)


def test_baselines_of_earlier_runs_are_of_the_split_that_their_training_was_evaluated_on(
    make_run: RunWriter,
) -> None:
    def trained(d: dict[str, Any]) -> None:
        d["baselines"][0].update(accuracy_kind="short")

    splits = [b.accuracy_split for b in load(make_run(edit=trained)).baselines]
    assert splits == ["test", "validation", "validation"]


def test_damaged_and_absent_files(make_run: RunWriter) -> None:
    run = make_run()
    (run / "pareto.json").write_text((run / "pareto.json").read_text()[:-40])
    with pytest.raises(RunError, match="damaged or truncated"):
        load(run)
    (run / "pareto.json").write_text("[1]")
    with pytest.raises(RunError, match="schema"):
        load(run)
    (run / "pareto.json").unlink()
    with pytest.raises(RunError, match="its search is unfinished"):
        load(run)
