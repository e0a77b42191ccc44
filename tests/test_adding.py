"""What is added in its one place is everywhere: the rows of ARCHITECTURE.md's "How to add", by dummies.

The fixture `add` puts a file into a package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import torch

from autosparse import cli, data, models
from autosparse.config import SearchConfig, validate
from autosparse.data import kinds
from autosparse.engine import compile
from autosparse.errors import AutosparseError
from autosparse.graph import capture_layers
from autosparse.models import zoo
from autosparse.progress import Progress
from autosparse.searching import samplers, space
from autosparse.searching.pool import SerialPool
from autosparse.searching.study import PredictedAccuracy, run_study
from autosparse.searching.trials import StudySettings

sys.path.insert(0, str(Path(__file__).parent / "golden"))
import analytic

ROOT = Path(__file__).parent.parent
ROWS = {
    "a kind of device": "tests/devices/test_any_device.py",
    "a pattern": "tests/searching/test_any_family.py",
    "a way to compute on GPUs": "tests/kernels_gpu/test_added_method.py",
    "a kernel variant": "tests/kernels/test_added_row.py",
    "an instruction set": "tests/kernels/test_added_row.py",
    "a pruning method": "tests/train/test_added_method.py",
    "a model": "tests/test_adding.py",
    "a data set": "tests/test_adding.py",
    "another engine to compare with": "tests/compare/test_peers.py",
    "a sampler": "tests/test_adding.py",
}


def test_every_row_of_the_table_is_tested() -> None:
    table = (ROOT / "ARCHITECTURE.md").read_text().partition("## How to add")[2]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row] == list(ROWS)
    assert all((ROOT / file).is_file() for file in ROWS.values())


MODEL = '''
from torch import nn
from autosparse.models.registry import zoo_model


@zoo_model(input_shape=(3, 8, 8), classes=3)
def tiny(classes):
    """A tiny one."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, classes))


def unmarked(classes):
    raise AssertionError("nobody asked")
'''


def test_a_model(add: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = models.names()
    add(zoo, MODEL)
    assert set(models.names()) == {*before, "tiny"}
    assert cli.run(["models"]) == 0
    assert "tiny" in capsys.readouterr().out.split()
    validate(SearchConfig(model="tiny", out=tmp_path))
    with pytest.raises(AutosparseError, match="did you mean tiny"):
        models.check_source("tinny")
    loaded = models.resolve("tiny")
    assert (loaded.input_shape, loaded.classes) == ((3, 8, 8), 3)
    image = torch.randn(1, *loaded.input_shape)
    assert [layer.name for layer in capture_layers(loaded.module, (image,))] == ["0", "3"]
    with compile(loaded.module, (image,)) as compiled, torch.no_grad():
        torch.testing.assert_close(compiled(image), loaded.module(image), rtol=1e-4, atol=1e-4)


DATA = """
import numpy as np
from autosparse.data.raw import Kind, RawData, RawSplit


def read(request):
    def part(count):
        labels = np.arange(count) % 2
        board = np.indices((4, 4)).sum(0) % 2
        images = np.stack([board if label else 1 - board for label in labels])
        return RawSplit(images=(255 * images[:, None]).astype(np.uint8), labels=labels)

    return RawData(train=part(40), test=part(10), classes=2, mean=(0.5,), std=(0.5,))


KIND = Kind(takes_path=False, check=lambda path: None, read=read)
"""


def test_a_data_set(add: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(AutosparseError, match="known kind"):
        data.check_source("added")
    add(kinds, DATA)
    assert "added" in data.kind_names()
    with pytest.raises(AutosparseError, match="did you mean added"):
        data.check_source("aded")
    validate(SearchConfig(model="resnet20", data="added", out=tmp_path))
    found = data.resolve("added", resolution=8)
    assert (found.name, found.classes, found.resolution) == ("added", 2, 8)
    assert (len(found.train), len(found.validation), len(found.test)) == (36, 4, 10)
    images, labels = next(found.test.batches(10))
    corner = images[:, 0, 0, 0]
    assert torch.equal(labels, torch.arange(10) % 2) and (corner[labels == 1] < 0).all()


def test_a_sampler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[int] = []

    def made(seed: int, startup_trials: int) -> optuna.samplers.BaseSampler:
        drawn.append(seed)
        return optuna.samplers.RandomSampler(seed=seed)

    study = {"sampler": "mine", "trials": 16, "startup_trials": 2, "seed_points": 2}
    wanted = {"version": 1, "study": study}
    with pytest.raises(AutosparseError, match="one of nsga2, random, tpe"):
        space.SearchSpace.parse(wanted, "test")
    monkeypatch.setitem(samplers.SAMPLERS, "mine", made)
    settings = StudySettings.of(space.SearchSpace.parse(wanted, "test").study)
    problem = analytic.problem(250.0)
    with SerialPool() as pool:
        accuracy, progress = PredictedAccuracy(problem), Progress()
        run_study(problem, settings, accuracy, pool=pool, folder=tmp_path, progress=progress)
    assert len(set(drawn)) >= 3, "each draw has a seed of its own"
