"""Weights without training: layers reconstructed alone for the search, whole plans for the report."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch

from autosparse import models
from autosparse.deploy.state_dict import write_state_dict
from autosparse.hardware import usable_cores
from autosparse.pipeline.measured.tables import choices
from autosparse.pipeline.subject.survey import Survey
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.reconstruct import ReconstructionSettings, reconstruct_alone
from autosparse.records import short_hash
from autosparse.run_folders import RunFolder
from autosparse.storage import paths
from autosparse.storage.locks import exclusive
from autosparse.train.evaluate import content_hash, source_file
from autosparse.train.starting import reconstructed

_BATCH_SIZE = 128


def alternatives_for(subject: Survey, weights: Path, progress: Progress) -> Path:
    """Gives a file with every sparse choice of every layer reconstructed alone, made once and kept.

    Args:
        subject: whose space says what layers may become.
        weights: dense weights.
        progress: told of every layer.

    Raises:
        Stopped: a stop was requested; the next call goes on after the last layer.
    """
    wanted = {
        name: [choice for choice in offered if choice.sparsity > 0]
        for name, offered in choices(subject).items()
    }
    settings = ReconstructionSettings(seed=subject.config.seed)
    key = short_hash(
        [
            subject.config.model,
            content_hash(source_file(subject.config.model)),
            content_hash(str(weights)),
            subject.images.id,
            settings.to_json(),
            {name: [choice.label for choice in offered] for name, offered in wanted.items()},
        ],
        16,
    )
    home = paths.writable_folder(paths.home() / "reconstructions", "AUTOSPARSE_HOME")
    file, done = home / f"{key}.safetensors", home / f"{key}.layers"
    with exclusive(home / f"{key}.lock", progress):
        if not file.exists():
            done.mkdir(exist_ok=True)
            torch.set_num_threads(usable_cores())
            module = _dense(subject, weights)
            found = reconstruct_alone(
                module,
                wanted,
                _calibration(subject, settings),
                settings=settings,
                done=done,
                progress=progress,
            )
            found.save(file)
        shutil.rmtree(done, ignore_errors=True)  # a kill after `save` left it, too
    return file


def reconstruct_plans(
    subject: Survey, run: RunFolder, plans: Iterable[Plan], weights: Path, progress: Progress
) -> dict[str, Path]:
    """Reconstructs whole plans, layer by layer, and writes their weights; those written stay.

    Args:
        subject: of the run.
        run: whose folder gets the files.
        plans: configurations that are not trained.
        weights: dense weights.
        progress: told of every layer.

    Returns:
        Plan id to file, for the plans that prune anything.
    """
    torch.set_num_threads(usable_cores())
    found = {}
    for plan in plans:
        if not plan.is_sparse:
            continue
        file = run.folder("reconstructed") / f"{plan.id}.safetensors"
        if not file.exists():
            module = _dense(subject, weights)
            seed = subject.config.seed
            reconstructed(module, plan, subject.images, seed=seed, progress=progress)
            write_state_dict(file, module, plan)
        found[plan.id] = file
    return found


def _dense(subject: Survey, weights: Path) -> torch.nn.Module:
    loaded = models.resolve(
        subject.config.model, classes=subject.classes, weights=weights, seed=subject.config.seed
    )
    return loaded.module


def _calibration(
    subject: Survey, settings: ReconstructionSettings
) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    return subject.images.train.batches(
        _BATCH_SIZE, shuffle_seed=subject.config.seed, limit=settings.samples
    )
