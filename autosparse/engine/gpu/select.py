"""Which kernel runs each layer of a model on a GPU, and why.

As on processors the zeros decide the structure; a plan names kernels, and the tuning database knows
which is fastest. Without rows a layer runs dense unless a plan says otherwise: what nobody has measured
is no reason to take a sparse kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autosparse.engine.measured import MeasuredRows
from autosparse.errors import NoKernel, PlanError
from autosparse.graph.sites import Site
from autosparse.kernels.gpu import method as methods
from autosparse.kernels.gpu.chips import Chip
from autosparse.kernels.gpu.method import FloatArray, GpuKernel
from autosparse.patterns import all_families, family_of
from autosparse.patterns.pattern import Contract
from autosparse.patterns.tile_structure import TileStructure
from autosparse.plans.plan import Plan
from autosparse.records import DENSE, LayerChoice, LayerInfo, LayerShape, Pattern

TILES = "tw"
"""The kind of contract that kernels of tiles have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSelection:
    """How one layer runs.

    Attributes:
        kernel: what runs it; None leaves it to torch.
        launch: its launch parameters.
        pattern: dense or tiles.
        structure: the tiles; None when dense.
        sparsity: fraction of zeros; 0 when dense.
        why: how the choice came about, for a person.
    """

    kernel: GpuKernel | None = None
    launch: str = ""
    pattern: Pattern = DENSE
    structure: TileStructure | None = None
    sparsity: float = 0.0
    why: str

    @property
    def runs(self) -> str:
        """The kernel with its launch parameters, as rows and plans name it."""
        if self.kernel is None:
            return "torch"
        return f"{self.kernel.name}[{self.launch}]" if self.launch else self.kernel.name


def select(
    site: Site,
    layer: LayerInfo,
    plan: Plan | None,
    measured: MeasuredRows,
    dtype: str,
    chip: Chip,
    *,
    use_zeros: bool = True,
) -> GpuSelection:
    """Chooses how a layer runs.

    Order of precedence: the plan's kernel; the fastest measured kernel of all structures that express
    the zeros, dense included; for a layer that a plan makes sparse the first kernel that can; dense.

    Args:
        site: the layer in torch's graph.
        layer: the same as plans know it.
        plan: what to follow; None without.
        measured: rows of the GPU.
        dtype: arithmetic type.
        chip: what the GPU is made of.
        use_zeros: False runs dense what the plan does not make sparse.

    Raises:
        PlanError: the plan's kernel computes in another type, or the weight lacks the plan's zeros.
        UsageError: the plan names a kernel that does not exist.
    """
    if layer.shape is None:
        return GpuSelection(why="; ".join(layer.why_dense) or "its borders are padded unequally")
    choice = None if plan is None else plan.layers.get(layer.name)
    if choice is not None:
        _check_zeros(site.weight, layer.name, choice)
        if choice.kernel is not None:
            return _planned(site, layer, choice, dtype)
    is_told_dense = choice.pattern.is_dense if choice is not None else not use_zeros
    ways = [] if layer.why_dense or is_told_dense else found_tiles(site.weight)
    best = _fastest(layer.shape, site.weight, ways, measured)
    if best is not None:
        return best
    note = measured.note or "no measured kernel for this layer"
    if choice is not None and not choice.pattern.is_dense:
        return _first_sparse(site, layer.shape, choice, dtype, chip, note)
    reason = "; ".join(layer.why_dense) or ("dense by the plan" if is_told_dense else note)
    return _first_dense(layer.shape, dtype, chip, reason)


def found_tiles(weight: FloatArray) -> list[Pattern]:
    """Gives the patterns of tiles that a weight's zeros follow, one per contract, best first."""
    known: dict[Contract, Pattern] = {}
    for family in all_families().values():
        for one in family.find(weight):
            contract = family_of(one.pattern).contract(one.pattern)
            if contract.kind == TILES:
                known.setdefault(contract, one.pattern)
    return list(known.values())


def _check_zeros(weight: FloatArray, name: str, choice: LayerChoice) -> None:
    """Refuses a weight that holds clearly fewer zeros than the plan prescribes."""
    if choice.pattern.is_dense or choice.sparsity == 0:
        return
    family = family_of(choice.pattern)
    found = family.sparsity_of(weight, choice.pattern)
    if found < family.achieved(choice.pattern, weight.shape, choice.sparsity) - 1e-9:
        raise PlanError(
            f"the weight of layer {name!r} must hold the plan's zeros, {choice.label}, but "
            f"{found:.3g} of it is zero; apply autosparse.sparsify(model, plan) first"
        )


def _planned(site: Site, layer: LayerInfo, choice: LayerChoice, dtype: str) -> GpuSelection:
    assert choice.kernel is not None
    name, _, launch = choice.kernel.partition("[")
    kernel = methods.get(name)
    if kernel.dtype != dtype:
        raise PlanError(
            f"a plan's kernels must compute in the type of its model, {dtype}, but {kernel.name} of "
            f"{layer.name!r} computes in {kernel.dtype}; name a kernel of {dtype}, or none"
        )
    dense = kernel.contract != TILES
    return _selection(
        site.weight,
        DENSE if dense else choice.pattern,
        kernel,
        launch.removesuffix("]"),
        "named by the plan",
    )


def _selection(
    weight: FloatArray, pattern: Pattern, kernel: GpuKernel, launch: str, why: str
) -> GpuSelection:
    if pattern.is_dense:
        return GpuSelection(kernel=kernel, launch=launch, why=why)
    return GpuSelection(
        kernel=kernel,
        launch=launch,
        pattern=pattern,
        structure=TileStructure.from_weight(weight, pattern),
        sparsity=1.0 - np.count_nonzero(weight) / weight.size,
        why=why,
    )


def _fastest(
    shape: LayerShape, weight: FloatArray, ways: Sequence[Pattern], measured: MeasuredRows
) -> GpuSelection | None:
    """Gives the fastest of what was measured; None where no dense kernel was, or nothing at all."""
    dense = measured.fastest(shape, DENSE, 0.0)
    if dense is None:
        return None
    sparsity = 1.0 - np.count_nonzero(weight) / weight.size
    found = [(measured.fastest(shape, pattern, sparsity), pattern) for pattern in ways]
    known = [(dense, DENSE), *((row, pattern) for row, pattern in found if row is not None)]
    row, pattern = min(known, key=lambda pair: pair[0].median_us)
    rivals = sum(each.rivals for each, _ in known)
    label = f"{row.row.key.pattern}@{row.row.sparsity:.3g}"
    why = f"fastest of {rivals} measured: {row.median_us:.4g} us as {label}"
    if pattern.is_dense and len(known) > 1:
        other = min(each.median_us for each, way in known if not way.is_dense)
        why += f", {other:.4g} us with its zeros"
    return _selection(weight, pattern, methods.get(row.row.key.kernel), row.row.key.config, why)


def _first_sparse(
    site: Site, shape: LayerShape, choice: LayerChoice, dtype: str, chip: Chip, note: str
) -> GpuSelection:
    """Follows a plan that names no kernel, where nothing was measured."""
    kernel, launch = _first(shape, choice.pattern, dtype, chip)
    why = f"sparse by the plan; {note}: the first kernel that can"
    return _selection(site.weight, choice.pattern, kernel, launch, why)


def _first_dense(shape: LayerShape, dtype: str, chip: Chip, reason: str) -> GpuSelection:
    try:
        kernel, launch = _first(shape, DENSE, dtype, chip)
    except NoKernel as error:
        return GpuSelection(why=f"{reason}; {error}")
    return GpuSelection(kernel=kernel, launch=launch, why=f"{reason}: the library's kernel")


_FIRST = ("cudnn", "cublas", "triton", "sparse_mma", "cusparselt")
"""Methods in the order in which they are taken where nothing was measured."""


def _first(shape: LayerShape, pattern: Pattern, dtype: str, chip: Chip) -> tuple[GpuKernel, str]:
    able = methods.kernels_for(shape, pattern, dtype, chip)
    kernel = min(able, key=lambda each: (*_FIRST, each.method).index(each.method))
    return kernel, methods.method_of(kernel).launches(kernel, shape, pattern, chip)[0]
