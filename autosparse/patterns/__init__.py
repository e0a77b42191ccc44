"""Sparse structures as mask algebra: which weights of a layer live, and how kernels read that.

structure   BlockStructure and find_structure (numpy; what kernels read)
"""

from __future__ import annotations

from autosparse.patterns.structure import CANDIDATES, BlockStructure, find_structure, group_count

__all__ = ["CANDIDATES", "BlockStructure", "find_structure", "group_count"]
