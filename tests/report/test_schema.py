"""The published schema of pareto.json is the one that is written."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from autosparse.report import document

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "pareto.schema.json"
REFERENCES = sorted((ROOT / "results" / "reference").glob("*/pareto.json"))


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PUBLISHED.read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def test_what_is_published_is_what_is_written(published: dict[str, Any]) -> None:
    assert published == document.json_schema(), (
        "python -c 'import json; from autosparse.report import document; "
        "print(json.dumps(document.json_schema(), indent=2))' > docs/pareto.schema.json"
    )


@pytest.mark.parametrize("file", REFERENCES, ids=[path.parent.name for path in REFERENCES])
def test_runs_keep_to_it(published: dict[str, Any], file: Path) -> None:
    jsonschema.validate(json.loads(file.read_text()), published)


def test_others_are_told_where_a_file_breaks_it(published: dict[str, Any]) -> None:
    values = json.loads(REFERENCES[0].read_text())
    broken = copy.deepcopy(values)
    broken["configs"][0]["sparsity"] = 1.2
    with pytest.raises(jsonschema.ValidationError, match=r"1\.2 is greater than the maximum"):
        jsonschema.validate(broken, published)
    del values["model"]
    with pytest.raises(jsonschema.ValidationError, match="'model' is a required property"):
        jsonschema.validate(values, published)


def test_nothing_is_written_that_the_format_lacks(tmp_path: Path) -> None:
    values = {
        "schema": 1, "model": "m", "hardware_id": "h", "threads": 1, "batch_size": 1,
        "dtypes": ["f32"], "dense": {}, "configs": [],
    }  # fmt: skip
    document.write(tmp_path / "pareto.json", values)
    assert json.loads((tmp_path / "pareto.json").read_text()) == values
    with pytest.raises(ValidationError, match="colour"):
        document.write(tmp_path / "other.json", {**values, "colour": "red"})
    with pytest.raises(ValidationError, match=r"dense\.lateny"):
        document.write(tmp_path / "other.json", {**values, "dense": {"lateny": None}})
    assert not (tmp_path / "other.json").exists()
