"""Sparse structures as mask algebra: which weights of a layer live, and how kernels read that.

pattern     what a pattern is, as plain data, and what kernels must promise for it
facts       what families hand out: found patterns, groups, worked examples; the criteria
family      what a family of patterns must do; families/ holds one file for each
labels      what a layer may become in a few letters, written and read
masks       score, mask and check one weight
blocks      arithmetic on blocks of outputs by inputs; blockwise: families made of them
tiles       arithmetic on tiles of surviving outputs; tilewise: families made of them
structure   BlockStructure and find_structure: the lists of kept blocks that kernels read

Stands below the records, knows no layer, model or kernel: a weight's extents are all it is told.
"""

from __future__ import annotations

from autosparse.patterns.family import CRITERIA, Criterion, all_families, family_of
from autosparse.patterns.labels import label_of, parse_label, parse_pattern
from autosparse.patterns.masks import block_scores, check, mask, why_not_criterion
from autosparse.patterns.structure import CANDIDATES, BlockStructure, find_structure, group_count

__all__ = [
    "CANDIDATES",
    "CRITERIA",
    "BlockStructure",
    "Criterion",
    "all_families",
    "block_scores",
    "check",
    "family_of",
    "find_structure",
    "group_count",
    "label_of",
    "mask",
    "parse_label",
    "parse_pattern",
    "why_not_criterion",
]
