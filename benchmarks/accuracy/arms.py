"""What the accuracy study trains: every arm is a pattern, a method and its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCALES = ("small", "full", "tuning", "trained")
# The start and end of the ramp as in the source: epochs 10 and 180 of 250.
_RAMP = {"ramp_start": 0.04, "ramp_end": 0.72}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train.

    Attributes:
        name: short, as tables show it.
        pattern: its label; ``dense`` prunes nothing.
        method: of `autosparse.train.methods`.
        settings: of the method, where they differ from its defaults.
        sparsities: that the arm is trained at.
        recipe: keys of the recipe that differ.
        epochs: share of the budget, where an epoch costs more than the others' do.
        decisive: whether the scaled-down study trains it with every seed, at 75 %.
        trained: whether it starts from trained weights, which `--weights` names.
    """

    name: str
    pattern: str
    method: str = "subp"
    settings: Mapping[str, Any] = field(default_factory=dict)
    sparsities: tuple[float, ...] = (0.75, 0.5, 0.875)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    epochs: float = 1.0
    decisive: bool = False
    trained: bool = False

    @property
    def needs_weights(self) -> bool:
        """Whether trained weights are its start or its teacher."""
        return self.trained or "distill" in self.recipe


def subp(name: str, pattern: str, *, decisive: bool = False, **settings: Any) -> Arm:
    """An arm of SUBP's full method, or of one that differs from it in the settings named."""
    return Arm(name=name, pattern=pattern, settings={**_RAMP, **settings}, decisive=decisive)


# Half of the budget trains the dense model, so that pre-training is counted.
_TRAINED_FIRST = {"pretrain": 0.5}

ARMS: tuple[Arm, ...] = (
    subp("subp 1x16", "1x16", decisive=True),
    Arm(
        name="onexn 1x16",
        pattern="1x16-layerwide",
        method="onexn",
        settings=_TRAINED_FIRST,
        decisive=True,
    ),
    # The source fine-tunes at a tenth of the rate, after hundreds of epochs: is it that?
    Arm(
        name="onexn 1x16, full rate",
        pattern="1x16-layerwide",
        method="onexn",
        settings={**_TRAINED_FIRST, "finetune_lr": 1.0},
        sparsities=(0.75,),
        decisive=True,
    ),
    subp("subp filter", "filter", decisive=True),
    subp("hard 1x16", "1x16", soft=False, decisive=True),
    subp("subp 1x16, L1", "1x16", criterion="l1", decisive=True),
    Arm(name="dense", pattern="dense", method="dense", sparsities=(0.0,)),
    subp("subp 1x16 layer-wide", "1x16-layerwide"),
    subp("subp 1x16, random regrowth", "1x16", regrow="random"),
    subp("subp 1x8", "1x8"),
    subp("subp 1x4", "1x4"),
    subp("subp unstructured", "unstructured"),
    Arm(name="srste 1:4", pattern="1:4", method="srste", sparsities=(0.75,)),
    Arm(name="srste 2:4", pattern="2:4", method="srste", sparsities=(0.5,)),
    Arm(name="tw16", pattern="tw16-ranked", method="tw", settings=_TRAINED_FIRST),
    Arm(name="tvw16", pattern="tvw16-ranked", method="tvw", settings=_TRAINED_FIRST),
    Arm(name="onexn filter", pattern="filter", method="onexn", settings=_TRAINED_FIRST),
    Arm(name="gmp 1x16", pattern="1x16", method="gmp", settings=_RAMP, decisive=True),
)

BASE = ARMS[0].name


def tuned(
    name: str, *, epochs: float = 1.0, recipe: Mapping[str, Any] | None = None, **settings: Any
) -> Arm:
    """The base arm but for some settings or keys of the recipe, at 75 %."""
    return Arm(
        name=f"{BASE}, {name}",
        pattern="1x16",
        settings={**_RAMP, **settings},
        sparsities=(0.75,),
        recipe=recipe or {},
        epochs=epochs,
    )


# What may be better than the release's settings, each against the base, which comes first.
TUNING: tuple[Arm, ...] = (
    dataclasses.replace(ARMS[0], sparsities=(0.75,)),
    tuned("tau 0.1", tau=0.1),
    tuned("early ramp", ramp="early"),
    tuned("ramp to a half", ramp_end=0.5),
    tuned("early ramp, L1", ramp="early", criterion="l1"),
    tuned("early ramp, hard", ramp="early", soft=False),
    tuned("early ramp, random regrowth", ramp="early", regrow="random"),
    tuned("linear ramp", ramp="linear"),
    tuned("early ramp to a half, L1", ramp="early", ramp_end=0.5, criterion="l1"),
    tuned("averaged", recipe={"ema": 0.99}),
    # The teacher's forward pass is a third of a step more; it may have seen more images than the rest.
    tuned("distilled", epochs=0.75, recipe={"distill": 0.5}),
    tuned("without smoothing", recipe={"label_smoothing": 0.0}),
    tuned("alpha 0.3", alpha=0.3),
)


# Trained weights are pruned with half of the budget to mend them; each method has a base.
FINETUNED = "fine-tuned onexn 1x16"
SHORT = "fine-tuned subp 1x16"


def finetuned(name: str, *, settings: Mapping[str, Any] | None = None, **recipe: Any) -> Arm:
    """An arm of one shot and fine-tuning, or of SUBP's compressed ramp (the preset ``short``)."""
    of_subp = name.startswith(SHORT)
    short = {"criterion": "l1", "ramp": "linear", "ramp_start": -0.25, "ramp_end": 0.25}
    return Arm(
        name=name,
        pattern="1x16" if of_subp else "1x16-layerwide",
        method="subp" if of_subp else "onexn",
        settings={**(short if of_subp else {"finetune_lr": 1.0}), **(settings or {})},
        sparsities=(0.75,),
        recipe={"from_scratch": False, "lr": 0.03, **recipe},
        epochs=0.5,
        trained=True,
    )


TRAINED: tuple[Arm, ...] = (
    finetuned(FINETUNED),
    finetuned(f"{FINETUNED}, filters by norm", rearrange="l1"),
    finetuned(f"{FINETUNED}, filters by what is kept", rearrange="kept"),
    finetuned(SHORT),
    finetuned(f"{SHORT}, reconstructed", reconstruct=True),
    finetuned(f"{SHORT}, BPAR", settings={"criterion": "bpar"}),
)


def wanted(scale: str, seeds: int) -> list[tuple[Arm, float, int]]:
    """Gives arm, sparsity and seed of all trainings, those first that decide most.

    Args:
        scale: ``full`` trains every arm at all its sparsities with every seed; ``small`` the decisive
            arms at 75 % with every seed, and everything else with one; ``tuning`` what is set against
            the base, and ``trained`` what starts from trained weights, with every seed.
        seeds: how many.
    """
    arms = {"tuning": TUNING, "trained": TRAINED}.get(scale, ARMS)
    found = [
        (arm, sparsity, seed) for arm in arms for sparsity in arm.sparsities for seed in range(seeds)
    ]

    def order(entry: tuple[Arm, float, int]) -> tuple[int, ...]:
        arm, sparsity, seed = entry
        main = sparsity in (0.75, arm.sparsities[0])
        return (not (arm.decisive and main), not main, seed, arm.sparsities.index(sparsity))

    if scale == "small":
        found = [(a, s, n) for a, s, n in found if n == 0 or (a.decisive and s == 0.75)]
    return sorted(found, key=order)
