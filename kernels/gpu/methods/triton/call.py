"""One launch of a kernel: run on a GPU, interpreted on the CPU, or compiled for a chip far away."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from autosparse.kernels.gpu import resources
from autosparse.kernels.gpu.chips import Chip
from autosparse.kernels.gpu.methods.triton.loading import device_code

_REGISTERS, _THREAD_REGISTERS = 65_536, 255  # of a multiprocessor and a thread, on every chip there is


def registers(warps: int, ctas: int) -> int:
    """Gives the registers that a thread may take.

    Args:
        warps: of a program.
        ctas: programs that share a multiprocessor.
    """
    return min(_REGISTERS // (ctas * warps * 32) // 8 * 8, _THREAD_REGISTERS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """A launch.

    Attributes:
        kernel: its name.
        arguments: of its parameters: tensors, whole numbers, constants, None for tensors left out.
        programs: how many run.
        warps: per program.
        stages: of its main loop.
        ctas: programs per multiprocessor, which have to share its registers.
    """

    kernel: str
    arguments: Mapping[str, Any]
    programs: int
    warps: int
    stages: int
    ctas: int = 1

    def options(self) -> dict[str, int]:
        """Gives options of the compiler."""
        return {
            "num_warps": self.warps,
            "num_stages": self.stages,
            "maxnreg": registers(self.warps, self.ctas),
        }

    def without_rows(self) -> Call:
        """Gives the same kernel with nothing to do."""
        nothing = {"items": 0, "rows": 0}
        arguments = {name: nothing.get(name, value) for name, value in self.arguments.items()}
        return dataclasses.replace(self, arguments=arguments, programs=1)

    def run(self) -> None:
        """Runs it where its tensors are, on the current stream."""
        is_interpreted = self.arguments["INTERPRETED"]
        kernel = device_code(is_interpreted=is_interpreted)[self.kernel]
        if is_interpreted:
            kernel[(self.programs,)](**self.arguments)
            return
        with torch.cuda.device(self.arguments["x" if "x" in self.arguments else "parts"].device):
            kernel[(self.programs,)](**self.arguments, **self.options())

    def compiled(self, chip: Chip) -> resources.Compiled:
        """Compiles it as `run` would there; tensors may be on any device, also ``meta``."""
        kernel = device_code(is_interpreted=False)[self.kernel]
        arguments = dict(self.arguments, INTERPRETED=False)
        return resources.compile_only(kernel, arguments, chip, **self.options())
