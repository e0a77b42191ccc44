"""`export`: a module of the user's own into an artifact, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from autosparse.database import TuningDatabase
from autosparse.deploy import Manifest
from autosparse.deploy.artifact import check_target
from autosparse.deploy.endings import check_ending
from autosparse.engine.compiling import compile
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy


def export(
    model: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    path: Path | str,
    *,
    name: str = "",
    dtype: str | None = None,
    threads: int | None = None,
    plan: Plan | None = None,
    database: TuningDatabase | str | None = None,
    accuracy: Accuracy | None = None,
    measure: bool = True,
    overwrite: bool = False,
    compact_weights: bool = False,
) -> Manifest:
    """Compiles a module and writes it into one file, which `autosparse.load` runs without torch.

    Args:
        model: the module, its zeros in place; see `compile`.
        example_inputs: positional inputs; their shapes are final, batch included.
        path: the file; its name ends in ``.autosparse``.
        name: the model's name, for whoever finds the file.
        dtype: as in `compile`.
        threads: as in `compile`, for measuring and choosing kernels; a loaded model has its own.
        plan: as in `compile`; kept in the file.
        database: as in `compile`.
        accuracy: of these weights, to keep in the file.
        measure: measures the latency, to keep it in the file.
        overwrite: replaces an existing file.
        compact_weights: as in `compile`; where a loaded model lacks the file's kernels, it chooses
            among all.

    Returns:
        What the file says of itself.

    Raises:
        UsageError: a bad argument, a model that runs through torch, a file that exists or whose ending
            is another.
        ModelError: torch cannot export the model.
        PlanError: the plan does not fit the model, its weights, or this machine.
        RunError: the file cannot be written.
    """
    target = Path(path)
    check_target(target, overwrite)
    check_ending(target, "artifact")
    compiled = compile(
        model,
        example_inputs,
        dtype=dtype,
        threads=threads,
        plan=plan,
        database=database,
        exportable=True,
        compact_weights=compact_weights,
    )
    with compiled:
        latency = compiled.measure() if measure else None
        return compiled.save(
            target, model=name, plan=plan, accuracy=accuracy, latency=latency, overwrite=overwrite
        )
