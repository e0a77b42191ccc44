"""How a model is trained: one frozen record, read from YAML or filled by `autosparse.train.presets`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from autosparse.data.raw import Augmentation
from autosparse.errors import UsageError
from autosparse.records import Record, short_hash
from autosparse.records.rules import require, require_at_least
from autosparse.storage.files import write_text
from autosparse.storage.serial import added
from autosparse.storage.yaml_text import YamlError, parse_yaml, read_mapping
from autosparse.train.methods.method import MethodSettings, Phase, read_settings
from autosparse.train.schedules import SCHEDULES, Schedule, factor, phase_at

Kind = Literal["dense", "short", "full"]
KINDS = ("dense", "short", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Record):
    """All that decides a training run besides the model, the data and the plan.

    Attributes:
        kind: what an accuracy reached this way is called in every output.
        epochs: passes over the training split, counted from 0.
        method: how masks come about, a file of `autosparse/train/methods`.
        settings: of the method; what is left out has the method's default.
        batch_size: samples per step, over all processes and accumulated parts.
        accumulate: parts that the samples of a step are run in, one after the other, to save memory.
        optimizer: ``sgd`` (with `momentum`, `nesterov`) or ``adamw``.
        lr: highest learning rate of the first phase.
        momentum: of SGD; AdamW uses its own.
        nesterov: of SGD.
        weight_decay: on weights with more than one dimension only, masked ones included.
        clip_norm: largest norm of all gradients together; 0 is none.
        schedule: how the rate falls, see `autosparse.train.schedules`.
        warmup_epochs: epochs over which the learning rate rises linearly first.
        label_smoothing: in [0, 1).
        mixup: alpha of mixup's beta distribution; 0 is none. Source: arXiv 1710.09412.
        cutmix: the same of cutmix; of both, one is drawn per batch. Source: arXiv 1905.04899.
        distill: weight of the dense model's soft outputs in the loss, in [0, 1]; 0 is none. Source:
            Hinton et al., arXiv 1503.02531.
        temperature: that those are softened with.
        loss: ``path/to/file.py:function`` of a loss of one's own, called with the model's whole output
            and the labels; None is cross-entropy of the main logits.
        augment: whether training images are varied.
        augmentation: how; None is the data set's own way.
        ema: decay of the moving average of weights that is evaluated and saved; 0 is none.
        autocast: ``bf16`` runs forward passes in mixed precision where the device can.
        recalibrate_batches: training batches to recompute batch-norm statistics with at the end;
            0 keeps those of the training.
        from_scratch: whether initial weights are drawn at random although others were given.
        rearrange: whether similar filters of trained weights become neighbours first: sorted by ``l1``
            norm, as the 1xN paper does, or so that masks of the plan's patterns keep most (``kept``).
            The new order is saved beside the weights, which are in it.
        reconstruct: whether training starts from weights that second-order reconstruction has pruned to
            the plan (`autosparse.reconstruct`).
        seed: decides initial weights, shuffling, augmentation, dropout and regrowth.
    """

    kind: Kind
    epochs: int
    method: str = "subp"
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 128
    accumulate: int = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    distill: float = 0.0
    temperature: float = 4.0
    loss: str | None = None
    augment: bool = True
    ema: float = 0.0
    autocast: Literal["off", "bf16"] = "off"
    recalibrate_batches: int = 0
    from_scratch: bool = False
    rearrange: Literal["none", "l1", "kept"] = "none"
    reconstruct: bool = False
    seed: int = 0
    augmentation: Augmentation | None = added(None)

    def __post_init__(self) -> None:
        found = read_settings(self.method, self.settings)
        # Complete, so that a recipe's hash says what a training really did.
        object.__setattr__(self, "settings", found.to_json())
        self._check_ranges()
        self._check_together()
        first = found.first_final_epoch(self.epochs)
        require(
            first < self.epochs,
            "masks must be final before the last epoch ends, so that there is a model to choose, and "
            f"those of {self.method} are from epoch {first} on; take more epochs or an earlier end",
            epochs=self.epochs,
        )

    def _check_ranges(self) -> None:
        require_at_least(1, self, "epochs", "batch_size", "accumulate")
        for name in ("lr", "temperature"):
            value = getattr(self, name)
            require(value > 0 and math.isfinite(value), f"{name} must be above 0", **{name: value})
        for name in (
            *("weight_decay", "warmup_epochs", "recalibrate_batches", "momentum"),
            *("clip_norm", "mixup", "cutmix"),
        ):
            value = getattr(self, name)
            require(value >= 0 and math.isfinite(value), f"{name} must be at least 0", **{name: value})
        for name in ("label_smoothing", "ema"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} must lie in [0, 1)", **{name: value})
        require(0 <= self.distill <= 1, "distill must lie in [0, 1]", distill=self.distill)
        for name, known in (
            *(("kind", KINDS), ("optimizer", ("sgd", "adamw"))),
            *(("schedule", SCHEDULES), ("autocast", ("off", "bf16"))),
            ("rearrange", ("none", "l1", "kept")),
        ):
            value = getattr(self, name)
            require(value in known, f"{name} must be one of {', '.join(known)}", **{name: value})

    def _check_together(self) -> None:
        require(
            self.augment or self.augmentation is None,
            "augmentation must be left out where augment is false",
            augmentation=self.augmentation,
        )
        require(
            self.warmup_epochs < self.epochs,
            "warmup_epochs must be below epochs",
            warmup_epochs=self.warmup_epochs,
            epochs=self.epochs,
        )
        require(
            self.batch_size % self.accumulate == 0,
            "accumulate must divide batch_size",
            accumulate=self.accumulate,
            batch_size=self.batch_size,
        )
        if self.loss is not None:
            for name in ("label_smoothing", "mixup", "cutmix", "distill"):
                require(
                    getattr(self, name) == 0,
                    f"a loss of one's own is the whole loss, so {name} must be 0 beside it",
                    **{name: getattr(self, name)},
                )

    @property
    def id(self) -> str:
        """Short hash, equal for equal recipes."""
        return short_hash(self.to_json())

    @property
    def rules(self) -> MethodSettings:
        """The method's settings as its own record."""
        return read_settings(self.method, self.settings)

    @property
    def first_final_epoch(self) -> int:
        """First epoch whose masks have the plan's sparsity; only from here on a model is chosen."""
        return self.rules.first_final_epoch(self.epochs)

    def phases(self) -> tuple[Phase, ...]:
        """Gives the stretches of the training, each with a learning rate of its own."""
        return self.rules.phases(self.epochs)

    def lr_at(
        self, epoch: int, step: int, steps: int, phases: tuple[Phase, ...] | None = None
    ) -> float:
        """Gives the learning rate of step `step` of `steps` in an epoch.

        Args:
            epoch: from 0.
            step: from 0.
            steps: per epoch.
            phases: what `phases` gives, where the caller has it.
        """
        phase, end = phase_at(epoch, phases or self.phases(), self.epochs)
        warmup = self.warmup_epochs if phase.warmup_epochs is None else phase.warmup_epochs
        span = end - phase.start
        at = epoch + step / steps - phase.start
        part = factor(self.schedule, at, span, warmup=min(warmup, span / 2), step=1 / steps)
        return self.lr * phase.lr * part

    def with_changes(self, changes: Sequence[str]) -> Self:
        """Gives the recipe with some of its keys, or of its method's, set anew.

        Args:
            changes: such as ``lr=0.05`` or ``settings.tau=0.1``, values as YAML writes them.

        Raises:
            UsageError: no such key, or a value that breaks its rule.
        """
        values = self.to_json()
        values["settings"] = dict(values["settings"])
        for change in changes:
            name, given, text = change.partition("=")
            if not given:
                raise UsageError(f"a change must be KEY=VALUE, but got {change!r}; write lr=0.05")
            where, key = values, name.strip()
            if key.startswith("settings."):
                where, key = values["settings"], key.removeprefix("settings.")
            try:
                where[key] = parse_yaml(text)
            except YamlError as error:
                raise UsageError(f"a change must be KEY=VALUE, but got {change!r}: {error}") from None
        return self.from_json(values)

    def save(self, path: Path | str) -> None:
        """Writes the recipe as YAML."""
        write_text(Path(path), yaml.safe_dump(self.to_json(), sort_keys=False))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a recipe from YAML.

        Raises:
            UsageError: the file is missing, is no mapping, or breaks a rule.
        """
        values = read_mapping(Path(path), "a recipe", UsageError)
        try:
            return cls.from_json(values)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
