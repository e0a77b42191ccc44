"""What can be refused before any work, and before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path

from autosparse import data, hardware, models
from autosparse.compare.peer import chosen
from autosparse.compare.records import Asked
from autosparse.database.schema import check_file, parse_url
from autosparse.deploy import load
from autosparse.devices import kind_and_number
from autosparse.devices.device import find
from autosparse.errors import UsageError
from autosparse.kernels.compact import check_compact, expanding_kernels
from autosparse.models.weight_files import check_weights
from autosparse.plans.plan import Plan


def check(asked: Asked) -> None:
    """Refuses what cannot work.

    Raises:
        ModelError: no such model, or its weight file is missing, damaged or something else.
        DataError: no such calibration data.
        PlanError: the plan cannot be read, or names kernels that `compact_weights` leaves out.
        UsageError: nothing to compare, more threads than cores, a missing file, an unknown peer, or an
            exported file that runs kernels which `compact_weights` leaves out.
        MissingDependency: a peer named, or the library that the model needs, is not installed.
    """
    models.check_source(asked.subject.model)
    if asked.subject.weights is not None:
        check_weights(Path(asked.subject.weights))
    if asked.subject.calibration is not None:
        data.check_source(asked.subject.calibration)
    if asked.plan is not None:
        plan = Plan.load(asked.plan)
        if asked.compact_weights:
            check_compact(plan)
    if asked.artifact is not None:
        _check_artifact(Path(asked.artifact), compact=asked.compact_weights)
    usable = hardware.usable_cores()
    for threads in asked.threads:
        if not 1 <= threads <= usable:
            raise UsageError(
                f"threads must be at most the {usable} cores this process may use, but got {threads}"
            )
    if asked.untuned and asked.database is not None:
        raise UsageError(
            f"what shall run untuned reads no tuning database, but got {asked.database}; leave out "
            "--untuned or --database"
        )
    if asked.database is not None:
        check_file(parse_url(asked.database), "database")
    kind, _ = kind_and_number(asked.device)
    if kind != "cpu":
        find(asked.device)
    peers = chosen(asked.against, kind)
    if not (peers or _has_own(asked)):
        raise UsageError(
            "a comparison needs somebody to run, but every engine is left out, ours too; leave out "
            "--no-dense, or name another by --against"
        )
    if asked.peers_masked and not peers:
        raise UsageError("--peers-masked needs other engines, but there are none; leave it out")


def _check_artifact(path: Path, *, compact: bool) -> None:
    if not os.path.isfile(path):
        raise UsageError(f"--artifact must name a file, but there is none at {path}")
    with load(path, threads=1) as loaded:  # refuses what is damaged
        expanding = [each.kernel for each in loaded.layers if each.kernel in expanding_kernels()]
    if compact and expanding:
        raise UsageError(
            f"with --compact-weights an artifact must run kernels that do not expand weights, but "
            f"{path} runs {expanding[0]}; leave --compact-weights out, or export again with it"
        )


def _has_own(asked: Asked) -> bool:
    return bool(asked.dense or asked.sparsities or asked.plan or asked.artifact)
