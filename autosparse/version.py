"""The version of this tree, read by both distributions that are built from it."""

from __future__ import annotations

__version__ = "0.1.0"
