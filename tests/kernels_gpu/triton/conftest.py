"""Tests here need Triton."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("torch", reason="torch is not installed")
