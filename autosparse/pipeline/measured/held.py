"""Rows held to the whole: whatever tuning chose, the dense model must not run slower by it."""

from __future__ import annotations

import torch

from autosparse import models
from autosparse.engine import compile
from autosparse.engine.compiling import KNOWN
from autosparse.pipeline.subject.survey import Survey
from autosparse.progress import Progress
from autosparse.searching.cluster import HERE


def hold_to_the_whole(subject: Survey, progress: Progress) -> tuple[str, ...]:
    """Runs the dense model with its rows in turn with what the executor's rule picks, in every type.

    Rows that make it slower are replaced by what their kernels took inside the model; see
    `engine.contest`.

    Returns:
        What was found, a sentence per type.

    Raises:
        Stopped: a stop was requested.
    """
    if subject.host.name != HERE:
        return (
            f"rows of {subject.host.name} were not held to whole models: that is done at home only",
        )
    module = models.resolve(subject.config.model, classes=subject.classes).module
    sample = torch.zeros(subject.config.batch_size, *subject.input_shape)
    told = []
    for dtype in subject.dtypes:
        with compile(
            module,
            (sample,),
            dtype=dtype,
            threads=subject.threads,
            database=subject.database,
            compact_weights=subject.config.compact_weights,
            use_zeros=False,
            tune=KNOWN,
            progress=progress,
        ) as compiled:
            told.append(f"dense in {dtype}: {compiled.tuning}")
    return tuple(told)
