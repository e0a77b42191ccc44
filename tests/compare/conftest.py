"""A small network and quick sessions of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autosparse import hardware
from autosparse.compare.records import Subject
from autosparse.compare.session import SessionRequest
from autosparse.measuring.stopwatch import MeasurementPolicy

sys.path.insert(0, str(Path(__file__).parent))

MODEL = '''
from torch import nn


class Net(nn.Module):
    """A stem, a convolution and a classifier."""

    input_shape = (3, 12, 12)

    def __init__(self, num_classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 16, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.relu(self.middle(self.relu(self.stem(x))))
        return self.fc(self.pool(x).flatten(1))


def build(num_classes=5):
    return Net(num_classes)
'''

QUICK = MeasurementPolicy(name="quick", warmup_us=10.0, min_repeats=6, max_repeats=18, time_cap_us=1e3)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The network's source, as a command line names it."""
    path = tmp_path_factory.mktemp("model") / "net.py"
    path.write_text(MODEL)
    return f"{path}:build"


@pytest.fixture
def request_for(model: str, tmp_path: Path) -> Callable[..., SessionRequest]:
    """Makes a session of the network, quickly measured."""

    def make(**changes: Any) -> SessionRequest:
        values: dict[str, Any] = {
            "subject": Subject(model=model),
            "shape": (1, 3, 12, 12),
            "threads": 1,
            "folder": str(tmp_path),
            "peers": (),
            "own": (),
            "peers_masked": False,
            "policy": QUICK,
            "database": str(tmp_path / "tuning.db"),
            "dense_flops": 1_000_000,
            "dense_weights": 1_448,
            "hardware": hardware.describe(),
        }
        return SessionRequest(**{**values, **changes})

    return make
