"""Recipes that fit a data set's size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from autosparse.data.raw import Augmentation
from autosparse.errors import UsageError
from autosparse.records.rules import require
from autosparse.train.recipes import Recipe

TUNED: Mapping[str, Any] = {"ramp": "early"}
"""Settings of SUBP that differ from its source's in `full`.

The source's cubic ramp has enforced an eighth of the sparsity half way, this one seven eighths, so that
what is kept trains longer, and at higher rates, without what is not. ResNet-20 from scratch, CIFAR-10,
15,000 images, 1x16 at 75 %: in 12 epochs 66.2 against 60.8 % of 10,000 test images (three seeds, paired
difference 5.4 +- 2.7 points at 95 %), in 40 epochs 76.9 against 74.8 % (one seed). Under it L1 and BPAR
do not differ (66.2 both); neither do, as far as three seeds show, hard masks (65.6), random regrowth
(66.0) and gradual hard masks (`gmp`, 66.6). Under the source's ramp tau and averaged weights made no
difference (one seed). results/reference/accuracy has the rows.
"""


def dense(samples: int, *, seed: int = 0) -> Recipe:
    """Gives the recipe of a dense baseline for a training split of so many samples.

    AdamW, because it needs no tuning from data set to data set: a ResNet-18 on the 1,295 training
    digits at 32x32 has 97 to 99 % of the validation digits right after 6 epochs, all after 11.
    """
    return Recipe(
        kind="dense",
        epochs=_epochs(10, samples),
        method="dense",
        batch_size=64,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.05,
        warmup_epochs=1.0,
        seed=seed,
    )


def short(samples: int, *, seed: int = 0) -> Recipe:
    """Gives a fine-tune of dense weights under a compressed ramp, for telling configurations apart.

    This is not SUBP, which trains from scratch for long (`full`): half of the target is enforced at
    epoch 0 of 4 and all from epoch 1 on, the learning rate is that of fine-tuning, and a small batch
    makes the most of few samples. A large data set gets no more epochs: each has so many more steps.

    It starts from weights that second-order reconstruction has pruned to the plan (`reconstruct`), and
    ranks blocks by L1, which keeps the blocks that were chosen there. A ResNet-20 with 91.7 % on
    CIFAR-10, fine-tuned on 3,000 of its images, 1x16 at 75 % on all layers but the first and last, came
    to 63.7 % of 10,000 test images; from dense weights to 58.3 %, and by BPAR to 52.6 % (2,000 images;
    one seed each). The more it is trained the less the start counts: after 6 epochs of 15,000 images it
    is 73.7 and 74.3 %, by BPAR from dense weights 71.0 % (one seed each).
    """
    require(samples >= 1, "samples must be at least 1", samples=samples)
    return Recipe(
        kind="short",
        epochs=4,
        method="subp",
        settings={"criterion": "l1", "ramp": "linear", "ramp_start": -0.25, "ramp_end": 0.25},
        batch_size=64,
        lr=0.03,
        reconstruct=True,
        seed=seed,
    )


def full(samples: int, *, seed: int = 0) -> Recipe:
    """Gives SUBP: training from scratch as `paper` does, but for the shape of the ramp (`TUNED`)."""
    return dataclasses.replace(paper(samples, seed=seed), settings=TUNED)


def paper(samples: int, *, seed: int = 0) -> Recipe:
    """Gives SUBP after its source, its epochs scaled to the data set.

    Source: arXiv 2310.06218 and its release: SGD with momentum 0.9 and no Nesterov, learning rate 0.1,
    cosine without warm-up, label smoothing 0.1, weight decay 1e-4 on weights of more than one
    dimension, lambda 2e-4, tau 1, ramp from epoch 10 to 180 of 250 on ImageNet.
    Differs: batches of 128, where the release has 256 and its scripts 512; the cosine falls with every
    step, there with every epoch; BPAR, the source's headline, is the criterion, there L1 by default.
    `autosparse.train.methods.subp` names what differs in the rule itself.
    """
    return Recipe(kind="full", epochs=_epochs(42, samples), from_scratch=True, seed=seed)


def paper_imagenet(samples: int, *, seed: int = 0) -> Recipe:
    """Gives the release's own setting for ImageNet: `paper` at 250 epochs and batches of 256.

    Differs: see `paper`; the release's loaders also jitter colours along their principal axes.
    """
    require(samples >= 1, "samples must be at least 1", samples=samples)
    return Recipe(
        kind="full",
        epochs=250,
        batch_size=256,
        from_scratch=True,
        augmentation=Augmentation(flip=True, crop_area=(0.08, 1.0)),
        seed=seed,
    )


def for_method(method: str, samples: int, *, seed: int = 0) -> Recipe:
    """Gives a full training by any method: from scratch those made for it, others from dense weights.

    `full` but for the method and, where training starts from dense weights, a tenth of its learning
    rate, as each such method's settings say.
    """
    if method == "subp":
        return full(samples, seed=seed)
    scratch = method in ("dense", "gmp", "srste")
    return Recipe(
        kind="full", epochs=_epochs(42, samples), method=method, from_scratch=scratch, seed=seed
    )


def short_tiles(samples: int, *, seed: int = 0) -> Recipe:
    """Gives `short` for tiles of outputs: those that reconstruction chose, fine-tuned from the start.

    What is 2:4 inside of tiles goes on moving.
    """
    settings = {"stages": (1.0,), "last": 1.0, "apriori": 0.0, "finetune_lr": 1.0}
    return dataclasses.replace(short(samples, seed=seed), method="tvw", settings=settings)


def full_tiles(samples: int, *, seed: int = 0) -> Recipe:
    """Gives a full training of tiles from dense weights: in stages, and 2:4 inside at the end."""
    return for_method("tvw", samples, seed=seed)


PRESETS = {
    "dense": dense,
    "short": short,
    "full": full,
    "paper": paper,
    "paper-imagenet": paper_imagenet,
    "short-tiles": short_tiles,
    "full-tiles": full_tiles,
}


def named_recipe(named: str, samples: int, seed: int) -> Recipe:
    """Gives a preset by its name, or reads a recipe from a file.

    Args:
        named: ``short``, ``full``, ``paper``, ``paper-imagenet``, ``short-tiles``, ``full-tiles``,
            ``dense``, or a YAML file.
        samples: of the training split.
        seed: of a preset; that of a file with a seed of its own is the file's.

    Raises:
        UsageError: there is no such preset or file, or it breaks a rule.
    """
    if named in PRESETS:
        return PRESETS[named](samples, seed=seed)
    if not named.endswith((".yaml", ".yml")):
        raise UsageError(
            f"a recipe must be one of {', '.join(PRESETS)}, or a YAML file, but got {named!r}"
        )
    return Recipe.load(named)


def _epochs(base: int, samples: int) -> int:
    """Scales epochs with the fourth root of the samples in thousands: 42 become 250 on ImageNet."""
    require(samples >= 1, "samples must be at least 1", samples=samples)
    return max(base, int(base * (samples / 1000) ** 0.25 + 0.5))
