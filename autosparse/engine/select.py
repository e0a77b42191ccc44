"""Which kernel runs each layer, and why.

The zeros decide the structure: a plan names kernels, and the tuning database knows which is fastest,
but neither can make a block vanish that holds a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosparse.engine.measured import Found, MeasuredRows
from autosparse.errors import PlanError
from autosparse.graph import Graph, Node, Op, layer_nodes
from autosparse.graph.ir import FloatArray
from autosparse.kernels import spec
from autosparse.kernels.spec import KernelSpec
from autosparse.patterns import CANDIDATES, BlockStructure, find_structure
from autosparse.patterns.structure import STRAY_ZEROS
from autosparse.plan import Plan
from autosparse.records import DENSE, LayerInfo, LayerShape, Pattern, onexn

# Without measurements a structure must prune at least this fraction of its blocks to be used. Blocks of
# few outputs reuse each input they load less, so they break even with the dense kernel later. From 3x3
# and 1x1 layers of 16 to 1024 channels, 75 % pruned, each N with its default kernel on an AVX-512 core.
BREAK_EVEN: Mapping[int, float] = {64: 0.1, 32: 0.1, 16: 0.2, 8: 0.2, 4: 0.25, 2: 0.45, 1: 0.7}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How one layer runs.

    Attributes:
        pattern: dense or 1xN.
        structure: kept blocks; None when dense.
        sparsity: fraction of pruned blocks; 0 when dense.
        kernel: the kernel, None for the executor's own default.
        why: how the choice came about, for a person.
    """

    pattern: Pattern = DENSE
    structure: BlockStructure | None = None
    sparsity: float = 0.0
    kernel: KernelSpec | None = None
    why: str = ""


def select(
    graph: Graph, plan: Plan | None, measured: MeasuredRows, dtype: str = "f32"
) -> dict[str, Selection]:
    """Chooses for every layer of a fused graph to run in `dtype`; gives node name to selection.

    Order of precedence: the plan's kernel; the fastest measured kernel over all structures that express
    the zeros, dense included; the executor's default for the largest such structure.

    Raises:
        PlanError: the plan's kernel cannot run its layer, or the weight lacks the plan's zeros.
        UsageError: the plan names a kernel that does not exist.
    """
    chosen = {}
    for node, layer in layer_nodes(graph):
        if node.op is not Op.CONV:
            chosen[node.name] = Selection(why="; ".join(layer.why_dense))
            continue
        candidates = _candidates(node)
        planned = _planned(node, layer, plan, dtype)
        chosen[node.name] = (
            planned
            or _measured(layer.shape, candidates, measured)
            or _default(candidates, measured.note or "no measured kernel for this layer")
        )
    return chosen


def _candidates(node: Node) -> tuple[Selection, ...]:
    """Gives the ways to store a layer: sparse ones best first, then dense."""
    assert node.weight is not None
    live = _live(node.weight)
    heights = _useful_heights(live)
    found = find_structure(live, candidates=heights) if heights else ()
    return (*(_stored(structure, live.shape[1]) for structure in found), Selection())


def _live(weight: FloatArray) -> NDArray[np.bool_]:
    """Gives which (output, input) pairs have any non-zero weight."""
    live: NDArray[np.bool_] = weight[:, :, 0, 0] != 0
    for row, column in np.ndindex(*weight.shape[2:]):
        live |= weight[:, :, row, column] != 0
    return live


def _useful_heights(live: NDArray[np.bool_]) -> tuple[int, ...]:
    """Gives the block heights at which whole blocks are dead.

    Blocks of one and two outputs count only where they leave out clearly more weights than blocks twice
    their height: their kernels are slower, and their lists of a large linear layer would be huge.
    """
    heights, blocks, height = [], live, 1
    stored: dict[int, int] = {}
    while height <= max(CANDIDATES):
        stored[height] = int(np.count_nonzero(blocks)) * height
        if stored[height] < blocks.size * height:
            heights.append(height)
        blocks = np.logical_or.reduceat(blocks, np.arange(0, len(blocks), 2), axis=0)
        height *= 2
    return tuple(n for n in heights if n >= 4 or stored[n] < (1 - STRAY_ZEROS) * stored[2 * n])


def _stored(structure: BlockStructure, in_channels: int) -> Selection:
    return Selection(
        pattern=onexn(structure.block_n, uniform=structure.is_uniform),
        structure=structure,
        sparsity=structure.sparsity(in_channels),
    )


# ----------------------------------------------------------------------------------------- by plan


def _planned(node: Node, layer: LayerInfo, plan: Plan | None, dtype: str) -> Selection | None:
    """Gives what the plan says; None if it names no kernel."""
    if plan is None:
        return None
    choice = plan.choice(layer.name)
    assert node.weight is not None
    _check_zeros(node, layer.name, plan)
    if choice.kernel is None:
        return None
    kernel = spec.get(choice.kernel)
    way = Selection()
    if kernel.block_n:
        way = _stored(BlockStructure.from_weight(node.weight, kernel.block_n), node.weight.shape[1])
    reasons = spec.why_not(kernel, layer.shape, way.pattern) if layer.shape else ()
    if kernel.dtype != dtype:
        reasons = (*reasons, f"it computes in {kernel.dtype}, and the model runs in {dtype}")
    if reasons:
        raise PlanError(
            f"the plan's kernel must be able to run its layer, but {kernel.name} cannot run "
            f"{layer.name!r} here: {'; '.join(reasons)}; search again on this machine"
        )
    return Selection(
        pattern=way.pattern,
        structure=way.structure,
        sparsity=way.sparsity,
        kernel=kernel,
        why="named by the plan",
    )


def _check_zeros(node: Node, name: str, plan: Plan) -> None:
    """Refuses a weight that holds clearly fewer zero blocks than the plan prescribes."""
    choice = plan.choice(name)
    if choice.pattern.is_dense or choice.sparsity == 0:
        return
    assert node.weight is not None
    in_channels = node.weight.shape[1]
    structure = BlockStructure.from_weight(node.weight, choice.pattern.group_out)
    # Patterns round the number of pruned blocks down.
    if structure.sparsity(in_channels) <= choice.sparsity - 1 / in_channels - 1e-9:
        raise PlanError(
            f"the weight of layer {name!r} must hold the plan's zeros, {choice.label}, but "
            f"{structure.sparsity(in_channels):.3g} of its blocks are zero; "
            "apply autosparse.sparsify(model, plan) first"
        )


# ----------------------------------------------------------------------------------- by measurement


def _measured(
    shape: LayerShape | None, candidates: tuple[Selection, ...], measured: MeasuredRows
) -> Selection | None:
    """Gives the candidate with the fastest measured kernel; None if nothing sparse was measured.

    Rows of the dense kernel alone say nothing about a sparse structure, unless nothing else is there.
    """
    if shape is None:
        return None
    found = [(measured.fastest(shape, way.pattern, way.sparsity), way) for way in candidates]
    known = [(row, way) for row, way in found if row is not None]
    if not known or (len(candidates) > 1 and all(way.structure is None for _, way in known)):
        return None
    row, way = min(known, key=lambda pair: pair[0].median_us)
    return Selection(
        pattern=way.pattern,
        structure=way.structure,
        sparsity=way.sparsity,
        kernel=spec.get(row.row.key.kernel),
        why=_why_fastest(row, sum(each.rivals for each, _ in known)),
    )


def _why_fastest(found: Found, rivals: int) -> str:
    label = f"{found.row.key.pattern}@{found.row.sparsity:.3g}"
    return f"fastest of {rivals} measured: {found.median_us:.4g} us as {label}"


# --------------------------------------------------------------------------------------- by default


def _default(candidates: tuple[Selection, ...], note: str) -> Selection:
    best = candidates[0]
    if best.structure is None:
        return Selection(why=f"its zeros make no 1xN blocks; {note}: the executor's default")
    needed = BREAK_EVEN[best.structure.block_n]
    if best.sparsity < needed:
        label = f"{best.pattern.name}@{best.sparsity:.3g}"
        return Selection(why=f"{label} prunes less than {needed:g} of the blocks; {note}: dense")
    return Selection(
        pattern=best.pattern,
        structure=best.structure,
        sparsity=best.sparsity,
        why=f"{note}: the executor's default for the largest blocks that the zeros allow",
    )
