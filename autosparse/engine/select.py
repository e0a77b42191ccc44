"""Which kernel runs each layer, and why.

The zeros decide the structure: a plan names kernels, and the tuning database knows which is fastest,
but neither can make a block vanish that holds a weight.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autosparse.engine.measured import Found, MeasuredRows
from autosparse.errors import PlanError
from autosparse.graph import Graph, Node, Op, layer_nodes
from autosparse.kernels import spec
from autosparse.kernels.layer import structure_of
from autosparse.kernels.spec import KernelSpec
from autosparse.patterns import BlockStructure, all_families, family_of
from autosparse.patterns.family import Found as PatternFound
from autosparse.patterns.pattern import Contract
from autosparse.patterns.structure import Array, live_kernels
from autosparse.plans.plan import Plan
from autosparse.records import DENSE, LayerInfo, LayerShape, Pattern, onexn

# Without measurements a structure must prune at least this fraction of its blocks to be used. Blocks of
# few outputs reuse each input they load less, so they break even with the dense kernel later. From 3x3
# and 1x1 layers of 16 to 1024 channels, 75 % pruned, each N with its default kernel on an AVX-512 core;
# those of 2 and 1 lie above 0.5 and 0.75, where ResNet-18 as a whole lost against Winograd's filtering.
BREAK_EVEN: Mapping[int, float] = {64: 0.1, 32: 0.1, 16: 0.2, 8: 0.2, 4: 0.25, 2: 0.55, 1: 0.8}

# Larger blocks are kept, which take fewer indices, unless smaller ones are expected to be this much
# faster: less than the model errs by.
CLEARLY = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How one layer runs.

    Attributes:
        pattern: dense or sparse, as coarse a one as the zeros show.
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
    graph: Graph,
    plan: Plan | None,
    measured: MeasuredRows,
    dtype: str = "f32",
    *,
    use_zeros: bool = True,
    compact_weights: bool = False,
) -> dict[str, Selection]:
    """Chooses for every layer of a fused graph to run in `dtype`; gives node name to selection.

    Order of precedence: the plan's kernel; the fastest measured kernel over all structures that express
    the zeros, dense included; the executor's default for the one that it expects to be fastest.

    A layer that the plan names as dense runs dense, and without `use_zeros` every layer does that the
    plan does not make sparse, whatever its weight holds. A kernel that the executor refuses in the end
    is replaced when the program is built.

    Raises:
        PlanError: the plan's kernel computes in another type, or the weight lacks the plan's zeros.
        UsageError: the plan names a kernel that does not exist.
    """
    chosen = {}
    for node, layer in layer_nodes(graph):
        if node.op is not Op.CONV:
            chosen[node.name] = Selection(why="; ".join(layer.why_dense))
            continue
        told = _told_dense(layer, plan, use_zeros)
        candidates = (Selection(),) if told else ways(node)
        planned = _planned(node, layer, plan, dtype)
        note = measured.note or "no measured kernel for this layer"
        chosen[node.name] = (
            planned
            or _measured(layer.shape, candidates, measured)
            or (Selection(why=f"{told}; {note}: the executor's default") if told else None)
            or _expected(layer.shape, candidates, note, dtype, compact_weights)
        )
    return chosen


def _told_dense(layer: LayerInfo, plan: Plan | None, use_zeros: bool) -> str:
    """Gives why a layer has to run dense although its weight may hold zeros, or an empty text."""
    choice = None if plan is None else plan.layers.get(layer.name)
    if choice is not None and choice.pattern.is_dense:
        return "dense by the plan"
    return "" if use_zeros or choice is not None else "zeros are not to be used"


def held_zeros(graph: Graph) -> dict[str, Selection]:
    """Gives the layers whose weights hold enough blocks of zeros to run sparse, and how they would."""
    found = {}
    for node, layer in layer_nodes(graph):
        if node.op is Op.CONV and (worth := _worth_it(ways(node))):
            found[layer.name] = worth[0]
    return found


def ways(node: Node) -> tuple[Selection, ...]:
    """Gives the ways to store a layer: sparse ones best first, then dense."""
    assert node.weight is not None
    live = live_kernels(node.weight)
    lists = [found for family in all_families().values() if (found := _runnable(family.find(live)))]
    # The finest family knows all structures, and so their order; what a coarser one shows says more.
    lists.sort(key=lambda found: min(_rank(pattern) for pattern in found))
    shown: dict[Contract, Pattern] = {}
    for pattern in itertools.chain.from_iterable(lists):
        contract = family_of(pattern).contract(pattern)
        if contract not in shown or _rank(pattern) > _rank(shown[contract]):
            shown[contract] = pattern
    return (*(_stored(live, pattern) for pattern in shown.values()), Selection())


def _runnable(found: Sequence[PatternFound]) -> list[Pattern]:
    """Gives the patterns for which there are kernels."""
    contracts = {kernel.contract for kernel in spec.all_kernels()}
    return [one.pattern for one in found if family_of(one.pattern).contract(one.pattern) in contracts]


def _rank(pattern: Pattern) -> float:
    return family_of(pattern).rank(pattern)


def _stored(weight: Array, pattern: Pattern) -> Selection:
    structure = structure_of(weight, pattern)
    uniform = pattern.uniform and structure.is_uniform
    return Selection(
        pattern=dataclasses.replace(pattern, uniform=uniform),
        structure=structure,
        sparsity=structure.sparsity(weight.shape[1]),
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
        wanted = plan.choice(layer.name).pattern
        is_made_for = family_of(wanted).contract(wanted) == kernel.contract
        way = _stored(node.weight, wanted if is_made_for else onexn(kernel.block_n))
    if kernel.dtype != dtype:
        raise PlanError(
            f"a plan's kernels must compute in the type of its model, {dtype}, but {kernel.name} of "
            f"{layer.name!r} computes in {kernel.dtype}; name a kernel of {dtype}, or none"
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
    family = family_of(choice.pattern)
    found = family.sparsity_of(node.weight, choice.pattern)
    # Patterns round the number of pruned units down.
    if found < family.achieved(choice.pattern, node.weight.shape, choice.sparsity) - 1e-9:
        raise PlanError(
            f"the weight of layer {name!r} must hold the plan's zeros, {choice.label}, but "
            f"{found:.3g} of its blocks are zero; "
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


def _worth_it(candidates: tuple[Selection, ...]) -> list[Selection]:
    """Gives the sparse ways that prune enough for their blocks, if the best does; best first."""
    sparse = [(way, way.structure) for way in candidates if way.structure is not None]
    enough = [way for way, structure in sparse if way.sparsity >= BREAK_EVEN[structure.block_n]]
    return enough if enough and enough[0] is candidates[0] else []


def _expected(
    shape: LayerShape | None,
    candidates: tuple[Selection, ...],
    note: str,
    dtype: str,
    compact_weights: bool,
) -> Selection:
    """Gives the way that the executor expects to be fastest, dense included."""
    best, worth = candidates[0], _worth_it(candidates)
    if best.structure is None:
        return Selection(why=f"its zeros make no 1xN blocks; {note}: the executor's default")
    if not worth:
        needed = BREAK_EVEN[best.structure.block_n]
        return Selection(why=f"{_label(best)} prunes less than {needed:g} of the blocks; {note}: dense")
    if shape is None:
        return dataclasses.replace(worth[0], why=f"{note}: the executor's default")

    *sparse, dense = (
        spec.expected_cycles(shape, way.pattern, way.sparsity, dtype, compact_weights=compact_weights)
        for way in (*worth, Selection())
    )
    index = next(i for i, cycles in enumerate(sparse) if cycles <= CLEARLY * min(sparse))
    fastest, times = worth[index], sparse[index] / dense
    if times > 1:
        return Selection(why=f"{_label(fastest)} {_taking(times)}; {note}: dense")
    why = f"{note}: the executor's default for {_label(fastest)}, which {_taking(times)}"
    return dataclasses.replace(fastest, why=why)


def _taking(times: float) -> str:
    return f"is expected to take {times:.2g} times as long as dense"


def _label(way: Selection) -> str:
    return f"{way.pattern.name}@{way.sparsity:.3g}"
