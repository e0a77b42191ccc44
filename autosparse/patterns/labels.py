"""Labels of what a layer may become, ``dense`` or ``1x16@0.75``: written and read in this one place.

The part before ``@`` is the family's to write and to read. Equal labels mean equal patterns and equal
sparsities, so labels serve as keys in files.
"""

from __future__ import annotations

import difflib

from autosparse.errors import PlanError
from autosparse.patterns.family import all_families
from autosparse.patterns.pattern import Pattern


def label_of(pattern: Pattern, sparsity: float) -> str:
    """Names a pattern at a sparsity, in as many digits as tell it from any other."""
    if pattern.is_dense:
        return pattern.name
    short = f"{sparsity:g}"
    return f"{pattern.name}@{short if float(short) == sparsity else repr(float(sparsity))}"


def parse_label(label: str) -> tuple[Pattern, float]:
    """Reads what `label_of` writes, or a pattern's name alone, at sparsity 0.

    Raises:
        PlanError: no family knows the pattern, or the sparsity is no number.
    """
    name, at, sparsity = label.partition("@")
    try:
        return parse_pattern(name), float(sparsity) if at else 0.0
    except ValueError:
        raise PlanError(f"a label must be as 1x16@0.75, but got {label!r}") from None


def parse_pattern(name: str) -> Pattern:
    """Reads a pattern's name, as `Pattern.name` gives it.

    Raises:
        PlanError: no family knows it; names what families know.
    """
    for family in all_families().values():
        found = family.parse(name)
        if found is not None:
            return found
    known = [family.example for family in all_families().values()]
    near = difflib.get_close_matches(name, known, n=1)
    raise PlanError(
        f"a pattern must be one that a family knows, such as {', '.join(known)}, but got {name!r}"
        + (f"; did you mean {near[0]!r}?" if near else "")
    )
