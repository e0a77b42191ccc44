"""Bad input is refused before any work, with the error of its kind, and without importing torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autosparse.config import SearchConfig, validate
from autosparse.errors import AutosparseError, ConfigError, DataError, ModelError, RunError


def good(tmp_path: Path, **changes: Any) -> SearchConfig:
    return SearchConfig(**({"model": "resnet18", "out": tmp_path / "results"} | changes))


def test_a_good_config_passes_and_its_folder_exists(tmp_path: Path) -> None:
    validate(good(tmp_path))
    assert (tmp_path / "results").is_dir()


def test_without_writing_nothing_is_made(tmp_path: Path) -> None:
    validate(good(tmp_path, out=tmp_path / "deep" / "results"), writing=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="must be a writable folder"):
        validate(good(tmp_path, out=tmp_path / "file" / "results"), writing=False)


@pytest.mark.parametrize(
    ("changes", "kind", "part"),
    [
        ({"model": "resnet81"}, ModelError, "resnet18"),
        ({"model": "nowhere.py:make"}, ModelError, "nowhere.py"),
        ({"weights": "nowhere.pt"}, ModelError, "No such file"),
        ({"data": "digitz"}, DataError, "digits"),
        ({"data": "cifar10:/nowhere"}, DataError, "/nowhere"),
        ({"space": "cpuu"}, ConfigError, "cpu"),
        ({"space": "nowhere.yaml"}, ConfigError, "nowhere.yaml"),
        ({"threads": 4096}, ConfigError, "threads"),
        ({"storage": "not a url"}, ConfigError, "sqlite:///"),
        ({"database": "nosuchdb://host/x"}, ConfigError, "nosuchdb"),
        ({"out": "/proc/nowhere"}, RunError, "/proc/nowhere"),
    ],
)
def test_bad_input_is_refused(
    changes: dict[str, Any], kind: type[AutosparseError], part: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        validate(good(tmp_path, **changes))
    assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_space_that_breaks_a_rule_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    for text, part in (
        ("sparsity: [1.2]", "sparsity"),
        ("block_n: [3]", "block_n"),
        ("blok_n: 8", "block_n"),
    ):
        file.write_text(f"version: 1\n{text}\n")
        with pytest.raises(ConfigError, match=part):
            validate(good(tmp_path, space=str(file)))


def test_corrupt_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.write_text("<html>not found</html>")
    with pytest.raises(ModelError, match="web page"):
        validate(good(tmp_path, weights=file))


def test_heavy_libraries_stay_out(tmp_path: Path) -> None:
    code = (
        "import sys; from autosparse.config import SearchConfig, validate;"
        f"validate(SearchConfig(model='resnet18', out={str(tmp_path)!r}));"
        "print([m for m in ('torch', 'ray', 'optuna', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
