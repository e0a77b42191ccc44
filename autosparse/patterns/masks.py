"""Score, mask and check one layer's weight, whatever the pattern: the registry behind four verbs."""

from __future__ import annotations

import math

from autosparse.errors import PlanError
from autosparse.patterns.family import CRITERIA, Criterion, family_of, unit_family_of
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import Array, BoolArray


def block_scores(
    weight: Array, pattern: Pattern, criterion: Criterion = "l1", *, alpha: float = 1.0
) -> Array:
    """Gives the importance of every block of a weight; higher is kept longer.

    Args:
        weight: OIHW or OI.
        pattern: decides what a block is.
        criterion: ``l1`` or ``l2`` norm of the block, or ``bpar`` (angular redundancy).
        alpha: weight of the redundancy in ``bpar``, at least 0; all-zero blocks score ``-alpha`` there.

    Returns:
        Float64, ``[groups, units]``; for 1xN, ``[groups, in_channels]``.

    Raises:
        PlanError: an unknown criterion or pattern, or a weight that is no layer's.
    """
    _check_weight(weight.shape)
    family = unit_family_of(pattern)
    _check_criterion(pattern, criterion, alpha)
    return family.scores(weight, pattern, criterion, alpha=alpha)


def mask(
    weight: Array,
    pattern: Pattern,
    sparsity: float,
    scores: Array | None = None,
    *,
    criterion: Criterion = "l1",
    alpha: float = 1.0,
) -> BoolArray:
    """Chooses which weights live.

    To choose by any importance of single weights, such as first-order Taylor ``(gradient * weight)^2``
    or a second-order saliency, hand that in place of the weight, nonnegative, under ``l1``: units then
    rank by the sum, or where units of several sizes compete by the mean, of what their weights score.

    A uniform pattern keeps ``kept_blocks(in_channels, sparsity)`` blocks in every group, a
    layer-wide one prunes the ``int(sparsity * blocks)`` lowest blocks of the layer. Of equal scores
    the earlier block is pruned, so equal input gives equal masks.

    Args:
        weight: OIHW or OI.
        pattern: dense or a sparse pattern.
        sparsity: fraction of blocks to prune, in [0, 1].
        scores: importance per block, as `block_scores` gives it; computed by `criterion` if None.
        criterion: see `block_scores`; `why_not_criterion` says which a pattern takes.
        alpha: see `block_scores`.

    Returns:
        Bool of the weight's shape, true where a weight is kept.

    Raises:
        PlanError: the sparsity, pattern, criterion or scores cannot be used.
    """
    if not 0 <= sparsity <= 1:
        raise PlanError(f"sparsity must lie in [0, 1], but got {sparsity:g}")
    _check_weight(weight.shape)
    family = family_of(pattern)
    _check_criterion(pattern, criterion, alpha)
    if why := family.why_not_sparsity(pattern, sparsity):
        raise PlanError(why)
    return family.mask(weight, pattern, sparsity, criterion=criterion, scores=scores, alpha=alpha)


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


def why_not_criterion(pattern: Pattern, criterion: str) -> str:
    """Says why the units of a pattern cannot be scored by a criterion; empty if they can.

    Raises:
        PlanError: no family knows the pattern.
    """
    if criterion not in CRITERIA:
        return f"a criterion must be one of {', '.join(CRITERIA)}, but got {criterion!r}"
    return family_of(pattern).why_not_criterion(pattern, criterion)


def _check_criterion(pattern: Pattern, criterion: str, alpha: float) -> None:
    if why := why_not_criterion(pattern, criterion):
        raise PlanError(why)
    if not (alpha >= 0 and math.isfinite(alpha)):
        raise PlanError(f"alpha must be a finite number of at least 0, but got {alpha:g}")


def _check_weight(shape: tuple[int, ...]) -> None:
    if len(shape) < 2 or 0 in shape:
        raise PlanError(f"a weight must be [outputs, inputs, taps...], but got shape {shape}")
