"""The public surface: every promised name exists, and the errors carry the documented exit codes."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import autosparse
from autosparse import errors
from autosparse.deploy import model
from autosparse.engine import contest


@pytest.mark.smoke
@pytest.mark.parametrize("name", autosparse.__all__)
def test_public_name_loads_and_is_documented(name: str) -> None:
    value = getattr(autosparse, name)
    assert inspect.getdoc(value)


def test_names_are_sorted_and_listed() -> None:
    assert autosparse.__all__ == sorted(autosparse.__all__)
    assert set(autosparse.__all__) <= set(dir(autosparse))


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="sparsify"):
        _ = autosparse.sparsifi


@pytest.mark.smoke
def test_every_error_stands_in_the_tree_with_its_exit_code() -> None:
    tree = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.AutosparseError):
            line = next((line for line in tree.splitlines() if f" {name} " in f" {line} "), None)
            assert line is not None, f"{name} is missing from the tree"
            assert f" {int(value.exit_code)} " in line, f"{name}: exit code differs from {line!r}"


def test_the_readme_example_runs_as_printed_but_for_the_time_it_measures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, name in ((contest, "_POLICY"), (model, "WHOLE")):
        brief = dataclasses.replace(getattr(module, name), time_cap_us=100_000.0)
        monkeypatch.setattr(module, name, brief)
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert example.count('tune="30s"') == 1
    names: dict[str, object] = {}
    exec(compile(example.replace('tune="30s"', 'tune="3s"'), "README.md", "exec"), names)
    assert names["tuned"].tuning  # type: ignore[attr-defined]
    layers = names["compiled"].layers  # type: ignore[attr-defined]
    assert sum(layer.sparsity > 0.7 for layer in layers) >= 18
    assert all(layer.kernel and layer.why for layer in layers)


def test_search_refuses_a_config_and_settings_together() -> None:
    from autosparse.config import SearchConfig

    with pytest.raises(autosparse.AutosparseError, match="but got both"):
        autosparse.search(SearchConfig(model="resnet20"), seed=1)


@pytest.mark.parametrize("name", autosparse.__all__)
def test_no_public_name_is_that_of_a_submodule(name: str) -> None:
    # Importing a submodule would put it in the name's place.
    assert importlib.util.find_spec(f"autosparse.{name}") is None
