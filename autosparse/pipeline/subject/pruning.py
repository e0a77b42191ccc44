"""What `autosparse prune` is about: a request, and what follows from it before any work."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from autosparse import data, graph, models
from autosparse.data import ImageData
from autosparse.deploy.endings import TORCH_ENDINGS
from autosparse.errors import UsageError
from autosparse.models.weight_files import check_weights
from autosparse.patterns import CRITERIA, Criterion, parse_pattern
from autosparse.plans.plan import Plan, why_dense
from autosparse.progress import Progress
from autosparse.records import LayerInfo, Record
from autosparse.records.rules import require, require_at_least
from autosparse.storage.paths import check_writable
from autosparse.train.check import check_module, check_plan
from autosparse.train.methods.method import all_methods
from autosparse.train.placing import train_devices
from autosparse.train.presets import for_method, named_recipe
from autosparse.train.recipes import Recipe

UNTRAINED = ("magnitude", "obs")
_LEAST_RESOLUTION = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest(Record):
    """What shall be pruned how.

    Attributes:
        model: model source, as `autosparse.models.resolve` takes it.
        output: file of the pruned weights: ``.safetensors``, ``.pt`` or ``.pth``.
        weights: file of dense weights; None takes a baseline, trained once.
        data: data set, as `autosparse.data.resolve` takes it.
        data_resolution: height and width of images; None is the data set's own, at least 32.
        pattern: of every layer that is pruned, such as ``1x16``; or
        plan: a YAML file with a pattern and a sparsity per layer.
        sparsity: fraction of units that go, of every such layer.
        include: patterns of layer names that are pruned; empty is all but the first convolution and
            the last layer, which the sources of the methods leave dense.
        exclude: patterns of layer names that stay dense.
        method: ``magnitude`` masks, ``obs`` reconstructs too, and all others train.
        criterion: importance of a unit for ``magnitude``.
        rearrange: whether similar filters become neighbours first, sorted by ``l1`` norm or so that
            masks keep most (``kept``); of methods that train, the recipe says so.
        samples: training images that ``obs`` looks at.
        recipe: name of a preset or a YAML file, where something is trained; None is a full training by
            the method.
        change: keys of the recipe set anew, such as ``epochs=20`` or ``settings.tau=0.1``.
        train_device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        dtype: arithmetic type that accuracies are of.
        seed: of data split, training and calibration.
        overwrite: whether an existing file is replaced.
    """

    model: str
    output: str
    weights: str | None = None
    data: str = "digits"
    data_resolution: int | None = None
    pattern: str | None = None
    plan: str | None = None
    sparsity: float | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    method: str = "obs"
    criterion: Criterion = "l1"
    rearrange: Literal["none", "l1", "kept"] = "none"
    samples: int = 512
    recipe: str | None = None
    change: tuple[str, ...] = ()
    train_device: str = "auto"
    dtype: Literal["f32", "bf16"] = "f32"
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        known = (*UNTRAINED, *all_methods())
        require(self.method in known, f"method must be one of {', '.join(known)}", method=self.method)
        require(
            (self.pattern is None) != (self.plan is None),
            "either a pattern or a plan says what becomes of layers",
            pattern=self.pattern,
            plan=self.plan,
        )
        require(
            (self.pattern is None) == (self.sparsity is None),
            "a sparsity goes with a pattern, and a plan has its own",
            pattern=self.pattern,
            sparsity=self.sparsity,
        )
        require(
            self.sparsity is None or 0 <= self.sparsity <= 1,
            "sparsity must lie in [0, 1]",
            sparsity=self.sparsity,
        )
        require(
            self.criterion in CRITERIA,
            f"criterion must be one of {', '.join(CRITERIA)}",
            criterion=self.criterion,
        )
        orders = ("none", "l1", "kept")
        require(
            self.rearrange in orders,
            f"rearrange must be one of {', '.join(orders)}",
            rearrange=self.rearrange,
        )
        require_at_least(1, self, "samples")
        untrained = self.method in UNTRAINED
        require(
            not untrained or (self.recipe is None and not self.change),
            f"a recipe goes with a method that trains, not with {self.method}",
            recipe=self.recipe,
            change=self.change,
        )
        require(
            untrained or self.rearrange == "none",
            "where something is trained the recipe says whether filters are rearranged; write "
            "--set rearrange=l1",
            rearrange=self.rearrange,
        )


@dataclass(frozen=True, kw_only=True)
class PruneSubject:
    """A request, settled.

    Attributes:
        request: what was asked for.
        plan: what every layer becomes.
        images: the data set.
        resolution: height and width of its images.
        channels: of the images.
        classes: outputs of the model.
        recipe: of the training, None where nothing is trained.
        device: where is trained.
        left_dense: layers that were asked for and cannot be sparse, with the reasons.
    """

    request: PruneRequest
    plan: Plan
    images: ImageData
    resolution: int
    channels: int
    classes: int
    recipe: Recipe | None
    device: str
    left_dense: Mapping[str, str]


def settle(request: PruneRequest, progress: Progress) -> PruneSubject:
    """Refuses what cannot work, before anything is trained.

    Raises:
        UsageError: something asked for cannot be meant.
    """
    _check_files(request)
    device, *_ = train_devices(request.train_device)
    images = data.resolve(
        request.data, resolution=request.data_resolution, seed=request.seed, progress=progress
    )
    loaded = models.resolve(
        request.model,
        classes=images.classes,
        weights=None if request.weights is None else Path(request.weights),
        seed=request.seed,
    )
    channels, *_ = loaded.input_shape
    resolution = request.data_resolution or max(int(images.resolution), _LEAST_RESOLUTION)
    if (images.resolution, images.channels) != (resolution, channels):
        images = data.resolve(
            request.data, resolution=resolution, channels=channels, seed=request.seed, progress=progress
        )
    sample = torch.zeros(1, channels, resolution, resolution)
    layers = graph.capture_layers(loaded.module, (sample,))
    plan = _plan(request, layers)
    recipe = _recipe(request, len(images.train))
    if recipe is not None:
        check_plan(loaded.module, plan, recipe)
    check_module(loaded.module, images.train, loaded.classes, trains=recipe is not None)
    return PruneSubject(
        request=request,
        plan=plan,
        images=images,
        resolution=resolution,
        channels=channels,
        classes=loaded.classes,
        recipe=recipe,
        device=device,
        left_dense=_left_dense(request, plan, layers),
    )


def _check_files(request: PruneRequest) -> None:
    models.check_source(request.model)
    data.check_source(request.data)
    if request.weights is not None:
        check_weights(Path(request.weights))
    target = Path(request.output)
    endings = (".safetensors", *TORCH_ENDINGS)
    if target.suffix not in endings:
        raise UsageError(
            f"weights are written to a file that ends in {', '.join(endings)}, but got {target}"
        )
    if target.exists() and not request.overwrite:
        raise UsageError(f"a file is replaced only on demand, but {target} exists; write --force")
    check_writable(target.absolute().parent, "the folder of the weights")


def _plan(request: PruneRequest, layers: Sequence[LayerInfo]) -> Plan:
    if request.plan is not None:
        plan = Plan.load(request.plan)
        plan.check(layers)
        plan.check_patterns(layers)
        return plan
    assert request.pattern is not None and request.sparsity is not None
    chosen = _chosen(request, layers)
    if not chosen:
        raise UsageError(
            "at least one layer must be pruned, but include and exclude leave none of "
            f"{', '.join(layer.name for layer in layers)}"
        )
    return Plan.uniform(
        request.model,
        chosen,
        pattern=request.pattern,
        sparsity=request.sparsity,
        dtype=request.dtype,
    )


def _left_dense(request: PruneRequest, plan: Plan, layers: Sequence[LayerInfo]) -> dict[str, str]:
    if request.pattern is None:
        return {}
    pattern = parse_pattern(request.pattern)
    return {
        layer.name: "; ".join(why_dense(layer, pattern))
        for layer in _chosen(request, layers)
        if layer.name not in plan.layers
    }


def _chosen(request: PruneRequest, layers: Sequence[LayerInfo]) -> list[LayerInfo]:
    return [layer for layer in layers if _is_chosen(layer.name, request, layers)]


def _is_chosen(name: str, request: PruneRequest, layers: Sequence[LayerInfo]) -> bool:
    if any(fnmatch.fnmatchcase(name, glob) for glob in request.exclude):
        return False
    if request.include:
        return any(fnmatch.fnmatchcase(name, glob) for glob in request.include)
    return name not in (layers[0].name, layers[-1].name)


def _recipe(request: PruneRequest, samples: int) -> Recipe | None:
    if request.method in UNTRAINED:
        return None
    if request.recipe is None:
        recipe = for_method(request.method, samples, seed=request.seed)
    else:
        recipe = named_recipe(request.recipe, samples, request.seed)
    if recipe.method != request.method:
        raise UsageError(
            f"a recipe must be of the method asked for, {request.method}, but {request.recipe} is of "
            f"{recipe.method}; write --method {recipe.method}"
        )
    return recipe.with_changes(request.change)
