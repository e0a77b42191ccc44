"""Samplers by name: what draws the knobs of the next trial.

A sampler is made anew for every draw, from a seed that belongs to this draw. So a study that was
stopped between rounds draws what an uninterrupted one would have, although no random state is stored.
(Killed within a round, it goes on from the same results in another order, which some samplers heed.)

Optuna is loaded when a sampler is made, so that names can be checked without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from autosparse.errors import ConfigError

if TYPE_CHECKING:
    import optuna


def tpe(seed: int, startup_trials: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator: multi-objective, constrained, aware of running trials."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials)


def nsga2(seed: int, startup_trials: int) -> optuna.samplers.BaseSampler:
    """NSGA-II with constrained domination; `startup_trials` is its population."""
    import optuna

    return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, startup_trials))


def random(seed: int, startup_trials: int) -> optuna.samplers.BaseSampler:
    """Uniform random draws: the baseline that others have to beat."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[int, int], optuna.samplers.BaseSampler]] = {
    "nsga2": nsga2,
    "random": random,
    "tpe": tpe,
}


def make(name: str, *, seed: int, draw: int, startup_trials: int) -> optuna.samplers.BaseSampler:
    """Makes the sampler for one draw.

    Args:
        name: key of `SAMPLERS`.
        seed: the study's seed.
        draw: how many draws the study has made before.
        startup_trials: told trials before the sampler trusts its model.

    Raises:
        ConfigError: no sampler has this name.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"a sampler must be one of {', '.join(SAMPLERS)}, but got {name!r}")
    digest = hashlib.sha256(f"{seed}/{draw}".encode()).digest()
    return SAMPLERS[name](int.from_bytes(digest[:4], "big"), startup_trials)
