"""Layers to reconstruct, for all tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # layer_problems.py


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Small matrices: threads that wait for one another only cost."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
