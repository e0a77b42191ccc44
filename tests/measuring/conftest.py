"""What is measured on here is known by what a test says."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def known_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that knows nothing of this host."""
    return tmp_path_factory.mktemp("unknown-host")
