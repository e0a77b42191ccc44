from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.errors import MissingDependency
from autosparse.progress import Progress
from autosparse.sessions import apart


class Silent:
    """A worker that gives back what it was made with and asked for."""

    def __init__(self, runner: str, *, library_threads: int | None, environment: Mapping[str, str]):
        self.environment = environment

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def start(self) -> None:
        pass

    def call(self, request: Mapping[str, Any], limit_s: float, progress: Progress) -> Any:
        return SimpleNamespace(outcome={**request, "environment": dict(self.environment)})


def called(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return apart.call_apart("m:f", request, step="start", limit_s=1.0, progress=Progress())


def test_a_session_sees_the_device_that_it_is_of_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(apart, "Worker", Silent)
    monkeypatch.setenv("AUTOSPARSE_MEASURING_LOCK", str(tmp_path / "lock"))
    second = SimpleNamespace(environment={"CUDA_VISIBLE_DEVICES": "GPU-2"}, lock="GPU-2")
    monkeypatch.setattr(apart, "find", {"cuda:1": second}.__getitem__)
    assert called({"device": "cuda:1", "batch": 4}) == {
        "device": "cuda",  # the first of those that it sees
        "batch": 4,
        "environment": {"CUDA_VISIBLE_DEVICES": "GPU-2"},
    }
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".gate"] == ["lock.GPU-2"]


@pytest.mark.parametrize("request_", [{"batch": 4}, {"device": "cpu"}, {"device": "auto"}])
def test_a_session_on_processors_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any]
) -> None:
    monkeypatch.setattr(apart, "Worker", Silent)
    assert called(request_) == {**request_, "environment": {}}


def test_a_session_on_a_device_that_is_not_there_says_so_before_a_process_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apart, "Worker", None)

    def find(name: str) -> Any:
        raise MissingDependency(f"device {name} was asked for, but there is none")

    monkeypatch.setattr(apart, "find", find)
    with pytest.raises(MissingDependency, match="device cuda:3 was asked for"):
        called({"device": "cuda:3"})
