"""What kernels are compiled for: one variant per kind of layer and launch parameters.

Sizes are those that the sources give (`cuda/layer.cuh`), worked out here too, so that what does not fit
on a chip is known before anything is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass

from autosparse.kernels.gpu.chips import Chip
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.methods.sparse_mma.packing import BYTES_PER_OUTPUT, STEP
from autosparse.records import Activation, LayerShape
from autosparse.storage.serial import Record

_TYPES = {"bf16": "Bf16", "f16": "F16"}
_WRITER_BYTES = {"mma": 4 * 8 * (32 + 4), "wgmma": 2 * 4 * 16 * (16 + 4)}
MULTIPLYING_THREADS = 256
"""Of wgmma; 128 more copy."""
_CLUSTER = 2  # the multiprocessors that any Hopper has side by side
_BARRIER_BYTES = 16  # of a stage: when it is full, and when it is free


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant(Record):
    """A kernel as it is compiled.

    Attributes:
        instruction: ``mma`` or ``wgmma``: which of the two sources.
        dtype: ``bf16`` or ``f16``.
        launch: outputs and pixels of a block, warps, stages, blocks per multiprocessor.
        cluster: blocks that share fetches of weights.
        is_spatial: whether an output pixel reads others than its own input.
        residual: whether one is added.
        activation: the function that comes last.
    """

    instruction: str
    dtype: str
    launch: Launch
    cluster: int = 1
    is_spatial: bool
    residual: bool
    activation: Activation

    @property
    def arguments(self) -> str:
        """Arguments of the source's template ``Variant``."""
        sizes = self.launch
        numbers = (sizes.bn, sizes.bm, sizes.warps, sizes.stages, sizes.ctas, self.cluster)
        flags = (str(flag).lower() for flag in (self.is_spatial, self.residual))
        return ", ".join([_TYPES[self.dtype], *map(str, numbers), *flags, self.activation.name])

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.launch.warps

    @property
    def stage_bytes(self) -> int:
        """Of one stage: rows of inputs, and a block of weights."""
        return _up(self.launch.bm * STEP * 2 + self.launch.bn * BYTES_PER_OUTPUT, 1024)

    @property
    def shared_bytes(self) -> int:
        """Of shared memory that a block asks for."""
        stages = self.launch.stages * self.stage_bytes
        table = self.launch.bm * 8 if self.is_spatial else 0
        if self.instruction == "mma":
            return stages + table + self.launch.warps * _WRITER_BYTES["mma"]
        barriers = self.launch.stages * _BARRIER_BYTES
        return stages + table + barriers + MULTIPLYING_THREADS // 32 * _WRITER_BYTES["wgmma"]


def variant_of(instruction: str, dtype: str, shape: LayerShape, launch: Launch) -> Variant:
    """Gives the variant that a layer needs."""
    is_pointwise = shape.kernel == shape.stride == (1, 1) and shape.padding == (0, 0)
    pixels = shape.batch_size * shape.out_height * shape.out_width
    return Variant(
        instruction=instruction,
        dtype=dtype,
        launch=launch,
        cluster=_CLUSTER if instruction == "wgmma" and pixels > launch.bm else 1,
        is_spatial=not is_pointwise,
        residual=shape.residual,
        activation=shape.activation,
    )


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def fits(variant: Variant, chip: Chip) -> bool:
    """Whether as many blocks as it is made for fit on a multiprocessor, by their shared memory."""
    blocks = chip.blocks_resident(threads=variant.threads, registers=1, smem_bytes=variant.shared_bytes)
    return blocks >= variant.launch.ctas
