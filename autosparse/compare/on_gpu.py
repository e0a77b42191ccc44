"""Another engine's module on a GPU: captured in a CUDA graph behind the same border as ours.

So everybody's figure holds the same: inputs copied to where the graph reads them, one replay, results
copied out, by the GPU's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autosparse.compare.peer import Running, Unsupported
from autosparse.compare.task import Task

if TYPE_CHECKING:
    from torch import nn


def running(task: Task, change: Callable[[nn.Module], Any] | None = None) -> Running:
    """Runs a task's module in bf16, channels last, in a CUDA graph.

    Args:
        task: whose model is run, on its device.
        change: gives what runs in place of the module on the device, such as a compiled one; None runs
            the module.

    Raises:
        Unsupported: the module cannot be captured; says why.
    """
    import torch

    from autosparse.engine.gpu.compiling import place_of
    from autosparse.engine.gpu.runner import GpuRunner

    device = place_of(task.device).device
    module = task.module().eval().to(device, torch.bfloat16)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = task.tensor()
    torch.backends.cudnn.benchmark = True  # its algorithms are tried, as whoever deploys it would
    runner = GpuRunner(
        module,
        (x,),
        dtype=torch.bfloat16,
        device=device,
        results=None,
        engine="torch",
        run_graph=None if change is None else change(module),
    )
    if runner.why_not_captured:
        runner.close()
        raise Unsupported(f"it cannot be captured in a CUDA graph: {runner.why_not_captured}")

    def outputs() -> Sequence[NDArray[Any]]:
        return [np.asarray(leaf.float().cpu().numpy()) for leaf in runner.run((x,))]

    return Running(run=lambda count: runner.time((x,), count), outputs=outputs, close=runner.close)
