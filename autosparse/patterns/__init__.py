"""Sparse structures as mask algebra: which weights of a layer live, and how kernels read that.

structure   BlockStructure and find_structure: the lists of kept blocks that kernels read
masks       score, mask and check one weight
family      what a family of patterns must do; families/ holds one file for each
blocks      arithmetic on 1xN blocks
pruning     the same for a whole torch module; loaded only when asked for
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autosparse.patterns.family import CRITERIA, Criterion, families
from autosparse.patterns.masks import block_scores, check, mask
from autosparse.patterns.structure import CANDIDATES, BlockStructure, find_structure, group_count

if TYPE_CHECKING:
    from autosparse.patterns.pruning import sparsify

__all__ = [
    "CANDIDATES",
    "CRITERIA",
    "BlockStructure",
    "Criterion",
    "block_scores",
    "check",
    "families",
    "find_structure",
    "group_count",
    "mask",
    "sparsify",
]


def __getattr__(name: str) -> Any:
    # Kernels import this package and must not pay for torch, nor need it.
    if name == "sparsify":
        from autosparse.patterns.pruning import sparsify

        return sparsify
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
