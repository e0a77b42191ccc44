"""Score, mask and check one layer's weight, whatever the pattern: the registry behind four verbs."""

from __future__ import annotations

from autosparse.errors import PlanError
from autosparse.patterns.family import CRITERIA, Criterion, family_of, unit_family_of
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import Array, BoolArray


def block_scores(weight: Array, pattern: Pattern, criterion: Criterion = "l1") -> Array:
    """Gives the importance of every block of a weight; higher is kept longer.

    Args:
        weight: OIHW or OI.
        pattern: decides what a block is.
        criterion: ``l1`` or ``l2`` norm of the block, or ``bpar`` (angular redundancy).

    Returns:
        Float64, ``[groups, units]``; for 1xN, ``[groups, in_channels]``.

    Raises:
        PlanError: an unknown criterion or pattern, or a weight that is no layer's.
    """
    _check_criterion(criterion)
    _check_weight(weight.shape)
    return unit_family_of(pattern).scores(weight, pattern, criterion)


def mask(
    weight: Array,
    pattern: Pattern,
    sparsity: float,
    scores: Array | None = None,
    *,
    criterion: Criterion = "l1",
) -> BoolArray:
    """Chooses which weights live.

    A uniform pattern keeps ``kept_blocks(in_channels, sparsity)`` blocks in every group, a
    layer-wide one prunes the ``int(sparsity * blocks)`` lowest blocks of the layer. Of equal scores
    the earlier block is pruned, so equal input gives equal masks.

    Args:
        weight: OIHW or OI.
        pattern: dense or a sparse pattern.
        sparsity: fraction of blocks to prune, in [0, 1].
        scores: importance per block, as `block_scores` gives it; computed by `criterion` if None.
        criterion: see `block_scores`.

    Returns:
        Bool of the weight's shape, true where a weight is kept.

    Raises:
        PlanError: the sparsity, pattern or scores cannot be used.
    """
    if not 0 <= sparsity <= 1:
        raise PlanError(f"sparsity must lie in [0, 1], but got {sparsity:g}")
    _check_criterion(criterion)
    _check_weight(weight.shape)
    family = family_of(pattern)
    if why := family.why_not_sparsity(pattern, sparsity):
        raise PlanError(why)
    return family.mask(weight, pattern, sparsity, criterion=criterion, scores=scores)


def check(mask: BoolArray, pattern: Pattern) -> None:
    """Makes sure that a mask has the structure its pattern promises.

    Args:
        mask: bool OIHW or OI.
        pattern: what it shall follow.

    Raises:
        PlanError: the first group that breaks a rule.
    """
    _check_weight(mask.shape)
    if mask.dtype != bool:
        raise PlanError(f"a mask must be bool, but got {mask.dtype}")
    if broken := family_of(pattern).violation(mask, pattern):
        raise PlanError(f"a mask must follow its pattern, but {broken}")


def _check_criterion(criterion: str) -> None:
    if criterion not in CRITERIA:
        raise PlanError(f"a criterion must be one of {', '.join(CRITERIA)}, but got {criterion!r}")


def _check_weight(shape: tuple[int, ...]) -> None:
    if len(shape) < 2 or 0 in shape:
        raise PlanError(f"a weight must be [outputs, inputs, taps...], but got shape {shape}")
