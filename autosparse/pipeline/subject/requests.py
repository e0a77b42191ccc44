"""What the stages are asked for in a run: each request made from the run's subject, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autosparse import models
from autosparse.config import SearchConfig
from autosparse.errors import RunError, UsageError
from autosparse.hardware import usable_cores
from autosparse.measuring.stopwatch import WHOLE
from autosparse.pipeline.measured.ledger import Ledger
from autosparse.pipeline.measured.session import Contestant, SessionRequest
from autosparse.pipeline.subject.arrangement import Arrangement
from autosparse.pipeline.subject.survey import Survey
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice
from autosparse.run_folders import RunFolder
from autosparse.searching.parallel import Pool
from autosparse.searching.pool import AbstractPool
from autosparse.searching.storage import check_study
from autosparse.train.baseline import baseline, find_baseline
from autosparse.train.check import check_plan
from autosparse.train.evaluate import OneShotEvaluator
from autosparse.train.job import TrainJob, TrainResult
from autosparse.train.presets import named_recipe
from autosparse.train.recipes import Recipe

# Validation samples per evaluation in the search, and in its many one-layer evaluations.
_EVALUATION_LIMIT = 2_000


def dense_weights(subject: Survey, progress: Progress) -> Path:
    """Gives the dense weights: the user's, or a baseline trained once and kept."""
    config = subject.config
    if config.weights is not None:
        return config.weights
    found = baseline(
        config.model,
        config.data,
        **_baseline_of(subject),
        threads=usable_cores(),
        images=subject.images,
        progress=progress,
    )
    return Path(found.weights)


def known_dense_weights(subject: Survey) -> Path:
    """Gives the baseline that was trained for this subject, and trains none.

    Raises:
        RunError: there is none.
    """
    found = find_baseline(subject.config.model, subject.config.data, **_baseline_of(subject))
    if found is None:
        raise RunError(
            f"the dense weights of {subject.config.model} must be there, but this user's home has no "
            "baseline of it; name weights, or train the configuration: autosparse train RUN --pick ID"
        )
    return Path(found.weights)


def _baseline_of(subject: Survey) -> dict[str, Any]:
    return {
        "resolution": subject.data_resolution,
        "channels": subject.input_shape[0],
        "classes": subject.classes,
        "seed": subject.config.seed,
    }


def evaluator_for(subject: Survey, weights: Path, alternatives: Path | None = None) -> OneShotEvaluator:
    """Gives the callable that evaluates plans without training, its model loaded in this process.

    Args:
        subject: of the run.
        weights: dense weights.
        alternatives: layers reconstructed alone, which plans are stitched from; None masks.
    """
    evaluator = OneShotEvaluator(
        model=subject.config.model,
        weights=str(weights.resolve()),
        data=subject.config.data,
        resolution=subject.data_resolution,
        channels=subject.input_shape[0],
        classes=subject.classes,
        limit=_EVALUATION_LIMIT,
        alternatives=None if alternatives is None else str(alternatives),
        seed=subject.config.seed,
    )
    evaluator.open(subject.images)
    return evaluator


def ledger_for(
    subject: Survey,
    run: RunFolder,
    pool: AbstractPool,
    weights: Path,
    evaluate: OneShotEvaluator,
    progress: Progress,
) -> Ledger:
    """Gives a run's whole-model figures, those of earlier processes among them."""
    return Ledger(
        run.path / "sessions.jsonl",
        session_request(subject),
        str(weights.resolve()),
        pool,
        evaluate,
        progress,
        dtypes=subject.dtypes,
        host=subject.host,
    )


def study_subject(subject: Survey) -> dict[str, str]:
    """Gives all that a study is about, as it is typed: with anything else it cannot be continued."""
    space = subject.space.model_dump(mode="json", exclude={"version", "study"})
    typed = subject.config.to_plain()
    keys = ("model", "weights", "data", "data_resolution", "latency_budget", "dtype", "compact_weights")
    return {
        **{key: str(typed[key]) for key in keys},
        **{f"the space's {key}": str(value) for key, value in space.items()},
        "input_shape": "x".join(map(str, subject.input_shape)),
        "batch_size": str(subject.config.batch_size),
        "threads": str(subject.threads),
        "host": subject.device.id,
    }


def check_study_of(subject: Survey) -> None:
    """Refuses a study that was started with something else; see `searching.storage.check_study`."""
    config = subject.config
    check_study(config.storage, config.study_name, study_subject(subject))


def session_request(subject: Survey) -> SessionRequest:
    """Gives what all measuring sessions of a run have in common."""
    config = subject.config
    return SessionRequest(
        model=config.model,
        classes=subject.classes,
        input_shape=subject.input_shape,
        batch_size=config.batch_size,
        threads=subject.threads,
        contestants=(),
        policy=WHOLE,
        database=subject.database,
        seed=config.seed,
        compact_weights=config.compact_weights,
        judged=config.judged,
        budget_us=config.latency_budget,
        device=subject.device.named,
    )


def train_job(
    subject: Survey,
    plan: Plan,
    recipe: Recipe,
    weights: Path,
    folder: Path,
    device: str,
    workers: int = 1,
) -> TrainJob:
    """Gives the training of one configuration."""
    return TrainJob(
        model=subject.config.model,
        weights=str(weights.resolve()),
        data=subject.config.data,
        resolution=subject.data_resolution,
        plan=plan,
        recipe=recipe,
        folder=str(folder.absolute()),
        channels=subject.input_shape[0],
        classes=subject.classes,
        seed=subject.config.seed,
        device=device,
        workers=workers,
    )


def recipe_for(subject: Survey, kind: str, named: str | None = None) -> Recipe:
    """Gives how configurations of a subject are trained.

    Args:
        subject: says how many images there are, and the seed.
        kind: ``short`` or ``full``: the preset, where none is named; that for tiles, where layers
            become nothing else.
        named: a preset or a YAML file.

    Raises:
        UsageError: there is no such preset or file, or it is of another kind.
    """
    usual = f"{kind}-tiles" if subject.has_tiles else kind
    recipe = named_recipe(named or usual, len(subject.images.train), subject.config.seed)
    if recipe.kind != kind:
        raise UsageError(
            f"a recipe must be of the kind asked for, {kind}, but {named} is of kind {recipe.kind}; "
            "change one of them"
        )
    return recipe


def arrangement_of(config: SearchConfig) -> Arrangement:
    """Gives where a run's own trainings go.

    Raises:
        UsageError: see `Arrangement.of`.
    """
    return Arrangement.of(
        config.train_device,
        config.train_workers,
        share=config.share_training,
        reach=config.share_reach,
    )


def check_training(subject: Survey) -> None:
    """Refuses a recipe or a device that trainings of a run could not have.

    Raises:
        UsageError: there is no such recipe or device, or they do not go together.
        PlanError: the recipe's method cannot train a pattern that the run may choose.
    """
    config = subject.config
    arrangement_of(config).places()
    if config.train != "none":
        check_trainable(
            subject, recipe_for(subject, config.train, config.recipe), _possible_plans(subject)
        )
    elif config.recipe is not None:
        raise UsageError(
            f"a recipe goes with training, but train is none and recipe {config.recipe}; drop one"
        )


def check_trainable(subject: Survey, recipe: Recipe, plans: Iterable[Plan]) -> None:
    """Refuses plans that a recipe's method cannot train.

    Raises:
        PlanError: the method cannot train a pattern; says which method can.
    """
    config = subject.config
    module = models.resolve(config.model, classes=subject.classes, seed=config.seed).module
    for plan in plans:
        check_plan(module, plan, recipe)


def _possible_plans(subject: Survey) -> list[Plan]:
    """Gives a plan of one layer for every choice that the run may make: one that can run here."""
    catalogues = [subject.tune_request(dtype).catalogue(subject.device) for dtype in subject.dtypes]
    shapes = {layer.name: layer.shape for layer in subject.layers}
    choices: dict[LayerChoice, str] = {}
    for scope in subject.scopes:
        if (shape := shapes[scope.name]) is None:
            continue
        for choice in scope.choices:
            if any(known.kernels(shape, choice.pattern) for known in catalogues):
                choices.setdefault(choice, scope.name)
    return [Plan(model=subject.config.model, layers={name: choice}) for choice, name in choices.items()]


def weights_in(run: Path, result: TrainResult) -> str:
    """Gives the file of trained weights relative to the folder of the run that holds it."""
    return relative_to(run, Path(result.weights))


def relative_to(run: Path, file: Path) -> str:
    """Gives a file relative to the folder of the run that holds it."""
    return str(file.absolute().relative_to(run.absolute()))


def pool_for(subject: Survey, run: RunFolder, progress: Progress) -> Pool:
    """Starts the workers of a run, or joins the cluster it names."""
    with progress.step("start workers"):
        return Pool(
            cores=max(subject.config.parallel or usable_cores(), subject.threads),
            address=subject.config.address,
            log_folder=run.folder("logs"),
        )


def contestant(plan: Plan, pruned: Path | str | None, weights: Path) -> Contestant:
    """Gives a configuration as it would be deployed: its own weights, or dense ones to be pruned.

    Args:
        plan: of the configuration.
        pruned: file of its own weights, zeros in place; None without.
        weights: dense weights.
    """
    return Contestant(
        name=plan.id,
        weights=str(pruned or weights),
        plan=plan,
        pruned=pruned is not None,
        dtype=plan.dtype,
    )
