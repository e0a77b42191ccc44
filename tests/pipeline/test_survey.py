"""What a run is about: settled with one reading of the data, and with progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from autosparse import data, models
from autosparse.config import SearchConfig
from autosparse.pipeline import requests, search_run
from autosparse.pipeline.survey import survey
from autosparse.progress import Progress, ProgressEvent
from autosparse.train.baseline import baseline


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Notes every reading of a data set."""
    made: list[dict[str, Any]] = []
    resolve = data.resolve

    def counted(spec: str, **options: Any) -> data.ImageData:
        made.append(options)
        return resolve(spec, **options)

    monkeypatch.setattr(data, "resolve", counted)
    return made


def config_for(shop: Any, **more: Any) -> SearchConfig:
    return SearchConfig(
        model=f"{shop.folder}/net.py:build", space=str(shop.folder / "space.yaml"), **more
    )


def test_the_data_are_read_once(shop: Any, readings: list[dict[str, Any]], tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    torch.save(models.resolve(f"{shop.folder}/net.py:build").module.state_dict(), weights)
    subject = survey(config_for(shop, weights=weights, data_resolution=32), Progress())
    evaluator = requests.evaluator_for(subject, requests.dense_weights(subject, Progress()))
    evaluator.fingerprint()
    search_run._dense_accuracies(subject, weights, Progress())
    assert len(subject.images.train) > 0
    assert len(readings) == 1


def test_data_that_must_be_resized_are_read_once_more(
    shop: Any, readings: list[dict[str, Any]]
) -> None:
    subject = survey(config_for(shop), Progress())
    assert len(readings) == 1, "what concerns no accuracy needs the number of classes alone"
    assert subject.images is subject.images
    assert (subject.images.resolution, subject.loaded.resolution) == (32, 8)
    assert len(readings) == 2


def test_what_takes_long_tells_how_far_it_is(shop: Any) -> None:
    events: list[ProgressEvent] = []
    progress = Progress(events.append)
    subject = survey(config_for(shop, data_resolution=32), progress)
    found = baseline(subject.config.model, "digits", resolution=32, images=subject.images)
    search_run._dense_accuracies(subject, Path(found.weights), progress)
    moved = {event.step: event for event in events if event.kind == "end"}
    for step in ("survey", "accuracy of the dense model"):
        assert moved[step].total is not None
        assert moved[step].done == moved[step].total > 1
        advances = [e for e in events if e.kind == "advance" and e.step == step]
        assert len(advances) > 1 and all(e.total for e in advances)
