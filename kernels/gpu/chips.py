"""What the multiprocessors of each architecture have: limits of kernels, and rates for forecasts.

Source: NVIDIA, CUDA C++ Programming Guide, appendix "Compute Capabilities" (technical specifications);
rates of matrix instructions from the architectures' white papers: dense products with float32 sums,
over multiprocessors and boost clock (A100: 312e12 / (108 * 1.41e9) = 2048; H100 SXM:
989.4e12 / (132 * 1.83e9) = 4096; RTX 3090: 71e12 / (82 * 1.695e9) = 512; RTX 4090: 165.2e12 /
(128 * 2.52e9) = 512).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autosparse.storage.serial import Record

SMEM_RESERVED_BYTES = 1024
"""Shared memory that the driver takes of every block, from compute capability 8.0 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip(Record):
    """A multiprocessor of one compute capability.

    Attributes:
        capability: major and minor.
        name: of the architecture.
        target: what code for it is compiled for, such as ``sm_80``; ``sm_90a`` has what is of this
            architecture alone.
        smem_bytes: shared memory of a multiprocessor.
        smem_block_bytes: shared memory that one block may have at most.
        warps: resident warps at most.
        blocks: resident blocks at most.
        flops_per_clock: operations of 16-bit matrix instructions per clock, dense.
        fp8_factor: times as many with 8-bit floats; 0 without such instructions.
        sparse_factor: times as many with 2:4 operands; 1 without such instructions.
        smem_bytes_per_clock: bytes between shared memory and the rest per clock.
        registers: 32-bit registers of a multiprocessor.
        thread_registers: registers that one thread may have at most.
    """

    capability: tuple[int, int]
    name: str
    target: str
    smem_bytes: int
    smem_block_bytes: int
    warps: int
    blocks: int
    flops_per_clock: int
    fp8_factor: int
    sparse_factor: int = 2
    smem_bytes_per_clock: int = 128
    registers: int = 65_536
    thread_registers: int = 255

    @property
    def has_wgmma(self) -> bool:
        """Whether four warps multiply together, from shared memory."""
        return self.capability[0] == 9

    def blocks_resident(self, *, threads: int, registers: int, smem_bytes: int) -> int:
        """Gives how many blocks of a kernel a multiprocessor holds at a time; 0 if none fits.

        Args:
            threads: of a block.
            registers: of a thread.
            smem_bytes: of a block, without what the driver takes.
        """
        warps = -(-threads // 32)
        if smem_bytes > self.smem_block_bytes or registers > self.thread_registers:
            return 0
        by_registers = self.registers // (_up(max(registers, 1) * 32, 256) * warps)
        by_smem = self.smem_bytes // _up(smem_bytes + SMEM_RESERVED_BYTES, 128)
        return min(self.warps // warps, self.blocks, by_registers, by_smem)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


_KIB = 1024
_CHIPS = (
    Chip(
        capability=(8, 0), name="Ampere", target="sm_80", smem_bytes=164 * _KIB,
        smem_block_bytes=163 * _KIB, warps=64, blocks=32, flops_per_clock=2048, fp8_factor=0,
    ),
    Chip(
        capability=(8, 6), name="Ampere", target="sm_86", smem_bytes=100 * _KIB,
        smem_block_bytes=99 * _KIB, warps=48, blocks=16, flops_per_clock=512, fp8_factor=0,
    ),
    Chip(
        capability=(8, 7), name="Ampere", target="sm_87", smem_bytes=164 * _KIB,
        smem_block_bytes=163 * _KIB, warps=48, blocks=16, flops_per_clock=1024, fp8_factor=0,
    ),
    Chip(
        capability=(8, 9), name="Ada", target="sm_89", smem_bytes=100 * _KIB,
        smem_block_bytes=99 * _KIB, warps=48, blocks=24, flops_per_clock=512, fp8_factor=2,
    ),
    Chip(
        capability=(9, 0), name="Hopper", target="sm_90a", smem_bytes=228 * _KIB,
        smem_block_bytes=227 * _KIB, warps=64, blocks=32, flops_per_clock=4096, fp8_factor=2,
    ),
)  # fmt: skip

CHIPS: Mapping[tuple[int, int], Chip] = {chip.capability: chip for chip in _CHIPS}
"""Compute capability to its multiprocessor: the architectures that kernels here are made for."""


def chip_of(capability: str) -> Chip | None:
    """Gives the multiprocessor of a compute capability such as ``9.0``; None if it is not known."""
    major, _, minor = capability.partition(".")
    return CHIPS.get((int(major), int(minor or 0)))
